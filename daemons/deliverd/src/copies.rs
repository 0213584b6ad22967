//! Copies of a message on their way to the store.

use ipc::api::stored::DeliverTarget;
use std::sync::Arc;
use types::Address;

/// Copies in one call to the store.
const TARGETS_MAX: usize = 1000;

/// One copy for one account; the recipients that share it share its outcome.
pub(crate) struct Copy {
    pub(crate) target: DeliverTarget,
    pub(crate) name: Address,
    /// What is stored instead of the message as it came: a script changed it.
    pub(crate) content: Option<Arc<Vec<u8>>>,
    pub(crate) for_recipients: Vec<u16>,
}

/// Copies that go together into one call with `room` octets for them; always at least one.
pub(crate) fn groups(copies: &[Copy], room: usize) -> impl Iterator<Item = &[Copy]> {
    let mut rest = copies;
    std::iter::from_fn(move || {
        let mut used = 0;
        let fits = |copy: &&Copy| {
            used += copy.target.prefix.len() + copy.target.mailbox.len() + 64;
            used <= room
        };
        let count = rest
            .iter()
            .take(TARGETS_MAX)
            .take_while(fits)
            .count()
            .max(1)
            .min(rest.len());
        let (group, behind) = rest.split_at(count);
        rest = behind;
        (!group.is_empty()).then_some(group)
    })
}
