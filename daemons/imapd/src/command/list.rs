//! LIST, LSUB and STATUS.

use super::target::{GROUPS, OTHERS};
use crate::session::{Done, Refused, Session, done};
use imap::{List, ListSelection, Pattern, StatusItem, put};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use store::{AclRights, Mailbox};
use tokio::io::{AsyncRead, AsyncWrite};
use types::AccountId;

/// A name that LIST may show.
#[derive(Default)]
pub(super) struct Entry {
    pub(super) mailbox: Option<Mailbox>,
    /// What the user may do there.
    pub(super) rights: AclRights,
    pub(super) subscribed: bool,
    children: bool,
}

impl Entry {
    fn special_use(&self) -> Option<&str> {
        let mailbox = self.mailbox.as_ref();
        mailbox.and_then(|mailbox| mailbox.special_use.as_deref())
    }

    /// Whether it is what is asked for, whatever its name.
    fn meets(&self, selection: ListSelection) -> bool {
        let there = self.mailbox.is_some() || self.children || selection.subscribed;
        there
            && (!selection.subscribed || self.subscribed)
            && (!selection.special_use || self.special_use().is_some())
    }

    /// RFC 9051 7.3.1
    fn attributes(&self, list: &List) -> Vec<&str> {
        let mut attributes = Vec::new();
        if self.mailbox.is_none() {
            attributes.extend(["\\NonExistent", "\\Noselect"]);
        } else if !self.rights.has("r") {
            // RFC 4314 4: seen, but not selectable
            attributes.push("\\Noselect");
        }
        if list.returns.children || !list.extended {
            attributes.push(match self.children {
                true => "\\HasChildren",
                false => "\\HasNoChildren",
            });
        }
        if self.subscribed && (list.selection.subscribed || list.returns.subscribed) {
            attributes.push("\\Subscribed");
        }
        attributes.extend(self.special_use());
        attributes
    }
}

/// A name that LIST does show.
struct Chosen<'e> {
    name: &'e str,
    entry: &'e Entry,
    /// It is what is asked for itself.
    meets: bool,
    /// Something below it is.
    below: bool,
}

/// The names that match, of what is asked for; with RECURSIVEMATCH also those above it (RFC 5258 3.5).
fn choose<'e>(
    entries: &'e BTreeMap<String, Entry>,
    patterns: &[Pattern],
    selection: ListSelection,
) -> Vec<Chosen<'e>> {
    let matching: Vec<bool> = entries
        .keys()
        .map(|name| patterns.iter().any(|pattern| pattern.matches(name)))
        .collect();
    // What is above something asked for, and whether any of that is not shown.
    let mut above: HashMap<&str, bool> = HashMap::new();
    if selection.recursive_match {
        for ((name, entry), shown) in entries.iter().zip(&matching) {
            if entry.meets(selection) {
                parents(name).for_each(|name| *above.entry(name).or_default() |= !shown);
            }
        }
    }
    let named = entries.iter().zip(matching).filter(|(_, matches)| *matches);
    let chosen = named.map(|((name, entry), _)| Chosen {
        name,
        entry,
        meets: entry.meets(selection),
        below: above.contains_key(name.as_str()),
    });
    // RFC 9051 6.3.9.6: nothing is told twice
    chosen
        .filter(|one| one.meets || above.get(one.name).is_some_and(|hidden| *hidden))
        .collect()
}

/// RFC 9051 6.3.9.6
fn put_child_info(out: &mut Vec<u8>, selection: ListSelection) {
    let options = match (selection.subscribed, selection.special_use) {
        (true, true) => "\"SUBSCRIBED\" \"SPECIAL-USE\"",
        (false, _) => "\"SPECIAL-USE\"",
        (true, false) => "\"SUBSCRIBED\"",
    };
    put::text(out, &format!(" (\"CHILDINFO\" ({options}))"));
}

fn parents(name: &str) -> impl Iterator<Item = &str> {
    name.match_indices(imap::DELIMITER)
        .filter_map(|(at, _)| name.get(..at))
        .filter(|parent| !parent.is_empty())
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + Sync> Session<S> {
    /// All names: mailboxes, subscriptions without one, and the levels between.
    pub(super) async fn entries(&self) -> Result<BTreeMap<String, Entry>, Refused> {
        let account = self.account_id();
        let mailboxes = self.service.reader.mailboxes(account).await?;
        let subscriptions = self.service.reader.subscriptions(account).await?;
        let mut entries: BTreeMap<String, Entry> = BTreeMap::new();
        for mailbox in mailboxes {
            for parent in parents(&mailbox.name) {
                entries.entry(parent.to_owned()).or_default().children = true;
            }
            let name = mailbox.name.clone();
            let entry = entries.entry(name).or_default();
            entry.rights = AclRights::ALL;
            entry.mailbox = Some(mailbox);
        }
        for shared in self.service.reader.shared_with(self.grant()?).await? {
            if !shared.rights.has("l") {
                continue;
            }
            let prefix = if shared.group { GROUPS } else { OTHERS };
            let name = format!("{prefix}{}/{}", shared.owner_name, shared.mailbox.name);
            for parent in parents(&name) {
                entries.entry(parent.to_owned()).or_default().children = true;
            }
            let entry = entries.entry(name.clone()).or_default();
            entry.rights = shared.rights;
            entry.mailbox = Some(Mailbox {
                name,
                // RFC 6154 2: it is the owner's Sent, not this user's
                special_use: None,
                ..shared.mailbox
            });
        }
        for name in subscriptions {
            for parent in parents(&name) {
                entries.entry(parent.to_owned()).or_default();
            }
            entries.entry(name).or_default().subscribed = true;
        }
        Ok(entries)
    }

    pub(super) async fn list(&mut self, list: List) -> Done {
        if !list.extended && list.patterns.first().is_some_and(String::is_empty) {
            // RFC 9051 6.3.9: asks for the delimiter
            put::text(&mut self.out, "* LIST (\\Noselect) \"/\" \"\"\r\n");
            return done("completed");
        }
        let mut patterns = Vec::with_capacity(list.patterns.len());
        for pattern in &list.patterns {
            let pattern = Pattern::new(&list.reference, pattern);
            patterns.push(pattern.map_err(|refusal| Refused::Bad(refusal.text))?);
        }
        let entries = self.entries().await?;
        let mut annotations = HashMap::new();
        if list.returns.metadata.is_some() {
            let accounts: BTreeSet<AccountId> = entries
                .values()
                .filter_map(|entry| entry.mailbox.as_ref())
                .map(|mailbox| mailbox.account)
                .collect();
            for account in accounts {
                annotations.extend(self.listed_metadata(account).await?);
            }
        }
        // RFC 7162 3.1.2
        let status = list.returns.status.iter().flatten();
        self.condstore |= status
            .into_iter()
            .any(|item| *item == StatusItem::HighestModSeq);
        for chosen in choose(&entries, &patterns, list.selection) {
            self.put_chosen(&list, &chosen);
            // RFC 5819 2, RFC 8440 3, RFC 9590 3: of what is asked for, and is there
            let Some(mailbox) = chosen.entry.mailbox.as_ref().filter(|_| chosen.meets) else {
                continue;
            };
            let rights = chosen.entry.rights;
            if list.returns.my_rights {
                self.put_my_rights(chosen.name, rights);
            }
            if let Some(asked) = &list.returns.metadata
                && rights.has_any("rswip")
            {
                let known = annotations.remove(&mailbox.id);
                self.put_listed_metadata(chosen.name, mailbox, known, asked);
            }
            if let Some(items) = &list.returns.status
                && rights.has("r")
            {
                self.put_status(mailbox, items).await?;
            }
        }
        done("completed")
    }

    fn put_chosen(&mut self, list: &List, chosen: &Chosen<'_>) {
        put::text(&mut self.out, "* LIST ");
        put::list(&mut self.out, chosen.entry.attributes(list));
        put::text(&mut self.out, " \"/\" ");
        self.names.put(&mut self.out, chosen.name);
        if chosen.below {
            put_child_info(&mut self.out, list.selection);
        }
        put::text(&mut self.out, "\r\n");
    }

    /// RFC 3501 6.3.9
    pub(super) async fn lsub(&mut self, reference: &str, pattern: &str) -> Done {
        let matching =
            Pattern::new(reference, pattern).map_err(|refusal| Refused::Bad(refusal.text))?;
        let entries = self.entries().await?;
        let names: BTreeSet<&String> = entries
            .iter()
            .filter(|(_, entry)| entry.subscribed)
            .map(|(name, _)| name)
            .collect();
        let mut shown: BTreeMap<&str, bool> = BTreeMap::new();
        for name in names {
            if matching.matches(name) {
                shown.insert(name, true);
            } else if let Some(parent) = parents(name).find(|parent| matching.matches(parent)) {
                // With %: the level above, which is not subscribed itself
                shown.entry(parent).or_insert(false);
            }
        }
        for (name, subscribed) in shown {
            let attribute = if subscribed { "" } else { "\\Noselect" };
            put::text(&mut self.out, &format!("* LSUB ({attribute}) \"/\" "));
            self.names.put(&mut self.out, name);
            put::text(&mut self.out, "\r\n");
        }
        done("completed")
    }

    pub(super) async fn status(&mut self, name: &str, items: &[StatusItem]) -> Done {
        let mailbox = self.target(name, "NONEXISTENT", "r").await?.mailbox;
        // RFC 7162 3.1.2
        self.condstore |= items.contains(&StatusItem::HighestModSeq);
        self.put_status(&mailbox, items).await?;
        done("completed")
    }

    async fn put_status(&mut self, mailbox: &Mailbox, items: &[StatusItem]) -> Result<(), Refused> {
        // RFC 9208 4.1.4: counted when it is asked for
        let asked = items.contains(&StatusItem::DeletedStorage) && mailbox.deleted > 0;
        let deleted = match asked {
            true => self.service.reader.deleted_bytes(mailbox.id).await?,
            false => 0,
        };
        let out = &mut self.out;
        put::text(out, "* STATUS ");
        self.names.put(out, &mailbox.name);
        put::text(out, " (");
        for (at, item) in items.iter().enumerate() {
            if at > 0 {
                out.push(b' ');
            }
            put::text(out, item.name());
            out.push(b' ');
            match item {
                StatusItem::Messages => put::number(out, u64::from(mailbox.total)),
                StatusItem::UidNext => put::number(out, u64::from(mailbox.uidnext)),
                StatusItem::UidValidity => put::number(out, u64::from(mailbox.uidvalidity)),
                StatusItem::Unseen => put::number(out, u64::from(mailbox.unseen)),
                StatusItem::Deleted => put::number(out, u64::from(mailbox.deleted)),
                StatusItem::Size => put::number(out, mailbox.bytes),
                StatusItem::HighestModSeq => put::number(out, mailbox.modseq.0),
                StatusItem::AppendLimit => put::number(out, self.service.config.append_bytes),
                StatusItem::MailboxId => put::text(out, &format!("(F{})", mailbox.id)),
                StatusItem::DeletedStorage => put::number(out, deleted),
                // RFC 3501: nobody is promised \Recent.
                StatusItem::Recent => put::number(out, 0),
            }
        }
        put::text(out, ")\r\n");
        Ok(())
    }
}
