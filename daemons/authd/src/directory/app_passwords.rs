//! Application passwords. They are random and long, so that a plain hash of them is as good as a slow one.

use super::accounts::number;
use super::{Directory, DirectoryError, Result, text};
use crate::{name, scram};
use ipc::api::authd::AppPassword;
use sql::args;
use types::{AccountId, Rights};

impl Directory {
    /// Adds one; `keys` are of the account's salt.
    pub(crate) async fn app_password_add(
        &self,
        account: &str,
        entry: &AppPassword,
        hash: [u8; 32],
        keys: Option<&scram::Keys>,
        limit: usize,
    ) -> Result<()> {
        let label = entry.label.trim();
        if label.is_empty() || label.chars().count() > 100 || label.chars().any(char::is_control) {
            return Err(DirectoryError::Invalid(
                "a label has 1 to 100 characters, none of them control characters".to_owned(),
            ));
        }
        if entry.rights.0 == 0 || entry.rights.0 & !Rights::ALL.0 != 0 {
            return Err(DirectoryError::Invalid(
                "there are no such rights".to_owned(),
            ));
        }
        let key = name::key(&name::address(account)?);
        let mut tx = self.db.begin().await?;
        let id = number(&mut tx, &key).await?;
        let rows = tx
            .fetch_all(
                "SELECT label FROM directory_app_password WHERE account = ?",
                args![id],
            )
            .await?;
        for row in &rows {
            if row.text(0)? == label {
                return Err(DirectoryError::Conflict(format!(
                    "{key} has a password for {label} already"
                )));
            }
        }
        if rows.len() >= limit {
            return Err(DirectoryError::Limit(format!(
                "{key} has {limit} application passwords, the limit that authd.app_passwords sets"
            )));
        }
        tx.execute(
            "INSERT INTO directory_app_password (account, label, rights, created, hash, scram_stored, scram_server)
                VALUES (?, ?, ?, ?, ?, ?, ?)",
            args![
                id,
                label,
                entry.rights.0,
                entry.created,
                hash,
                keys.map(|keys| keys.stored.to_vec()),
                keys.map(|keys| keys.server.to_vec())
            ],
        )
        .await?;
        self.commit(tx).await?;
        tracing::info!(account = key, label, "application password made");
        Ok(())
    }

    /// Those of an account, by label.
    pub(crate) async fn app_password_list(&self, account: &str) -> Result<Vec<AppPassword>> {
        let key = name::key(&name::address(account)?);
        let known = self
            .db
            .fetch_optional(
                "SELECT id FROM directory_account WHERE address = ?",
                args![&key],
            )
            .await?;
        let known = known.ok_or_else(|| DirectoryError::NotFound(format!("the account {key}")))?;
        let rows = self
            .db
            .fetch_all(
                "SELECT label, rights, created, last_used FROM directory_app_password WHERE account = ? ORDER BY label",
                args![known.u64(0)?],
            )
            .await?;
        let entry = |row: &sql::Row| {
            Ok(AppPassword {
                label: text(row, 0)?,
                rights: Rights(row.u32(1)?),
                created: row.u64(2)?,
                last_used: row.int_opt(3)?.map(i64::cast_unsigned),
            })
        };
        rows.iter().map(entry).collect()
    }

    /// Removes one.
    pub(crate) async fn app_password_remove(&self, account: &str, label: &str) -> Result<()> {
        let key = name::key(&name::address(account)?);
        let mut tx = self.db.begin().await?;
        let id = number(&mut tx, &key).await?;
        let removed = tx
            .execute(
                "DELETE FROM directory_app_password WHERE account = ? AND label = ?",
                args![id, label.trim()],
            )
            .await?;
        if removed == 0 {
            return Err(DirectoryError::NotFound(format!(
                "the password of {key} for {label}"
            )));
        }
        self.commit(tx).await?;
        tracing::info!(account = key, label, "application password removed");
        Ok(())
    }

    /// Notes a use. Nothing that is cached depends on it.
    pub(crate) async fn app_password_used(
        &self,
        id: AccountId,
        label: &str,
        when: u64,
    ) -> Result<()> {
        self.db
            .execute(
                "UPDATE directory_app_password SET last_used = ? WHERE account = ? AND label = ?",
                args![when, id.0, label],
            )
            .await?;
        Ok(())
    }
}
