//! Entry points for fuzzers: each takes any octets, and panics only if a promise is broken.

use super::source::{keywords, name_of};
use super::{maildir, mbox};
use crate::cli::Quoting;
use crate::command::export::mbox::entry;
use std::collections::HashMap;

/// The first second of the year 10000: separators have years of four digits.
const LAST: i64 = 253_402_300_800;

/// An mbox. What is read has CRLF only, and is read again when it is exported.
pub fn mbox(octets: &[u8]) {
    for quoting in [Quoting::Mboxrd, Quoting::Mboxo] {
        let mut sum = 0;
        let read = mbox::each_in(octets, quoting, |date, message| {
            sum += message.len();
            assert!(crlf_only(&message), "{message:?}");
            if quoting == Quoting::Mboxrd {
                again(date, &message);
            }
            true
        });
        assert!(read.is_ok());
        assert!(sum <= 2 * octets.len() + 2);
    }
}

fn crlf_only(message: &[u8]) -> bool {
    let ends = message.iter().filter(|octet| **octet == b'\n').count();
    ends == message.windows(2).filter(|pair| pair == b"\r\n").count()
}

fn again(date: i64, message: &[u8]) {
    let (_, plain) = mbox::take_marks(message);
    // The format has no place for a CR before a line's end.
    if plain.is_empty() || plain.windows(3).any(|three| three == b"\r\r\n") {
        return;
    }
    let written = entry(&plain, date, &store::Flags::default());
    let mut seen = Vec::new();
    let read = mbox::each_in(written.as_slice(), Quoting::Mboxrd, |date, message| {
        seen.push((date, mbox::take_marks(&message).1));
        true
    });
    assert!(read.is_ok());
    let [(shown, found)] = seen.as_slice() else {
        unreachable!("{} messages of one", seen.len())
    };
    if (0..LAST).contains(&date) {
        assert_eq!(*shown, date);
    }
    // A header without its empty line gets it.
    let rest = found.strip_prefix(plain.as_slice());
    assert!(matches!(rest, Some(b"" | b"\r\n")), "{plain:?} {found:?}");
}

/// Names in a Maildir, one a line: of folders and of files. Folders' are what the store takes, and stay so; flags stand once.
pub fn maildir(octets: &[u8]) {
    let text = String::from_utf8_lossy(octets);
    let words: HashMap<char, String> = ('a'..='z').zip(text.lines().map(str::to_owned)).collect();
    for line in text.lines() {
        let levels: Vec<String> = line.split('.').map(maildir::unicode).collect();
        let name = name_of(levels.iter().map(String::as_str));
        assert_eq!(name_of(name.split('/')), name, "{line:?}");
        for level in name.split('/') {
            assert!(!level.is_empty() && level == level.trim());
            assert!(!level.chars().any(char::is_control));
        }
        let (key, letters) = maildir::parts(line);
        assert!(line.starts_with(key) && line.ends_with(letters));
        let _ = maildir::named_size(key);
        let flags = maildir::flags(letters, &words);
        for (at, flag) in flags.iter().enumerate() {
            assert!(
                !flags.iter().take(at).any(|other| other == flag),
                "{line:?}"
            );
            if !flag.starts_with('\\') {
                assert_eq!(keywords([flag.as_str()].into_iter()), [flag.as_str()]);
            }
        }
    }
}
