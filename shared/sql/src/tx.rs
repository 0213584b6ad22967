//! Transactions.

use crate::db::Pools;
use crate::dialect::Texts;
use crate::sqlite_lease::{Lease, Leases, Turn};
use crate::{Db, Dialect, Error};
use sqlx::sqlite::SqliteConnection;
use sqlx::{MySql, Postgres, Transaction};
use std::sync::Arc;
use std::time::Duration;

/// A transaction. Dropping it rolls it back; with SQLite that closes its connection, so end it where you can.
pub struct Tx {
    pub(crate) driver: Driver,
    pub(crate) texts: Arc<Texts>,
}

pub(crate) enum Driver {
    Sqlite(SqliteTx),
    Postgres(Transaction<'static, Postgres>),
    MySql(Transaction<'static, MySql>),
}

/// A transaction of SQLite, begun and ended by ourselves: after some errors (disk full, I/O) SQLite has rolled back already, and
/// sqlx's own bookkeeping would leave the connection useless. What is not ended properly is closed.
pub(crate) struct SqliteTx {
    lease: Lease,
    /// Held until the connection is back: it stands behind it.
    _turn: Option<Turn>,
    open: bool,
    /// Its commit is not synced: the connection is made careful again behind it.
    relaxed: bool,
}

/// How often a reader of SQLite tries again that came while the writer was about to replace the index of its log.
pub(crate) const TURNS: u32 = 40;

/// Waits before such a try: a quarter of a second for all of them.
pub(crate) async fn pause(turn: u32) {
    tokio::time::sleep(Duration::from_micros(u64::from(turn) * 300)).await;
}

impl SqliteTx {
    /// A transaction that has its snapshot already. A reader that finds the log's index half written, and may not write itself, is
    /// told READONLY_RECOVERY; a moment later all is well.
    async fn snapshot(leases: &Arc<Leases>) -> Result<Self, Error> {
        for turn in 1.. {
            let mut tx = Self {
                lease: leases.acquire().await?,
                _turn: None,
                open: true,
                relaxed: false,
            };
            let begun = sqlx::raw_sql("BEGIN DEFERRED; SELECT 1 FROM sqlite_schema LIMIT 1")
                .execute(tx.connection()?)
                .await;
            match begun.map_err(Error::from) {
                Ok(_) => return Ok(tx),
                Err(error) if error.is_unready() && turn <= TURNS => {
                    tx.end("ROLLBACK").await?;
                    pause(turn).await;
                }
                Err(error) => return Err(error),
            }
        }
        Err(sqlx::Error::PoolTimedOut.into())
    }

    async fn begin(leases: &Arc<Leases>, how: &'static str, relaxed: bool) -> Result<Self, Error> {
        let turn = leases.turn().await?;
        let mut tx = Self {
            lease: leases.acquire().await?,
            _turn: Some(turn),
            open: true,
            relaxed,
        };
        if relaxed {
            sqlx::query("PRAGMA synchronous = NORMAL")
                .execute(tx.connection()?)
                .await?;
        }
        sqlx::query(how).execute(tx.connection()?).await?;
        Ok(tx)
    }

    pub(crate) fn connection(&mut self) -> Result<&mut SqliteConnection, sqlx::Error> {
        self.lease.get()
    }

    async fn end(mut self, how: &'static str) -> Result<(), sqlx::Error> {
        sqlx::query(how).execute(self.connection()?).await?;
        if self.relaxed {
            sqlx::query("PRAGMA synchronous = FULL")
                .execute(self.connection()?)
                .await?;
        }
        self.open = false;
        Ok(())
    }
}

impl Drop for SqliteTx {
    fn drop(&mut self) {
        if self.open {
            self.lease.spoil();
        }
    }
}

impl Db {
    /// Begins a transaction that writes. SQLite: it has the write lock from the start, so that it cannot fail for it later.
    /// PostgreSQL and MySQL: READ COMMITTED; lock what you read and mean to change (`{for_update}`).
    ///
    /// # Errors
    /// [`crate::Kind::Busy`], [`crate::Kind::Unavailable`] and others.
    pub async fn begin(&self) -> Result<Tx, Error> {
        self.begin_how(false).await
    }

    /// As [`Db::begin`], for what need not survive power loss of this machine: SQLite does not sync it. What it wrote is never there
    /// in part, and with the next commit that is synced it is as safe as that. A server may lose it as little as anything.
    ///
    /// # Errors
    /// As for [`Db::begin`].
    pub async fn begin_relaxed(&self) -> Result<Tx, Error> {
        self.begin_how(true).await
    }

    async fn begin_how(&self, relaxed: bool) -> Result<Tx, Error> {
        let driver = match &self.pools {
            Pools::Sqlite(pool) => {
                Driver::Sqlite(SqliteTx::begin(pool, "BEGIN IMMEDIATE", relaxed).await?)
            }
            Pools::Postgres(pool) => Driver::Postgres(pool.begin().await?),
            Pools::MySql(pool) => Driver::MySql(pool.begin().await?),
        };
        Ok(Tx {
            driver,
            texts: Arc::clone(&self.texts),
        })
    }

    /// Begins a transaction that only reads, and sees one state of the database throughout.
    ///
    /// # Errors
    /// As for [`Db::begin`].
    pub async fn snapshot(&self) -> Result<Tx, Error> {
        let driver = match &self.pools {
            Pools::Sqlite(pool) => Driver::Sqlite(SqliteTx::snapshot(pool).await?),
            Pools::Postgres(pool) => Driver::Postgres(
                pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                    .await?,
            ),
            Pools::MySql(pool) => {
                // The snapshot is only kept at REPEATABLE READ, which holds for the next transaction.
                let mut connection = pool.acquire().await?;
                sqlx::raw_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                    .execute(&mut *connection)
                    .await?;
                Driver::MySql(
                    Transaction::begin(
                        connection,
                        Some(sqlx::SqlStr::from_static(
                            "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",
                        )),
                    )
                    .await?,
                )
            }
        };
        Ok(Tx {
            driver,
            texts: Arc::clone(&self.texts),
        })
    }
}

impl Tx {
    /// Which database it is.
    pub fn dialect(&self) -> Dialect {
        self.texts.dialect()
    }

    /// Makes it durable.
    ///
    /// # Errors
    /// With [`crate::Kind::Unavailable`] nobody knows whether it is: ask the data.
    pub async fn commit(self) -> Result<(), Error> {
        match self.driver {
            Driver::Sqlite(tx) => tx.end("COMMIT").await?,
            Driver::Postgres(tx) => tx.commit().await?,
            Driver::MySql(tx) => tx.commit().await?,
        }
        Ok(())
    }

    /// Undoes it.
    ///
    /// # Errors
    /// The connection is lost: then it is undone as well.
    pub async fn rollback(self) -> Result<(), Error> {
        match self.driver {
            Driver::Sqlite(tx) => tx.end("ROLLBACK").await?,
            Driver::Postgres(tx) => tx.rollback().await?,
            Driver::MySql(tx) => tx.rollback().await?,
        }
        Ok(())
    }

    /// Marks a place to go back to. A second one takes its place.
    ///
    /// # Errors
    /// See [`crate::Kind`].
    pub async fn savepoint(&mut self) -> Result<(), Error> {
        self.execute_raw("SAVEPOINT here").await
    }

    /// Goes back to the last [`Tx::savepoint`]: what came behind it is undone, also when a statement failed.
    ///
    /// # Errors
    /// See [`crate::Kind`]. After a deadlock MySQL has undone everything and knows the place no more.
    pub async fn back_to_savepoint(&mut self) -> Result<(), Error> {
        self.execute_raw("ROLLBACK TO SAVEPOINT here").await
    }

    /// Forgets the last [`Tx::savepoint`] and keeps what came behind it.
    ///
    /// # Errors
    /// See [`crate::Kind`].
    pub async fn release_savepoint(&mut self) -> Result<(), Error> {
        self.execute_raw("RELEASE SAVEPOINT here").await
    }
}
