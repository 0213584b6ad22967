//! Where the three databases differ, and the words that hide it.
//!
//! | in a statement | SQLite | PostgreSQL | MySQL, MariaDB |
//! |---|---|---|---|
//! | `?` | `?` | `$1`, `$2` ... | `?` |
//! | `{bigint}` | INTEGER | BIGINT | BIGINT |
//! | `{int}` (in CAST) | INTEGER | BIGINT | SIGNED |
//! | `{text}` | TEXT | TEXT | LONGTEXT |
//! | `{key}` text in an index, 255 characters | TEXT | TEXT | VARCHAR(255) |
//! | `{name}` text in an index, 700 characters | TEXT | TEXT | VARCHAR(700) |
//! | `{blob}` | BLOB | BYTEA | LONGBLOB |
//! | `{hash}` octets in an index, 64 | BLOB | BYTEA | VARBINARY(64) |
//! | `{table}` after the closing parenthesis of CREATE TABLE | | | InnoDB, utf8mb4, compared bytewise |
//! | `{clustered}` the same, rows kept in the order of the primary key | WITHOUT ROWID | | as `{table}` |
//! | `{if_not_exists}` in CREATE INDEX | IF NOT EXISTS | IF NOT EXISTS | (the migration runner knows) |
//! | `{indexed_by:i}` behind a table | `INDEXED BY i` | | |
//! | `{not_mysql}` at the start of a migration's statement | (done) | (done) | (left out) |
//! | `{only_sqlite}` the same | (done) | (left out) | (left out) |
//! | `INSERT {ignore} INTO t ... {do_nothing}` | ON CONFLICT DO NOTHING | the same | INSERT IGNORE |
//! | `{on_conflict:a, b} c = {excluded:c}` | ON CONFLICT (a, b) DO UPDATE SET c = excluded.c | the same | ON DUPLICATE KEY UPDATE c = VALUES(c) |
//! | `{for_update}` at the end of SELECT | | FOR UPDATE | FOR UPDATE |
//! | `{skip_locked}` at the end of SELECT | | FOR UPDATE SKIP LOCKED | FOR UPDATE SKIP LOCKED |
//! | `{clock}` the server's time, seconds since 1970 | strftime | clock_timestamp | UNIX_TIMESTAMP |
//! | `{share}` at the end of SELECT | | FOR SHARE | LOCK IN SHARE MODE |
//!
//! What stands in single quotes is left alone.

use crate::{Error, Kind};
use std::collections::HashMap;
use std::fmt::Write;
use std::sync::{Arc, PoisonError, RwLock};

/// Which database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// SQLite 3.
    Sqlite,
    /// PostgreSQL 13 or later.
    Postgres,
    /// MySQL 8 or MariaDB 10.6 or later.
    MySql,
}

impl Dialect {
    /// Its name as people write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "SQLite",
            Self::Postgres => "PostgreSQL",
            Self::MySql => "MySQL",
        }
    }

    /// Parameters that one statement may have.
    pub const fn max_parameters(self) -> usize {
        match self {
            Self::Sqlite => 32_000,
            Self::Postgres | Self::MySql => 65_000,
        }
    }

    /// Writes a statement in this dialect.
    ///
    /// # Errors
    /// [`Kind::Statement`]: an unknown word in braces.
    pub fn rewrite(self, text: &str) -> Result<String, Error> {
        let mut out = String::with_capacity(text.len() + 32);
        let mut parameters = 0;
        let mut rest = text;
        let mut quoted = false;
        while let Some(at) = rest.find(['?', '\'', '{']) {
            let (before, from) = rest.split_at(at);
            out.push_str(before);
            let mut chars = from.chars();
            let found = chars.next();
            rest = chars.as_str();
            match found {
                Some('\'') => {
                    quoted = !quoted;
                    out.push('\'');
                }
                Some('?') if !quoted && self == Self::Postgres => {
                    parameters += 1;
                    // Writing to a String cannot fail.
                    let _ = write!(out, "${parameters}");
                }
                Some('{') if !quoted => {
                    let (word, after) = rest.split_once('}').ok_or_else(|| unknown(rest))?;
                    self.word(word, &mut out)?;
                    rest = after;
                }
                Some(other) => out.push(other),
                None => {}
            }
        }
        out.push_str(rest);
        Ok(out)
    }

    fn word(self, word: &str, out: &mut String) -> Result<(), Error> {
        const TABLE: &str =
            "ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin";
        let (name, list) = word.split_once(':').unwrap_or((word, ""));
        let [sqlite, postgres, mysql] = match name {
            "bigint" => ["INTEGER", "BIGINT", "BIGINT"],
            "int" => ["INTEGER", "BIGINT", "SIGNED"],
            "text" => ["TEXT", "TEXT", "LONGTEXT"],
            "key" => ["TEXT", "TEXT", "VARCHAR(255)"],
            "name" => ["TEXT", "TEXT", "VARCHAR(700)"],
            "blob" => ["BLOB", "BYTEA", "LONGBLOB"],
            "hash" => ["BLOB", "BYTEA", "VARBINARY(64)"],
            "table" => ["", "", TABLE],
            "clustered" => ["WITHOUT ROWID", "", TABLE],
            "if_not_exists" => ["IF NOT EXISTS", "IF NOT EXISTS", ""],
            "not_mysql" | "only_sqlite" => ["", "", ""],
            "ignore" => ["", "", "IGNORE"],
            "do_nothing" => ["ON CONFLICT DO NOTHING", "ON CONFLICT DO NOTHING", ""],
            "for_update" => ["", "FOR UPDATE", "FOR UPDATE"],
            "skip_locked" => ["", "FOR UPDATE SKIP LOCKED", "FOR UPDATE SKIP LOCKED"],
            "clock" => [
                "CAST(strftime('%s', 'now') AS INTEGER)",
                "CAST(FLOOR(EXTRACT(EPOCH FROM clock_timestamp())) AS BIGINT)",
                "UNIX_TIMESTAMP()",
            ],
            "share" => ["", "FOR SHARE", "LOCK IN SHARE MODE"],
            "on_conflict" => {
                match self {
                    Self::MySql => out.push_str("ON DUPLICATE KEY UPDATE"),
                    _ => out.extend(["ON CONFLICT (", list, ") DO UPDATE SET"]),
                }
                return Ok(());
            }
            "excluded" => {
                match self {
                    Self::MySql => out.extend(["VALUES(", list, ")"]),
                    _ => out.extend(["excluded.", list]),
                }
                return Ok(());
            }
            // The others have statistics and choose well.
            "indexed_by" => {
                if self == Self::Sqlite {
                    out.extend(["INDEXED BY ", list]);
                }
                return Ok(());
            }
            _ => return Err(unknown(word)),
        };
        out.push_str(match self {
            Self::Sqlite => sqlite,
            Self::Postgres => postgres,
            Self::MySql => mysql,
        });
        Ok(())
    }
}

fn unknown(word: &str) -> Error {
    let word: String = word.chars().take(40).collect();
    Error::new(
        Kind::Statement,
        format!("{{{word}}} is no word of the dialect table"),
    )
}

/// Rewritten statements, by their text.
#[derive(Debug)]
pub(crate) struct Texts {
    dialect: Dialect,
    known: RwLock<HashMap<Box<str>, Arc<str>>>,
}

/// More different statements than this, and the program makes texts with values in them.
const TEXTS_MAX: usize = 4096;

impl Texts {
    pub(crate) fn new(dialect: Dialect) -> Self {
        Self {
            dialect,
            known: RwLock::default(),
        }
    }

    pub(crate) fn dialect(&self) -> Dialect {
        self.dialect
    }

    pub(crate) fn get(&self, text: &str) -> Result<Arc<str>, Error> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known.get(text) {
            return Ok(Arc::clone(found));
        }
        drop(known);
        let made: Arc<str> = self.dialect.rewrite(text)?.into();
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= TEXTS_MAX {
            known.clear();
        }
        known.insert(text.into(), Arc::clone(&made));
        Ok(made)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn parameters_are_numbered_outside_of_quotes() {
        let text = "SELECT '?{', a FROM t WHERE b = ? AND c = '' AND d IN (?, ?) {skip_locked}";
        assert_eq!(
            Dialect::Postgres.rewrite(text).unwrap(),
            "SELECT '?{', a FROM t WHERE b = $1 AND c = '' AND d IN ($2, $3) FOR UPDATE SKIP LOCKED"
        );
        assert_eq!(
            Dialect::Sqlite.rewrite(text).unwrap(),
            "SELECT '?{', a FROM t WHERE b = ? AND c = '' AND d IN (?, ?) "
        );
    }

    #[test]
    fn an_unknown_word_is_an_error() {
        assert!(Dialect::Sqlite.rewrite("SELECT {nothing}").is_err());
        assert!(Dialect::Sqlite.rewrite("SELECT {open").is_err());
        assert_eq!(
            Dialect::MySql
                .rewrite("{on_conflict:a, b} c = {excluded:c}")
                .unwrap(),
            "ON DUPLICATE KEY UPDATE c = VALUES(c)"
        );
    }
}
