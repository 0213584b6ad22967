//! The file of a table: chunks of rows, each compressed by itself, its length (4 octets, least first) before it.

use super::manifest::{Piece, create, failed};
use crate::failure::Failure;
use sql::Value;
use sql::dump::{self, Digest};
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

/// Rows are compressed together until they are this long.
const CHUNK: usize = 1 << 20;
/// No chunk becomes longer: it has one row too many at most.
const CHUNK_MAX: usize = 1 << 30;

/// Writes a table's file.
pub(crate) struct Writer {
    path: PathBuf,
    name: String,
    file: BufWriter<File>,
    hasher: blake3::Hasher,
    bytes: u64,
    chunk: Vec<u8>,
    /// Of all rows.
    pub(crate) digest: Digest,
}

impl Writer {
    /// Makes the file.
    pub(crate) fn create(dir: &Path, name: String) -> Result<Self, Failure> {
        let path = dir.join(&name);
        let file = create(&path).map_err(|error| failed(&path, error))?;
        Ok(Self {
            path,
            name,
            file: BufWriter::new(file),
            hasher: blake3::Hasher::new(),
            bytes: 0,
            chunk: Vec::new(),
            digest: Digest::default(),
        })
    }

    /// Adds a row.
    pub(crate) fn put(&mut self, row: &[Value]) -> Result<(), Failure> {
        self.digest.add(row);
        dump::encode(row, &mut self.chunk);
        if self.chunk.len() >= CHUNK {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Failure> {
        let stored = blob::encode(&self.chunk, 3);
        self.chunk.clear();
        let length = u32::try_from(stored.len()).map_err(|error| failed(&self.path, error))?;
        for part in [length.to_le_bytes().as_slice(), &stored] {
            self.file
                .write_all(part)
                .map_err(|error| failed(&self.path, error))?;
            self.hasher.update(part);
            self.bytes += part.len() as u64;
        }
        Ok(())
    }

    /// Makes it durable.
    pub(crate) fn finish(mut self) -> Result<(Piece, Digest), Failure> {
        if !self.chunk.is_empty() {
            self.flush()?;
        }
        let path = self.path;
        let file = self
            .file
            .into_inner()
            .map_err(|error| failed(&path, error.error()))?;
        file.sync_all().map_err(|error| failed(&path, error))?;
        let piece = Piece {
            file: self.name,
            bytes: self.bytes,
            blake3: self.hasher.finalize().to_hex().to_string(),
        };
        Ok((piece, self.digest))
    }
}

/// Reads a table's file.
pub(crate) struct Reader {
    path: PathBuf,
    file: BufReader<File>,
    columns: usize,
}

impl Reader {
    /// Opens the file of a table with so many columns.
    pub(crate) fn open(dir: &Path, name: &str, columns: usize) -> Result<Self, Failure> {
        let path = dir.join(name);
        let file = File::open(&path).map_err(|error| failed(&path, error))?;
        Ok(Self {
            path,
            file: BufReader::new(file),
            columns,
        })
    }

    /// The rows of the next chunk; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Vec<Vec<Value>>>, Failure> {
        let broken = |error: &dyn std::fmt::Display| failed(&self.path, error);
        let mut length = [0; 4];
        match self.file.read_exact(&mut length) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(broken(&error)),
        }
        let mut stored = vec![0; u32::from_le_bytes(length) as usize];
        self.file
            .read_exact(&mut stored)
            .map_err(|error| broken(&error))?;
        let chunk = blob::decode(&stored, CHUNK_MAX).map_err(|error| broken(&error))?;
        let mut left = chunk.as_slice();
        let mut rows = Vec::new();
        while !left.is_empty() {
            rows.push(dump::decode(&mut left, self.columns).map_err(|error| broken(&error))?);
        }
        Ok(Some(rows))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn rows_come_back_in_their_order() {
        let dir = crate::scratch::Scratch::new();
        let mut writer = Writer::create(dir.path(), "t.rows".to_owned()).unwrap();
        let row = |n: i64| vec![Value::Int(n), Value::Text("x".repeat(9000))];
        for n in 0..300 {
            writer.put(&row(n)).unwrap();
        }
        let (piece, digest) = writer.finish().unwrap();
        piece.check(dir.path()).unwrap();
        assert_eq!(digest.rows, 300);
        let mut reader = Reader::open(dir.path(), "t.rows", 2).unwrap();
        let mut all = Vec::new();
        let mut chunks = 0;
        while let Some(rows) = reader.next().unwrap() {
            all.extend(rows);
            chunks += 1;
        }
        assert!(chunks > 1);
        assert_eq!(all, (0..300).map(row).collect::<Vec<_>>());
    }
}
