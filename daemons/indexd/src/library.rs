//! The index that serves, and the one that is being made beside it.
//!
//! Each is a directory with a number. The file `serving` names the one that serves and the version of the words in it;
//! a directory with a higher number is a rebuild under way, and is gone on with after a restart.

use crate::Config;
use crate::index::Shelf;
use crate::words;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tantivy::TantivyError;
use tantivy::directory::error::OpenReadError;

#[derive(Clone)]
struct Shelves {
    serving: Arc<Shelf>,
    building: Option<(u64, Arc<Shelf>)>,
    number: u64,
}

/// All indexes.
pub(crate) struct Library {
    home: PathBuf,
    config: Config,
    shelves: Mutex<Shelves>,
}

fn failed(what: &str, error: impl std::fmt::Display) -> String {
    format!("{what}: {error}")
}

/// Whether it is the system that failed, not what was read.
fn is_io(error: &TantivyError) -> bool {
    matches!(
        error,
        TantivyError::IoError(_)
            | TantivyError::OpenDirectoryError(_)
            | TantivyError::OpenReadError(OpenReadError::IoError { .. })
    )
}

/// The numbers of the directories there are, ascending.
fn numbers(home: &Path) -> Vec<u64> {
    let entries = std::fs::read_dir(home).into_iter().flatten().flatten();
    let mut all: Vec<u64> = entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    all.sort_unstable();
    all
}

/// Names the index that serves; the old name stands until the new one is on disk.
fn name(home: &Path, number: u64, version: u32) -> Result<(), String> {
    let new = home.join("serving.new");
    let write = || -> std::io::Result<()> {
        let mut file = std::fs::File::create(&new)?;
        writeln!(file, "{number} {version}")?;
        file.sync_all()?;
        std::fs::rename(&new, home.join("serving"))?;
        std::fs::File::open(home)?.sync_all()
    };
    write().map_err(|error| failed("the index's name", error))
}

impl Library {
    /// Opens what is there. What cannot be read is moved aside and made anew.
    pub(crate) fn open(home: &Path, config: &Config) -> Result<Self, String> {
        let text = std::fs::read_to_string(home.join("serving")).unwrap_or_default();
        let mut words = text.split_whitespace();
        let named = words.next().and_then(|word| word.parse::<u64>().ok());
        let version = words.next().and_then(|word| word.parse::<u32>().ok());
        let known = numbers(home);
        let mut number = named.or_else(|| known.first().copied()).unwrap_or(1);
        let mut version = if named.is_some() {
            version.unwrap_or(0)
        } else {
            words::VERSION
        };
        let serving = match Shelf::open(&home.join(number.to_string()), config) {
            Ok(shelf) => shelf,
            // A disk that does not answer says nothing about the index.
            Err(error) if is_io(&error) => return Err(failed("the index", error)),
            Err(error) => {
                let aside = home.join(format!("{number}.damaged"));
                tracing::error!(%error, aside = %aside.display(), "the index is damaged: it is moved aside and made anew");
                let _ = std::fs::remove_dir_all(&aside);
                std::fs::rename(home.join(number.to_string()), &aside)
                    .map_err(|error| failed("moving the damaged index aside", error))?;
                number = known.last().copied().unwrap_or(number).max(number) + 1;
                version = words::VERSION;
                Shelf::open(&home.join(number.to_string()), config)
                    .map_err(|error| failed("a new index", error))?
            }
        };
        name(home, number, version)?;
        for old in known.iter().filter(|old| **old < number) {
            let _ = std::fs::remove_dir_all(home.join(old.to_string()));
        }
        let library = Self {
            home: home.to_owned(),
            config: config.clone(),
            shelves: Mutex::new(Shelves {
                serving: Arc::new(serving),
                building: None,
                number,
            }),
        };
        if version != words::VERSION || known.iter().any(|other| *other > number) {
            library.rebuild()?;
        }
        Ok(library)
    }

    fn shelves(&self) -> Shelves {
        self.shelves
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The one that answers.
    pub(crate) fn serving(&self) -> Arc<Shelf> {
        self.shelves().serving
    }

    /// The one that is being made.
    pub(crate) fn building(&self) -> Option<Arc<Shelf>> {
        self.shelves().building.map(|(_, shelf)| shelf)
    }

    /// Begins a new index beside the present one, or goes on with one that was begun.
    pub(crate) fn rebuild(&self) -> Result<(), String> {
        let mut shelves = self.shelves.lock().unwrap_or_else(PoisonError::into_inner);
        if shelves.building.is_some() {
            return Ok(());
        }
        let number = shelves.number + 1;
        let directory = self.home.join(number.to_string());
        let shelf = Shelf::open(&directory, &self.config).or_else(|_| {
            // It was no use yet.
            std::fs::remove_dir_all(&directory)?;
            Shelf::open(&directory, &self.config)
        });
        let shelf = shelf.map_err(|error| failed("a new index", error))?;
        shelves.building = Some((number, Arc::new(shelf)));
        Ok(())
    }

    /// The new index has all: it serves from now on.
    pub(crate) fn switch(&self, ready: &Arc<Shelf>) -> Result<(), String> {
        let mut shelves = self.shelves.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((number, shelf)) = shelves.building.clone() else {
            return Ok(());
        };
        if !Arc::ptr_eq(&shelf, ready) {
            return Ok(());
        }
        name(&self.home, number, words::VERSION)?;
        let old = std::mem::replace(&mut shelves.serving, shelf);
        shelves.number = number;
        shelves.building = None;
        drop(shelves);
        // Searches under way keep its files open.
        if let Err(error) = std::fs::remove_dir_all(old.directory()) {
            tracing::warn!(%error, "the old index stays until the next start");
        }
        tracing::info!(number, "the new index serves");
        Ok(())
    }
}
