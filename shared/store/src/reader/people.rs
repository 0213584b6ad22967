//! What belongs to people rather than to messages: scripts, access control lists, annotations.

use super::{Reader, reader_hash};
use crate::acl::{AclEntry, AclRights, owns};
use crate::row::Mailbox;
use crate::{Content, ContentBody, Error, Wanted};
use sql::{Row, Value, args};
use std::collections::{BTreeMap, HashMap};
use types::{AccountId, BlobId, ContentId, Grant, MailboxId, ModSeq, QueueId};

/// A user's Sieve script, without its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// Its name.
    pub name: String,
    /// It is the one that runs.
    pub active: bool,
    /// Octets.
    pub size: u64,
    /// BLAKE3 of its text.
    pub hash: BlobId,
}

/// A mailbox of somebody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedMailbox {
    /// Whose.
    pub owner: AccountId,
    /// The owner's name: an account's or a group's address.
    pub owner_name: String,
    /// It is a shared group's.
    pub group: bool,
    /// The mailbox. [`Mailbox::subscribed`] is not filled in.
    pub mailbox: Mailbox,
    /// What may be done with it.
    pub rights: AclRights,
}

/// An account as the store knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountRow {
    /// Its number.
    pub id: AccountId,
    /// Its name, if it has ever been logged in to; else empty.
    pub name: String,
    /// The last change.
    pub modseq: ModSeq,
    /// Contents have ids up to this one.
    pub last_content: ContentId,
    /// Its messages, copies counted each.
    pub messages: u64,
    /// Their octets.
    pub bytes: u64,
}

fn script(row: &Row) -> Result<Script, Error> {
    Ok(Script {
        name: row.text(0)?.to_owned(),
        active: row.bool(1)?,
        size: row.u64(2)?,
        hash: reader_hash(row.blob(3)?)?,
    })
}

impl Reader {
    /// An account's scripts, by name.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn scripts(&self, account: AccountId) -> Result<Vec<Script>, Error> {
        let rows = self
            .db
            .fetch_all(
                "SELECT name, active, size, hash FROM script WHERE account = ?",
                args![account.0],
            )
            .await?;
        let mut scripts = rows.iter().map(script).collect::<Result<Vec<_>, _>>()?;
        scripts.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(scripts)
    }

    /// The text of a script.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn script(&self, account: AccountId, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let row = self
            .db
            .fetch_optional(
                "SELECT content FROM script WHERE account = ? AND name = ?",
                args![account.0, name],
            )
            .await?;
        Ok(row.map(|row| row.blob(0).map(<[u8]>::to_vec)).transpose()?)
    }

    /// The script that runs for an account's mail, with its text.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn active_script(
        &self,
        account: AccountId,
    ) -> Result<Option<(Script, Vec<u8>)>, Error> {
        let row = self
            .db
            .fetch_optional(
                "SELECT name, active, size, hash, content FROM script WHERE account = ? AND active = 1",
                args![account.0],
            )
            .await?;
        row.map(|row| Ok((script(&row)?, row.blob(4)?.to_vec())))
            .transpose()
    }

    /// Of these keys, those noted for another message than `except` that still count at `now`, seconds since 1970
    /// (`Remember`).
    ///
    /// # Errors
    /// [`Error`]
    pub async fn remembered(
        &self,
        account: AccountId,
        keys: &[u64],
        now: i64,
        except: QueueId,
    ) -> Result<Vec<u64>, Error> {
        let list = keys.iter().map(|key| Value::from(*key)).collect();
        let rows = self
            .db
            .fetch_in(
                "SELECT DISTINCT hash FROM noted WHERE account = ? AND expires > ? AND queue_id <> ? AND hash IN ({list})",
                &args![account.0, now, except.0],
                list,
            )
            .await?;
        rows.iter().map(|row| Ok(row.u64(0)?)).collect()
    }

    /// A mailbox's access control list, by identifier. Its owner, who has all rights, is not in it.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn acl(
        &self,
        account: AccountId,
        mailbox: MailboxId,
    ) -> Result<Vec<AclEntry>, Error> {
        let rows = self
            .db
            .fetch_all(
                "SELECT identifier, rights FROM acl WHERE mailbox = ? AND account = ?",
                args![mailbox.0, account.0],
            )
            .await?;
        let mut entries = rows.iter().map(entry).collect::<Result<Vec<_>, _>>()?;
        entries.sort_unstable_by(|a, b| a.identifier.cmp(&b.identifier));
        Ok(entries)
    }

    /// What the holder of a grant may do with a mailbox.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn rights(
        &self,
        grant: &Grant,
        account: AccountId,
        mailbox: MailboxId,
    ) -> Result<AclRights, Error> {
        if owns(grant, account) {
            return Ok(AclRights::ALL);
        }
        let entries = self.acl(account, mailbox).await?;
        Ok(AclRights::of_grant(&entries, grant))
    }

    /// Octets and messages that an account may hold, as its last grant told them; 0 is unlimited.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn quota(&self, account: AccountId) -> Result<(u64, u64), Error> {
        let row = self
            .db
            .fetch_optional(
                "SELECT quota_bytes, quota_messages FROM owner WHERE account = ?",
                args![account.0],
            )
            .await?;
        row.map_or(Ok((0, 0)), |row| Ok((row.u64(0)?, row.u64(1)?)))
    }

    /// Whose mailbox it is.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn owner(&self, mailbox: MailboxId) -> Result<Option<AccountId>, Error> {
        let row = self
            .db
            .fetch_optional("SELECT account FROM mailbox WHERE id = ?", args![mailbox.0])
            .await?;
        Ok(row.map(|row| row.u64(0).map(AccountId)).transpose()?)
    }

    /// Other accounts' mailboxes on which the holder of a grant has any right, and those of its shared groups; by owner and
    /// name.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn shared_with(&self, grant: &Grant) -> Result<Vec<SharedMailbox>, Error> {
        let mut identifiers: Vec<String> = vec!["anyone".to_owned(), grant.name.to_lowercase()];
        let groups = grant.groups.iter();
        identifiers.extend(groups.map(|group| format!("group={}", group.name.to_lowercase())));
        let rows = self
            .db
            .fetch_in(
                "SELECT DISTINCT account FROM acl WHERE identifier IN ({list})",
                &[],
                identifiers.iter().map(Value::from).collect(),
            )
            .await?;
        let mut owners: Vec<AccountId> = Vec::with_capacity(rows.len());
        for row in &rows {
            owners.push(AccountId(row.u64(0)?));
        }
        owners.retain(|account| !owns(grant, *account));
        let mut found = Vec::new();
        for group in grant.groups.iter().filter(|group| group.account.0 != 0) {
            for mailbox in self.mailboxes(group.account).await? {
                found.push(SharedMailbox {
                    owner: group.account,
                    owner_name: group.name.clone(),
                    group: true,
                    mailbox,
                    rights: AclRights::ALL,
                });
            }
        }
        let names = self.names(&owners).await?;
        for owner in owners {
            // Whoever has never logged in cannot have given rights: it is a name that was removed.
            let Some(name) = names.get(&owner) else {
                continue;
            };
            let lists = self.lists(owner).await?;
            for mailbox in self.mailboxes(owner).await? {
                let entries = lists.get(&mailbox.id).map_or(&[][..], Vec::as_slice);
                let rights = AclRights::of_grant(entries, grant);
                if !rights.is_empty() {
                    found.push(SharedMailbox {
                        owner,
                        owner_name: name.clone(),
                        group: false,
                        mailbox: Mailbox {
                            subscribed: false,
                            ..mailbox
                        },
                        rights,
                    });
                }
            }
        }
        found.sort_by(|a, b| {
            (a.group, &a.owner_name, &a.mailbox.name).cmp(&(
                b.group,
                &b.owner_name,
                &b.mailbox.name,
            ))
        });
        Ok(found)
    }

    async fn names(&self, accounts: &[AccountId]) -> Result<HashMap<AccountId, String>, Error> {
        let rows = self
            .db
            .fetch_in(
                "SELECT account, name FROM owner WHERE account IN ({list})",
                &[],
                accounts.iter().map(|id| Value::from(id.0)).collect(),
            )
            .await?;
        rows.iter()
            .map(|row| Ok((AccountId(row.u64(0)?), row.text(1)?.to_owned())))
            .collect()
    }

    /// The account of that name, if it has ever been logged in to.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn account_named(&self, name: &str) -> Result<Option<AccountId>, Error> {
        let row = self
            .db
            .fetch_optional(
                "SELECT account FROM owner WHERE name = ?",
                args![name.to_lowercase()],
            )
            .await?;
        Ok(row.map(|row| row.u64(0).map(AccountId)).transpose()?)
    }

    async fn lists(&self, account: AccountId) -> Result<HashMap<MailboxId, Vec<AclEntry>>, Error> {
        let rows = self
            .db
            .fetch_all(
                "SELECT identifier, rights, mailbox FROM acl WHERE account = ?",
                args![account.0],
            )
            .await?;
        let mut lists: HashMap<MailboxId, Vec<AclEntry>> = HashMap::new();
        for row in &rows {
            let mailbox = MailboxId(row.u64(2)?);
            lists.entry(mailbox).or_default().push(entry(row)?);
        }
        Ok(lists)
    }

    /// Annotations of a mailbox, or of the account itself, [`crate::SPECIAL_USE_ENTRY`] aside: the shared ones and `reader`'s own private ones, by entry name.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn metadata(
        &self,
        account: AccountId,
        reader: AccountId,
        mailbox: Option<MailboxId>,
    ) -> Result<Vec<(String, Vec<u8>)>, Error> {
        let rows = self
            .db
            .fetch_all(
                "SELECT entry, value FROM metadata WHERE account = ? AND mailbox = ? AND (reader = 0 OR reader = ?)",
                args![account.0, mailbox.map_or(0, |id| id.0), reader.0],
            )
            .await?;
        let mut entries = Vec::with_capacity(rows.len());
        for row in &rows {
            entries.push((row.text(0)?.to_owned(), row.blob(1)?.to_vec()));
        }
        entries.sort_unstable();
        Ok(entries)
    }

    /// Annotations of all mailboxes of an account, as [`Reader::metadata`] gives them for one.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn all_metadata(
        &self,
        account: AccountId,
        reader: AccountId,
    ) -> Result<BTreeMap<MailboxId, Vec<(String, Vec<u8>)>>, Error> {
        let rows = self
            .db
            .fetch_all(
                "SELECT mailbox, entry, value FROM metadata
                    WHERE account = ? AND mailbox <> 0 AND (reader = 0 OR reader = ?)",
                args![account.0, reader.0],
            )
            .await?;
        let mut all: BTreeMap<MailboxId, Vec<(String, Vec<u8>)>> = BTreeMap::new();
        for row in &rows {
            all.entry(MailboxId(row.u64(0)?))
                .or_default()
                .push((row.text(1)?.to_owned(), row.blob(2)?.to_vec()));
        }
        for entries in all.values_mut() {
            entries.sort_unstable();
        }
        Ok(all)
    }

    /// The accounts behind `after`, by number, at most `limit`.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn accounts(&self, after: AccountId, limit: u32) -> Result<Vec<AccountRow>, Error> {
        let rows = self
            .db
            .fetch_all(
                "SELECT a.id, o.name, a.modseq, a.next_id, a.messages, a.bytes
                    FROM account a LEFT JOIN owner o ON o.account = a.id
                    WHERE a.id > ? ORDER BY a.id LIMIT ?",
                args![after.0, limit],
            )
            .await?;
        rows.iter()
            .map(|row| {
                Ok(AccountRow {
                    id: AccountId(row.u64(0)?),
                    name: row.text_opt(1)?.unwrap_or_default().to_owned(),
                    modseq: ModSeq(row.u64(2)?),
                    last_content: ContentId(row.u64(3)?.saturating_sub(1)),
                    messages: row.u64(4)?,
                    bytes: row.u64(5)?,
                })
            })
            .collect()
    }

    /// The ids of an account's contents behind `after`, ascending, at most `limit`.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn content_ids(
        &self,
        account: AccountId,
        after: ContentId,
        limit: u32,
    ) -> Result<Vec<ContentId>, Error> {
        let rows = self
            .db
            .fetch_all(
                "SELECT id FROM content WHERE account = ? AND id > ? ORDER BY id LIMIT ?",
                args![account.0, after.0, limit],
            )
            .await?;
        rows.iter().map(|row| Ok(ContentId(row.u64(0)?))).collect()
    }

    /// How many contents an account has.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn content_count(&self, account: AccountId) -> Result<u64, Error> {
        let rows = self
            .db
            .fetch_all(
                "SELECT COUNT(*) FROM content WHERE account = ?",
                args![account.0],
            )
            .await?;
        rows.first().map_or(Ok(0), |row| Ok(row.u64(0)?))
    }

    /// Contents behind `after` with all their pieces, ascending: at most `limit`, and no more of them when they have come to
    /// `octets`. Bodies that lie outside of the database are read, too, up to `body_max` octets of each.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn contents_after(
        &self,
        account: AccountId,
        after: ContentId,
        limit: u32,
        octets: u64,
        body_max: u64,
    ) -> Result<Vec<Content>, Error> {
        let ids = self.content_ids(account, after, limit).await?;
        let all = Wanted {
            prefix: true,
            parsed: true,
            body: true,
        };
        let mut contents = Vec::with_capacity(ids.len());
        let mut total = 0;
        // Few at a time: their bodies lie in memory together.
        for part in ids.chunks(32) {
            let mut read = Vec::with_capacity(part.len());
            self.contents(account, part, all, |content| read.push(content))
                .await?;
            read.sort_unstable_by_key(|content| content.id);
            for mut content in read {
                if let ContentBody::Outside { blob, len } = content.body {
                    let piece = self.body_range(blob, 0..len.min(body_max)).await?;
                    content.body = ContentBody::Octets(piece);
                }
                if let ContentBody::Octets(body) = &content.body {
                    total += body.len() as u64;
                }
                contents.push(content);
            }
            if total >= octets {
                break;
            }
        }
        Ok(contents)
    }
}

fn entry(row: &Row) -> Result<AclEntry, Error> {
    Ok(AclEntry {
        identifier: row.text(0)?.to_owned(),
        rights: AclRights::from_number(row.u32(1)?),
    })
}
