//! `posthouse limit`

use crate::cli::Limit;
use crate::connect::Suite;
use crate::failure::Failure;
use crate::output;
use ipc::api::limitd::{LimitList, LimitReset, LimitShow, Used};
use serde_json::{Value, json};
use types::Role::Limitd;

const COLUMNS: &[(&str, &str)] = &[
    ("rule", "RULE"),
    ("key", "KEY"),
    ("used", "USED"),
    ("limit", "LIMIT"),
    ("period", "PERIOD"),
    ("count", "COUNTS"),
    ("wait", "WAIT"),
];

fn row(used: &Used, json: bool) -> Value {
    let seconds = |seconds: u64| {
        if json {
            json!(seconds)
        } else {
            json!(format!("{seconds} s"))
        }
    };
    json!({
        "rule": used.rule,
        "key": used.key,
        "used": used.used,
        "limit": used.limit,
        "period": seconds(used.period),
        "count": used.count,
        "wait": seconds(used.wait),
    })
}

fn list(suite: &Suite, all: &[Used]) {
    let rows: Vec<Value> = all.iter().map(|used| row(used, suite.json)).collect();
    output::list(suite.json, COLUMNS, &rows);
}

pub(crate) async fn run(suite: &Suite, command: Limit) -> Result<(), Failure> {
    match command {
        Limit::List { rule, limit } => {
            let all = suite.call(Limitd, &LimitList { rule, limit }).await?;
            list(suite, &all);
        }
        Limit::Show { key } => {
            let all = suite.call(Limitd, &LimitShow { key }).await?;
            list(suite, &all);
        }
        Limit::Reset { key, rule } => {
            let request = LimitReset {
                key: key.clone(),
                rule,
            };
            let count = suite.call(Limitd, &request).await?;
            output::done(
                suite.json,
                &format!("Forgot {count} counts of {key}."),
                &json!({ "forgotten": count }),
            );
        }
    }
    Ok(())
}
