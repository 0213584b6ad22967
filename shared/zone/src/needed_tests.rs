#![allow(clippy::unwrap_used)]
use super::*;
use crate::record::{Kind, zone_file};

fn site<'a>(config: &'a Config, services: &'a [Service], keys: &'a [CertificateKey]) -> Site<'a> {
    Site {
        domain: "example.org",
        host: "mail.example.org",
        config,
        services,
        dkim: &[],
        certificates: keys,
        persistent: &[],
        now: 0,
    }
}

fn text(records: &[Record], name: &str, kind: Kind) -> Vec<String> {
    records
        .iter()
        .filter(|record| record.name == name && record.data.kind() == kind)
        .map(|record| record.data.to_string())
        .collect()
}

#[test]
fn services_that_do_not_run_are_denied_where_that_can_be_said() {
    let config = Config::default();
    let services = [
        Service {
            protocol: Protocol::Imaps,
            port: 1993,
        },
        Service {
            protocol: Protocol::Sieve,
            port: 4190,
        },
    ];
    let records = needed(&site(&config, &services, &[]));
    let srv = |label: &str| text(&records, &format!("{label}._tcp.example.org"), Kind::Srv);
    assert_eq!(srv("_imaps"), ["0 1 1993 mail.example.org."]);
    assert_eq!(srv("_imap"), ["0 0 0 ."]);
    assert_eq!(srv("_submissions"), ["0 0 0 ."]);
    assert_eq!(srv("_sieve"), ["0 1 4190 mail.example.org."]);
    assert!(srv("_jmap").is_empty() && srv("_caldavs").is_empty());
}

#[test]
fn each_exchanger_has_the_keys_that_are_served_for_it() {
    let key = |names: &[&str], octet: u8| CertificateKey {
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        digest: [octet; 32],
    };
    let keys = [
        key(&["other.example"], 1),
        key(&["*.example.org"], 2),
        key(&["mx.example.net"], 3),
        key(&["mx.example.net"], 4),
    ];
    let config = Config {
        mx: vec![
            "mail.example.org".into(),
            "20 mx.example.net".into(),
            "30 foreign.example".into(),
        ],
        ..Config::default()
    };
    let records = needed(&site(&config, &[], &keys));
    let tlsa = |host: &str| text(&records, &format!("_25._tcp.{host}"), Kind::Tlsa);
    assert_eq!(
        tlsa("mail.example.org"),
        [format!("3 1 1 {}", "02".repeat(32))]
    );
    assert_eq!(tlsa("mx.example.net").len(), 2);
    assert!(tlsa("foreign.example").is_empty());
    let config = Config::default();
    let records = needed(&site(&config, &[], &keys[..1]));
    assert_eq!(
        text(&records, "_25._tcp.mail.example.org", Kind::Tlsa),
        [format!("3 1 1 {}", "01".repeat(32))],
        "the default certificate"
    );
    assert!(!zone_file("example.org", &records).contains("other zones"));
}

#[test]
fn texts_are_filled_in_and_may_be_left_out() {
    let config = Config {
        addresses: vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
        mta_sts: MtaStsMode::Enforce,
        autoconfig: "web.example.org".into(),
        caa: vec!["letsencrypt.org; accounturi=https://acme.example/1".into()],
        ..Config::default()
    };
    let keys = [DkimText {
        selector: "a".into(),
        record: "v=DKIM1; p=AAAA".into(),
    }];
    let mut site = site(&config, &[], &[]);
    site.dkim = &keys;
    let records = needed(&site);
    for (name, kind, wanted) in [
        ("example.org", Kind::Mx, "10 mail.example.org."),
        ("mail.example.org", Kind::A, "192.0.2.1"),
        ("mail.example.org", Kind::Aaaa, "2001:db8::1"),
        ("mail.example.org", Kind::Txt, "\"v=spf1 a -all\""),
        ("a._domainkey.example.org", Kind::Txt, "\"v=DKIM1; p=AAAA\""),
        (
            "_dmarc.example.org",
            Kind::Txt,
            "\"v=DMARC1; p=quarantine; rua=mailto:postmaster@example.org\"",
        ),
        (
            "_smtp._tls.example.org",
            Kind::Txt,
            "\"v=TLSRPTv1; rua=mailto:postmaster@example.org\"",
        ),
        ("mta-sts.example.org", Kind::Cname, "mail.example.org."),
        ("autoconfig.example.org", Kind::Cname, "web.example.org."),
        (
            "_autodiscover._tcp.example.org",
            Kind::Srv,
            "0 0 443 web.example.org.",
        ),
        (
            "example.org",
            Kind::Caa,
            "0 issue \"letsencrypt.org; accounturi=https://acme.example/1\"",
        ),
    ] {
        assert_eq!(text(&records, name, kind), [wanted]);
    }
    assert!(text(&records, "_mta-sts.example.org", Kind::Txt)[0].starts_with("\"v=STSv1; id="));
    let bare = Config {
        dmarc: String::new(),
        spf: String::new(),
        mta_sts: MtaStsMode::Off,
        ..config.clone()
    };
    let records = needed(&super::Site {
        config: &bare,
        ..site
    });
    assert!(text(&records, "_dmarc.example.org", Kind::Txt).is_empty());
    assert!(text(&records, "example.org", Kind::Txt).is_empty());
    assert!(text(&records, "_mta-sts.example.org", Kind::Txt).is_empty());
}

#[test]
fn a_host_that_is_the_domain_has_one_policy() {
    let config = Config::default();
    let site = Site {
        host: "example.org",
        ..site(&config, &[], &[])
    };
    let records = needed(&site);
    assert_eq!(
        text(&records, "example.org", Kind::Txt),
        ["\"v=spf1 mx -all\""]
    );
}

#[test]
fn reports_that_go_elsewhere_are_allowed_there() {
    let config = Config {
        dmarc: "v=DMARC1; p=none; rua=mailto:a@Reports.example!10m, mailto:b@example.org; ruf=mailto:c@d.example.org".into(),
        ..Config::default()
    };
    let records = needed(&site(&config, &[], &[]));
    let found: Vec<&str> = records
        .iter()
        .filter(|record| record.purpose == REPORTS_ELSEWHERE)
        .map(|record| record.name.as_str())
        .collect();
    assert_eq!(found, ["example.org._report._dmarc.reports.example"]);
}
