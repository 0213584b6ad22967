//! Answers that are proved by signatures (DNSSEC, RFC 4033 to 4035, RFC 5155), or known to be unsigned, or worth nothing.
//!
//! The name servers are asked for signatures, and not believed: the chain from a trust anchor down to the answer is checked
//! here. A server that leaves the signatures out, or changes what they cover, makes an answer [`Unknown::Bogus`], never
//! [`Proven::Secure`].

use crate::sieve::Sieved;
use crate::{ATTEMPTS, NEGATIVE_MAX, POSITIVE_MAX, builder_over, fqdn};
use hickory_resolver::Resolver;
use hickory_resolver::config::ResolveHosts;
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::{DnsError, NetError, NoRecords};
use hickory_resolver::proto::dnssec::rdata::DNSSECRData;
use hickory_resolver::proto::dnssec::{Proof, TrustAnchors};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::str::FromStr as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Answers "there is none" that are remembered at most.
const NEGATIVES: usize = 4096;
/// Questions that one connection to a name server may have open: a chain of signatures asks for many at once.
const ACTIVE: usize = 1024;
/// Aliases that are followed in one answer.
const ALIASES: usize = 8;

/// What the signatures say of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Proven {
    /// Every record on the way to it is signed, up to a trust anchor.
    Secure,
    /// It is proved that it, or an alias before it, is in a zone without signatures.
    Insecure,
}

/// Why there is no answer to go by (RFC 7672 2.1.1): ask again later.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// It should be signed, and is not, or wrongly: a mistake, or somebody on the way.
    #[error("DNSSEC validation failed: {0}")]
    Bogus(String),
    /// No server answered, or only that it failed.
    #[error("{0}")]
    NoAnswer(String),
    /// The server answers, and not such questions.
    #[error("{0}")]
    Refused(String),
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What the name, or the one that it is an alias of, has of this kind; empty if there is none for sure.
    pub data: Vec<RData>,
    /// Whether the name is there at all.
    pub exists: bool,
    /// What the signatures say. With records: of all of them, the aliases on the way too.
    pub proven: Proven,
    /// Of an answer without records: whether that was proved, be it only that the zone is unsigned. A server that says
    /// "none" and nothing else proves nothing.
    pub denial_proven: bool,
    /// The name that the records stand at, in lower case and without final dot.
    pub name: String,
    /// What the signatures say of the first step: of the alias if the name is one, else of the records.
    pub first: Proven,
}

/// A resolver that checks signatures.
pub struct Validating {
    resolver: Resolver<Sieved>,
    /// The zones that trust begins at.
    anchors: Vec<Name>,
    patience: Duration,
    negatives: Mutex<HashMap<(Name, RecordType), (Instant, Found)>>,
}

impl Validating {
    /// Asks these servers, or the system's, as [`crate::resolver`] does. `anchors` is a file of DNSKEY records; without one the
    /// keys of the root zone that are built in count.
    ///
    /// # Errors
    /// A file that cannot be read or holds no key; settings that no resolver can be made of.
    pub fn new(
        nameservers: &[SocketAddr],
        timeout: Duration,
        anchors: Option<&Path>,
    ) -> Result<Self, String> {
        let mut builder = builder_over(nameservers, Sieved::default());
        let timeout = timeout.max(Duration::from_secs(1));
        let options = builder.options_mut();
        options.timeout = timeout;
        options.attempts = ATTEMPTS;
        options.positive_max_ttl = Some(POSITIVE_MAX);
        options.negative_max_ttl = Some(NEGATIVE_MAX);
        options.validate = true;
        options.edns0 = true;
        // An alias is part of the proof.
        options.preserve_intermediates = true;
        options.use_hosts_file = ResolveHosts::Never;
        options.max_active_requests = ACTIVE;
        let (keys, anchors) = match anchors {
            Some(path) => read_anchors(path)?,
            None => (TrustAnchors::default(), vec![Name::root()]),
        };
        let resolver = builder
            .with_trust_anchor(Arc::new(keys))
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self {
            resolver,
            anchors,
            // A chain is several questions one after the other.
            patience: timeout * 6,
            negatives: Mutex::default(),
        })
    }

    /// Whether the name servers give what is needed: the zone that trust begins at must prove itself.
    ///
    /// # Errors
    /// [`Unknown::Bogus`] if they leave the signatures out, or the trust anchor is not the zone's; [`Unknown::Refused`] if they
    /// are servers of some zones only; [`Unknown::NoAnswer`] if that cannot be known now.
    pub async fn works(&self) -> Result<(), Unknown> {
        let mut last = Unknown::Bogus("there is no trust anchor".to_owned());
        for anchor in &self.anchors {
            match self.ask(anchor.clone(), RecordType::SOA).await {
                Ok(found) if found.proven == Proven::Secure => return Ok(()),
                Ok(_) => {
                    last = Unknown::Bogus(format!("the zone {anchor} is not signed"));
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Asks for records.
    ///
    /// # Errors
    /// If there is no answer, or one that is worth nothing.
    pub async fn lookup(&self, name: &str, kind: RecordType) -> Result<Found, Unknown> {
        let name = Name::from_str(&fqdn(name))
            .or_else(|_| Name::from_utf8(fqdn(name)))
            .map_err(|error| Unknown::NoAnswer(format!("{name}: {error}")))?;
        self.ask(name, kind).await
    }

    async fn ask(&self, name: Name, kind: RecordType) -> Result<Found, Unknown> {
        let key = (name.clone(), kind);
        if let Some((until, found)) = self.negatives().get(&key)
            && *until > Instant::now()
        {
            return Ok(found.clone());
        }
        let asked = self.resolver.lookup(name.clone(), kind);
        let answer = tokio::time::timeout(self.patience, asked)
            .await
            .map_err(|_| Unknown::NoAnswer(format!("no answer for {name} {kind} in time")))?;
        let found = match answer {
            Ok(lookup) => read(&name, kind, &lookup)?,
            Err(error) => denial(&name, error)?,
        };
        if found.data.is_empty() {
            self.remember(key, &found);
        }
        Ok(found)
    }

    fn negatives(&self) -> MutexGuard<'_, HashMap<(Name, RecordType), (Instant, Found)>> {
        self.negatives
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, key: (Name, RecordType), found: &Found) {
        let now = Instant::now();
        let mut negatives = self.negatives();
        if negatives.len() >= NEGATIVES {
            negatives.retain(|_, (until, _)| *until > now);
        }
        if negatives.len() >= NEGATIVES {
            negatives.clear();
        }
        negatives.insert(key, (now + NEGATIVE_MAX, found.clone()));
    }
}

/// The keys of a file in zone file format, and the zones that they are of.
fn read_anchors(path: &Path) -> Result<(TrustAnchors, Vec<Name>), String> {
    let failed = |error: String| format!("trust anchors {}: {error}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    let keys = TrustAnchors::from_str(&text).map_err(|error| failed(error.to_string()))?;
    let mut zones: Vec<Name> = text
        .lines()
        .filter(|line| !line.starts_with([';', ' ', '\t']))
        .filter_map(|line| line.split_whitespace().next())
        .filter_map(|owner| Name::from_str(&fqdn(owner)).ok())
        .collect();
    zones.dedup();
    if zones.is_empty() {
        return Err(failed("it holds no DNSKEY record".to_owned()));
    }
    Ok((keys, zones))
}

fn text(name: &Name) -> String {
    name.to_ascii().trim_end_matches('.').to_ascii_lowercase()
}

fn of(record: &Record) -> Proven {
    if record.proof == Proof::Secure {
        Proven::Secure
    } else {
        Proven::Insecure
    }
}

/// Goes along the aliases from the name that was asked for. What does not hang together with it counts as unsigned.
fn read(name: &Name, kind: RecordType, lookup: &Lookup) -> Result<Found, Unknown> {
    let answers = lookup.answers();
    if answers.iter().any(|record| record.proof == Proof::Bogus) {
        return Err(Unknown::Bogus(format!("{name} {kind}")));
    }
    let mut at = name.clone();
    let mut first = None;
    let mut proven = Proven::Secure;
    for _ in 0..ALIASES {
        let alias = answers.iter().find_map(|record| match &record.data {
            RData::CNAME(target) if record.name == at => Some((of(record), target.0.clone())),
            _ => None,
        });
        let Some((step, target)) = alias else {
            break;
        };
        first.get_or_insert(step);
        if step == Proven::Insecure {
            proven = Proven::Insecure;
        }
        at = target;
    }
    let mut records: Vec<&Record> = answers
        .iter()
        .filter(|record| record.record_type() == kind && record.name == at)
        .collect();
    if records.is_empty() {
        // The aliases before are not in the answer when the cache knew what they lead to.
        records = answers
            .iter()
            .filter(|record| record.record_type() == kind)
            .collect();
        proven = Proven::Insecure;
        if let Some(record) = records.first() {
            at = record.name.clone();
        }
    }
    if records.iter().any(|record| of(record) == Proven::Insecure) {
        proven = Proven::Insecure;
    }
    Ok(Found {
        data: records.iter().map(|record| record.data.clone()).collect(),
        exists: true,
        proven,
        denial_proven: false,
        name: text(&at),
        first: first.unwrap_or(proven),
    })
}

/// That there is nothing, and how well that is proved.
fn denial(name: &Name, error: NetError) -> Result<Found, Unknown> {
    let nothing = |name: &Name, exists, proven, denial_proven| Found {
        data: Vec::new(),
        exists,
        proven,
        denial_proven,
        name: text(name),
        first: proven,
    };
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => {
            let exists = none.response_code != ResponseCode::NXDomain;
            let (proven, denial_proven) = judge(&none)?;
            Ok(nothing(name, exists, proven, denial_proven))
        }
        // An opt-out span, or more iterations than are worth the work (RFC 5155 6, RFC 9276 3.2): unsigned as far as one can
        // know.
        NetError::Dns(DnsError::Nsec {
            proof: Proof::Insecure,
            response,
            ..
        }) => {
            let exists = response.metadata.response_code != ResponseCode::NXDomain;
            Ok(nothing(name, exists, Proven::Insecure, true))
        }
        NetError::Dns(error @ (DnsError::Nsec { .. } | DnsError::DnssecBogus)) => {
            Err(Unknown::Bogus(format!("{name}: {error}")))
        }
        NetError::Dns(DnsError::ResponseCode(
            code @ (ResponseCode::Refused | ResponseCode::NotImp | ResponseCode::FormErr),
        )) => Err(Unknown::Refused(format!("{name}: {code}"))),
        other => Err(Unknown::NoAnswer(other.to_string())),
    }
}

/// The resolver lets a denial pass if all that stands in it is unsigned, wherever that is from. It is a proof only if it is
/// from the name's own zone or one above it.
fn judge(none: &NoRecords) -> Result<(Proven, bool), Unknown> {
    let asked = none.query.name();
    let authorities = none.authorities.as_deref().unwrap_or_default();
    let mut secure = false;
    let mut relevant = false;
    for record in authorities {
        if record.record_type() == RecordType::RRSIG {
            continue;
        }
        let denies = matches!(
            record.data,
            RData::DNSSEC(DNSSECRData::NSEC(_) | DNSSECRData::NSEC3(_))
        );
        match record.proof {
            Proof::Bogus => return Err(Unknown::Bogus(format!("{asked}"))),
            Proof::Secure => secure |= denies,
            Proof::Insecure | Proof::Indeterminate => relevant |= record.name.zone_of(asked),
        }
    }
    Ok(if secure {
        (Proven::Secure, true)
    } else {
        (Proven::Insecure, relevant)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use hickory_resolver::proto::op::Query;
    use hickory_resolver::proto::rr::rdata::{A, CNAME};

    fn name(text: &str) -> Name {
        Name::from_str(text).unwrap()
    }

    fn record(owner: &str, data: RData, proof: Proof) -> Record {
        let mut record = Record::from_rdata(name(owner), 60, data);
        record.proof = proof;
        record
    }

    fn answer(records: Vec<Record>) -> Result<Found, Unknown> {
        let query = Query::query(name("mx.example."), RecordType::A);
        let lookup = Lookup::new_with_max_ttl(query, records);
        read(&name("mx.example."), RecordType::A, &lookup)
    }

    #[test]
    fn one_unsigned_step_makes_all_of_it_unsigned() {
        let address = || RData::A(A::new(127, 0, 0, 1));
        let alias = || RData::CNAME(CNAME(name("host.example.")));
        let all = answer(vec![
            record("mx.example.", alias(), Proof::Secure),
            record("HOST.example.", address(), Proof::Secure),
        ])
        .unwrap();
        assert_eq!((all.proven, all.first), (Proven::Secure, Proven::Secure));
        assert_eq!((all.name.as_str(), all.data.len()), ("host.example", 1));
        let below = answer(vec![
            record("mx.example.", alias(), Proof::Insecure),
            record("host.example.", address(), Proof::Secure),
        ])
        .unwrap();
        assert_eq!(
            (below.proven, below.first),
            (Proven::Insecure, Proven::Insecure)
        );
        let behind = answer(vec![
            record("mx.example.", alias(), Proof::Secure),
            record("host.example.", address(), Proof::Insecure),
        ])
        .unwrap();
        assert_eq!(
            (behind.proven, behind.first),
            (Proven::Insecure, Proven::Secure)
        );
        // Signed, and not what was asked for.
        let other = answer(vec![record("other.example.", address(), Proof::Secure)]).unwrap();
        assert_eq!(other.proven, Proven::Insecure);
        assert!(matches!(
            answer(vec![record("mx.example.", address(), Proof::Bogus)]),
            Err(Unknown::Bogus(_))
        ));
        // What nobody has judged is not secure.
        let unjudged = answer(vec![record("mx.example.", address(), Proof::Indeterminate)]);
        assert_eq!(unjudged.unwrap().proven, Proven::Insecure);
    }

    #[test]
    fn the_built_in_anchors_are_those_of_the_root() {
        let made = Validating::new(&[], Duration::from_secs(1), None).unwrap();
        assert_eq!(made.anchors, [Name::root()]);
        assert!(made.resolver.options().validate);
        let missing = Validating::new(&[], Duration::from_secs(1), Some(Path::new("/nowhere")));
        assert!(missing.is_err_and(|error| error.contains("/nowhere")));
    }
}
