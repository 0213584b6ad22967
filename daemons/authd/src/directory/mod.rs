//! The directory database: domains, accounts, aliases, groups, application passwords, blocks. All SQL of authd is below here.

mod accounts;
mod app_passwords;
mod blocks;
mod domains;
mod lists;
pub(crate) mod lookup;
mod mailing;
mod personal;
pub(crate) mod schema;

pub(crate) use accounts::{Credentials, NewSecret};
pub(crate) use lists::{ListPut, ListRow};

use crate::cache::Generation;
use crate::password::HashError;
use ipc::{Fault, FaultKind};
use sql::{Db, Row, Tx, args};

/// Why an operation on the directory was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DirectoryError {
    /// The operator's request makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// What it names is not there.
    #[error("{0} is not in the directory")]
    NotFound(String),
    /// It is there already, or something needs it.
    #[error("{0}")]
    Conflict(String),
    /// A limit.
    #[error("{0}")]
    Limit(String),
    /// The database.
    #[error("{0}")]
    Sql(#[from] sql::Error),
}

impl From<HashError> for DirectoryError {
    fn from(error: HashError) -> Self {
        Self::Invalid(error.to_string())
    }
}

impl From<DirectoryError> for Fault {
    fn from(error: DirectoryError) -> Self {
        let kind = match &error {
            DirectoryError::Invalid(_) => FaultKind::Invalid,
            DirectoryError::NotFound(_) => FaultKind::NotFound,
            DirectoryError::Conflict(_) => FaultKind::Conflict,
            DirectoryError::Limit(_) => FaultKind::OverQuota,
            DirectoryError::Sql(error) => match error.kind() {
                sql::Kind::Busy | sql::Kind::Unavailable | sql::Kind::Full | sql::Kind::Denied => {
                    FaultKind::Temporary
                }
                // Somebody was quicker.
                sql::Kind::Unique => FaultKind::Conflict,
                _ => FaultKind::Internal,
            },
        };
        if kind == FaultKind::Internal || kind == FaultKind::Temporary {
            tracing::error!(%error, "the directory database failed");
        }
        Self::new(kind, error.to_string())
    }
}

pub(crate) type Result<T> = std::result::Result<T, DirectoryError>;

/// Rows in one answer.
const PAGE_MAX: u32 = 200;

/// The database, and the count of its changes.
#[derive(Clone, Debug)]
pub(crate) struct Directory {
    db: Db,
    generation: Generation,
    /// Members of a list with personal posts.
    personal_members: u64,
}

impl Directory {
    /// Brings the schema up to date, once a backup point of an older one is complete.
    pub(crate) async fn open(db: Db, points: &sql::Points) -> Result<Self> {
        sql::migrate_with_point(&db, schema::COMPONENT, schema::MIGRATIONS, points).await?;
        Ok(Self {
            db,
            generation: Generation::default(),
            personal_members: u64::MAX,
        })
    }

    /// Limits the members of lists with personal posts.
    pub(crate) fn with_personal_members(mut self, most: u64) -> Self {
        self.personal_members = most;
        self
    }

    /// Ends the connections, as when the server goes away.
    #[cfg(test)]
    pub(crate) async fn close(&self) {
        self.db.close().await;
    }

    /// Changes of the directory, for caches.
    pub(crate) fn generation(&self) -> &Generation {
        &self.generation
    }

    /// A secret of the whole site, made when it is first asked for.
    pub(crate) async fn secret(&self, name: &str, fresh: [u8; 32]) -> Result<Vec<u8>> {
        self.db
            .execute(
                "INSERT {ignore} INTO directory_secret (name, secret) VALUES (?, ?) {do_nothing}",
                args![name, fresh],
            )
            .await?;
        let row = self
            .db
            .fetch_optional(
                "SELECT secret FROM directory_secret WHERE name = ?",
                args![name],
            )
            .await?;
        let row = row.ok_or_else(|| DirectoryError::NotFound(name.to_owned()))?;
        Ok(row.blob(0)?.to_vec())
    }

    /// Makes a change durable and voids what is cached.
    async fn commit(&self, tx: Tx) -> Result<()> {
        let committed = tx.commit().await;
        // Also when it failed: nobody knows then.
        self.generation.advance();
        Ok(committed?)
    }
}

/// A page's length.
fn page(limit: u32) -> u32 {
    match limit {
        0 => PAGE_MAX,
        limit => limit.min(PAGE_MAX),
    }
}

/// Takes an address for a new owner, in a domain of ours.
async fn occupy(
    tx: &mut Tx,
    address: &types::Address,
    kind: i64,
    description: &str,
    send_as: bool,
) -> Result<()> {
    let key = crate::name::key(address);
    let taken = tx
        .fetch_optional(
            "SELECT kind FROM directory_address WHERE address = ?",
            args![&key],
        )
        .await?;
    if let Some(row) = taken {
        let kind = kind_name(row.int(0)?);
        return Err(DirectoryError::Conflict(format!(
            "{address} is {kind} already"
        )));
    }
    // Locked, so that the domain stays until we are done.
    let domain = tx
        .fetch_optional(
            "SELECT name FROM directory_domain WHERE name = ? {share}",
            args![address.domain()],
        )
        .await?;
    if domain.is_none() {
        return Err(DirectoryError::NotFound(format!(
            "the domain {}",
            address.domain()
        )));
    }
    tx.execute(
        "INSERT INTO directory_address (address, kind, domain, shown, description, send_as) VALUES (?, ?, ?, ?, ?, ?)",
        args![key, kind, address.domain(), address.to_string(), description, send_as],
    )
    .await?;
    Ok(())
}

fn kind_name(kind: i64) -> &'static str {
    match kind {
        schema::ACCOUNT => "an account",
        schema::ALIAS => "an alias",
        schema::MAILING_LIST => "a mailing list",
        _ => "a group",
    }
}

fn text(row: &Row, column: usize) -> Result<String> {
    Ok(row.text(column)?.to_owned())
}
