//! Bodies, many in a file: `000001.pack` and so on. A record is the body's BLAKE3, the length of what follows (8 octets,
//! least first), and the body in the form in which the store keeps it. Packs are never changed; one that a kill cut off
//! (`.part`) is kept up to its last whole record.

use super::manifest::{Piece, create, failed, make_folder, sync_folder};
use crate::failure::Failure;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// A pack that has become this long is closed.
const LONG: u64 = 256 << 20;
/// Of a record before its content.
const HEAD: u64 = 40;
/// No body is longer than IMAP can tell of.
const BODY_MAX: u64 = 1 << 32;

/// Where a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    pack: u32,
    at: u64,
    len: u64,
}

/// The folder of bodies.
pub(crate) struct Packs {
    dir: PathBuf,
    known: HashMap<[u8; 32], Place>,
    files: HashMap<u32, File>,
    last: u32,
    open: Option<Open>,
}

struct Open {
    number: u32,
    file: BufWriter<File>,
    hasher: blake3::Hasher,
    len: u64,
}

fn name(number: u32) -> String {
    format!("{number:06}.pack")
}

impl Packs {
    /// Opens it for reading: the complete packs.
    pub(crate) fn open(dir: &Path) -> Result<Self, Failure> {
        let mut packs = Self {
            dir: dir.to_owned(),
            known: HashMap::new(),
            files: HashMap::new(),
            last: 0,
            open: None,
        };
        if !dir.exists() {
            return Ok(packs);
        }
        for number in numbers(dir, ".pack")? {
            packs.last = packs.last.max(number);
            packs.scan(number)?;
        }
        Ok(packs)
    }

    /// Opens it for writing: what a kill has left half-written is made a pack of its whole records.
    pub(crate) fn open_writer(dir: &Path) -> Result<Self, Failure> {
        make_folder(dir)?;
        for number in numbers(dir, ".pack.part")? {
            salvage(dir, number)?;
        }
        Self::open(dir)
    }

    fn scan(&mut self, number: u32) -> Result<(), Failure> {
        let path = self.dir.join(name(number));
        let file = File::open(&path).map_err(|error| failed(&path, error))?;
        let length = file.metadata().map_err(|error| failed(&path, error))?.len();
        let mut reader = BufReader::with_capacity(1 << 16, &file);
        let mut at = 0;
        while at < length {
            let (hash, len) = head(&mut reader).map_err(|error| failed(&path, error))?;
            if len > BODY_MAX || at + HEAD + len > length {
                return Err(Failure::check(format!("{} is damaged", path.display())));
            }
            let place = Place {
                pack: number,
                at: at + HEAD,
                len,
            };
            self.known.insert(hash, place);
            at += HEAD + len;
            let skip = i64::try_from(len).unwrap_or(i64::MAX);
            reader
                .seek_relative(skip)
                .map_err(|error| failed(&path, error))?;
        }
        drop(reader);
        self.files.insert(number, file);
        Ok(())
    }

    /// Whether it has the body.
    pub(crate) fn has(&self, hash: &[u8; 32]) -> bool {
        self.known.contains_key(hash)
    }

    /// The body, checked against its hash; `None` if it is not there.
    pub(crate) fn get(&self, hash: &[u8; 32]) -> Result<Option<Vec<u8>>, Failure> {
        let Some(place) = self.known.get(hash) else {
            return Ok(None);
        };
        let path = self.dir.join(name(place.pack));
        let Some(file) = self.files.get(&place.pack) else {
            return Ok(None);
        };
        let mut stored = vec![0; usize::try_from(place.len).unwrap_or(0)];
        file.read_exact_at(&mut stored, place.at)
            .map_err(|error| failed(&path, error))?;
        let octets =
            blob::decode(&stored, BODY_MAX as usize).map_err(|error| failed(&path, error))?;
        if blob::id_of(&octets).0 != *hash {
            return Err(Failure::check(format!(
                "{}: a body is not what its hash says",
                path.display()
            )));
        }
        Ok(Some(octets))
    }

    /// Adds a body in its stored form.
    pub(crate) fn put(&mut self, hash: [u8; 32], stored: &[u8]) -> Result<(), Failure> {
        if self.has(&hash) {
            return Ok(());
        }
        if self.open.as_ref().is_some_and(|open| open.len >= LONG) {
            self.close()?;
        }
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.begin()?,
        };
        let path = self.dir.join(name(open.number));
        let len = stored.len() as u64;
        let length = len.to_le_bytes();
        for part in [hash.as_slice(), length.as_slice(), stored] {
            open.file
                .write_all(part)
                .map_err(|error| failed(&path, error))?;
            open.hasher.update(part);
        }
        let place = Place {
            pack: open.number,
            at: open.len + HEAD,
            len,
        };
        self.known.insert(hash, place);
        open.len += HEAD + len;
        self.open = Some(open);
        Ok(())
    }

    fn begin(&mut self) -> Result<Open, Failure> {
        self.last += 1;
        let path = self.dir.join(format!("{}.part", name(self.last)));
        let file = create(&path).map_err(|error| failed(&path, error))?;
        Ok(Open {
            number: self.last,
            file: BufWriter::with_capacity(1 << 18, file),
            hasher: blake3::Hasher::new(),
            len: 0,
        })
    }

    /// Makes what was added durable, in its final place.
    pub(crate) fn close(&mut self) -> Result<(), Failure> {
        let Some(open) = self.open.take() else {
            return Ok(());
        };
        let path = self.dir.join(name(open.number));
        let file = open
            .file
            .into_inner()
            .map_err(|error| failed(&path, error.error()))?;
        file.sync_all().map_err(|error| failed(&path, error))?;
        let piece = Piece {
            file: name(open.number),
            bytes: open.len,
            blake3: open.hasher.finalize().to_hex().to_string(),
        };
        finish(&self.dir, open.number, &piece)?;
        let file = File::open(&path).map_err(|error| failed(&path, error))?;
        self.files.insert(open.number, file);
        Ok(())
    }

    /// The complete packs.
    pub(crate) fn pieces(&self) -> Result<Vec<Piece>, Failure> {
        numbers(&self.dir, ".pack")?
            .into_iter()
            .map(|number| {
                let file = name(number);
                let known = std::fs::read(self.dir.join(format!("{file}.json"))).ok();
                match known.and_then(|text| serde_json::from_slice(&text).ok()) {
                    Some(piece) => Ok(piece),
                    None => Piece::of(&self.dir, &file),
                }
            })
            .collect()
    }
}

/// The hash beside the pack first, then the pack itself: one that has its name is complete.
fn finish(dir: &Path, number: u32, piece: &Piece) -> Result<(), Failure> {
    let path = dir.join(name(number));
    let text = serde_json::to_vec(piece).map_err(|error| failed(&path, error))?;
    super::manifest::write_whole(&dir.join(format!("{}.json", name(number))), &text)?;
    std::fs::rename(dir.join(format!("{}.part", name(number))), &path)
        .and_then(|()| sync_folder(&path))
        .map_err(|error| failed(&path, error))
}

fn head(reader: &mut impl Read) -> std::io::Result<([u8; 32], u64)> {
    let (mut hash, mut len) = ([0; 32], [0; 8]);
    reader.read_exact(&mut hash)?;
    reader.read_exact(&mut len)?;
    Ok((hash, u64::from_le_bytes(len)))
}

fn numbers(dir: &Path, end: &str) -> Result<Vec<u32>, Failure> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(|error| failed(dir, error))? {
        let entry = entry.map_err(|error| failed(dir, error))?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(end));
        found.extend(number.and_then(|number| number.parse::<u32>().ok()));
    }
    found.sort_unstable();
    Ok(found)
}

/// Cuts off what is not whole; removes it if nothing is.
fn salvage(dir: &Path, number: u32) -> Result<(), Failure> {
    let path = dir.join(format!("{}.part", name(number)));
    let broken = |error: std::io::Error| failed(&path, error);
    let mut file = File::options()
        .read(true)
        .write(true)
        .open(&path)
        .map_err(broken)?;
    let length = file.metadata().map_err(broken)?.len();
    let mut good = 0;
    while good + HEAD <= length {
        file.seek(SeekFrom::Start(good)).map_err(broken)?;
        let (hash, len) = head(&mut file).map_err(broken)?;
        if len > BODY_MAX || good + HEAD + len > length {
            break;
        }
        let mut stored = vec![0; usize::try_from(len).unwrap_or(0)];
        file.read_exact(&mut stored).map_err(broken)?;
        let sound = blob::decode(&stored, BODY_MAX as usize)
            .is_ok_and(|octets| blob::id_of(&octets).0 == hash);
        if !sound {
            break;
        }
        good += HEAD + len;
    }
    if good == 0 {
        return std::fs::remove_file(&path).map_err(broken);
    }
    file.set_len(good).map_err(broken)?;
    file.sync_all().map_err(broken)?;
    let part = Piece::of(dir, &format!("{}.part", name(number)))?;
    let piece = Piece {
        file: name(number),
        ..part
    };
    finish(dir, number, &piece)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn body(text: &str) -> ([u8; 32], Vec<u8>) {
        (
            blob::id_of(text.as_bytes()).0,
            blob::encode(text.as_bytes(), 3),
        )
    }

    #[test]
    fn bodies_come_back_and_are_kept_once() {
        let dir = crate::scratch::Scratch::new();
        let (a, stored_a) = body("first");
        let (b, stored_b) = body(&"second ".repeat(100));
        let mut packs = Packs::open_writer(dir.path()).unwrap();
        packs.put(a, &stored_a).unwrap();
        packs.put(a, &stored_a).unwrap();
        packs.close().unwrap();
        packs.put(b, &stored_b).unwrap();
        packs.close().unwrap();
        let packs = Packs::open(dir.path()).unwrap();
        assert_eq!(packs.get(&a).unwrap().unwrap(), b"first");
        assert_eq!(
            packs.get(&b).unwrap().unwrap(),
            "second ".repeat(100).as_bytes()
        );
        let pieces = packs.pieces().unwrap();
        assert_eq!(pieces.len(), 2);
        assert!(pieces.iter().all(|piece| piece.check(dir.path()).is_ok()));
        assert_eq!(pieces.first().unwrap().bytes, 40 + stored_a.len() as u64);
    }

    #[test]
    fn what_a_kill_cut_off_is_kept_up_to_its_last_whole_body() {
        let dir = crate::scratch::Scratch::new();
        let (a, stored_a) = body("first");
        let (b, stored_b) = body("second");
        let mut octets = Vec::new();
        for (hash, stored) in [(a, &stored_a), (b, &stored_b)] {
            octets.extend_from_slice(&hash);
            octets.extend_from_slice(&(stored.len() as u64).to_le_bytes());
            octets.extend_from_slice(stored);
        }
        octets.pop();
        std::fs::write(dir.path().join("000004.pack.part"), &octets).unwrap();
        let packs = Packs::open_writer(dir.path()).unwrap();
        assert!(packs.has(&a) && !packs.has(&b));
        assert!(!dir.path().join("000004.pack.part").exists());
        assert!(
            packs
                .pieces()
                .unwrap()
                .iter()
                .all(|piece| piece.check(dir.path()).is_ok())
        );
    }

    #[test]
    fn a_damaged_body_is_not_given() {
        let dir = crate::scratch::Scratch::new();
        let (a, stored) = body("first");
        let mut packs = Packs::open_writer(dir.path()).unwrap();
        packs.put(a, &stored).unwrap();
        packs.close().unwrap();
        let path = dir.path().join("000001.pack");
        let mut octets = std::fs::read(&path).unwrap();
        *octets.last_mut().unwrap() ^= 1;
        std::fs::write(&path, octets).unwrap();
        let packs = Packs::open(dir.path()).unwrap();
        assert_eq!(packs.get(&a).unwrap_err().status, 3);
    }
}
