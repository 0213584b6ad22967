//! The MTA-STS policies of the domains that mail went to, remembered over restarts (RFC 8461 3.3).
//!
//! relayd fetches policies and writes nothing; a policy that was seen once is what protects the next message from somebody who suppresses
//! the record or the file (RFC 8461 10.2). So they are kept here: one row a domain, in the database of the queue table, shared by its nodes.
//! Each [`Relay`](ipc::api::relayd::Relay) carries what is known of its domain, and each answer brings what is newer.
//!
//! Without the database mail goes as it would to a domain never seen before, if it is not among those in memory.

use crate::core::now;
use crate::table::Table;
use ipc::api::relayd::StsPolicy;
use sql::{Db, Error, Migration, args};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::OnceCell;

/// A schema of its own: it has nothing to do with the mail that waits.
const COMPONENT: &str = "policies";

const MIGRATIONS: &[Migration] = &[Migration {
    version: 1,
    name: "MTA-STS policies",
    statements: &[
        "CREATE TABLE IF NOT EXISTS queue_policy (
            domain {key} NOT NULL PRIMARY KEY,
            record {key} NOT NULL,
            body {text} NOT NULL,
            fetched {bigint} NOT NULL,
            expires {bigint} NOT NULL
        ) {table}",
        "CREATE INDEX {if_not_exists} queue_policy_fetched ON queue_policy (fetched)",
        "CREATE INDEX {if_not_exists} queue_policy_expires ON queue_policy (expires)",
    ],
}];

/// Other nodes learn, too: what is in memory is looked up again after this.
const FRESH: Duration = Duration::from_secs(300);
/// Mail does not wait longer for the database.
const PATIENCE: Duration = Duration::from_secs(5);
/// After trouble with it nobody waits for so long.
const TROUBLE: Duration = Duration::from_secs(10);
/// Domains in memory, with a policy or known to have none.
const HELD: usize = 2000;
/// Policies that are learnt between two looks at how many there are.
const SWEEP_EVERY: u32 = 200;
/// RFC 8461 3.1
const ID_MAX: usize = 32;

/// All policies.
#[derive(Debug)]
pub(crate) struct Policies {
    most: u64,
    ready: OnceCell<()>,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    by_domain: HashMap<String, (Instant, Option<StsPolicy>)>,
    learnt: u32,
    /// When the database gave no answer.
    trouble: Option<Instant>,
}

impl Policies {
    /// For so many domains.
    pub(crate) fn new(most: u64) -> Self {
        Self {
            most,
            ready: OnceCell::new(),
            held: Mutex::default(),
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn db<'a>(&self, table: &'a Table) -> Result<&'a Db, Error> {
        let db = table.db().await?;
        self.ready
            .get_or_try_init(|| async { sql::migrate(db, COMPONENT, MIGRATIONS).await.map(|_| ()) })
            .await?;
        Ok(db)
    }

    /// What is remembered of a domain.
    pub(crate) async fn of(&self, table: &Table, domain: &str) -> Option<StsPolicy> {
        if self.most == 0 {
            return None;
        }
        let (known, trouble) = {
            let held = self.held();
            (held.by_domain.get(domain).cloned(), held.trouble)
        };
        let fresh = known.as_ref().is_some_and(|(at, _)| at.elapsed() < FRESH);
        let known = known
            .and_then(|(_, policy)| policy)
            .filter(|policy| policy.expires > now());
        if fresh || trouble.is_some_and(|at| at.elapsed() < TROUBLE) {
            return known;
        }
        let why = match tokio::time::timeout(PATIENCE, self.read(table, domain)).await {
            Ok(Ok(found)) => {
                self.hold(domain, found.clone());
                return found;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer in time".to_owned(),
        };
        tracing::warn!(
            domain,
            why,
            "MTA-STS policies cannot be read: those in memory count"
        );
        self.held().trouble = Some(Instant::now());
        known
    }

    async fn read(&self, table: &Table, domain: &str) -> Result<Option<StsPolicy>, Error> {
        let text = "SELECT record, body, fetched, expires FROM queue_policy WHERE domain = ? AND expires > ?";
        let db = self.db(table).await?;
        let row = db.fetch_optional(text, args![domain, now()]).await?;
        row.map(|row| {
            Ok(StsPolicy {
                id: row.text(0)?.to_owned(),
                text: row.text(1)?.to_owned(),
                fetched: row.u64(2)?,
                expires: row.u64(3)?,
            })
        })
        .transpose()
    }

    fn hold(&self, domain: &str, policy: Option<StsPolicy>) {
        let mut held = self.held();
        if held.by_domain.len() >= HELD && !held.by_domain.contains_key(domain) {
            let oldest = held.by_domain.iter().min_by_key(|(_, (looked, _))| *looked);
            if let Some(oldest) = oldest.map(|(domain, _)| domain.clone()) {
                held.by_domain.remove(&oldest);
            }
        }
        let entry = (Instant::now(), policy);
        held.by_domain.insert(domain.to_owned(), entry);
    }

    /// Remembers what relayd has found.
    pub(crate) async fn learn(&self, table: &Table, domain: &str, policy: StsPolicy) {
        // relayd faces the network: what it gives is bounded here once more.
        let sound = policy.text.len() <= StsPolicy::TEXT_MAX && policy.id.len() <= ID_MAX;
        if self.most == 0 || !sound {
            return;
        }
        self.hold(domain, Some(policy.clone()));
        let written = tokio::time::timeout(PATIENCE, self.write(table, domain, &policy));
        let why = match written.await {
            Ok(Ok(())) => {
                tracing::debug!(domain, id = policy.id, "MTA-STS policy remembered");
                return;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer in time".to_owned(),
        };
        tracing::warn!(domain, why, "an MTA-STS policy cannot be remembered");
    }

    async fn write(&self, table: &Table, domain: &str, policy: &StsPolicy) -> Result<(), Error> {
        let db = self.db(table).await?;
        let StsPolicy {
            id,
            text,
            fetched,
            expires,
        } = policy;
        // Never over what another node has found since.
        let renewed = db
            .execute(
                "UPDATE queue_policy SET record = ?, body = ?, fetched = ?, expires = ? WHERE domain = ? AND fetched <= ?",
                args![id.as_str(), text.as_str(), *fetched, *expires, domain, *fetched],
            )
            .await?;
        if renewed == 0 {
            db.execute(
                "INSERT {ignore} INTO queue_policy (domain, record, body, fetched, expires) VALUES (?, ?, ?, ?, ?) {do_nothing}",
                args![domain, id.as_str(), text.as_str(), *fetched, *expires],
            )
            .await?;
        }
        let sweep = {
            let mut held = self.held();
            held.learnt = held.learnt.wrapping_add(1);
            held.learnt % SWEEP_EVERY == 1
        };
        match sweep {
            true => self.sweep(db).await,
            false => Ok(()),
        }
    }

    /// Removes what is over, and of too many those that were fetched longest ago: nobody writes to these domains any more.
    async fn sweep(&self, db: &Db) -> Result<(), Error> {
        db.execute("DELETE FROM queue_policy WHERE expires <= ?", args![now()])
            .await?;
        let text = "SELECT fetched FROM queue_policy ORDER BY fetched DESC LIMIT 1 OFFSET ?";
        if let Some(row) = db.fetch_optional(text, args![self.most]).await? {
            db.execute(
                "DELETE FROM queue_policy WHERE fetched <= ?",
                args![row.u64(0)?],
            )
            .await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn policy(id: &str, fetched: u64, expires: u64) -> StsPolicy {
        StsPolicy {
            id: id.to_owned(),
            text: format!("version: STSv1\r\nmode: none\r\nmax_age: 1\r\nx: {id}\r\n"),
            fetched,
            expires,
        }
    }

    fn table(url: &str) -> Table {
        let shared = !url.starts_with("sqlite:");
        let node = crate::node::Node::open("one", None, 60, shared).unwrap();
        Table::new(url.to_owned(), node)
    }

    #[tokio::test]
    async fn policies_outlive_the_process_on_all_databases() {
        for db in sql::testing::databases().await.unwrap() {
            let table = table(&db.url);
            let policies = Policies::new(10);
            let ends = now() + 1000;
            assert_eq!(policies.of(&table, "a.example").await, None);
            let first = policy("1", 100, ends);
            policies.learn(&table, "a.example", first.clone()).await;
            assert_eq!(policies.of(&table, "a.example").await, Some(first.clone()));
            let again = Policies::new(10);
            assert_eq!(
                again.of(&table, "a.example").await,
                Some(first),
                "{}",
                db.name
            );
            // A newer one replaces it, an older one does not, one that is over is none.
            let second = policy("2", 200, ends);
            policies.learn(&table, "a.example", second.clone()).await;
            policies
                .learn(&table, "a.example", policy("0", 50, ends))
                .await;
            policies.learn(&table, "b.example", policy("1", 1, 2)).await;
            let large = StsPolicy {
                text: "x".repeat(StsPolicy::TEXT_MAX + 1),
                ..policy("1", 1, ends)
            };
            policies.learn(&table, "c.example", large).await;
            let again = Policies::new(10);
            assert_eq!(again.of(&table, "a.example").await, Some(second));
            assert_eq!(again.of(&table, "b.example").await, None);
            assert_eq!(again.of(&table, "c.example").await, None);
        }
    }

    #[tokio::test]
    async fn there_are_not_more_than_there_may_be() {
        for db in sql::testing::databases().await.unwrap() {
            let table = table(&db.url);
            let policies = Policies::new(3);
            let ends = now() + 1000;
            for number in 1..=SWEEP_EVERY + 1 {
                let one = policy("1", u64::from(number), ends);
                policies
                    .learn(&table, &format!("{number}.example"), one)
                    .await;
            }
            let rows = table.db().await.unwrap();
            let rows = rows
                .fetch_all("SELECT domain FROM queue_policy ORDER BY fetched", args![])
                .await
                .unwrap();
            let left: Vec<&str> = rows.iter().map(|row| row.text(0).unwrap()).collect();
            assert_eq!(
                left,
                ["199.example", "200.example", "201.example"],
                "{}",
                db.name
            );
        }
    }
}
