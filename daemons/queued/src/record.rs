//! What the journal and the queue table keep of a message. Versioned: a version is never changed once it was released.

use serde::{Deserialize, Serialize};
use types::{Address, BodyType, Envelope, Held, QueueId, Recipient, Ret, Terms, TraceId};

/// The version that is written. 2 added the envelope's terms and the listener, 3 who has it held and what the owners of a list have to
/// do with it; those before it are still read.
pub(crate) const VERSION: u8 = 3;

/// All that is known of a message besides its octets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head {
    pub(crate) trace: TraceId,
    /// Seconds since 1970.
    pub(crate) arrived: u64,
    /// From where, for people.
    pub(crate) origin: String,
    /// Whether it may go to other hosts.
    pub(crate) may_relay: bool,
    /// Whether it is signed on its way to other hosts.
    pub(crate) sign: bool,
    pub(crate) envelope: Envelope,
    pub(crate) prefix_len: u32,
    pub(crate) body_len: u64,
    /// Whether the body is in the spool, otherwise it follows the prefix.
    pub(crate) spooled: bool,
    /// The listener that took it; empty if the queue made it itself.
    pub(crate) listener: String,
    /// Who wants it held until an operator releases it.
    pub(crate) held: Option<Held>,
    /// Of a post to a mailing list that its owners decide on. Only the queue itself writes this.
    pub(crate) moderated: Option<Moderated>,
}

/// What the owners of a list have to do with a post.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Moderated {
    /// It waits for them, and is not tried.
    Waits {
        /// Under which id it came.
        post: QueueId,
        /// For operators.
        why: String,
        /// When it is given up, in seconds since 1970.
        until: u64,
    },
    /// One of them has let it in.
    LetIn,
}

/// Version 1 of [`Head`], as it was released.
#[derive(Debug, Serialize, Deserialize)]
struct HeadOne {
    trace: TraceId,
    arrived: u64,
    origin: String,
    may_relay: bool,
    sign: bool,
    envelope: EnvelopeOne,
    prefix_len: u32,
    body_len: u64,
    spooled: bool,
}

/// The envelope in [`HeadOne`].
#[derive(Debug, Serialize, Deserialize)]
struct EnvelopeOne {
    sender: Option<Address>,
    ret: Option<Ret>,
    envid: Option<String>,
    body: BodyType,
    smtputf8: bool,
    require_tls: bool,
    recipients: Vec<Recipient>,
}

impl From<HeadOne> for Head {
    fn from(one: HeadOne) -> Self {
        // The listener stood in the text for people only.
        let listener = one
            .origin
            .split_once(" from ")
            .map(|(listener, _)| listener.to_owned())
            .unwrap_or_default();
        let envelope = one.envelope;
        Self {
            trace: one.trace,
            arrived: one.arrived,
            origin: one.origin,
            may_relay: one.may_relay,
            sign: one.sign,
            envelope: Envelope {
                sender: envelope.sender,
                ret: envelope.ret,
                envid: envelope.envid,
                body: envelope.body,
                smtputf8: envelope.smtputf8,
                require_tls: envelope.require_tls,
                recipients: envelope.recipients,
                terms: Terms::default(),
            },
            prefix_len: one.prefix_len,
            body_len: one.body_len,
            spooled: one.spooled,
            listener,
            held: None,
            moderated: None,
        }
    }
}

/// What happened to a message that is still in the journal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Note {
    /// Recipients that are done.
    pub(crate) done: Vec<u16>,
    /// Recipients that were taken for local and are not.
    pub(crate) remote: Vec<u16>,
}

/// Why a record cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordError {
    #[error("version {0} is not known to this program")]
    Version(u8),
    #[error("its content is malformed")]
    Malformed,
}

impl Head {
    /// Its octets with their length before them: the first part of a journal record.
    pub(crate) fn to_record(&self) -> Vec<u8> {
        let mut octets = postcard::to_extend(self, vec![0; 4]).unwrap_or_default();
        let len = u32::try_from(octets.len().saturating_sub(4)).unwrap_or(0);
        if let Some(first) = octets.first_chunk_mut::<4>() {
            *first = len.to_le_bytes();
        }
        octets
    }

    /// Reads a journal record: the head, the prefix, the body (empty if it is in the spool).
    pub(crate) fn of_record(
        version: u8,
        payload: &[u8],
    ) -> Result<(Self, &[u8], &[u8]), RecordError> {
        let (len, rest) = payload
            .split_first_chunk::<4>()
            .ok_or(RecordError::Malformed)?;
        let (head, rest) = rest
            .split_at_checked(u32::from_le_bytes(*len) as usize)
            .ok_or(RecordError::Malformed)?;
        let head = Self::read(version, head)?;
        let (prefix, body) = rest
            .split_at_checked(head.prefix_len as usize)
            .ok_or(RecordError::Malformed)?;
        if !head.spooled && body.len() as u64 != head.body_len {
            return Err(RecordError::Malformed);
        }
        Ok((head, prefix, body))
    }

    /// Its octets with the version before them: a column of the queue table.
    pub(crate) fn to_column(&self) -> Vec<u8> {
        versioned(self)
    }

    /// Reads a column of the queue table.
    pub(crate) fn of_column(octets: &[u8]) -> Result<Self, RecordError> {
        let (version, rest) = octets.split_first().ok_or(RecordError::Malformed)?;
        Self::read(*version, rest)
    }

    fn read(version: u8, octets: &[u8]) -> Result<Self, RecordError> {
        match version {
            1 => postcard::from_bytes::<HeadOne>(octets).map(Self::from),
            // It ends before `held` and `moderated`, of which nothing is written as 0.
            2 => postcard::from_bytes(&[octets, &[0, 0]].concat()),
            VERSION => postcard::from_bytes(octets),
            other => return Err(RecordError::Version(other)),
        }
        .map_err(|_| RecordError::Malformed)
    }

    /// Whether it waits for the owners of a list.
    pub(crate) fn waits(&self) -> bool {
        matches!(self.moderated, Some(Moderated::Waits { .. }))
    }

    /// Octets of the whole message.
    pub(crate) fn size(&self) -> u64 {
        u64::from(self.prefix_len) + self.body_len
    }
}

impl Note {
    /// A journal record's payload.
    pub(crate) fn to_record(&self) -> Vec<u8> {
        postcard::to_stdvec(self).unwrap_or_default()
    }

    /// Reads a journal record's payload.
    pub(crate) fn of_record(version: u8, payload: &[u8]) -> Result<Self, RecordError> {
        // It is the same in all of them.
        if !(1..=VERSION).contains(&version) {
            return Err(RecordError::Version(version));
        }
        postcard::from_bytes(payload).map_err(|_| RecordError::Malformed)
    }
}

/// A value for a column, its version first.
pub(crate) fn versioned<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_extend(value, vec![VERSION]).unwrap_or_default()
}

/// Reads what [`versioned`] wrote: a value that is the same in all versions.
pub(crate) fn of_versioned<T: for<'de> Deserialize<'de>>(octets: &[u8]) -> Result<T, RecordError> {
    match octets.split_first() {
        Some((1..=VERSION, rest)) => postcard::from_bytes(rest).map_err(|_| RecordError::Malformed),
        Some((version, _)) => Err(RecordError::Version(*version)),
        None => Err(RecordError::Malformed),
    }
}

/// A sender as people write it.
pub(crate) fn reverse_path(sender: Option<&Address>) -> String {
    sender.map_or_else(|| "<>".to_owned(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use types::{ByMode, DeliverBy, Notify, Release, Route};

    pub(crate) fn head() -> Head {
        Head {
            trace: TraceId(7),
            arrived: 1_800_000_000,
            origin: "mx from 192.0.2.1".to_owned(),
            may_relay: false,
            sign: true,
            envelope: Envelope {
                sender: Some("a@example.org".parse().unwrap()),
                ret: None,
                envid: Some("x".to_owned()),
                body: BodyType::EightBit,
                smtputf8: false,
                require_tls: false,
                terms: Terms::default(),
                recipients: vec![Recipient {
                    address: "b@example.net".parse().unwrap(),
                    orcpt: None,
                    notify: Notify::default(),
                    route: Route::Local,
                }],
            },
            prefix_len: 3,
            body_len: 4,
            spooled: false,
            listener: "mx".to_owned(),
            held: None,
            moderated: None,
        }
    }

    #[test]
    fn records_are_read_back() {
        let mut record = head().to_record();
        record.extend_from_slice(b"pre");
        record.extend_from_slice(b"body");
        assert_eq!(
            Head::of_record(VERSION, &record).unwrap(),
            (head(), b"pre".as_slice(), b"body".as_slice())
        );
        assert_eq!(Head::of_column(&head().to_column()).unwrap(), head());
        assert!(matches!(
            Head::of_record(9, &record),
            Err(RecordError::Version(9))
        ));
        for cut in 0..record.len() {
            assert!(Head::of_record(VERSION, record.get(..cut).unwrap()).is_err());
        }
        let note = Note {
            done: vec![1, 2],
            remote: vec![3],
        };
        assert_eq!(Note::of_record(VERSION, &note.to_record()).unwrap(), note);
    }

    fn octets(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.bytes().filter(|byte| *byte != b' ').collect();
        digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }

    /// What version 1 looked like on the disk: it is read for ever.
    #[test]
    fn version_one_is_read() {
        let one = octets(
            "010780a4a7da06116d782066726f6d203139322e302e322e310001010161\
             0b6578616d706c652e6f726700010178010000010162\
             0b6578616d706c652e6e657400000101000003 0400",
        );
        assert_eq!(Head::of_column(&one).unwrap(), head());
        let head_octets = one.get(1..).unwrap();
        let mut record = u32::try_from(head_octets.len())
            .unwrap()
            .to_le_bytes()
            .to_vec();
        record.extend_from_slice(head_octets);
        record.extend_from_slice(b"prebody");
        assert_eq!(
            Head::of_record(1, &record).unwrap(),
            (head(), b"pre".as_slice(), b"body".as_slice())
        );
        let last = status();
        let mut column = versioned(&last);
        *column.first_mut().unwrap() = 1;
        assert_eq!(of_versioned::<types::Status>(&column).unwrap(), last);
    }

    fn status() -> types::Status {
        types::Status {
            code: 451,
            enhanced: types::Enhanced(4, 3, 0),
            text: "later".to_owned(),
            host: None,
        }
    }

    /// What versions 2 and 3 look like on the disk: this must never change once it is released.
    #[test]
    fn versions_two_and_three_are_frozen() {
        let mut head = head();
        head.envelope.terms = Terms {
            release: Some(Release {
                at: 1_800_003_600,
                interval: Some(3600),
            }),
            priority: Some(-4),
            by: Some(DeliverBy {
                deadline: 1_800_007_200,
                mode: ByMode::Return,
                trace: true,
            }),
        };
        let frozen = octets(
            "020780a4a7da06116d782066726f6d203139322e302e322e3100010101610b65\
             78616d706c652e6f7267000101780100000101620b6578616d706c652e6e6574\
             0000010100000190c0a7da0601901c01fc01a0dca7da060101030400026d78",
        );
        assert_eq!(Head::of_column(&frozen).unwrap(), head);
        for cut in 1..frozen.len() {
            assert!(Head::of_column(frozen.get(..cut).unwrap()).is_err());
        }
        let mut three = frozen;
        *three.first_mut().unwrap() = 3;
        let behind = three.len();
        let hex = |octets: &[u8]| -> String {
            octets.iter().map(|octet| format!("{octet:02x}")).collect()
        };
        let waits = Moderated::Waits {
            post: QueueId(300),
            why: "x".to_owned(),
            until: 1_800_000_000,
        };
        for (held, moderated, more) in [
            (None, None, "00 00"),
            (
                Some(Held::new("rvm", "spam")),
                None,
                "01 0372766d 04 7370616d 00",
            ),
            (None, Some(waits), "00 01 00 ac02 0178 80a4a7da06"),
            (None, Some(Moderated::LetIn), "00 01 01"),
        ] {
            three.truncate(behind);
            three.extend_from_slice(&octets(more));
            head.held = held;
            head.moderated = moderated;
            assert_eq!(hex(&head.to_column()), hex(&three));
            assert_eq!(Head::of_column(&three).unwrap(), head);
            assert!(Head::of_column(three.get(..behind).unwrap()).is_err());
        }
    }
}
