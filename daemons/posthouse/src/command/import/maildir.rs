//! Maildir: Maildir++ (`.Sent.2024`), as Dovecot and Courier keep it, and nested folders (Dovecot's LAYOUT=fs).

use super::source::{Coming, Folder, Item, crlf, keywords, name_of};
use crate::failure::Failure;
use std::collections::{HashMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use tokio::sync::mpsc;

/// Deeper folders are not looked for.
const DEPTH_MAX: usize = 32;

/// A Maildir.
pub(crate) struct Maildir {
    /// The folder that has `cur` and `new`.
    pub(crate) root: PathBuf,
}

/// A message's file.
struct Entry {
    path: PathBuf,
    /// The name without its flags: it stays when they change.
    key: String,
    letters: String,
    /// From dovecot-uidlist; those that it does not have come last.
    uid: u64,
}

impl Maildir {
    /// Opens it.
    pub(crate) fn open(dir: &Path) -> Result<Self, Failure> {
        let root = dir
            .canonicalize()
            .map_err(|error| Failure::new(format!("{}: {error}", dir.display())))?;
        let maildir = Self { root };
        if maildir.folders()?.is_empty() {
            return Err(Failure::new(format!(
                "{} is no Maildir: neither it nor a folder in it has `cur`",
                dir.display()
            )));
        }
        Ok(maildir)
    }

    /// All folders by name.
    pub(crate) fn folders(&self) -> Result<Vec<Folder>, Failure> {
        let subscribed = self.subscriptions();
        let mut found = Vec::new();
        if self.root.join("cur").is_dir() {
            found.push((String::new(), "INBOX".to_owned()));
        }
        self.walk(&self.root, &mut Vec::new(), &mut found)?;
        let mut folders: Vec<Folder> = found
            .into_iter()
            .map(|(at, name)| Folder {
                subscribed: subscribed.contains(&name),
                at,
                name,
                special_use: None,
                selectable: true,
            })
            .collect();
        folders.sort_by(|a, b| a.name.cmp(&b.name));
        folders.dedup_by(|a, b| a.at == b.at);
        Ok(folders)
    }

    fn walk(
        &self,
        dir: &Path,
        levels: &mut Vec<String>,
        found: &mut Vec<(String, String)>,
    ) -> Result<(), Failure> {
        let failed = |error: std::io::Error| Failure::new(format!("{}: {error}", dir.display()));
        for entry in std::fs::read_dir(dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let path = entry.path();
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            if !path.is_dir() || ["cur", "new", "tmp", ".", ".."].contains(&name) {
                continue;
            }
            let more: Vec<String> = match name.strip_prefix('.') {
                // Maildir++ has all levels in one name, and below the root only.
                Some(rest) if levels.is_empty() => rest.split('.').map(unicode).collect(),
                Some(_) => continue,
                None => vec![unicode(name)],
            };
            let before = levels.len();
            levels.extend(more);
            if path.join("cur").is_dir()
                && let Ok(at) = path.strip_prefix(&self.root)
            {
                let full = name_of(levels.iter().map(String::as_str));
                found.push((at.to_string_lossy().into_owned(), full));
            }
            if !name.starts_with('.') && levels.len() < DEPTH_MAX {
                self.walk(&path, levels, found)?;
            }
            levels.truncate(before);
        }
        Ok(())
    }

    /// Dovecot's `subscriptions`: version 2 has tabs between levels, version 1 the separator of Maildir++.
    fn subscriptions(&self) -> HashSet<String> {
        let text = std::fs::read_to_string(self.root.join("subscriptions")).unwrap_or_default();
        let second = text.starts_with("V\t2");
        text.lines()
            .skip(if second { 1 } else { 0 })
            .filter(|line| !line.is_empty())
            .map(|line| {
                let levels: Vec<String> = match second {
                    true => line.split('\t').map(unicode).collect(),
                    false => line.split(['.', '/']).map(unicode).collect(),
                };
                name_of(levels.iter().map(String::as_str))
            })
            .collect()
    }

    /// Its messages.
    pub(crate) fn count(&self, folder: &Folder) -> Result<u64, Failure> {
        Ok(self.entries(folder).map_err(Failure::new)?.len() as u64)
    }

    fn entries(&self, folder: &Folder) -> Result<Vec<Entry>, String> {
        let dir = self.root.join(&folder.at);
        let uids = uidlist(&dir);
        let mut entries = Vec::new();
        for sub in ["cur", "new"] {
            let sub = dir.join(sub);
            let listed = match std::fs::read_dir(&sub) {
                Ok(listed) => listed,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(format!("{}: {error}", sub.display())),
            };
            for entry in listed {
                let entry = entry.map_err(|error| format!("{}: {error}", sub.display()))?;
                let name = entry.file_name().to_string_lossy().into_owned();
                if name.starts_with('.') || entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    continue;
                }
                let (key, letters) = parts(&name);
                entries.push(Entry {
                    path: entry.path(),
                    letters: letters.to_owned(),
                    uid: uids.get(key).copied().unwrap_or(u64::MAX),
                    key: key.to_owned(),
                });
            }
        }
        // Without a UID the name tells: it begins with the time of delivery.
        let time = |key: &str| {
            key.split('.')
                .next()
                .and_then(|seconds| seconds.parse::<u64>().ok())
                .unwrap_or(u64::MAX)
        };
        entries.sort_by(|a, b| (a.uid, time(&a.key), &a.key).cmp(&(b.uid, time(&b.key), &b.key)));
        Ok(entries)
    }

    /// Reads a folder's messages, the oldest first.
    pub(crate) fn read(&self, folder: &Folder, done: &HashSet<String>, out: &mpsc::Sender<Coming>) {
        let entries = match self.entries(folder) {
            Ok(entries) => entries,
            Err(text) => {
                let _ = out.blocking_send(Err((None, text)));
                return;
            }
        };
        let words = keyword_names(&self.root.join(&folder.at));
        for entry in entries {
            if done.contains(&entry.key) {
                continue;
            }
            let coming = message(&entry, &words).map_err(|text| (Some(entry.key.clone()), text));
            if out.blocking_send(coming).is_err() {
                return;
            }
        }
    }
}

fn message(entry: &Entry, words: &HashMap<char, String>) -> Result<Item, String> {
    let octets = std::fs::read(&entry.path).map_err(|error| error.to_string())?;
    // Dovecot's zlib plugin keeps files compressed under their ordinary names.
    if octets.starts_with(&[0x1f, 0x8b]) || octets.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        return Err("the file is compressed (Dovecot's zlib plugin): import by IMAP".to_owned());
    }
    if octets.is_empty() {
        return Err("the file is empty".to_owned());
    }
    if let Some(size) = named_size(&entry.key)
        && size != octets.len() as u64
    {
        return Err(format!(
            "the file has {} octets, and its name says {size}",
            octets.len()
        ));
    }
    let date = std::fs::metadata(&entry.path)
        .map(|metadata| metadata.mtime())
        .unwrap_or_default();
    let named = entry
        .key
        .split('.')
        .next()
        .and_then(|seconds| seconds.parse().ok());
    Ok(Item {
        key: entry.key.clone(),
        flags: flags(&entry.letters, words),
        date: if date > 0 { date } else { named.unwrap_or(0) },
        octets: crlf(&octets),
    })
}

/// What stays of a file's name, and the letters of its flags.
pub(super) fn parts(name: &str) -> (&str, &str) {
    let (key, info) = name.split_once([':', ';']).unwrap_or((name, ""));
    (key, info.strip_prefix("2,").unwrap_or_default())
}

/// The size in a name, `,S=1234`.
pub(super) fn named_size(key: &str) -> Option<u64> {
    key.split(',')
        .find_map(|field| field.strip_prefix("S="))
        .and_then(|size| size.parse().ok())
}

pub(super) fn flags(letters: &str, words: &HashMap<char, String>) -> Vec<String> {
    let mut flags: Vec<String> = Vec::new();
    let mut named = Vec::new();
    // The letters should stand once, in order; not everybody's do.
    let mut system = |flag: &str| {
        if !flags.iter().any(|known| known == flag) {
            flags.push(flag.to_owned());
        }
    };
    for letter in letters.chars() {
        match letter {
            'D' => system("\\Draft"),
            'F' => system("\\Flagged"),
            'R' => system("\\Answered"),
            'S' => system("\\Seen"),
            'T' => system("\\Deleted"),
            'P' => named.push("$Forwarded"),
            'a'..='z' => named.extend(words.get(&letter).map(String::as_str)),
            _ => {}
        }
    }
    flags.extend(keywords(named.into_iter()));
    flags
}

/// Dovecot's `dovecot-keywords`: `0 name` is the letter a.
fn keyword_names(dir: &Path) -> HashMap<char, String> {
    let text = std::fs::read_to_string(dir.join("dovecot-keywords")).unwrap_or_default();
    text.lines()
        .filter_map(|line| {
            let (number, name) = line.split_once(' ')?;
            let number: u8 = number.parse().ok().filter(|number| *number < 26)?;
            Some((char::from(b'a' + number), name.to_owned()))
        })
        .collect()
}

/// Dovecot's `dovecot-uidlist`: a header line, then `uid fields :name`.
fn uidlist(dir: &Path) -> HashMap<String, u64> {
    let text = std::fs::read(dir.join("dovecot-uidlist")).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    text.lines()
        .skip(1)
        .filter_map(|line| {
            let uid = line.split(' ').next()?.parse().ok()?;
            let (_, name) = line.split_once(" :")?;
            let key = name.split(':').next().unwrap_or(name);
            Some((key.to_owned(), uid))
        })
        .collect()
}

/// Folders on disk have names in modified UTF-7, or in UTF-8.
pub(super) fn unicode(name: &str) -> String {
    imap::utf7::decode(name.as_bytes()).unwrap_or_else(|_| name.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::fs;

    fn put(dir: &Path, sub: &str, name: &str, text: &str) {
        fs::create_dir_all(dir.join("cur")).unwrap();
        fs::create_dir_all(dir.join(sub)).unwrap();
        fs::write(dir.join(sub).join(name), text).unwrap();
    }

    fn all(maildir: &Maildir, folder: &Folder) -> Vec<Coming> {
        let (out, mut coming) = mpsc::channel(100);
        maildir.read(folder, &HashSet::new(), &out);
        drop(out);
        std::iter::from_fn(|| coming.try_recv().ok()).collect()
    }

    #[test]
    fn folders_of_both_layouts_are_found() {
        let dir = crate::scratch::Scratch::new();
        put(dir.path(), "new", "1.a", "A: b\n\nc\n");
        put(
            &dir.path().join(".Sent.2024"),
            "cur",
            "1.a:2,S",
            "A: b\n\nc\n",
        );
        put(
            &dir.path().join(".Entw&APw-rfe"),
            "cur",
            "1.a:2,S",
            "A: b\n\nc\n",
        );
        put(
            &dir.path().join("Lists/rust"),
            "cur",
            "1.a:2,S",
            "A: b\n\nc\n",
        );
        fs::write(dir.path().join("subscriptions"), "V\t2\n\nSent\t2024\n").unwrap();
        let maildir = Maildir::open(dir.path()).unwrap();
        let folders = maildir.folders().unwrap();
        let names: Vec<(&str, bool)> = folders
            .iter()
            .map(|folder| (folder.name.as_str(), folder.subscribed))
            .collect();
        assert_eq!(
            names,
            [
                ("Entwürfe", false),
                ("INBOX", false),
                ("Lists/rust", false),
                ("Sent/2024", true)
            ]
        );
    }

    #[test]
    fn flags_keywords_order_and_errors() {
        let dir = crate::scratch::Scratch::new();
        put(dir.path(), "cur", "200.b,S=9:2,FRSab", "A: b\n\nc\n\n");
        put(dir.path(), "cur", "100.a:2,DTP", "A: b\n\nc\n");
        put(dir.path(), "new", "300.c,S=5", "A: b\n\nc\n");
        fs::write(dir.path().join("dovecot-keywords"), "0 work\n1 $Junk\n").unwrap();
        let maildir = Maildir::open(dir.path()).unwrap();
        let inbox = maildir.folders().unwrap().remove(0);
        let got = all(&maildir, &inbox);
        let first = got.first().unwrap().as_ref().unwrap();
        assert_eq!(first.key, "100.a");
        assert_eq!(first.flags, ["\\Draft", "\\Deleted", "$Forwarded"]);
        assert_eq!(first.octets, b"A: b\r\n\r\nc\r\n");
        let second = got.get(1).unwrap().as_ref().unwrap();
        assert_eq!(
            second.flags,
            ["\\Flagged", "\\Answered", "\\Seen", "work", "$Junk"]
        );
        let (key, text) = got.get(2).unwrap().as_ref().unwrap_err();
        assert_eq!(key.as_deref(), Some("300.c,S=5"));
        assert!(text.contains("its name says 5"), "{text}");
        fs::write(
            dir.path().join("dovecot-uidlist"),
            "3 V1 N9 G0\n7 :200.b,S=9:2,S\n8 :100.a\n",
        )
        .unwrap();
        let got = all(&maildir, &inbox);
        assert_eq!(got.first().unwrap().as_ref().unwrap().key, "200.b,S=9");
    }
}
