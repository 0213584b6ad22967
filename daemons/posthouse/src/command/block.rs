//! `posthouse block`

use crate::cli::Block;
use crate::connect::Suite;
use crate::failure::Failure;
use crate::output;
use crate::time;
use ipc::api::authd::{self, BlockAdd, BlockList, BlockRemove};
use serde_json::json;
use types::Role::Authd;

const COLUMNS: &[(&str, &str)] = &[
    ("network", "NETWORK"),
    ("until", "UNTIL"),
    ("reason", "REASON"),
];

pub(crate) async fn run(suite: &Suite, command: Block) -> Result<(), Failure> {
    match command {
        Block::Add {
            network,
            reason,
            lasting,
        } => {
            let until = lasting.map(|seconds| time::now().saturating_add(seconds));
            let block = authd::Block {
                network: network.clone(),
                reason,
                until,
            };
            suite.call(Authd, &BlockAdd { block }).await?;
            output::done(
                suite.json,
                &format!("Blocked {network}."),
                &json!({ "blocked": network }),
            );
        }
        Block::List => {
            let blocks = suite.call(Authd, &BlockList).await?;
            let rows: Vec<_> = blocks
                .iter()
                .map(|block| {
                    json!({
                        "network": block.network,
                        "reason": block.reason,
                        "until": block.until.map(time::utc),
                    })
                })
                .collect();
            output::list(suite.json, COLUMNS, &rows);
        }
        Block::Remove { network } => {
            suite
                .call(
                    Authd,
                    &BlockRemove {
                        network: network.clone(),
                    },
                )
                .await?;
            output::done(
                suite.json,
                &format!("Lifted the block of {network}."),
                &json!({ "lifted": network }),
            );
        }
    }
    Ok(())
}
