//! `posthouse script`: Sieve scripts of accounts, by the operator.

use crate::cli::Script;
use crate::connect::Suite;
use crate::failure::Failure;
use crate::mailstore::MailStore;
use crate::output;
use ipc::api::stored::{Mutate, Mutation};
use serde_json::{Value, json};
use std::io::Read as _;
use types::{Grant, Octets, RequestId, Role::Stored};

const COLUMNS: &[(&str, &str)] = &[("name", "SCRIPT"), ("active", "ACTIVE"), ("size", "OCTETS")];

pub(crate) async fn run(
    suite: &Suite,
    store: &MailStore,
    limits: &sieve::Limits,
    command: Script,
) -> Result<(), Failure> {
    match command {
        Script::List { account } => {
            let grant = crate::command::operator(suite, &account).await?;
            let reader = store.reader().await?;
            let scripts = reader.scripts(grant.account).await?;
            let rows: Vec<Value> = scripts.iter().map(row).collect();
            output::list(suite.json, COLUMNS, &rows);
            Ok(())
        }
        Script::Put {
            account,
            name,
            file,
            activate,
        } => {
            let content = content(file.as_deref())?;
            sieve::compile(&content, limits)
                .map_err(|problem| Failure::new(problem.to_string()))?;
            let grant = crate::command::operator(suite, &account).await?;
            let put = Mutation::ScriptPut {
                name: name.clone(),
                content: Octets(content),
            };
            change(suite, &grant, put).await?;
            if activate {
                let name = Some(name.clone());
                change(suite, &grant, Mutation::ScriptActivate { name }).await?;
            }
            let text = format!(
                "Stored {name}{}.",
                if activate { ", and it is active" } else { "" }
            );
            output::done(
                suite.json,
                &text,
                &json!({ "name": name, "active": activate }),
            );
            Ok(())
        }
        Script::Show { account, name } => {
            let grant = crate::command::operator(suite, &account).await?;
            let found = store.reader().await?.script(grant.account, &name).await?;
            let content =
                found.ok_or_else(|| Failure::new(format!("there is no script {name}")))?;
            let text = String::from_utf8_lossy(&content);
            output::done(
                suite.json,
                text.trim_end(),
                &json!({ "name": name, "content": text }),
            );
            Ok(())
        }
        Script::Activate { account, name } => {
            let grant = crate::command::operator(suite, &account).await?;
            let activate = Mutation::ScriptActivate { name: name.clone() };
            change(suite, &grant, activate).await?;
            let text = match &name {
                Some(name) => format!("{name} is active."),
                None => "No script is active.".to_owned(),
            };
            output::done(suite.json, &text, &json!({ "active": name }));
            Ok(())
        }
        Script::Delete { account, name } => {
            let grant = crate::command::operator(suite, &account).await?;
            change(suite, &grant, Mutation::ScriptDelete { name: name.clone() }).await?;
            output::done(
                suite.json,
                &format!("Deleted {name}."),
                &json!({ "deleted": name }),
            );
            Ok(())
        }
    }
}

/// The file, or standard input. A script is text.
fn content(file: Option<&std::path::Path>) -> Result<Vec<u8>, Failure> {
    let content = match file {
        Some(path) => std::fs::read(path)
            .map_err(|error| Failure::new(format!("{}: {error}", path.display())))?,
        None => {
            let mut content = Vec::new();
            std::io::stdin()
                .lock()
                .read_to_end(&mut content)
                .map_err(|error| Failure::new(format!("standard input: {error}")))?;
            content
        }
    };
    Ok(content)
}

async fn change(suite: &Suite, grant: &Grant, mutation: Mutation) -> Result<(), Failure> {
    let call = Mutate {
        request: RequestId(rand::random()),
        account: grant.account,
        grant: grant.clone(),
        mutation,
    };
    suite.call(Stored, &call).await.map(drop)
}

fn row(script: &store::Script) -> Value {
    json!({ "name": script.name, "active": script.active, "size": script.size })
}
