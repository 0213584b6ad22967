//! Rows of whole tables, read from one database and written into another of whatever kind.
//!
//! Columns have one of three kinds everywhere, so a row is a list of [`Value`]s that any of the databases takes. [`encode`] is
//! its form in a file, and [`Digest`] a sum over rows in any order: databases sort text differently.

use crate::{Db, Dialect, Error, Kind, Migration, Tx, Value};

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnKind {
    /// 64-bit integers.
    Int,
    /// UTF-8.
    Text,
    /// Octets.
    Blob,
}

impl ColumnKind {
    /// Its name in files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Int => "int",
            Self::Text => "text",
            Self::Blob => "blob",
        }
    }
}

/// A column of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// What it holds.
    pub kind: ColumnKind,
}

/// The tables that a schema's steps make, in their order.
pub fn tables(migrations: &[Migration]) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let statements = migrations.iter().flat_map(|step| step.statements);
    for statement in statements {
        let mut words = statement.split_ascii_whitespace();
        if words.next() != Some("CREATE") || words.next() != Some("TABLE") {
            if let Some(gone) = statement.trim().strip_prefix("DROP TABLE ") {
                let gone = gone
                    .split_ascii_whitespace()
                    .next_back()
                    .unwrap_or_default();
                found.retain(|name| name != gone);
            }
            continue;
        }
        let name = words.find(|word| !["IF", "NOT", "EXISTS"].contains(word));
        let name = name.map(|name| name.split('(').next().unwrap_or(name).to_owned());
        if let Some(name) = name
            && !found.contains(&name)
        {
            found.push(name);
        }
    }
    found
}

/// A table's columns, by the database's own catalogue; empty if there is no such table.
///
/// # Errors
/// See [`Kind`]; [`Kind::Schema`] for a type that no column of ours has.
pub async fn columns(tx: &mut Tx, table: &str) -> Result<Vec<Column>, Error> {
    let text = match tx.dialect() {
        Dialect::Sqlite => "SELECT name, type FROM pragma_table_info(?) ORDER BY cid",
        Dialect::Postgres => {
            "SELECT CAST(column_name AS TEXT), CAST(data_type AS TEXT) FROM information_schema.columns \
             WHERE table_schema = current_schema() AND table_name = ? ORDER BY ordinal_position"
        }
        Dialect::MySql => {
            "SELECT CAST(column_name AS CHAR), CAST(data_type AS CHAR) FROM information_schema.columns \
             WHERE table_schema = database() AND table_name = ? ORDER BY ordinal_position"
        }
    };
    let rows = tx.fetch_all(text, crate::args![table]).await?;
    let mut columns = Vec::with_capacity(rows.len());
    for row in &rows {
        let declared = row.text(1)?.to_ascii_lowercase();
        let kind = match declared.as_str() {
            "integer" | "bigint" => ColumnKind::Int,
            "text" | "longtext" | "varchar" | "character varying" => ColumnKind::Text,
            "blob" | "bytea" | "longblob" | "varbinary" => ColumnKind::Blob,
            other => {
                return Err(Error::new(
                    Kind::Schema,
                    format!("{table} has a column of the type {other}"),
                ));
            }
        };
        columns.push(Column {
            name: row.text(0)?.to_owned(),
            kind,
        });
    }
    Ok(columns)
}

/// Gives every row of a table to `take`, in no certain order, with the values of these columns.
///
/// # Errors
/// Those of the database and those of `take`.
pub async fn read<E: From<Error>>(
    tx: &mut Tx,
    table: &str,
    columns: &[Column],
    mut take: impl FnMut(Vec<Value>) -> Result<(), E>,
) -> Result<(), E> {
    let text = format!("SELECT {} FROM {table}", names(columns));
    let mut rows = tx.fetch(&text, Vec::new())?;
    while let Some(row) = rows.next().await? {
        let mut values = Vec::with_capacity(columns.len());
        for (at, column) in columns.iter().enumerate() {
            values.push(match column.kind {
                ColumnKind::Int => row.int_opt(at)?.into(),
                ColumnKind::Text => row.text_opt(at)?.into(),
                ColumnKind::Blob => row.blob_opt(at)?.into(),
            });
        }
        take(values)?;
    }
    Ok(())
}

/// Writes rows, one value for each column in each, in one transaction.
///
/// # Errors
/// See [`Kind`].
pub async fn write(
    db: &Db,
    table: &str,
    columns: &[Column],
    values: Vec<Value>,
) -> Result<(), Error> {
    let head = format!("INSERT INTO {table} ({})", names(columns));
    let mut tx = db.begin().await?;
    tx.insert_many(&head, columns.len(), values, "").await?;
    tx.commit().await
}

fn names(columns: &[Column]) -> String {
    let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
    names.join(", ")
}

/// Appends a row's octets: for each value its kind, then the integer or the length (8 octets, least first), then the octets.
pub fn encode(row: &[Value], out: &mut Vec<u8>) {
    for value in row {
        match value {
            Value::Null => out.push(0),
            Value::Int(number) => {
                out.push(1);
                out.extend_from_slice(&number.to_le_bytes());
            }
            Value::Text(text) => {
                out.push(2);
                out.extend_from_slice(&(text.len() as u64).to_le_bytes());
                out.extend_from_slice(text.as_bytes());
            }
            Value::Blob(octets) => {
                out.push(3);
                out.extend_from_slice(&(octets.len() as u64).to_le_bytes());
                out.extend_from_slice(octets);
            }
        }
    }
}

/// Takes a row of so many values off the front of what [`encode`] wrote.
///
/// # Errors
/// [`Kind::Corrupt`]: it is not that.
pub fn decode(octets: &mut &[u8], columns: usize) -> Result<Vec<Value>, Error> {
    let mut row = Vec::with_capacity(columns.min(64));
    for _ in 0..columns {
        row.push(value(octets).ok_or_else(|| Error::new(Kind::Corrupt, "a row is cut off"))?);
    }
    Ok(row)
}

fn value(octets: &mut &[u8]) -> Option<Value> {
    let (kind, rest) = octets.split_first()?;
    *octets = rest;
    if *kind == 0 {
        return Some(Value::Null);
    }
    let (number, rest) = octets.split_first_chunk::<8>()?;
    *octets = rest;
    if *kind == 1 {
        return Some(Value::Int(i64::from_le_bytes(*number)));
    }
    let length = usize::try_from(u64::from_le_bytes(*number)).ok()?;
    let (content, rest) = octets.split_at_checked(length)?;
    *octets = rest;
    match *kind {
        2 => String::from_utf8(content.to_vec()).ok().map(Value::Text),
        3 => Some(Value::Blob(content.to_vec())),
        _ => None,
    }
}

/// A sum over rows that does not depend on their order: their BLAKE3 hashes, added up as four numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest {
    sums: [u64; 4],
    /// How many rows it is of.
    pub rows: u64,
}

impl Digest {
    /// Adds a row.
    pub fn add(&mut self, row: &[Value]) {
        let mut octets = Vec::new();
        encode(row, &mut octets);
        let hash = blake3::hash(&octets);
        for (sum, part) in self.sums.iter_mut().zip(hash.as_bytes().as_chunks::<8>().0) {
            *sum = sum.wrapping_add(u64::from_le_bytes(*part));
        }
        self.rows += 1;
    }

    /// In hex.
    pub fn hex(&self) -> String {
        self.sums.iter().map(|sum| format!("{sum:016x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::args;

    const STEPS: &[Migration] = &[
        Migration {
            version: 1,
            name: "a",
            statements: &[
                "CREATE TABLE IF NOT EXISTS thing (
                    id {bigint} NOT NULL PRIMARY KEY,
                    name {name} NOT NULL,
                    data {blob}
                ) {table}",
                "CREATE INDEX {if_not_exists} thing_name ON thing (name)",
                "CREATE TABLE IF NOT EXISTS passing (id {bigint} NOT NULL PRIMARY KEY) {table}",
            ],
        },
        Migration {
            version: 2,
            name: "b",
            statements: &["DROP TABLE IF EXISTS passing"],
        },
    ];

    #[test]
    fn rows_survive_their_octets() {
        let row = vec![
            Value::Int(-5),
            Value::Null,
            Value::Text("ä".to_owned()),
            Value::Blob(vec![0, 1, 2]),
        ];
        let mut octets = Vec::new();
        encode(&row, &mut octets);
        encode(&row, &mut octets);
        let mut left = octets.as_slice();
        assert_eq!(decode(&mut left, 4).unwrap(), row);
        assert_eq!(decode(&mut left, 4).unwrap(), row);
        assert!(left.is_empty() && decode(&mut left, 1).is_err());
        for cut in 1..octets.len() / 2 {
            assert!(decode(&mut octets.get(..cut).unwrap(), 4).is_err());
        }
    }

    #[test]
    fn digests_do_not_see_the_order() {
        let (a, b) = (args![1, "x"], args![2, "y"]);
        let of = |rows: &[&Vec<Value>]| {
            let mut digest = Digest::default();
            rows.iter().for_each(|row| digest.add(row));
            digest
        };
        assert_eq!(of(&[&a, &b]), of(&[&b, &a]));
        assert_ne!(of(&[&a, &b]), of(&[&a, &a]));
        assert_ne!(of(&[&a]).hex(), of(&[&b]).hex());
    }

    #[test]
    fn tables_are_those_that_are_left() {
        assert_eq!(tables(STEPS), ["thing"]);
    }

    #[tokio::test]
    async fn every_database_gives_what_another_took() {
        let mut first: Option<Digest> = None;
        for kind in crate::testing::databases().await.unwrap() {
            let db = kind.open().await.unwrap();
            crate::migrate(&db, "thing", STEPS).await.unwrap();
            let mut tx = db.snapshot().await.unwrap();
            let found = columns(&mut tx, "thing").await.unwrap();
            tx.commit().await.unwrap();
            let kinds: Vec<&str> = found.iter().map(|column| column.kind.name()).collect();
            assert_eq!(kinds, ["int", "text", "blob"]);
            let mut values = args![u64::MAX, "Ä'?{", vec![0_u8, 255]];
            values.extend([Value::Int(2), Value::Text(String::new()), Value::Null]);
            write(&db, "thing", &found, values).await.unwrap();
            let mut digest = Digest::default();
            let mut tx = db.snapshot().await.unwrap();
            let take = |row: Vec<Value>| {
                digest.add(&row);
                Ok::<(), Error>(())
            };
            read(&mut tx, "thing", &found, take).await.unwrap();
            assert!(columns(&mut tx, "nothing").await.unwrap().is_empty());
            tx.commit().await.unwrap();
            assert_eq!(digest.rows, 2);
            assert_eq!(*first.get_or_insert(digest), digest);
        }
    }
}
