//! Chains of seals, judged by mail-auth.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::*;
use crate::dkim::KeyService;
use crate::signing::Signing;
use ipc::api::keyd::DkimState;
use mail_auth::common::crypto::{RsaKey, SigningKey as _};
use mail_auth::{AuthenticatedMessage, DkimResult, MessageAuthenticator, ResolverCache, Txt};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::borrow::Borrow;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// keyd with one key, for `ours.example` alone.
struct Keys {
    rsa: RsaKey<Sha256>,
    record: String,
}

impl Keys {
    fn new() -> std::sync::Arc<Self> {
        let pair =
            rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048)
                .unwrap();
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pair.serialize_der()));
        let public = rcgen::PublicKeyData::subject_public_key_info(&pair);
        std::sync::Arc::new(Self {
            rsa: RsaKey::from_key_der(der).unwrap(),
            record: format!("v=DKIM1; k=rsa; p={}", BASE64.encode(public)),
        })
    }
}

impl KeyService for Keys {
    fn keys(&self, domain: &str) -> Result<Vec<DkimKey>, String> {
        let key = DkimKey {
            domain: domain.to_owned(),
            selector: "r".to_owned(),
            algorithm: DkimAlgorithm::Rsa2048,
            record: self.record.clone(),
            state: DkimState::Active,
        };
        let keys = Some(key).filter(|key| key.domain == "ours.example");
        Ok(keys.into_iter().collect())
    }

    fn sign(&self, _: &str, _: &str, data: Vec<u8>) -> Result<Vec<u8>, String> {
        self.rsa.sign(&data[..]).map_err(|error| error.to_string())
    }
}

/// A cache that knows one record, so that nothing is asked of DNS.
struct Known(Txt);

impl ResolverCache<Box<str>, Txt> for Known {
    fn get<Q>(&self, _: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        Some(self.0.clone())
    }

    fn remove<Q>(&self, _: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        None
    }

    fn insert(&self, _: Box<str>, _: Txt, _: Instant) {}
}

const LETTER: &str = "From: me@far.example\r\nSubject: a\r\n  b \r\nTo: you@ours.example\r\n\r\nhello  there \r\n\r\n\r\n";

struct House {
    keys: std::sync::Arc<Keys>,
    signer: Signer,
    sealer: Sealer,
}

impl House {
    fn new() -> Self {
        let keys = Keys::new();
        Self {
            signer: Signer::new(keys.clone(), Duration::from_secs(60), Signing::default()),
            sealer: Sealer::new(Sealing::default(), "Mx.ours.example"),
            keys,
        }
    }

    /// The message one hop further; the results are those of its arrival.
    fn hop(&self, results: &str, message: &str) -> String {
        let prefix = format!(
            "Delivered-To: alias@ours.example\r\nAuthentication-Results: mx.ours.example;\r\n\t{results}\r\nReceived: by us\r\n"
        );
        self.with(&prefix, message)
    }

    fn with(&self, prefix: &str, message: &str) -> String {
        let body = Source::from(message.as_bytes().to_vec());
        let set = self
            .sealer
            .seal(&self.signer, None, prefix.as_bytes(), &body, 1_700_000_000)
            .unwrap();
        format!("{}{prefix}{message}", String::from_utf8(set).unwrap())
    }

    async fn judge(&self, message: &str) -> DkimResult {
        use mail_auth::common::parse::TxtRecordParser as _;
        let key = mail_auth::common::verify::DomainKey::parse(self.keys.record.as_bytes()).unwrap();
        let known = Known(Txt::DomainKey(std::sync::Arc::new(key)));
        let parsed = AuthenticatedMessage::parse(message.as_bytes()).unwrap();
        let judge = MessageAuthenticator::new_cloudflare_tls().unwrap();
        let parameters = mail_auth::Parameters::new(&parsed).with_txt_cache(&known);
        judge.verify_arc(parameters).await.result().clone()
    }
}

fn sets(message: &str) -> usize {
    message.matches("ARC-Seal: i=").count()
}

#[tokio::test]
async fn chains_grow_and_hold() {
    let house = House::new();
    let one = house.hop("spf=pass smtp.mailfrom=me@far.example; arc=none", LETTER);
    assert!(one.starts_with(
        "ARC-Seal: i=1; a=rsa-sha256; cv=none; d=ours.example;\r\n\ts=r; t=1700000000;\r\n\tb="
    ));
    assert!(one.contains("ARC-Authentication-Results: i=1; mx.ours.example;\r\n\tspf=pass smtp.mailfrom=me@far.example; arc=none\r\n"));
    assert_eq!(house.judge(&one).await, DkimResult::Pass);
    let two = house.hop("arc=pass (i=1 spf=pass); dkim=none", &one);
    assert!(two.starts_with("ARC-Seal: i=2; a=rsa-sha256; cv=pass;"));
    assert_eq!(house.judge(&two).await, DkimResult::Pass);
    let three = house.hop("dkim=none; ARC = pass", &two);
    assert_eq!(
        (sets(&three), house.judge(&three).await),
        (3, DkimResult::Pass)
    );
    // What is changed on the way breaks it, also in an older set; white space does not.
    for (what, with, holds) in [
        ("hello", "hullo", false),
        ("Subject: a", "Subject: c", false),
        ("From: me", "From: x@y.example\r\nFrom: me", false),
        (
            "i=1; mx.ours.example;\r\n\tspf=pass",
            "i=1; mx.ours.example;\r\n\tspf=fail",
            false,
        ),
        ("hello  there", "hello there  ", true),
        ("Received: by us\r\n", "", true),
    ] {
        let changed = three.replace(what, with);
        assert_ne!(changed, three, "{what}");
        let verdict = house.judge(&changed).await;
        assert_eq!(verdict == DkimResult::Pass, holds, "{what}: {verdict:?}");
    }
}

#[tokio::test]
async fn all_kinds_of_bodies() {
    let house = House::new();
    let lines = "a line\twith   space \r\n".repeat(crate::content::CHUNK / 10);
    for body in [lines.as_str(), "", "one\r\n\r\n", "no end", "\r\n\r\n"] {
        let raw = format!("From: me@far.example\r\nSubject: a\r\n\tb\r\n\r\n{body}");
        let sent = house.hop("arc=none", &raw);
        let sent = sent.replace("no end", "no end\r\n");
        assert_eq!(
            house.judge(&sent).await,
            DkimResult::Pass,
            "{:?}",
            &body[..body.len().min(20)]
        );
    }
    // Bare ends of lines are sent as CRLF, and sealed so.
    let sent = house.hop(
        "arc=none",
        "From: me@far.example\nSubject: a\n\nbare\nfeeds\rhere\n",
    );
    let sent = sent
        .replace("\r\n", "\n")
        .replace('\r', "\n")
        .replace('\n', "\r\n");
    assert_eq!(house.judge(&sent).await, DkimResult::Pass);
    // No header's end, no body.
    let sent = house.hop("arc=none", "From: me@far.example\r\n");
    assert_eq!(sets(&sent), 1);
}

#[test]
fn a_failed_chain_is_said_to_have_failed_once() {
    let house = House::new();
    let one = house.hop("arc=none", LETTER);
    let broken = one.replace("hello", "hullo");
    let two = house.hop("arc=fail (body hash)", &broken);
    assert!(two.starts_with("ARC-Seal: i=2; a=rsa-sha256; cv=fail;"));
    // RFC 8617 5.1.1
    let three = house.hop("arc=fail", &two);
    assert_eq!(sets(&three), 2);
    // A set that is torn: one field is gone, and so nobody may say that it passed.
    let torn = one.replace("ARC-Authentication-Results", "X-Was");
    assert_eq!(sets(&house.hop("arc=pass", &torn)), 1);
    assert_eq!(sets(&house.hop("arc=fail", &torn)), 2);
}

#[test]
fn nothing_is_sealed_that_nobody_checked() {
    let house = House::new();
    // Without results: a message without a chain gets a first set that says so.
    let prefix = "Delivered-To: alias@ours.example\r\n";
    let one = house.with(prefix, LETTER);
    assert!(one.contains("ARC-Authentication-Results: i=1; mx.ours.example; none\r\n"));
    assert_eq!(sets(&house.with(prefix, &one)), 1);
    // Another's results, or ours further down, where anybody could have put them, are not ours.
    let foreign =
        "Delivered-To: alias@ours.example\r\nAuthentication-Results: mx.far.example; arc=pass\r\n";
    assert_eq!(sets(&house.with(foreign, &one)), 1);
    let below = format!("Authentication-Results: mx.ours.example; arc=pass\r\n{one}");
    assert_eq!(sets(&house.with(prefix, &below)), 1);
    // No key for the domain that forwards.
    let other = "Delivered-To: alias@other.example\r\n";
    assert_eq!(sets(&house.with(other, LETTER)), 0);
    // Fifty are enough.
    let full = one.replace("i=1;", "i=50;");
    assert_eq!(sets(&house.hop("arc=fail", &full)), 1);
    let strange = one.replace("i=1;", "i=51;");
    assert_eq!(sets(&house.hop("arc=fail", &strange)), sets(&strange));
}

#[test]
fn results_are_read_as_they_are_written() {
    let value =
        "mx.ours.example; dkim=pass (a; arc=fail) header.d=x; arc=pass (i=2)\r\n\tsmtp.remote-ip=1";
    assert_eq!(method(value, "arc"), Some("pass"));
    assert_eq!(method(value, "dkim"), Some("pass"));
    assert_eq!(method(value, "spf"), None);
    assert_eq!(method("mx.ours.example; none", "arc"), None);
}

/// What Perl's Mail::DKIM says of a chain, given the key instead of DNS; `None` where it is not installed.
fn perl(message: &str, record: &str) -> Option<String> {
    use std::io::Write as _;
    use std::process::{Command, Stdio};
    const SCRIPT: &str = r"
        use Mail::DKIM::ARC::Verifier; use Mail::DKIM::DNS; use Net::DNS::RR; binmode STDIN;
        my @strings = $ARGV[0] =~ /.{1,200}/g;
        no warnings 'redefine';
        *Mail::DKIM::DNS::query_async = sub {
            my ($name, $type, %options) = @_;
            my $rr = Net::DNS::RR->new(name => $name, type => 'TXT', txtdata => \@strings);
            my $result = $options{Callbacks}{Success}->($rr);
            return sub { $result };
        };
        my $judge = Mail::DKIM::ARC::Verifier->new(); local $/;
        $judge->PRINT(<STDIN>); $judge->CLOSE; print $judge->result;";
    let mut child = Command::new("perl")
        .args(["-e", SCRIPT, record])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .ok()?;
    let fed = child
        .stdin
        .take()
        .map(|mut pipe| pipe.write_all(message.as_bytes()));
    let done = child.wait_with_output().unwrap();
    let complaint = String::from_utf8_lossy(&done.stderr).into_owned();
    if complaint.contains("Can't locate") {
        eprintln!("skipped: libmail-dkim-perl is not installed (tests/setup)");
        return None;
    }
    assert!(
        fed.is_some_and(|fed| fed.is_ok()) && complaint.is_empty(),
        "{complaint}"
    );
    Some(String::from_utf8(done.stdout).unwrap())
}

/// Another implementation than the one that the other tests ask.
#[test]
fn a_verifier_of_others_says_the_same() {
    let house = House::new();
    let record = house.keys.record.clone();
    let one = house.hop("spf=pass smtp.mailfrom=me@far.example; arc=none", LETTER);
    let two = house.hop("arc=pass", &one);
    let three = house.hop("dkim=none;\r\n\tarc=pass (two of them)", &two);
    let failed = house.hop("arc=fail", &three.replace("hello", "hullo"));
    for (message, wanted) in [
        (LETTER, "none"),
        (&one, "pass"),
        (&two, "pass"),
        (&three, "pass"),
        (&three.replace("hello", "hullo"), "fail"),
        (&three.replace("i=1; mx.ours", "i=1; mx.theirs"), "fail"),
        (&failed, "fail"),
    ] {
        let said = perl(message, &record);
        assert!(
            said.as_deref().is_none_or(|said| said == wanted),
            "{said:?}, not {wanted}"
        );
    }
}
