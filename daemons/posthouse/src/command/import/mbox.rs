//! mbox: one file a mailbox, a line `From address date` before each message; mboxrd, mboxo, and what Thunderbird, mutt,
//! Dovecot and UW imapd write into the header about flags.

use super::source::{Coming, Folder, Item, keywords, name_of};
use crate::cli::Quoting;
use crate::failure::Failure;
use crate::time;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use tokio::sync::mpsc;

/// Deeper folders are not looked for.
const DEPTH_MAX: usize = 32;
/// A message that is longer is not imported.
const MESSAGE_MAX: usize = 1 << 30;

/// A file or a tree of files.
pub(crate) struct Mbox {
    /// Where it is.
    pub(crate) root: PathBuf,
    quoting: Quoting,
}

impl Mbox {
    /// Opens it.
    pub(crate) fn open(path: &Path, quoting: Quoting) -> Result<Self, Failure> {
        let root = path
            .canonicalize()
            .map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
        let mbox = Self { root, quoting };
        if mbox.folders()?.is_empty() {
            return Err(Failure::new(format!(
                "{} has no mbox file: one begins with `From `",
                path.display()
            )));
        }
        Ok(mbox)
    }

    /// All folders by name.
    pub(crate) fn folders(&self) -> Result<Vec<Folder>, Failure> {
        let folder = |at: String, name: String, subscribed| Folder {
            at,
            name,
            special_use: None,
            subscribed,
            selectable: true,
        };
        if self.root.is_file() {
            return Ok(match is_mbox(&self.root) {
                true => vec![folder(String::new(), "INBOX".to_owned(), false)],
                false => Vec::new(),
            });
        }
        let text = std::fs::read_to_string(self.root.join(".subscriptions")).unwrap_or_default();
        let subscribed: HashSet<String> =
            text.lines().map(|line| name_of(line.split('/'))).collect();
        let mut found = Vec::new();
        self.walk(&self.root, &mut Vec::new(), &mut found)?;
        let mut folders: Vec<Folder> = found
            .into_iter()
            .map(|(at, name)| {
                let subscribed = subscribed.contains(&name);
                folder(at, name, subscribed)
            })
            .collect();
        folders.sort_by(|a, b| a.name.cmp(&b.name));
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
            let path = entry.map_err(failed)?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
                continue;
            };
            if name.starts_with('.') {
                continue;
            }
            if path.is_dir() && levels.len() < DEPTH_MAX {
                // Thunderbird keeps the folders below `a` in `a.sbd`.
                levels.push(name.strip_suffix(".sbd").unwrap_or(name).to_owned());
                self.walk(&path, levels, found)?;
                levels.pop();
            } else if is_mbox(&path)
                && let Ok(at) = path.strip_prefix(&self.root)
            {
                let last = name.strip_suffix(".mbox").unwrap_or(name);
                let full = name_of(levels.iter().map(String::as_str).chain([last]));
                found.push((at.to_string_lossy().into_owned(), full));
            }
        }
        Ok(())
    }

    /// Its messages.
    pub(crate) fn count(&self, folder: &Folder) -> Result<u64, Failure> {
        let mut count = 0;
        self.each(folder, |_, octets| {
            count += u64::from(!is_internal(&octets));
            true
        })
        .map_err(Failure::new)?;
        Ok(count)
    }

    /// Reads a folder's messages in the file's order.
    pub(crate) fn read(&self, folder: &Folder, done: &HashSet<String>, out: &mpsc::Sender<Coming>) {
        let mut seen: HashMap<[u8; 32], u32> = HashMap::new();
        let result = self.each(folder, |date, octets| {
            if is_internal(&octets) {
                return true;
            }
            let (flags, octets) = take_marks(&octets);
            // Places in the file move when messages before are removed; content does not. Copies are counted.
            let hash = *blake3::hash(&octets).as_bytes();
            let copy = seen.entry(hash).or_default();
            *copy += 1;
            let key = format!("{}.{copy}", blake3::Hash::from(hash).to_hex());
            if done.contains(&key) {
                return true;
            }
            let coming = match octets.is_empty() {
                true => Err((Some(key), "it is empty".to_owned())),
                false => Ok(Item {
                    key,
                    flags,
                    date,
                    octets,
                }),
            };
            out.blocking_send(coming).is_ok()
        });
        if let Err(text) = result {
            let _ = out.blocking_send(Err((None, text)));
        }
    }

    /// Gives each message, unquoted and with CRLF, and its date, to `take` until that says false.
    fn each(&self, folder: &Folder, take: impl FnMut(i64, Vec<u8>) -> bool) -> Result<(), String> {
        let path = match folder.at.as_str() {
            "" => self.root.clone(),
            at => self.root.join(at),
        };
        let named = |text: String| format!("{}: {text}", path.display());
        let file = File::open(&path).map_err(|error| named(error.to_string()))?;
        each_in(BufReader::with_capacity(1 << 18, file), self.quoting, take).map_err(named)
    }
}

/// Gives each message of an mbox, unquoted and with CRLF, and its date, to `take` until that says false.
pub(super) fn each_in(
    mut file: impl BufRead,
    quoting: Quoting,
    mut take: impl FnMut(i64, Vec<u8>) -> bool,
) -> Result<(), String> {
    let mut line = Vec::new();
    let mut message: Option<(i64, Vec<u8>)> = None;
    let mut blank = true;
    loop {
        line.clear();
        let read = file.read_until(b'\n', &mut line);
        if read.map_err(|error| error.to_string())? == 0 {
            break;
        }
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        if blank && let Some(date) = separator(text) {
            if let Some((date, octets)) = message.take()
                && !take(date, without_last_blank(octets))
            {
                return Ok(());
            }
            message = Some((date, Vec::new()));
            // A header follows: nothing in it may be taken for the next message.
            blank = false;
            continue;
        }
        blank = text.is_empty();
        let Some((_, octets)) = &mut message else {
            continue;
        };
        if octets.len() > MESSAGE_MAX {
            return Err("a message is longer than 1 GiB".to_owned());
        }
        octets.extend_from_slice(unquoted(text, quoting));
        octets.extend_from_slice(b"\r\n");
    }
    if let Some((date, octets)) = message {
        take(date, without_last_blank(octets));
    }
    Ok(())
}

fn is_mbox(path: &Path) -> bool {
    let Ok(file) = File::open(path) else {
        return false;
    };
    let mut start = Vec::new();
    let read = std::io::Read::read_to_end(&mut std::io::Read::take(file, 5), &mut start);
    read.is_ok()
        && (start == b"From "
            || (start.is_empty() && path.extension().is_some_and(|end| end == "mbox")))
}

/// The empty line before the next separator belongs to the format.
fn without_last_blank(mut octets: Vec<u8>) -> Vec<u8> {
    if octets.ends_with(b"\r\n\r\n")
        && octets.windows(4).position(|w| w == b"\r\n\r\n") != Some(octets.len() - 4)
    {
        octets.truncate(octets.len() - 2);
    }
    octets
}

fn unquoted(line: &[u8], quoting: Quoting) -> &[u8] {
    let Some(rest) = line.strip_prefix(b">") else {
        return line;
    };
    let from = |text: &[u8]| text.starts_with(b"From ");
    match quoting {
        Quoting::Mboxrd => {
            let quotes = rest.iter().take_while(|octet| **octet == b'>').count();
            match rest.get(quotes..) {
                Some(text) if from(text) => rest,
                _ => line,
            }
        }
        Quoting::Mboxo if from(rest) => rest,
        _ => line,
    }
}

/// `From address Thu Jan  1 00:00:00 1970`, with or without a zone: the date. A line without one begins no message.
fn separator(line: &[u8]) -> Option<i64> {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let rest = std::str::from_utf8(line.strip_prefix(b"From ")?).ok()?;
    let words: Vec<&str> = rest.split_ascii_whitespace().collect();
    let at = words
        .iter()
        .rposition(|word| word.matches(':').count() >= 1)?;
    let clock = words.get(at)?;
    let day: i64 = words.get(at.checked_sub(1)?)?.parse().ok()?;
    let month = words.get(at.checked_sub(2)?)?;
    let month = MONTHS
        .iter()
        .position(|known| known.eq_ignore_ascii_case(month))?;
    let after = words.get(at + 1..)?;
    let year = after
        .iter()
        .find(|word| word.len() == 4 && word.bytes().all(|b| b.is_ascii_digit()));
    let year: i64 = year?.parse().ok()?;
    let mut parts = clock.split(':').map(|part| part.parse::<i64>().ok());
    let hour = parts.next()??;
    let minute = parts.next()??;
    let second = parts.next().flatten().unwrap_or(0);
    if !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    // RFC 4155: the date is UTC; some write a zone nevertheless.
    let zone = after.iter().find_map(|word| {
        let (sign, digits) = match word.as_bytes().first()? {
            b'+' => (1, word.get(1..)?),
            b'-' => (-1, word.get(1..)?),
            _ => return None,
        };
        let number: i64 = digits.parse().ok().filter(|_| digits.len() == 4)?;
        Some(sign * (number / 100 * 3600 + number % 100 * 60))
    });
    let month = i64::try_from(month).ok()? + 1;
    let seconds = hour * 3600 + minute * 60 + second;
    Some(time::unix((year, month, day), seconds) - zone.unwrap_or(0))
}

/// The message in which UW imapd and Dovecot keep the mailbox's own data.
fn is_internal(octets: &[u8]) -> bool {
    let header = octets
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .and_then(|at| octets.get(..at))
        .unwrap_or(octets);
    let text = String::from_utf8_lossy(header);
    text.contains("\r\nX-IMAP: ") && text.contains("FOLDER INTERNAL DATA")
        || text.starts_with("X-IMAP: ") && text.contains("FOLDER INTERNAL DATA")
}

/// Takes the fields that tell of flags out of the header.
pub(super) fn take_marks(octets: &[u8]) -> (Vec<String>, Vec<u8>) {
    let mut system: Vec<&str> = Vec::new();
    let mut words: Vec<String> = Vec::new();
    let mut out = Vec::with_capacity(octets.len());
    let mut rest = octets;
    let mut taken = false;
    while let Some(end) = rest.windows(2).position(|window| window == b"\r\n") {
        let (line, after) = rest.split_at(end + 2);
        if line == b"\r\n" {
            break;
        }
        let folded = matches!(line.first(), Some(b' ' | b'\t'));
        rest = after;
        if folded && taken {
            let text = String::from_utf8_lossy(line);
            words.extend(text.split_ascii_whitespace().map(str::to_owned));
            continue;
        }
        taken = !folded && mark(line, &mut system, &mut words);
        if !taken {
            out.extend_from_slice(line);
        }
    }
    out.extend_from_slice(rest);
    let mut flags: Vec<String> = Vec::new();
    for flag in system {
        if !flags.iter().any(|known| known == flag) {
            flags.push(flag.to_owned());
        }
    }
    flags.extend(keywords(words.iter().map(String::as_str)));
    (flags, out)
}

/// Reads one field, if it is about flags.
fn mark(line: &[u8], system: &mut Vec<&str>, words: &mut Vec<String>) -> bool {
    let text = String::from_utf8_lossy(line);
    let Some((name, value)) = text.split_once(':') else {
        return false;
    };
    let value = value.trim();
    match name.to_ascii_lowercase().as_str() {
        "status" | "x-status" => system.extend(value.chars().filter_map(|letter| match letter {
            'R' => Some("\\Seen"),
            'A' => Some("\\Answered"),
            'F' => Some("\\Flagged"),
            'T' => Some("\\Draft"),
            'D' => Some("\\Deleted"),
            _ => None,
        })),
        "x-keywords" | "x-mozilla-keys" => {
            words.extend(value.split_ascii_whitespace().map(str::to_owned));
        }
        "x-mozilla-status" => {
            let bits = u32::from_str_radix(value, 16).unwrap_or(0);
            let known = [
                (1, "\\Seen"),
                (2, "\\Answered"),
                (4, "\\Flagged"),
                (8, "\\Deleted"),
            ];
            system.extend(
                known
                    .iter()
                    .filter(|(bit, _)| bits & bit != 0)
                    .map(|(_, name)| *name),
            );
            if bits & 0x1000 != 0 {
                words.push("$Forwarded".to_owned());
            }
        }
        "x-uid" | "x-imap" | "x-imapbase" | "x-mozilla-status2" => {}
        _ => return false,
    }
    true
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(text: &str, quoting: Quoting) -> Vec<Item> {
        let dir = crate::scratch::Scratch::new();
        let path = dir.path().join("mail");
        std::fs::write(&path, text).unwrap();
        let mbox = Mbox::open(&path, quoting).unwrap();
        let folder = mbox.folders().unwrap().remove(0);
        let (out, mut coming) = mpsc::channel(100);
        mbox.read(&folder, &HashSet::new(), &out);
        drop(out);
        std::iter::from_fn(|| coming.try_recv().ok())
            .filter_map(Result::ok)
            .collect()
    }

    #[test]
    fn dates_of_separators() {
        assert_eq!(separator(b"From a@b Thu Jan  1 00:01:00 1970"), Some(60));
        assert_eq!(
            separator(b"From MAILER-DAEMON Mon Sep 21 14:13:20 2026"),
            Some(1_790_000_000)
        );
        assert_eq!(
            separator(b"From a@b Mon Sep 21 16:13:20 2026 +0200"),
            Some(1_790_000_000)
        );
        assert_eq!(
            separator(b"From - Mon Sep 21 14:13:20 2026"),
            Some(1_790_000_000)
        );
        assert_eq!(separator(b"From here on it is text: really"), None);
        assert_eq!(separator(b"From: a@b"), None);
    }

    #[test]
    fn messages_are_cut_and_unquoted() {
        let text = "From a@b Thu Jan  1 00:00:01 1970\nSubject: x\n\n>From me\n>>From you\n\nFrom the text\n\nFrom a@b Thu Jan  1 00:00:02 1970\nSubject: y\n\nlast\n";
        let got = read(text, Quoting::Mboxrd);
        assert_eq!(got.len(), 2);
        let first = got.first().unwrap();
        assert_eq!(first.date, 1);
        assert_eq!(
            first.octets,
            b"Subject: x\r\n\r\nFrom me\r\n>From you\r\n\r\nFrom the text\r\n"
        );
        assert_eq!(got.get(1).unwrap().octets, b"Subject: y\r\n\r\nlast\r\n");
        let got = read(text, Quoting::Mboxo);
        assert!(
            got.first()
                .unwrap()
                .octets
                .windows(11)
                .any(|w| w == b"\n>>From you")
        );
    }

    #[test]
    fn flags_come_from_the_header_and_leave_it() {
        let text = "From a@b Thu Jan  1 00:00:01 1970\nStatus: RO\nX-Status: AF\nX-Keywords: work\n $Junk\nSubject: x\nX-UID: 5\n\nStatus: text\n";
        let got = read(text, Quoting::Mboxrd);
        let first = got.first().unwrap();
        assert_eq!(
            first.flags,
            ["\\Seen", "\\Answered", "\\Flagged", "work", "$Junk"]
        );
        assert_eq!(first.octets, b"Subject: x\r\n\r\nStatus: text\r\n");
    }

    #[test]
    fn copies_have_keys_of_their_own() {
        let one = "From a@b Thu Jan  1 00:00:01 1970\nSubject: x\n\nbody\n\n";
        let got = read(&one.repeat(2), Quoting::Mboxrd);
        assert_ne!(got.first().unwrap().key, got.get(1).unwrap().key);
        assert_eq!(got.first().unwrap().octets, got.get(1).unwrap().octets);
    }

    #[test]
    fn a_message_without_body_keeps_its_empty_line() {
        let got = read(
            "From a@b Thu Jan  1 00:00:01 1970\nSubject: x\n\n",
            Quoting::Mboxrd,
        );
        assert_eq!(got.first().unwrap().octets, b"Subject: x\r\n\r\n");
    }

    #[test]
    fn whatever_stands_in_a_file_is_read_without_loss() {
        const WORDS: [&str; 16] = [
            "From a@b Thu Jan  1 00:00:01 1970\n",
            "From ",
            ">From x\n",
            "\n",
            "\r\n",
            "\r",
            "Status: RO",
            "X-Keywords:",
            " a b",
            "X-Mozilla-Status: zz",
            ":",
            "\u{fffd}",
            "\0",
            "Subject: x\n",
            "From 12:00 1970\n",
            "99999999999999999999:1",
        ];
        for _ in 0..2000 {
            let count = rand::random_range(0..24);
            let words: String = (0..count)
                .filter_map(|_| WORDS.get(rand::random_range(0..WORDS.len())))
                .copied()
                .collect();
            let text = format!("From a@b Thu Jan  1 00:00:01 1970\nSubject: x\n\nfirst {words}");
            separator(text.as_bytes());
            take_marks(words.as_bytes());
            let got = read(&text, Quoting::Mboxrd);
            let first = got.first().unwrap();
            assert!(
                first.octets.starts_with(b"Subject: x\r\n\r\nfirst "),
                "{text:?}"
            );
            assert!(got.iter().all(|item| crlf_only(&item.octets)), "{text:?}");
        }
    }

    fn crlf_only(octets: &[u8]) -> bool {
        let ends = octets.iter().filter(|octet| **octet == b'\n').count();
        ends == octets.windows(2).filter(|pair| pair == b"\r\n").count()
    }
}
