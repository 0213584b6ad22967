//! URLs of messages (RFC 5092), as CATENATE takes them: those that mean something in the same session.

use crate::command::{Partial, Section};
use crate::cursor::Cursor;
use crate::{Names, mailbox, number};

/// `/mailbox;UIDVALIDITY=1/;UID=2/;SECTION=1.2/;PARTIAL=0.1024`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageUrl {
    /// The mailbox, in Unicode; `None`: the selected one.
    pub mailbox: Option<String>,
    /// The UIDVALIDITY that the mailbox must have, if one is named.
    pub uidvalidity: Option<u32>,
    /// The message.
    pub uid: u32,
    /// The part of it; the whole message if `path` is empty and `text` is the content.
    pub section: Section,
    /// The octets of it.
    pub partial: Option<Partial>,
}

impl MessageUrl {
    /// Reads a URL without scheme and server: an absolute path, or a relative one that begins with `;UID=` or `/;UID=`.
    /// `None` if it is anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let (front, rest) = split(text, ";UID=")?;
        let front = front.strip_suffix('/').unwrap_or(front);
        let (mailbox, uidvalidity) = match split(front, ";UIDVALIDITY=") {
            Some((name, digits)) => (name, Some(positive(digits)?)),
            None => (front, None),
        };
        let mailbox = match mailbox.strip_prefix('/') {
            Some(name) => {
                let name = percent_decoded(name)?;
                Some(mailbox::decode(&name, Names::Utf8).ok()?)
            }
            None if mailbox.is_empty() && uidvalidity.is_none() => None,
            None => return None,
        };
        let (rest, partial) = match split(rest, "/;PARTIAL=") {
            Some((rest, range)) => (rest, Some(partial(range)?)),
            None => (rest, None),
        };
        let (uid, section) = match split(rest, "/;SECTION=") {
            Some((uid, section)) => (uid, percent_decoded(section)?),
            None => (rest, Vec::new()),
        };
        let section = [b"[", section.as_slice(), b"]"].concat();
        let mut cursor = Cursor::new(&section, Names::Utf8);
        let section = Section::parse(&mut cursor).ok()?;
        cursor.is_empty().then_some(Self {
            mailbox,
            uidvalidity,
            uid: positive(uid)?,
            section,
            partial,
        })
    }
}

/// Splits at a keyword in any case.
fn split<'t>(text: &'t str, keyword: &str) -> Option<(&'t str, &'t str)> {
    let at = text
        .as_bytes()
        .windows(keyword.len())
        .position(|window| window.eq_ignore_ascii_case(keyword.as_bytes()))?;
    Some((text.get(..at)?, text.get(at + keyword.len()..)?))
}

fn positive(digits: &str) -> Option<u32> {
    let number = u32::try_from(number::read(digits.as_bytes())?).ok()?;
    (number > 0).then_some(number)
}

/// RFC 5092 11: `offset` or `offset.length`.
fn partial(range: &str) -> Option<Partial> {
    let (first, count) = match range.split_once('.') {
        Some((first, count)) => (first, number::read(count.as_bytes()).filter(|n| *n > 0)?),
        None => (range, u64::MAX),
    };
    let first = number::read(first.as_bytes())?;
    Some(Partial { first, count })
}

fn percent_decoded(text: &str) -> Option<Vec<u8>> {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(octet) = rest.next() {
        if octet != b'%' {
            octets.push(octet);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        let value = digit()? * 16 + digit()?;
        octets.push(u8::try_from(value).ok()?);
    }
    Some(octets)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::SectionText;

    #[test]
    fn urls_of_messages() {
        // RFC 4469 5
        let url = "/Drafts;UIDVALIDITY=385759045/;UID=20/;section=HEADER";
        let read = MessageUrl::parse(url).unwrap();
        assert_eq!(read.mailbox.as_deref(), Some("Drafts"));
        assert_eq!((read.uidvalidity, read.uid), (Some(385_759_045), 20));
        assert_eq!(read.section.text, SectionText::Header);
        assert_eq!(read.partial, None);

        let url = "/%E2%98%83/Sub%20folder/;uid=7/;SECTION=1.2.mime/;PARTIAL=10.20";
        let read = MessageUrl::parse(url).unwrap();
        assert_eq!(read.mailbox.as_deref(), Some("☃/Sub folder"));
        assert_eq!(read.section.path, [1, 2]);
        let range = |first, count| Some(Partial { first, count });
        assert_eq!(read.partial, range(10, 20));

        let read = MessageUrl::parse(";UID=3/;PARTIAL=5").unwrap();
        assert_eq!((read.mailbox, read.partial), (None, range(5, u64::MAX)));
        let read = MessageUrl::parse("/inbox/;UID=3").unwrap();
        assert_eq!(read.mailbox.as_deref(), Some("INBOX"));
        let fields = "/x/;UID=1/;SECTION=HEADER.FIELDS%20(SUBJECT%20DATE)";
        let read = MessageUrl::parse(fields).unwrap();
        assert!(
            matches!(read.section.text, SectionText::Fields { ref names, .. } if names.len() == 2)
        );
    }

    #[test]
    fn other_urls() {
        for url in [
            "",
            "/INBOX",
            "INBOX/;UID=1",
            "imap://mail.example.org/INBOX/;UID=1",
            "/INBOX/;UID=0",
            "/INBOX/;UID=x",
            "/INBOX;UIDVALIDITY=0/;UID=1",
            ";UIDVALIDITY=5/;UID=1",
            "/INBOX/;UID=1/;SECTION=WHAT",
            "/INBOX/;UID=1/;SECTION=1]2",
            "/INBOX/;UID=1/;PARTIAL=1.0",
            "/IN%BOX/;UID=1",
            "/%ff/;UID=1",
        ] {
            assert_eq!(MessageUrl::parse(url), None, "{url}");
        }
    }
}
