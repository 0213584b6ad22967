//! Databases for tests, on all three kinds.
//!
//! A server is the one that `POSTHOUSE_TEST_POSTGRES` or `POSTHOUSE_TEST_MYSQL` names (a URL whose user may create databases);
//! otherwise a private one is started when its programs are installed, without network and without syncing, shared by all test
//! processes of this user. It ends by itself half a minute after the last of them. Where there is none, the test says so and
//! goes on without; with `POSTHOUSE_TEST_SQL=all` in the environment that is a failure.

mod server;

pub use server::{Server, ServerKind};

use crate::{Db, Error, Kind, Options};
use std::fs::File;
use std::sync::atomic::{AtomicU32, Ordering};

/// An empty database of its own for one test.
#[derive(Debug)]
pub struct TestDb {
    /// `SQLite`, `PostgreSQL`, `MySQL`.
    pub name: &'static str,
    /// For [`Db::open`].
    pub url: String,
    _directory: Option<tempfile::TempDir>,
    _in_use: Option<File>,
}

impl TestDb {
    /// Opens it to write.
    ///
    /// # Errors
    /// Those of [`Db::open`].
    pub async fn open(&self) -> Result<Db, Error> {
        Db::open(&self.url, &Options::writer()).await
    }
}

/// One database of each kind that can be had here.
///
/// # Errors
/// A server that is installed but does not start; any that is missing, if all are demanded.
pub async fn databases() -> Result<Vec<TestDb>, Error> {
    let mut found = vec![sqlite()?];
    for kind in [ServerKind::Postgres, ServerKind::MySql] {
        found.extend(server_database(kind).await?);
    }
    Ok(found)
}

/// A SQLite database in a temporary directory.
///
/// # Errors
/// No directory can be made.
pub fn sqlite() -> Result<TestDb, Error> {
    let directory = tempfile::tempdir().map_err(|error| local(&error))?;
    let url = format!("sqlite://{}", directory.path().join("test.db").display());
    Ok(TestDb {
        name: "SQLite",
        url,
        _directory: Some(directory),
        _in_use: None,
    })
}

/// A database on a server; `None`, and a line on standard error, if there is no such server here.
///
/// # Errors
/// As for [`databases`].
pub async fn server_database(kind: ServerKind) -> Result<Option<TestDb>, Error> {
    let (base, in_use) = match std::env::var(kind.variable()) {
        Ok(url) => (url, None),
        Err(_) => match tokio::task::spawn_blocking(move || server::shared(kind)).await {
            Ok(Ok(Some((url, lock)))) => (url, Some(lock)),
            Ok(Ok(None)) => return skipped(kind),
            Ok(Err(error)) => return Err(local(&error)),
            Err(error) => return Err(local(&error)),
        },
    };
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let started = std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .map_or(0, |time| time.as_millis());
    let name = format!(
        "test_{started}_{}_{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    );
    let options = Options {
        max_connections: 1,
        ..Options::default()
    };
    let admin = Db::open(&base, &options).await?;
    admin
        .execute_raw(&format!("CREATE DATABASE {name}"))
        .await?;
    admin.close().await;
    Ok(Some(TestDb {
        name: kind.name(),
        url: with_database(&base, &name),
        _directory: None,
        _in_use: in_use,
    }))
}

fn skipped(kind: ServerKind) -> Result<Option<TestDb>, Error> {
    if std::env::var("POSTHOUSE_TEST_SQL").is_ok_and(|value| value == "all") {
        return Err(Error::new(
            Kind::Unavailable,
            format!("{} is demanded, but not installed", kind.name()),
        ));
    }
    eprintln!(
        "SKIPPED on {}: it is not installed and {} is not set",
        kind.name(),
        kind.variable()
    );
    Ok(None)
}

fn with_database(url: &str, name: &str) -> String {
    let (path, query) = url
        .split_once('?')
        .map_or((url, None), |(a, b)| (a, Some(b)));
    let start = path.find("://").map_or(0, |at| at + 3);
    let host = path
        .get(start..)
        .and_then(|rest| rest.find('/'))
        .map_or(path.len(), |at| start + at);
    let host = path.get(..host).unwrap_or(path);
    query.map_or_else(
        || format!("{host}/{name}"),
        |query| format!("{host}/{name}?{query}"),
    )
}

fn local(error: &dyn std::fmt::Display) -> Error {
    Error::new(Kind::Unavailable, error.to_string())
}
