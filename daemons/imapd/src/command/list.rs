//! LIST, LSUB and STATUS.

use crate::session::{Done, Refused, Session, done};
use imap::{List, Pattern, StatusItem, put};
use std::collections::{BTreeMap, BTreeSet};
use store::Mailbox;
use tokio::io::{AsyncRead, AsyncWrite};

/// A name that LIST may show.
#[derive(Default)]
struct Entry {
    mailbox: Option<Mailbox>,
    subscribed: bool,
    /// Something below it is subscribed.
    subscribed_below: bool,
    children: bool,
}

fn parents(name: &str) -> impl Iterator<Item = &str> {
    name.match_indices(imap::DELIMITER)
        .filter_map(|(at, _)| name.get(..at))
        .filter(|parent| !parent.is_empty())
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + Sync> Session<S> {
    /// All names: mailboxes, subscriptions without one, and the levels between.
    async fn entries(&self) -> Result<BTreeMap<String, Entry>, Refused> {
        let account = self.account_id();
        let mailboxes = self.service.reader.mailboxes(account).await?;
        let subscriptions = self.service.reader.subscriptions(account).await?;
        let mut entries: BTreeMap<String, Entry> = BTreeMap::new();
        for mailbox in mailboxes {
            for parent in parents(&mailbox.name) {
                entries.entry(parent.to_owned()).or_default().children = true;
            }
            let name = mailbox.name.clone();
            entries.entry(name).or_default().mailbox = Some(mailbox);
        }
        for name in subscriptions {
            for parent in parents(&name) {
                entries
                    .entry(parent.to_owned())
                    .or_default()
                    .subscribed_below = true;
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
        let mut status: Vec<Mailbox> = Vec::new();
        for (name, entry) in &entries {
            if !patterns.iter().any(|pattern| pattern.matches(name)) {
                continue;
            }
            let select = list.selection;
            let special = entry
                .mailbox
                .as_ref()
                .and_then(|mailbox| mailbox.special_use.as_deref());
            let subscribed_hit = !select.subscribed || entry.subscribed;
            let special_hit = !select.special_use || special.is_some();
            // RFC 5258 3.5: a parent that does not match itself, of something that does
            let below = select.subscribed && select.recursive_match && entry.subscribed_below;
            if !(subscribed_hit && special_hit || below)
                || entry.mailbox.is_none() && !select.subscribed && !entry.children
            {
                continue;
            }
            let mut attributes: Vec<&str> = Vec::new();
            if entry.mailbox.is_none() {
                attributes.push("\\NonExistent");
                attributes.push("\\Noselect");
            }
            if list.returns.children || !list.extended {
                attributes.push(if entry.children {
                    "\\HasChildren"
                } else {
                    "\\HasNoChildren"
                });
            }
            if entry.subscribed && (select.subscribed || list.returns.subscribed) {
                attributes.push("\\Subscribed");
            }
            if let Some(special) = special {
                attributes.push(special);
            }
            put::text(&mut self.out, "* LIST ");
            put::list(&mut self.out, attributes);
            put::text(&mut self.out, " \"/\" ");
            self.names.put(&mut self.out, name);
            if below {
                put::text(&mut self.out, " (\"CHILDINFO\" (\"SUBSCRIBED\"))");
            }
            put::text(&mut self.out, "\r\n");
            if let (Some(_), Some(mailbox)) = (&list.returns.status, &entry.mailbox) {
                status.push(mailbox.clone());
            }
        }
        if let Some(items) = &list.returns.status {
            for mailbox in &status {
                self.put_status(mailbox, items);
            }
        }
        done("completed")
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
        let mailbox = self.named(name, "NONEXISTENT").await?;
        // RFC 7162 3.1.2
        self.condstore |= items.contains(&StatusItem::HighestModSeq);
        self.put_status(&mailbox, items);
        done("completed")
    }

    fn put_status(&mut self, mailbox: &Mailbox, items: &[StatusItem]) {
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
                // RFC 3501: nobody is promised \Recent. RFC 9208 todo: DELETED-STORAGE is not counted.
                StatusItem::Recent | StatusItem::DeletedStorage => put::number(out, 0),
            }
        }
        put::text(out, ")\r\n");
    }
}
