//! One index in its directory.
//!
//! How far it is needs no record of its own: contents of an account are taken in ascending order, so the highest one that is
//! in the index says it, and is committed with it or not at all.

use crate::Config;
use crate::entry;
use crate::reached::Reached;
use crate::schema::{Place, Places, key, prefix};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use store::Content;
use tantivy::directory::MmapDirectory;
use tantivy::schema::IndexRecordOption;
use tantivy::tokenizer::{PreTokenizedString, Token};
use tantivy::{Index, IndexReader, IndexWriter, ReloadPolicy, Searcher, TantivyDocument, Term};
use types::{AccountId, ContentId};

struct Writing {
    writer: IndexWriter,
    used: Instant,
    pending: u64,
}

/// An index that is open.
pub(crate) struct Shelf {
    pub places: Places,
    pub config: Config,
    directory: PathBuf,
    index: Index,
    reader: IndexReader,
    writing: Mutex<Option<Writing>>,
    /// How far it is.
    pub reached: Reached,
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shelf {
    /// Opens it, or makes an empty one.
    pub(crate) fn open(directory: &Path, config: &Config) -> tantivy::Result<Self> {
        std::fs::create_dir_all(directory)?;
        let places = Places::new();
        let files = MmapDirectory::open(directory)?;
        let index = Index::open_or_create(files, places.schema.clone())?;
        let reader = index
            .reader_builder()
            .reload_policy(ReloadPolicy::Manual)
            .doc_store_cache_num_blocks(0)
            .try_into()?;
        let shelf = Self {
            places,
            config: config.clone(),
            directory: directory.to_owned(),
            index,
            reader,
            writing: Mutex::default(),
            reached: Reached::default(),
        };
        shelf.reached.extend(shelf.highest()?);
        Ok(shelf)
    }

    /// The highest content of each account.
    fn highest(&self) -> tantivy::Result<HashMap<AccountId, ContentId>> {
        let mut highest = HashMap::new();
        for segment in self.reader.searcher().segment_readers() {
            let accounts = segment.fast_fields().u64("account")?;
            let contents = segment.fast_fields().u64("content")?;
            for doc in segment.doc_ids_alive() {
                if let (Some(account), Some(content)) = (accounts.first(doc), contents.first(doc)) {
                    let known = highest.entry(AccountId(account)).or_insert(ContentId(0));
                    *known = (*known).max(ContentId(content));
                }
            }
        }
        Ok(highest)
    }

    /// What can be searched now.
    pub(crate) fn searcher(&self) -> Searcher {
        self.reader.searcher()
    }

    /// What it has of an account.
    pub(crate) fn contents(&self, account: AccountId) -> tantivy::Result<Vec<ContentId>> {
        let term = Term::from_field_u64(self.places.account, account.0);
        let mut found = Vec::new();
        for segment in self.reader.searcher().segment_readers() {
            let contents = segment.fast_fields().u64("content")?;
            let inverted = segment.inverted_index(self.places.account)?;
            let Some(info) = inverted.get_term_info(&term)? else {
                continue;
            };
            let postings = inverted.read_postings_from_terminfo(&info, IndexRecordOption::Basic)?;
            crate::query::each_doc(postings, segment.alive_bitset(), |doc| {
                found.extend(contents.first(doc).map(ContentId));
            });
        }
        Ok(found)
    }

    fn write<T>(
        &self,
        work: impl FnOnce(&mut Writing) -> tantivy::Result<T>,
    ) -> tantivy::Result<T> {
        let mut writing = held(&self.writing);
        if writing.is_none() {
            let memory = self.config.memory_mib.clamp(15, 4096) << 20;
            *writing = Some(Writing {
                writer: self.index.writer_with_num_threads(1, memory)?,
                used: Instant::now(),
                pending: 0,
            });
        }
        let Some(open) = writing.as_mut() else {
            return Err(tantivy::TantivyError::InternalError("no writer".to_owned()));
        };
        open.used = Instant::now();
        let done = work(open);
        // What has failed half is forgotten: the last commit stands, and says where to go on.
        if done.is_err() {
            *writing = None;
        }
        done
    }

    /// Takes contents in, each once however often it is given. They can be found after [`Self::commit`]. Returns how many
    /// wait for that.
    pub(crate) fn add(&self, account: AccountId, contents: &[Content]) -> tantivy::Result<u64> {
        self.write(|open| {
            for content in contents {
                let term = Term::from_field_bytes(self.places.key, &key(account, content.id));
                open.writer.delete_term(term);
                open.writer.add_document(self.document(account, content))?;
                open.pending += 1;
            }
            Ok(open.pending)
        })
    }

    /// The document of a content. Each term begins with the account.
    fn document(&self, account: AccountId, content: &Content) -> TantivyDocument {
        let places = &self.places;
        let mut document = TantivyDocument::new();
        document.add_u64(places.account, account.0);
        document.add_u64(places.content, content.id.0);
        document.add_bytes(places.key, &key(account, content.id));
        let prefix = prefix(account);
        let all = entry::gather(&self.config, content, self.config.words);
        for (place, gathered) in Place::ALL.into_iter().zip(all) {
            let token = |token: entry::Token| Token {
                offset_from: 0,
                offset_to: 0,
                position: token.position,
                text: format!("{prefix}{}", token.text),
                position_length: 1,
            };
            if !gathered.tokens.is_empty() {
                let text = PreTokenizedString {
                    text: String::new(),
                    tokens: gathered.tokens.into_iter().map(token).collect(),
                };
                document.add_pre_tokenized_text(places.of(place), text);
            }
        }
        document
    }

    /// Removes contents.
    pub(crate) fn remove(&self, account: AccountId, contents: &[ContentId]) -> tantivy::Result<()> {
        self.write(|open| {
            for content in contents {
                let term = Term::from_field_bytes(self.places.key, &key(account, *content));
                open.writer.delete_term(term);
            }
            open.pending += contents.len() as u64;
            Ok(())
        })
    }

    /// Removes an account, at once and for good: if killed right after, it starts anew from nothing.
    pub(crate) fn forget(&self, account: AccountId) -> tantivy::Result<()> {
        self.reached.forget(account);
        self.write(|open| {
            let term = Term::from_field_u64(self.places.account, account.0);
            open.writer.delete_term(term);
            open.pending += 1;
            Ok(())
        })?;
        self.commit(&[])
    }

    /// Writes what has gathered, and notes what each account is covered to.
    pub(crate) fn commit(&self, reached: &[(AccountId, ContentId)]) -> tantivy::Result<()> {
        let pending = held(&self.writing)
            .as_ref()
            .is_some_and(|open| open.pending > 0);
        if pending {
            self.write(|open| {
                open.writer.commit()?;
                open.pending = 0;
                Ok(())
            })?;
            self.reader.reload()?;
        }
        self.reached.extend(reached.iter().copied());
        Ok(())
    }

    /// Gives the memory for writing back if nothing was written for a while.
    pub(crate) fn rest(&self, idle: Duration) -> tantivy::Result<()> {
        let old = {
            let mut writing = held(&self.writing);
            let idle = |open: &mut Writing| open.pending == 0 && open.used.elapsed() >= idle;
            writing.take_if(idle)
        };
        match old {
            Some(open) => open.writer.wait_merging_threads(),
            None => Ok(()),
        }
    }

    /// Contents that can be found.
    pub(crate) fn documents(&self) -> u64 {
        self.reader.searcher().num_docs()
    }

    /// Octets on disk.
    pub(crate) fn bytes(&self) -> u64 {
        let files = std::fs::read_dir(&self.directory)
            .into_iter()
            .flatten()
            .flatten();
        files
            .filter_map(|file| Some(file.metadata().ok()?.len()))
            .sum()
    }

    /// Where it is.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }
}
