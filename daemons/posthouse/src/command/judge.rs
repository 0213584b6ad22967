//! `posthouse judge`: who sent a message, as smtpd would find out, and what it would do about it.

use crate::cli::Judge;
use crate::connect::Place;
use crate::failure::Failure;
use crate::output;
use serde_json::{Value, json};
use std::io::Read as _;
use types::Address;

pub(crate) async fn run(place: &Place, json: bool, options: Judge) -> Result<(), Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::new(error.to_string());
    let document = place.document()?;
    let suite = document.suite().map_err(|error| failed(&error))?;
    let mut config: smtpd::Config = document.section("smtpd").map_err(|error| failed(&error))?;
    if !options.nameserver.is_empty() {
        config.checks.nameservers = options.nameserver;
    }
    if let Some(seconds) = options.dns_timeout {
        config.checks.limits.dns_timeout = seconds;
    }
    let message = content(options.file.as_deref())?;
    let address = |text: &str| -> Result<Address, Failure> {
        text.parse()
            .map_err(|error| Failure::new(format!("{text:?}: {error}")))
    };
    let sender = match options.sender.as_str() {
        "" | "<>" => None,
        sender => Some(address(sender)?),
    };
    // Somebody here, if nobody is named: rules for recipients then hold for nobody.
    let recipients = match options.recipient.as_slice() {
        [] => vec![Address::new("postmaster", &suite.hostname).map_err(|error| failed(&error))?],
        named => named
            .iter()
            .map(|text| address(text))
            .collect::<Result<_, _>>()?,
    };
    let question = smtpd::Question {
        client: options.client,
        helo: &options.helo,
        sender,
        recipients,
        listener: options.listener.as_deref().unwrap_or_default(),
        message: &message,
    };
    let opinion = smtpd::opinion(&config, &suite.hostname, &question)
        .await
        .map_err(|error| failed(&error))?;
    let answer = opinion.refusal.clone();
    let row = json!({
        "results": opinion.report, "fields": opinion.fields, "refused": answer,
    });
    if json {
        output::print(&row);
        return Ok(());
    }
    for line in opinion.fields.lines() {
        output::say(&line.replace('\t', "    "));
    }
    output::say("");
    for (name, result, reason) in reasons(row.get("results").unwrap_or(&Value::Null)) {
        output::say(format!("{name:9}{result:10} {reason}").trim_end());
    }
    output::say(&match answer {
        Some(text) => format!("\nIt would be refused: {text}"),
        None => "\nIt would be taken.".to_owned(),
    });
    Ok(())
}

/// Each check by name: its result, of what, and why.
fn reasons(results: &Value) -> Vec<(String, String, String)> {
    let text = |value: &Value, key: &str| {
        let found = value.get(key).and_then(Value::as_str).unwrap_or_default();
        // Text of strangers must not steer the terminal.
        found
            .chars()
            .filter(|c| !c.is_control())
            .collect::<String>()
    };
    let mut rows = Vec::new();
    let mut add = |name: &str, value: Option<&Value>, keys: &[&str]| {
        if let Some(value) = value.filter(|value| !value.is_null()) {
            let words: Vec<String> = keys
                .iter()
                .map(|key| text(value, key))
                .filter(|word| !word.is_empty())
                .collect();
            rows.push((name.to_owned(), text(value, "result"), words.join(", ")));
        }
    };
    add("iprev", results.get("iprev"), &["address", "name"]);
    add(
        "spf helo",
        results.get("spf_helo"),
        &["domain", "explanation"],
    );
    add(
        "spf from",
        results.get("spf_mail_from"),
        &["domain", "explanation"],
    );
    for one in results
        .get("dkim")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        add(
            "dkim",
            Some(one),
            &["domain", "selector", "algorithm", "reason"],
        );
    }
    add("arc", results.get("arc"), &["reason"]);
    add(
        "dmarc",
        results.get("dmarc"),
        &["domain", "policy", "reason"],
    );
    rows
}

/// The message, with the line ends that it has on the wire.
pub(crate) fn content(file: Option<&std::path::Path>) -> Result<Vec<u8>, Failure> {
    let mut octets = Vec::new();
    match file {
        Some(path) if path.as_os_str() != "-" => {
            octets = std::fs::read(path)
                .map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
        }
        _ => {
            std::io::stdin()
                .read_to_end(&mut octets)
                .map_err(|error| Failure::new(error.to_string()))?;
        }
    }
    if octets.windows(2).any(|pair| pair == b"\r\n") {
        return Ok(octets);
    }
    let mut wire = Vec::with_capacity(octets.len() + octets.len() / 32);
    for octet in octets {
        if octet == b'\n' {
            wire.push(b'\r');
        }
        wire.push(octet);
    }
    Ok(wire)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_result_has_its_row() {
        let report = mailauth_report();
        let rows = reasons(&report);
        assert_eq!(rows.len(), 4);
        assert_eq!(
            rows.last().map(|row| row.2.as_str()),
            Some("a.example, reject, because")
        );
    }

    fn mailauth_report() -> Value {
        json!({
            "iprev": { "result": "pass", "address": "192.0.2.1", "name": "a.example" },
            "spf_helo": null,
            "dkim": [{ "result": "fail", "domain": "a.example", "reason": "x\u{1b}" }],
            "arc": { "result": "none", "reason": "" },
            "dmarc": { "result": "fail", "domain": "a.example", "policy": "reject", "reason": "because" },
        })
    }
}
