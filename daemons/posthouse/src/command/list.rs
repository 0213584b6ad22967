//! `posthouse list`

use super::held;
use crate::cli::{ListFields, ListMember, Lists};
use crate::connect::Suite;
use crate::failure::Failure;
use crate::output;
use ipc::api::authd::{
    self, ListMemberList, ListMemberPut, ListMemberRemove, MailingList, MailingListList,
    MailingListPut, MailingListRemove, PutMode,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::io::Read as _;
use types::Role::Authd;

const COLUMNS: &[(&str, &str)] = &[
    ("address", "LIST"),
    ("description", "FOR"),
    ("members", "MEMBERS"),
    ("posting", "WHO POSTS"),
    ("subscription", "WHO JOINS"),
];
const ALL: &[(&str, &str)] = &[
    ("address", "LIST"),
    ("description", "FOR"),
    ("owners", "OWNERS"),
    ("members", "MEMBERS"),
    ("posting", "WHO POSTS"),
    ("subscription", "WHO JOINS"),
    ("tag", "TAG"),
    ("footer", "FOOTER"),
    ("from", "OWN FROM"),
    ("reply_to", "REPLIES TO"),
    ("archive", "ARCHIVE"),
    ("archive_url", "ARCHIVE'S PAGE"),
    ("max_bytes", "OCTETS OF A POST"),
    ("max_bounces", "DAYS OF BOUNCES"),
    ("personal", "PERSONAL"),
    ("moderation", "WHAT WAITS"),
    ("held_days", "DAYS OF WAITING"),
];
const MEMBERS: &[(&str, &str)] = &[
    ("address", "MEMBER"),
    ("name", "NAME"),
    ("mail", "GETS MAIL"),
    ("can_post", "MAY POST"),
    ("bounces", "BOUNCES"),
];

/// Members in one call.
const AT_ONCE: usize = 200;

pub(crate) async fn run(suite: &Suite, command: Lists) -> Result<(), Failure> {
    match command {
        Lists::Create(fields) => {
            let empty = MailingList {
                address: fields.address.clone(),
                description: String::new(),
                owners: Vec::new(),
                posting: authd::Posting::default(),
                subscription: authd::Subscription::default(),
                tag: String::new(),
                footer: String::new(),
                from: authd::FromHandling::default(),
                reply_to: authd::ReplyTo::default(),
                archive: None,
                archive_url: None,
                max_bytes: 0,
                max_bounces: 5,
                members: 0,
                personal: false,
                moderation: authd::Moderation::default(),
                held_days: 7,
            };
            put(suite, PutMode::Create, changed(empty, fields)?, "Created").await
        }
        Lists::Set(fields) => {
            let list = find(suite, &fields.address).await?;
            put(suite, PutMode::Update, changed(list, fields)?, "Changed").await
        }
        Lists::List => list(suite).await,
        Lists::Show { address } => {
            output::one(suite.json, ALL, &row(&find(suite, &address).await?)?);
            Ok(())
        }
        Lists::Remove { address } => {
            let request = MailingListRemove {
                address: address.clone(),
            };
            suite.call(Authd, &request).await?;
            let text = format!("Removed {address}.");
            output::done(suite.json, &text, &json!({ "removed": address }));
            Ok(())
        }
        Lists::Member(command) => member(suite, command).await,
        Lists::Held { list, decide } => held::run(suite, list, decide).await,
    }
}

/// A word of an enumeration, as clap has let it pass.
fn word<T: DeserializeOwned>(word: String) -> Result<T, Failure> {
    serde_json::from_value(Value::String(word)).map_err(|error| Failure::new(error.to_string()))
}

fn changed(mut list: MailingList, fields: ListFields) -> Result<MailingList, Failure> {
    if let Some(description) = fields.description {
        list.description = description;
    }
    if !fields.owners.is_empty() {
        list.owners = fields.owners;
    }
    if let Some(posting) = fields.posting {
        list.posting = word(posting)?;
    }
    if let Some(subscription) = fields.subscription {
        list.subscription = word(subscription)?;
    }
    if let Some(tag) = fields.tag {
        list.tag = tag;
    }
    if let Some(footer) = fields.footer {
        list.footer = footer;
    }
    if let Some(file) = fields.footer_file {
        list.footer = std::fs::read_to_string(&file)
            .map_err(|error| Failure::new(format!("{}: {error}", file.display())))?;
    }
    if let Some(from) = fields.own_from {
        list.from = word(from)?;
    }
    if let Some(reply_to) = fields.reply_to {
        list.reply_to = word(reply_to)?;
    }
    if let Some(archive) = fields.archive {
        list.archive = Some(archive).filter(|text| !text.is_empty());
    }
    if let Some(url) = fields.archive_url {
        list.archive_url = Some(url).filter(|text| !text.is_empty());
    }
    if let Some(octets) = fields.max_bytes {
        list.max_bytes = octets;
    }
    if let Some(bounces) = fields.max_bounces {
        list.max_bounces = bounces;
    }
    if let Some(word) = fields.personal {
        list.personal = word == "yes";
    }
    if let Some(moderation) = fields.moderation {
        list.moderation = word(moderation)?;
    }
    if let Some(days) = fields.held_days {
        list.held_days = days;
    }
    Ok(list)
}

async fn put(suite: &Suite, mode: PutMode, list: MailingList, done: &str) -> Result<(), Failure> {
    let shown = row(&list)?;
    let text = format!("{done} {}.", list.address);
    suite.call(Authd, &MailingListPut { mode, list }).await?;
    output::done(suite.json, &text, &shown);
    Ok(())
}

async fn list(suite: &Suite) -> Result<(), Failure> {
    let mut rows = Vec::new();
    let mut after = None;
    loop {
        let request = MailingListList {
            address: None,
            after: after.take(),
        };
        let lists = suite.call(Authd, &request).await?;
        for list in &lists {
            rows.push(row(list)?);
        }
        match lists.last() {
            Some(last) => after = Some(last.address.clone()),
            None => break,
        }
    }
    output::list(suite.json, COLUMNS, &rows);
    Ok(())
}

async fn find(suite: &Suite, address: &str) -> Result<MailingList, Failure> {
    let request = MailingListList {
        address: Some(address.to_owned()),
        after: None,
    };
    let found = suite.call(Authd, &request).await?.pop();
    found.ok_or_else(|| Failure::new(format!("there is no list {address}")))
}

fn row(list: &impl Serialize) -> Result<Value, Failure> {
    serde_json::to_value(list).map_err(|error| Failure::new(error.to_string()))
}

async fn member(suite: &Suite, command: ListMember) -> Result<(), Failure> {
    match command {
        ListMember::Add {
            list,
            address,
            name,
            nomail,
            no_post,
        } => {
            let member = authd::ListMember {
                address,
                name: name.unwrap_or_default(),
                nomail,
                can_post: !no_post,
                joined: 0,
                bounces: 0,
                suspended: false,
            };
            add(suite, &list, vec![member]).await
        }
        ListMember::Import { list, file } => {
            let text = match file {
                Some(file) => std::fs::read_to_string(&file)
                    .map_err(|error| Failure::new(format!("{}: {error}", file.display())))?,
                None => {
                    let mut text = String::new();
                    let read = std::io::stdin().read_to_string(&mut text);
                    read.map_err(|error| Failure::new(error.to_string()))?;
                    text
                }
            };
            let lines = text.lines().map(str::trim);
            let members = lines
                .filter(|line| !line.is_empty() && !line.starts_with('#'))
                .map(of_line);
            add(suite, &list, members.collect()).await
        }
        ListMember::List { list } => {
            let mut rows = Vec::new();
            let mut after = None;
            loop {
                let request = ListMemberList {
                    list: list.clone(),
                    after: after.take(),
                };
                let members = suite.call(Authd, &request).await?;
                for member in &members {
                    let mut shown = row(member)?;
                    let mail = !member.nomail && !member.suspended;
                    if let Some(object) = shown.as_object_mut() {
                        object.insert("mail".to_owned(), json!(mail));
                    }
                    rows.push(shown);
                }
                match members.last() {
                    Some(last) => after = Some(last.address.clone()),
                    None => break,
                }
            }
            output::list(suite.json, MEMBERS, &rows);
            Ok(())
        }
        ListMember::Remove { list, addresses } => {
            let mut gone = 0;
            for members in addresses.chunks(AT_ONCE) {
                let request = ListMemberRemove {
                    list: list.clone(),
                    members: members.to_vec(),
                };
                gone += suite.call(Authd, &request).await?;
            }
            let text = format!("Removed {gone} members.");
            output::done(suite.json, &text, &json!({ "removed": gone }));
            Ok(())
        }
    }
}

/// `jane@example.org`, or `Jane <jane@example.org>`.
fn of_line(line: &str) -> authd::ListMember {
    let (name, address) = match line.rsplit_once('<') {
        Some((name, rest)) => (name.trim().trim_matches('"'), rest.trim_end_matches('>')),
        None => ("", line),
    };
    authd::ListMember {
        address: address.trim().to_owned(),
        name: name.to_owned(),
        nomail: false,
        can_post: true,
        joined: 0,
        bounces: 0,
        suspended: false,
    }
}

async fn add(suite: &Suite, list: &str, members: Vec<authd::ListMember>) -> Result<(), Failure> {
    let count = members.len();
    for members in members.chunks(AT_ONCE) {
        let request = ListMemberPut {
            list: list.to_owned(),
            members: members.to_vec(),
        };
        suite.call(Authd, &request).await?;
    }
    let text = format!("{count} members of {list} written.");
    output::done(
        suite.json,
        &text,
        &json!({ "list": list, "written": count }),
    );
    Ok(())
}
