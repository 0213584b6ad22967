//! The database of what is kept: quotas, and what greylisting knows.

use crate::table::Changes;
use ipc::api::limitd::{Grey, GreyNetwork};
use sql::{Db, Error, Migration, Row, args};

/// The schema's name in `schema_version`.
pub const COMPONENT: &str = "limits";

/// Its versions.
pub const MIGRATIONS: &[Migration] = &[Migration {
    version: 1,
    name: "counts, greylisting",
    statements: &[
        // `scope` is host, rule and period: each host counts for itself.
        "CREATE TABLE IF NOT EXISTS limits_count (
            scope {key} NOT NULL,
            item {key} NOT NULL,
            counts {text} NOT NULL,
            expires {bigint} NOT NULL,
            PRIMARY KEY (scope, item)
        ) {table}",
        "CREATE INDEX {if_not_exists} limits_count_expires ON limits_count (expires)",
        // `item` is a hash of network, sender and recipient.
        "CREATE TABLE IF NOT EXISTS limits_grey (
            item {key} NOT NULL PRIMARY KEY,
            network {key} NOT NULL,
            sender {name} NOT NULL,
            recipient {name} NOT NULL,
            first_seen {bigint} NOT NULL,
            passed {bigint} NOT NULL,
            expires {bigint} NOT NULL
        ) {table}",
        "CREATE INDEX {if_not_exists} limits_grey_expires ON limits_grey (expires)",
        "CREATE INDEX {if_not_exists} limits_grey_first ON limits_grey (first_seen)",
        "CREATE TABLE IF NOT EXISTS limits_network (
            network {key} NOT NULL PRIMARY KEY,
            good {bigint} NOT NULL,
            allowed {bigint} NOT NULL,
            expires {bigint} NOT NULL
        ) {table}",
        "CREATE INDEX {if_not_exists} limits_network_expires ON limits_network (expires)",
    ],
}];

/// Rows in one statement.
const CHUNK: usize = 200;

/// A combination that greylisting knows, with the hash that is its key.
#[derive(Clone, Debug)]
pub(crate) struct GreyRow {
    pub(crate) item: String,
    pub(crate) grey: Grey,
}

/// The database.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    db: Db,
    /// Whose counts they are.
    node: String,
}

impl Store {
    pub(crate) fn new(db: Db, node: &str) -> Self {
        Self {
            db,
            node: crate::rule::short(node),
        }
    }

    /// Brings the schema up to date.
    pub(crate) async fn prepare(&self) -> Result<(), Error> {
        sql::migrate(&self.db, COMPONENT, MIGRATIONS).await?;
        Ok(())
    }

    fn scope(&self, scope: &str) -> String {
        crate::rule::short(&format!("{} {scope}", self.node))
    }

    /// Writes counts.
    pub(crate) async fn write_counts(&self, changes: &[(String, Changes)]) -> Result<(), Error> {
        let mut tx = self.db.begin().await?;
        for (scope, changes) in changes {
            let scope = self.scope(scope);
            for part in changes.written.chunks(CHUNK) {
                let values = part.iter().flat_map(|(key, counts, expires)| {
                    args![scope.as_str(), &**key, counts.as_str(), *expires]
                });
                tx.insert_many(
                    "INSERT INTO limits_count (scope, item, counts, expires)",
                    4,
                    values.collect(),
                    "{on_conflict:scope, item} counts = {excluded:counts}, expires = {excluded:expires}",
                )
                .await?;
            }
            let gone = changes
                .gone
                .iter()
                .map(|key| sql::Value::from(&**key))
                .collect();
            tx.execute_in(
                "DELETE FROM limits_count WHERE scope = ? AND item IN ({list})",
                &args![scope.as_str()],
                gone,
            )
            .await?;
        }
        tx.commit().await
    }

    /// Reads the counts of a scope, those that hold longest first: keys and counts.
    pub(crate) async fn counts(
        &self,
        scope: &str,
        now: u64,
        most: usize,
    ) -> Result<Vec<(String, String)>, Error> {
        let rows = self
            .db
            .fetch_all(
                "SELECT item, counts FROM limits_count WHERE scope = ? AND expires > ? ORDER BY expires DESC LIMIT ?",
                args![self.scope(scope), now, u64::try_from(most).unwrap_or(u64::MAX >> 1)],
            )
            .await?;
        let pair = |row: &Row| Ok((row.text(0)?.to_owned(), row.text(1)?.to_owned()));
        rows.iter().map(pair).collect()
    }

    /// A combination.
    pub(crate) async fn grey(
        &self,
        item: &str,
        now: u64,
    ) -> Result<Option<(u64, u64, u64)>, Error> {
        let row = self
            .db
            .fetch_optional(
                "SELECT first_seen, passed, expires FROM limits_grey WHERE item = ? AND expires > ?",
                args![item, now],
            )
            .await?;
        row.map(|row| Ok((row.u64(0)?, row.u64(1)?, row.u64(2)?)))
            .transpose()
    }

    /// A network.
    pub(crate) async fn network(
        &self,
        network: &str,
        now: u64,
    ) -> Result<Option<GreyNetwork>, Error> {
        let row = self
            .db
            .fetch_optional(
                "SELECT network, good, allowed, expires FROM limits_network WHERE network = ? AND expires > ?",
                args![network, now],
            )
            .await?;
        row.as_ref().map(network_of).transpose()
    }

    /// Writes what greylisting learnt.
    pub(crate) async fn write_greys(
        &self,
        rows: &[GreyRow],
        networks: &[GreyNetwork],
    ) -> Result<(), Error> {
        let mut tx = self.db.begin().await?;
        for part in rows.chunks(CHUNK) {
            let values = part.iter().flat_map(|GreyRow { item, grey }| {
                args![
                    item.as_str(),
                    grey.network.as_str(),
                    grey.sender.as_str(),
                    grey.recipient.as_str(),
                    grey.first,
                    grey.passed,
                    grey.expires,
                ]
            });
            tx.insert_many(
                "INSERT INTO limits_grey (item, network, sender, recipient, first_seen, passed, expires)",
                7,
                values.collect(),
                "{on_conflict:item} first_seen = {excluded:first_seen}, passed = {excluded:passed},
                    expires = {excluded:expires}",
            )
            .await?;
        }
        for part in networks.chunks(CHUNK) {
            let values = part
                .iter()
                .flat_map(|one| args![one.network.as_str(), one.good, one.allowed, one.expires]);
            tx.insert_many(
                "INSERT INTO limits_network (network, good, allowed, expires)",
                4,
                values.collect(),
                "{on_conflict:network} good = {excluded:good}, allowed = {excluded:allowed},
                    expires = {excluded:expires}",
            )
            .await?;
        }
        tx.commit().await
    }

    /// What there is; with `part`, only of this network, sender or recipient.
    pub(crate) async fn greys(
        &self,
        part: &str,
        now: u64,
        most: u32,
    ) -> Result<(Vec<Grey>, Vec<GreyNetwork>), Error> {
        let (which, mut args) = match part {
            "" => ("", args![now]),
            _ => (
                "AND (network = ? OR sender = ? OR recipient = ?)",
                args![now, part, part, part],
            ),
        };
        args.push(most.into());
        let text = format!(
            "SELECT network, sender, recipient, first_seen, passed, expires FROM limits_grey
                WHERE expires > ? {which} ORDER BY first_seen DESC LIMIT ?"
        );
        let rows = self.db.fetch_all(&text, args).await?;
        let grey = |row: &Row| {
            Ok(Grey {
                network: row.text(0)?.to_owned(),
                sender: row.text(1)?.to_owned(),
                recipient: row.text(2)?.to_owned(),
                first: row.u64(3)?,
                passed: row.u64(4)?,
                expires: row.u64(5)?,
            })
        };
        let greys = rows.iter().map(grey).collect::<Result<_, Error>>()?;
        let (which, mut args) = match part {
            "" => ("allowed = 1", args![now]),
            _ => ("network = ?", args![now, part]),
        };
        args.push(most.into());
        let text = format!(
            "SELECT network, good, allowed, expires FROM limits_network WHERE expires > ? AND {which}
                ORDER BY network LIMIT ?"
        );
        let rows = self.db.fetch_all(&text, args).await?;
        let networks = rows.iter().map(network_of).collect::<Result<_, Error>>()?;
        Ok((greys, networks))
    }

    /// Forgets what has this network, sender or recipient; how many rows.
    pub(crate) async fn forget(&self, item: &str) -> Result<u64, Error> {
        let greys = self
            .db
            .execute(
                "DELETE FROM limits_grey WHERE network = ? OR sender = ? OR recipient = ?",
                args![item, item, item],
            )
            .await?;
        let networks = self
            .db
            .execute("DELETE FROM limits_network WHERE network = ?", args![item])
            .await?;
        Ok(greys + networks)
    }

    /// Forgets what has run out, and the oldest of those who never came again if there are more than `most`.
    pub(crate) async fn sweep(&self, now: u64, most: u64) -> Result<(), Error> {
        for table in ["limits_count", "limits_grey", "limits_network"] {
            let text = format!("DELETE FROM {table} WHERE expires <= ?");
            self.db.execute(&text, args![now]).await?;
        }
        let row = self
            .db
            .fetch_optional("SELECT CAST(COUNT(*) AS {int}) FROM limits_grey", args![])
            .await?;
        let count = row.map_or(Ok(0), |row| row.u64(0))?;
        let Some(over) = count.checked_sub(most).filter(|over| *over > 0) else {
            return Ok(());
        };
        // Those that came again are few, and keep their place.
        let row = self
            .db
            .fetch_optional(
                "SELECT first_seen FROM limits_grey WHERE passed = 0 ORDER BY first_seen LIMIT 1 OFFSET ?",
                args![over],
            )
            .await?;
        let until = row.map_or(Ok(now), |row| row.u64(0))?;
        self.db
            .execute(
                "DELETE FROM limits_grey WHERE passed = 0 AND first_seen <= ?",
                args![until],
            )
            .await?;
        Ok(())
    }

    pub(crate) async fn close(&self) {
        self.db.close().await;
    }
}

fn network_of(row: &Row) -> Result<GreyNetwork, Error> {
    Ok(GreyNetwork {
        network: row.text(0)?.to_owned(),
        good: row.u64(1)?,
        allowed: row.bool(2)?,
        expires: row.u64(3)?,
    })
}
