//! Reading what a filter answers.

use crate::reader::Packet;
use crate::terms::Asked;

/// What a filter answers, or does to a message at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The answer to an offer.
    Negotiate(Asked),
    /// Go on.
    Continue,
    /// Take it, without another question to this filter.
    Accept,
    /// Refuse it for good.
    Reject,
    /// Refuse it for now.
    TempFail,
    /// Take it, and throw it away.
    Discard,
    /// Answer these lines, as they are.
    ReplyCode(Vec<u8>),
    /// No more of the body.
    Skip,
    /// It takes its time.
    Progress,
    /// Answer 421 and close.
    Shutdown,
    /// As if the connection to the filter had failed.
    ConnectionFailed,
    /// Add a field.
    AddHeader {
        /// Its name.
        name: Vec<u8>,
        /// Its value.
        value: Vec<u8>,
    },
    /// Add a field at a place.
    InsertHeader {
        /// Before which; 0 and 1: before all.
        index: u32,
        /// Its name.
        name: Vec<u8>,
        /// Its value.
        value: Vec<u8>,
    },
    /// Change a field; remove it if the value is empty.
    ChangeHeader {
        /// Which of that name, from 1.
        index: u32,
        /// Its name.
        name: Vec<u8>,
        /// Its new value.
        value: Vec<u8>,
    },
    /// Another sender.
    ChangeSender {
        /// The address, as a path.
        address: Vec<u8>,
        /// Parameters of MAIL.
        parameters: Vec<u8>,
    },
    /// One more recipient.
    AddRecipient {
        /// The address, as a path.
        address: Vec<u8>,
        /// Parameters of RCPT.
        parameters: Vec<u8>,
    },
    /// One recipient less.
    DeleteRecipient(Vec<u8>),
    /// The next piece of a new body.
    ReplaceBody(Vec<u8>),
    /// Keep it apart, for this reason.
    Quarantine(Vec<u8>),
}

/// A packet that is none of a filter's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a packet of a form that is not known ({letter:#04x})")]
pub struct Malformed {
    /// Its letter.
    pub letter: u8,
}

/// The text before the next NUL, and what is behind that.
fn text(data: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let end = data.iter().position(|octet| *octet == 0)?;
    Some((data.get(..end)?.to_vec(), data.get(end + 1..)?))
}

/// The one text that is all of it; some leave the NUL away.
fn only(data: &[u8]) -> Vec<u8> {
    text(data).map_or_else(|| data.to_vec(), |(found, _)| found)
}

fn number(data: &[u8]) -> Option<(u32, &[u8])> {
    let (number, rest) = data.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*number), rest))
}

fn field(data: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let (name, rest) = text(data)?;
    Some((name, text(rest)?.0))
}

fn address(data: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let (address, rest) = text(data)?;
    Some((address, only(rest)))
}

fn asked(data: &[u8]) -> Option<Asked> {
    let (version, rest) = number(data)?;
    let (actions, rest) = number(rest)?;
    let (steps, mut rest) = number(rest)?;
    let mut symbols = Vec::new();
    while !rest.is_empty() {
        let (place, behind) = number(rest)?;
        let (names, behind) = text(behind)?;
        symbols.push((place, String::from_utf8(names).ok()?));
        rest = behind;
    }
    Some(Asked {
        version,
        actions,
        steps,
        symbols,
    })
}

impl Reply {
    /// Reads a packet.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn read(packet: Packet) -> Result<Self, Malformed> {
        let letter = packet.letter;
        let data = packet.data;
        let read = match letter {
            b'O' => asked(&data).map(Self::Negotiate),
            b'c' => Some(Self::Continue),
            b'a' => Some(Self::Accept),
            b'r' => Some(Self::Reject),
            b't' => Some(Self::TempFail),
            b'd' => Some(Self::Discard),
            b'y' => Some(Self::ReplyCode(only(&data))),
            b's' => Some(Self::Skip),
            b'p' => Some(Self::Progress),
            b'4' => Some(Self::Shutdown),
            b'f' => Some(Self::ConnectionFailed),
            b'h' => field(&data).map(|(name, value)| Self::AddHeader { name, value }),
            b'i' => number(&data).and_then(|(index, rest)| {
                field(rest).map(|(name, value)| Self::InsertHeader { index, name, value })
            }),
            b'm' => number(&data).and_then(|(index, rest)| {
                field(rest).map(|(name, value)| Self::ChangeHeader { index, name, value })
            }),
            b'e' => address(&data).map(|(address, parameters)| Self::ChangeSender {
                address,
                parameters,
            }),
            b'+' => Some(Self::AddRecipient {
                address: only(&data),
                parameters: Vec::new(),
            }),
            b'2' => address(&data).map(|(address, parameters)| Self::AddRecipient {
                address,
                parameters,
            }),
            b'-' => Some(Self::DeleteRecipient(only(&data))),
            b'b' => Some(Self::ReplaceBody(data)),
            b'q' => Some(Self::Quarantine(only(&data))),
            _ => None,
        };
        read.ok_or(Malformed { letter })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(letter: u8, data: &[u8]) -> Result<Reply, Malformed> {
        Reply::read(Packet {
            letter,
            data: data.to_vec(),
        })
    }

    #[test]
    fn replies_with_data() {
        assert_eq!(
            read(b'i', b"\0\0\0\x01X-A\0b\0").unwrap(),
            Reply::InsertHeader {
                index: 1,
                name: b"X-A".to_vec(),
                value: b"b".to_vec()
            }
        );
        assert_eq!(
            read(b'm', b"\0\0\0\x02X-A\0\0").unwrap(),
            Reply::ChangeHeader {
                index: 2,
                name: b"X-A".to_vec(),
                value: Vec::new()
            }
        );
        assert_eq!(
            read(b'2', b"<a@b>\0NOTIFY=NEVER\0").unwrap(),
            Reply::AddRecipient {
                address: b"<a@b>".to_vec(),
                parameters: b"NOTIFY=NEVER".to_vec()
            }
        );
        assert_eq!(
            read(b'e', b"<a@b>\0").unwrap(),
            Reply::ChangeSender {
                address: b"<a@b>".to_vec(),
                parameters: Vec::new()
            }
        );
        assert_eq!(
            read(b'b', b"a\0b").unwrap(),
            Reply::ReplaceBody(b"a\0b".to_vec())
        );
        let Reply::Negotiate(asked) =
            read(b'O', b"\0\0\0\x06\0\0\0\x01\0\0\0\0\0\0\0\x02i j\0").unwrap()
        else {
            unreachable!("an answer to an offer");
        };
        assert_eq!(asked.symbols, [(2, "i j".to_owned())]);
    }

    #[test]
    fn what_is_cut_off_is_malformed() {
        for (letter, data) in [
            (b'h', b"X-A\0b".as_slice()),
            (b'h', b"X-A"),
            (b'i', b"\0\0\x01"),
            (b'O', b"\0\0\0\x06\0\0\0\x01\0\0\0"),
            (b'O', b"\0\0\0\x06\0\0\0\x01\0\0\0\0\0\0\0\x02i j"),
            (b'?', b""),
            (b'e', b"<a@b>"),
        ] {
            assert_eq!(read(letter, data), Err(Malformed { letter }), "{data:?}");
        }
    }
}
