//! `posthouse index`

use crate::cli::Index;
use crate::connect::Suite;
use crate::failure::Failure;
use crate::output;
use crate::progress::Progress;
use ipc::api::indexd::{IndexFigures, IndexRebuild, IndexStatus};
use serde_json::{Value, json};
use std::time::Duration;
use types::Role::Indexd;

const COLUMNS: &[(&str, &str)] = &[
    ("backend", "BACKEND"),
    ("documents", "MESSAGES"),
    ("missing", "MISSING"),
    ("size", "SIZE"),
    ("trouble", "TROUBLE"),
    ("rebuild", "REBUILD"),
];
/// Between two looks while waiting.
const PAUSE: Duration = Duration::from_millis(500);

pub(crate) async fn run(suite: &Suite, command: Index) -> Result<(), Failure> {
    match command {
        Index::Status => {
            let figures = suite.call(Indexd, &IndexStatus).await?;
            output::one(suite.json, COLUMNS, &row(&figures));
            Ok(())
        }
        Index::Rebuild { account, wait } => {
            let account = match &account {
                Some(name) => Some(crate::command::owner(suite, name).await?),
                None => None,
            };
            suite.call(Indexd, &IndexRebuild { account }).await?;
            if wait {
                until_done(suite).await?;
            }
            let text = if wait {
                "The index is complete."
            } else {
                "The index is being made anew; `posthouse index status` tells how far it is."
            };
            output::done(suite.json, text, &json!({ "complete": wait }));
            Ok(())
        }
    }
}

/// Waits until no rebuild is under way and nothing is known to be missing.
async fn until_done(suite: &Suite) -> Result<(), Failure> {
    let progress = Progress::new(suite.json, "messages", 0);
    let (mut told, mut all) = (0, 0);
    loop {
        tokio::time::sleep(PAUSE).await;
        let figures = suite.call(Indexd, &IndexStatus).await?;
        if !figures.trouble.is_empty() {
            progress.end();
            return Err(Failure::new(format!(
                "the index does not go on: {}",
                figures.trouble
            )));
        }
        let (done, of) = match figures.rebuild {
            Some(rebuild) => rebuild,
            None if figures.missing == 0 => break,
            None => (
                figures.documents,
                figures.documents.saturating_add(figures.missing),
            ),
        };
        progress.grow(of.saturating_sub(all));
        progress.add(done.saturating_sub(told));
        (told, all) = (told.max(done), all.max(of));
    }
    progress.end();
    Ok(())
}

fn row(figures: &IndexFigures) -> Value {
    json!({
        "backend": figures.backend,
        "documents": figures.documents,
        "missing": figures.missing,
        "bytes": figures.bytes,
        "size": output::bytes(figures.bytes, "0 B"),
        "trouble": figures.trouble,
        "rebuild": figures.rebuild.map(|(done, all)| format!("{done} of {all}")),
    })
}
