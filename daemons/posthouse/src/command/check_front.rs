//! What `posthouse check` says of MTA-STS: a policy that is announced must be served, under a certificate for its host.

use super::check::Findings;
use crate::connect::{Place, Suite};
use hickory_resolver::TokioResolver;
use ipc::api::authd::DomainList;
use ipc::api::keyd::ListCertificates;
use types::Role;
use zone::{Data, Kind, MtaStsMode};

/// Without a resolver only what the configuration wants is looked at.
pub(crate) async fn policies(
    findings: &mut Findings,
    suite: &Suite,
    place: &Place,
    resolver: Option<&TokioResolver>,
) {
    let Ok(document) = place.document() else {
        return;
    };
    let (Ok(dns), Ok(httpd)) = (
        document.section::<zone::Config>("dns"),
        document.section::<httpd::Config>(Role::Httpd.name()),
    ) else {
        return;
    };
    let Ok(domains) = suite.call(Role::Authd, &DomainList { name: None }).await else {
        return;
    };
    let names = domains.into_iter().filter(|domain| domain.enabled);
    let (wanted, unwanted): (Vec<String>, Vec<String>) = names
        .map(|domain| domain.name)
        .partition(|name| dns.of(name).mta_sts != MtaStsMode::Off);
    if let Some(resolver) = resolver {
        announced(findings, resolver, &unwanted).await;
    }
    // Whose policies another web server shows is no matter of ours.
    if wanted.is_empty() || !dns.serves_policies(&suite.hostname) {
        return;
    }
    if !httpd.enabled {
        let text = format!(
            "{}: MTA-STS is wanted (dns.mta_sts), and httpd, which would serve the policy, is off: set httpd.enabled, or name who \
             serves it in dns.mta_sts_host",
            wanted.join(", ")
        );
        findings.error("mta-sts", text);
        return;
    }
    if !httpd.https_address.ends_with(":443") {
        let text = format!(
            "httpd serves at {}, and others ask port 443: see to it that it leads there",
            httpd.https_address
        );
        findings.warn("mta-sts", text);
    }
    certified(findings, suite, &wanted).await;
}

/// Domains without a policy that announce one: senders would ask for what nobody serves.
async fn announced(findings: &mut Findings, resolver: &TokioResolver, domains: &[String]) {
    for domain in domains {
        let name = format!("_mta-sts.{domain}");
        let Ok(records) = super::dns::ask(resolver, &name, Kind::Txt).await else {
            // Whether name servers answer is said elsewhere.
            return;
        };
        let is_policy =
            |data: &Data| matches!(data, Data::Txt(text) if text.starts_with("v=STSv1"));
        if records.iter().any(is_policy) {
            let text = format!(
                "{name} announces a policy, and dns.mta_sts is off: serve it (dns.mta_sts), withdraw it (`none`), or remove the record"
            );
            findings.warn("mta-sts", text);
        }
    }
}

async fn certified(findings: &mut Findings, suite: &Suite, domains: &[String]) {
    let Ok(certificates) = suite.call(Role::Keyd, &ListCertificates).await else {
        return;
    };
    let is_named = |host: &str| {
        let parent = host
            .split_once('.')
            .map(|(_, parent)| format!("*.{parent}"));
        let names = certificates
            .iter()
            .filter(|certificate| !certificate.self_signed)
            .flat_map(|certificate| &certificate.names);
        names
            .into_iter()
            .any(|name| *name == host || Some(name) == parent.as_ref())
    };
    let hosts = domains.iter().map(|domain| format!("mta-sts.{domain}"));
    let bare: Vec<String> = hosts.filter(|host| !is_named(host)).collect();
    if bare.is_empty() {
        findings.fine("mta-sts", format!("{} policies are served", domains.len()));
    } else {
        let text = format!(
            "no certificate is for {}: its policy cannot be fetched; certd gets them (`posthouse certificate list`), or name files in \
             keyd.certificate",
            bare.join(", ")
        );
        findings.error("mta-sts", text);
    }
}
