//! Domains.

use super::{Directory, DirectoryError, Result, text};
use crate::name;
use ipc::api::authd::{Domain, PutMode};
use sql::{Row, args};

const COLUMNS: &str =
    "SELECT name, enabled, catch_all, subaddressing, quota_bytes, alias_of FROM directory_domain";

fn domain(row: &Row) -> Result<Domain> {
    Ok(Domain {
        name: text(row, 0)?,
        enabled: row.bool(1)?,
        catch_all: row.text_opt(2)?.map(str::to_owned),
        subaddressing: row.bool(3)?,
        quota_bytes: row.u64(4)?,
        alias_of: row.text_opt(5)?.map(str::to_owned),
    })
}

impl Directory {
    /// Makes or changes a domain.
    pub(crate) async fn domain_put(&self, mode: PutMode, put: &Domain) -> Result<()> {
        let key = name::domain(&put.name)?;
        let catch_all = match put.catch_all.as_deref().filter(|text| !text.is_empty()) {
            Some(text) => Some(name::address(text)?.to_string()),
            None => None,
        };
        let alias_of = match put.alias_of.as_deref().filter(|text| !text.is_empty()) {
            Some(text) => Some(name::domain(text)?),
            None => None,
        };
        let mut tx = self.db.begin().await?;
        if let Some(other) = &alias_of {
            let there = tx
                .fetch_optional(
                    "SELECT name FROM directory_domain WHERE name = ? {share}",
                    args![other],
                )
                .await?;
            if there.is_none() || *other == key {
                return Err(DirectoryError::Invalid(format!(
                    "{other} is no other domain of ours"
                )));
            }
        }
        let known = tx
            .fetch_optional(
                "SELECT name FROM directory_domain WHERE name = ? {for_update}",
                args![&key],
            )
            .await?
            .is_some();
        match mode {
            PutMode::Create if known => {
                return Err(DirectoryError::Conflict(format!(
                    "the domain {key} is there already"
                )));
            }
            PutMode::Update if !known => {
                return Err(DirectoryError::NotFound(format!("the domain {key}")));
            }
            PutMode::Create => {
                tx.execute(
                    "INSERT INTO directory_domain (name, enabled, catch_all, subaddressing, quota_bytes, alias_of) VALUES (?, ?, ?, ?, ?, ?)",
                    args![&key, put.enabled, catch_all, put.subaddressing, put.quota_bytes, alias_of],
                )
                .await?;
            }
            PutMode::Update => {
                tx.execute(
                    "UPDATE directory_domain SET enabled = ?, catch_all = ?, subaddressing = ?, quota_bytes = ?, alias_of = ? WHERE name = ?",
                    args![put.enabled, catch_all, put.subaddressing, put.quota_bytes, alias_of, &key],
                )
                .await?;
            }
        }
        self.commit(tx).await?;
        tracing::info!(domain = key, ?mode, "domain written");
        Ok(())
    }

    /// The domains, by name.
    pub(crate) async fn domain_list(&self, only: Option<&str>) -> Result<Vec<Domain>> {
        let rows = match only {
            Some(only) => {
                let text = format!("{COLUMNS} WHERE name = ?");
                self.db.fetch_all(&text, args![name::domain(only)?]).await?
            }
            // A frame has 128 KiB: some hundred octets each.
            None => {
                let text = format!("{COLUMNS} ORDER BY name LIMIT 1000");
                self.db.fetch_all(&text, args![]).await?
            }
        };
        rows.iter().map(domain).collect()
    }

    /// One domain, by its key.
    pub(crate) async fn domain(&self, key: &str) -> Result<Option<Domain>> {
        let row = self
            .db
            .fetch_optional(&format!("{COLUMNS} WHERE name = ?"), args![key])
            .await?;
        row.as_ref().map(domain).transpose()
    }

    /// Removes a domain that nothing is in.
    pub(crate) async fn domain_remove(&self, only: &str) -> Result<()> {
        let key = name::domain(only)?;
        let mut tx = self.db.begin().await?;
        let known = tx
            .fetch_optional(
                "SELECT name FROM directory_domain WHERE name = ? {for_update}",
                args![&key],
            )
            .await?;
        if known.is_none() {
            return Err(DirectoryError::NotFound(format!("the domain {key}")));
        }
        let other = tx
            .fetch_optional(
                "SELECT name FROM directory_domain WHERE alias_of = ?",
                args![&key],
            )
            .await?;
        if let Some(row) = other {
            return Err(DirectoryError::Conflict(format!(
                "{} has its addresses: change that first",
                row.text(0)?
            )));
        }
        let used = tx
            .fetch_optional(
                "SELECT COUNT(*), MIN(shown) FROM directory_address WHERE domain = ?",
                args![&key],
            )
            .await?;
        if let Some(row) = used
            && row.int(0)? > 0
        {
            let first = row.text_opt(1)?.unwrap_or_default();
            let more = row.int(0)? - 1;
            return Err(DirectoryError::Conflict(format!(
                "{key} still has {first} and {more} more addresses: remove them first"
            )));
        }
        tx.execute("DELETE FROM directory_domain WHERE name = ?", args![&key])
            .await?;
        self.commit(tx).await?;
        tracing::info!(domain = key, "domain removed");
        Ok(())
    }
}
