//! Writing a message: all of it, or its top (RFC 1939 5, RETR; 7, TOP).

use access::{Channel, Ended};
use pop3::{Stuffing, Top};

/// Writes a message, or its top.
pub(crate) struct Writer {
    stuffing: Stuffing,
    top: Option<Top>,
}

impl Writer {
    /// With `lines` only the header and so many lines of the body.
    pub(crate) fn new(lines: Option<u32>) -> Self {
        Self {
            stuffing: Stuffing::default(),
            top: lines.map(Top::new),
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.top.is_some_and(|top| top.is_done())
    }

    pub(crate) async fn write(&mut self, channel: &mut Channel, piece: &[u8]) -> Result<(), Ended> {
        let shown = match &mut self.top {
            Some(top) => top.take(piece),
            None => piece.len(),
        };
        let piece = piece.get(..shown).unwrap_or_default();
        for part in piece.chunks(64 * 1024) {
            self.stuffing.write(&mut channel.out, part);
            channel.flush_if_full().await?;
        }
        Ok(())
    }

    pub(crate) fn end(mut self, channel: &mut Channel) {
        self.stuffing.end(&mut channel.out);
    }
}

/// A message's beginning for a client that did not say UTF8.
pub(crate) struct Shown {
    /// The header in ASCII, its empty line included.
    pub(crate) header: Vec<u8>,
    /// Octets of the body's beginning that it stands for.
    pub(crate) behind: usize,
}

/// The header in ASCII, of a message of which the prefix and the body's beginning are given; `None` if it is ASCII anyway, or
/// does not end within what is given. `all`: there is no more of the body.
///
/// RFC 6856 4: without UTF8 a client gets what RFC 5322 describes. One that is refused a message (RFC 6856 5) mostly stops
/// there and fetches none of those behind it, so nothing is refused.
pub(crate) fn in_ascii(prefix: &[u8], start: &[u8], all: bool) -> Option<Shown> {
    let mut fields = message::Fields::new(start);
    // Passes the fields.
    fields.by_ref().for_each(drop);
    let rest = fields.rest();
    let end = match rest {
        [b'\r', b'\n', ..] => 2,
        [b'\n', ..] => 1,
        _ if all => 0,
        _ => return None,
    };
    let behind = start.len() - rest.len() + end;
    let header = [prefix, start.get(..behind)?].concat();
    Some(Shown {
        header: message::surrogate(&header)?,
        behind,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_the_header_is_made_ascii() {
        let prefix = b"Return-Path: <a@b.test>\r\n";
        let body = "Subject: ü\r\n\r\nübrig\r\n".as_bytes();
        let shown = in_ascii(prefix, body, true).unwrap();
        assert_eq!(
            shown.header,
            b"Return-Path: <a@b.test>\r\nSubject: =?utf-8?Q?=C3=BC?=\r\n\r\n"
        );
        assert_eq!(body.get(shown.behind..).unwrap(), "übrig\r\n".as_bytes());
        let cut = "Subject: ü\r\nTo".as_bytes();
        assert!(in_ascii(prefix, cut, false).is_none());
        assert!(in_ascii(prefix, "Subject: ü\r\n".as_bytes(), true).is_some());
        assert!(in_ascii(prefix, "Subject: u\r\n\r\nübrig".as_bytes(), true).is_none());
    }
}
