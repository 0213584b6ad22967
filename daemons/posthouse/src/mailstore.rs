//! The mail store and the directory's tables, opened without their daemons: to read beside them, or to fill them while they
//! are stopped.

use crate::connect::Place;
use crate::failure::Failure;
use std::path::PathBuf;
use std::sync::Arc;

/// Where the store is, by the configuration.
#[derive(Clone)]
pub(crate) struct MailStore {
    /// The section `[store]`.
    pub(crate) store: store::Config,
    /// The section `[blob]`.
    pub(crate) blobs: blob::Config,
    /// `authd.database`; empty for the file in authd's state directory.
    pub(crate) directory: String,
    /// The database of limits, if limitd is enabled.
    pub(crate) limits_url: Option<String>,
    /// `suite.state_dir`.
    pub(crate) state_dir: PathBuf,
}

impl From<store::Error> for Failure {
    fn from(error: store::Error) -> Self {
        Self::new(format!("the store: {error}"))
    }
}

impl From<sql::Error> for Failure {
    fn from(error: sql::Error) -> Self {
        Self::new(format!("the database: {error}"))
    }
}

impl From<blob::BlobError> for Failure {
    fn from(error: blob::BlobError) -> Self {
        Self::new(format!("the bodies: {error}"))
    }
}

impl MailStore {
    /// Reads the configuration.
    pub(crate) fn of(place: &Place) -> Result<Self, Failure> {
        let document = place.document()?;
        let failed = |failure: runtime::Failure| Failure::new(failure.to_string());
        let state_dir = document.suite().map_err(failed)?.state_dir;
        let limits: limitd::Config = document.section("limitd").map_err(failed)?;
        Ok(Self {
            limits_url: limits
                .enabled
                .then(|| limits.url(&state_dir.join("limits"))),
            store: document.section("store").map_err(failed)?,
            blobs: document.section("blob").map_err(failed)?,
            directory: document
                .section::<authd::Config>("authd")
                .map_err(failed)?
                .database,
            state_dir,
        })
    }

    /// The same kind of store in files below another folder, whatever the configuration says.
    pub(crate) fn scratch(&self, state_dir: PathBuf) -> Self {
        Self {
            store: store::Config {
                url: None,
                ..self.store.clone()
            },
            blobs: blob::Config {
                kind: blob::Kind::Fs,
                root: None,
                ..self.blobs.clone()
            },
            directory: String::new(),
            limits_url: None,
            state_dir,
        }
    }

    /// stored's state directory.
    pub(crate) fn store_dir(&self) -> PathBuf {
        self.state_dir.join("store")
    }

    /// keyd's state directory.
    pub(crate) fn keys_dir(&self) -> PathBuf {
        self.state_dir.join("keys")
    }

    /// Reads mail.
    pub(crate) async fn reader(&self) -> Result<store::Reader, Failure> {
        Ok(store::Reader::open(&self.store, &self.blobs, &self.store_dir()).await?)
    }

    /// The bodies, for reading.
    pub(crate) fn bodies(&self) -> Result<Arc<blob::Blobs>, Failure> {
        Ok(Arc::new(blob::Blobs::open(&self.blobs, &self.store_dir())?))
    }

    /// Where the store's tables are.
    pub(crate) fn tables_url(&self) -> String {
        self.store.url(&self.store_dir())
    }

    /// Where the directory's tables are.
    pub(crate) fn directory_url(&self) -> String {
        if self.directory.is_empty() {
            let file = self.state_dir.join("directory/directory.db");
            format!("sqlite://{}", file.display())
        } else {
            self.directory.clone()
        }
    }

    /// The store's tables.
    pub(crate) async fn tables(&self, options: &sql::Options) -> Result<sql::Db, Failure> {
        Ok(sql::Db::open(&self.tables_url(), options).await?)
    }

    /// The directory's tables.
    pub(crate) async fn directory(&self, options: &sql::Options) -> Result<sql::Db, Failure> {
        Ok(sql::Db::open(&self.directory_url(), options).await?)
    }
}
