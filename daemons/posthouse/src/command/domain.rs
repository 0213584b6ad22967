//! `posthouse domain`

use crate::cli::{Domain, DomainFields};
use crate::connect::Suite;
use crate::failure::Failure;
use crate::output::{self, bytes};
use ipc::api::authd::{self, DomainList, DomainPut, DomainRemove, PutMode};
use serde_json::{Value, json};
use types::Role::Authd;

const COLUMNS: &[(&str, &str)] = &[
    ("name", "DOMAIN"),
    ("enabled", "ENABLED"),
    ("catch_all", "CATCH-ALL"),
    ("alias_of", "ALIAS OF"),
    ("subaddressing", "SUBADDRESSING"),
    ("quota", "QUOTA OF NEW ACCOUNTS"),
];

pub(crate) async fn run(suite: &Suite, command: Domain) -> Result<(), Failure> {
    match command {
        Domain::Add(fields) => add(suite, fields).await,
        Domain::Set(fields) => set(suite, fields).await,
        Domain::List => {
            let domains = suite.call(Authd, &DomainList { name: None }).await?;
            output::list(
                suite.json,
                COLUMNS,
                &domains.iter().map(row).collect::<Vec<_>>(),
            );
            Ok(())
        }
        Domain::Show { name } => {
            output::one(suite.json, COLUMNS, &row(&find(suite, &name).await?));
            Ok(())
        }
        Domain::Remove { name } => {
            suite
                .call(Authd, &DomainRemove { name: name.clone() })
                .await?;
            output::done(
                suite.json,
                &format!("Removed {name}."),
                &json!({ "removed": name }),
            );
            Ok(())
        }
    }
}

async fn add(suite: &Suite, fields: DomainFields) -> Result<(), Failure> {
    let domain = authd::Domain {
        name: fields.name,
        enabled: fields.enabled.unwrap_or(true),
        catch_all: fields.catch_all.filter(|text| !text.is_empty()),
        subaddressing: fields.subaddressing.unwrap_or(true),
        quota_bytes: fields.quota.unwrap_or(0),
        alias_of: fields.alias_of.filter(|text| !text.is_empty()),
    };
    put(suite, PutMode::Create, domain, "Added").await
}

async fn set(suite: &Suite, fields: DomainFields) -> Result<(), Failure> {
    let mut domain = find(suite, &fields.name).await?;
    if let Some(enabled) = fields.enabled {
        domain.enabled = enabled;
    }
    if let Some(catch_all) = fields.catch_all {
        domain.catch_all = Some(catch_all).filter(|text| !text.is_empty());
    }
    if let Some(alias_of) = fields.alias_of {
        domain.alias_of = Some(alias_of).filter(|text| !text.is_empty());
    }
    if let Some(subaddressing) = fields.subaddressing {
        domain.subaddressing = subaddressing;
    }
    if let Some(quota) = fields.quota {
        domain.quota_bytes = quota;
    }
    put(suite, PutMode::Update, domain, "Changed").await
}

async fn put(
    suite: &Suite,
    mode: PutMode,
    domain: authd::Domain,
    done: &str,
) -> Result<(), Failure> {
    suite
        .call(
            Authd,
            &DomainPut {
                mode,
                domain: domain.clone(),
            },
        )
        .await?;
    output::done(
        suite.json,
        &format!("{done} {}.", domain.name),
        &row(&domain),
    );
    Ok(())
}

async fn find(suite: &Suite, name: &str) -> Result<authd::Domain, Failure> {
    let found = suite
        .call(
            Authd,
            &DomainList {
                name: Some(name.to_owned()),
            },
        )
        .await?;
    found
        .into_iter()
        .next()
        .ok_or_else(|| Failure::new(format!("there is no domain {name}")))
}

fn row(domain: &authd::Domain) -> Value {
    json!({
        "name": domain.name,
        "enabled": domain.enabled,
        "catch_all": domain.catch_all,
        "alias_of": domain.alias_of,
        "subaddressing": domain.subaddressing,
        "quota_bytes": domain.quota_bytes,
        "quota": bytes(domain.quota_bytes, "unlimited"),
    })
}
