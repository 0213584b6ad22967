//! Maildir++ as Dovecot keeps it. A message's file is named after its UID, so that an export that was cut off is gone on
//! with: what is there in its length is not written again.

use super::{Exporter, Written, failed, write_whole};
use crate::failure::Failure;
use std::collections::{HashMap, HashSet};
use std::fs::{File, FileTimes};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};
use store::{Mailbox, MessageRow, SystemFlags};

/// Letters for keywords that a Maildir has.
const LETTERS: u8 = 26;

impl Exporter<'_> {
    /// Writes a mailbox.
    pub(super) async fn maildir(
        &self,
        mailbox: &Mailbox,
        written: &mut Written,
    ) -> Result<(), Failure> {
        let dir = self.dir.join(folder(&mailbox.name));
        for sub in ["cur", "new", "tmp"] {
            let sub = dir.join(sub);
            std::fs::create_dir_all(&sub).map_err(|error| failed(&sub, error))?;
        }
        if dir != self.dir {
            write_whole(&dir.join("maildirfolder"), b"")?;
        }
        let rows = self.rows(mailbox).await?;
        let mut letters: HashMap<String, char> = HashMap::new();
        let mut words = String::new();
        let mut uids = format!("3 V{} N{}\n", mailbox.uidvalidity, mailbox.uidnext);
        let mut left_out = 0_u64;
        let mut names: HashSet<String> = HashSet::new();
        for row in &rows {
            let mut flags = system(row.flags.system);
            for word in row.flags.keywords() {
                let next = u8::try_from(letters.len()).unwrap_or(LETTERS);
                let letter = match letters.get(&word.to_ascii_lowercase()) {
                    Some(letter) => Some(*letter),
                    None if next < LETTERS => {
                        let letter = char::from(b'a' + next);
                        letters.insert(word.to_ascii_lowercase(), letter);
                        words.push_str(&format!("{next} {word}\n"));
                        Some(letter)
                    }
                    None => None,
                };
                left_out += u64::from(letter.is_none());
                flags.extend(letter);
            }
            let mut sorted: Vec<char> = flags.chars().collect();
            sorted.sort_unstable();
            let flags: String = sorted.into_iter().collect();
            let base = format!(
                "{}.U{}.posthouse,S={}",
                row.date.max(0),
                row.uid.0,
                row.size
            );
            let name = format!("{base}:2,{flags}");
            let path = dir.join("cur").join(&name);
            if self.put(row, &path).await? {
                uids.push_str(&format!("{} :{name}\n", row.uid.0));
                names.insert(name);
                written.messages += 1;
            }
            self.progress.add(1);
        }
        remove_others(&dir.join("cur"), &names)?;
        if !words.is_empty() {
            write_whole(&dir.join("dovecot-keywords"), words.as_bytes())?;
        }
        write_whole(&dir.join("dovecot-uidlist"), uids.as_bytes())?;
        if left_out > 0 {
            written.notes.push(format!(
                "{}: a Maildir has {LETTERS} keywords; {left_out} more were left out (mbox takes all)",
                mailbox.name
            ));
        }
        Ok(())
    }

    /// Writes a message's file with its date, and reads it again.
    async fn put(&self, row: &MessageRow, path: &Path) -> Result<bool, Failure> {
        let there = std::fs::metadata(path).is_ok_and(|file| file.len() == row.size);
        if !there {
            let Some(octets) = self.message(row).await? else {
                return Ok(false);
            };
            write_whole(path, &octets)?;
        }
        let file = File::open(path).map_err(|error| failed(path, error))?;
        let date = UNIX_EPOCH + Duration::from_secs(u64::try_from(row.date).unwrap_or(0));
        file.set_times(FileTimes::new().set_modified(date))
            .map_err(|error| failed(path, error))?;
        let octets = std::fs::read(path).map_err(|error| failed(path, error))?;
        let hash = blake3::hash(&octets).to_hex().to_string();
        match self.hash(row).await? {
            Some(stored) if stored == hash => Ok(true),
            None => Ok(true),
            Some(_) if there => {
                std::fs::remove_file(path).map_err(|error| failed(path, error))?;
                Err(failed(
                    path,
                    "it was of another export and is removed: run it again",
                ))
            }
            Some(_) => Err(Failure::check(format!(
                "{} is not what the store has",
                path.display()
            ))),
        }
    }

    /// Dovecot's file of subscriptions, version 2: levels with tabs between them.
    pub(super) fn maildir_subscriptions(&self, names: &[String]) -> Result<(), Failure> {
        let mut text = "V\t2\n\n".to_owned();
        for name in names {
            text.push_str(&encoded(name).replace('/', "\t"));
            text.push('\n');
        }
        write_whole(&self.dir.join("subscriptions"), text.as_bytes())
    }
}

/// Messages that were expunged, or got other flags, since a run that was cut off.
fn remove_others(dir: &Path, names: &HashSet<String>) -> Result<(), Failure> {
    for entry in std::fs::read_dir(dir).map_err(|error| failed(dir, error))? {
        let entry = entry.map_err(|error| failed(dir, error))?;
        if !names.contains(&*entry.file_name().to_string_lossy()) {
            let path = entry.path();
            std::fs::remove_file(&path).map_err(|error| failed(&path, error))?;
        }
    }
    Ok(())
}

/// Names on disk are in modified UTF-7.
fn encoded(name: &str) -> String {
    let mut out = Vec::new();
    imap::utf7::encode_into(name, &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

/// INBOX is the Maildir itself; a dot in a name, which Maildir++ has between levels, is written as `&AC4-`.
fn folder(name: &str) -> PathBuf {
    if name == "INBOX" {
        return PathBuf::new();
    }
    let levels: Vec<String> = name
        .split('/')
        .map(|level| encoded(level).replace('.', "&AC4-"))
        .collect();
    PathBuf::from(format!(".{}", levels.join(".")))
}

fn system(flags: SystemFlags) -> String {
    let known = [
        (SystemFlags::DRAFT, 'D'),
        (SystemFlags::FLAGGED, 'F'),
        (SystemFlags::ANSWERED, 'R'),
        (SystemFlags::SEEN, 'S'),
        (SystemFlags::DELETED, 'T'),
    ];
    known
        .iter()
        .filter(|(flag, _)| flags.contains(*flag))
        .map(|(_, letter)| *letter)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_named_as_dovecot_names_them() {
        assert_eq!(folder("INBOX"), PathBuf::new());
        assert_eq!(folder("Sent/2024"), PathBuf::from(".Sent.2024"));
        assert_eq!(folder("Entwürfe"), PathBuf::from(".Entw&APw-rfe"));
        assert_eq!(folder("v1.2"), PathBuf::from(".v1&AC4-2"));
        assert_eq!(system(SystemFlags(0b10011)), "DRS");
    }
}
