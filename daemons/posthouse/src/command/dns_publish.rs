//! `posthouse dns publish` and `unpublish`: what is to be changed, first shown, then done by certd.

use super::dns::{Known, resolver_at};
use crate::connect::{Place, Suite};
use crate::failure::Failure;
use crate::output;
use ipc::api::certd::{DnsChange, DnsData, DnsEntry, DnsPublished, DnsPublishedReply};
use serde_json::{Value, json};
use std::time::Duration;
use types::Role::Certd;
use zone::{Data, Finding, Kind, Record, Verdict};

/// Some thirty records, one after the other, at a provider that takes its time.
const CHANGE: Duration = Duration::from_secs(900);

/// What is to be done.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    publish: Vec<DnsEntry>,
    remove: Vec<DnsEntry>,
    /// What is in the way and not ours, or not known: name, type, why.
    by_hand: Vec<(String, String, String)>,
}

pub(crate) async fn publish(
    suite: &Suite,
    place: &Place,
    domain: &str,
    resolver: Option<&str>,
    yes: bool,
) -> Result<(), Failure> {
    let known = Known::gather(suite, &place.document()?, domain).await?;
    let ours = published(suite).await?;
    if ours.zones.is_empty() {
        return Err(no_zone());
    }
    let resolver = resolver_at(resolver)?;
    let findings = known.judge(&resolver).await;
    let records = known.records();
    let plan = plan(
        &records,
        &findings,
        &ours.entries,
        &ours.zones,
        known.domain(),
    );
    carry_out(suite, plan, yes).await
}

pub(crate) async fn unpublish(suite: &Suite, domain: &str, yes: bool) -> Result<(), Failure> {
    let domain = types::Address::domain_of(domain)
        .map_err(|error| Failure::new(format!("{domain}: {error}")))?;
    let ours = published(suite).await?;
    let plan = Plan {
        remove: ours
            .entries
            .into_iter()
            .filter(|entry| is_in(&entry.name, &domain))
            .collect(),
        ..Plan::default()
    };
    carry_out(suite, plan, yes).await
}

/// What certd published; without zones and certificates it does not even run.
async fn published(suite: &Suite) -> Result<DnsPublishedReply, Failure> {
    if !suite.daemons.contains(&Certd) {
        return Err(no_zone());
    }
    suite.call(Certd, &DnsPublished).await
}

fn no_zone() -> Failure {
    Failure::new(
        "certd may write no zone: set certd.dns, or publish what `posthouse dns show` prints",
    )
}

async fn carry_out(suite: &Suite, plan: Plan, yes: bool) -> Result<(), Failure> {
    show(suite.json, &plan);
    let left = plan.by_hand.len();
    let any = !plan.publish.is_empty() || !plan.remove.is_empty();
    if any && yes {
        let change = DnsChange {
            publish: plan.publish,
            remove: plan.remove,
        };
        suite.call_within(Certd, &change, CHANGE).await?;
    }
    if !suite.json {
        output::say(match (any, yes) {
            (false, _) => "Nothing is to be changed.",
            (true, true) => "Done.",
            (true, false) => "Nothing was changed: with --yes it is.",
        });
    }
    match left {
        0 => Ok(()),
        left => Err(Failure::check(format!(
            "{left} records are left to you: certd changes only what it published"
        ))),
    }
}

fn is_in(name: &str, zone: &str) -> bool {
    let zone = zone.trim_end_matches('.');
    let (name, zone) = (name.to_ascii_lowercase(), zone.to_ascii_lowercase());
    let rest = name.strip_suffix(zone.as_str());
    rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Compares what is needed with what is published and with what is ours.
fn plan(
    records: &[Record],
    findings: &[Finding],
    ours: &[DnsEntry],
    zones: &[String],
    domain: &str,
) -> Plan {
    let mut plan = Plan::default();
    for record in records {
        let text = record.data.to_string();
        let found = findings.iter().find(|one| {
            one.name == record.name
                && one.kind == record.data.kind()
                && one.needed.as_deref() == Some(text.as_str())
        });
        let Some(found) = found.filter(|one| one.verdict.is_fault()) else {
            continue;
        };
        let mut leave = |why: String| {
            let kind = found.kind.to_string();
            plan.by_hand.push((record.name.clone(), kind, why));
        };
        if !zones.iter().any(|zone| is_in(&record.name, zone)) {
            leave("it is in no zone that certd may write".to_owned());
            continue;
        }
        if found.verdict == Verdict::Unknown {
            leave(found.text.clone());
            continue;
        }
        let own = |text: &String| {
            ours.iter()
                .any(|one| one.name == record.name && data(&one.data).to_string() == *text)
        };
        // What stands in the place of this record must be ours, or it stays.
        if let Some(foreign) = found.published.iter().find(|text| !own(text)) {
            leave(format!("{foreign} is published, and not by certd"));
            continue;
        }
        plan.publish.push(DnsEntry {
            name: record.name.clone(),
            ttl: record.ttl,
            data: entry(&record.data),
        });
    }
    // What we published once and is needed no more.
    let needed = |one: &DnsEntry| {
        records
            .iter()
            .any(|record| record.name == one.name && entry(&record.data) == one.data)
    };
    // certd itself takes back the TLSA records of old keys, and announces new ones before they are needed.
    let certd_does = |one: &DnsEntry| {
        matches!(one.data, DnsData::Tlsa { .. })
            && records
                .iter()
                .any(|record| record.name == one.name && record.data.kind() == Kind::Tlsa)
    };
    let stale = ours
        .iter()
        .filter(|one| is_in(&one.name, domain) && !needed(one) && !certd_does(one));
    plan.remove = stale.cloned().collect();
    plan
}

fn show(json: bool, plan: &Plan) {
    let row = |change: &str, one: &DnsEntry| {
        let data = data(&one.data);
        json!({ "change": change, "name": one.name, "type": data.kind().to_string(), "ttl": one.ttl, "data": data.to_string() })
    };
    let mut rows: Vec<Value> = plan.remove.iter().map(|one| row("remove", one)).collect();
    rows.extend(plan.publish.iter().map(|one| row("publish", one)));
    let by_hand = plan.by_hand.iter();
    rows.extend(by_hand.map(
        |(name, kind, why)| json!({ "change": "by hand", "name": name, "type": kind, "data": why }),
    ));
    let columns = [
        ("change", "CHANGE"),
        ("name", "NAME"),
        ("type", "TYPE"),
        ("data", "DATA"),
    ];
    if json || !rows.is_empty() {
        output::list(json, &columns, &rows);
    }
}

fn entry(data: &Data) -> DnsData {
    match data {
        Data::A(address) => DnsData::A(*address),
        Data::Aaaa(address) => DnsData::Aaaa(*address),
        Data::Cname(name) => DnsData::Cname(name.clone()),
        Data::Mx(preference, host) => DnsData::Mx(*preference, host.clone()),
        Data::Txt(text) => DnsData::Txt(text.clone()),
        Data::Srv {
            priority,
            weight,
            port,
            target,
        } => DnsData::Srv {
            priority: *priority,
            weight: *weight,
            port: *port,
            target: target.clone(),
        },
        Data::Tlsa {
            usage,
            selector,
            matching,
            digest,
        } => DnsData::Tlsa {
            usage: *usage,
            selector: *selector,
            matching: *matching,
            digest: digest.clone().into(),
        },
        Data::Caa { flags, tag, value } => DnsData::Caa {
            flags: *flags,
            tag: tag.clone(),
            value: value.clone(),
        },
    }
}

fn data(entry: &DnsData) -> Data {
    match entry {
        DnsData::A(address) => Data::A(*address),
        DnsData::Aaaa(address) => Data::Aaaa(*address),
        DnsData::Cname(name) => Data::Cname(name.clone()),
        DnsData::Mx(preference, host) => Data::Mx(*preference, host.clone()),
        DnsData::Txt(text) => Data::Txt(text.clone()),
        DnsData::Srv {
            priority,
            weight,
            port,
            target,
        } => Data::Srv {
            priority: *priority,
            weight: *weight,
            port: *port,
            target: target.clone(),
        },
        DnsData::Tlsa {
            usage,
            selector,
            matching,
            digest,
        } => Data::Tlsa {
            usage: *usage,
            selector: *selector,
            matching: *matching,
            digest: digest.0.clone(),
        },
        DnsData::Caa { flags, tag, value } => Data::Caa {
            flags: *flags,
            tag: tag.clone(),
            value: value.clone(),
        },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn record(name: &str, text: &str) -> Record {
        Record {
            name: name.to_owned(),
            ttl: 60,
            data: Data::Txt(text.to_owned()),
            purpose: "test",
        }
    }

    fn finding(record: &Record, verdict: Verdict, published: &[&str]) -> Finding {
        Finding {
            name: record.name.clone(),
            kind: record.data.kind(),
            purpose: "test",
            verdict,
            needed: Some(record.data.to_string()),
            published: published
                .iter()
                .map(|text| Data::Txt((*text).to_owned()).to_string())
                .collect(),
            text: "why".to_owned(),
        }
    }

    fn own(name: &str, text: &str) -> DnsEntry {
        DnsEntry {
            name: name.to_owned(),
            ttl: 60,
            data: DnsData::Txt(text.to_owned()),
        }
    }

    #[test]
    fn only_what_is_missing_or_ours_is_changed() {
        let zones = ["d.example".to_owned()];
        let wanted = record("d.example", "new");
        let judge = |verdict, published: &[&str], ours: &[DnsEntry]| {
            let found = finding(&wanted, verdict, published);
            plan(
                std::slice::from_ref(&wanted),
                &[found],
                ours,
                &zones,
                "d.example",
            )
        };
        let missing = judge(Verdict::Missing, &[], &[]);
        assert_eq!(missing.publish, [own("d.example", "new")]);
        assert!(missing.remove.is_empty() && missing.by_hand.is_empty());
        for verdict in [Verdict::Present, Verdict::Note] {
            assert_eq!(judge(verdict, &["other"], &[]), Plan::default());
        }
        let foreign = judge(Verdict::Different, &["other"], &[]);
        assert!(foreign.publish.is_empty() && foreign.by_hand.len() == 1);
        let replaced = judge(Verdict::Different, &["old"], &[own("d.example", "old")]);
        assert_eq!(replaced.publish, [own("d.example", "new")]);
        assert_eq!(replaced.remove, [own("d.example", "old")]);
        let unknown = judge(Verdict::Unknown, &[], &[]);
        assert!(unknown.publish.is_empty() && unknown.by_hand.len() == 1);
    }

    #[test]
    fn other_zones_and_other_domains_stay() {
        let zones = ["d.example".to_owned()];
        let wanted = record("mx.other.example", "x");
        let found = finding(&wanted, Verdict::Missing, &[]);
        let ours = [own("e.example", "of another domain")];
        let plan = plan(
            std::slice::from_ref(&wanted),
            &[found],
            &ours,
            &zones,
            "d.example",
        );
        assert!(plan.publish.is_empty() && plan.remove.is_empty());
        assert_eq!(plan.by_hand.len(), 1);
        assert!(!is_in("notd.example", "d.example") && is_in("a.D.example", "d.example."));
    }
}
