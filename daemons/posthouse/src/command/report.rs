//! `posthouse report`, and what `posthouse check` says of reports.

use super::check::Findings;
use crate::cli::Report;
use crate::connect::{Place, Suite};
use crate::failure::Failure;
use crate::{output, time};
use ipc::api::authd::{DomainList, Resolution, ResolveRecipient};
use ipc::api::reportd::{
    PendingReport, ReportCancel, ReportDetail, ReportEntry, ReportFilter, ReportList,
    ReportPending, ReportPreview, ReportRow, ReportSend, ReportShow, ReportSummary,
    ReportSummaryReply, SummarySource,
};
use serde_json::{Value, json};
use types::Address;
use types::Role::{Authd, Reportd};

/// Entries of one answer.
const PAGE: u32 = 100;

const ENTRIES: &[(&str, &str)] = &[
    ("id", "ID"),
    ("kind", "KIND"),
    ("taken_text", "TAKEN"),
    ("domain", "DOMAIN"),
    ("organization", "FROM"),
    ("passed", "PASSED"),
    ("failed", "FAILED"),
    ("note", "NOTE"),
];

const PENDING: &[(&str, &str)] = &[
    ("id", "ID"),
    ("kind", "KIND"),
    ("domain", "DOMAIN"),
    ("state", "STATE"),
    ("due_text", "DUE"),
    ("rows", "ROWS"),
    ("count", "COUNT"),
    ("to", "TO"),
    ("note", "NOTE"),
];

pub(crate) async fn run(suite: &Suite, command: Report) -> Result<(), Failure> {
    match command {
        Report::List {
            kind,
            domain,
            since,
            failing,
            limit,
        } => {
            let filter = ReportFilter {
                kind: kind.unwrap_or_default(),
                domain: domain.as_deref().map(name).transpose()?.unwrap_or_default(),
                since: since.map_or(0, |since| time::now().saturating_sub(since)),
                failing,
            };
            list(suite, filter, limit).await
        }
        Report::Show { id } => show(suite, id).await,
        Report::Summary { domain, since } => {
            let request = ReportSummary {
                domain: domain.as_deref().map(name).transpose()?.unwrap_or_default(),
                since: time::now().saturating_sub(since),
            };
            summary(suite, &request).await
        }
        Report::Pending { show: None } => pending(suite).await,
        Report::Pending { show: Some(id) } => {
            let octets = suite.call(Reportd, &ReportPreview { id }).await?;
            output::say(String::from_utf8_lossy(&octets).trim_end());
            Ok(())
        }
        Report::Cancel { ids, domain } => {
            let domain = which(&ids, domain)?;
            let count = suite.call(Reportd, &ReportCancel { ids, domain }).await?;
            output::done(
                suite.json,
                &format!("{count} dropped"),
                &json!({ "reports": count }),
            );
            Ok(())
        }
        Report::Send { ids, domain } => {
            let domain = which(&ids, domain)?;
            let count = suite.call(Reportd, &ReportSend { ids, domain }).await?;
            output::done(
                suite.json,
                &format!("{count} due now"),
                &json!({ "reports": count }),
            );
            Ok(())
        }
    }
}

fn name(domain: &str) -> Result<String, Failure> {
    Address::domain_of(domain).map_err(|error| Failure::new(format!("{domain}: {error}")))
}

/// The domain that is meant; nothing must not mean everything.
fn which(ids: &[u64], domain: Option<String>) -> Result<String, Failure> {
    match domain.as_deref() {
        None if ids.is_empty() => Err(Failure::new(
            "which? Give numbers, or --domain, or --domain '*'",
        )),
        None => Ok(String::new()),
        Some("*") => Ok("*".to_owned()),
        Some(domain) => name(domain),
    }
}

async fn list(suite: &Suite, filter: ReportFilter, limit: u32) -> Result<(), Failure> {
    let mut rows = Vec::new();
    let mut before = 0;
    while rows.len() < limit as usize {
        let left = u32::try_from(rows.len()).map_or(0, |have| limit.saturating_sub(have));
        let request = ReportList {
            filter: filter.clone(),
            before,
            limit: left.min(PAGE),
        };
        let found = suite.call(Reportd, &request).await?;
        let Some(last) = found.last() else { break };
        before = last.id;
        rows.extend(found.iter().map(entry));
    }
    output::list(suite.json, ENTRIES, &rows);
    Ok(())
}

fn entry(entry: &ReportEntry) -> Value {
    json!({
        "id": entry.id,
        "kind": entry.kind,
        "taken": entry.taken,
        "taken_text": time::utc(entry.taken),
        "organization": entry.organization,
        "sender": entry.sender,
        "domain": entry.domain,
        "report_id": entry.report_id,
        "begin": entry.begin,
        "end": entry.end,
        "passed": entry.passed,
        "failed": entry.failed,
        "note": entry.note,
    })
}

fn row(row: &ReportRow) -> Value {
    json!({
        "source": row.source,
        "identity": row.identity,
        "result": row.result,
        "dkim": row.dkim,
        "spf": row.spf,
        "detail": row.detail,
        "count": row.count,
    })
}

async fn show(suite: &Suite, id: u64) -> Result<(), Failure> {
    let ReportDetail {
        entry: head,
        fields,
        rows,
        all_rows,
        text,
    } = suite.call(Reportd, &ReportShow { id }).await?;
    let text = String::from_utf8_lossy(&text).into_owned();
    if suite.json {
        let mut all = entry(&head);
        if let Some(all) = all.as_object_mut() {
            let fields: Vec<Value> = fields
                .iter()
                .map(|(name, value)| json!([name, value]))
                .collect();
            all.insert("fields".to_owned(), Value::Array(fields));
            all.insert("rows".to_owned(), rows.iter().map(row).collect());
            all.insert("all_rows".to_owned(), json!(all_rows));
            all.insert("text".to_owned(), json!(text));
        }
        output::print(&all);
        return Ok(());
    }
    output::say(&format!(
        "{} {} about {} from {}",
        head.kind, head.id, head.domain, head.organization
    ));
    output::say(&format!(
        "taken {} from <{}>",
        time::utc(head.taken),
        head.sender
    ));
    if head.begin > 0 {
        output::say(&format!(
            "covers {} to {}",
            time::utc(head.begin),
            time::utc(head.end)
        ));
    }
    if !head.report_id.is_empty() {
        output::say(&format!("id {}", head.report_id));
    }
    if !head.note.is_empty() {
        output::say(&format!("note {}", head.note));
    }
    for (name, value) in &fields {
        output::say(&format!("{name}: {value}"));
    }
    let (source, identity) = match head.kind.as_str() {
        "tls" => ("EXCHANGER", "POLICY"),
        _ => ("SOURCE", "FROM"),
    };
    let mut columns = vec![
        ("source", source),
        ("identity", identity),
        ("result", "RESULT"),
        ("count", "COUNT"),
    ];
    if head.kind == "dmarc" {
        columns.extend([("dkim", "DKIM"), ("spf", "SPF")]);
    }
    columns.push(("detail", "DETAIL"));
    if !rows.is_empty() {
        output::list(false, &columns, &rows.iter().map(row).collect::<Vec<_>>());
    }
    if all_rows > rows.len() as u64 {
        output::say(&format!("... {all_rows} rows in all"));
    }
    if !text.is_empty() {
        output::say("");
        for line in text.lines() {
            // Strangers wrote it: it does not get to the terminal as it is.
            let line: String = line
                .chars()
                .map(|c| if c.is_control() { ' ' } else { c })
                .collect();
            output::say(&line);
        }
    }
    Ok(())
}

async fn summary(suite: &Suite, request: &ReportSummary) -> Result<(), Failure> {
    let found = suite.call(Reportd, request).await?;
    if suite.json {
        output::print(&summary_json(&found));
        return Ok(());
    }
    let kinds: Vec<String> = found
        .reports
        .iter()
        .map(|(kind, count)| format!("{count} {kind}"))
        .collect();
    let about = match request.domain.as_str() {
        "" => "all domains",
        domain => domain,
    };
    let kinds = if kinds.is_empty() {
        "none".to_owned()
    } else {
        kinds.join(", ")
    };
    output::say(&format!(
        "{about} since {}: reports: {kinds}",
        time::utc(request.since)
    ));
    let reporters: Vec<String> = found
        .reporters
        .iter()
        .map(|(who, count)| format!("{who} ({count})"))
        .collect();
    if !reporters.is_empty() {
        output::say(&format!("from {}", reporters.join(", ")));
    }
    let (passed, failed) = found.messages;
    output::say(&format!("DMARC: {passed} messages passed, {failed} failed"));
    if !found.sources.is_empty() {
        let columns = [
            ("source", "SOURCE"),
            ("from", "FROM"),
            ("passed", "PASSED"),
            ("failed", "FAILED"),
            ("dkim", "DKIM"),
            ("spf", "SPF"),
            ("stopped", "STOPPED"),
        ];
        output::list(
            false,
            &columns,
            &found.sources.iter().map(source).collect::<Vec<_>>(),
        );
    }
    let (passed, failed) = found.sessions;
    output::say(&format!("TLS: {passed} sessions in order, {failed} not"));
    if !found.failures.is_empty() {
        let columns = [
            ("source", "EXCHANGER"),
            ("identity", "POLICY"),
            ("result", "RESULT"),
            ("count", "COUNT"),
            ("detail", "DETAIL"),
        ];
        let rows: Vec<Value> = found
            .failures
            .iter()
            .map(|(failure, _)| row(failure))
            .collect();
        output::list(false, &columns, &rows);
    }
    for (kind, count) in &found.complaints {
        output::say(&format!("complaints: {count} {kind}"));
    }
    Ok(())
}

fn source(source: &SummarySource) -> Value {
    json!({
        "source": source.source,
        "from": source.identity,
        "passed": source.passed,
        "failed": source.failed,
        "dkim": source.dkim,
        "spf": source.spf,
        "stopped": source.stopped,
    })
}

fn summary_json(found: &ReportSummaryReply) -> Value {
    let counts = |list: &[(String, u64)]| -> Value {
        let pairs = list
            .iter()
            .map(|(name, count)| (name.clone(), json!(count)));
        Value::Object(pairs.collect())
    };
    json!({
        "reports": counts(&found.reports),
        "reporters": counts(&found.reporters),
        "messages": { "passed": found.messages.0, "failed": found.messages.1 },
        "sessions": { "passed": found.sessions.0, "failed": found.sessions.1 },
        "sources": found.sources.iter().map(source).collect::<Vec<_>>(),
        "failures": found.failures.iter().map(|(failure, _)| row(failure)).collect::<Vec<_>>(),
        "complaints": counts(&found.complaints),
    })
}

async fn pending(suite: &Suite) -> Result<(), Failure> {
    let mut rows = Vec::new();
    let mut after = 0;
    loop {
        let request = ReportPending { after, limit: PAGE };
        let found = suite.call(Reportd, &request).await?;
        let Some(last) = found.last() else { break };
        after = last.id;
        rows.extend(found.iter().map(pending_row));
    }
    output::list(suite.json, PENDING, &rows);
    Ok(())
}

fn pending_row(report: &PendingReport) -> Value {
    json!({
        "id": report.id,
        "kind": report.kind,
        "domain": report.domain,
        "begin": report.begin,
        "end": report.end,
        "due": report.due,
        "due_text": time::utc(report.due),
        "rows": report.rows,
        "count": report.count,
        "to": report.to,
        "state": report.state,
        "note": report.note,
    })
}

/// Addresses that our records name for reports, and nobody reads; and whether ours can be signed.
pub(crate) async fn check(findings: &mut Findings, place: &Place, suite: &Suite) {
    let Ok(document) = place.document() else {
        return;
    };
    let Ok(domains) = suite.call(Authd, &DomainList { name: None }).await else {
        return;
    };
    for domain in domains.iter().filter(|domain| domain.enabled) {
        let Ok(known) = super::dns::Known::gather(suite, &document, &domain.name).await else {
            continue;
        };
        for record in known.records() {
            let text = record.to_string();
            for address in rua(&text) {
                let request = ResolveRecipient {
                    address: address.clone(),
                };
                let nobody = matches!(
                    suite.call(Authd, &request).await,
                    Ok(Resolution::Unknown | Resolution::Disabled)
                );
                if nobody {
                    let text = format!(
                        "{}: reports are to go to {address}, which takes no mail: make it, or enable reportd and name it in reportd.addresses",
                        domain.name
                    );
                    findings.warn("reports", text);
                }
            }
        }
    }
    if !document.enabled(Reportd) {
        return;
    }
    let Ok(config) = document.section::<reportd::Config>("reportd") else {
        return;
    };
    let from = config.from_domain(&suite.hostname);
    if !domains.iter().any(|domain| domain.name == from) {
        let text = format!(
            "our reports are from {from}, which is no domain of ours: they are not signed, and may be refused; set reportd.from"
        );
        findings.warn("reports", text);
    }
}

/// The addresses after `rua=` and `ruf=` in the text of a record.
fn rua(text: &str) -> Vec<Address> {
    let begins = text.contains("v=DMARC1") || text.contains("v=TLSRPTv1");
    let words = text.split(['"', ' ', ';', ',', '=', '!']);
    words
        .filter(|_| begins)
        .filter_map(|word| word.strip_prefix("mailto:"))
        .filter_map(|address| address.parse().ok())
        .collect()
}
