//! Reports of ours, written out.

pub(crate) mod dmarc;
pub(crate) mod failure;
pub(crate) mod mail;
pub(crate) mod tls;

/// What every report says of itself.
#[derive(Clone, Debug)]
pub(crate) struct About<'a> {
    /// Who reports: a domain.
    pub(crate) submitter: &'a str,
    /// Our name.
    pub(crate) organization: &'a str,
    /// How we are reached.
    pub(crate) from: &'a str,
    /// More on that; may be empty.
    pub(crate) contact: &'a str,
    /// To the owner of which domain.
    pub(crate) domain: &'a str,
    /// The report's own name.
    pub(crate) report_id: &'a str,
    /// Seconds since 1970.
    pub(crate) begin: u64,
    /// Seconds since 1970, the first that is not meant.
    pub(crate) end: u64,
    /// Messages that found no row.
    pub(crate) left_out: u64,
}

/// `2026-11-29T00:00:00Z`
pub(crate) fn rfc3339(seconds: u64) -> String {
    types::moment::date_time(seconds)
}
