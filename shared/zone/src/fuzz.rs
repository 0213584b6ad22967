//! Entry points for fuzzers: each takes any octets, and panics only if a promise is broken.

use crate::{
    CertificateKey, Config, Data, DkimText, MtaStsMode, Persistent, Published, Site, compare,
    key_digest, needed, questions, rsa_bits, zone_file,
};

/// Texts as any name server may answer, one a line, in the place of all records: each record that is needed is judged once, and
/// what is printed keeps its lines. The whole is a certificate and a key, too.
pub fn answers(octets: &[u8]) {
    let _ = (key_digest(octets), rsa_bits(octets));
    let text = String::from_utf8_lossy(octets);
    let config = Config {
        mta_sts: MtaStsMode::Enforce,
        addresses: vec![[192, 0, 2, 1].into()],
        caa: vec!["ca.example".to_owned()],
        ..Config::default()
    };
    let keys = [CertificateKey {
        names: vec!["mail.example.org".to_owned()],
        digest: [1; 32],
    }];
    let first = text.lines().next().unwrap_or_default().to_owned();
    let dkim = [DkimText {
        selector: "a".to_owned(),
        record: format!("v=DKIM1; p={first}"),
    }];
    let persistent = [Persistent {
        domain: "example.org".to_owned(),
        issuers: vec!["ca.example".to_owned()],
        accounts: vec!["https://ca.example/1".to_owned()],
        wildcard: true,
        until: 1,
    }];
    let site = Site {
        domain: "example.org",
        host: "mail.example.org",
        config: &config,
        services: &[],
        dkim: &dkim,
        certificates: &keys,
        persistent: &persistent,
        now: 0,
    };
    let records = needed(&site);
    let printed = zone_file("example.org", &records);
    assert!(
        printed
            .lines()
            .filter(|line| !line.starts_with(';'))
            .count()
            == records.len()
    );
    assert!(printed.is_ascii() && !printed.contains('\r'));
    let mut published = Published::new();
    for (name, kind) in questions(&records) {
        let answer = text.lines().take(4).map(|line| Data::Txt(line.to_owned()));
        published.insert((name, kind), Ok(answer.collect()));
    }
    let findings = compare(&site, &records, &published);
    let judged = findings.iter().filter(|one| one.needed.is_some()).count();
    assert_eq!(judged, records.len());
}
