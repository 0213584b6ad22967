//! A component's rows in a file: what [`dump::encode`] makes of them, table by table, and a hash over all of it.
//!
//! `posthouse rows 1 COMPONENT VERSION` in a line. For each table `T`, the length of its head and the head: the table's name and
//! for each column its name and kind, a line each. For each of its rows `R`, the length of its octets and those. At the end
//! `E`, how many rows there were, and the BLAKE3 of all that stands before. Lengths and numbers have 8 octets, least first.

use super::{create, local};
use crate::dump::{self, Column, ColumnKind};
use crate::{Db, Error, Kind, Migration, Value};
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

/// The first word of the first line.
const MAGIC: &str = "posthouse rows 1";
/// Nothing in such a file is longer, but a row with a body: bodies in rows are small.
const LONGEST: u64 = 1 << 32;

/// A file on its way.
struct Writer {
    path: PathBuf,
    file: BufWriter<File>,
    hasher: blake3::Hasher,
    rows: u64,
}

impl Writer {
    fn put(&mut self, octets: &[u8]) -> Result<(), Error> {
        self.hasher.update(octets);
        let written = self.file.write_all(octets);
        written.map_err(|error| local(&self.path, &error))
    }

    fn part(&mut self, kind: u8, octets: &[u8]) -> Result<(), Error> {
        self.put(&[kind])?;
        self.put(&(octets.len() as u64).to_le_bytes())?;
        self.put(octets)
    }
}

/// Writes the tables that these steps make, as they are at one moment.
pub(super) async fn write(
    db: &Db,
    component: &str,
    version: u32,
    steps: &[Migration],
    path: &Path,
) -> Result<(), Error> {
    let mut out = Writer {
        path: path.to_owned(),
        file: BufWriter::new(create(path)?),
        hasher: blake3::Hasher::new(),
        rows: 0,
    };
    out.put(format!("{MAGIC} {component} {version}\n").as_bytes())?;
    let mut snapshot = db.snapshot().await?;
    for table in dump::tables(steps) {
        let columns = dump::columns(&mut snapshot, &table).await?;
        if columns.is_empty() {
            continue;
        }
        let mut head = format!("{table}\n");
        for column in &columns {
            head.push_str(&format!("{} {}\n", column.kind.name(), column.name));
        }
        out.part(b'T', head.as_bytes())?;
        let mut octets = Vec::new();
        dump::read(&mut snapshot, &table, &columns, |row| {
            octets.clear();
            dump::encode(&row, &mut octets);
            out.rows += 1;
            out.part(b'R', &octets)
        })
        .await?;
    }
    snapshot.commit().await?;
    let rows = out.rows.to_le_bytes();
    out.put(b"E")?;
    out.put(&rows)?;
    let hash = *out.hasher.finalize().as_bytes();
    let ended = out.file.write_all(&hash).and_then(|()| out.file.flush());
    ended.map_err(|error| local(path, &error))
}

/// What comes next in a file.
pub(super) enum Part {
    /// A table begins.
    Table(String, Vec<Column>),
    /// A row of it.
    Row(Vec<Value>),
}

/// A file that is read.
pub(super) struct Reader {
    path: PathBuf,
    file: BufReader<File>,
    hasher: blake3::Hasher,
    columns: usize,
    rows: u64,
    /// From its first line.
    pub(super) component: String,
    pub(super) version: u32,
}

impl Reader {
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(|error| local(path, &error))?;
        let mut reader = Self {
            path: path.to_owned(),
            file: BufReader::new(file),
            hasher: blake3::Hasher::new(),
            columns: 0,
            rows: 0,
            component: String::new(),
            version: 0,
        };
        let mut line = Vec::new();
        while !line.ends_with(b"\n") && line.len() < 300 {
            line.extend(reader.octets(1)?);
        }
        let line = String::from_utf8(line).map_err(|_| reader.damaged())?;
        let rest = line.strip_prefix(MAGIC).ok_or_else(|| reader.damaged())?;
        let (component, version) = rest
            .trim()
            .rsplit_once(' ')
            .ok_or_else(|| reader.damaged())?;
        reader.version = version.parse().map_err(|_| reader.damaged())?;
        component.clone_into(&mut reader.component);
        Ok(reader)
    }

    fn damaged(&self) -> Error {
        let text = format!("{} is damaged, or no backup point", self.path.display());
        Error::new(Kind::Corrupt, text)
    }

    fn raw(&mut self, length: u64) -> Result<Vec<u8>, Error> {
        let mut octets = Vec::new();
        let read = (&mut self.file).take(length).read_to_end(&mut octets);
        let read = read.map_err(|error| local(&self.path, &error))?;
        if read as u64 == length {
            Ok(octets)
        } else {
            Err(self.damaged())
        }
    }

    fn octets(&mut self, length: u64) -> Result<Vec<u8>, Error> {
        let octets = self.raw(length)?;
        self.hasher.update(&octets);
        Ok(octets)
    }

    fn number(&mut self) -> Result<u64, Error> {
        let octets = self.octets(8)?;
        let number = octets.first_chunk().ok_or_else(|| self.damaged())?;
        Ok(u64::from_le_bytes(*number))
    }

    /// The next part; `None` at the end, where count and hash were right.
    pub(super) fn next(&mut self) -> Result<Option<Part>, Error> {
        match self.octets(1)?.as_slice() {
            b"E" => {
                let rows = self.number()?;
                let hash = *self.hasher.finalize().as_bytes();
                if rows == self.rows && self.raw(32)? == hash {
                    Ok(None)
                } else {
                    Err(self.damaged())
                }
            }
            b"T" => {
                let head = self.part()?;
                let head = String::from_utf8(head).map_err(|_| self.damaged())?;
                let mut lines = head.lines();
                let table = lines.next().unwrap_or_default().to_owned();
                let columns: Option<Vec<Column>> = lines.map(column).collect();
                let columns = columns.ok_or_else(|| self.damaged())?;
                self.columns = columns.len();
                Ok(Some(Part::Table(table, columns)))
            }
            b"R" => {
                let octets = self.part()?;
                self.rows += 1;
                let row = dump::decode(&mut octets.as_slice(), self.columns)?;
                Ok(Some(Part::Row(row)))
            }
            _ => Err(self.damaged()),
        }
    }

    fn part(&mut self) -> Result<Vec<u8>, Error> {
        match self.number()? {
            length if length <= LONGEST => self.octets(length),
            _ => Err(self.damaged()),
        }
    }
}

fn column(line: &str) -> Option<Column> {
    let (kind, name) = line.split_once(' ')?;
    let kinds = [ColumnKind::Int, ColumnKind::Text, ColumnKind::Blob];
    let kind = kinds.into_iter().find(|one| one.name() == kind)?;
    let word = name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_');
    (word && !name.is_empty()).then(|| Column {
        name: name.to_owned(),
        kind,
    })
}
