//! What all sources have in common: folders, and messages that come one after the other.

use super::imap::Imap;
use super::maildir::Maildir;
use super::mbox::Mbox;
use crate::failure::Failure;
use std::collections::HashSet;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Messages that are read ahead of each folder's appends.
pub(crate) const AHEAD: usize = 16;

/// A folder of a source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Folder {
    /// How the source finds it.
    pub(crate) at: String,
    /// Its name in Unicode, `/` between levels; INBOX in capitals.
    pub(crate) name: String,
    /// RFC 6154, if the source tells it.
    pub(crate) special_use: Option<String>,
    /// Whether it is subscribed.
    pub(crate) subscribed: bool,
    /// False for names that only hold others.
    pub(crate) selectable: bool,
}

/// A message of a source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Item {
    /// What names it in its folder for good.
    pub(crate) key: String,
    /// As IMAP names them.
    pub(crate) flags: Vec<String>,
    /// INTERNALDATE, seconds since 1970.
    pub(crate) date: i64,
    /// Its octets, lines ending in CRLF.
    pub(crate) octets: Vec<u8>,
}

/// What comes: a message, or why one does not come; `None` as its key: the folder's rest does not come.
pub(crate) type Coming = Result<Item, (Option<String>, String)>;

/// Where mail comes from.
pub(crate) enum Source {
    /// A Maildir.
    Maildir(Maildir),
    /// Mbox files.
    Mbox(Mbox),
    /// Another server.
    Imap(Imap),
}

impl Source {
    /// What names it in state files.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Maildir(maildir) => format!("maildir {}", maildir.root.display()),
            Self::Mbox(mbox) => format!("mbox {}", mbox.root.display()),
            Self::Imap(imap) => format!("imap {} {}", imap.user, imap.server),
        }
    }

    /// All folders, parents first.
    pub(crate) async fn folders(&self) -> Result<Vec<Folder>, Failure> {
        match self {
            Self::Maildir(maildir) => maildir.folders(),
            Self::Mbox(mbox) => mbox.folders(),
            Self::Imap(imap) => imap.folders().await,
        }
    }

    /// How many messages a folder has.
    pub(crate) async fn count(&self, folder: &Folder) -> Result<u64, Failure> {
        match self {
            Self::Maildir(maildir) => maildir.count(folder),
            Self::Mbox(mbox) => mbox.count(folder),
            Self::Imap(imap) => imap.count(folder).await,
        }
    }

    /// Its messages in their order, without those that are done.
    pub(crate) fn read(
        self: &Arc<Self>,
        folder: &Folder,
        done: Arc<HashSet<String>>,
    ) -> mpsc::Receiver<Coming> {
        let (out, coming) = mpsc::channel(AHEAD);
        let source = Arc::clone(self);
        let folder = folder.clone();
        match &**self {
            Self::Imap(_) => {
                tokio::spawn(async move {
                    if let Self::Imap(imap) = &*source {
                        imap.read(&folder, &done, &out).await;
                    }
                });
            }
            _ => {
                tokio::task::spawn_blocking(move || match &*source {
                    Self::Maildir(maildir) => maildir.read(&folder, &done, &out),
                    Self::Mbox(mbox) => mbox.read(&folder, &done, &out),
                    Self::Imap(_) => {}
                });
            }
        }
        coming
    }
}

/// Makes every line end in CRLF, as the store and IMAP have it.
pub(crate) fn crlf(octets: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(octets.len() + octets.len() / 32);
    let mut last = 0;
    for octet in octets {
        if *octet == b'\n' && last != b'\r' {
            out.push(b'\r');
        }
        out.push(*octet);
        last = *octet;
    }
    out
}

/// A folder's full name in the form of the store: levels that are empty, or have spaces at their ends or control characters,
/// are changed as little as possible.
pub(crate) fn name_of<'a>(levels: impl Iterator<Item = &'a str>) -> String {
    let clean = |level: &str| {
        let level: String = level
            .chars()
            .map(|c| match c {
                '/' => '_',
                c if c.is_control() || ('\u{2028}'..='\u{2029}').contains(&c) => '_',
                c => c,
            })
            .collect();
        let level = level.trim();
        if level.is_empty() { "_" } else { level }.to_owned()
    };
    let mut levels: Vec<String> = levels.map(clean).collect();
    if let Some(first) = levels.first_mut()
        && first.eq_ignore_ascii_case("INBOX")
    {
        "INBOX".clone_into(first);
    }
    levels.join("/")
}

/// Makes keywords out of whatever a source has, and leaves out what is none (RFC 9051 9: flag-keyword is an atom).
pub(crate) fn keywords<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for name in names {
        let word: String = name
            .chars()
            .filter(|c| c.is_ascii_graphic() && !"(){%*\"\\]".contains(*c))
            .take(store::Flags::KEYWORD_LENGTH_MAX)
            .collect();
        if !word.is_empty() && found.len() < store::Flags::KEYWORDS_MAX && !found.contains(&word) {
            found.push(word);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_in_crlf_and_nothing_else_changes() {
        assert_eq!(crlf(b"a\nb\r\nc\rd\n\n"), b"a\r\nb\r\nc\rd\r\n\r\n");
        assert_eq!(crlf(b""), b"");
    }

    #[test]
    fn names_become_what_the_store_takes() {
        assert_eq!(name_of(["inbox", " x ", "a/b"].into_iter()), "INBOX/x/a_b");
        assert_eq!(name_of(["", "a\u{7}"].into_iter()), "_/a_");
    }

    #[test]
    fn keywords_are_atoms() {
        let given = ["$Forwarded", "has space", "(", "$Forwarded"];
        assert_eq!(keywords(given.into_iter()), ["$Forwarded", "hasspace"]);
    }
}
