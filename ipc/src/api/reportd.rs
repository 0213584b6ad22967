//! reportd: gathers what is reported of DMARC and TLS, writes the reports that are due, and keeps those of others.

use crate::operation;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use types::{Address, Body, Octets, QueueId, TraceId};

/// What smtpd found of messages from domains that want to hear of it. Not idempotent: a batch whose answer is lost counts once or
/// not at all, which a report can bear.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Judged {
    /// At most [`Judged::MAX`].
    pub evaluations: Vec<Evaluation>,
    /// At most [`Judged::FAILURES_MAX`]; each is to be told at once (RFC 6591), if the configuration allows it at all.
    pub failures: Vec<FailedMail>,
}
operation!(Judged = 1, once -> ());

impl Judged {
    /// Evaluations of one call at most.
    pub const MAX: usize = 50;
    /// Failures of one call at most.
    pub const FAILURES_MAX: usize = 4;
}

/// Messages of one kind, as a row of an aggregate report counts them (RFC 7489 7.2).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Evaluation {
    /// Seconds since 1970 of the first of them.
    pub at: u64,
    /// How many.
    pub count: u32,
    /// The record that was found, and where.
    pub published: Published,
    /// Where reports go, and how large they may be in octets (0: no limit); those elsewhere have agreed (RFC 7489 7.1).
    pub rua: Vec<(String, u64)>,
    /// The client.
    pub source: Option<IpAddr>,
    /// What was done: `none`, `quarantine` or `reject`.
    pub disposition: String,
    /// Whether DKIM passed for a domain that aligns.
    pub dkim_aligned: bool,
    /// The same of SPF.
    pub spf_aligned: bool,
    /// Why something else was done than the record asks: type and comment.
    pub reasons: Vec<(String, String)>,
    /// The domain of the first recipient.
    pub envelope_to: String,
    /// The domain of the reverse-path; empty for the null one.
    pub envelope_from: String,
    /// The domain in From.
    pub header_from: String,
    /// Each DKIM signature: domain, selector, result, reason.
    pub dkim: Vec<(String, String, String, String)>,
    /// SPF: domain, scope (`helo` or `mfrom`), result.
    pub spf: Option<(String, String, String)>,
}

/// A DMARC record as it was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Published {
    /// The domain at which it stands.
    pub domain: String,
    /// Whether alignment of DKIM is strict.
    pub strict_dkim: bool,
    /// The same of SPF.
    pub strict_spf: bool,
    /// `none`, `quarantine` or `reject`.
    pub policy: String,
    /// The same for subdomains.
    pub subdomains: String,
    /// `fo`.
    pub failures: String,
}

/// A message that failed DMARC, for a report of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedMail {
    /// For logs.
    pub trace: TraceId,
    /// What an aggregate report says of it.
    pub evaluation: Evaluation,
    /// Where the report goes: `ruf`, those elsewhere have agreed.
    pub ruf: Vec<String>,
    /// The reverse-path; empty for the null one.
    pub mail_from: String,
    /// The header as it came, its first [`FailedMail::HEADER_MAX`] octets.
    pub header: Octets,
    /// Our Authentication-Results, without the name of the field.
    pub results: String,
}

impl FailedMail {
    /// Octets of a header at most.
    pub const HEADER_MAX: usize = 16 * 1024;
}

/// What relayd saw of TLS at domains that want to hear of it (RFC 8460). Not idempotent, as [`Judged`].
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct TlsResults {
    /// At most [`TlsResults::MAX`].
    pub results: Vec<TlsCount>,
}
operation!(TlsResults = 2, once -> ());

impl TlsResults {
    /// Results of one call at most.
    pub const MAX: usize = 50;
}

/// Sessions of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TlsCount {
    /// Seconds since 1970 of the first of them.
    pub at: u64,
    /// How many.
    pub count: u32,
    /// The domain whose mail it was.
    pub domain: String,
    /// Where its `rua` wants reports: the addresses of `mailto:`, and whole `https:` addresses.
    pub rua: Vec<String>,
    /// The policy that was in force.
    pub policy: TlsPolicy,
    /// How it went wrong; `None` if it did not.
    pub failure: Option<TlsFailure>,
}

/// A policy as reports name it (RFC 8460 4.4).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TlsPolicy {
    /// `tlsa`, `sts` or `no-policy-found`.
    pub kind: String,
    /// The domain that it is of.
    pub domain: String,
    /// Its lines, or the TLSA records.
    pub text: Vec<String>,
    /// The exchangers that an MTA-STS policy names.
    pub mx: Vec<String>,
}

/// One way in which sessions fail (RFC 8460 4.3).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TlsFailure {
    /// `certificate-expired` ...
    pub kind: String,
    /// Our address, if it is known.
    pub sending: Option<IpAddr>,
    /// The exchanger; empty if none was come to.
    pub mx: String,
    /// Its address.
    pub receiving: Option<IpAddr>,
    /// In words.
    pub reason: String,
}

/// A message for one of `reportd.addresses`. Idempotent by (id, index).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TakeReport {
    /// The message's id in the queue.
    pub id: QueueId,
    /// The recipient's index in the envelope.
    pub index: u16,
    /// For logs.
    pub trace: TraceId,
    /// Seconds since 1970.
    pub arrived: u64,
    /// The reverse-path.
    pub sender: Option<Address>,
    /// Which of the addresses.
    pub recipient: Address,
    /// Trace header fields before the body.
    pub prefix: Octets,
    /// Inline or attached.
    pub body: Body,
}
operation!(TakeReport = 3, idempotent -> TakenReport);

/// The answer to [`TakeReport`]: it is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakenReport {
    /// `dmarc`, `tls`, `arf` or `unreadable`.
    pub kind: String,
    /// In one line, for logs.
    pub about: String,
    /// Who is to get the message, too.
    pub forward: Option<Address>,
}

/// Gives the report that is due first, if any is, to be queued or posted, and then settled. Without settling, the same one is given again with
/// the same id and content: on a new connection at once, otherwise after [`DueReport::LEASE`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ClaimReport {
    /// The id under which it would be queued. A report that was claimed before keeps its first one, so that a queue that took it
    /// already knows it.
    pub queue_id: QueueId,
    /// Whether one that is to be posted may be given, too.
    pub posts: bool,
}
operation!(ClaimReport = 4, idempotent -> Option<DueReport>);

/// A report that is due. Its message comes with the reply as a descriptor, unless it is inline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DueReport {
    /// For [`SettleReport`].
    pub id: u64,
    /// For logs.
    pub trace: TraceId,
    /// The id under which it is queued.
    pub queue_id: QueueId,
    /// The reverse-path; `None` is the null one.
    pub sender: Option<Address>,
    /// Its recipients.
    pub to: Vec<Address>,
    /// All of it, header first: inline or attached.
    pub message: Body,
    /// It is to be posted there (RFC 8460 5.4) and not queued: `message` is then the report alone in gzip, and nobody is in `to`.
    pub post: Option<String>,
}

impl DueReport {
    /// Seconds for which a claimed report is not given again.
    pub const LEASE: u64 = 120;
}

/// Says what became of a claimed report. A repeated call changes nothing: only what is claimed is put off.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SettleReport {
    /// From [`DueReport`].
    pub id: u64,
    /// `None`: it is in the queue, or was posted. Otherwise why it can never be.
    pub refused: Option<String>,
    /// Why it could not be posted now; it is given again later.
    pub again: Option<String>,
}
operation!(SettleReport = 5, idempotent -> ());

/// Which reports of others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportFilter {
    /// `dmarc`, `tls`, `arf` or `unreadable`; all if empty.
    pub kind: String,
    /// About this domain; all if empty.
    pub domain: String,
    /// Taken at or after, in seconds since 1970.
    pub since: u64,
    /// Only those that tell of failures.
    pub failing: bool,
}

/// Reports of others, newest first.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReportList {
    /// Which.
    pub filter: ReportFilter,
    /// With ids below this one; 0 begins with the newest.
    pub before: u64,
    /// At most so many, up to 100.
    pub limit: u32,
}
operation!(ReportList = 10, idempotent -> Vec<ReportEntry>);

/// A report of somebody else.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportEntry {
    /// Its number here.
    pub id: u64,
    /// `dmarc`, `tls`, `arf` or `unreadable`.
    pub kind: String,
    /// Seconds since 1970 when it was taken.
    pub taken: u64,
    /// Who reports.
    pub organization: String,
    /// The address that it came from.
    pub sender: String,
    /// About whom.
    pub domain: String,
    /// Its own name.
    pub report_id: String,
    /// Seconds since 1970.
    pub begin: u64,
    /// Seconds since 1970.
    pub end: u64,
    /// Messages or sessions in order.
    pub passed: u64,
    /// Those that were not.
    pub failed: u64,
    /// In one line: for ARF the kind of feedback, for what cannot be read why.
    pub note: String,
}

/// One report of somebody else.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReportShow {
    /// From [`ReportEntry`].
    pub id: u64,
}
operation!(ReportShow = 11, idempotent -> ReportDetail);

/// The answer to [`ReportShow`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportDetail {
    /// As in the list.
    pub entry: ReportEntry,
    /// What it says besides: name and value. ARF's fields, the policy that was seen.
    pub fields: Vec<(String, String)>,
    /// The first [`ReportDetail::ROWS_MAX`] rows.
    pub rows: Vec<ReportRow>,
    /// How many there are.
    pub all_rows: u64,
    /// The header of the message that an ARF report is about, or the beginning of what could not be read.
    pub text: Octets,
}

impl ReportDetail {
    /// Rows of one answer at most.
    pub const ROWS_MAX: u32 = 200;
}

/// A row of a report; what the columns are depends on its kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ReportRow {
    /// DMARC: the address that sent. TLS: the exchanger.
    pub source: String,
    /// DMARC: the domain in From. TLS: the policy's type.
    pub identity: String,
    /// DMARC: what was done. TLS: the type of the failure, `success` without one.
    pub result: String,
    /// DMARC: whether DKIM passed and aligned. TLS: whether it went well.
    pub dkim: bool,
    /// DMARC: whether SPF passed and aligned. TLS: as `dkim`.
    pub spf: bool,
    /// DMARC: what DKIM and SPF found. TLS: more on the failure.
    pub detail: String,
    /// Messages or sessions.
    pub count: u64,
}

/// What was reported of our domains.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReportSummary {
    /// Only of this domain; all if empty.
    pub domain: String,
    /// Seconds since 1970.
    pub since: u64,
}
operation!(ReportSummary = 12, idempotent -> ReportSummaryReply);

/// The answer to [`ReportSummary`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportSummaryReply {
    /// How many reports of each kind.
    pub reports: Vec<(String, u64)>,
    /// Who reported most: organization and messages or sessions.
    pub reporters: Vec<(String, u64)>,
    /// Messages that passed DMARC, and that did not.
    pub messages: (u64, u64),
    /// Sessions with TLS in order, and not.
    pub sessions: (u64, u64),
    /// Who sends as the domain, those with most failures first.
    pub sources: Vec<SummarySource>,
    /// What fails of TLS.
    pub failures: Vec<(ReportRow, u64)>,
    /// Complaints: kind of feedback, and how many.
    pub complaints: Vec<(String, u64)>,
}

/// An address that sends as a domain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SummarySource {
    /// The address.
    pub source: String,
    /// The domain in From.
    pub identity: String,
    /// Messages that passed DMARC.
    pub passed: u64,
    /// Those that did not.
    pub failed: u64,
    /// Those of which DKIM passed and aligned.
    pub dkim: u64,
    /// Those of which SPF passed and aligned.
    pub spf: u64,
    /// Those that were refused or put aside.
    pub stopped: u64,
}

/// Reports of ours that are not sent yet: being gathered, due, or refused.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReportPending {
    /// With ids above this one.
    pub after: u64,
    /// At most so many, up to 100.
    pub limit: u32,
}
operation!(ReportPending = 13, idempotent -> Vec<PendingReport>);

/// A report of ours.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingReport {
    /// Its number.
    pub id: u64,
    /// `dmarc`, `tls` or `failure`.
    pub kind: String,
    /// To the owner of which domain.
    pub domain: String,
    /// Seconds since 1970.
    pub begin: u64,
    /// Seconds since 1970.
    pub end: u64,
    /// Seconds since 1970 when it is sent, or tried again.
    pub due: u64,
    /// Rows so far.
    pub rows: u64,
    /// Messages or sessions so far.
    pub count: u64,
    /// Where to.
    pub to: Vec<String>,
    /// `gathering`, `due`, `deferred`, `sent` or `dropped`.
    pub state: String,
    /// Why it was dropped, or could not be posted the last time.
    pub note: String,
}

/// One report of ours as it would be sent now: the XML or JSON, at most its first [`ReportPreview::MAX`] octets.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReportPreview {
    /// From [`PendingReport`].
    pub id: u64,
}
operation!(ReportPreview = 14, idempotent -> Octets);

impl ReportPreview {
    /// Octets of an answer at most.
    pub const MAX: usize = 100 * 1024;
}

/// Drops reports of ours that are not sent yet. The reply is how many, as for the next.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReportCancel {
    /// These; or
    pub ids: Vec<u64>,
    /// all of this domain; or all, if it is `*`.
    pub domain: String,
}
operation!(ReportCancel = 15, idempotent -> u64);

/// Makes reports due now, whose time is not over yet.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReportSend {
    /// These; or
    pub ids: Vec<u64>,
    /// all of this domain; or all, if it is `*`.
    pub domain: String,
}
operation!(ReportSend = 16, idempotent -> u64);
