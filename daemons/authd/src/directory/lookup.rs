//! What stands behind addresses, read in sets.

use super::{Directory, Result, schema, text};
use sql::Value;
use std::collections::HashMap;
use types::{AccountId, Address};

/// What stands behind one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// A mailbox.
    Account {
        id: AccountId,
        name: Address,
        enabled: bool,
        quota_bytes: u64,
        quota_messages: u64,
    },
    /// An alias or a group with its targets.
    List {
        group: bool,
        send_as: bool,
        targets: Vec<Address>,
        /// The group's own mailboxes, which then get its mail, and its address.
        shared: Option<(AccountId, Address)>,
    },
    /// A mailing list.
    Mailing {
        address: Address,
        owners: Vec<Address>,
    },
}

impl Directory {
    /// What stands behind these addresses, by key. What is not in the answer is not in the directory.
    pub(crate) async fn lookup(&self, keys: Vec<String>) -> Result<HashMap<String, Entry>> {
        let rows = self
            .db
            .fetch_in(
                "SELECT d.address, d.kind, d.shown, d.send_as, a.id, a.enabled, a.quota_bytes, a.quota_messages,
                    d.shared, d.account
                 FROM directory_address d LEFT JOIN directory_account a ON a.address = d.address
                 WHERE d.address IN ({list})",
                &[],
                keys.into_iter().map(Value::from).collect(),
            )
            .await?;
        let mut entries = HashMap::with_capacity(rows.len());
        let mut lists: Vec<Value> = Vec::new();
        let mut mailing: Vec<Value> = Vec::new();
        for row in &rows {
            let key = text(row, 0)?;
            let kind = row.int(1)?;
            let entry = if kind == schema::ACCOUNT {
                let Ok(name) = row.text(2)?.parse::<Address>() else {
                    continue;
                };
                Entry::Account {
                    id: AccountId(row.u64(4)?),
                    name,
                    enabled: row.bool(5)?,
                    quota_bytes: row.u64(6)?,
                    quota_messages: row.u64(7)?,
                }
            } else if kind == schema::MAILING_LIST {
                let Ok(address) = row.text(2)?.parse::<Address>() else {
                    continue;
                };
                mailing.push((&key).into());
                Entry::Mailing {
                    address,
                    owners: Vec::new(),
                }
            } else {
                lists.push((&key).into());
                Entry::List {
                    group: kind == schema::GROUP,
                    send_as: row.bool(3)?,
                    targets: Vec::new(),
                    shared: if row.bool(8)? {
                        let address = row.text(2)?.parse().ok();
                        Some(AccountId(row.u64(9)?)).zip(address)
                    } else {
                        None
                    },
                }
            };
            entries.insert(key, entry);
        }
        for (key, of_list) in self.list_owners(mailing).await? {
            if let Some(Entry::Mailing { owners, .. }) = entries.get_mut(&key) {
                *owners = of_list;
            }
        }
        if lists.is_empty() {
            return Ok(entries);
        }
        let rows = self
            .db
            .fetch_in(
                "SELECT address, shown FROM directory_target WHERE address IN ({list}) ORDER BY address, place",
                &[],
                lists,
            )
            .await?;
        for row in &rows {
            if let Some(Entry::List { targets, .. }) = entries.get_mut(row.text(0)?)
                && let Ok(target) = row.text(1)?.parse()
            {
                targets.push(target);
            }
        }
        Ok(entries)
    }
}
