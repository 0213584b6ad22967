//! What survives restarts: our account's address, and for each certificate the order under way and when what is next.
//!
//! Small JSON files, each written whole. Nothing in them is secret, and nothing is lost with them that the authority or keyd would
//! not tell again; an order begun is then begun anew.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Our account at an authority.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Account {
    /// The authority's directory.
    pub(crate) directory: String,
    /// The account's own address (RFC 8555 7.3).
    pub(crate) url: String,
    /// As told last.
    pub(crate) contact: Vec<String>,
}

/// A certificate's next steps. Times are seconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Progress {
    /// The names that the order is for.
    pub(crate) names: Vec<String>,
    /// The address of the order under way.
    pub(crate) order: Option<String>,
    /// The authority's directory that it is at.
    pub(crate) directory: String,
    /// Attempts that failed since the last that did not.
    pub(crate) failures: u32,
    /// Not before.
    pub(crate) retry_at: u64,
    /// Why the last attempt failed.
    pub(crate) trouble: String,
    /// When the one in use came, if it came by us.
    pub(crate) got: u64,
    /// Which certificate the next ones are about: the hash of its leaf.
    pub(crate) of: String,
    /// When it is renewed.
    pub(crate) renew_at: u64,
    /// What the authority suggested (RFC 9773).
    pub(crate) window: Option<(u64, u64)>,
    /// When it is asked again.
    pub(crate) ask_at: u64,
    /// To be ordered regardless of dates: it was revoked, or the operator said so.
    pub(crate) forced: bool,
    /// The digest of the next key that is announced by TLSA records, in hexadecimal.
    pub(crate) announced: String,
    /// When all name servers showed it; 0: not yet.
    pub(crate) announced_seen: u64,
    /// Looks at DNS since records were missing that the operator is to publish; 0: none are.
    pub(crate) waits: u32,
    /// Records that were published for challenges and are to be removed: name and text.
    pub(crate) published: Vec<(String, String)>,
}

/// The state directory.
#[derive(Clone, Debug)]
pub(crate) struct State {
    directory: PathBuf,
}

impl State {
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Our account; none if there is no file, or a damaged one.
    pub(crate) fn account(&self) -> Account {
        self.read("account.json")
    }

    /// # Errors
    /// The file system.
    pub(crate) fn keep_account(&self, account: &Account) -> io::Result<()> {
        self.write("account.json", account)
    }

    /// How far a certificate is.
    pub(crate) fn progress(&self, id: &str) -> Progress {
        self.read(&file(id))
    }

    /// # Errors
    /// The file system.
    pub(crate) fn keep(&self, id: &str, progress: &Progress) -> io::Result<()> {
        self.write(&file(id), progress)
    }

    /// The ids of all certificates that something is kept of.
    pub(crate) fn known(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.directory).into_iter().flatten();
        entries
            .filter_map(|entry| {
                let name = entry.ok()?.file_name().into_string().ok()?;
                let id = name.strip_prefix("certificate-")?.strip_suffix(".json")?;
                Some(id.to_owned())
            })
            .collect()
    }

    pub(crate) fn read<T: DeserializeOwned + Default>(&self, name: &str) -> T {
        read(&self.directory.join(name))
    }

    pub(crate) fn write(&self, name: &str, content: &impl Serialize) -> io::Result<()> {
        write(&self.directory, name, content)
    }

    /// Forgets a certificate.
    ///
    /// # Errors
    /// The file system.
    pub(crate) fn forget(&self, id: &str) -> io::Result<()> {
        fs::remove_file(self.directory.join(file(id)))
    }
}

/// Ids are host names that were checked.
fn file(id: &str) -> String {
    format!("certificate-{id}.json")
}

fn read<T: DeserializeOwned + Default>(path: &Path) -> T {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return T::default(),
        Err(error) => {
            tracing::error!(path = %path.display(), %error, "the file cannot be read: beginning anew");
            return T::default();
        }
    };
    serde_json::from_slice(&text).unwrap_or_else(|error| {
        tracing::error!(path = %path.display(), %error, "the file is damaged: beginning anew");
        T::default()
    })
}

/// All of it or nothing is there after a crash.
fn write(directory: &Path, name: &str, content: &impl Serialize) -> io::Result<()> {
    let temporary = directory.join(format!(".{name}.new"));
    let mut file = File::create(&temporary)?;
    file.write_all(&serde_json::to_vec_pretty(content)?)?;
    file.sync_all()?;
    fs::rename(&temporary, directory.join(name))?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_kept_is_there_again_and_damage_begins_anew() {
        let directory = tempfile::tempdir().unwrap();
        let state = State::new(directory.path().to_owned());
        assert_eq!(state.progress("mx.example.org"), Progress::default());
        let progress = Progress {
            order: Some("https://ca/order/1".to_owned()),
            window: Some((1, 2)),
            published: vec![("_acme-challenge.x".to_owned(), "text".to_owned())],
            ..Progress::default()
        };
        state.keep("mx.example.org", &progress).unwrap();
        assert_eq!(state.progress("mx.example.org"), progress);
        assert_eq!(state.known(), ["mx.example.org"]);
        fs::write(directory.path().join(file("mx.example.org")), "{\"order\":").unwrap();
        assert_eq!(state.progress("mx.example.org"), Progress::default());
        // Fields of a later version are no obstacle.
        fs::write(
            directory.path().join(file("mx.example.org")),
            "{\"later\":1}",
        )
        .unwrap();
        assert_eq!(state.progress("mx.example.org"), Progress::default());
        state.forget("mx.example.org").unwrap();
        assert!(state.known().is_empty());
    }
}
