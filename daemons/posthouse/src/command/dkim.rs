//! `posthouse dkim`

use crate::cli::Dkim;
use crate::connect::Suite;
use crate::failure::Failure;
use crate::output;
use ipc::api::keyd::{DkimAlgorithm, DkimCreate, DkimKey, DkimKeys, DkimRemove};
use serde_json::{Value, json};
use types::Role::Keyd;

const COLUMNS: &[(&str, &str)] = &[
    ("domain", "DOMAIN"),
    ("selector", "SELECTOR"),
    ("algorithm", "ALGORITHM"),
    ("name", "TXT RECORD AT"),
];

pub(crate) async fn run(suite: &Suite, command: Dkim) -> Result<(), Failure> {
    match command {
        Dkim::Create {
            domain,
            selector,
            algorithm,
        } => {
            let algorithm = match algorithm.as_str() {
                "rsa" => DkimAlgorithm::Rsa2048,
                "ed25519" => DkimAlgorithm::Ed25519,
                other => {
                    return Err(Failure::new(format!(
                        "{other:?} is neither rsa nor ed25519"
                    )));
                }
            };
            let key = suite
                .call(
                    Keyd,
                    &DkimCreate {
                        domain,
                        selector,
                        algorithm,
                    },
                )
                .await?;
            let text = format!("Made the key. Publish this record:\n{}", zone_line(&key));
            output::done(suite.json, &text, &row(&key));
        }
        Dkim::Show { domain } => {
            let keys = suite
                .call(
                    Keyd,
                    &DkimKeys {
                        domain: domain.unwrap_or_default(),
                    },
                )
                .await?;
            output::list(
                suite.json,
                COLUMNS,
                &keys.iter().map(row).collect::<Vec<_>>(),
            );
            if !suite.json {
                keys.iter().for_each(|key| output::say(&zone_line(key)));
            }
        }
        Dkim::Remove { domain, selector } => {
            let request = DkimRemove {
                domain: domain.clone(),
                selector: selector.clone(),
            };
            suite.call(Keyd, &request).await?;
            let value = json!({ "domain": domain, "removed": selector });
            output::done(
                suite.json,
                &format!("Removed {selector} of {domain}."),
                &value,
            );
        }
    }
    Ok(())
}

/// The record as a line of a zone file: a string holds 255 octets at most (RFC 1035 3.3.14).
fn zone_line(key: &DkimKey) -> String {
    let record = key.record.as_bytes();
    let strings: Vec<String> = record
        .chunks(255)
        .map(|part| format!("\"{}\"", String::from_utf8_lossy(part)))
        .collect();
    format!(
        "{}._domainkey.{}. IN TXT ( {} )",
        key.selector,
        key.domain,
        strings.join(" ")
    )
}

fn row(key: &DkimKey) -> Value {
    json!({
        "domain": key.domain,
        "selector": key.selector,
        "algorithm": match key.algorithm {
            DkimAlgorithm::Rsa2048 => "rsa-sha256",
            DkimAlgorithm::Ed25519 => "ed25519-sha256",
        },
        "name": format!("{}._domainkey.{}", key.selector, key.domain),
        "record": key.record,
    })
}
