//! A file a mailbox, `NAME.mbox`, mboxrd: every line `>*From ` gets one `>` more; flags stand in Status, X-Status and
//! X-Keywords, where mutt, Dovecot and others look for them.

use super::{Exporter, Written, failed};
use crate::failure::Failure;
use crate::time;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use store::{Flags, Mailbox, SystemFlags};

impl Exporter<'_> {
    /// Writes a mailbox; one that is there whole from an earlier run is written again, as it may have changed.
    pub(super) async fn mbox(
        &self,
        mailbox: &Mailbox,
        written: &mut Written,
    ) -> Result<(), Failure> {
        let path = self.dir.join(file(&mailbox.name));
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(|error| failed(parent, error))?;
        }
        let rows = self.rows(mailbox).await?;
        let mut out = BufWriter::new(File::create(&path).map_err(|error| failed(&path, error))?);
        let mut hasher = blake3::Hasher::new();
        let mut unended = 0_u64;
        let mut marked = 0_u64;
        for row in &rows {
            self.progress.add(1);
            let Some(octets) = self.message(row).await? else {
                continue;
            };
            let stored = self.hash(row).await?;
            if stored.is_some_and(|stored| stored != blake3::hash(&octets).to_hex().as_str()) {
                return Err(Failure::check(format!(
                    "{}: UID {} is not what the store has",
                    mailbox.name, row.uid.0
                )));
            }
            unended += u64::from(!octets.ends_with(b"\n"));
            marked += u64::from(has_marks(&octets));
            let text = entry(&octets, row.date, &row.flags);
            hasher.update(&text);
            out.write_all(&text).map_err(|error| failed(&path, error))?;
            written.messages += 1;
        }
        let file = out
            .into_inner()
            .map_err(|error| failed(&path, error.error()))?;
        file.sync_all().map_err(|error| failed(&path, error))?;
        let again = std::fs::read(&path).map_err(|error| failed(&path, error))?;
        if blake3::hash(&again) != hasher.finalize() {
            return Err(Failure::check(format!(
                "{} is not what was written",
                path.display()
            )));
        }
        if marked > 0 {
            written.notes.push(format!(
                "{}: {marked} messages have header fields Status, X-Status or X-Keywords of their own, which whoever \
                 reads the mbox takes for flags",
                mailbox.name
            ));
        }
        if unended > 0 {
            written.notes.push(format!(
                "{}: {unended} messages do not end with a line's end; in mbox they do",
                mailbox.name
            ));
        }
        Ok(())
    }
}

/// Whether the header has fields of the kind that the format uses for flags.
fn has_marks(octets: &[u8]) -> bool {
    const MARKS: [&[u8]; 6] = [
        b"status:",
        b"x-status:",
        b"x-keywords:",
        b"x-uid:",
        b"x-mozilla-status:",
        b"x-mozilla-keys:",
    ];
    octets
        .split(|octet| *octet == b'\n')
        .take_while(|line| !line.is_empty() && *line != b"\r")
        .any(|line| {
            MARKS.iter().any(|mark| {
                line.get(..mark.len())
                    .is_some_and(|name| name.eq_ignore_ascii_case(mark))
            })
        })
}

/// Levels become folders. A name in them that is `.` or begins with it would be hidden.
fn file(name: &str) -> PathBuf {
    let levels: Vec<String> = name
        .split('/')
        .map(|level| match level.strip_prefix('.') {
            Some(rest) => format!("_{rest}"),
            None => level.to_owned(),
        })
        .collect();
    PathBuf::from(format!("{}.mbox", levels.join("/")))
}

/// One message with its separator.
pub(crate) fn entry(octets: &[u8], date: i64, flags: &Flags) -> Vec<u8> {
    let mut out = Vec::with_capacity(octets.len() + 256);
    out.extend_from_slice(format!("From MAILER-DAEMON {}\n", asctime(date)).as_bytes());
    let mut header = true;
    let mut rest = octets;
    let mut marked = false;
    while !rest.is_empty() {
        let end = rest
            .iter()
            .position(|octet| *octet == b'\n')
            .map_or(rest.len(), |at| at + 1);
        let (line, after) = rest.split_at(end);
        rest = after;
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if header && line.is_empty() {
            out.extend_from_slice(marks(flags).as_bytes());
            header = false;
            marked = true;
        }
        let unquoted = line
            .iter()
            .position(|octet| *octet != b'>')
            .unwrap_or(line.len());
        if line
            .get(unquoted..)
            .is_some_and(|text| text.starts_with(b"From "))
        {
            out.push(b'>');
        }
        out.extend_from_slice(line);
        out.push(b'\n');
    }
    if !marked {
        out.extend_from_slice(marks(flags).as_bytes());
    }
    out.push(b'\n');
    out
}

fn marks(flags: &Flags) -> String {
    let known = [
        (SystemFlags::ANSWERED, 'A'),
        (SystemFlags::FLAGGED, 'F'),
        (SystemFlags::DRAFT, 'T'),
        (SystemFlags::DELETED, 'D'),
    ];
    let mut text = match flags.system.contains(SystemFlags::SEEN) {
        true => "Status: RO\n".to_owned(),
        false => "Status: O\n".to_owned(),
    };
    let letters: String = known
        .iter()
        .filter(|(flag, _)| flags.system.contains(*flag))
        .map(|(_, letter)| *letter)
        .collect();
    if !letters.is_empty() {
        text.push_str(&format!("X-Status: {letters}\n"));
    }
    let mut words = flags.keywords().peekable();
    if words.peek().is_some() {
        text.push_str("X-Keywords:");
        for word in words {
            text.push_str(&format!(" {word}"));
        }
        text.push('\n');
    }
    text
}

/// `Thu Jan  1 00:00:00 1970`, in UTC (RFC 4155).
fn asctime(date: i64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let seconds = u64::try_from(date).unwrap_or(0);
    let day = DAYS
        .get(usize::try_from(seconds / 86_400 % 7).unwrap_or(0))
        .unwrap_or(&"Thu");
    let text = time::utc(seconds);
    let piece = |range: std::ops::Range<usize>| text.get(range).unwrap_or_default();
    let month = piece(5..7).parse::<usize>().unwrap_or(1);
    let month = MONTHS.get(month.saturating_sub(1)).unwrap_or(&"Jan");
    let of_month = piece(8..10).parse::<u32>().unwrap_or(1);
    format!(
        "{day} {month} {of_month:2} {} {}",
        piece(11..19),
        piece(0..4)
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn dates_are_those_of_asctime() {
        assert_eq!(asctime(0), "Thu Jan  1 00:00:00 1970");
        assert_eq!(asctime(1_790_000_000), "Mon Sep 21 14:13:20 2026");
    }

    #[test]
    fn entries_are_quoted_and_marked() {
        let flags = Flags::parse(&["\\Seen", "\\Flagged", "work"]).unwrap();
        let text = entry(b"Subject: x\r\n\r\nFrom me\r\n>From you\r\n", 0, &flags);
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "From MAILER-DAEMON Thu Jan  1 00:00:00 1970\nSubject: x\nStatus: RO\nX-Status: F\nX-Keywords: work\n\n>From me\n>>From you\n\n"
        );
    }

    #[test]
    fn own_fields_of_the_kind_are_noticed() {
        assert!(has_marks(b"Subject: x\r\nStatus: RO\r\n\r\ny"));
        assert!(!has_marks(b"Subject: x\r\n\r\nStatus: RO\r\n"));
    }

    #[test]
    fn names_become_files() {
        assert_eq!(file("INBOX"), PathBuf::from("INBOX.mbox"));
        assert_eq!(file("a/..b"), PathBuf::from("a/_.b.mbox"));
    }
}
