//! What can go wrong, by whose fault it is and whether trying again helps.

use std::fmt;

/// The class of an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Somebody else was in the way: busy, deadlock, serialisation failure, lock timeout. The transaction is rolled back; run
    /// it again.
    Busy,
    /// The server cannot be reached, is shutting down, or has no connection left. Try again later.
    Unavailable,
    /// No space left, or a limit of the server. Try again when somebody has made room.
    Full,
    /// The login, the right, or the file's permission is missing; or the database is read-only.
    Denied,
    /// A unique or primary key is there already.
    Unique,
    /// Another constraint: foreign key, NOT NULL, check.
    Constraint,
    /// The database file or a row is damaged.
    Corrupt,
    /// The schema is newer or older than this program.
    Schema,
    /// The options or the URL.
    Config,
    /// The statement does not fit the schema: a mistake in this program.
    Statement,
}

/// A failed operation on a database.
pub struct Error {
    kind: Kind,
    detail: Detail,
}

enum Detail {
    Driver(Box<sqlx::Error>),
    Text(String),
}

impl Error {
    /// An error of our own.
    pub fn new(kind: Kind, text: impl Into<String>) -> Self {
        Self {
            kind,
            detail: Detail::Text(text.into()),
        }
    }

    /// Its class.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether the same may succeed later without anybody changing the program or the data: [`Kind::Busy`],
    /// [`Kind::Unavailable`], [`Kind::Full`].
    pub fn is_temporary(&self) -> bool {
        matches!(self.kind, Kind::Busy | Kind::Unavailable | Kind::Full)
    }

    /// SQLite: a reader came between two steps of the writer, or before it; it need only look again.
    pub(crate) fn is_unready(&self) -> bool {
        let Detail::Driver(error) = &self.detail else {
            return false;
        };
        let sqlx::Error::Database(error) = error.as_ref() else {
            return false;
        };
        let sqlite = error.try_downcast_ref::<sqlx::sqlite::SqliteError>();
        sqlite.is_some() && matches!(error.code().as_deref(), Some("264" | "1288"))
    }

    /// MySQL cannot roll back DDL: what a repeated migration may meet.
    pub(crate) fn is_done_already(&self) -> bool {
        let Detail::Driver(error) = &self.detail else {
            return false;
        };
        let sqlx::Error::Database(error) = error.as_ref() else {
            return false;
        };
        error
            .try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>()
            // Table exists; duplicate column; duplicate key name; nothing to drop.
            .is_some_and(|error| matches!(error.number(), 1050 | 1060 | 1061 | 1091))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.detail {
            Detail::Driver(error) => error.fmt(f),
            Detail::Text(text) => f.write_str(text),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.kind)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.detail {
            Detail::Driver(error) => Some(error.as_ref()),
            Detail::Text(_) => None,
        }
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        let kind = match &error {
            sqlx::Error::Database(error) => database_kind(error.as_ref()),
            sqlx::Error::Configuration(_) => Kind::Config,
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            // A server that is killed in the middle of an answer.
            | sqlx::Error::Protocol(_)
            | sqlx::Error::BeginFailed => Kind::Unavailable,
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => Kind::Corrupt,
            _ => Kind::Statement,
        };
        Self {
            kind,
            detail: Detail::Driver(Box::new(error)),
        }
    }
}

fn database_kind(error: &dyn sqlx::error::DatabaseError) -> Kind {
    match error.kind() {
        sqlx::error::ErrorKind::UniqueViolation => return Kind::Unique,
        sqlx::error::ErrorKind::ForeignKeyViolation
        | sqlx::error::ErrorKind::NotNullViolation
        | sqlx::error::ErrorKind::CheckViolation => return Kind::Constraint,
        _ => {}
    }
    if let Some(error) = error.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>() {
        return mysql_kind(error.number());
    }
    let code = error.code().unwrap_or_default();
    if error
        .try_downcast_ref::<sqlx::sqlite::SqliteError>()
        .is_some()
    {
        return sqlite_kind(code.parse().unwrap_or(1));
    }
    postgres_kind(&code)
}

/// <https://www.sqlite.org/rescode.html>
fn sqlite_kind(code: u32) -> Kind {
    match code & 0xff {
        5 | 6 => Kind::Busy,              // BUSY, LOCKED
        10 if code == 3850 => Kind::Busy, // IOERR_LOCK
        13 => Kind::Full,
        10 | 14 | 7 => Kind::Unavailable, // IOERR, CANTOPEN, NOMEM
        11 | 26 => Kind::Corrupt,         // CORRUPT, NOTADB
        // READONLY_RECOVERY, READONLY_CANTINIT: the writer has not made the -shm file ready yet.
        8 if matches!(code, 264 | 1288) => Kind::Unavailable,
        8 | 3 | 23 => Kind::Denied, // READONLY, PERM, AUTH
        19 => Kind::Constraint,
        17 => Kind::Busy, // SCHEMA: it changed under us
        _ => Kind::Statement,
    }
}

/// <https://www.postgresql.org/docs/current/errcodes-appendix.html>
fn postgres_kind(code: &str) -> Kind {
    match code {
        "40001" | "40P01" | "55P03" | "55006" => Kind::Busy,
        "25006" | "42501" => Kind::Denied,
        "57014" => Kind::Busy,
        "25P03" => Kind::Unavailable,
        "53100" | "53200" => Kind::Full,
        "XX001" | "XX002" => Kind::Corrupt,
        _ => match code.get(..2).unwrap_or_default() {
            "08" | "53" | "57" | "58" => Kind::Unavailable,
            "28" => Kind::Denied,
            "23" => Kind::Constraint,
            "40" => Kind::Busy,
            "3D" => Kind::Config,
            _ => Kind::Statement,
        },
    }
}

/// <https://mariadb.com/kb/en/mariadb-error-code-reference/>
fn mysql_kind(number: u16) -> Kind {
    match number {
        1205 | 1213 | 1020 | 1412 | 3572 => Kind::Busy,
        1021 | 1114 | 1041 | 1037 => Kind::Full,
        1040
        | 1053
        | 1077
        | 1080
        | 1158..=1161
        | 1184
        | 1203
        | 1226
        | 1317
        | 1927
        | 2002
        | 2003
        | 2006
        | 2013
        | 3159
        | 4031 => Kind::Unavailable,
        1044 | 1045 | 1142 | 1143 | 1227 | 1290 | 1792 | 1836 => Kind::Denied,
        1049 => Kind::Config,
        1062 => Kind::Unique,
        1034 | 1035 | 1194 | 1712 => Kind::Corrupt,
        1048 | 1451 | 1452 | 3819 | 4025 => Kind::Constraint,
        _ => Kind::Statement,
    }
}
