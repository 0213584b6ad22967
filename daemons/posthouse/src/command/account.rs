//! `posthouse account`

use crate::cli::{Account, AccountFields};
use crate::connect::Suite;
use crate::failure::Failure;
use crate::output::{self, bytes};
use crate::password;
use ipc::api::authd::{
    self, AccountList, AccountPut, AccountRemove, DomainList, NewPassword, PutMode,
};
use ipc::api::stored::AccountErase;
use serde_json::{Value, json};
use std::time::Duration;
use types::Role::{Authd, Stored};
use types::{AccountId, Rights};

const COLUMNS: &[(&str, &str)] = &[
    ("name", "ACCOUNT"),
    ("display_name", "PERSON"),
    ("enabled", "ENABLED"),
    ("rights", "RIGHTS"),
    ("quota", "QUOTA"),
    ("quota_messages", "MESSAGES"),
    ("has_password", "PASSWORD"),
];

/// What authd gives at most in one page.
const PAGE: u32 = 200;
/// Erasing a large account takes many transactions.
const ERASING: Duration = Duration::from_secs(1800);

pub(crate) async fn run(suite: &Suite, command: Account) -> Result<(), Failure> {
    match command {
        Account::Add(fields) => add(suite, fields).await,
        Account::Set(fields) => set(suite, fields).await,
        Account::List { domain } => list(suite, domain).await,
        Account::Show { name } => {
            output::one(suite.json, COLUMNS, &row(&find(suite, &name).await?));
            Ok(())
        }
        Account::Remove { name, erase } => remove(suite, name, erase).await,
    }
}

/// First from the directory, so that nobody can log in and no mail comes, then from the store.
async fn remove(suite: &Suite, name: String, erase: bool) -> Result<(), Failure> {
    let account = find(suite, &name).await?.id;
    suite
        .call(Authd, &AccountRemove { name: name.clone() })
        .await?;
    if erase {
        let erased = suite
            .call_within(Stored, &AccountErase { account }, ERASING)
            .await;
        erased.map_err(|failure| {
            Failure::new(format!(
                "{name} is removed from the directory, but its mail (account {account}) is not erased: {failure}; \
                 `posthouse fsck` shows what is left"
            ))
        })?;
    }
    let text = if erase {
        format!("Removed {name} and its mail.")
    } else {
        format!("Removed {name}; its mail (account {account}) stays in the store.")
    };
    let value = json!({ "removed": name, "id": account, "erased": erase });
    output::done(suite.json, &text, &value);
    Ok(())
}

async fn list(suite: &Suite, domain: Option<String>) -> Result<(), Failure> {
    let mut rows = Vec::new();
    let mut after = None;
    loop {
        let page = AccountList {
            name: None,
            domain: domain.clone(),
            after,
            limit: PAGE,
        };
        let accounts = suite.call(Authd, &page).await?;
        rows.extend(accounts.iter().map(row));
        after = accounts.last().map(|account| account.name.clone());
        if accounts.len() < PAGE as usize {
            break;
        }
    }
    output::list(suite.json, COLUMNS, &rows);
    Ok(())
}

async fn add(suite: &Suite, fields: AccountFields) -> Result<(), Failure> {
    let secret = secret(&fields, true)?;
    let quota_bytes = match fields.quota {
        Some(quota) => quota,
        None => default_quota(suite, &fields.name).await?,
    };
    let account = authd::Account {
        id: AccountId(0),
        name: fields.name,
        display_name: fields.display_name.unwrap_or_default(),
        enabled: fields.enabled.unwrap_or(true),
        quota_bytes,
        quota_messages: fields.quota_messages.unwrap_or(0),
        rights: fields.rights.unwrap_or(Rights::ALL),
        has_password: secret.is_some(),
    };
    put(suite, PutMode::Create, account, secret, "Added").await
}

async fn set(suite: &Suite, fields: AccountFields) -> Result<(), Failure> {
    let secret = secret(&fields, false)?;
    let mut account = find(suite, &fields.name).await?;
    if let Some(display_name) = fields.display_name {
        account.display_name = display_name;
    }
    if let Some(enabled) = fields.enabled {
        account.enabled = enabled;
    }
    if let Some(quota) = fields.quota {
        account.quota_bytes = quota;
    }
    if let Some(messages) = fields.quota_messages {
        account.quota_messages = messages;
    }
    if let Some(rights) = fields.rights {
        account.rights = rights;
    }
    put(suite, PutMode::Update, account, secret, "Changed").await
}

/// The quota that the domain gives to new accounts.
async fn default_quota(suite: &Suite, name: &str) -> Result<u64, Failure> {
    let Some((_, domain)) = name.rsplit_once('@') else {
        return Err(Failure::new(
            "an account's name is an address: local@domain",
        ));
    };
    let found = suite
        .call(
            Authd,
            &DomainList {
                name: Some(domain.to_owned()),
            },
        )
        .await?;
    let missing = || {
        Failure::new(format!(
            "there is no domain {domain}: add it first with `posthouse domain add {domain}`"
        ))
    };
    found
        .first()
        .map(|domain| domain.quota_bytes)
        .ok_or_else(missing)
}

fn secret(fields: &AccountFields, needed: bool) -> Result<Option<NewPassword>, Failure> {
    if let Some(hash) = &fields.password_hash {
        return Ok(Some(NewPassword::Hash(hash.clone())));
    }
    if fields.password_stdin {
        return Ok(Some(NewPassword::Clear(password::first_line()?)));
    }
    if needed || fields.password {
        return Ok(Some(NewPassword::Clear(password::ask(&fields.name)?)));
    }
    Ok(None)
}

async fn put(
    suite: &Suite,
    mode: PutMode,
    account: authd::Account,
    password: Option<NewPassword>,
    done: &str,
) -> Result<(), Failure> {
    let account = suite
        .call(
            Authd,
            &AccountPut {
                mode,
                account,
                password,
            },
        )
        .await?;
    output::done(
        suite.json,
        &format!("{done} {}.", account.name),
        &row(&account),
    );
    Ok(())
}

/// The account of that name.
pub(crate) async fn find(suite: &Suite, name: &str) -> Result<authd::Account, Failure> {
    let request = AccountList {
        name: Some(name.to_owned()),
        domain: None,
        after: None,
        limit: 1,
    };
    let found = suite.call(Authd, &request).await?;
    found
        .into_iter()
        .next()
        .ok_or_else(|| Failure::new(format!("there is no account {name}")))
}

fn row(account: &authd::Account) -> Value {
    json!({
        "id": account.id,
        "name": account.name,
        "display_name": account.display_name,
        "enabled": account.enabled,
        "rights": rights(account.rights),
        "quota_bytes": account.quota_bytes,
        "quota": bytes(account.quota_bytes, "unlimited"),
        "quota_messages": account.quota_messages,
        "has_password": account.has_password,
    })
}

/// The names of rights.
pub(crate) fn rights(rights: Rights) -> Vec<&'static str> {
    let names = [
        (Rights::READ, "read"),
        (Rights::WRITE, "write"),
        (Rights::SUBMIT, "submit"),
    ];
    names
        .into_iter()
        .filter(|(right, _)| rights.contains(*right))
        .map(|(_, name)| name)
        .collect()
}
