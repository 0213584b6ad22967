//! Reading a segment that may be damaged. Octets in, records out.

use crate::format::{self, Header, Key, Kind, RECORD_HEADER, RECORD_MAGIC, RECORDS_AT};

/// Octets of a segment that are no good record, although good ones follow (or nothing that could be read at all).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The segment's number.
    pub segment: u64,
    /// The first bad octet.
    pub offset: u64,
    /// How many.
    pub len: u64,
}

/// A record found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    pub(crate) offset: u64,
    pub(crate) header: Header,
}

/// What a segment contains.
#[derive(Debug)]
pub(crate) struct Scanned {
    pub(crate) number: u64,
    pub(crate) key: Key,
    pub(crate) records: Vec<Found>,
    pub(crate) damage: Vec<Damage>,
    /// Where the next record would stand.
    pub(crate) end: u64,
    /// Whether it was closed in good order.
    pub(crate) sealed: bool,
    /// Whether something follows the end that is not zeros: a batch that was not finished.
    pub(crate) torn: bool,
}

/// Scans a segment. `None` if its header cannot be read. `expected` is the number that its name says.
pub(crate) fn scan(octets: &[u8], expected: u64) -> Option<Scanned> {
    let (number, key) = format::read_segment_header(octets)?;
    if number != expected {
        return None;
    }
    let mut scanned = Scanned {
        number,
        key,
        records: Vec::new(),
        damage: Vec::new(),
        end: RECORDS_AT,
        sealed: false,
        torn: false,
    };
    let mut at = RECORDS_AT as usize;
    while let Some(rest) = octets.get(at..) {
        match format::read_record(&key, at as u64, rest) {
            Some((header, payload)) => {
                if header.kind == Kind::End {
                    scanned.sealed = true;
                    break;
                }
                scanned.records.push(Found {
                    offset: at as u64,
                    header,
                });
                at += RECORD_HEADER + payload.len();
            }
            None => match resync(&key, octets, at + 1) {
                Some(next) => {
                    scanned.damage.push(Damage {
                        segment: number,
                        offset: at as u64,
                        len: (next - at) as u64,
                    });
                    at = next;
                }
                None => {
                    scanned.torn = rest.iter().take(RECORD_HEADER).any(|octet| *octet != 0);
                    break;
                }
            },
        }
    }
    scanned.end = at as u64;
    Some(scanned)
}

/// The next good record from `from` on.
fn resync(key: &Key, octets: &[u8], from: usize) -> Option<usize> {
    let finder = memchr::memmem::Finder::new(&RECORD_MAGIC);
    let rest = octets.get(from..)?;
    finder.find_iter(rest).map(|at| from + at).find(|at| {
        octets
            .get(*at..)
            .is_some_and(|rest| format::read_record(key, *at as u64, rest).is_some())
    })
}
