//! Accounts and their secrets.

use super::{Directory, DirectoryError, Result, occupy, page, schema, text};
use crate::{name, scram};
use ipc::api::authd::{Account, PutMode};
use sql::{Row, Tx, Value, args};
use types::{AccountId, Membership, Rights};

/// Groups of one account that go into its grants.
const GROUPS: u32 = 100;

/// A password in the forms in which it is stored.
pub(crate) struct NewSecret {
    /// In any format that [`crate::password`] reads.
    pub(crate) hash: String,
    /// Known when the password was given in clear; they must be of the account's salt.
    pub(crate) scram: Option<scram::Keys>,
}

/// An application password, as a login compares it.
#[derive(Clone)]
pub(crate) struct AppSecret {
    pub(crate) label: String,
    pub(crate) rights: Rights,
    pub(crate) hash: Vec<u8>,
    pub(crate) last_used: Option<u64>,
    pub(crate) scram: Option<([u8; 32], [u8; 32])>,
}

/// What a login needs of an account.
#[derive(Clone)]
pub(crate) struct Credentials {
    pub(crate) account: Account,
    /// Whether account and domain are enabled.
    pub(crate) enabled: bool,
    pub(crate) hash: Option<String>,
    pub(crate) salt: Vec<u8>,
    pub(crate) iterations: u32,
    pub(crate) scram: Option<([u8; 32], [u8; 32])>,
    pub(crate) app_passwords: Vec<AppSecret>,
    /// The groups it is a member of, by address; up to 100.
    pub(crate) groups: Vec<Membership>,
}

const COLUMNS: &str =
    "SELECT a.id, d.shown, a.display_name, a.enabled, a.quota_bytes, a.quota_messages, a.rights,
    CASE WHEN a.password IS NULL THEN 0 ELSE 1 END
    FROM directory_account a JOIN directory_address d ON d.address = a.address";

fn account(row: &Row) -> Result<Account> {
    Ok(Account {
        id: AccountId(row.u64(0)?),
        name: text(row, 1)?,
        display_name: text(row, 2)?,
        enabled: row.bool(3)?,
        quota_bytes: row.u64(4)?,
        quota_messages: row.u64(5)?,
        rights: Rights(row.u32(6)?),
        has_password: row.bool(7)?,
    })
}

fn keys(row: &Row, column: usize) -> Result<Option<([u8; 32], [u8; 32])>> {
    let (Some(stored), Some(server)) = (row.blob_opt(column)?, row.blob_opt(column + 1)?) else {
        return Ok(None);
    };
    Ok(stored.try_into().ok().zip(server.try_into().ok()))
}

impl Directory {
    /// Makes or changes an account. `salt` is for a new one.
    pub(crate) async fn account_put(
        &self,
        mode: PutMode,
        put: &Account,
        secret: Option<NewSecret>,
        salt: &[u8],
        iterations: u32,
    ) -> Result<Account> {
        let address = name::address(&put.name)?;
        if put.display_name.len() > 1000 || put.display_name.chars().any(char::is_control) {
            return Err(DirectoryError::Invalid(
                "a display name has at most 1,000 octets and no control characters".to_owned(),
            ));
        }
        if put.rights.0 & !Rights::ALL.0 != 0 {
            return Err(DirectoryError::Invalid(
                "there are no such rights".to_owned(),
            ));
        }
        let key = name::key(&address);
        let mut tx = self.db.begin().await?;
        match mode {
            PutMode::Create => {
                occupy(&mut tx, &address, schema::ACCOUNT, "", false).await?;
                insert(&mut tx, &key, put, secret, salt, iterations).await?;
            }
            PutMode::Update => update(&mut tx, &key, put, secret).await?,
        }
        self.commit(tx).await?;
        tracing::info!(account = %address, ?mode, "account written");
        let mut made = self.account_list(Some(&put.name), None, None, 1).await?;
        made.pop().ok_or(DirectoryError::NotFound(key))
    }

    /// The accounts, by name.
    pub(crate) async fn account_list(
        &self,
        only: Option<&str>,
        domain: Option<&str>,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<Account>> {
        let mut text = format!("{COLUMNS} WHERE 1 = 1");
        let mut args: Vec<Value> = Vec::new();
        if let Some(only) = only {
            text.push_str(" AND a.address = ?");
            args.push(name::key(&name::address(only)?).into());
        }
        if let Some(domain) = domain {
            text.push_str(" AND d.domain = ?");
            args.push(name::domain(domain)?.into());
        }
        if let Some(after) = after {
            text.push_str(" AND a.address > ?");
            args.push(name::key(&name::address(after)?).into());
        }
        text.push_str(" ORDER BY a.address LIMIT ?");
        args.push(page(limit).into());
        let rows = self.db.fetch_all(&text, args).await?;
        rows.iter().map(account).collect()
    }

    /// Removes an account with its secrets. It stays among the targets of aliases and groups, which then ignore it.
    pub(crate) async fn account_remove(&self, only: &str) -> Result<()> {
        let key = name::key(&name::address(only)?);
        let mut tx = self.db.begin().await?;
        let id = number(&mut tx, &key).await?;
        tx.execute(
            "DELETE FROM directory_app_password WHERE account = ?",
            args![id],
        )
        .await?;
        tx.execute("DELETE FROM directory_account WHERE id = ?", args![id])
            .await?;
        tx.execute(
            "DELETE FROM directory_address WHERE address = ?",
            args![&key],
        )
        .await?;
        self.commit(tx).await?;
        tracing::info!(account = key, "account removed");
        Ok(())
    }

    /// Salt and iterations of an account's SCRAM keys: all its passwords share them.
    pub(crate) async fn scram_salt(&self, only: &str) -> Result<Option<(Vec<u8>, u32)>> {
        let key = name::key(&name::address(only)?);
        let row = self
            .db
            .fetch_optional(
                "SELECT scram_salt, scram_iterations FROM directory_account WHERE address = ?",
                args![key],
            )
            .await?;
        row.map(|row| Ok((row.blob(0)?.to_vec(), row.u32(1)?)))
            .transpose()
    }

    /// What a login needs, by the name's key.
    pub(crate) async fn credentials(&self, key: &str) -> Result<Option<Credentials>> {
        let row = self
            .db
            .fetch_optional(
                "SELECT a.id, d.shown, a.display_name, a.enabled, a.quota_bytes, a.quota_messages, a.rights,
                    CASE WHEN a.password IS NULL THEN 0 ELSE 1 END,
                    m.enabled, a.password, a.scram_salt, a.scram_iterations, a.scram_stored, a.scram_server
                 FROM directory_account a JOIN directory_address d ON d.address = a.address
                    JOIN directory_domain m ON m.name = d.domain
                 WHERE a.address = ?",
                args![key],
            )
            .await?;
        let Some(row) = row else { return Ok(None) };
        let account = account(&row)?;
        let rows = self
            .db
            .fetch_all(
                "SELECT label, rights, hash, last_used, scram_stored, scram_server FROM directory_app_password WHERE account = ?",
                args![account.id.0],
            )
            .await?;
        let app_passwords = rows.iter().map(|row| {
            Ok(AppSecret {
                label: text(row, 0)?,
                rights: Rights(row.u32(1)?),
                hash: row.blob(2)?.to_vec(),
                last_used: row.int_opt(3)?.map(i64::cast_unsigned),
                scram: keys(row, 4)?,
            })
        });
        let rows = self
            .db
            .fetch_all(
                "SELECT d.shown, d.shared, d.account FROM directory_target t
                    JOIN directory_address d ON d.address = t.address
                 WHERE t.target = ? AND d.kind = ? ORDER BY d.address LIMIT ?",
                args![key, schema::GROUP, GROUPS],
            )
            .await?;
        let groups = rows.iter().map(|row| {
            let account = if row.bool(1)? { row.u64(2)? } else { 0 };
            Ok(Membership {
                account: AccountId(account),
                name: text(row, 0)?,
            })
        });
        let mut groups = groups.collect::<Result<Vec<_>>>()?;
        // The databases sort by collations of their own.
        groups.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(Some(Credentials {
            groups,
            enabled: account.enabled && row.bool(8)?,
            hash: row.text_opt(9)?.map(str::to_owned),
            salt: row.blob(10)?.to_vec(),
            iterations: row.u32(11)?,
            scram: keys(&row, 12)?,
            app_passwords: app_passwords.collect::<Result<_>>()?,
            account,
        }))
    }

    /// The mailboxes of a shared group; `None` if there is no such group, or it has none.
    pub(crate) async fn shared_group(&self, key: &str) -> Result<Option<Membership>> {
        let row = self
            .db
            .fetch_optional(
                "SELECT shown, account FROM directory_address WHERE address = ? AND kind = ? AND shared <> 0",
                args![key, schema::GROUP],
            )
            .await?;
        row.map(|row| {
            Ok(Membership {
                name: text(&row, 0)?,
                account: AccountId(row.u64(1)?),
            })
        })
        .transpose()
    }

    /// How the directory writes an address, if it is of that kind: account or group.
    pub(crate) async fn shown(&self, key: &str, group: bool) -> Result<Option<String>> {
        let kind = if group {
            schema::GROUP
        } else {
            schema::ACCOUNT
        };
        let row = self
            .db
            .fetch_optional(
                "SELECT shown FROM directory_address WHERE address = ? AND kind = ?",
                args![key, kind],
            )
            .await?;
        row.map(|row| text(&row, 0)).transpose()
    }

    /// Stores a better hash of the same password, unless the password was changed meanwhile.
    pub(crate) async fn rehash(&self, id: AccountId, old: &str, secret: &NewSecret) -> Result<()> {
        let stored = secret.scram.as_ref().map(|keys| keys.stored.to_vec());
        let server = secret.scram.as_ref().map(|keys| keys.server.to_vec());
        let mut tx = self.db.begin().await?;
        tx.execute(
            "UPDATE directory_account SET password = ?, scram_stored = ?, scram_server = ? WHERE id = ? AND password = ?",
            args![&secret.hash, stored, server, id.0, old],
        )
        .await?;
        self.commit(tx).await
    }
}

/// An account's number.
pub(super) async fn number(tx: &mut Tx, key: &str) -> Result<u64> {
    let row = tx
        .fetch_optional(
            "SELECT id FROM directory_account WHERE address = ? {for_update}",
            args![key],
        )
        .await?;
    let row = row.ok_or_else(|| DirectoryError::NotFound(format!("the account {key}")))?;
    Ok(row.u64(0)?)
}

/// The number of a new account. Counted apart from the rows, so that a number is never given again.
pub(super) async fn next_number(tx: &mut Tx) -> Result<u64> {
    tx.execute(
        "INSERT INTO directory_counter (name, number) VALUES ('account', 1)
            {on_conflict:name} number = directory_counter.number + 1",
        args![],
    )
    .await?;
    let row = tx
        .fetch_optional(
            "SELECT number FROM directory_counter WHERE name = 'account'",
            args![],
        )
        .await?;
    Ok(row.map_or(Ok(1), |row| row.u64(0))?)
}

async fn insert(
    tx: &mut Tx,
    key: &str,
    put: &Account,
    secret: Option<NewSecret>,
    salt: &[u8],
    iterations: u32,
) -> Result<()> {
    let id = next_number(tx).await?;
    let keys = secret.as_ref().and_then(|secret| secret.scram.as_ref());
    tx.execute(
        "INSERT INTO directory_account (id, address, display_name, enabled, quota_bytes, quota_messages, rights, password,
            scram_salt, scram_iterations, scram_stored, scram_server) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        args![
            id,
            key,
            &put.display_name,
            put.enabled,
            put.quota_bytes,
            put.quota_messages,
            put.rights.0,
            secret.as_ref().map(|secret| &secret.hash),
            salt,
            iterations,
            keys.map(|keys| keys.stored.to_vec()),
            keys.map(|keys| keys.server.to_vec())
        ],
    )
    .await?;
    Ok(())
}

async fn update(tx: &mut Tx, key: &str, put: &Account, secret: Option<NewSecret>) -> Result<()> {
    let id = number(tx, key).await?;
    tx.execute(
        "UPDATE directory_account SET display_name = ?, enabled = ?, quota_bytes = ?, quota_messages = ?, rights = ? WHERE id = ?",
        args![
            &put.display_name,
            put.enabled,
            put.quota_bytes,
            put.quota_messages,
            put.rights.0,
            id
        ],
    )
    .await?;
    let Some(secret) = secret else { return Ok(()) };
    tx.execute(
        "UPDATE directory_account SET password = ?, scram_stored = ?, scram_server = ? WHERE id = ?",
        args![
            &secret.hash,
            secret.scram.as_ref().map(|keys| keys.stored.to_vec()),
            secret.scram.as_ref().map(|keys| keys.server.to_vec()),
            id
        ],
    )
    .await?;
    Ok(())
}
