//! What `posthouse check` looks at in DKIM keys and forwarding.

use super::check::Findings;
use crate::connect::{Place, Suite};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ipc::api::authd::{Domain, DomainList};
use ipc::api::keyd::{DkimAlgorithm, DkimKey, DkimKeys, DkimState};
use types::Role;

/// Each domain can sign its mail with keys that others accept.
pub(crate) async fn signing(findings: &mut Findings, place: &Place, suite: &Suite) {
    let Ok(document) = place.document() else {
        return;
    };
    // What is wrong with the section is said elsewhere.
    let Ok(config) = document.section::<relayd::Config>("relayd") else {
        return;
    };
    let Ok(domains) = suite.call(Role::Authd, &DomainList { name: None }).await else {
        return;
    };
    forwarding(findings, &document, &domains);
    results(findings, &document, &config, &suite.hostname);
    if !config.dkim {
        findings.warn("dkim", "nothing is signed (relayd.dkim is false)");
        return;
    }
    for domain in domains.iter().filter(|domain| domain.enabled) {
        let signers = config.signing.signers(Some(&domain.name), None);
        if !signers.is_empty() {
            judge(findings, suite, &domain.name, &signers).await;
        }
    }
}

/// What comes back to forwarding addresses must come to us.
fn forwarding(findings: &mut Findings, document: &runtime::Document, domains: &[Domain]) {
    let Ok(config) = document.section::<authd::Config>("authd") else {
        return;
    };
    let domain = &config.srs.domain;
    let ours = domains
        .iter()
        .any(|one| one.enabled && one.name.eq_ignore_ascii_case(domain));
    if config.srs.enabled && !domain.is_empty() && !ours {
        findings.error(
            "forwarding",
            format!("authd.srs.domain: {domain} is not one of our domains, so nothing comes back"),
        );
    }
}

/// relayd seals what smtpd says of arrivals only under the name that it knows.
fn results(
    findings: &mut Findings,
    document: &runtime::Document,
    config: &relayd::Config,
    hostname: &str,
) {
    let Ok(smtpd) = document.section::<smtpd::Config>("smtpd") else {
        return;
    };
    let said = match smtpd.checks.authserv_id.as_str() {
        "" => smtpd.hostname.unwrap_or_else(|| hostname.to_owned()),
        own => own.to_owned(),
    };
    let known = match config.arc.authserv_id.as_str() {
        "" => hostname,
        own => own,
    };
    if config.arc.enabled && !said.eq_ignore_ascii_case(known) {
        findings.warn(
            "forwarding",
            format!(
                "smtpd calls itself {said}, and relayd looks for results of {known}: set relayd.arc.authserv_id, or seals say nothing"
            ),
        );
    }
}

/// `signers` are the domains whose keys may sign for `domain`, best first.
async fn judge(findings: &mut Findings, suite: &Suite, domain: &str, signers: &[String]) {
    let mut idle = None;
    for signer in signers {
        let request = DkimKeys {
            domain: signer.clone(),
        };
        let Ok(keys) = suite.call(Role::Keyd, &request).await else {
            return;
        };
        let active: Vec<&DkimKey> = keys
            .iter()
            .filter(|key| key.state == DkimState::Active)
            .collect();
        if !active.is_empty() {
            return strength(findings, domain, signer, &active);
        }
        if !keys.is_empty() {
            idle.get_or_insert(signer);
        }
    }
    let text = match idle {
        Some(signer) => format!(
            "{domain} is not signed: {signer} has no active DKIM key: `posthouse dkim activate {signer} SELECTOR`"
        ),
        None => format!(
            "{domain} has no DKIM key: `posthouse dkim create {domain} --selector ...`, and publish its record"
        ),
    };
    findings.warn("dkim", text);
}

fn strength(findings: &mut Findings, domain: &str, signer: &str, active: &[&DkimKey]) {
    for key in active {
        if let Some((grade, text)) = weakness(key) {
            match grade {
                Weak::Useless => findings.error("dkim", text),
                Weak::Short => findings.warn("dkim", text),
            }
        }
    }
    // RFC 8463 5
    let selectors: Vec<&str> = active.iter().map(|key| key.selector.as_str()).collect();
    let selectors = selectors.join(", ");
    if active
        .iter()
        .all(|key| key.algorithm == DkimAlgorithm::Ed25519)
    {
        let text = format!(
            "{domain} is signed with Ed25519 alone ({selectors}), which many do not know: add an RSA key, `posthouse dkim create {signer} --selector ...`"
        );
        findings.warn("dkim", text);
    } else {
        findings.fine(
            "dkim",
            format!("{domain} is signed by {signer} with {selectors}"),
        );
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weak {
    Useless,
    Short,
}

/// What is wrong with the length of an RSA key (RFC 8301 3.2).
fn weakness(key: &DkimKey) -> Option<(Weak, String)> {
    let text = key.record.rsplit_once("p=")?.1;
    let bits = zone::rsa_bits(&BASE64.decode(text).ok()?)?;
    let name = format!("the RSA key {} of {}", key.selector, key.domain);
    match bits {
        0..1024 => Some((
            Weak::Useless,
            format!("{name} has {bits} bits: nobody accepts it (RFC 8301); make another"),
        )),
        1024..2048 => Some((
            Weak::Short,
            format!("{name} has {bits} bits: make one of 2,048 (RFC 8301)"),
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(record: &str) -> DkimKey {
        DkimKey {
            domain: "d.example".into(),
            selector: "s".into(),
            algorithm: DkimAlgorithm::Rsa2048,
            record: record.into(),
            state: DkimState::Active,
        }
    }

    #[test]
    fn short_keys_are_named() {
        let short = "v=DKIM1; k=rsa; p=MFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBAL8V";
        assert_eq!(weakness(&key(short)), None, "not a whole key");
        let record = include_str!("check_keys_1024.txt");
        assert!(matches!(
            weakness(&key(record.trim())),
            Some((Weak::Short, _))
        ));
        let record = include_str!("check_keys_512.txt");
        assert!(matches!(
            weakness(&key(record.trim())),
            Some((Weak::Useless, _))
        ));
    }
}
