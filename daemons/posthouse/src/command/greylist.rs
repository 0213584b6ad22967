//! `posthouse greylist`

use crate::cli::Greylist;
use crate::connect::Suite;
use crate::failure::Failure;
use crate::output;
use crate::time;
use ipc::api::limitd::{GreyAllow, GreyForget, GreyList};
use serde_json::{Value, json};
use types::Role::Limitd;

const WAITING: &[(&str, &str)] = &[
    ("network", "NETWORK"),
    ("sender", "SENDER"),
    ("recipient", "RECIPIENT"),
    ("first", "FIRST CAME"),
    ("passed", "CAME AGAIN"),
];
const NETWORKS: &[(&str, &str)] = &[
    ("network", "NETWORK"),
    ("good", "MESSAGES"),
    ("allowed", "MAY PASS"),
    ("expires", "UNTIL"),
];

pub(crate) async fn run(suite: &Suite, command: Greylist) -> Result<(), Failure> {
    match command {
        Greylist::List { item, limit } => {
            let part = item.unwrap_or_default();
            let greys = suite.call(Limitd, &GreyList { part, limit }).await?;
            let waiting: Vec<Value> = greys
                .waiting
                .iter()
                .map(|grey| {
                    json!({
                        "network": grey.network,
                        "sender": grey.sender,
                        "recipient": grey.recipient,
                        "first": time::utc(grey.first),
                        "passed": (grey.passed > 0).then(|| time::utc(grey.passed)),
                        "expires": time::utc(grey.expires),
                    })
                })
                .collect();
            let networks: Vec<Value> = greys
                .networks
                .iter()
                .map(|one| {
                    json!({
                        "network": one.network,
                        "good": one.good,
                        "allowed": one.allowed,
                        "expires": time::utc(one.expires),
                    })
                })
                .collect();
            if suite.json {
                output::print(&json!({ "waiting": waiting, "networks": networks }));
            } else {
                output::list(false, WAITING, &waiting);
                if !networks.is_empty() {
                    output::list(false, NETWORKS, &networks);
                }
            }
        }
        Greylist::Allow { address, lasting } => {
            let request = GreyAllow {
                address,
                seconds: lasting,
            };
            let network = suite.call(Limitd, &request).await?;
            output::done(
                suite.json,
                &format!("{network} may pass."),
                &json!({ "allowed": network }),
            );
        }
        Greylist::Forget { item } => {
            let request = GreyForget { item: item.clone() };
            let count = suite.call(Limitd, &request).await?;
            output::done(
                suite.json,
                &format!("Forgot {count} rows of {item}."),
                &json!({ "forgotten": count }),
            );
        }
    }
    Ok(())
}
