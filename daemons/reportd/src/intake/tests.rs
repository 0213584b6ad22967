#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
use super::*;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder};
use std::io::Write;

/// As large providers write them: no namespace, all elements.
const XML: &str = r#"<?xml version="1.0" encoding="UTF-8" ?>
<feedback>
  <version>1.0</version>
  <report_metadata>
    <org_name>provider.example</org_name>
    <email>noreply-dmarc-support@provider.example</email>
    <extra_contact_info>https://support.provider.example/a/answer/1?x=1&amp;y=2</extra_contact_info>
    <report_id>13171218941221818941</report_id>
    <date_range><begin>1764288000</begin><end>1764374399</end></date_range>
  </report_metadata>
  <policy_published>
    <domain>Example.org</domain><adkim>r</adkim><aspf>r</aspf><p>quarantine</p><sp>none</sp><pct>100</pct><np>none</np>
  </policy_published>
  <record>
    <row>
      <source_ip>2001:db8::7</source_ip><count>4</count>
      <policy_evaluated><disposition>none</disposition><dkim>pass</dkim><spf>fail</spf></policy_evaluated>
    </row>
    <identifiers><header_from>example.org</header_from></identifiers>
    <auth_results>
      <dkim><domain>example.org</domain><result>pass</result><selector>s1</selector></dkim>
      <spf><domain>bounces.example.org</domain><result>softfail</result></spf>
    </auth_results>
  </record>
  <record>
    <row>
      <source_ip>192.0.2.66</source_ip><count>2</count>
      <policy_evaluated><disposition>quarantine</disposition><dkim>fail</dkim><spf>fail</spf>
        <reason><type>local_policy</type><comment>arc=pass</comment></reason></policy_evaluated>
    </row>
    <identifiers><envelope_to>provider.example</envelope_to><envelope_from>other.example</envelope_from><header_from>example.org</header_from></identifiers>
    <auth_results><spf><domain>other.example</domain><scope>mfrom</scope><result>pass</result></spf></auth_results>
  </record>
</feedback>"#;

/// RFC 8460 appendix B, as it is sent.
const JSON: &str = r#"{"organization-name":"Company-X","date-range":{"start-datetime":"2026-04-01T00:00:00Z",
"end-datetime":"2026-04-01T23:59:59Z"},"contact-info":"sts-reporting@company-x.example","report-id":"5065427c-23d3@company-x.example",
"policies":[{"policy":{"policy-type":"sts","policy-string":["version: STSv1","mode: testing"],"policy-domain":"company-y.example",
"mx-host":["*.mail.company-y.example"]},"summary":{"total-successful-session-count":5326,"total-failure-session-count":303},
"failure-details":[{"result-type":"certificate-expired","sending-mta-ip":"2001:db8:abcd:12::1",
"receiving-mx-hostname":"mx1.mail.company-y.example","failed-session-count":100},
{"result-type":"starttls-not-supported","receiving-mx-hostname":"mx2.mail.company-y.example","receiving-ip":"203.0.113.56",
"failed-session-count":203,"additional-information":"https://reports.company-x.example/1"}]}]}"#;

fn gz(octets: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(octets).unwrap();
    encoder.finish().unwrap()
}

/// An archive of these files, as APPNOTE has it.
fn zip(files: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for (name, content) in files {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(content).unwrap();
        let packed = encoder.finish().unwrap();
        let at = u32::try_from(out.len()).unwrap();
        let len = u16::try_from(name.len()).unwrap().to_le_bytes();
        let mut common = vec![20, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        common.extend(u32::try_from(packed.len()).unwrap().to_le_bytes());
        common.extend(u32::try_from(content.len()).unwrap().to_le_bytes());
        common.extend(len);
        out.extend(b"PK\x03\x04");
        out.extend(&common);
        out.extend([0, 0]);
        out.extend(name.as_bytes());
        out.extend(&packed);
        directory.extend(b"PK\x01\x02\x14\x00");
        directory.extend(&common);
        directory.extend([0; 12]);
        directory.extend(at.to_le_bytes());
        directory.extend(name.as_bytes());
    }
    let (at, len) = (out.len(), directory.len());
    out.extend(directory);
    out.extend(b"PK\x05\x06\0\0\0\0");
    let count = u16::try_from(files.len()).unwrap().to_le_bytes();
    out.extend(count);
    out.extend(count);
    out.extend(u32::try_from(len).unwrap().to_le_bytes());
    out.extend(u32::try_from(at).unwrap().to_le_bytes());
    out.extend([0, 0]);
    out
}

fn letter(media: &str, name: &str, content: &[u8]) -> Vec<u8> {
    let encoded = BASE64_STANDARD.encode(content);
    let lines: Vec<&str> = encoded
        .as_bytes()
        .chunks(76)
        .map(|line| std::str::from_utf8(line).unwrap())
        .collect();
    format!(
        "From: r@provider.example\r\nSubject: Report domain: example.org\r\nMIME-Version: 1.0\r\n\
         Content-Type: {media}; name=\"{name}\"\r\nContent-Disposition: attachment; filename=\"{name}\"\r\n\
         Content-Transfer-Encoding: base64\r\n\r\n{}\r\n",
        lines.join("\r\n")
    )
    .into_bytes()
}

fn read_one(message: &[u8]) -> Kept {
    let mut found = read(b"", message, &Intake::default());
    assert_eq!(found.len(), 1);
    found.remove(0)
}

#[test]
fn dmarc_however_it_is_packed() {
    let plain = of_file(XML.as_bytes(), &Intake::default()).unwrap();
    assert_eq!(
        (plain.domain.as_str(), plain.passed, plain.failed),
        ("example.org", 4, 2)
    );
    assert_eq!((plain.begin, plain.end), (1_764_288_000, 1_764_374_399));
    assert_eq!(plain.organization, "provider.example");
    assert!(plain.fields.contains(&(
        "contact info".to_owned(),
        "https://support.provider.example/a/answer/1?x=1&y=2".to_owned()
    )));
    let [first, second] = plain.rows.as_slice() else {
        panic!()
    };
    assert_eq!(
        (first.source.as_str(), first.dkim, first.spf, first.count),
        ("2001:db8::7", true, false, 4)
    );
    assert_eq!(
        first.detail,
        "dkim=pass example.org s=s1; spf=softfail bounces.example.org"
    );
    assert_eq!(second.result, "quarantine");
    assert_eq!(
        second.detail,
        "spf=pass other.example; from other.example; local_policy; arc=pass"
    );
    let name = "provider.example!example.org!1764288000!1764374399.xml";
    for (media, name, content) in [
        ("application/gzip", format!("{name}.gz"), gz(XML.as_bytes())),
        (
            "application/zip",
            name.replace(".xml", ".zip"),
            zip(&[("folder/", b""), (name, XML.as_bytes())]),
        ),
        (
            "application/octet-stream",
            format!("{name}.gz"),
            gz(XML.as_bytes()),
        ),
        ("text/xml", name.to_owned(), XML.as_bytes().to_vec()),
        (
            "text/xml",
            name.to_owned(),
            format!("\u{feff}\n{XML}").into_bytes(),
        ),
    ] {
        assert_eq!(
            read_one(&letter(media, &name, &content)),
            plain,
            "{media} {name}"
        );
    }
    // RFC 9990
    let newer = XML.replace(
        "<feedback>",
        "<feedback xmlns=\"urn:ietf:params:xml:ns:dmarc-2.0\">",
    );
    assert_eq!(
        of_file(newer.as_bytes(), &Intake::default()).unwrap().rows,
        plain.rows
    );
}

#[test]
fn tls_as_it_comes() {
    let kept = of_file(&gz(JSON.as_bytes()), &Intake::default()).unwrap();
    assert_eq!(
        (kept.kind, kept.domain.as_str(), kept.passed, kept.failed),
        ("tls", "company-y.example", 5326, 303)
    );
    assert_eq!(kept.rows.len(), 3);
    assert_eq!(kept.rows[0].result, "success");
    assert_eq!(
        (kept.rows[2].result.as_str(), kept.rows[2].count),
        ("starttls-not-supported", 203)
    );
    let message = letter(
        "application/tlsrpt+gzip",
        "x!y!1!2!3.json.gz",
        &gz(JSON.as_bytes()),
    );
    assert_eq!(read_one(&message), kept);
}

#[test]
fn complaints_and_what_came_back() {
    let arf = b"From: fbl@provider.example\r\nMIME-Version: 1.0\r\nContent-Type: multipart/report; report-type=feedback-report; boundary=b\r\n\r\n\
        --b\r\nContent-Type: text/plain\r\n\r\nA complaint.\r\n--b\r\nContent-Type: message/feedback-report\r\n\r\n\
        Feedback-Type: abuse\r\nUser-Agent: SomeGenerator/1.0\r\nVersion: 1\r\nSource-IP: 192.0.2.2\r\nOriginal-Rcpt-To: u@provider.example\r\n\
        \r\n--b\r\nContent-Type: message/rfc822\r\n\r\nFrom: News <news@example.org>\r\nSubject: Buy\r\n\r\nbody\r\n--b--\r\n";
    let kept = read_one(arf);
    assert_eq!(
        (kept.kind, kept.note.as_str(), kept.domain.as_str()),
        ("arf", "abuse", "example.org")
    );
    assert_eq!(kept.rows[0].source, "192.0.2.2");
    assert_eq!(
        kept.text,
        b"From: News <news@example.org>\r\nSubject: Buy\r\n"
    );
    let dsn = b"From: MAILER-DAEMON@r.example\r\nMIME-Version: 1.0\r\nContent-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\n\
        --b\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; r.example\r\n\r\nFinal-Recipient: rfc822; d@r.example\r\nAction: failed\r\n\
        Status: 5.1.1\r\nDiagnostic-Code: smtp; 550 no\r\n\r\n--b\r\nContent-Type: text/rfc822-headers\r\n\r\nMessage-ID: <dmarc.1.7@ours.example>\r\n\r\n--b--\r\n";
    let kept = read_one(dsn);
    assert_eq!((kept.kind, kept.domain.as_str()), ("bounce", "r.example"));
    assert!(
        kept.fields
            .contains(&("message".to_owned(), "dmarc.1.7@ours.example".to_owned()))
    );
}

fn refused(content: &[u8], bounds: &Intake) -> String {
    of_file(content, bounds).unwrap_err().0
}

#[test]
fn bombs_are_refused() {
    let bounds = Intake::default();
    let zeros = vec![b' '; 64 * 1024 * 1024];
    let begun = [b"<feedback>".as_slice(), &zeros].concat();
    assert!(
        refused(&gz(&begun), &bounds).contains("octets come out")
            || refused(&gz(&begun), &bounds).contains("times larger")
    );
    // Within the ratio, and too much all the same.
    let lenient = Intake {
        max_ratio: 100_000,
        ..Intake::default()
    };
    let long = [b"<feedback><a>".as_slice(), &zeros].concat();
    assert!(refused(&gz(&long), &lenient).contains("octets come out"));
    assert!(refused(&zip(&[("r.xml", &long)]), &bounds).contains(" "));
    assert!(refused(&gz(&gz(XML.as_bytes())), &bounds).contains("archive in an archive"));
    let inner = zip(&[("r.xml", XML.as_bytes())]);
    assert!(refused(&zip(&[("r.zip", &inner)]), &bounds).contains("archive in an archive"));
    let many: Vec<(&str, &[u8])> = vec![("r.xml", XML.as_bytes()); 5];
    assert!(refused(&zip(&many), &bounds).contains("5 files"));
    let laughs = "<?xml version=\"1.0\"?><!DOCTYPE l [<!ENTITY a \"lol\"><!ENTITY b \"&a;&a;&a;\">]><feedback>&b;</feedback>";
    assert!(refused(laughs.as_bytes(), &bounds).contains("document type"));
    assert!(refused(b"<feedback>&unknown;</feedback>", &bounds).contains("entity"));
    assert!(refused("<feedback>".repeat(100).as_bytes(), &bounds).contains("deep"));
    let rows = format!(
        "<feedback>{}</feedback>",
        "<record></record>".repeat(20_001)
    );
    assert!(refused(rows.as_bytes(), &bounds).contains("rows"));
    let values = format!("{{\"policies\":[{}]}}", vec!["{}"; 200_000].join(","));
    assert!(refused(values.as_bytes(), &bounds).contains("too many values"));
    let nested = format!("{{\"policies\":{}", "[".repeat(100_000));
    assert!(refused(nested.as_bytes(), &bounds).contains("no report"));
    assert!(refused(&vec![b'<'; 9 * 1024 * 1024], &bounds).contains("the attachment has more"));
}

#[test]
fn what_is_no_report_is_kept_with_the_reason() {
    for (message, word) in [
        (&b"Subject: hello\r\n\r\nbody\r\n"[..], "no report"),
        (
            &letter("application/zip", "r.zip", b"PK\x03\x04 broken")[..],
            "damaged",
        ),
        (
            &letter("text/xml", "r.xml", b"<html></html>")[..],
            "no report",
        ),
        (
            &letter("text/xml", "r.xml", b"<feedback><record>")[..],
            "ends too early",
        ),
        (
            &letter("text/xml", "r.xml", b"<feedback></record>")[..],
            "malformed",
        ),
        (
            &letter("application/gzip", "r.xml.gz", b"\x1f\x8b\x08broken")[..],
            "",
        ),
        (b"", "no report"),
    ] {
        let kept = read_one(message);
        assert_eq!(kept.kind, "unreadable");
        assert!(kept.note.contains(word), "{}", kept.note);
    }
    // One that is good is not lost with one that is not.
    let both = [
        b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: application/zip; name=a.zip\r\n\r\nPK\x03\x04\r\n--b\r\nContent-Type: text/xml\r\n\r\n",
        XML.as_bytes(),
        b"\r\n--b--\r\n",
    ]
    .concat();
    let kept = read_one(&both);
    assert_eq!(kept.kind, "dmarc");
    assert!(kept.fields.iter().any(|(name, _)| name == "not read"));
}
