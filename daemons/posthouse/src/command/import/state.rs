//! What an import has done, in a file of lines, each one JSON object. It is written before and after every append, so that
//! a run that was killed is gone on with, and the next run takes only what is new.

use crate::failure::Failure;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use types::MailboxId;

/// One line.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line {
    /// The first one.
    Head {
        /// [`super::source::Source::name`]
        source: String,
        /// The account's number.
        account: u64,
        /// Makes the request ids of a repeated import different from those of the first.
        salt: String,
    },
    Plan(Plan),
    /// The folder's plan is in the store.
    Done {
        folder: String,
        uids: Vec<u32>,
    },
    /// The folder's plan is not, and will not be tried as it is again.
    Dropped {
        folder: String,
    },
    /// All that stands before was compared with the store.
    Verified,
}

/// Messages that are appended at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// The source's name of the folder.
    pub(crate) folder: String,
    /// Where they go.
    pub(crate) mailbox: MailboxId,
    /// What came before has lower UIDs.
    pub(crate) from: u32,
    /// Their keys and hashes, in their order.
    pub(crate) items: Vec<(String, String)>,
}

/// A message that is in the store and was not yet compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Put {
    /// Where.
    pub(crate) mailbox: MailboxId,
    /// Its UID there.
    pub(crate) uid: u32,
    /// The source's BLAKE3, in hex.
    pub(crate) hash: String,
    /// The source's key.
    pub(crate) key: String,
}

/// The file, and what it says.
pub(crate) struct State {
    path: PathBuf,
    /// `None` in a dry run.
    file: Option<File>,
    salt: String,
    done: HashMap<String, HashSet<String>>,
    open: HashMap<String, Plan>,
    unverified: Vec<(String, Put)>,
}

impl State {
    /// Opens the file, or makes it. `again` forgets what it says. A dry run only reads.
    pub(crate) fn open(
        path: &Path,
        source: &str,
        account: u64,
        again: bool,
        dry: bool,
    ) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| Failure::new(format!("{}: {error}", path.display()));
        let mut state = Self {
            path: path.to_owned(),
            file: None,
            salt: String::new(),
            done: HashMap::new(),
            open: HashMap::new(),
            unverified: Vec::new(),
        };
        let mut known = 0;
        let mut fresh = true;
        if !again && path.exists() {
            let text = std::fs::read_to_string(path).map_err(failed)?;
            known = state.read(&text, source, account)?;
            fresh = known == 0;
        }
        if dry {
            return Ok(state);
        }
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(failed)?;
        }
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path)
            .map_err(failed)?;
        // A line that a kill has cut is not known, and must not stand before the next one.
        file.set_len(known).map_err(failed)?;
        state.file = Some(file);
        if fresh {
            if again {
                state.salt = format!("{:032x}", rand::random::<u128>());
            }
            let head = Line::Head {
                source: source.to_owned(),
                account,
                salt: state.salt.clone(),
            };
            state.write(&head, true)?;
        }
        Ok(state)
    }

    /// Reads the lines; gives the length of what is whole.
    fn read(&mut self, text: &str, source: &str, account: u64) -> Result<u64, Failure> {
        let mut length = 0;
        for line in text.split_inclusive('\n') {
            if !line.ends_with('\n') {
                break;
            }
            let damaged = |error: serde_json::Error| {
                Failure::new(format!(
                    "{} is damaged: {error}; remove it to import everything anew",
                    self.path.display()
                ))
            };
            match serde_json::from_str(line).map_err(damaged)? {
                Line::Head {
                    source: of,
                    account: to,
                    salt,
                } => {
                    if of != source || to != account {
                        return Err(Failure::new(format!(
                            "{} is of another import: {of}",
                            self.path.display()
                        )));
                    }
                    self.salt = salt;
                }
                Line::Plan(plan) => {
                    self.open.insert(plan.folder.clone(), plan);
                }
                Line::Done { folder, uids } => self.settle(&folder, &uids),
                Line::Dropped { folder } => {
                    self.open.remove(&folder);
                }
                Line::Verified => self.unverified.clear(),
            }
            length += line.len() as u64;
        }
        Ok(length)
    }

    fn settle(&mut self, folder: &str, uids: &[u32]) {
        let Some(plan) = self.open.remove(folder) else {
            return;
        };
        let keys = self.done.entry(folder.to_owned()).or_default();
        for ((key, hash), uid) in plan.items.into_iter().zip(uids) {
            keys.insert(key.clone());
            let put = Put {
                mailbox: plan.mailbox,
                uid: *uid,
                hash,
                key,
            };
            self.unverified.push((folder.to_owned(), put));
        }
    }

    fn write(&mut self, line: &Line, sync: bool) -> Result<(), Failure> {
        let failed = |error: &dyn std::fmt::Display| {
            Failure::new(format!("{}: {error}", self.path.display()))
        };
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        let mut text = serde_json::to_vec(line).map_err(|error| failed(&error))?;
        text.push(b'\n');
        file.write_all(&text).map_err(|error| failed(&error))?;
        if sync {
            file.sync_data().map_err(|error| failed(&error))?;
        }
        Ok(())
    }

    /// The keys of a folder that are in the store.
    pub(crate) fn done(&self, folder: &str) -> HashSet<String> {
        self.done.get(folder).cloned().unwrap_or_default()
    }

    /// The append of a folder of which nobody knows whether it was done.
    pub(crate) fn unfinished(&self, folder: &str) -> Option<Plan> {
        self.open.get(folder).cloned()
    }

    /// The request id of a plan: the same whenever it is tried.
    pub(crate) fn request(&self, account: u64, plan: &Plan) -> u128 {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.salt.as_bytes());
        hasher.update(&account.to_le_bytes());
        hasher.update(&plan.mailbox.0.to_le_bytes());
        hasher.update(plan.folder.as_bytes());
        for (key, hash) in &plan.items {
            hasher.update(&(key.len() as u64).to_le_bytes());
            hasher.update(key.as_bytes());
            hasher.update(hash.as_bytes());
        }
        let mut id = [0; 16];
        hasher.finalize_xof().fill(&mut id);
        u128::from_le_bytes(id)
    }

    /// Notes what is about to be appended; it is on disk when this returns.
    pub(crate) fn plan(&mut self, plan: &Plan) -> Result<(), Failure> {
        self.write(&Line::Plan(plan.clone()), true)?;
        self.open.insert(plan.folder.clone(), plan.clone());
        Ok(())
    }

    /// Notes that the folder's plan is in the store.
    pub(crate) fn settled(&mut self, folder: &str, uids: &[u32]) -> Result<(), Failure> {
        let line = Line::Done {
            folder: folder.to_owned(),
            uids: uids.to_vec(),
        };
        self.write(&line, false)?;
        self.settle(folder, uids);
        Ok(())
    }

    /// Notes that it is not, and is tried in another way.
    pub(crate) fn dropped(&mut self, folder: &str) -> Result<(), Failure> {
        let line = Line::Dropped {
            folder: folder.to_owned(),
        };
        self.open.remove(folder);
        self.write(&line, true)
    }

    /// What was not yet compared with the store.
    pub(crate) fn unverified(&self) -> &[(String, Put)] {
        &self.unverified
    }

    /// All of it was.
    pub(crate) fn verified(&mut self) -> Result<(), Failure> {
        self.unverified.clear();
        self.write(&Line::Verified, true)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn plan(keys: &[&str]) -> Plan {
        Plan {
            folder: "INBOX".to_owned(),
            mailbox: MailboxId(3),
            from: 1,
            items: keys
                .iter()
                .map(|key| ((*key).to_owned(), format!("hash of {key}")))
                .collect(),
        }
    }

    #[test]
    fn a_killed_run_is_remembered() {
        let dir = crate::scratch::Scratch::new();
        let path = dir.path().join("state");
        let mut state = State::open(&path, "mbox /x", 5, false, false).unwrap();
        state.plan(&plan(&["a", "b"])).unwrap();
        state.settled("INBOX", &[1, 2]).unwrap();
        state.plan(&plan(&["c"])).unwrap();
        let request = state.request(5, &plan(&["c"]));
        drop(state);
        // The kill came in the middle of a line.
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"done\":{\"fol").unwrap();
        let mut state = State::open(&path, "mbox /x", 5, false, false).unwrap();
        assert_eq!(state.done("INBOX").len(), 2);
        assert_eq!(state.unfinished("INBOX"), Some(plan(&["c"])));
        assert_eq!(state.request(5, &plan(&["c"])), request);
        assert_eq!(state.unverified().len(), 2);
        state.settled("INBOX", &[3]).unwrap();
        state.verified().unwrap();
        drop(state);
        let state = State::open(&path, "mbox /x", 5, false, false).unwrap();
        assert_eq!(state.done("INBOX").len(), 3);
        assert!(state.unfinished("INBOX").is_none() && state.unverified().is_empty());
    }

    #[test]
    fn another_import_is_not_mixed_in() {
        let dir = crate::scratch::Scratch::new();
        let path = dir.path().join("state");
        drop(State::open(&path, "mbox /x", 5, false, false).unwrap());
        assert!(State::open(&path, "mbox /y", 5, false, false).is_err());
        assert!(State::open(&path, "mbox /x", 6, false, false).is_err());
        let first = State::open(&path, "mbox /x", 5, false, false).unwrap();
        let second = State::open(&path, "mbox /x", 5, true, false).unwrap();
        assert_ne!(
            first.request(5, &plan(&["a"])),
            second.request(5, &plan(&["a"]))
        );
    }
}
