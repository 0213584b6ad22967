//! ENVELOPE (RFC 9051 7.5.2).

use crate::Limits;
use crate::address::{EnvelopeAddress, parse_list};
use crate::tree::EnvelopeFields;
use crate::wire;

/// The parsed address lists of one message.
pub(crate) struct Addresses {
    pub(crate) from: Vec<EnvelopeAddress>,
    sender: Vec<EnvelopeAddress>,
    reply_to: Vec<EnvelopeAddress>,
    pub(crate) to: Vec<EnvelopeAddress>,
    pub(crate) cc: Vec<EnvelopeAddress>,
    bcc: Vec<EnvelopeAddress>,
}

impl Addresses {
    pub(crate) fn of(fields: &EnvelopeFields<'_>, limits: &Limits) -> Self {
        // Several fields of one name are read as one list: nobody is hidden by being in the second.
        let list = |values: &[&[u8]]| {
            let mut list = Vec::new();
            for value in values {
                parse_list(value, &mut list, limits.addresses);
            }
            list
        };
        Self {
            from: list(&fields.from),
            sender: list(&fields.sender),
            reply_to: list(&fields.reply_to),
            to: list(&fields.to),
            cc: list(&fields.cc),
            bcc: list(&fields.bcc),
        }
    }
}

/// Appends `(date subject from sender reply-to to cc bcc in-reply-to message-id)`.
pub(crate) fn write(out: &mut Vec<u8>, fields: &EnvelopeFields<'_>, addresses: &Addresses) {
    out.push(b'(');
    wire::nstring_unfolded(out, fields.date);
    out.push(b' ');
    wire::nstring_readable(out, fields.subject);
    // RFC 9051 7.5.2: Sender and Reply-To are From where they are missing or empty.
    let or_from = |list| {
        if Vec::is_empty(list) {
            &addresses.from
        } else {
            list
        }
    };
    for list in [
        &addresses.from,
        or_from(&addresses.sender),
        or_from(&addresses.reply_to),
        &addresses.to,
        &addresses.cc,
        &addresses.bcc,
    ] {
        out.push(b' ');
        write_list(out, list);
    }
    out.push(b' ');
    wire::nstring_unfolded(out, fields.in_reply_to);
    out.push(b' ');
    wire::nstring_unfolded(out, fields.message_id);
    out.push(b')');
}

fn write_list(out: &mut Vec<u8>, list: &[EnvelopeAddress]) {
    if list.is_empty() {
        out.extend_from_slice(b"NIL");
        return;
    }
    out.push(b'(');
    for address in list {
        address.write(out);
    }
    out.push(b')');
}
