//! `posthouse tls`: what is demanded of a destination, and why.

use crate::cli::Tls;
use crate::connect::Place;
use crate::failure::Failure;
use crate::output;
use relayd::{Explanation, HostExplanation};

pub(crate) async fn run(place: &Place, json: bool, options: Tls) -> Result<(), Failure> {
    let told = |error: runtime::Failure| Failure::new(error.to_string());
    let document = place.document()?;
    let config: relayd::Config = document.section("relayd").map_err(told)?;
    let suite = document.suite().map_err(told)?;
    let hostname = config.hostname.clone().unwrap_or(suite.hostname);
    let domain = match options.domain.starts_with('[') {
        true => options.domain.clone(),
        false => types::Address::domain_of(&options.domain)
            .map_err(|error| Failure::new(format!("{}: {error}", options.domain)))?,
    };
    let found = relayd::explain(config, &hostname, &domain, options.connect)
        .await
        .map_err(Failure::new)?;
    if json {
        let value =
            serde_json::to_value(&found).map_err(|error| Failure::new(error.to_string()))?;
        output::print(&value);
    } else {
        show(&found);
    }
    let bad = found.hosts.iter().filter(|host| host.failed).count();
    match (&found.refused, bad) {
        (Some(_), _) => Err(Failure::check(format!("no mail goes to {domain} now"))),
        (None, 0) => Ok(()),
        (None, bad) => Err(Failure::check(format!(
            "{bad} of {} hosts get no mail now",
            found.hosts.len()
        ))),
    }
}

fn show(found: &Explanation) {
    let line = |name: &str, value: &str| output::say(&format!("{name:<12}{}", clean(value)));
    line("destination", &found.destination);
    let by = match &found.entry {
        Some(entry) => format!("{} (entry {entry})", found.policy),
        None => format!("{} (default)", found.policy),
    };
    line("policy", &by);
    line("DNSSEC", &found.dnssec);
    if let Some(refused) = &found.refused {
        line("refused", refused);
        return;
    }
    line("MX records", &found.mx);
    line("MTA-STS", &found.mta_sts);
    for host in &found.hosts {
        output::say("");
        each(host, &line);
    }
}

fn each(host: &HostExplanation, line: &impl Fn(&str, &str)) {
    line(
        "host",
        &format!("{} {}", host.name, host.addresses.join(" ")),
    );
    let demand = match host.demand.as_str() {
        "none" => "no TLS",
        "may" => "TLS if it can be had",
        "encrypt" => "TLS, whoever it is",
        "names" => "TLS with a verified certificate",
        "dane" => "TLS with certificates that fit the TLSA records",
        _ => "not tried",
    };
    line("demand", demand);
    line("why", &host.why);
    if !host.names.is_empty() {
        line("names", &host.names.join(" "));
    }
    for record in &host.tlsa {
        line("TLSA", record);
    }
    for session in &host.sessions {
        line("session", session);
    }
}

/// Control characters of foreign origin must not reach a terminal.
fn clean(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}
