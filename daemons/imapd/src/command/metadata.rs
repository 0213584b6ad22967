//! GETMETADATA and SETMETADATA (RFC 5464), and what LIST (RFC 9590) and NOTIFY (RFC 5465 5.6, 5.7) tell of annotations.
//!
//! The server's annotations are an account's own: what one user writes, no other one sees.

use super::target::Target;
use crate::session::{Done, Refused, Session, done};
use imap::{Depth, GetMetadata, SetMetadata, put};
use ipc::api::stored::{Mutation, MutationResult};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use store::{Mailbox, SPECIAL_USE_ENTRY};
use tokio::io::{AsyncRead, AsyncWrite};
use types::{AccountId, MailboxId, Octets};

/// RFC 5464 6.2.1: how to reach the administrator; only the configuration says it.
const ADMIN_ENTRY: &str = "/shared/admin";

/// Entries with their values.
pub(super) type Entries = Vec<(String, Vec<u8>)>;

/// Annotations as they were told: hashes of the values, by mailbox and entry; the server's without a mailbox.
pub(super) type Told = BTreeMap<(Option<MailboxId>, String), u64>;

fn hashed(value: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// The special use as the entry that it is (RFC 6154 5.4).
fn with_special_use(mut entries: Entries, mailbox: &Mailbox) -> Entries {
    if let Some(special_use) = &mailbox.special_use {
        entries.push((
            SPECIAL_USE_ENTRY.to_owned(),
            special_use.clone().into_bytes(),
        ));
        entries.sort_unstable();
    }
    entries
}

/// A value; with NUL it needs a literal8 (RFC 5464 5).
fn put_value(out: &mut Vec<u8>, value: &[u8]) {
    if value.contains(&0) {
        out.push(b'~');
        put::literal(out, value);
    } else {
        put::string(out, value);
    }
}

/// Names of one's own may have quotes and parentheses in them.
fn put_entry(out: &mut Vec<u8>, entry: &str) {
    let plain =
        |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'/' | b'-' | b'.' | b'_');
    match entry.bytes().all(plain) {
        true => put::text(out, entry),
        false => put::string(out, entry.as_bytes()),
    }
}

/// What is told for the entries asked for, and the length of the longest one that is too long. An entry that was named and is
/// not there is NIL.
fn chosen<'e>(
    all: &'e [(String, Vec<u8>)],
    asked: &'e [String],
    depth: Depth,
    max_size: Option<u64>,
) -> (BTreeMap<&'e str, Option<&'e [u8]>>, Option<u64>) {
    let mut told: BTreeMap<&str, Option<&[u8]>> = BTreeMap::new();
    let mut longest = None;
    for name in asked {
        if depth == Depth::Zero {
            told.insert(name.as_str(), None);
        }
        for (entry, value) in all.iter().filter(|(entry, _)| depth.covers(name, entry)) {
            let len = value.len() as u64;
            if max_size.is_some_and(|max| len > max) {
                told.remove(entry.as_str());
                longest = longest.max(Some(len));
            } else {
                told.insert(entry, Some(value));
            }
        }
    }
    (told, longest)
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + Sync> Session<S> {
    /// A mailbox whose annotations the user may see and set (RFC 5464 3.3).
    async fn annotated(&self, name: &str) -> Result<Target, Refused> {
        let target = self.target(name, "NONEXISTENT", "l").await?;
        match target.rights.has_any("rswip") {
            true => Ok(target),
            false => Err(Refused::No(
                "NOPERM",
                "The mailbox's owner has not given you that right".to_owned(),
            )),
        }
    }

    async fn mailbox_entries(&self, mailbox: &Mailbox) -> Result<Entries, Refused> {
        let (owner, user) = (mailbox.account, self.account_id());
        let reader = &self.service.reader;
        let entries = reader.metadata(owner, user, Some(mailbox.id)).await?;
        Ok(match owner == user {
            true => with_special_use(entries, mailbox),
            false => entries,
        })
    }

    async fn server_entries(&self) -> Result<Entries, Refused> {
        let user = self.account_id();
        let mut entries = self.service.reader.metadata(user, user, None).await?;
        let admin = &self.service.config.admin;
        if !admin.is_empty() {
            entries.push((ADMIN_ENTRY.to_owned(), admin.clone().into_bytes()));
        }
        Ok(entries)
    }

    pub(super) async fn get_metadata(&mut self, get: GetMetadata) -> Done {
        let entries = match &get.mailbox {
            Some(name) => {
                let target = self.annotated(name).await?;
                self.mailbox_entries(&target.mailbox).await?
            }
            None => self.server_entries().await?,
        };
        let name = get.mailbox.as_deref().unwrap_or_default();
        let (told, longest) = chosen(&entries, &get.entries, get.depth, get.max_size);
        self.put_metadata(name, &told);
        self.flush_if_full().await?;
        match longest {
            Some(octets) => Ok((format!("METADATA LONGENTRIES {octets}"), "completed")),
            None => done("completed"),
        }
    }

    /// RFC 5464 4.4.1; nothing if there is nothing to tell.
    fn put_metadata(&mut self, name: &str, told: &BTreeMap<&str, Option<&[u8]>>) {
        if told.is_empty() {
            return;
        }
        self.put_metadata_head(name);
        self.out.push(b'(');
        for (at, (entry, value)) in told.iter().enumerate() {
            if at > 0 {
                self.out.push(b' ');
            }
            put_entry(&mut self.out, entry);
            self.out.push(b' ');
            match value {
                Some(value) => put_value(&mut self.out, value),
                None => put::text(&mut self.out, "NIL"),
            }
        }
        put::text(&mut self.out, ")\r\n");
    }

    fn put_metadata_head(&mut self, name: &str) {
        put::text(&mut self.out, "* METADATA ");
        self.names.put(&mut self.out, name);
        self.out.push(b' ');
    }

    pub(super) async fn set_metadata(&mut self, command: SetMetadata) -> Done {
        let (account, mailbox) = match &command.mailbox {
            Some(name) => {
                let target = self.annotated(name).await?;
                (target.mailbox.account, Some(target.mailbox.id))
            }
            None => (self.account_id(), None),
        };
        if mailbox.is_none() && command.entries.iter().any(|(name, _)| name == ADMIN_ENTRY) {
            return Err(Refused::No(
                "NOPERM",
                "Only the server's configuration says who administrates it".to_owned(),
            ));
        }
        let use_of = |(name, value): &(String, Option<Octets>)| {
            let value = value.as_ref().filter(|_| name == SPECIAL_USE_ENTRY)?;
            Some(String::from_utf8_lossy(&value.0).trim().to_owned())
        };
        let mut uses = command.entries.iter().filter_map(use_of);
        if uses.any(|one| !one.is_empty() && store::known_special_use(&one).is_none()) {
            // RFC 6154 5.4
            let text = "There is no such special use here".to_owned();
            return Err(Refused::No("USEATTR", text));
        }
        let set = Mutation::SetMetadata {
            mailbox,
            entries: command.entries.clone(),
        };
        let result = self.mutate_in(account, set).await?.result;
        // RFC 5464 4.3
        match result {
            MutationResult::MetadataTooLong(max) => {
                let text = "An annotation is longer than the server allows".to_owned();
                Err(Refused::Limit(format!("METADATA MAXSIZE {max}"), text))
            }
            MutationResult::MetadataTooMany => Err(Refused::No(
                "METADATA TOOMANY",
                "There are as many annotations as the server allows".to_owned(),
            )),
            _ => {
                self.note_metadata(account, mailbox, &command.entries);
                done("completed")
            }
        }
    }

    /// What LIST is to tell of all mailboxes of an account.
    pub(super) async fn listed_metadata(
        &self,
        account: AccountId,
    ) -> Result<BTreeMap<MailboxId, Entries>, Refused> {
        let reader = &self.service.reader;
        Ok(reader.all_metadata(account, self.account_id()).await?)
    }

    /// RFC 9590 3: what was asked for, NIL where there is nothing.
    pub(super) fn put_listed_metadata(
        &mut self,
        name: &str,
        mailbox: &Mailbox,
        entries: Option<Entries>,
        asked: &[String],
    ) {
        let entries = with_special_use(entries.unwrap_or_default(), mailbox);
        let (told, _) = chosen(&entries, asked, Depth::Zero, None);
        self.put_metadata(name, &told);
    }

    /// All annotations of the account, for NOTIFY to compare.
    pub(super) async fn metadata_now(&self) -> Result<Told, Refused> {
        let mut told = Told::new();
        let user = self.account_id();
        for (mailbox, entries) in self.service.reader.all_metadata(user, user).await? {
            for (entry, value) in entries {
                told.insert((Some(mailbox), entry), hashed(&value));
            }
        }
        for mailbox in self.service.reader.mailboxes(user).await? {
            if let Some(special_use) = mailbox.special_use {
                let key = (Some(mailbox.id), SPECIAL_USE_ENTRY.to_owned());
                told.insert(key, hashed(special_use.as_bytes()));
            }
        }
        for (entry, value) in self.server_entries().await? {
            told.insert((None, entry), hashed(&value));
        }
        Ok(told)
    }

    /// What this session has set is no news to it (RFC 5465 5).
    fn note_metadata(
        &mut self,
        account: AccountId,
        mailbox: Option<MailboxId>,
        entries: &[(String, Option<Octets>)],
    ) {
        let own = account == self.account_id();
        let told = self.notify.as_mut().filter(|_| own);
        let Some(told) = told.and_then(|notify| notify.metadata()) else {
            return;
        };
        for (entry, value) in entries {
            let key = (mailbox, entry.clone());
            match value {
                Some(value) => told.insert(key, hashed(&value.0)),
                None => told.remove(&key),
            };
        }
    }

    /// RFC 5464 4.4.2: entries that have changed, without their values.
    pub(super) fn put_changed_metadata(&mut self, name: &str, entries: &[&str]) {
        self.put_metadata_head(name);
        for (at, entry) in entries.iter().enumerate() {
            if at > 0 {
                self.out.push(b' ');
            }
            put_entry(&mut self.out, entry);
        }
        put::text(&mut self.out, "\r\n");
    }
}

/// The entries of which the two differ, by mailbox.
pub(super) fn differences<'t>(
    old: &'t Told,
    new: &'t Told,
) -> BTreeMap<Option<MailboxId>, Vec<&'t str>> {
    let mut found: BTreeMap<Option<MailboxId>, Vec<&str>> = BTreeMap::new();
    let changed = new
        .iter()
        .filter(|(key, value)| old.get(key) != Some(value));
    let gone = old.iter().filter(|(key, _)| !new.contains_key(key));
    for ((mailbox, entry), _) in changed.chain(gone) {
        found.entry(*mailbox).or_default().push(entry);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Entries {
        let entry = |name: &str, value: &str| (name.to_owned(), value.as_bytes().to_vec());
        vec![
            entry("/private/filters/values/boss", "x"),
            entry("/private/filters/values/small", "longer"),
            entry("/shared/comment", "y"),
        ]
    }

    #[test]
    fn what_is_asked_is_told() {
        let asked = [
            "/private/filters/values".to_owned(),
            "/private/comment".to_owned(),
        ];
        let all = all();
        let (told, longest) = chosen(&all, &asked, Depth::Zero, None);
        assert_eq!(
            told.into_iter().collect::<Vec<_>>(),
            [
                ("/private/comment", None),
                ("/private/filters/values", None)
            ]
        );
        assert_eq!(longest, None);
        let (told, longest) = chosen(&all, &asked, Depth::One, Some(3));
        assert_eq!(
            told.into_iter().collect::<Vec<_>>(),
            [("/private/filters/values/boss", Some(&b"x"[..]))]
        );
        assert_eq!(longest, Some(6));
    }

    #[test]
    fn differences_are_by_mailbox() {
        let told = |entries: &[(u64, &str, u64)]| -> Told {
            let key = |mailbox| (mailbox > 0).then_some(MailboxId(mailbox));
            entries
                .iter()
                .map(|(at, entry, hash)| ((key(*at), (*entry).to_owned()), *hash))
                .collect()
        };
        let old = told(&[(1, "/a", 1), (1, "/b", 1), (0, "/c", 1)]);
        let new = told(&[(1, "/a", 2), (2, "/d", 1), (0, "/c", 1)]);
        let found = differences(&old, &new);
        assert_eq!(found.get(&Some(MailboxId(1))), Some(&vec!["/a", "/b"]));
        assert_eq!(found.get(&Some(MailboxId(2))), Some(&vec!["/d"]));
        assert_eq!(found.len(), 2);
    }
}
