//! Attachments, opened within bounds: gzip, zip, or as they are. Nothing is ever unpacked as a whole; what comes out is read as it
//! is parsed, and ends where it becomes too much.

use super::Unreadable;
use crate::config::Intake;
use flate2::bufread::{DeflateDecoder, GzDecoder};
use std::io::{self, BufRead, BufReader, Read};

/// Octets before the ratio counts: short reports are all repetition.
const RATIO_FROM: u64 = 64 * 1024;
/// The end of a zip archive is looked for so far from its end: a comment may follow it.
const ZIP_TAIL: usize = 64 * 1024 + 22;

/// What is inside an attachment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inside {
    Xml,
    Json,
    /// An archive in an archive.
    Packed,
    Other,
}

/// A reader that ends where it becomes too much.
struct Bounded<R> {
    inner: R,
    /// Octets that may still come.
    left: u64,
    /// Octets that came.
    came: u64,
    /// Octets before unpacking.
    packed: u64,
    ratio: u64,
}

fn refuse(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        let len = count as u64;
        self.came += len;
        if len > self.left {
            return Err(refuse(format!(
                "more than {} octets come out of it",
                self.came - len
            )));
        }
        self.left -= len;
        if self.came > RATIO_FROM && self.came > self.packed.saturating_mul(self.ratio) {
            return Err(refuse(format!(
                "it becomes more than {} times larger",
                self.ratio
            )));
        }
        Ok(count)
    }
}

/// An attachment's content, and what it seems to be.
pub(crate) fn open<'a>(
    data: &'a [u8],
    bounds: &Intake,
) -> Result<(Inside, Box<dyn BufRead + 'a>), Unreadable> {
    if data.len() as u64 > bounds.max_compressed {
        let text = format!(
            "the attachment has more than {} octets",
            bounds.max_compressed
        );
        return Err(Unreadable(text));
    }
    let mut reader: Box<dyn BufRead + 'a> = match data {
        [0x1f, 0x8b, ..] => bounded(GzDecoder::new(data), data.len(), bounds),
        [b'P', b'K', 3, 4, ..] => zip(data, bounds)?,
        plain => bounded(plain, data.len(), bounds),
    };
    let inside = sniff(&mut reader).map_err(Unreadable::of_io)?;
    Ok((inside, reader))
}

fn bounded<'a>(inner: impl Read + 'a, packed: usize, bounds: &Intake) -> Box<dyn BufRead + 'a> {
    let reader = Bounded {
        inner,
        left: bounds.max_decompressed,
        came: 0,
        packed: (packed as u64).max(1),
        ratio: bounds.max_ratio,
    };
    Box::new(BufReader::with_capacity(16 * 1024, reader))
}

/// Looks at the first octets, and takes a byte order mark away.
fn sniff(reader: &mut dyn BufRead) -> io::Result<Inside> {
    // White space before is skipped, within reason.
    for _ in 0..4096 {
        let there = reader.fill_buf()?;
        let (inside, skip) = match there {
            [0xef, 0xbb, 0xbf, ..] => (None, 3),
            [b' ' | b'\t' | b'\r' | b'\n', ..] => (None, 1),
            [b'<', ..] => (Some(Inside::Xml), 0),
            [b'{', ..] => (Some(Inside::Json), 0),
            [0x1f, 0x8b, ..] | [b'P', b'K', 3, 4, ..] => (Some(Inside::Packed), 0),
            _ => (Some(Inside::Other), 0),
        };
        if let Some(inside) = inside {
            return Ok(inside);
        }
        reader.consume(skip);
    }
    Ok(Inside::Other)
}

fn number<const N: usize>(data: &[u8], at: usize) -> Option<u64> {
    let octets = data.get(at..at.checked_add(N)?)?;
    Some(
        octets
            .iter()
            .rev()
            .fold(0, |sum, octet| sum << 8 | u64::from(*octet)),
    )
}

/// The first file of an archive (APPNOTE 4.3.12 and 4.3.16). Its directory is at the end, and what it says of sizes is believed as
/// far as where to look; how much comes out is seen while it comes.
fn zip<'a>(data: &'a [u8], bounds: &Intake) -> Result<Box<dyn BufRead + 'a>, Unreadable> {
    let broken = || Unreadable("the archive is damaged".to_owned());
    let from = data.len().saturating_sub(ZIP_TAIL);
    let tail = data.get(from..).unwrap_or_default();
    let end = memchr::memmem::rfind(tail, b"PK\x05\x06").ok_or_else(broken)? + from;
    let entries = number::<2>(data, end + 10).ok_or_else(broken)?;
    if entries > bounds.max_entries as u64 {
        return Err(Unreadable(format!("the archive has {entries} files")));
    }
    let at = |place: u64| usize::try_from(place).map_err(|_| broken());
    let mut entry = at(number::<4>(data, end + 16).ok_or_else(broken)?)?;
    for _ in 0..entries {
        if data.get(entry..entry.saturating_add(4)) != Some(b"PK\x01\x02") {
            return Err(broken());
        }
        let field2 = |offset: usize| number::<2>(data, entry + offset).ok_or_else(broken);
        let field4 = |offset: usize| number::<4>(data, entry + offset).ok_or_else(broken);
        let (flags, method) = (field2(8)?, field2(10)?);
        let (packed, local) = (at(field4(20)?)?, at(field4(42)?)?);
        let rest = field2(28)? + field2(30)? + field2(32)?;
        // Folders, and what is empty.
        if packed == 0 || field4(24)? == 0 {
            entry = entry.saturating_add(46).saturating_add(at(rest)?);
            continue;
        }
        if flags & 1 != 0 {
            return Err(Unreadable("the archive is encrypted".to_owned()));
        }
        let name = number::<2>(data, local.saturating_add(26)).ok_or_else(broken)?;
        let extra = number::<2>(data, local.saturating_add(28)).ok_or_else(broken)?;
        let begin = local.saturating_add(30).saturating_add(at(name + extra)?);
        let content = data
            .get(begin..begin.saturating_add(packed))
            .ok_or_else(broken)?;
        return match method {
            0 => Ok(bounded(content, content.len(), bounds)),
            8 => Ok(bounded(DeflateDecoder::new(content), content.len(), bounds)),
            other => Err(Unreadable(format!(
                "the archive is packed in a way that is not known ({other})"
            ))),
        };
    }
    Err(Unreadable("the archive is empty".to_owned()))
}
