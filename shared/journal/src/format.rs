//! The octets of a segment. All numbers are little-endian.
//!
//! | segment header | octets | record header | octets |
//! |---|---|---|---|
//! | magic | 8 | magic | 4 |
//! | number | 8 | length of the payload | 4 |
//! | key of the checksums | 32 | id | 8 |
//! | checksum of the above | 16 | kind, version of the payload, zeros | 1, 1, 6 |
//! | | | checksum of offset, header, payload | 8 |
//!
//! The segment header stands twice, a sector apart, since without its key a segment cannot be read.

use std::fmt;

pub(crate) const SEGMENT_MAGIC: [u8; 8] = *b"PHJRNL1\n";
pub(crate) const RECORD_MAGIC: [u8; 4] = [0xf1, b'P', b'J', 0xa7];
/// Where the second copy of the segment header stands.
const COPY_AT: usize = 512;
const HEADER_LEN: usize = 64;
/// Where the first record stands.
pub(crate) const RECORDS_AT: u64 = 1024;
pub(crate) const RECORD_HEADER: usize = 32;

/// The key of a segment's checksums. It keeps what a message contains from being taken for a record.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key(pub(crate) [u8; 32]);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A message. Another of the same id takes its place.
    Put,
    /// Something happened to a message.
    Note,
    /// The message is done.
    Free,
    /// Nothing follows in this segment.
    End,
}

impl Kind {
    fn code(self) -> u8 {
        match self {
            Self::Put => 1,
            Self::Note => 2,
            Self::Free => 3,
            Self::End => 4,
        }
    }

    fn of(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Put,
            2 => Self::Note,
            3 => Self::Free,
            4 => Self::End,
            _ => return None,
        })
    }
}

/// Where a record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The segment's number.
    pub segment: u64,
    /// The record's first octet in it.
    pub offset: u32,
    /// The length of its payload.
    pub len: u32,
}

/// A record's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    pub(crate) version: u8,
    pub(crate) id: u64,
    pub(crate) len: u32,
}

/// The first [`RECORDS_AT`] octets of a segment.
pub(crate) fn segment_header(number: u64, key: &Key) -> Vec<u8> {
    let mut header = Vec::with_capacity(HEADER_LEN);
    header.extend_from_slice(&SEGMENT_MAGIC);
    header.extend_from_slice(&number.to_le_bytes());
    header.extend_from_slice(&key.0);
    let check = blake3::hash(&header);
    header.extend_from_slice(&check.as_bytes()[..16]);
    let mut whole = header.clone();
    whole.resize(COPY_AT, 0);
    whole.extend_from_slice(&header);
    whole.resize(RECORDS_AT as usize, 0);
    whole
}

/// Reads a segment's header: its number and key. `None` if both copies are bad.
pub(crate) fn read_segment_header(octets: &[u8]) -> Option<(u64, Key)> {
    [0, COPY_AT].into_iter().find_map(|at| {
        let header = octets.get(at..at + HEADER_LEN)?;
        let (head, check) = header.split_at_checked(HEADER_LEN - 16)?;
        if blake3::hash(head).as_bytes().get(..16) != Some(check) {
            return None;
        }
        let rest = head.strip_prefix(&SEGMENT_MAGIC)?;
        let (number, rest) = rest.split_first_chunk::<8>()?;
        let (key, _) = rest.split_first_chunk::<32>()?;
        Some((u64::from_le_bytes(*number), Key(*key)))
    })
}

fn checksum<'a>(
    key: &Key,
    offset: u64,
    head: &[u8],
    payload: impl IntoIterator<Item = &'a [u8]>,
) -> [u8; 8] {
    let mut hasher = blake3::Hasher::new_keyed(&key.0);
    hasher.update(&offset.to_le_bytes());
    hasher.update(head);
    for part in payload {
        hasher.update(part);
    }
    let mut check = [0; 8];
    hasher.finalize_xof().fill(&mut check);
    check
}

/// Appends a record's header to `out`.
pub(crate) fn write_header<'a>(
    out: &mut Vec<u8>,
    key: &Key,
    offset: u64,
    header: Header,
    payload: impl IntoIterator<Item = &'a [u8]>,
) {
    let start = out.len();
    out.extend_from_slice(&RECORD_MAGIC);
    out.extend_from_slice(&header.len.to_le_bytes());
    out.extend_from_slice(&header.id.to_le_bytes());
    out.extend_from_slice(&[header.kind.code(), header.version, 0, 0, 0, 0, 0, 0]);
    let check = checksum(key, offset, out.get(start..).unwrap_or_default(), payload);
    out.extend_from_slice(&check);
}

/// Reads the record that `octets` begin with; they stand at `offset` of their segment. `None` if there is no good one.
pub(crate) fn read_record<'a>(
    key: &Key,
    offset: u64,
    octets: &'a [u8],
) -> Option<(Header, &'a [u8])> {
    let (head, rest) = octets.split_first_chunk::<24>()?;
    let fields = head.strip_prefix(&RECORD_MAGIC)?;
    let (len, fields) = fields.split_first_chunk::<4>()?;
    let (id, fields) = fields.split_first_chunk::<8>()?;
    let len = u32::from_le_bytes(*len);
    let (check, rest) = rest.split_first_chunk::<8>()?;
    let payload = rest.get(..len as usize)?;
    if checksum(key, offset, head, [payload]) != *check {
        return None;
    }
    let header = Header {
        kind: Kind::of(*fields.first()?)?,
        version: *fields.get(1)?,
        id: u64::from_le_bytes(*id),
        len,
    };
    Some((header, payload))
}
