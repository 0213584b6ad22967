//! NOTIFY (RFC 5465): of which events in which mailboxes the client wants to hear.

use super::FetchItem;
use super::fetch;
use crate::Refusal;
use crate::cursor::{Cursor, Parse};

/// What NOTIFY sets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notify {
    /// STATUS: the state of all these mailboxes at once.
    pub status: bool,
    /// In the client's order: those that have a mailbox count for it, up to one with NONE. None: NOTIFY NONE.
    pub groups: Vec<NotifyGroup>,
    /// An event that the server does not know: BADEVENT.
    pub unknown: bool,
}

/// Events of some mailboxes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotifyGroup {
    /// Which.
    pub filter: MailboxFilter,
    /// Of what.
    pub events: NotifyEvents,
}

/// Some mailboxes (RFC 5465 6, RFC 7377 2.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MailboxFilter {
    /// SELECTED
    Selected,
    /// SELECTED-DELAYED: expunges wait for a command that may tell them.
    SelectedDelayed,
    /// INBOXES
    Inboxes,
    /// PERSONAL
    Personal,
    /// SUBSCRIBED
    Subscribed,
    /// SUBTREE: these and those below.
    Subtree(Vec<String>),
    /// SUBTREE-ONE: these and those right below.
    SubtreeOne(Vec<String>),
    /// MAILBOXES
    Mailboxes(Vec<String>),
}

/// Events (RFC 5465 5).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NotifyEvents {
    /// MessageNew; with what is shown of the message in the selected mailbox.
    pub message_new: Option<Vec<FetchItem>>,
    /// MessageExpunge
    pub message_expunge: bool,
    /// FlagChange
    pub flag_change: bool,
    /// MailboxName
    pub mailbox_name: bool,
    /// SubscriptionChange
    pub subscription_change: bool,
    /// MailboxMetadataChange (RFC 5465 5.6)
    pub mailbox_metadata: bool,
    /// ServerMetadataChange (RFC 5465 5.7)
    pub server_metadata: bool,
}

pub(super) fn parse(cursor: &mut Cursor<'_>) -> Parse<Notify> {
    cursor.space()?;
    match cursor.word()?.as_str() {
        "NONE" => return Ok(Notify::default()),
        "SET" => {}
        _ => return Err(Refusal::bad("NOTIFY takes SET or NONE")),
    }
    let mut notify = Notify::default();
    cursor.space()?;
    if cursor.eat_word("STATUS") {
        notify.status = true;
        cursor.space()?;
    }
    let mut selected = false;
    loop {
        let group = group(cursor, &mut notify.unknown)?;
        let is_selected = matches!(
            group.filter,
            MailboxFilter::Selected | MailboxFilter::SelectedDelayed
        );
        // RFC 5465 6.1
        if is_selected && std::mem::replace(&mut selected, true) {
            return Err(Refusal::bad("NOTIFY has SELECTED twice"));
        }
        notify.groups.push(group);
        if cursor.at_end() {
            return Ok(notify);
        }
        cursor.space()?;
    }
}

/// Which mailboxes.
pub(super) fn filter(cursor: &mut Cursor<'_>) -> Parse<MailboxFilter> {
    Ok(match cursor.word()?.as_str() {
        "SELECTED" => MailboxFilter::Selected,
        "SELECTED-DELAYED" => MailboxFilter::SelectedDelayed,
        "INBOXES" => MailboxFilter::Inboxes,
        "PERSONAL" => MailboxFilter::Personal,
        "SUBSCRIBED" => MailboxFilter::Subscribed,
        "SUBTREE" => MailboxFilter::Subtree(mailboxes(cursor)?),
        "SUBTREE-ONE" => MailboxFilter::SubtreeOne(mailboxes(cursor)?),
        "MAILBOXES" => MailboxFilter::Mailboxes(mailboxes(cursor)?),
        _ => return Err(Refusal::bad("There is no such choice of mailboxes")),
    })
}

fn group(cursor: &mut Cursor<'_>, unknown: &mut bool) -> Parse<NotifyGroup> {
    cursor.expect(b'(', "NOTIFY SET takes groups of events in parentheses")?;
    let filter = filter(cursor)?;
    cursor.space()?;
    let events = if cursor.eat_word("NONE") {
        NotifyEvents::default()
    } else {
        events(cursor, &filter, unknown)?
    };
    cursor.expect(b')', "NOTIFY has a group that does not end")?;
    Ok(NotifyGroup { filter, events })
}

fn mailboxes(cursor: &mut Cursor<'_>) -> Parse<Vec<String>> {
    cursor.space()?;
    match cursor.peek() {
        Some(b'(') => cursor.list(Cursor::mailbox),
        _ => Ok(vec![cursor.mailbox()?]),
    }
}

fn events(
    cursor: &mut Cursor<'_>,
    filter: &MailboxFilter,
    unknown: &mut bool,
) -> Parse<NotifyEvents> {
    let selected = matches!(
        filter,
        MailboxFilter::Selected | MailboxFilter::SelectedDelayed
    );
    let mut events = NotifyEvents::default();
    cursor.list(|cursor| {
        // The attributes of MessageNew follow it as if they were an event of their own.
        if cursor.peek() == Some(b'(') {
            let Some(items) = events.message_new.as_mut().filter(|_| selected) else {
                return Err(Refusal::bad("Only MessageNew of SELECTED takes attributes"));
            };
            return fetch::items(cursor, items);
        }
        match cursor.word()?.as_str() {
            "MESSAGENEW" => events.message_new = Some(Vec::new()),
            "MESSAGEEXPUNGE" => events.message_expunge = true,
            "FLAGCHANGE" => events.flag_change = true,
            // RFC 5465 6.1: SELECTED is about messages
            "MAILBOXNAME"
            | "SUBSCRIPTIONCHANGE"
            | "MAILBOXMETADATACHANGE"
            | "SERVERMETADATACHANGE"
                if selected =>
            {
                return Err(Refusal::bad("SELECTED takes events of messages only"));
            }
            "MAILBOXNAME" => events.mailbox_name = true,
            "SUBSCRIPTIONCHANGE" => events.subscription_change = true,
            "MAILBOXMETADATACHANGE" => events.mailbox_metadata = true,
            "SERVERMETADATACHANGE" => events.server_metadata = true,
            _ => *unknown = true,
        }
        Ok(())
    })?;
    let complete = events.message_new.is_some() == events.message_expunge
        && (events.message_expunge || !events.flag_change);
    match complete {
        true => Ok(events),
        // RFC 5465 5
        false => Err(Refusal::bad(
            "MessageNew and MessageExpunge go together, FlagChange only with both",
        )),
    }
}
