//! `posthouse queue`

use crate::cli::{Filter, Queue};
use crate::connect::Suite;
use crate::failure::Failure;
use crate::output::{self, bytes, span};
use crate::time;
use ipc::api::queued::{
    QueueEntry, QueueExplain, QueueFilter, QueueForget, QueueHold, QueueList, QueueNodes,
    QueueRecipient, QueueRelease, QueueRemove, QueueReroute, QueueRetry, QueueShow, QueueStats,
};
use serde_json::{Value, json};
use types::Role::Queued;

const COLUMNS: &[(&str, &str)] = &[
    ("id", "ID"),
    ("age", "AGE"),
    ("size_text", "SIZE"),
    ("state", "STATE"),
    ("sender", "SENDER"),
    ("to", "RECIPIENTS"),
    ("node", "NODE"),
    ("why", "LAST ANSWER"),
];
const PAGE: u32 = 200;

pub(crate) async fn run(suite: &Suite, command: Queue) -> Result<(), Failure> {
    match command {
        Queue::List(filter) => list(suite, &filter).await,
        Queue::Show { id } => show(suite, &id).await,
        Queue::Retry(filter) => {
            let filter = chosen(&filter)?;
            concerned(
                suite,
                "to be tried now",
                suite.call(Queued, &QueueRetry { filter }).await?,
            )
        }
        Queue::Hold(filter) => {
            let filter = chosen(&filter)?;
            concerned(
                suite,
                "held",
                suite.call(Queued, &QueueHold { filter }).await?,
            )
        }
        Queue::Release { filter, early } => {
            let filter = chosen(&filter)?;
            concerned(
                suite,
                "released",
                suite.call(Queued, &QueueRelease { filter, early }).await?,
            )
        }
        Queue::Remove { filter, bounce } => {
            let filter = chosen(&filter)?;
            concerned(
                suite,
                "removed",
                suite.call(Queued, &QueueRemove { filter, bounce }).await?,
            )
        }
        Queue::Reroute { filter, route } => {
            let filter = chosen(&filter)?;
            concerned(
                suite,
                "rerouted",
                suite.call(Queued, &QueueReroute { filter, route }).await?,
            )
        }
        Queue::Explain { id } => explain(suite, &id).await,
        Queue::Stats => stats(suite).await,
        Queue::Nodes { forget: None } => nodes(suite).await,
        Queue::Nodes { forget: Some(name) } => forget(suite, name).await,
    }
}

/// All that the filter finds, a page at a time.
pub(crate) async fn entries(
    suite: &Suite,
    filter: QueueFilter,
) -> Result<Vec<QueueEntry>, Failure> {
    let mut found = Vec::new();
    loop {
        let page = QueueList {
            filter: filter.clone(),
            after: found.last().map(|entry: &QueueEntry| entry.id),
            limit: PAGE,
        };
        let entries = suite.call(Queued, &page).await?;
        let last = entries.len() < PAGE as usize;
        found.extend(entries);
        if last {
            return Ok(found);
        }
    }
}

async fn list(suite: &Suite, filter: &Filter) -> Result<(), Failure> {
    let found = entries(suite, parsed(filter)?).await?;
    let rows: Vec<Value> = found.iter().map(row).collect();
    if rows.is_empty() && !suite.json {
        output::say("The queue is empty.");
        return Ok(());
    }
    output::list(suite.json, COLUMNS, &rows);
    Ok(())
}

async fn show(suite: &Suite, id: &str) -> Result<(), Failure> {
    let id = id
        .parse()
        .map_err(|error| Failure::new(format!("{id} is no queue id: {error}")))?;
    let detail = suite.call(Queued, &QueueShow { id }).await?;
    let header = String::from_utf8_lossy(&detail.header).into_owned();
    let mut value = row(&detail.entry);
    if let Value::Object(fields) = &mut value {
        fields.insert("origin".to_owned(), json!(detail.origin));
        fields.insert("header".to_owned(), json!(header));
    }
    if suite.json {
        output::print(&value);
        return Ok(());
    }
    let columns = [
        ("id", "id"),
        ("trace", "trace"),
        ("arrived", "arrived"),
        ("size_text", "size"),
        ("state", "state"),
        ("held_by", "held by"),
        ("held_for", "because of"),
        ("origin", "origin"),
        ("sender", "sender"),
        ("release", "held until"),
        ("priority", "priority"),
        ("by", "deliver by"),
        ("node", "worked on by"),
    ];
    output::one(false, &columns, &value);
    output::say("");
    let columns = [
        ("address", "RECIPIENT"),
        ("route", "WAY"),
        ("attempts", "ATTEMPTS"),
        ("next", "NEXT"),
        ("expires", "GIVEN UP"),
        ("last", "LAST ANSWER"),
    ];
    let recipients: Vec<_> = detail.entry.recipients.iter().map(recipient).collect();
    output::list(false, &columns, &recipients);
    output::say("");
    for line in header.lines() {
        output::say(
            &line
                .chars()
                .map(|c| if c.is_control() && c != '\t' { '?' } else { c })
                .collect::<String>(),
        );
    }
    Ok(())
}

async fn explain(suite: &Suite, id: &str) -> Result<(), Failure> {
    let id = id
        .parse()
        .map_err(|error| Failure::new(format!("{id} is no queue id: {error}")))?;
    let explained = suite.call(Queued, &QueueExplain { id }).await?;
    let value: Vec<Value> = explained
        .iter()
        .map(|one| {
            json!({
                "domain": one.domain,
                "recipients": one.recipients,
                "destination": one.destination,
                "rule": one.rule,
                "passed_over": one.passed_over.iter().map(|(rule, why)| {
                    json!({ "rule": rule, "because_of": why })
                }).collect::<Vec<_>>(),
                "settings": one.settings.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
            })
        })
        .collect();
    if suite.json {
        output::print(&json!(value));
        return Ok(());
    }
    for one in explained {
        output::say(&format!(
            "{} ({} recipients) is in the queue {}",
            one.domain, one.recipients, one.destination
        ));
        for (rule, why) in one.passed_over {
            output::say(&format!("  rule {rule} does not mean it: {why}"));
        }
        output::say(&match one.rule {
            Some(rule) => format!("  rule {rule} decides:"),
            None => "  no rule decides:".to_owned(),
        });
        for (name, setting) in one.settings {
            output::say(&format!("    {name} = {setting}"));
        }
    }
    Ok(())
}

async fn stats(suite: &Suite) -> Result<(), Failure> {
    let figures = suite.call(Queued, &QueueStats).await?;
    let value = json!({
        "messages": figures.messages,
        "active": figures.active,
        "deferred": figures.deferred,
        "held": figures.held,
        "bytes": figures.bytes,
        "size": bytes(figures.bytes, "0 B"),
        "oldest_seconds": figures.oldest,
        "oldest": span(figures.oldest),
        "destinations": figures.destinations.iter().map(|(domain, messages, connections)| {
            json!({ "domain": domain, "messages": messages, "connections": connections })
        }).collect::<Vec<_>>(),
    });
    if suite.json {
        output::print(&value);
        return Ok(());
    }
    let columns = [
        ("messages", "messages"),
        ("active", "being delivered"),
        ("deferred", "waiting"),
        ("held", "held"),
        ("size", "octets"),
        ("oldest", "age of the oldest"),
    ];
    output::one(false, &columns, &value);
    if let Some(Value::Array(rows)) = value.get("destinations")
        && !rows.is_empty()
    {
        output::say("");
        let columns = [
            ("domain", "DESTINATION"),
            ("messages", "MESSAGES"),
            ("connections", "CONNECTIONS"),
        ];
        output::list(false, &columns, rows);
    }
    Ok(())
}

async fn nodes(suite: &Suite) -> Result<(), Failure> {
    let nodes = suite.call(Queued, &QueueNodes).await?;
    let rows: Vec<Value> = nodes
        .iter()
        .map(|node| {
            json!({
                "name": node.name,
                "number": node.number,
                "state": if node.alive { "alive" } else { "gone" },
                "own": node.own,
                "began": time::utc(node.began),
                "seen": time::utc(node.seen),
                "in_journal": node.in_journal,
                "loaded": node.loaded,
            })
        })
        .collect();
    let columns = [
        ("name", "NODE"),
        ("number", "NUMBER"),
        ("state", "STATE"),
        ("began", "BEGAN"),
        ("seen", "LAST SEEN"),
        ("in_journal", "IN ITS JOURNAL"),
        ("loaded", "WORKS ON"),
    ];
    output::list(suite.json, &columns, &rows);
    Ok(())
}

async fn forget(suite: &Suite, name: String) -> Result<(), Failure> {
    let call = QueueForget { name: name.clone() };
    if !suite.call(Queued, &call).await? {
        return Err(Failure::new(format!(
            "there is no node {name}, or it is alive"
        )));
    }
    output::done(
        suite.json,
        &format!("{name} is forgotten."),
        &json!({ "name": name }),
    );
    Ok(())
}

fn concerned(suite: &Suite, what: &str, count: u64) -> Result<(), Failure> {
    let plural = if count == 1 { "message" } else { "messages" };
    output::done(
        suite.json,
        &format!("{count} {plural} {what}."),
        &json!({ "messages": count }),
    );
    Ok(())
}

/// A filter for a command that changes something: never everything by accident.
fn chosen(filter: &Filter) -> Result<QueueFilter, Failure> {
    let open = filter.ids.is_empty()
        && filter.sender.is_none()
        && filter.recipient.is_none()
        && filter.held.is_none();
    if open && !filter.all {
        return Err(Failure::new(
            "say which messages: ids, --sender, --recipient, --held, or --all",
        ));
    }
    parsed(filter)
}

fn parsed(filter: &Filter) -> Result<QueueFilter, Failure> {
    let id = |text: &String| {
        text.parse()
            .map_err(|error| Failure::new(format!("{text} is no queue id: {error}")))
    };
    Ok(QueueFilter {
        ids: filter.ids.iter().map(id).collect::<Result<_, _>>()?,
        sender: filter.sender.clone(),
        recipient: filter.recipient.clone(),
        held: filter.held,
    })
}

fn row(entry: &QueueEntry) -> Value {
    let mut to: Vec<String> = entry
        .recipients
        .iter()
        .take(3)
        .map(|r| r.recipient.address.to_string())
        .collect();
    if entry.pending as usize > to.len() {
        to.push(format!("and {} more", entry.pending as usize - to.len()));
    }
    let attempts = entry
        .recipients
        .iter()
        .map(|r| r.attempts)
        .max()
        .unwrap_or(0);
    let scheduled = entry
        .terms
        .release
        .filter(|release| release.at > time::now());
    let last = entry.recipients.iter().find_map(|one| one.last.as_ref());
    let last = last.map(ToString::to_string);
    let hold = entry.hold.as_ref();
    json!({
        "id": entry.id.to_string(),
        "trace": entry.trace.to_string(),
        "arrived": time::utc(entry.arrived),
        "age": span(time::now().saturating_sub(entry.arrived)),
        "size": entry.size,
        "size_text": bytes(entry.size, "0 B"),
        "sender": entry.sender.as_ref().map_or("<>".to_owned(), ToString::to_string),
        "state": match (entry.held, attempts) {
            (true, _) => "held",
            (false, 0) if scheduled.is_some() => "scheduled",
            (false, 0) => "new",
            (false, _) => "waiting",
        },
        "release": scheduled.map(|release| time::utc(release.at)),
        "priority": entry.terms.priority,
        "by": entry.terms.by.map(|by| format!("{}, then it is {}", time::utc(by.deadline), match by.mode {
            types::ByMode::Notify => "reported late",
            types::ByMode::Return => "returned",
        })),
        "held": entry.held,
        "post": entry.post.map(|post| post.to_string()),
        "node": Some(&entry.node).filter(|node| !node.is_empty()),
        "pending": entry.pending,
        "to": to,
        "recipients": entry.recipients.iter().map(recipient).collect::<Vec<_>>(),
        "held_by": hold.map(|hold| &hold.by),
        "held_for": hold.map(|hold| &hold.reason),
        "why": hold.map(|hold| format!("held by {}: {}", hold.by, hold.reason)).or_else(|| last.clone()),
        "last": last,
    })
}

fn recipient(waiting: &QueueRecipient) -> Value {
    json!({
        "address": waiting.recipient.address.to_string(),
        "route": match waiting.recipient.route {
            types::Route::Local => "local",
            types::Route::Remote => "remote",
        },
        "attempts": waiting.attempts,
        "next": time::utc(waiting.next),
        "expires": time::utc(waiting.expires),
        "last": waiting.last.as_ref().map(|status| match &status.host {
            Some(host) => format!("{status} ({host})"),
            None => status.to_string(),
        }),
    })
}
