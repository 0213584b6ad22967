//! A post to a mailing list becomes messages of the queue, each with some hundred recipients and the same body.
//!
//! All of them are in one synced write with the mark that frees the recipient they come from: after a kill either none is there
//! and deliverd is asked again, or all are. Bodies that an unfinished attempt left in the spool are orphans, which go at the start.

use crate::core::{Core, now};
use crate::message::{Fresh, Job};
use crate::record::Head;
use ipc::{Fault, FaultKind};
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::sync::Arc;
use types::{
    Address, Body, BodyType, Enhanced, Envelope, Notify, Recipient, Ret, Route, Status, Terms,
};

/// Recipients of one message, and octets of their addresses.
const RECIPIENTS: usize = 500;
const OCTETS: usize = 32 * 1024;

/// Octets of all addresses of a post.
const ALL: u64 = 64 << 20;

/// A post as deliverd made it, with its file.
pub(crate) struct Post {
    /// Where bounces go.
    pub(crate) sender: Address,
    /// All that stands before the body.
    pub(crate) prefix: Vec<u8>,
    /// Octets of the recipients in the file; the message is behind them.
    pub(crate) recipients: u64,
    pub(crate) content: u64,
    pub(crate) file: File,
}

pub(crate) fn status(fault: Fault) -> Status {
    Status {
        code: 451,
        enhanced: Enhanced(4, 3, 0),
        text: fault.text,
        host: None,
    }
}

pub(crate) fn temporary(error: &dyn std::fmt::Display) -> Status {
    status(Fault::new(FaultKind::Temporary, error.to_string()))
}

/// The messages of a post. A large body is in the spool by then, once for all of them.
///
/// # Errors
/// No room, or a file that is not what it should be: it is tried again.
pub(crate) async fn messages(
    core: &Arc<Core>,
    job: &Job,
    post: Post,
) -> Result<Vec<Fresh>, Status> {
    let core = Arc::clone(core);
    let head = job.message.head.clone();
    let id = job.message.id;
    let task = tokio::task::spawn_blocking(move || {
        let mut post = post;
        let to = recipients(&mut post)?;
        let groups = groups(to);
        let count = u32::try_from(groups.len()).unwrap_or(u32::MAX);
        let first = core.reserve(count).map_err(status)?;
        let inline = post.content <= Body::INLINE_MAX as u64;
        let (body, eight_bit) = if inline {
            let mut body = Vec::new();
            let read = (&post.file).take(post.content).read_to_end(&mut body);
            read.map_err(|error| temporary(&error))?;
            let eight_bit = !body.is_ascii();
            (body, eight_bit)
        } else {
            core.check_free(post.content).map_err(status)?;
            let put = core.spool.put(first, &mut post.file, post.content);
            let ascii = put.map_err(|error| temporary(&error))?;
            (Vec::new(), !ascii)
        };
        let mut all = Vec::with_capacity(groups.len());
        for (group, number) in groups.into_iter().zip(0_u64..) {
            let this = types::QueueId(first.0 + number);
            if !inline && number > 0 {
                let linked = core.spool.link(first, this);
                linked.map_err(|error| temporary(&error))?;
            }
            all.push(Fresh {
                id: this,
                head: head_of(&head, &post, id, group, eight_bit, !inline),
                prefix: post.prefix.clone(),
                body: body.clone(),
            });
        }
        Ok(all)
    });
    task.await.map_err(|error| temporary(&error))?
}

/// The recipients at the beginning of the file, which then stands at the message.
fn recipients(post: &mut Post) -> Result<Vec<Address>, Status> {
    if post.recipients > ALL {
        return Err(temporary(&"a post has too many recipients"));
    }
    let mut octets = Vec::new();
    post.file
        .seek(SeekFrom::Start(0))
        .and_then(|_| (&post.file).take(post.recipients).read_to_end(&mut octets))
        .map_err(|error| temporary(&error))?;
    postcard::from_bytes(&octets).map_err(|error| temporary(&error))
}

fn groups(to: Vec<Address>) -> Vec<Vec<Address>> {
    let mut groups: Vec<Vec<Address>> = Vec::new();
    let mut octets = 0;
    for address in to {
        let size = address.local().len() + address.domain().len();
        octets += size;
        match groups.last_mut() {
            Some(group) if group.len() < RECIPIENTS && octets <= OCTETS => group.push(address),
            _ => {
                octets = size;
                groups.push(vec![address]);
            }
        }
    }
    groups
}

fn head_of(
    original: &Head,
    post: &Post,
    of: types::QueueId,
    group: Vec<Address>,
    eight_bit: bool,
    spooled: bool,
) -> Head {
    let recipient = |address: Address| Recipient {
        // RFC 3461 4.2: by this name a report tells which member it is about.
        orcpt: Some(format!("rfc822;{address}")),
        address,
        notify: Notify::default(),
        // deliverd finds out whether it is one of ours.
        route: Route::Local,
    };
    let body = match original.envelope.body {
        BodyType::SevenBit if eight_bit => BodyType::EightBit,
        other => other,
    };
    Head {
        trace: original.trace,
        arrived: now(),
        origin: format!("a list's post from {of}"),
        may_relay: true,
        // relayd signs for the list, and for the author only if that is one of us.
        sign: original.sign,
        envelope: Envelope {
            sender: Some(post.sender.clone()),
            ret: Some(Ret::Headers),
            envid: None,
            body,
            smtputf8: original.envelope.smtputf8 || group.iter().any(Address::needs_utf8),
            require_tls: original.envelope.require_tls,
            recipients: group.into_iter().map(recipient).collect(),
            terms: Terms::default(),
        },
        prefix_len: u32::try_from(post.prefix.len()).unwrap_or(u32::MAX),
        body_len: post.content,
        spooled,
        listener: original.listener.clone(),
        held: None,
        moderated: None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn groups_are_bounded_in_number_and_octets() {
        let address = |number: usize, long: usize| {
            Address::new(&format!("{number:0long$}"), "members.example").unwrap()
        };
        let many: Vec<Address> = (0..1201).map(|number| address(number, 5)).collect();
        let parted = groups(many.clone());
        let sizes: Vec<usize> = parted.iter().map(Vec::len).collect();
        assert_eq!(sizes, [500, 500, 201]);
        assert_eq!(parted.concat(), many);
        let long: Vec<Address> = (0..1000).map(|number| address(number, 64)).collect();
        let parted = groups(long.clone());
        assert!(parted.len() > 2 && parted.iter().all(|group| group.len() <= OCTETS / 79));
        assert_eq!(parted.concat(), long);
        assert!(groups(Vec::new()).is_empty());
    }
}
