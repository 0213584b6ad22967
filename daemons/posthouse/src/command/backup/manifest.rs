//! What a generation of a backup is made of.

use crate::failure::Failure;
use serde::{Deserialize, Serialize};
use sql::dump::{Column, ColumnKind, Digest};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Of the layout of the folder. A program that knows only lower ones refuses it.
pub(crate) const FORMAT: u32 = 1;
/// The file that makes a generation complete.
pub(crate) const FILE: &str = "manifest.json";
/// The folder of bodies, beside the generations.
pub(crate) const BODIES: &str = "bodies";

/// All of a generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    /// [`FORMAT`]
    pub(crate) format: u32,
    /// Of the program that wrote it.
    pub(crate) version: String,
    /// `suite.hostname`.
    pub(crate) hostname: String,
    /// When the rows were read, seconds since 1970.
    pub(crate) taken: u64,
    /// The schemas and their tables.
    pub(crate) components: Vec<Component>,
    /// Bodies that the rows name.
    pub(crate) bodies: u64,
    /// Their octets, as messages have them.
    pub(crate) body_bytes: u64,
    /// Bodies that the rows name, but that could not be read when the backup was made: their BLAKE3.
    pub(crate) damaged: Vec<String>,
    /// The files of bodies.
    pub(crate) packs: Vec<Piece>,
    /// keyd's files.
    pub(crate) keys: Vec<Piece>,
}

/// A schema.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Component {
    /// Its name in `schema_version`.
    pub(crate) name: String,
    /// Its version.
    pub(crate) schema: u32,
    /// Its tables.
    pub(crate) tables: Vec<Table>,
}

/// A table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Table {
    /// Its name.
    pub(crate) name: String,
    /// Names and kinds of its columns.
    pub(crate) columns: Vec<(String, String)>,
    /// How many rows it has.
    pub(crate) rows: u64,
    /// Their sum, in any order.
    pub(crate) digest: String,
    /// Its file.
    pub(crate) piece: Piece,
}

/// A file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Piece {
    /// Its path, in the generation's folder or that of the bodies.
    pub(crate) file: String,
    /// Its length.
    pub(crate) bytes: u64,
    /// Its BLAKE3.
    pub(crate) blake3: String,
}

/// Names the file in a failure.
pub(crate) fn failed(path: &Path, error: impl std::fmt::Display) -> Failure {
    Failure::new(format!("{}: {error}", path.display()))
}

impl Piece {
    /// Reads a file for its length and hash.
    pub(crate) fn of(dir: &Path, file: &str) -> Result<Self, Failure> {
        let path = dir.join(file);
        let mut reader = File::open(&path).map_err(|error| failed(&path, error))?;
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; 1 << 18];
        let mut bytes = 0;
        loop {
            let count = reader
                .read(&mut buffer)
                .map_err(|error| failed(&path, error))?;
            if count == 0 {
                break;
            }
            hasher.update(buffer.get(..count).unwrap_or_default());
            bytes += count as u64;
        }
        Ok(Self {
            file: file.to_owned(),
            bytes,
            blake3: hasher.finalize().to_hex().to_string(),
        })
    }

    /// Whether the file is as it was written.
    pub(crate) fn check(&self, dir: &Path) -> Result<(), Failure> {
        let path = dir.join(&self.file);
        let inside = Path::new(&self.file)
            .components()
            .all(|part| matches!(part, std::path::Component::Normal(_)));
        if !inside {
            return Err(failed(&path, "a piece outside of the backup"));
        }
        if Self::of(dir, &self.file)? == *self {
            return Ok(());
        }
        Err(Failure::check(format!(
            "{} is damaged: it is not what was written",
            path.display()
        )))
    }
}

impl Table {
    /// Its columns for the database.
    pub(crate) fn columns(&self) -> Result<Vec<Column>, Failure> {
        let column = |(name, kind): &(String, String)| {
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            let kind = [ColumnKind::Int, ColumnKind::Text, ColumnKind::Blob]
                .into_iter()
                .find(|known| known.name() == kind)
                .filter(|_| name.chars().all(plain));
            let name = name.clone();
            kind.map(|kind| Column { name, kind })
                .ok_or_else(|| Failure::new(format!("{}: an unknown kind of column", self.name)))
        };
        self.columns.iter().map(column).collect()
    }

    /// Whether rows that were read are these.
    pub(crate) fn is(&self, digest: &Digest) -> bool {
        digest.rows == self.rows && digest.hex() == self.digest
    }
}

impl Manifest {
    /// Reads it; `None` if the generation is unfinished.
    pub(crate) fn read(generation: &Path) -> Result<Option<Self>, Failure> {
        let path = generation.join(FILE);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(&path, error)),
        };
        let manifest: Self = serde_json::from_slice(&text)
            .map_err(|error| Failure::check(format!("{}: {error}", path.display())))?;
        if manifest.format > FORMAT {
            return Err(failed(&path, "written by a later version of Posthouse"));
        }
        Ok(Some(manifest))
    }

    /// Writes it whole or not at all: then the generation is complete.
    pub(crate) fn write(&self, generation: &Path) -> Result<(), Failure> {
        let text = serde_json::to_vec_pretty(self).map_err(|error| failed(generation, error))?;
        write_whole(&generation.join(FILE), &text)
    }
}

/// Writes a file so that it is there whole, and survives power loss, or is not there.
pub(crate) fn write_whole(path: &Path, content: &[u8]) -> Result<(), Failure> {
    let mut part = path.as_os_str().to_owned();
    part.push(".new");
    let part = PathBuf::from(part);
    let write = || {
        let mut file = create(&part)?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&part, path)?;
        sync_folder(path)
    };
    write().map_err(|error| failed(path, error))
}

/// Makes a file that only its owner reads.
pub(crate) fn create(path: &Path) -> std::io::Result<File> {
    std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
}

/// Syncs the folder that a file is in.
pub(crate) fn sync_folder(path: &Path) -> std::io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// Makes a folder that only its owner enters.
pub(crate) fn make_folder(path: &Path) -> Result<(), Failure> {
    let mut builder = std::fs::DirBuilder::new();
    builder
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| failed(path, error))
}

/// The generations of a backup, oldest first, with whether they are complete.
pub(crate) fn generations(dir: &Path) -> Result<Vec<(PathBuf, bool)>, Failure> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(|error| failed(dir, error))? {
        let path = entry.map_err(|error| failed(dir, error))?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if path.is_dir()
            && name.len() == 16
            && name.ends_with('Z')
            && name.starts_with(char::is_numeric)
        {
            found.push((path.clone(), path.join(FILE).exists()));
        }
    }
    found.sort();
    Ok(found)
}

/// The generation of that name, or the newest complete one.
pub(crate) fn choose(dir: &Path, name: Option<&str>) -> Result<(PathBuf, Manifest), Failure> {
    let path = match name {
        Some(name) => dir.join(name),
        None => generations(dir)?
            .into_iter()
            .rev()
            .find(|(_, complete)| *complete)
            .map(|(path, _)| path)
            .ok_or_else(|| {
                Failure::check(format!("{} has no complete generation", dir.display()))
            })?,
    };
    match Manifest::read(&path)? {
        Some(manifest) => Ok((path, manifest)),
        None => Err(Failure::check(format!(
            "{} is unfinished: it has no {FILE}",
            path.display()
        ))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn unfinished_generations_are_passed_over() {
        let dir = crate::scratch::Scratch::new();
        for name in [
            "20260101T000000Z",
            "20260102T000000Z",
            "20260103T000000Z",
            "bodies",
        ] {
            make_folder(&dir.path().join(name)).unwrap();
        }
        assert!(choose(dir.path(), None).is_err());
        let manifest = Manifest {
            format: FORMAT,
            version: String::new(),
            hostname: String::new(),
            taken: 7,
            components: Vec::new(),
            bodies: 0,
            body_bytes: 0,
            damaged: Vec::new(),
            packs: Vec::new(),
            keys: Vec::new(),
        };
        manifest
            .write(&dir.path().join("20260102T000000Z"))
            .unwrap();
        let (path, found) = choose(dir.path(), None).unwrap();
        assert!(path.ends_with("20260102T000000Z") && found == manifest);
        assert!(choose(dir.path(), Some("20260103T000000Z")).is_err());
    }

    #[test]
    fn a_changed_piece_is_noticed() {
        let dir = crate::scratch::Scratch::new();
        std::fs::write(dir.path().join("a"), b"content").unwrap();
        let piece = Piece::of(dir.path(), "a").unwrap();
        piece.check(dir.path()).unwrap();
        std::fs::write(dir.path().join("a"), b"Content").unwrap();
        assert_eq!(piece.check(dir.path()).unwrap_err().status, 3);
        let outside = Piece {
            file: "../a".to_owned(),
            ..piece
        };
        assert!(outside.check(dir.path()).is_err());
    }
}
