//! Personal copies of a list's post: messages with one recipient and one header each, over one body.
//!
//! They come a page at a time, with one message more that leads to the next page. All of a page are in one synced write with the mark
//! that frees the message they come from. A kill while that write is under way can leave some of them without the mark: then this
//! page, and no other, is made again, and those members get their copy twice.

use crate::core::{Core, now};
use crate::distribute::{status, temporary};
use crate::message::{Fresh, Job};
use crate::record::Head;
use ipc::api::deliverd::Copy;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::sync::Arc;
use types::{Envelope, Notify, QueueId, Recipient, Ret, Route, Status, Terms};

/// A body up to this stands in each copy's record; a longer one is in the spool once, under the names of all.
const INLINE: usize = 2048;

/// Octets of a page, and its copies.
const PAGE: u64 = 1 << 20;
const COPIES: usize = 1000;

/// The messages of a page.
///
/// # Errors
/// No room, or a file that is not what it should be: it is tried again.
pub(crate) async fn messages(
    core: &Arc<Core>,
    job: &Job,
    prefix: Vec<u8>,
    (file, octets): (File, u64),
) -> Result<Vec<Fresh>, Status> {
    core.check_room().map_err(status)?;
    let message = Arc::clone(&job.message);
    let content = core.content(&message).await.map_err(status)?;
    // Here it is in the spool of this node, wherever it was.
    drop(core.open_body(&message).await.map_err(status)?);
    let core = Arc::clone(core);
    let task = tokio::task::spawn_blocking(move || {
        let copies = copies(file, octets)?;
        let count = u32::try_from(copies.len()).unwrap_or(u32::MAX);
        let first = core.reserve(count).map_err(status)?;
        let ids: Vec<QueueId> = (0..u64::from(count))
            .map(|n| QueueId(first.0 + n))
            .collect();
        let head = &message.head;
        let body = content.body.as_deref().unwrap_or_default();
        let spooled = head.spooled || body.len() > INLINE;
        if spooled {
            let shared = share(&core, head.spooled.then_some(message.id), &ids, body);
            shared.inspect_err(|_| ids.iter().for_each(|id| core.spool.remove(*id)))?;
        }
        let all = copies.into_iter().zip(&ids).map(|(copy, id)| {
            let mut own = copy.first.0.clone();
            own.extend_from_slice(&prefix);
            Fresh {
                id: *id,
                head: head_of(head, message.id, copy, own.len(), spooled),
                prefix: own,
                body: if spooled { Vec::new() } else { body.to_vec() },
            }
        });
        Ok(all.collect())
    });
    task.await.map_err(|error| temporary(&error))?
}

/// Puts the body into the spool for all of them.
fn share(
    core: &Core,
    from: Option<QueueId>,
    ids: &[QueueId],
    mut body: &[u8],
) -> Result<(), Status> {
    let (from, ids) = match (from, ids.split_first()) {
        (Some(from), _) => (from, ids),
        (None, Some((first, rest))) => {
            let len = body.len() as u64;
            core.check_free(len).map_err(status)?;
            let put = core.spool.put(*first, &mut body, len);
            put.map_err(|error| temporary(&error))?;
            (*first, rest)
        }
        (None, None) => return Ok(()),
    };
    let linked = core.spool.link_all(from, ids);
    linked.map_err(|error| temporary(&error))
}

fn copies(mut file: File, octets: u64) -> Result<Vec<Copy>, Status> {
    if octets > PAGE {
        return Err(temporary(&"a page of copies is too long"));
    }
    let mut page = Vec::new();
    file.seek(SeekFrom::Start(0))
        .and_then(|_| file.take(octets).read_to_end(&mut page))
        .map_err(|error| temporary(&error))?;
    let copies: Vec<Copy> = postcard::from_bytes(&page).map_err(|error| temporary(&error))?;
    match copies.len() {
        1..=COPIES => Ok(copies),
        _ => Err(temporary(&"a page has too many copies, or none")),
    }
}

fn head_of(original: &Head, of: QueueId, copy: Copy, prefix: usize, spooled: bool) -> Head {
    let envelope = &original.envelope;
    Head {
        trace: original.trace,
        arrived: now(),
        origin: format!("a list's post from {of}"),
        may_relay: true,
        sign: original.sign,
        envelope: Envelope {
            ret: Some(Ret::Headers),
            envid: None,
            body: envelope.body,
            smtputf8: envelope.smtputf8 || copy.to.needs_utf8(),
            require_tls: envelope.require_tls,
            recipients: vec![Recipient {
                orcpt: Some(format!("rfc822;{}", copy.to)),
                address: copy.to,
                notify: Notify::default(),
                route: if copy.remote {
                    Route::Remote
                } else {
                    Route::Local
                },
            }],
            sender: Some(copy.sender),
            terms: Terms::default(),
        },
        prefix_len: u32::try_from(prefix).unwrap_or(u32::MAX),
        body_len: original.body_len,
        spooled,
        listener: original.listener.clone(),
        held: None,
        moderated: None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;
    use std::io::Write as _;
    use types::{BodyType, Octets, TraceId};

    fn page(count: usize) -> (File, u64) {
        let copy = |number: usize| Copy {
            to: format!("m{number}@b.example").parse().unwrap(),
            sender: format!("own-bounces+{number}@x.example").parse().unwrap(),
            first: Octets(b"A: b\r\n".to_vec()),
            remote: number.is_multiple_of(2),
        };
        let octets = postcard::to_stdvec(&(0..count).map(copy).collect::<Vec<_>>()).unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&octets).unwrap();
        (file, octets.len() as u64)
    }

    #[test]
    fn a_page_is_read_within_bounds() {
        let (file, octets) = page(201);
        assert_eq!(copies(file, octets).unwrap().len(), 201);
        for (count, cut) in [(0, 0), (COPIES + 1, 0), (201, 1)] {
            let (file, octets) = page(count);
            assert!(copies(file, octets - cut).is_err(), "{count}");
        }
        let (file, _) = page(1);
        assert!(copies(file, PAGE + 1).is_err());
    }

    #[test]
    fn a_copy_has_an_envelope_of_its_own() {
        let (file, octets) = page(2);
        let mut both = copies(file, octets).unwrap().into_iter();
        let original = Head {
            trace: TraceId(7),
            arrived: 1,
            origin: "mx".to_owned(),
            may_relay: false,
            sign: true,
            envelope: Envelope {
                sender: None,
                ret: None,
                envid: Some("x".to_owned()),
                body: BodyType::EightBit,
                smtputf8: false,
                require_tls: true,
                recipients: Vec::new(),
                terms: Terms::default(),
            },
            prefix_len: 1,
            body_len: 9,
            spooled: true,
            listener: "mx".to_owned(),
            held: None,
            moderated: None,
        };
        let mut next = || head_of(&original, QueueId(5), both.next().unwrap(), 77, true);
        let (far, here) = (next(), next());
        let envelope = &far.envelope;
        let sender = envelope.sender.as_ref().unwrap().to_string();
        assert_eq!(sender, "own-bounces+0@x.example");
        assert_eq!(
            (envelope.body, envelope.require_tls),
            (BodyType::EightBit, true)
        );
        let [to] = envelope.recipients.as_slice() else {
            panic!("{envelope:?}")
        };
        assert_eq!(to.orcpt.as_deref(), Some("rfc822;m0@b.example"));
        assert_eq!(
            (to.route, here.envelope.recipients[0].route),
            (Route::Remote, Route::Local)
        );
        assert_eq!((far.prefix_len, far.body_len, far.may_relay), (77, 9, true));
    }
}
