//! `posthouse check`: what is wrong, before users find out.
//!
//! Looks at the configuration, the daemons, certificates, DNS records of each domain, the store, disk space and the
//! permissions of the state directories. Prints one line a finding, each with what to do about it.

use crate::command::dns::Known;
use crate::command::{check_front, check_parts};
use crate::connect::{Place, Suite};
use crate::failure::Failure;
use crate::output;
use crate::time;
use hickory_resolver::TokioResolver;
use ipc::api::authd::DomainList;
use ipc::api::control;
use ipc::api::keyd::ListCertificates;
use ipc::api::stored::StoreStatus;
use serde_json::json;
use std::os::unix::fs::MetadataExt as _;
use types::Role;
use zone::Verdict;

/// How a look ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Grade {
    Fine,
    Warning,
    Error,
}

/// What was found so far.
pub(crate) struct Findings {
    all: Vec<(Grade, &'static str, String)>,
}

impl Findings {
    pub(crate) fn fine(&mut self, area: &'static str, text: impl Into<String>) {
        self.all.push((Grade::Fine, area, text.into()));
    }

    pub(crate) fn warn(&mut self, area: &'static str, text: impl Into<String>) {
        self.all.push((Grade::Warning, area, text.into()));
    }

    pub(crate) fn error(&mut self, area: &'static str, text: impl Into<String>) {
        self.all.push((Grade::Error, area, text.into()));
    }
}

pub(crate) async fn run(place: &Place, json: bool, offline: bool) -> Result<(), Failure> {
    let mut findings = Findings { all: Vec::new() };
    match crate::command::config::check(place) {
        Ok(()) => findings.fine(
            "configuration",
            format!("{} is sound", place.config.display()),
        ),
        Err(failure) => findings.error("configuration", failure.text),
    }
    if let Ok(suite) = Suite::open(place, json) {
        state(&mut findings, &suite);
        running(&mut findings, &suite).await;
        certificates(&mut findings, &suite).await;
        super::certificate::check(&mut findings, &suite).await;
        super::check_keys::signing(&mut findings, place, &suite).await;
        super::report::check(&mut findings, place, &suite).await;
        store(&mut findings, &suite).await;
        crate::command::schema::check(&mut findings, place).await;
        check_parts::limits(&mut findings, place);
        check_parts::databases(&mut findings, place).await;
        check_parts::queue_table(&mut findings, place).await;
        check_parts::index(&mut findings, &suite).await;
        check_parts::filters(&mut findings, &suite).await;
        check_parts::listeners(&mut findings, place, &suite).await;
        check_parts::copies(&mut findings, place, &suite).await;
        let resolver = super::dns::resolver_at(None).ok().filter(|_| !offline);
        check_front::policies(&mut findings, &suite, place, resolver.as_ref()).await;
        if offline {
            findings.warn("dns", "not looked at (--offline)");
        } else {
            dns(&mut findings, &suite, place).await;
            check_parts::dns_lists(&mut findings, place).await;
        }
    }
    report(&findings, json)
}

fn report(findings: &Findings, json: bool) -> Result<(), Failure> {
    let grade = |grade: Grade| match grade {
        Grade::Fine => "fine",
        Grade::Warning => "warning",
        Grade::Error => "error",
    };
    let rows: Vec<_> = findings
        .all
        .iter()
        .map(|(how, area, text)| json!({ "grade": grade(*how), "area": area, "finding": text }))
        .collect();
    output::list(
        json,
        &[("grade", "GRADE"), ("area", "AREA"), ("finding", "FINDING")],
        &rows,
    );
    match findings
        .all
        .iter()
        .filter(|(how, ..)| *how == Grade::Error)
        .count()
    {
        0 => Ok(()),
        count => Err(Failure::check(format!("{count} errors found"))),
    }
}

/// The state directory: there, with room, and closed to others.
fn state(findings: &mut Findings, suite: &Suite) {
    let path = &suite.state_dir;
    match std::fs::metadata(path) {
        Err(error) => {
            findings.error(
                "state",
                format!(
                    "{}: {error}; create it or set suite.state_dir",
                    path.display()
                ),
            );
            return;
        }
        Ok(metadata) if metadata.mode() & 0o002 != 0 => {
            findings.error(
                "state",
                format!("{} is writable for everybody: chmod o-w", path.display()),
            );
        }
        Ok(_) => findings.fine("state", format!("{} is there", path.display())),
    }
    for secret in ["keys", "directory"] {
        let path = path.join(secret);
        if std::fs::metadata(&path).is_ok_and(|metadata| metadata.mode() & 0o077 != 0) {
            findings.error(
                "state",
                format!("{} is open to others: chmod 0700", path.display()),
            );
        }
    }
    let Ok(space) = rustix::fs::statvfs(path) else {
        return;
    };
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    let text = format!(
        "{} free at {}",
        output::bytes(free, "nothing"),
        path.display()
    );
    let files_left = space.f_files == 0 || space.f_favail.saturating_mul(20) > space.f_files;
    if free < 1 << 30 || !files_left {
        findings.warn(
            "disk",
            format!("{text}: mail is refused for a time when it runs out"),
        );
    } else {
        findings.fine("disk", text);
    }
}

async fn running(findings: &mut Findings, suite: &Suite) {
    for role in suite.daemons.iter().copied() {
        match suite.call(role, &control::Status).await {
            Err(failure) => findings.error(
                "daemons",
                format!("{role} is away: {failure}; see its log, start its unit"),
            ),
            Ok(status) => {
                for (peer, _) in status.peers.iter().filter(|(_, connected)| !connected) {
                    findings.error(
                        "daemons",
                        format!("{role} cannot reach {peer}: look at the log of both"),
                    );
                }
                for line in status.sandbox.iter().filter(|line| line.contains("not ")) {
                    findings.warn("sandbox", format!("{role}: {line}"));
                }
                if status.version != env!("CARGO_PKG_VERSION") {
                    let text = format!(
                        "{role} runs version {}, this is {}: restart it",
                        status.version,
                        env!("CARGO_PKG_VERSION")
                    );
                    findings.error("daemons", text);
                }
            }
        }
    }
    if !findings
        .all
        .iter()
        .any(|(how, area, _)| *area == "daemons" && *how == Grade::Error)
    {
        findings.fine("daemons", "all run and reach each other");
    }
}

async fn certificates(findings: &mut Findings, suite: &Suite) {
    let Ok(certificates) = suite.call(Role::Keyd, &ListCertificates).await else {
        return;
    };
    let now = time::now();
    for certificate in &certificates {
        let names = certificate.names.join(", ");
        let days = certificate.expires.saturating_sub(now) / 86_400;
        if certificate.expires <= now {
            findings.error(
                "certificates",
                format!("{names}: expired on {}", time::utc(certificate.expires)),
            );
        } else if certificate.self_signed {
            let text = format!(
                "{names}: self-signed, mail programs will warn; set keyd.certificate or certd.enabled"
            );
            findings.warn("certificates", text);
        } else if days < 14 {
            findings.warn(
                "certificates",
                format!("{names}: expires in {days} days: renew it, then `posthouse reload`"),
            );
        } else {
            findings.fine("certificates", format!("{names}: good for {days} days"));
        }
    }
    let host = suite.hostname.to_ascii_lowercase();
    let parent = host
        .split_once('.')
        .map(|(_, parent)| format!("*.{parent}"));
    let covers = |name: &String| *name == host || Some(name) == parent.as_ref();
    if !certificates
        .iter()
        .any(|certificate| certificate.names.iter().any(covers))
    {
        findings.error(
            "certificates",
            format!("none is for {host} (suite.hostname)"),
        );
    }
}

async fn store(findings: &mut Findings, suite: &Suite) {
    match suite.call(Role::Stored, &StoreStatus).await {
        Err(failure) => findings.error("store", failure.text),
        Ok(figures) if !figures.trouble.is_empty() => findings.error("store", figures.trouble),
        Ok(figures) => findings.fine(
            "store",
            format!(
                "{} (schema {}), bodies on {}: {} accounts, {} messages, {}",
                figures.database,
                figures.schema,
                figures.blobs,
                figures.accounts,
                figures.messages,
                output::bytes(figures.bytes, "0 B"),
            ),
        ),
    }
}

/// What each domain needs in DNS is published. Without MX and DKIM mail goes astray; the rest is advice.
async fn dns(findings: &mut Findings, suite: &Suite, place: &Place) {
    let resolver = match super::dns::resolver_at(None) {
        Ok(resolver) => resolver,
        Err(failure) => {
            findings.error("dns", format!("{failure}; look at /etc/resolv.conf"));
            return;
        }
    };
    let Ok(domains) = suite.call(Role::Authd, &DomainList { name: None }).await else {
        return;
    };
    host(findings, &resolver, &suite.hostname).await;
    let Ok(document) = place.document() else {
        return;
    };
    for domain in domains.iter().filter(|domain| domain.enabled) {
        let name = &domain.name;
        match Known::gather(suite, &document, name).await {
            Ok(known) => {
                if !records(findings, &known, &resolver, name).await {
                    let text = "no name server answers: further domains are not looked at";
                    findings.error("dns", text);
                    return;
                }
            }
            Err(failure) => findings.error("dns", format!("{name}: {failure}")),
        }
    }
}

/// Whether anything was answered.
async fn records(
    findings: &mut Findings,
    known: &Known,
    resolver: &TokioResolver,
    domain: &str,
) -> bool {
    let mut well = 0;
    let judged = known.judge(resolver).await;
    let answered = judged.is_empty() || judged.iter().any(|one| one.verdict != Verdict::Unknown);
    for found in judged {
        let (name, kind, word) = (&found.name, found.kind, found.verdict.word());
        let why = match found.text.as_str() {
            "" => String::new(),
            text => format!(": {text}"),
        };
        let text = format!("{name} {kind} ({}) is {word}{why}", found.purpose);
        match found.verdict {
            Verdict::Present => well += 1,
            Verdict::Note => findings.fine("dns", format!("{name} {kind} is not ours{why}")),
            _ if matches!(found.purpose, "mail exchangers" | "DKIM") => {
                findings.error("dns", format!("{text}; see `posthouse dns check {domain}`"));
            }
            _ => findings.warn("dns", format!("{text}; see `posthouse dns check {domain}`")),
        }
    }
    findings.fine(
        "dns",
        format!("{domain}: {well} records are published as needed"),
    );
    answered
}

/// The host name has addresses, as others demand of an MX and of an EHLO name.
async fn host(findings: &mut Findings, resolver: &TokioResolver, hostname: &str) {
    match resolver.lookup_ip(format!("{hostname}.")).await {
        Ok(addresses) => {
            let addresses: Vec<String> = addresses
                .iter()
                .map(|address| address.to_string())
                .collect();
            findings.fine("dns", format!("{hostname} is {}", addresses.join(", ")));
        }
        Err(error) => findings.error(
            "dns",
            format!("{hostname} (suite.hostname) has no address: {error}"),
        ),
    }
}
