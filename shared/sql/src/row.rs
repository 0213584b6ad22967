//! A row of a result.

use crate::Error;
use sqlx::Row as _;
use sqlx::mysql::MySqlRow;
use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;

/// A row; its columns count from 0. Text and octets are borrowed from it.
pub struct Row(Driver);

enum Driver {
    Sqlite(SqliteRow),
    Postgres(PgRow),
    MySql(MySqlRow),
}

impl From<SqliteRow> for Row {
    fn from(row: SqliteRow) -> Self {
        Self(Driver::Sqlite(row))
    }
}

impl From<PgRow> for Row {
    fn from(row: PgRow) -> Self {
        Self(Driver::Postgres(row))
    }
}

impl From<MySqlRow> for Row {
    fn from(row: MySqlRow) -> Self {
        Self(Driver::MySql(row))
    }
}

macro_rules! get {
    ($row:expr, $column:expr, $type:ty) => {
        match &$row.0 {
            Driver::Sqlite(row) => row.try_get_unchecked::<$type, usize>($column),
            Driver::Postgres(row) => row.try_get_unchecked::<$type, usize>($column),
            Driver::MySql(row) => row.try_get_unchecked::<$type, usize>($column),
        }
        .map_err(Error::from)
    };
}

/// SQLite would give 0 or nothing for it.
fn null(column: usize) -> Error {
    Error::new(crate::Kind::Corrupt, format!("column {column} is NULL"))
}

impl Row {
    /// An integer.
    ///
    /// # Errors
    /// No such column, NULL, or no integer.
    pub fn int(&self, column: usize) -> Result<i64, Error> {
        get!(self, column, Option<i64>)?.ok_or_else(|| null(column))
    }

    /// An integer or NULL.
    ///
    /// # Errors
    /// No such column, or no integer.
    pub fn int_opt(&self, column: usize) -> Result<Option<i64>, Error> {
        get!(self, column, Option<i64>)
    }

    /// An integer as it was bound from a `u64`.
    ///
    /// # Errors
    /// As for [`Row::int`].
    pub fn u64(&self, column: usize) -> Result<u64, Error> {
        self.int(column).map(i64::cast_unsigned)
    }

    /// An integer that fits 32 bits.
    ///
    /// # Errors
    /// As for [`Row::int`]; [`crate::Kind::Corrupt`] if it does not fit.
    pub fn u32(&self, column: usize) -> Result<u32, Error> {
        u32::try_from(self.int(column)?).map_err(|_| {
            Error::new(
                crate::Kind::Corrupt,
                format!("column {column} is out of range"),
            )
        })
    }

    /// An integer that is 0 or not.
    ///
    /// # Errors
    /// As for [`Row::int`].
    pub fn bool(&self, column: usize) -> Result<bool, Error> {
        self.int(column).map(|value| value != 0)
    }

    /// Text.
    ///
    /// # Errors
    /// No such column, NULL, or no UTF-8.
    pub fn text(&self, column: usize) -> Result<&str, Error> {
        get!(self, column, Option<&str>)?.ok_or_else(|| null(column))
    }

    /// Text or NULL.
    ///
    /// # Errors
    /// No such column, or no UTF-8.
    pub fn text_opt(&self, column: usize) -> Result<Option<&str>, Error> {
        get!(self, column, Option<&str>)
    }

    /// Octets.
    ///
    /// # Errors
    /// No such column, or NULL.
    pub fn blob(&self, column: usize) -> Result<&[u8], Error> {
        get!(self, column, Option<&[u8]>)?.ok_or_else(|| null(column))
    }

    /// Octets or NULL.
    ///
    /// # Errors
    /// No such column.
    pub fn blob_opt(&self, column: usize) -> Result<Option<&[u8]>, Error> {
        get!(self, column, Option<&[u8]>)
    }
}
