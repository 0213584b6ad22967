//! `posthouse group`

use crate::cli::{Group, GroupFields};
use crate::connect::Suite;
use crate::failure::Failure;
use crate::output;
use ipc::api::authd::{self, GroupList, GroupPut, GroupRemove, PutMode};
use serde_json::{Value, json};
use types::Role::Authd;

const COLUMNS: &[(&str, &str)] = &[
    ("address", "GROUP"),
    ("description", "FOR"),
    ("members", "MEMBERS"),
    ("send_as", "MAY SEND AS"),
    ("shared", "SHARED"),
];
const PAGE: u32 = 200;

pub(crate) async fn run(suite: &Suite, command: Group) -> Result<(), Failure> {
    match command {
        Group::Add(fields) => {
            let group = authd::Group {
                address: fields.address,
                description: fields.description.unwrap_or_default(),
                members: fields.members,
                send_as: fields.send_as.unwrap_or(false),
                shared: fields.shared.unwrap_or(false),
                id: types::AccountId(0),
            };
            put(suite, PutMode::Create, group, "Added").await
        }
        Group::Set(fields) => set(suite, fields).await,
        Group::List => list(suite).await,
        Group::Show { address } => {
            output::one(suite.json, COLUMNS, &row(&find(suite, &address).await?));
            Ok(())
        }
        Group::Remove { address } => {
            suite
                .call(
                    Authd,
                    &GroupRemove {
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

async fn set(suite: &Suite, fields: GroupFields) -> Result<(), Failure> {
    let mut group = find(suite, &fields.address).await?;
    if let Some(description) = fields.description {
        group.description = description;
    }
    if !fields.members.is_empty() {
        group.members = fields.members;
    }
    if let Some(send_as) = fields.send_as {
        group.send_as = send_as;
    }
    if let Some(shared) = fields.shared {
        group.shared = shared;
    }
    put(suite, PutMode::Update, group, "Changed").await
}

async fn list(suite: &Suite) -> Result<(), Failure> {
    let mut rows = Vec::new();
    let mut after = None;
    loop {
        let groups = suite
            .call(
                Authd,
                &GroupList {
                    address: None,
                    after,
                    limit: PAGE,
                },
            )
            .await?;
        rows.extend(groups.iter().map(row));
        after = groups.last().map(|group| group.address.clone());
        if groups.len() < PAGE as usize {
            break;
        }
    }
    output::list(suite.json, COLUMNS, &rows);
    Ok(())
}

async fn find(suite: &Suite, address: &str) -> Result<authd::Group, Failure> {
    let request = GroupList {
        address: Some(address.to_owned()),
        after: None,
        limit: 1,
    };
    let found = suite.call(Authd, &request).await?;
    found
        .into_iter()
        .next()
        .ok_or_else(|| Failure::new(format!("there is no group {address}")))
}

async fn put(suite: &Suite, mode: PutMode, group: authd::Group, done: &str) -> Result<(), Failure> {
    suite
        .call(
            Authd,
            &GroupPut {
                mode,
                group: group.clone(),
            },
        )
        .await?;
    output::done(
        suite.json,
        &format!("{done} {}.", group.address),
        &row(&group),
    );
    Ok(())
}

fn row(group: &authd::Group) -> Value {
    json!({
        "address": group.address,
        "description": group.description,
        "members": group.members,
        "send_as": group.send_as,
        "shared": group.shared,
    })
}
