//! A message as filters see and change it: each sees what those before it have done.

use crate::config::Quarantine;
use ipc::api::hookd::{AddedRecipient, HookAddress};
use message::Fields;
use runtime::Source;
use std::fs::File;
use std::io;
use std::sync::Arc;
use types::Held;

/// Octets of a header that are looked at.
const HEADER_MAX: usize = 1 << 20;

/// A field of the header, exactly as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    /// With its line end.
    pub(crate) raw: Vec<u8>,
    /// Octets of the name; 0: it is no field at all.
    name: usize,
    /// It is one of ours, as we wrote it.
    own: bool,
}

/// A header in the parts in which it goes back.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Parts {
    /// Before our own fields.
    pub(crate) before: Vec<u8>,
    /// Our own that are left.
    pub(crate) own: Vec<u8>,
    /// All others.
    pub(crate) rest: Vec<u8>,
}

impl Field {
    fn of(raw: &[u8]) -> Self {
        let colon = raw.iter().position(|octet| matches!(octet, b':' | b'\n'));
        let name = match colon {
            Some(at) if raw.get(at) == Some(&b':') => {
                raw.get(..at).unwrap_or_default().trim_ascii_end().len()
            }
            _ => 0,
        };
        Self {
            raw: raw.to_vec(),
            name,
            own: false,
        }
    }

    /// Its name.
    pub(crate) fn name(&self) -> &[u8] {
        self.raw.get(..self.name).unwrap_or_default()
    }

    /// Its value with the blanks before it, folded as it came, without the last line end.
    pub(crate) fn value(&self) -> &[u8] {
        let colon = self.raw.iter().position(|octet| *octet == b':');
        let at = colon.filter(|_| self.name > 0).map_or(0, |colon| colon + 1);
        let value = self.raw.get(at..).unwrap_or_default();
        let value = value.strip_suffix(b"\n").unwrap_or(value);
        value.strip_suffix(b"\r").unwrap_or(value)
    }

    /// A new one. The value may have lines, which are folded; what would end the header is taken out. `None`: no name of a field
    /// (RFC 5322 2.2).
    pub(crate) fn new(name: &[u8], value: &[u8]) -> Option<Self> {
        let printable = |octet: &u8| (33..127).contains(octet) && *octet != b':';
        if name.is_empty() || !name.iter().all(printable) {
            return None;
        }
        let mut raw = name.to_vec();
        raw.push(b':');
        if !matches!(value.first(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            raw.push(b' ');
        }
        let lines = value.split(|octet| *octet == b'\n');
        for (at, line) in lines
            .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
            // A line of blanks would end the header for some who read it.
            .filter(|line| {
                !line
                    .iter()
                    .all(|octet| octet.is_ascii_whitespace() || *octet == 0)
            })
            .enumerate()
        {
            if at > 0 {
                raw.extend_from_slice(b"\r\n");
                if !matches!(line.first(), Some(b' ' | b'\t')) {
                    raw.push(b'\t');
                }
            }
            raw.extend(line.iter().filter(|octet| !matches!(octet, b'\r' | 0)));
        }
        raw.extend_from_slice(b"\r\n");
        Some(Self {
            name: name.len(),
            raw,
            own: false,
        })
    }

    fn is(&self, name: &[u8]) -> bool {
        self.name > 0 && self.name().eq_ignore_ascii_case(name)
    }
}

/// The message, its envelope, and what has become of them.
#[derive(Clone, Debug)]
pub(crate) struct Letter {
    /// The header.
    pub(crate) fields: Vec<Field>,
    /// Fields that were put before all others; only they are new unless `rewritten`.
    before: usize,
    rewritten: bool,
    /// Where the text begins in the message as it came.
    pub(crate) body_at: u64,
    /// The text behind the header.
    pub(crate) text: Source,
    /// It is a new one.
    pub(crate) new_text: bool,
    /// The reverse-path.
    pub(crate) sender: HookAddress,
    /// It is a new one.
    pub(crate) new_sender: bool,
    /// The recipients.
    pub(crate) recipients: Vec<HookAddress>,
    /// Those who are none any more.
    pub(crate) removed: Vec<String>,
    /// New ones.
    pub(crate) added: Vec<AddedRecipient>,
    /// The first filter that wants it in Junk, and why.
    pub(crate) quarantine: Option<(String, String)>,
    /// The first filter that wants it held, and why.
    pub(crate) held: Option<Held>,
}

/// What filters want changed, in the order in which it is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Add(Vec<u8>, Vec<u8>),
    Insert(usize, Vec<u8>, Vec<u8>),
    /// The n-th of that name, from 1; removed if the value is empty.
    Replace(usize, Vec<u8>, Vec<u8>),
    Sender(String, Vec<String>),
    AddRecipient(String, String),
    DeleteRecipient(String),
    Text(Vec<u8>),
    Header(Vec<u8>),
    /// The reason, and where it is kept, if the filter's setting does not say that.
    Quarantine(String, Option<Quarantine>),
}

/// Who wants it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Author<'a> {
    /// The filter's name.
    pub(crate) filter: &'a str,
    /// As its setting says.
    pub(crate) may_relay: bool,
    /// As its setting says.
    pub(crate) quarantine: Quarantine,
}

impl Letter {
    /// Of a message in memory. `own` are fields before it.
    pub(crate) fn inline(own: &[u8], message: Vec<u8>) -> Self {
        let (fields, at) = read_header(own, &message);
        let text = message.get(at..).unwrap_or_default().to_vec();
        Self::new(fields, at, text.into())
    }

    /// Of a message in a file of that length.
    ///
    /// # Errors
    /// It cannot be read, or its header has no end.
    pub(crate) async fn attached(own: &[u8], file: File, len: u64) -> io::Result<Self> {
        let file = Arc::new(file);
        let most = usize::try_from(len).unwrap_or(HEADER_MAX).min(HEADER_MAX);
        let head = Source::File {
            file: Arc::clone(&file),
            start: 0,
            len: most as u64,
        };
        let head = head.whole().await?;
        let (fields, at) = read_header(own, &head);
        if at == most && (most as u64) < len {
            return Err(io::Error::other("the header is too large"));
        }
        let text = Source::File {
            file,
            start: at as u64,
            len: len - at as u64,
        };
        Ok(Self::new(fields, at, text))
    }

    fn new(fields: Vec<Field>, body_at: usize, text: Source) -> Self {
        Self {
            fields,
            before: 0,
            rewritten: false,
            body_at: body_at as u64,
            text,
            new_text: false,
            sender: HookAddress::default(),
            new_sender: false,
            recipients: Vec::new(),
            removed: Vec::new(),
            added: Vec::new(),
            quarantine: None,
            held: None,
        }
    }

    /// The header as octets, without the empty line.
    pub(crate) fn header(&self) -> Vec<u8> {
        self.fields.concat_raw()
    }

    /// New fields before all others, if nothing else of the header is new; `Err`: there is more.
    pub(crate) fn only_before(&self) -> Result<Vec<u8>, ()> {
        if self.rewritten {
            return Err(());
        }
        Ok(self
            .fields
            .get(..self.before)
            .unwrap_or_default()
            .concat_raw())
    }

    /// Whether its header or text is not as it came.
    pub(crate) fn is_changed(&self) -> bool {
        self.rewritten || self.before > 0 || self.new_text
    }

    /// Octets of it as it stands now.
    pub(crate) fn size(&self) -> u64 {
        let header: usize = self.fields.iter().map(|field| field.raw.len()).sum();
        header as u64 + 2 + self.text.len()
    }

    /// Does what a filter wants.
    pub(crate) fn apply(&mut self, change: Change, by: Author<'_>) {
        match change {
            Change::Add(name, value) => {
                if let Some(field) = named(&name, &value, by) {
                    self.rewritten = true;
                    self.fields.push(field);
                }
            }
            Change::Insert(index, name, value) => self.insert(index, &name, &value, by),
            Change::Replace(index, name, value) => self.replace(index, &name, &value, by),
            Change::Sender(address, parameters) => {
                self.sender.address = address;
                self.sender.parameters = parameters;
                self.new_sender = true;
            }
            Change::AddRecipient(address, parameters) => {
                self.add_recipient(address, parameters, by);
            }
            Change::DeleteRecipient(address) => self.delete_recipient(&address),
            Change::Text(octets) => {
                self.text = octets.into();
                self.new_text = true;
            }
            Change::Header(octets) => self.new_header(&octets),
            Change::Quarantine(reason, place) => match place.unwrap_or(by.quarantine) {
                Quarantine::Junk => {
                    self.quarantine
                        .get_or_insert_with(|| (by.filter.to_owned(), reason));
                }
                Quarantine::Hold => {
                    self.held
                        .get_or_insert_with(|| Held::new(by.filter, &reason));
                }
            },
        }
    }

    /// Those of ours that are in it again stay ours.
    fn new_header(&mut self, octets: &[u8]) {
        let mut own: Vec<Field> = std::mem::take(&mut self.fields);
        own.retain(|field| field.own);
        for field in Fields::new(octets) {
            let mut field = Field::of(field.raw);
            if let Some(at) = own.iter().position(|one| one.raw == field.raw) {
                field = own.swap_remove(at);
            }
            self.fields.push(field);
        }
        self.rewritten = true;
    }

    /// The header in parts. Our own fields stand together, behind what was put before the first of them.
    pub(crate) fn parts(&self) -> Parts {
        let first = self.fields.iter().position(|field| field.own);
        let (before, others) = self
            .fields
            .split_at_checked(first.unwrap_or(0))
            .unwrap_or_default();
        let (own, rest): (Vec<Field>, Vec<Field>) =
            others.iter().cloned().partition(|field| field.own);
        Parts {
            before: before.concat_raw(),
            own: own.concat_raw(),
            rest: rest.concat_raw(),
        }
    }

    /// 0 and 1 are both before the first field that filters see: our Received stands before them all.
    fn insert(&mut self, index: usize, name: &[u8], value: &[u8], by: Author<'_>) {
        let Some(field) = named(name, value, by) else {
            return;
        };
        let at = index.saturating_sub(1).min(self.fields.len());
        if at <= self.before {
            self.before += 1;
        } else {
            self.rewritten = true;
        }
        self.fields.insert(at, field);
    }

    fn replace(&mut self, index: usize, name: &[u8], value: &[u8], by: Author<'_>) {
        let found = (self.fields.iter().enumerate())
            .filter(|(_, field)| field.is(name))
            .map(|(at, _)| at)
            .nth(index.saturating_sub(1));
        self.rewritten = true;
        match (found, value.is_empty()) {
            (Some(at), true) => drop(self.fields.remove(at)),
            (Some(at), false) => {
                if let Some(place) = self.fields.get_mut(at)
                    && let Some(field) = named(name, value, by)
                {
                    *place = field;
                }
            }
            (None, true) => {}
            // One that is not there is added.
            (None, false) => self.fields.extend(named(name, value, by)),
        }
    }

    fn add_recipient(&mut self, address: String, parameters: String, by: Author<'_>) {
        let known = self
            .recipients
            .iter()
            .any(|one| same(&one.address, &address));
        if known {
            return;
        }
        self.removed.retain(|gone| !same(gone, &address));
        if self.added.len() >= ipc::api::hookd::HookOutcome::MAX_ADDED {
            tracing::warn!(filter = by.filter, "a filter adds too many recipients");
            return;
        }
        self.recipients.push(HookAddress {
            address: address.clone(),
            parameters: parameters
                .split(' ')
                .filter(|one| !one.is_empty())
                .map(str::to_owned)
                .collect(),
            remote: false,
        });
        self.added.push(AddedRecipient {
            filter: by.filter.to_owned(),
            address,
            parameters,
            may_relay: by.may_relay,
        });
    }

    fn delete_recipient(&mut self, address: &str) {
        self.recipients.retain(|one| !same(&one.address, address));
        let before = self.added.len();
        self.added.retain(|one| !same(&one.address, address));
        if self.added.len() == before {
            self.removed.push(address.to_owned());
        }
    }
}

/// The domain in any case; the local part as it is, for only its host knows what case means there.
pub(crate) fn same(one: &str, other: &str) -> bool {
    match (one.rsplit_once('@'), other.rsplit_once('@')) {
        (Some((local, domain)), Some((second, of))) => {
            local == second && domain.eq_ignore_ascii_case(of)
        }
        _ => one == other,
    }
}

fn named(name: &[u8], value: &[u8], by: Author<'_>) -> Option<Field> {
    let field = Field::new(name, value);
    if field.is_none() {
        tracing::warn!(
            filter = by.filter,
            "a filter writes a field whose name is none"
        );
    }
    field
}

/// The fields of both, and where the text begins in `message`.
fn read_header(own: &[u8], message: &[u8]) -> (Vec<Field>, usize) {
    let mut fields: Vec<Field> = Fields::new(own)
        .map(|field| Field {
            own: true,
            ..Field::of(field.raw)
        })
        .collect();
    let mut header = Fields::new(message);
    for field in header.by_ref() {
        fields.push(Field::of(field.raw));
    }
    let rest = header.rest();
    let empty = if rest.starts_with(b"\r\n") {
        2
    } else {
        usize::from(rest.starts_with(b"\n"))
    };
    (fields, message.len() - rest.len() + empty)
}

trait Raw {
    fn concat_raw(&self) -> Vec<u8>;
}

impl Raw for [Field] {
    fn concat_raw(&self) -> Vec<u8> {
        let mut all = Vec::new();
        for field in self {
            all.extend_from_slice(&field.raw);
            if !field.raw.ends_with(b"\n") {
                all.extend_from_slice(b"\r\n");
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const BY: Author<'static> = Author {
        filter: "f",
        may_relay: false,
        quarantine: Quarantine::Junk,
    };

    fn letter() -> Letter {
        Letter::inline(
            b"Authentication-Results: us; none\r\n",
            b"From: a@b.example\r\nX-A: 1\r\nx-a:2\r\n  more\r\n\r\ntext\r\n".to_vec(),
        )
    }

    fn header(letter: &Letter) -> String {
        String::from_utf8(letter.header()).unwrap()
    }

    #[tokio::test]
    async fn a_message_is_cut_apart_where_its_header_ends() {
        let letter = letter();
        assert_eq!(letter.fields.len(), 4);
        assert_eq!(letter.fields[3].name(), b"x-a");
        assert_eq!(letter.fields[3].value(), b"2\r\n  more");
        assert_eq!(letter.text.whole().await.unwrap(), b"text\r\n");
        assert_eq!(letter.only_before(), Ok(Vec::new()));
        let none = Letter::inline(b"", b"\r\ntext".to_vec());
        assert!(none.fields.is_empty() && none.text.len() == 4 && none.body_at == 2);
        let all = Letter::inline(b"", b"Subject: x".to_vec());
        assert_eq!((all.fields.len(), all.text.len(), all.body_at), (1, 0, 10));
        assert_eq!(all.header(), b"Subject: x\r\n");
    }

    #[test]
    fn fields_are_put_before_others() {
        let mut one = letter();
        one.apply(Change::Insert(0, b"X-1".to_vec(), b"a".to_vec()), BY);
        one.apply(Change::Insert(1, b"X-2".to_vec(), b"b\nc".to_vec()), BY);
        assert_eq!(
            one.only_before().unwrap(),
            b"X-2: b\r\n\tc\r\nX-1: a\r\n".to_vec()
        );
        one.apply(Change::Insert(5, b"X-3".to_vec(), b"d".to_vec()), BY);
        assert!(one.only_before().is_err());
        assert!(header(&one).contains("From: a@b.example\r\nX-3: d\r\nX-A: 1\r\n"));
        one.apply(Change::Insert(500, b"X-4".to_vec(), b" e".to_vec()), BY);
        one.apply(Change::Add(b"X-5".to_vec(), b"f".to_vec()), BY);
        assert!(header(&one).ends_with("  more\r\nX-4: e\r\nX-5: f\r\n"));
    }

    #[test]
    fn our_own_fields_are_told_apart() {
        let mut one = letter();
        one.apply(Change::Insert(1, b"X-1".to_vec(), b"a".to_vec()), BY);
        one.apply(Change::Add(b"X-2".to_vec(), b"b".to_vec()), BY);
        let parts = one.parts();
        assert_eq!(parts.before, b"X-1: a\r\n");
        assert_eq!(parts.own, b"Authentication-Results: us; none\r\n");
        assert!(parts.rest.starts_with(b"From: ") && parts.rest.ends_with(b"X-2: b\r\n"));
        // A script gives the header back as a whole.
        let again = one.header();
        one.apply(Change::Header(again), BY);
        assert_eq!(one.parts(), parts);
        let forged = b"Authentication-Results".to_vec();
        one.apply(Change::Replace(1, forged, b"us; dkim=pass".to_vec()), BY);
        let parts = one.parts();
        assert!(parts.own.is_empty() && parts.before.is_empty());
        assert!(
            parts
                .rest
                .starts_with(b"X-1: a\r\nAuthentication-Results: us; dkim=pass\r\n")
        );
    }

    #[test]
    fn fields_are_changed_and_removed_by_number() {
        let mut one = letter();
        one.apply(Change::Replace(2, b"X-A".to_vec(), b"new".to_vec()), BY);
        assert!(header(&one).ends_with("X-A: 1\r\nX-A: new\r\n"));
        one.apply(Change::Replace(1, b"x-a".to_vec(), Vec::new()), BY);
        assert!(header(&one).ends_with("From: a@b.example\r\nX-A: new\r\n"));
        one.apply(Change::Replace(9, b"x-a".to_vec(), Vec::new()), BY);
        one.apply(Change::Replace(1, b"X-B".to_vec(), b"added".to_vec()), BY);
        assert!(header(&one).ends_with("X-A: new\r\nX-B: added\r\n"));
    }

    #[test]
    fn the_first_in_each_place_counts() {
        let holding = Author {
            filter: "h",
            quarantine: Quarantine::Hold,
            ..BY
        };
        let mut one = letter();
        for (reason, place, by) in [
            ("a", None, BY),
            ("b", Some(Quarantine::Hold), BY),
            ("c", None, holding),
            ("d", Some(Quarantine::Junk), holding),
        ] {
            one.apply(Change::Quarantine(reason.to_owned(), place), by);
        }
        assert_eq!(one.quarantine, Some(("f".to_owned(), "a".to_owned())));
        assert_eq!(one.held, Some(Held::new("f", "b")));
        let mut other = letter();
        other.apply(Change::Quarantine("e\r\nf".repeat(200), None), holding);
        let held = other.held.unwrap();
        assert!(other.quarantine.is_none() && held.fits() && held.reason.starts_with("e  fe"));
    }

    #[test]
    fn a_value_cannot_end_the_header() {
        let field = Field::new(b"X-A", b"a\r\n\r\nb\rc\nSubject: d").unwrap();
        assert_eq!(field.raw, b"X-A: a\r\n\tbc\r\n\tSubject: d\r\n");
        for name in [b"".as_slice(), b"a b", b"a:b", b"a\r\nb", b"\xfc"] {
            assert_eq!(Field::new(name, b"x"), None);
        }
    }

    #[test]
    fn recipients_come_and_go() {
        let mut one = letter();
        one.recipients = vec![HookAddress {
            address: "a@b.example".to_owned(),
            ..HookAddress::default()
        }];
        one.apply(
            Change::AddRecipient("a@B.example".to_owned(), String::new()),
            BY,
        );
        assert!(one.added.is_empty());
        one.apply(
            Change::AddRecipient("c@b.example".to_owned(), String::new()),
            BY,
        );
        one.apply(Change::DeleteRecipient("c@b.example".to_owned()), BY);
        one.apply(Change::DeleteRecipient("a@b.example".to_owned()), BY);
        assert!(one.added.is_empty() && one.recipients.is_empty());
        assert_eq!(one.removed, ["a@b.example"]);
    }
}
