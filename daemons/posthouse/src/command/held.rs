//! `posthouse list held`

use crate::cli::{HeldPost, ListHeld};
use crate::command::queue::entries;
use crate::connect::Suite;
use crate::failure::Failure;
use crate::output::{self, bytes, span};
use crate::time;
use ipc::api::queued::{Decision, QueueDecide, QueueEntry, QueueFilter, QueueShow};
use serde_json::{Value, json};
use types::Role::Queued;
use types::{Address, QueueId};

const COLUMNS: &[(&str, &str)] = &[
    ("id", "ID"),
    ("age", "AGE"),
    ("size_text", "SIZE"),
    ("from", "FROM"),
    ("subject", "SUBJECT"),
    ("until", "UNTIL"),
    ("why", "WHY"),
];

pub(crate) async fn run(
    suite: &Suite,
    list: Option<String>,
    decide: Option<ListHeld>,
) -> Result<(), Failure> {
    let (decision, post, done) = match decide {
        None => return show(suite, &list.unwrap_or_default()).await,
        Some(ListHeld::Accept(post)) => (Decision::Accept, post, "goes to the members"),
        Some(ListHeld::Reject(post)) => (Decision::Reject, post, "is refused"),
        Some(ListHeld::Discard(post)) => (Decision::Discard, post, "is removed"),
    };
    let HeldPost { list, id } = post;
    let call = QueueDecide {
        list: address(&list)?,
        post: parsed(&id)?,
        decision,
    };
    if !suite.call(Queued, &call).await? {
        return Err(Failure::new(format!(
            "no post {id} waits for the owners of {list}: it was decided on, or was given up"
        )));
    }
    output::done(
        suite.json,
        &format!("{id} {done}."),
        &json!({ "list": list, "id": id, "decision": format!("{decision:?}").to_lowercase() }),
    );
    Ok(())
}

fn address(text: &str) -> Result<Address, Failure> {
    text.parse()
        .map_err(|error| Failure::new(format!("{text} is no address: {error}")))
}

fn parsed(id: &str) -> Result<QueueId, Failure> {
    id.parse()
        .map_err(|error| Failure::new(format!("{id} is no queue id: {error}")))
}

async fn show(suite: &Suite, list: &str) -> Result<(), Failure> {
    let filter = QueueFilter {
        recipient: Some(address(list)?.to_string()),
        held: Some(true),
        ..QueueFilter::default()
    };
    let mut rows = Vec::new();
    for entry in &entries(suite, filter).await? {
        if let Some(post) = entry.post {
            // What was decided on meanwhile is not shown.
            let call = QueueShow { id: entry.id };
            if let Ok(detail) = suite.call(Queued, &call).await {
                rows.push(row(entry, post, &detail.header));
            }
        }
    }
    if rows.is_empty() && !suite.json {
        output::say(&format!("No post waits for the owners of {list}."));
        return Ok(());
    }
    output::list(suite.json, COLUMNS, &rows);
    Ok(())
}

fn row(entry: &QueueEntry, post: QueueId, header: &[u8]) -> Value {
    let field = |name: &str| {
        let value = message::Fields::new(header)
            .find(|field| field.name.eq_ignore_ascii_case(name.as_bytes()))
            .map(|field| message::header_text(field.value))
            .unwrap_or_default();
        let clean = |c: char| if c.is_control() { ' ' } else { c };
        value
            .chars()
            .map(clean)
            .collect::<String>()
            .trim()
            .to_owned()
    };
    let waiting = entry.recipients.first();
    json!({
        "id": entry.id.to_string(),
        "post": post.to_string(),
        "arrived": time::utc(entry.arrived),
        "age": span(time::now().saturating_sub(entry.arrived)),
        "size": entry.size,
        "size_text": bytes(entry.size, "0 B"),
        "sender": entry.sender.as_ref().map_or("<>".to_owned(), ToString::to_string),
        "from": field("From"),
        "subject": field("Subject"),
        "until": waiting.map(|waiting| time::utc(waiting.expires)),
        "why": waiting.and_then(|waiting| waiting.last.as_ref()).map(|last| last.text.clone()),
    })
}
