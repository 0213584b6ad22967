//! Pools of connections, made from a URL.

use crate::dialect::Texts;
use crate::sqlite_lease::Leases;
use crate::{Dialect, Error, Kind};
use sqlx::mysql::{MySqlConnectOptions, MySqlPool, MySqlPoolOptions};
use sqlx::pool::PoolOptions;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, Database, Executor};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// How to open a database.
#[derive(Clone, Debug)]
pub struct Options {
    /// Connections at most; they are opened when needed. SQLite may have as many again for streams. 4.
    pub max_connections: u32,
    /// Only read. SQLite: the file and its `-wal` and `-shm` need only be readable, the directory need not be writable. false.
    pub read_only: bool,
    /// SQLite: make the file, readable for its owner and group, if it is not there. false.
    pub create: bool,
    /// How long to wait for a free connection, and for the server. 10 s.
    pub timeout: Duration,
    /// SQLite: how long to wait for another's lock. 10 s.
    pub busy_timeout: Duration,
    /// SQLite: page cache of each connection in KiB. 4,096.
    pub cache_kib: u32,
    /// SQLite: how much of the file is mapped into memory, in MiB; shared with all processes. 256.
    pub mmap_mib: u32,
    /// Prepared statements that each connection keeps. 256.
    pub statements: usize,
    /// Connections that are not used for so long are closed. 60 s.
    pub idle_timeout: Duration,
    /// PostgreSQL and MySQL: the server ends a transaction in which nothing happens for so long (of a process that was stopped,
    /// or a machine that is gone), and a lock is waited for half as long. `None`: as the server likes, or as long as usual.
    pub patience: Option<Duration>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_connections: 4,
            read_only: false,
            create: false,
            timeout: Duration::from_secs(10),
            busy_timeout: Duration::from_secs(10),
            cache_kib: 4096,
            mmap_mib: 256,
            statements: 256,
            idle_timeout: Duration::from_secs(60),
            patience: None,
        }
    }
}

impl Options {
    /// For a process that only reads.
    pub fn reader() -> Self {
        Self {
            read_only: true,
            ..Self::default()
        }
    }

    /// For the process that writes; makes a SQLite file.
    pub fn writer() -> Self {
        Self {
            create: true,
            ..Self::default()
        }
    }
}

/// A database: a pool of connections. Cheap to clone; all clones share the pool.
#[derive(Clone)]
pub struct Db {
    pub(crate) pools: Pools,
    pub(crate) texts: Arc<Texts>,
    read_only: bool,
}

#[derive(Clone)]
pub(crate) enum Pools {
    Sqlite(Arc<Leases>),
    Postgres(PgPool),
    MySql(MySqlPool),
}

impl fmt::Debug for Db {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.dialect().name())
    }
}

/// The file of a SQLite database, if the URL is of one.
pub fn sqlite_file(url: &str) -> Option<&Path> {
    let path = url.strip_prefix("sqlite:")?;
    let path = path.strip_prefix("//").unwrap_or(path);
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    Some(Path::new(path))
}

impl Db {
    /// Opens `sqlite:///path/file.db`, `postgres://user:password@host/database` or `mysql://user:password@host/database`
    /// (both also with `?host=/socket/directory` or `?socket=/path` as sqlx documents them). A server need not be there yet: it
    /// is connected to when the first statement runs. A SQLite file is opened at once.
    ///
    /// # Errors
    /// [`Kind::Config`]: not such a URL. SQLite: whatever opening the file gives; [`Kind::Unavailable`] if a reader comes before
    /// the writer has made the file.
    pub async fn open(url: &str, options: &Options) -> Result<Self, Error> {
        let (scheme, _) = url
            .split_once(':')
            .ok_or_else(|| Error::new(Kind::Config, "a database URL begins with a scheme"))?;
        let (pools, dialect) = match scheme {
            "sqlite" => {
                let file = sqlite_file(url).unwrap_or(Path::new(""));
                let leases = open_sqlite(file, options).await?;
                (Pools::Sqlite(Arc::new(leases)), Dialect::Sqlite)
            }
            "postgres" | "postgresql" => (
                Pools::Postgres(open_postgres(url, options)?),
                Dialect::Postgres,
            ),
            "mysql" | "mariadb" => (Pools::MySql(open_mysql(url, options)?), Dialect::MySql),
            _ => {
                return Err(Error::new(
                    Kind::Config,
                    format!("no database of the kind {scheme}: sqlite, postgres or mysql"),
                ));
            }
        };
        Ok(Self {
            pools,
            texts: Arc::new(Texts::new(dialect)),
            read_only: options.read_only,
        })
    }

    /// Which database it is.
    pub fn dialect(&self) -> Dialect {
        self.texts.dialect()
    }

    /// Whether it was opened to read only.
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Closes the connections. Those in use end first.
    pub async fn close(&self) {
        match &self.pools {
            Pools::Sqlite(leases) => leases.close().await,
            Pools::Postgres(pool) => pool.close().await,
            Pools::MySql(pool) => pool.close().await,
        }
    }
}

fn pool_options<D: Database>(options: &Options) -> PoolOptions<D> {
    PoolOptions::<D>::new()
        .max_connections(options.max_connections.max(1))
        .acquire_timeout(options.timeout)
        .idle_timeout(options.idle_timeout)
        .test_before_acquire(false)
}

/// A connection that was idle for longer is tried before it is used.
const TRY_AFTER: Duration = Duration::from_secs(5);

async fn open_sqlite(path: &Path, options: &Options) -> Result<Leases, Error> {
    let connect = SqliteConnectOptions::new()
        .filename(path)
        .foreign_keys(true)
        .busy_timeout(options.busy_timeout)
        .statement_cache_capacity(options.statements)
        .row_buffer_size(256)
        .pragma("cache_size", format!("-{}", options.cache_kib))
        .pragma(
            "mmap_size",
            (u64::from(options.mmap_mib) * 1024 * 1024).to_string(),
        )
        .pragma("temp_store", "MEMORY")
        .disable_statement_logging();
    let connect = if options.read_only {
        connect.read_only(true)
    } else {
        if options.create {
            create_file(path.to_owned()).await?;
        }
        connect
            .page_size(8192)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .pragma("wal_autocheckpoint", "2000")
            .pragma("journal_size_limit", "67108864")
    };
    if !options.read_only {
        keep_wal(&connect).await?;
    }
    let pool = pool_options::<sqlx::Sqlite>(options);
    let most = options.max_connections.max(1);
    let pool: SqlitePoolOptions = pool.max_lifetime(None).max_connections(most * 2);
    let pool = pool.connect_with(connect).await?;
    Ok(Leases::new(
        pool,
        most,
        options.timeout,
        options.idle_timeout,
    ))
}

/// The file itself, 0640: `-wal` and `-shm` take its mode, so that the group's readers can map them.
async fn create_file(path: PathBuf) -> Result<(), Error> {
    use std::os::unix::fs::OpenOptionsExt;
    let made = tokio::task::spawn_blocking(move || {
        std::fs::OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o640)
            .open(path)
    })
    .await;
    match made {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Ok(Err(error)) => Err(Error::new(
            Kind::Unavailable,
            format!("cannot make the database file: {error}"),
        )),
        Err(_) => Err(Error::new(
            Kind::Unavailable,
            "cannot make the database file",
        )),
    }
}

/// Makes the `-wal` and `-shm` files and sees to it that they stay: the last connection to close would remove them, and a
/// reader that may not write the directory could not make them again. So one connection is never closed; the kernel does that
/// when the process ends, which SQLite takes for a crash and is made for.
async fn keep_wal(connect: &SqliteConnectOptions) -> Result<(), Error> {
    let mut keeper = connect.clone().connect().await?;
    keeper
        .execute("CREATE TABLE IF NOT EXISTS keep_wal (kept INTEGER)")
        .await?;
    keeper.execute("BEGIN IMMEDIATE").await?;
    // A write that changes nothing for anybody else, so that the -wal file exists.
    keeper.execute("DELETE FROM keep_wal").await?;
    keeper.execute("INSERT INTO keep_wal VALUES (1)").await?;
    keeper.execute("COMMIT").await?;
    keeper.execute("SELECT kept FROM keep_wal").await?;
    keeper.execute("PRAGMA cache_size = 16").await?;
    keeper.shrink_buffers();
    std::mem::forget(keeper);
    Ok(())
}

fn open_postgres(url: &str, options: &Options) -> Result<PgPool, Error> {
    let connect = PgConnectOptions::from_str(url)
        .map_err(|_| Error::new(Kind::Config, "the PostgreSQL URL cannot be read"))?
        .statement_cache_capacity(options.statements)
        .application_name("posthouse")
        .disable_statement_logging();
    let connect = if options.read_only {
        connect.options([("default_transaction_read_only", "on")])
    } else {
        connect
    };
    let pool: PgPoolOptions = pool_options::<sqlx::Postgres>(options);
    let patience = options.patience;
    let pool = pool.after_connect(move |connection, _| {
        Box::pin(async move {
            if let Some(patience) = patience {
                let whole = patience.as_millis();
                let text = format!(
                    "SET idle_in_transaction_session_timeout = {whole}; SET lock_timeout = {}",
                    whole / 2
                );
                connection.execute(sqlx::AssertSqlSafe(text)).await?;
            }
            Ok(())
        })
    });
    let pool = pool.before_acquire(|connection, meta| {
        Box::pin(async move {
            if meta.idle_for > TRY_AFTER {
                connection.ping().await?;
            }
            Ok(true)
        })
    });
    Ok(pool.connect_lazy_with(connect))
}

fn open_mysql(url: &str, options: &Options) -> Result<MySqlPool, Error> {
    // sqlx knows one name for both.
    let url = match url.strip_prefix("mariadb:") {
        Some(rest) => format!("mysql:{rest}"),
        None => url.to_owned(),
    };
    let connect = MySqlConnectOptions::from_str(&url)
        .map_err(|_| Error::new(Kind::Config, "the MySQL URL cannot be read"))?
        .statement_cache_capacity(options.statements)
        .charset("utf8mb4")
        .collation("utf8mb4_bin")
        .disable_statement_logging();
    let read_only = options.read_only;
    let patience = options.patience;
    let pool: MySqlPoolOptions = pool_options::<sqlx::MySql>(options);
    let pool = pool
        .after_connect(move |connection, _| {
            Box::pin(async move {
                connection
                    .execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
                    .await?;
                connection
                    .execute(
                        "SET SESSION sql_mode = CONCAT(@@sql_mode, ',STRICT_ALL_TABLES'), innodb_lock_wait_timeout = 10",
                    )
                    .await?;
                if let Some(patience) = patience {
                    let whole = patience.as_secs().max(2);
                    let text = format!("SET SESSION innodb_lock_wait_timeout = {}", whole / 2);
                    connection.execute(sqlx::AssertSqlSafe(text)).await?;
                    // MariaDB's own; MySQL has nothing but the time for which a connection may be idle at all.
                    let text = format!("SET SESSION idle_transaction_timeout = {whole}");
                    if connection
                        .execute(sqlx::AssertSqlSafe(text))
                        .await
                        .is_err()
                    {
                        let text = format!("SET SESSION wait_timeout = {}", whole.max(90));
                        connection.execute(sqlx::AssertSqlSafe(text)).await?;
                    }
                }
                if read_only {
                    connection
                        .execute("SET SESSION TRANSACTION READ ONLY")
                        .await?;
                }
                Ok(())
            })
        })
        .before_acquire(|connection, meta| {
            Box::pin(async move {
                if meta.idle_for > TRY_AFTER {
                    connection.ping().await?;
                }
                Ok(true)
            })
        });
    Ok(pool.connect_lazy_with(connect))
}
