//! NOTIFY (RFC 5465): news of the selected mailbox at any time, and of others as STATUS and LIST.

use super::metadata::{Told, differences};
use super::multisearch::Chosen;
use crate::session::{Done, End, Refused, Session, done};
use crate::view::Snapshot;
use imap::put;
use imap::{FetchItem, MailboxFilter, Notify, NotifyEvents, NotifyGroup};
use std::collections::HashMap;
use std::sync::Arc;
use store::Mailbox;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use types::MailboxId;

/// What can be notified, for BADEVENT (RFC 5465 5).
const EVENTS: &str = "BADEVENT (MessageNew MessageExpunge FlagChange MailboxName SubscriptionChange \
    MailboxMetadataChange ServerMetadataChange)";

/// What a client has asked for, and what it knows.
#[derive(Debug)]
pub struct Notifying {
    groups: Vec<NotifyGroup>,
    /// The mailboxes as they were told, and whether they are subscribed.
    known: HashMap<MailboxId, Mailbox>,
    /// The annotations as they were told, if that was asked for.
    metadata: Option<Told>,
    /// Changes when anything in the account does.
    account: watch::Receiver<u64>,
}

/// The events of all groups that have this mailbox, up to one that wants none (RFC 5465 6).
fn events_of(groups: &[NotifyGroup], mailbox: &Mailbox) -> NotifyEvents {
    let chosen = Chosen {
        name: &mailbox.name,
        subscribed: mailbox.subscribed,
        own: true,
    };
    let has = |group: &&NotifyGroup| chosen.by(&group.filter);
    let mut all = NotifyEvents::default();
    let wanted = |group: &&NotifyGroup| group.events != NotifyEvents::default();
    for group in groups.iter().filter(has).take_while(wanted) {
        let events = &group.events;
        if events.message_new.is_some() {
            all.message_new = Some(Vec::new());
        }
        all.message_expunge |= events.message_expunge;
        all.flag_change |= events.flag_change;
        all.mailbox_name |= events.mailbox_name;
        all.subscription_change |= events.subscription_change;
        all.mailbox_metadata |= events.mailbox_metadata;
    }
    all
}

/// Whether one of these events makes the difference between two states of a mailbox.
fn concerns(events: &NotifyEvents, old: &Mailbox, new: &Mailbox) -> bool {
    let arrived = new.uidnext.saturating_sub(old.uidnext);
    let gone = old.total.saturating_add(arrived) > new.total;
    let changed = old.modseq != new.modseq;
    events.message_new.is_some() && arrived > 0
        || events.message_expunge && gone
        || events.flag_change && changed && (arrived == 0 && !gone || old.unseen != new.unseen)
}

impl Notifying {
    fn selected(&self) -> Option<&NotifyGroup> {
        let is_selected = |group: &&NotifyGroup| {
            matches!(
                group.filter,
                MailboxFilter::Selected | MailboxFilter::SelectedDelayed
            )
        };
        let group = self.groups.iter().find(is_selected)?;
        (group.events != NotifyEvents::default()).then_some(group)
    }

    /// The client wants to hear of messages that come and go, and not of flags.
    pub fn without_flags(&self) -> bool {
        self.selected()
            .is_some_and(|group| !group.events.flag_change)
    }

    /// RFC 5465 5.7: about no mailbox, so any group asks for it.
    fn server_metadata(&self) -> bool {
        self.groups.iter().any(|group| group.events.server_metadata)
    }

    /// The annotations as they were told, if the client hears of them.
    pub(super) fn metadata(&mut self) -> Option<&mut Told> {
        self.metadata.as_mut()
    }

    fn any_metadata(&self) -> bool {
        let mut groups = self.groups.iter();
        self.server_metadata() || groups.any(|group| group.events.mailbox_metadata)
    }

    fn elsewhere(&self) -> bool {
        let selected = usize::from(self.selected().is_some());
        self.groups.len() > selected
    }
}

/// What wakes a session that waits for its client.
#[derive(Debug, Default)]
pub struct Ears {
    view: Option<watch::Receiver<Arc<Snapshot>>>,
    account: Option<watch::Receiver<u64>>,
}

async fn changed<T>(watch: &mut Option<watch::Receiver<T>>) {
    let heard = match watch {
        Some(watch) => watch.changed().await.is_ok(),
        None => false,
    };
    if !heard {
        std::future::pending::<()>().await;
    }
}

impl Ears {
    /// Waits for news.
    pub async fn heard(&mut self) {
        tokio::select! {
            () = changed(&mut self.view) => {}
            () = changed(&mut self.account) => {}
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + Sync> Session<S> {
    /// NOTIFY SET and NOTIFY NONE.
    pub(super) async fn notify(&mut self, notify: Notify) -> Done {
        if notify.unknown {
            return Err(Refused::No(EVENTS, "Not all events are known".to_owned()));
        }
        self.notify = None;
        if notify.groups.is_empty() {
            return done("completed");
        }
        let account = self.service.views.follow(self.account_id());
        let mut notifying = Box::new(Notifying {
            groups: notify.groups,
            known: HashMap::new(),
            metadata: None,
            account,
        });
        if notifying.any_metadata() {
            notifying.metadata = Some(self.metadata_now().await?);
        }
        if notifying.elsewhere() {
            let mailboxes = self.service.reader.mailboxes(self.account_id()).await?;
            if mailboxes.len() > self.service.config.notify_mailboxes {
                self.overflow();
                return done("completed, but there are too many mailboxes");
            }
            for mailbox in mailboxes {
                let events = events_of(&notifying.groups, &mailbox);
                if notify.status && events.message_new.is_some() && !self.is_selected(&mailbox) {
                    self.put_state(&mailbox);
                }
                notifying.known.insert(mailbox.id, mailbox);
            }
        }
        if let Some(selected) = &mut self.selected {
            selected.announced = selected.shown.mailbox.uidnext;
        }
        self.notify = Some(notifying);
        done("completed")
    }

    fn is_selected(&self, mailbox: &Mailbox) -> bool {
        let selected = self.selected.as_ref();
        selected.is_some_and(|selected| selected.shown.mailbox.id == mailbox.id)
    }

    /// RFC 5465 5.8: as after NOTIFY NONE
    fn overflow(&mut self) {
        self.notify = None;
        let line = "* OK [NOTIFICATIONOVERFLOW] Too much to tell, ask for what you need\r\n";
        put::text(&mut self.out, line);
    }

    /// What to listen to while waiting; in IDLE the selected mailbox always.
    pub(super) fn ears(&self, idle: bool) -> Ears {
        let notify = self.notify.as_ref();
        let selected = idle || notify.is_some_and(|notify| notify.selected().is_some());
        let view = self.selected.as_ref().filter(|_| selected);
        Ears {
            view: view.map(|selected| selected.view.watch()),
            account: notify
                .filter(|notify| notify.elsewhere())
                .map(|notify| notify.account.clone()),
        }
    }

    /// After NOTIFY SET: tells news until the client says something.
    pub(crate) async fn attend(&mut self) -> Result<(), End> {
        if self.has_input() {
            return Ok(());
        }
        let mut ears = self.ears(false);
        if ears.view.is_some() {
            end_only(self.refresh().await)?;
        }
        loop {
            end_only(self.tell_news(false).await)?;
            self.flush().await?;
            tokio::select! {
                filled = self.fill() => return filled,
                () = ears.heard() => {}
            }
            ears = self.ears(false);
        }
    }

    /// Tells what is new now. In IDLE, messages that are gone may always be told.
    pub(super) async fn tell_news(&mut self, idle: bool) -> Result<(), Refused> {
        self.keep_right().await?;
        if self.notify.is_none() {
            self.prepare_contexts().await?;
        }
        let Some(notify) = &mut self.notify else {
            self.tell(idle, &[]);
            return Ok(());
        };
        let elsewhere = notify.elsewhere() && notify.account.has_changed().unwrap_or(false);
        notify.account.mark_unchanged();
        let group = notify.selected();
        let at_once = group.is_some_and(|group| group.filter == MailboxFilter::Selected);
        let items = group.and_then(|group| group.events.message_new.clone());
        if group.is_some() || idle {
            self.prepare_contexts().await?;
            self.tell(idle || at_once, &[]);
            self.show_new(&items.unwrap_or_default()).await?;
        }
        if elsewhere {
            self.tell_mailboxes().await?;
        }
        Ok(())
    }

    /// RFC 5465 5.2: what the client wants to see of new messages.
    async fn show_new(&mut self, items: &[FetchItem]) -> Result<(), Refused> {
        let Some(selected) = &mut self.selected else {
            return Ok(());
        };
        let next = selected.shown.mailbox.uidnext;
        let from = std::mem::replace(&mut selected.announced, next);
        if items.is_empty() || from >= next {
            return Ok(());
        }
        let positions = selected.shown.positions(&[(from, u32::MAX)]);
        match self.show(&positions, items).await {
            // That a message is gone again is told, too.
            Err(Refused::No(..)) | Ok(()) => Ok(()),
            Err(other) => Err(other),
        }
    }

    /// Mailboxes that are not selected.
    async fn tell_mailboxes(&mut self) -> Result<(), Refused> {
        let mailboxes = self.service.reader.mailboxes(self.account_id()).await?;
        let Some(mut notify) = self.notify.take() else {
            return Ok(());
        };
        if mailboxes.len() > self.service.config.notify_mailboxes {
            self.overflow();
            return Ok(());
        }
        let mut known = HashMap::with_capacity(mailboxes.len());
        for mailbox in mailboxes {
            let old = notify.known.remove(&mailbox.id);
            let events = events_of(&notify.groups, &mailbox);
            self.tell_mailbox(&events, old.as_ref(), &mailbox);
            known.insert(mailbox.id, mailbox);
        }
        for gone in notify.known.values() {
            if events_of(&notify.groups, gone).mailbox_name {
                self.put_list(gone, "\\NonExistent", None);
            }
        }
        notify.known = known;
        if let Some(old) = notify.metadata.take() {
            let new = self.metadata_now().await?;
            self.tell_metadata(&notify, &old, &new);
            notify.metadata = Some(new);
        }
        self.notify = Some(notify);
        Ok(())
    }

    /// RFC 5465 5.6, 5.7: of a mailbox that is new or gone, its name is all that is told.
    fn tell_metadata(&mut self, notify: &Notifying, old: &Told, new: &Told) {
        for (mailbox, entries) in differences(old, new) {
            match mailbox {
                None if notify.server_metadata() => self.put_changed_metadata("", &entries),
                None => {}
                Some(mailbox) => {
                    let known = notify.known.get(&mailbox);
                    if let Some(mailbox) =
                        known.filter(|one| events_of(&notify.groups, one).mailbox_metadata)
                    {
                        self.put_changed_metadata(&mailbox.name, &entries);
                    }
                }
            }
        }
    }

    fn tell_mailbox(&mut self, events: &NotifyEvents, old: Option<&Mailbox>, new: &Mailbox) {
        let subscribed = if new.subscribed { "\\Subscribed" } else { "" };
        let Some(old) = old else {
            if events.mailbox_name {
                self.put_list(new, subscribed, None);
            }
            if events.message_new.is_some() && new.total > 0 && !self.is_selected(new) {
                self.put_state(new);
            }
            return;
        };
        let renamed = old.name != new.name;
        if renamed && events.mailbox_name {
            self.put_list(new, subscribed, Some(&old.name));
        } else if old.subscribed != new.subscribed && events.subscription_change {
            self.put_list(new, subscribed, None);
        }
        if !self.is_selected(new) && concerns(events, old, new) {
            self.put_state(new);
        }
    }

    /// RFC 5465 5.4: LIST, and where it was renamed its old name (RFC 9051 6.3.9.7).
    fn put_list(&mut self, mailbox: &Mailbox, attribute: &str, old: Option<&str>) {
        put::text(&mut self.out, &format!("* LIST ({attribute}) \"/\" "));
        self.names.put(&mut self.out, &mailbox.name);
        if let Some(old) = old {
            put::text(&mut self.out, " (\"OLDNAME\" (");
            self.names.put(&mut self.out, old);
            put::text(&mut self.out, "))");
        }
        put::text(&mut self.out, "\r\n");
    }

    /// RFC 5465 5.2, 5.3: STATUS
    fn put_state(&mut self, mailbox: &Mailbox) {
        put::text(&mut self.out, "* STATUS ");
        self.names.put(&mut self.out, &mailbox.name);
        let Mailbox {
            total,
            uidnext,
            uidvalidity,
            unseen,
            modseq,
            ..
        } = mailbox;
        let modseq = match self.condstore {
            true => format!(" HIGHESTMODSEQ {modseq}"),
            false => String::new(),
        };
        put::text(
            &mut self.out,
            &format!(
                " (MESSAGES {total} UIDNEXT {uidnext} UIDVALIDITY {uidvalidity} UNSEEN {unseen}{modseq})\r\n"
            ),
        );
    }
}

/// What cannot be read now is told with the next change.
fn end_only(result: Result<(), Refused>) -> Result<(), End> {
    match result {
        Err(Refused::End(end)) => Err(end),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    fn groups(text: &str) -> Vec<NotifyGroup> {
        let line = format!("a NOTIFY SET {text}");
        let parsed = imap::parse(line.as_bytes(), imap::Names::Utf8);
        match parsed.unwrap().command {
            imap::Command::Notify(notify) => notify.groups,
            other => panic!("{other:?}"),
        }
    }

    fn mailbox(name: &str) -> Mailbox {
        Mailbox {
            name: name.to_owned(),
            ..crate::rows::tests::snapshot([1, 2]).mailbox
        }
    }

    #[test]
    fn groups_that_have_a_mailbox_count_up_to_none() {
        let groups = groups(
            "(SELECTED (MessageNew MessageExpunge)) (MAILBOXES Lists/Lemonade NONE) (SUBTREE Lists (MailboxName)) \
             (SUBSCRIBED (SubscriptionChange))",
        );
        let of = |name: &str| events_of(&groups, &mailbox(name));
        assert_eq!(of("Lists/Lemonade"), NotifyEvents::default());
        assert!(of("Lists").mailbox_name && of("Lists/Im2000").mailbox_name);
        assert!(of("Listserv").subscription_change && !of("Listserv").mailbox_name);
        assert!(of("Lists").subscription_change);
        let unsubscribed = Mailbox {
            subscribed: false,
            ..mailbox("Listserv")
        };
        assert_eq!(events_of(&groups, &unsubscribed), NotifyEvents::default());
    }

    #[test]
    fn differences_are_told_by_events() {
        let all = NotifyEvents {
            message_new: Some(Vec::new()),
            message_expunge: true,
            flag_change: true,
            ..NotifyEvents::default()
        };
        let without_flags = NotifyEvents {
            flag_change: false,
            ..all.clone()
        };
        let old = mailbox("x");
        let mut new = old.clone();
        assert!(!concerns(&all, &old, &new));
        new.modseq.0 += 1;
        assert!(concerns(&all, &old, &new) && !concerns(&without_flags, &old, &new));
        new.total -= 1;
        assert!(concerns(&without_flags, &old, &new));
        new.total += 1;
        new.uidnext += 1;
        assert!(concerns(&without_flags, &old, &new));
    }
}
