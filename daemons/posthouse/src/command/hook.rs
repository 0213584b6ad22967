//! `posthouse hook`

use crate::cli::{Hook, HookTrial};
use crate::command::judge::content;
use crate::connect::{Suite, explain};
use crate::failure::Failure;
use crate::output;
use ipc::api::hookd::{
    HookAddress, HookClient, HookFacts, HookList, HookOutcome, HookRow, HookTest, HookTested,
    NewHeader, Verdict,
};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::time::Duration;
use types::{Body, Octets, Role};

const COLUMNS: &[(&str, &str)] = &[
    ("name", "NAME"),
    ("kind", "KIND"),
    ("place", "PLACE"),
    ("listeners", "LISTENERS"),
    ("asked", "ASKED"),
    ("failed", "AWAY"),
    ("answers", "ANSWERS"),
];
const OUTCOME: &[(&str, &str)] = &[
    ("stage", "STAGE"),
    ("verdict", "VERDICT"),
    ("filter", "FILTER"),
    ("code", "CODE"),
    ("text", "TEXT"),
    ("sender", "NEW SENDER"),
    ("added", "ADDED"),
    ("removed", "REMOVED"),
    ("quarantine", "JUNK"),
    ("held", "HELD"),
    ("header", "NEW HEADER"),
    ("body", "NEW BODY"),
];
/// Filters may take their time.
const PATIENCE: Duration = Duration::from_secs(600);

pub(crate) async fn run(suite: &Suite, command: Hook) -> Result<(), Failure> {
    match command {
        Hook::List { probe } => {
            let rows = list(suite, probe).await?;
            let rows: Vec<Value> = rows.iter().map(row).collect();
            output::list(suite.json, COLUMNS, &rows);
            Ok(())
        }
        Hook::Test(trial) => test(suite, trial).await,
    }
}

/// All filters.
pub(crate) async fn list(suite: &Suite, probe: bool) -> Result<Vec<HookRow>, Failure> {
    let request = HookList { probe };
    suite.call_within(Role::Hookd, &request, PATIENCE).await
}

fn row(row: &HookRow) -> Value {
    let answers = row.answers.as_ref().map(|answer| match answer {
        Ok(words) => words.clone(),
        Err(why) => format!("no: {why}"),
    });
    let listeners = match row.listeners.as_slice() {
        [] => "all".to_owned(),
        some => some.join(" "),
    };
    json!({
        "name": row.name, "kind": row.kind, "place": row.place, "listeners": listeners,
        "asked": row.asked, "failed": row.failed, "answers": answers,
    })
}

async fn test(suite: &Suite, trial: HookTrial) -> Result<(), Failure> {
    let message = content(trial.file.as_deref())?;
    let (body, descriptors) = passed(message)?;
    let plain = |address: &str| HookAddress {
        address: address.trim_matches(['<', '>']).to_owned(),
        ..HookAddress::default()
    };
    let recipients = match trial.recipient.as_slice() {
        [] => vec![plain(&format!("postmaster@{}", suite.hostname))],
        named => named.iter().map(|one| plain(one)).collect(),
    };
    let request = HookTest {
        client: HookClient {
            listener: trial.listener.unwrap_or_else(|| "mx".to_owned()),
            role: "mx".to_owned(),
            hostname: suite.hostname.clone(),
            address: trial.client,
            port: 0,
            server: None,
        },
        facts: HookFacts {
            hello: trial.helo,
            extended: true,
            tls: None,
            login: trial.login.map(|login| (login, "PLAIN".to_owned())),
        },
        sender: plain(&trial.sender),
        recipients,
        body,
        filter: trial.filter,
    };
    let client = suite.client(Role::Hookd).await?;
    let answer = client
        .call_with(suite.trace, &request, descriptors, PATIENCE)
        .await;
    let (tested, descriptors) = answer.map_err(|error| explain(Role::Hookd, error))?;
    output::one(suite.json, OUTCOME, &told(tested, descriptors)?);
    Ok(())
}

/// The message in the call, or in memory that goes along.
fn passed(message: Vec<u8>) -> Result<(Body, Vec<OwnedFd>), Failure> {
    if message.len() <= Body::INLINE_MAX {
        return Ok((Body::Inline(Octets(message)), Vec::new()));
    }
    let file = || {
        let flags = rustix::fs::MemfdFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::memfd_create("message", flags)?);
        file.write_all(&message)?;
        std::io::Result::Ok(file)
    };
    let file = file().map_err(|error| Failure::new(error.to_string()))?;
    let len = message.len() as u64;
    Ok((Body::Attached { len }, vec![file.into()]))
}

fn told(tested: HookTested, descriptors: Vec<OwnedFd>) -> Result<Value, Failure> {
    let HookOutcome {
        verdict,
        sender,
        removed,
        added,
        header,
        body,
        quarantine,
        held,
        ..
    } = tested.outcome;
    let mut descriptors = descriptors.into_iter();
    let mut text = |body: Body| -> Result<String, Failure> {
        let octets = match (body, descriptors.next()) {
            (Body::Inline(octets), _) => octets.0,
            (Body::Attached { len }, Some(descriptor)) => {
                use std::io::Seek as _;
                let mut file = File::from(descriptor);
                let mut octets = Vec::new();
                let read = file
                    .rewind()
                    .and_then(|()| file.take(len).read_to_end(&mut octets));
                read.map_err(|error| Failure::new(error.to_string()))?;
                octets
            }
            _ => return Err(Failure::new("hookd gave no descriptor")),
        };
        Ok(String::from_utf8_lossy(&octets).into_owned())
    };
    let header = match header {
        NewHeader::Same => None,
        NewHeader::Before(octets) => Some(String::from_utf8_lossy(&octets).into_owned()),
        NewHeader::Whole { before, own, rest } => {
            let before = [before.as_slice(), own.as_slice()].concat();
            Some(String::from_utf8_lossy(&before).into_owned() + &text(rest)?)
        }
    };
    let body = body.map(text).transpose()?;
    let (word, filter, code, reason) = match verdict {
        Verdict::Go => ("accept", None, None, None),
        Verdict::Discard(filter) => ("discard", Some(filter), None, None),
        Verdict::Refuse(refusal) => (
            "refuse",
            Some(refusal.filter),
            Some(refusal.code),
            Some(format!("{} {}", refusal.enhanced, refusal.text)),
        ),
    };
    let added: Vec<String> = added.into_iter().map(|one| one.address).collect();
    Ok(json!({
        "stage": tested.stage, "verdict": word, "filter": filter, "code": code, "text": reason, "sender": sender,
        "added": added.join(" "), "removed": removed.join(" "),
        "quarantine": quarantine.map(|(filter, reason)| format!("{filter}: {reason}")),
        "held": held.map(|held| format!("{}: {}", held.by, held.reason)),
        "header": header, "body": body,
    }))
}
