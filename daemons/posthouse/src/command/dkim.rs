//! `posthouse dkim`

use crate::cli::Dkim;
use crate::connect::Suite;
use crate::failure::Failure;
use crate::{output, time};
use ipc::api::certd::{DkimRotate, DkimRotationRow, DkimRotations};
use ipc::api::keyd::{
    DkimAlgorithm, DkimCreate, DkimKey, DkimKeys, DkimMark, DkimRemove, DkimState,
};
use serde_json::{Value, json};
use types::Role::{Certd, Keyd};

const COLUMNS: &[(&str, &str)] = &[
    ("domain", "DOMAIN"),
    ("selector", "SELECTOR"),
    ("algorithm", "ALGORITHM"),
    ("state", "STATE"),
    ("name", "TXT RECORD AT"),
];

pub(crate) async fn run(suite: &Suite, command: Dkim) -> Result<(), Failure> {
    match command {
        Dkim::Create {
            domain,
            selector,
            algorithm,
            prepared,
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
                        state: if prepared {
                            DkimState::Prepared
                        } else {
                            DkimState::Active
                        },
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
        Dkim::Activate {
            domain,
            selector,
            alone,
        } => activate(suite, &domain, &selector, alone).await?,
        Dkim::Rotate { domain } if !suite.daemons.contains(&Certd) => {
            return Err(Failure::new(format!(
                "certd changes no keys of {domain}: set certd.dns and certd.dkim.rotate"
            )));
        }
        Dkim::Rotations if !suite.daemons.contains(&Certd) => rotations(suite.json, &[]),
        Dkim::Rotate { domain } => {
            let rows = suite.call(Certd, &DkimRotate { domain }).await?;
            rotations(suite.json, &rows);
        }
        Dkim::Rotations => rotations(suite.json, &suite.call(Certd, &DkimRotations).await?),
        Dkim::Retire { domain, selector } => {
            let key = mark(suite, &domain, &selector, DkimState::Retired).await?;
            let text = format!(
                "No mail is signed with {selector} of {domain} any more, within relayd.dkim_keys_cache seconds."
            );
            output::done(suite.json, &text, &row(&key));
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

fn rotations(json: bool, rows: &[DkimRotationRow]) {
    let rows: Vec<Value> = rows
        .iter()
        .map(|row| {
            let retired = row.retired.iter();
            json!({
                "domain": row.domain,
                "algorithm": row.algorithm,
                "step": row.step,
                "next": row.next,
                "since": row.since,
                "since_text": time::utc(row.since),
                "retired": retired.map(|(selector, at)| format!("{selector} until {}", time::utc(*at))).collect::<Vec<_>>(),
                "trouble": row.trouble,
            })
        })
        .collect();
    let columns = [
        ("domain", "DOMAIN"),
        ("algorithm", "ALGORITHM"),
        ("step", "STEP"),
        ("next", "NEXT"),
        ("since_text", "SIGNS SINCE"),
        ("retired", "RETIRED"),
        ("trouble", "TROUBLE"),
    ];
    output::list(json, &columns, &rows);
}

async fn mark(
    suite: &Suite,
    domain: &str,
    selector: &str,
    state: DkimState,
) -> Result<DkimKey, Failure> {
    let request = DkimMark {
        domain: domain.to_owned(),
        selector: selector.to_owned(),
        state,
    };
    suite.call(Keyd, &request).await
}

async fn activate(suite: &Suite, domain: &str, selector: &str, alone: bool) -> Result<(), Failure> {
    let key = mark(suite, domain, selector, DkimState::Active).await?;
    let mut text = format!("Mail of {domain} is signed with {selector} from now on.");
    if alone {
        let request = DkimKeys {
            domain: key.domain.clone(),
        };
        for other in suite.call(Keyd, &request).await? {
            let same = other.algorithm == key.algorithm && other.state == DkimState::Active;
            if same && other.selector != key.selector {
                mark(suite, &other.domain, &other.selector, DkimState::Retired).await?;
                text.push_str(&format!(" Retired {}.", other.selector));
            }
        }
    }
    output::done(suite.json, &text, &row(&key));
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
        "state": match key.state {
            DkimState::Prepared => "prepared",
            DkimState::Active => "active",
            DkimState::Retired => "retired",
        },
        "name": format!("{}._domainkey.{}", key.selector, key.domain),
        "record": key.record,
    })
}
