//! What is published, beside what is needed.

use crate::config::MtaStsMode;
use crate::needed::{PERSISTENT, REPORTS_ELSEWHERE, Site};
use crate::policy::{self, Likeness};
use crate::record::{Data, Kind, Record};
use std::collections::{BTreeMap, BTreeSet};

/// Answers by name and type. A name or type that is not there is an empty list; an error says why nothing is known.
pub type Published = BTreeMap<(String, Kind), Result<Vec<Data>, String>>;

/// How a record does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Published as it is needed, or to the same effect.
    Present,
    /// Published otherwise, which may well be meant.
    Note,
    /// Not published.
    Missing,
    /// Published with something else.
    Different,
    /// Published with something more that contradicts it.
    Conflict,
    /// No answer.
    Unknown,
}

impl Verdict {
    /// Its word: `present`, `note`, `missing`, `different`, `conflict`, `unknown`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Present => "present",
            Self::Note => "note",
            Self::Missing => "missing",
            Self::Different => "different",
            Self::Conflict => "conflict",
            Self::Unknown => "unknown",
        }
    }

    /// Whether something is to be done.
    #[must_use]
    pub fn is_fault(self) -> bool {
        !matches!(self, Self::Present | Self::Note)
    }
}

/// What was found of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: Kind,
    /// What it is for.
    pub purpose: &'static str,
    /// How it does.
    pub verdict: Verdict,
    /// What is needed, as in a zone file; nothing for what is too much.
    pub needed: Option<String>,
    /// What is published in its place, as in a zone file.
    pub published: Vec<String>,
    /// Why, where the verdict does not say it all.
    pub text: String,
}

/// What is to be asked to judge these records.
#[must_use]
pub fn questions(records: &[Record]) -> BTreeSet<(String, Kind)> {
    let mut set = BTreeSet::new();
    for record in records {
        set.insert((record.name.clone(), record.data.kind()));
        if let Data::Cname(target) = &record.data {
            for kind in [Kind::A, Kind::Aaaa] {
                set.insert((record.name.clone(), kind));
                set.insert((target.clone(), kind));
            }
        }
    }
    set
}

/// Judges each record, and what is published beside it; in the order of the records.
#[must_use]
pub fn compare(site: &Site<'_>, records: &[Record], published: &Published) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut seen = BTreeSet::new();
    for record in records {
        let key = (record.name.clone(), record.data.kind());
        let answer = match published.get(&key) {
            Some(Ok(answer)) => answer.as_slice(),
            Some(Err(error)) => {
                findings.push(finding(record, Verdict::Unknown, &[], error));
                continue;
            }
            None => &[],
        };
        let found = match &record.data {
            Data::Txt(_) if record.purpose == PERSISTENT => persistent(site, record, answer),
            Data::Txt(text) => texts(site, record, text, answer),
            Data::Cname(target) => alias(record, target, answer, published),
            Data::Srv { .. } => service(record, answer),
            Data::Mx(..) => exchanger(record, answer),
            Data::A(_) | Data::Aaaa(_) | Data::Tlsa { .. } | Data::Caa { .. } => {
                one_of(record, answer)
            }
        };
        findings.push(found);
        // Once for all records of this name and type.
        if seen.insert(key) {
            let siblings: Vec<&Data> = records
                .iter()
                .filter(|other| {
                    other.name == record.name && other.data.kind() == record.data.kind()
                })
                .map(|other| &other.data)
                .collect();
            findings.extend(too_much(site, record, &siblings, answer));
        }
    }
    findings
}

fn finding(record: &Record, verdict: Verdict, published: &[&Data], text: &str) -> Finding {
    Finding {
        name: record.name.clone(),
        kind: record.data.kind(),
        purpose: record.purpose,
        verdict,
        needed: Some(record.data.to_string()),
        published: published.iter().map(ToString::to_string).collect(),
        text: text.to_owned(),
    }
}

/// Nothing is published, or something else.
fn absent(record: &Record, answer: &[&Data], text: &str) -> Finding {
    let verdict = if answer.is_empty() {
        Verdict::Missing
    } else {
        Verdict::Different
    };
    finding(record, verdict, answer, text)
}

/// The record itself is among those of its name and type.
fn one_of(record: &Record, answer: &[Data]) -> Finding {
    match answer.iter().find(|data| **data == record.data) {
        Some(found) => finding(record, Verdict::Present, &[found], ""),
        None => absent(record, &answer.iter().collect::<Vec<_>>(), ""),
    }
}

/// One text of its version, others of the same name aside.
fn texts(site: &Site<'_>, record: &Record, wanted: &str, answer: &[Data]) -> Finding {
    let dkim = record.purpose == "DKIM";
    let version = wanted.split([' ', ';']).next().unwrap_or_default();
    let of_version = |data: &&Data| match data {
        Data::Txt(text) => {
            let first = text.split([' ', ';']).next().unwrap_or_default();
            dkim || first.eq_ignore_ascii_case(version)
        }
        _ => false,
    };
    let list: Vec<&Data> = answer.iter().filter(of_version).collect();
    let text = match list.as_slice() {
        [Data::Txt(text)] => text,
        [] => return finding(record, Verdict::Missing, &[], ""),
        more => {
            let text = format!(
                "there are {} of them: with more than one, none counts",
                more.len()
            );
            return finding(record, Verdict::Conflict, &list, &text);
        }
    };
    let likeness = match version {
        // RFC 7489 7.1: that it is there is all.
        _ if record.purpose == REPORTS_ELSEWHERE => Likeness::Same,
        "v=spf1" => policy::spf(wanted, text, site.config, site.host),
        "v=DMARC1" => policy::dmarc(wanted, text),
        "v=TLSRPTv1" => policy::tls_rpt(wanted, text),
        "v=STSv1" => policy::mta_sts(wanted, text),
        _ => policy::dkim(wanted, text),
    };
    match likeness {
        Likeness::Same => finding(record, Verdict::Present, &list, ""),
        Likeness::Choice(text) => finding(record, Verdict::Note, &list, &text),
        Likeness::Fault(text) => finding(record, Verdict::Different, &list, &text),
    }
}

/// One text of our issuer and account, others of the same name aside.
fn persistent(site: &Site<'_>, record: &Record, answer: &[Data]) -> Finding {
    let wanted = site.persistent.iter().find(|one| one.name() == record.name);
    let Some(wanted) = wanted else {
        return one_of(record, answer);
    };
    let text = |data: &Data| match data {
        Data::Txt(text) => text.clone(),
        other => other.to_string(),
    };
    let ours: Vec<&Data> = answer
        .iter()
        .filter(|data| wanted.is_ours(&text(data)))
        .collect();
    let texts: Vec<String> = ours.iter().map(|data| text(data)).collect();
    match wanted.compare(texts.iter().map(String::as_str), site.now) {
        _ if ours.is_empty() => finding(record, Verdict::Missing, &[], ""),
        Likeness::Same => finding(record, Verdict::Present, &ours, ""),
        Likeness::Choice(text) => finding(record, Verdict::Note, &ours, &text),
        Likeness::Fault(text) => finding(record, Verdict::Different, &ours, &text),
    }
}

/// Another name of a host, or that host's addresses.
fn alias(record: &Record, target: &str, answer: &[Data], published: &Published) -> Finding {
    if let Some(found) = answer.iter().find(|data| **data == record.data) {
        return finding(record, Verdict::Present, &[found], "");
    }
    let addresses = |name: &str| -> BTreeSet<&Data> {
        [Kind::A, Kind::Aaaa]
            .into_iter()
            .filter_map(|kind| published.get(&(name.to_owned(), kind))?.as_ref().ok())
            .flatten()
            .filter(|data| data.kind() != Kind::Cname)
            .collect()
    };
    let (own, theirs) = (addresses(&record.name), addresses(target));
    let list: Vec<&Data> = answer.iter().chain(own.iter().copied()).collect();
    if !own.is_empty() && own == theirs {
        return finding(record, Verdict::Present, &list, "it has the same addresses");
    }
    absent(record, &list, "")
}

fn service(record: &Record, answer: &[Data]) -> Finding {
    let same = |data: &&Data| match (data, &record.data) {
        (
            Data::Srv { port, target, .. },
            Data::Srv {
                port: wanted_port,
                target: wanted_target,
                ..
            },
        ) => port == wanted_port && target == wanted_target,
        _ => false,
    };
    match answer.iter().find(same) {
        Some(found) if *found == record.data => finding(record, Verdict::Present, &[found], ""),
        Some(found) => finding(record, Verdict::Note, &[found], "priority or weight differ"),
        None => absent(record, &answer.iter().collect::<Vec<_>>(), ""),
    }
}

fn exchanger(record: &Record, answer: &[Data]) -> Finding {
    let Data::Mx(_, wanted) = &record.data else {
        return one_of(record, answer);
    };
    let same = |data: &&Data| matches!(data, Data::Mx(_, host) if host == wanted);
    match answer.iter().find(same) {
        Some(found) if *found == record.data => finding(record, Verdict::Present, &[found], ""),
        Some(found) => finding(record, Verdict::Note, &[found], "the preference differs"),
        None => absent(record, &answer.iter().collect::<Vec<_>>(), ""),
    }
}

/// What is published beside what is needed: harmless, or a contradiction.
fn too_much(
    site: &Site<'_>,
    record: &Record,
    needed: &[&Data],
    answer: &[Data],
) -> Option<Finding> {
    let kind = record.data.kind();
    let known = |data: &Data| {
        needed.iter().any(|wanted| match (wanted, data) {
            (Data::Mx(_, wanted), Data::Mx(_, host)) => wanted == host,
            (
                Data::Srv { port, target, .. },
                Data::Srv {
                    port: p, target: t, ..
                },
            ) => port == p && target == t,
            _ => **wanted == *data,
        })
    };
    let extra: Vec<&Data> = answer
        .iter()
        .filter(|data| data.kind() == kind && !known(data))
        .collect();
    // Otherwise it was said already that something else stands in its place.
    let beside = answer.iter().any(known);
    if extra.is_empty() || !beside {
        return None;
    }
    let none = extra.iter().any(|data| {
        matches!(data, Data::Mx(_, host) | Data::Srv { target: host, .. } if host.is_empty())
    });
    let denied = needed
        .iter()
        .any(|data| matches!(data, Data::Srv { target, .. } if target.is_empty()));
    let (verdict, text) = match kind {
        Kind::Mx if none => (
            Verdict::Conflict,
            "`.` says that the domain takes no mail (RFC 7505)",
        ),
        Kind::Mx if site.config.mta_sts == MtaStsMode::Enforce => (
            Verdict::Conflict,
            "a further exchanger that the MTA-STS policy does not name: add it to dns.mx",
        ),
        Kind::Mx => (Verdict::Note, "a further exchanger"),
        Kind::Srv if none || denied => {
            (Verdict::Conflict, "`.` says that there is no such service")
        }
        Kind::Srv => (Verdict::Note, "a further host"),
        Kind::A | Kind::Aaaa => (
            Verdict::Note,
            "a further address, which dns.addresses does not name",
        ),
        Kind::Tlsa => (
            Verdict::Note,
            "a further key: one that comes or goes, or is forgotten",
        ),
        Kind::Caa => (Verdict::Note, "others may issue, too, or more is said"),
        Kind::Txt | Kind::Cname => return None,
    };
    Some(Finding {
        name: record.name.clone(),
        kind,
        purpose: record.purpose,
        verdict,
        needed: None,
        published: extra.iter().map(ToString::to_string).collect(),
        text: text.to_owned(),
    })
}

#[cfg(test)]
#[path = "compare_tests.rs"]
mod tests;
