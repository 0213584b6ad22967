//! `posthouse alias`

use crate::cli::Alias;
use crate::connect::Suite;
use crate::failure::Failure;
use crate::output;
use ipc::api::authd::{self, AliasList, AliasPut, AliasRemove, PutMode};
use serde_json::{Value, json};
use types::Role::Authd;

const COLUMNS: &[(&str, &str)] = &[("address", "ALIAS"), ("targets", "GOES TO")];
const PAGE: u32 = 200;

pub(crate) async fn run(suite: &Suite, command: Alias) -> Result<(), Failure> {
    match command {
        Alias::Add { address, targets } => {
            put(suite, PutMode::Create, address, targets, "Added").await
        }
        Alias::Set { address, targets } => {
            put(suite, PutMode::Update, address, targets, "Changed").await
        }
        Alias::List => list(suite).await,
        Alias::Show { address } => {
            let request = AliasList {
                address: Some(address.clone()),
                after: None,
                limit: 1,
            };
            let found = suite.call(Authd, &request).await?;
            let alias = found
                .first()
                .ok_or_else(|| Failure::new(format!("there is no alias {address}")))?;
            output::one(suite.json, COLUMNS, &row(alias));
            Ok(())
        }
        Alias::Remove { address } => {
            suite
                .call(
                    Authd,
                    &AliasRemove {
                        address: address.clone(),
                    },
                )
                .await?;
            output::done(
                suite.json,
                &format!("Removed {address}."),
                &json!({ "removed": address }),
            );
            Ok(())
        }
    }
}

async fn list(suite: &Suite) -> Result<(), Failure> {
    let mut rows = Vec::new();
    let mut after = None;
    loop {
        let aliases = suite
            .call(
                Authd,
                &AliasList {
                    address: None,
                    after,
                    limit: PAGE,
                },
            )
            .await?;
        rows.extend(aliases.iter().map(row));
        after = aliases.last().map(|alias| alias.address.clone());
        if aliases.len() < PAGE as usize {
            break;
        }
    }
    output::list(suite.json, COLUMNS, &rows);
    Ok(())
}

async fn put(
    suite: &Suite,
    mode: PutMode,
    address: String,
    targets: Vec<String>,
    done: &str,
) -> Result<(), Failure> {
    let alias = authd::Alias { address, targets };
    suite
        .call(
            Authd,
            &AliasPut {
                mode,
                alias: alias.clone(),
            },
        )
        .await?;
    output::done(
        suite.json,
        &format!("{done} {}.", alias.address),
        &row(&alias),
    );
    Ok(())
}

fn row(alias: &authd::Alias) -> Value {
    json!({ "address": alias.address, "targets": alias.targets })
}
