//! Aliases and groups: addresses with other addresses behind them.

use super::accounts::next_number;
use super::{Directory, DirectoryError, Result, kind_name, occupy, page, schema, text};
use crate::name;
use ipc::api::authd::PutMode;
use sql::{Tx, Value, args};
use std::collections::{BTreeMap, BTreeSet};
use types::Address;

/// An alias or a group to be written.
pub(crate) struct ListPut<'a> {
    pub(crate) group: bool,
    pub(crate) address: &'a str,
    pub(crate) targets: &'a [String],
    pub(crate) description: &'a str,
    pub(crate) send_as: bool,
    pub(crate) shared: bool,
}

/// An alias or a group as it is kept.
pub(crate) struct ListRow {
    pub(crate) address: String,
    pub(crate) targets: Vec<String>,
    pub(crate) description: String,
    pub(crate) send_as: bool,
    pub(crate) shared: bool,
    /// Of the mailboxes that it has, or once had.
    pub(crate) account: u64,
}

const ALIAS_TARGETS: usize = 100;
const GROUP_MEMBERS: usize = 1000;
/// A frame has 128 KiB, a long list some 80: what does not fit comes on the next page.
const ANSWER_OCTETS: usize = 96 * 1024;

fn kind(group: bool) -> i64 {
    if group { schema::GROUP } else { schema::ALIAS }
}

fn targets(put: &ListPut<'_>, own: &str) -> Result<Vec<(String, Address)>> {
    let (most, least) = if put.group {
        (GROUP_MEMBERS, 0)
    } else {
        (ALIAS_TARGETS, 1)
    };
    if put.targets.len() > most || put.targets.len() < least {
        return Err(DirectoryError::Invalid(format!(
            "{} has {} targets; {least} to {most} are possible",
            put.address,
            put.targets.len()
        )));
    }
    let mut seen = BTreeSet::new();
    let mut targets = Vec::with_capacity(put.targets.len());
    for text in put.targets {
        let address = name::address(text)?;
        let key = name::key(&address);
        if key == own {
            return Err(DirectoryError::Invalid(format!(
                "{text} would lead to itself"
            )));
        }
        if seen.insert(key.clone()) {
            targets.push((key, address));
        }
    }
    Ok(targets)
}

impl Directory {
    /// Makes or changes an alias or a group.
    pub(crate) async fn list_put(&self, mode: PutMode, put: &ListPut<'_>) -> Result<()> {
        let address = name::address(put.address)?;
        let key = name::key(&address);
        let targets = targets(put, &key)?;
        if put.description.len() > 1000 {
            return Err(DirectoryError::Invalid(
                "a description has at most 1,000 octets".to_owned(),
            ));
        }
        let mut tx = self.db.begin().await?;
        match mode {
            PutMode::Create => {
                occupy(
                    &mut tx,
                    &address,
                    kind(put.group),
                    put.description,
                    put.send_as,
                )
                .await?;
            }
            PutMode::Update => {
                expect(&mut tx, &key, put.group).await?;
                tx.execute(
                    "UPDATE directory_address SET description = ?, send_as = ? WHERE address = ?",
                    args![put.description, put.send_as, &key],
                )
                .await?;
                tx.execute(
                    "DELETE FROM directory_target WHERE address = ?",
                    args![&key],
                )
                .await?;
            }
        }
        share(&mut tx, &key, put.shared).await?;
        refuse_strays(&mut tx, &targets).await?;
        let mut rows: Vec<Value> = Vec::with_capacity(targets.len() * 4);
        for (place, (target, shown)) in targets.iter().enumerate() {
            rows.extend(args![&key, place as u64, target, shown.to_string()]);
        }
        if !rows.is_empty() {
            tx.insert_many(
                "INSERT INTO directory_target (address, place, target, shown)",
                4,
                rows,
                "",
            )
            .await?;
        }
        self.commit(tx).await?;
        tracing::info!(
            address = key,
            targets = targets.len(),
            ?mode,
            "{} written",
            kind_name(kind(put.group))
        );
        Ok(())
    }

    /// The aliases or groups, by address.
    pub(crate) async fn list_list(
        &self,
        group: bool,
        only: Option<&str>,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<ListRow>> {
        let mut statement =
            "SELECT address, shown, description, send_as, shared, account FROM directory_address WHERE kind = ?"
                .to_owned();
        let mut args: Vec<Value> = args![kind(group)];
        for (condition, value) in [(" AND address = ?", only), (" AND address > ?", after)] {
            if let Some(value) = value {
                statement.push_str(condition);
                args.push(name::key(&name::address(value)?).into());
            }
        }
        statement.push_str(" ORDER BY address LIMIT ?");
        args.push(page(limit).into());
        let rows = self.db.fetch_all(&statement, args).await?;
        let mut keys: Vec<Value> = Vec::with_capacity(rows.len());
        for row in &rows {
            keys.push(row.text(0)?.into());
        }
        let mut targets: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let found = self
            .db
            .fetch_in(
                "SELECT address, shown FROM directory_target WHERE address IN ({list}) ORDER BY address, place",
                &[],
                keys,
            )
            .await?;
        for row in &found {
            targets
                .entry(text(row, 0)?)
                .or_default()
                .push(text(row, 1)?);
        }
        let mut lists = Vec::with_capacity(rows.len());
        let mut octets = 0;
        for row in &rows {
            let targets = targets.remove(row.text(0)?).unwrap_or_default();
            octets += targets.iter().map(|target| target.len() + 2).sum::<usize>() + 400;
            if octets > ANSWER_OCTETS && !lists.is_empty() {
                break;
            }
            lists.push(ListRow {
                address: text(row, 1)?,
                description: text(row, 2)?,
                send_as: row.bool(3)?,
                shared: row.bool(4)?,
                account: row.u64(5)?,
                targets,
            });
        }
        Ok(lists)
    }

    /// Removes an alias or a group.
    pub(crate) async fn list_remove(&self, group: bool, only: &str) -> Result<()> {
        let key = name::key(&name::address(only)?);
        let mut tx = self.db.begin().await?;
        expect(&mut tx, &key, group).await?;
        tx.execute(
            "DELETE FROM directory_target WHERE address = ?",
            args![&key],
        )
        .await?;
        tx.execute(
            "DELETE FROM directory_address WHERE address = ?",
            args![&key],
        )
        .await?;
        self.commit(tx).await?;
        tracing::info!(address = key, "{} removed", kind_name(kind(group)));
        Ok(())
    }
}

/// Gives a group mailboxes of its own, or takes it away from them.
async fn share(tx: &mut Tx, key: &str, shared: bool) -> Result<()> {
    let row = tx
        .fetch_optional(
            "SELECT account FROM directory_address WHERE address = ?",
            args![key],
        )
        .await?;
    let mut account = row.map_or(Ok(0), |row| row.u64(0))?;
    if shared && account == 0 {
        account = next_number(tx).await?;
    }
    tx.execute(
        "UPDATE directory_address SET shared = ?, account = ? WHERE address = ?",
        args![shared, account, key],
    )
    .await?;
    Ok(())
}

/// The address must be there, and be what is meant.
async fn expect(tx: &mut Tx, key: &str, group: bool) -> Result<()> {
    let row = tx
        .fetch_optional(
            "SELECT kind FROM directory_address WHERE address = ? {for_update}",
            args![key],
        )
        .await?;
    let row = row.ok_or_else(|| DirectoryError::NotFound(key.to_owned()))?;
    let found = row.int(0)?;
    if found == kind(group) {
        return Ok(());
    }
    Err(DirectoryError::Conflict(format!(
        "{key} is {}",
        kind_name(found)
    )))
}

/// Targets in our own domains must exist: a misspelt one would lose mail silently.
async fn refuse_strays(tx: &mut Tx, targets: &[(String, Address)]) -> Result<()> {
    let domains: BTreeSet<&str> = targets.iter().map(|(_, target)| target.domain()).collect();
    let domains: Vec<Value> = domains.into_iter().map(Value::from).collect();
    let rows = tx
        .fetch_in(
            "SELECT name FROM directory_domain WHERE catch_all IS NULL AND subaddressing = 0 AND name IN ({list})",
            &[],
            domains.clone(),
        )
        .await?;
    let mut strict = BTreeSet::new();
    for row in &rows {
        strict.insert(text(row, 0)?);
    }
    let rows = tx
        .fetch_in(
            "SELECT name FROM directory_domain WHERE catch_all IS NULL AND subaddressing <> 0 AND name IN ({list})",
            &[],
            domains,
        )
        .await?;
    let mut detailed = BTreeSet::new();
    for row in &rows {
        detailed.insert(text(row, 0)?);
    }
    // Those with a detail are left to the resolution: the separator is a setting.
    let plain = |address: &Address| {
        address
            .local()
            .chars()
            .all(|c| c.is_alphanumeric() || c == '.')
    };
    let wanted: Vec<&(String, Address)> = targets
        .iter()
        .filter(|(_, target)| {
            strict.contains(target.domain())
                || (detailed.contains(target.domain()) && plain(target))
        })
        .collect();
    let keys = wanted.iter().map(|(key, _)| Value::from(key)).collect();
    let rows = tx
        .fetch_in(
            "SELECT address FROM directory_address WHERE address IN ({list})",
            &[],
            keys,
        )
        .await?;
    let mut known = BTreeSet::new();
    for row in &rows {
        known.insert(text(row, 0)?);
    }
    match wanted.iter().find(|(key, _)| !known.contains(key)) {
        None => Ok(()),
        Some((_, stray)) => Err(DirectoryError::Invalid(format!(
            "{stray} is in a domain of ours, but not in the directory: make it first"
        ))),
    }
}
