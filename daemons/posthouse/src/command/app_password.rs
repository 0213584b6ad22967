//! `posthouse app-password`

use crate::cli::AppPassword;
use crate::command::account::rights;
use crate::connect::Suite;
use crate::failure::Failure;
use crate::output;
use crate::time;
use ipc::api::authd::{self, AppPasswordAdd, AppPasswordList, AppPasswordRemove};
use serde_json::{Value, json};
use types::Role::Authd;

const COLUMNS: &[(&str, &str)] = &[
    ("label", "FOR"),
    ("rights", "RIGHTS"),
    ("created", "MADE"),
    ("last_used", "LAST USED"),
];

pub(crate) async fn run(suite: &Suite, command: AppPassword) -> Result<(), Failure> {
    match command {
        AppPassword::Add {
            account,
            label,
            rights,
        } => {
            let request = AppPasswordAdd {
                account: account.clone(),
                label: label.clone(),
                rights,
            };
            let made = suite.call(Authd, &request).await?;
            let text = format!(
                "{}\nThe password of {label} for {account}. It is not shown again.",
                made.password
            );
            let value = json!({ "account": account, "label": label, "password": made.password });
            output::done(suite.json, &text, &value);
        }
        AppPassword::List { account } => {
            let found = suite.call(Authd, &AppPasswordList { account }).await?;
            output::list(
                suite.json,
                COLUMNS,
                &found.iter().map(row).collect::<Vec<_>>(),
            );
        }
        AppPassword::Show { account, label } => {
            let found = suite.call(Authd, &AppPasswordList { account }).await?;
            let one = found.iter().find(|password| password.label == label);
            let one = one
                .ok_or_else(|| Failure::new(format!("there is no application password {label}")))?;
            output::one(suite.json, COLUMNS, &row(one));
        }
        AppPassword::Remove { account, label } => {
            let request = AppPasswordRemove {
                account: account.clone(),
                label: label.clone(),
            };
            suite.call(Authd, &request).await?;
            let value = json!({ "account": account, "removed": label });
            output::done(
                suite.json,
                &format!("Removed {label} of {account}."),
                &value,
            );
        }
    }
    Ok(())
}

fn row(password: &authd::AppPassword) -> Value {
    json!({
        "label": password.label,
        "rights": rights(password.rights),
        "created": time::utc(password.created),
        "last_used": password.last_used.map(time::utc),
    })
}
