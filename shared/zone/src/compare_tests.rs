#![allow(clippy::unwrap_used)]
use super::*;
use crate::config::Config;
use crate::needed::{CertificateKey, DkimText, Protocol, Service, needed};
use crate::persist::Persistent;

struct Example {
    config: Config,
    dkim: Vec<DkimText>,
    keys: Vec<CertificateKey>,
    services: Vec<Service>,
    persistent: Vec<Persistent>,
}

impl Example {
    fn new() -> Self {
        Self {
            config: Config {
                addresses: vec!["192.0.2.1".parse().unwrap()],
                mta_sts: MtaStsMode::Enforce,
                autoconfig: "web.example.org".into(),
                caa: vec!["letsencrypt.org".into()],
                ..Config::default()
            },
            dkim: vec![DkimText {
                selector: "a".into(),
                record: format!("v=DKIM1; k=rsa; h=sha256; p={}", "A".repeat(400)),
            }],
            keys: vec![CertificateKey {
                names: vec!["mail.example.org".into()],
                digest: [7; 32],
            }],
            services: vec![Service {
                protocol: Protocol::Imaps,
                port: 993,
            }],
            persistent: vec![Persistent {
                domain: "mail.example.org".into(),
                issuers: vec!["ca.example".into()],
                accounts: vec!["https://ca.example/1".into()],
                wildcard: true,
                until: 0,
            }],
        }
    }

    fn site(&self) -> Site<'_> {
        Site {
            domain: "example.org",
            host: "mail.example.org",
            config: &self.config,
            services: &self.services,
            dkim: &self.dkim,
            certificates: &self.keys,
            persistent: &self.persistent,
            now: 0,
        }
    }
}

/// The records as a name server has them.
fn published(records: &[Record]) -> Published {
    let mut map = Published::new();
    for question in questions(records) {
        map.insert(question, Ok(Vec::new()));
    }
    for record in records {
        let key = (record.name.clone(), record.data.kind());
        map.get_mut(&key)
            .unwrap()
            .as_mut()
            .unwrap()
            .push(record.data.clone());
    }
    map
}

fn faults(findings: &[Finding]) -> Vec<String> {
    findings
        .iter()
        .filter(|finding| finding.verdict != Verdict::Present)
        .map(|finding| {
            format!(
                "{} {} {}",
                finding.name,
                finding.kind,
                finding.verdict.word()
            )
        })
        .collect()
}

#[test]
fn what_is_printed_is_well_and_each_missing_record_is_named() {
    let example = Example::new();
    let site = example.site();
    let records = needed(&site);
    assert!(records.len() > 15);
    assert!(faults(&compare(&site, &records, &published(&records))).is_empty());
    for (number, record) in records.iter().enumerate() {
        let mut fewer = published(&records);
        let key = (record.name.clone(), record.data.kind());
        let list = fewer.get_mut(&key).unwrap().as_mut().unwrap();
        list.retain(|data| *data != record.data);
        let wanted = format!("{} {} missing", record.name, record.data.kind());
        assert_eq!(
            faults(&compare(&site, &records, &fewer)),
            [wanted],
            "record {number}"
        );
        fewer.insert(key, Err("no answer".to_owned()));
        let found = faults(&compare(&site, &records, &fewer));
        assert!(!found.is_empty() && found.iter().all(|line| line.ends_with(" unknown")));
    }
}

#[test]
fn what_contradicts_is_a_conflict_and_what_is_harmless_a_note() {
    let example = Example::new();
    let site = example.site();
    let records = needed(&site);
    let text = |text: &str| Data::Txt(text.to_owned());
    let none = Data::Srv {
        priority: 0,
        weight: 0,
        port: 0,
        target: String::new(),
    };
    let other = Data::Srv {
        priority: 5,
        weight: 0,
        port: 110,
        target: "old.example.org".into(),
    };
    for (name, data, wanted) in [
        ("example.org", text("v=spf1 -all"), Some("conflict")),
        ("example.org", text("site-verification=1"), None),
        (
            "_dmarc.example.org",
            text("v=DMARC1; p=none"),
            Some("conflict"),
        ),
        ("_dmarc.example.org", text("something else"), None),
        ("a._domainkey.example.org", text("p=BBBB"), Some("conflict")),
        (
            "example.org",
            Data::Mx(20, "backup.example".into()),
            Some("conflict"),
        ),
        ("example.org", Data::Mx(0, String::new()), Some("conflict")),
        ("_imaps._tcp.example.org", none, Some("conflict")),
        ("_pop3._tcp.example.org", other, Some("conflict")),
        (
            "mail.example.org",
            Data::A([192, 0, 2, 9].into()),
            Some("note"),
        ),
    ] {
        let mut more = published(&records);
        let key = (name.to_owned(), data.kind());
        more.get_mut(&key)
            .unwrap()
            .as_mut()
            .unwrap()
            .push(data.clone());
        let found = faults(&compare(&site, &records, &more));
        let wanted: Vec<String> = wanted
            .map(|word| format!("{name} {} {word}", data.kind()))
            .into_iter()
            .collect();
        assert_eq!(found, wanted, "{data}");
    }
}

#[test]
fn an_alias_may_be_addresses() {
    let example = Example::new();
    let site = example.site();
    let records = needed(&site);
    let mut answers = published(&records);
    let name = "mta-sts.example.org".to_owned();
    answers.insert((name.clone(), Kind::Cname), Ok(Vec::new()));
    let host = Data::A([192, 0, 2, 1].into());
    answers.insert((name.clone(), Kind::A), Ok(vec![host]));
    assert!(faults(&compare(&site, &records, &answers)).is_empty());
    let elsewhere = Data::A([192, 0, 2, 2].into());
    answers.insert((name, Kind::A), Ok(vec![elsewhere]));
    assert_eq!(
        faults(&compare(&site, &records, &answers)),
        ["mta-sts.example.org CNAME different"]
    );
}

#[test]
fn both_values_are_shown() {
    let example = Example::new();
    let site = example.site();
    let records = needed(&site);
    let mut answers = published(&records);
    let weak = Data::Txt("v=DMARC1; p=none".into());
    answers.insert(("_dmarc.example.org".into(), Kind::Txt), Ok(vec![weak]));
    let findings = compare(&site, &records, &answers);
    let found = findings.iter().find(|one| one.verdict.is_fault()).unwrap();
    assert_eq!(found.verdict, Verdict::Different);
    assert!(found.needed.as_ref().unwrap().contains("quarantine"));
    assert_eq!(found.published, ["\"v=DMARC1; p=none\""]);
}

#[test]
fn a_record_for_an_authority_stands_beside_those_of_others() {
    let example = Example::new();
    let site = example.site();
    let records = needed(&site);
    let name = "_validation-persist.mail.example.org";
    let judge = |texts: &[&str]| {
        let mut published = published(&records);
        let texts = texts.iter().map(|text| Data::Txt((*text).to_owned()));
        published.insert((name.to_owned(), Kind::Txt), Ok(texts.collect()));
        let findings = compare(&site, &records, &published);
        let ours: Vec<Finding> = findings
            .into_iter()
            .filter(|one| one.name == name)
            .collect();
        assert_eq!(ours.len(), 1);
        ours.into_iter().next().unwrap()
    };
    let own = "CA.example ;accounturi=https://ca.example/1; x=y; policy=Wildcard";
    let others = ["other.example; accounturi=x", "v=spf1 -all"];
    let good = judge(&[others[0], own, others[1]]);
    assert_eq!(good.verdict, Verdict::Present);
    assert_eq!(good.published.len(), 1);
    assert_eq!(judge(&others).verdict, Verdict::Missing);
    let bad = judge(&[others[0], "ca.example; accounturi=https://ca.example/1"]);
    assert_eq!(bad.verdict, Verdict::Different);
    assert!(bad.text.contains("policy=wildcard"));
    let soon = judge(&[&format!("{own}; persistUntil=9")]);
    assert_eq!(soon.verdict, Verdict::Note);
}
