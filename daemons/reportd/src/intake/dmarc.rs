//! Aggregate reports, read as they come (RFC 7489 appendix C, RFC 9990 and what others make of them). What is kept is a row for
//! each record; nothing else grows with the report. There are no entities but the five of XML, and no document types.

use super::{Kept, Unreadable};
use crate::config::Intake;
use crate::store::clean;
use ipc::api::reportd::ReportRow;
use quick_xml::Reader;
use quick_xml::events::Event;
use std::io::BufRead;

/// Elements inside each other at most; reports need seven.
const DEPTH_MAX: usize = 16;
/// Characters of a text at most; the rest is left out.
const TEXT_MAX: usize = 400;
/// Characters of what is kept of all results of a record.
const DETAIL_MAX: usize = 600;

#[derive(Default)]
struct Record {
    row: ReportRow,
    envelope_from: String,
    reasons: String,
    /// Of the element that is being read.
    domain: String,
    selector: String,
    result: String,
}

#[derive(Default)]
struct Parser {
    kept: Kept,
    record: Option<Record>,
    saw_feedback: bool,
}

/// Reads a report.
pub(crate) fn parse(from: impl BufRead, bounds: &Intake) -> Result<Kept, Unreadable> {
    let mut reader = Reader::from_reader(from);
    let config = reader.config_mut();
    config.expand_empty_elements = true;
    config.check_end_names = true;
    let mut parser = Parser::default();
    let mut path: Vec<String> = Vec::new();
    let mut text = String::new();
    let mut buffer = Vec::new();
    loop {
        buffer.clear();
        match reader
            .read_event_into(&mut buffer)
            .map_err(Unreadable::of_xml)?
        {
            Event::Start(start) => {
                if path.len() >= DEPTH_MAX {
                    return Err(Unreadable(
                        "its elements are too deep in each other".to_owned(),
                    ));
                }
                let name = start.local_name().as_ref().to_owned();
                path.push(clean(&name, 60));
                text.clear();
                parser.open(&path, bounds)?;
            }
            Event::End(_) => {
                let place: Vec<&str> = path.iter().map(String::as_str).collect();
                parser.close(&place, text.trim());
                path.pop();
                text.clear();
            }
            Event::Text(part) => push(&mut text, &part),
            Event::CData(part) => push(&mut text, &part),
            Event::GeneralRef(reference) => match reference.as_ref() {
                "lt" => text.push('<'),
                "gt" => text.push('>'),
                "amp" => text.push('&'),
                "quot" => text.push('"'),
                "apos" => text.push('\''),
                _ => match reference.resolve_char_ref() {
                    Ok(Some(c)) => text.push(c),
                    // Nothing is defined, so nothing is expanded.
                    _ => return Err(Unreadable("it uses an entity that XML has not".to_owned())),
                },
            },
            Event::DocType(_) => {
                return Err(Unreadable(
                    "it has a document type, which no report has".to_owned(),
                ));
            }
            Event::Eof => break,
            _ => {}
        }
    }
    if !path.is_empty() {
        return Err(Unreadable("it ends too early".to_owned()));
    }
    if !parser.saw_feedback {
        return Err(Unreadable("it is XML, and no report".to_owned()));
    }
    if parser.kept.domain.is_empty() {
        return Err(Unreadable(
            "it does not say about which domain it is".to_owned(),
        ));
    }
    parser.kept.kind = "dmarc";
    Ok(parser.kept)
}

fn push(text: &mut String, part: &str) {
    let room = TEXT_MAX.saturating_sub(text.chars().count());
    text.extend(part.chars().take(room));
}

impl Parser {
    fn open(&mut self, path: &[String], bounds: &Intake) -> Result<(), Unreadable> {
        match path.last().map(String::as_str) {
            Some("feedback") if path.len() == 1 => self.saw_feedback = true,
            Some("record") if path.len() == 2 => {
                if self.kept.rows.len() >= bounds.max_rows {
                    return Err(Unreadable(format!(
                        "it has more than {} rows",
                        bounds.max_rows
                    )));
                }
                self.record = Some(Record::default());
            }
            _ => {}
        }
        Ok(())
    }

    fn close(&mut self, place: &[&str], text: &str) {
        let place = match place {
            ["feedback", rest @ ..] => rest,
            _ => return,
        };
        match place {
            ["report_metadata", rest @ ..] => self.metadata(rest, text),
            ["policy_published", name] => self.policy(name, text),
            ["record"] => self.record_ends(),
            ["record", rest @ ..] => {
                if let Some(record) = &mut self.record {
                    record.close(rest, text);
                }
            }
            _ => {}
        }
    }

    fn metadata(&mut self, place: &[&str], text: &str) {
        let kept = &mut self.kept;
        match place {
            ["org_name"] => kept.organization = clean(text, 250),
            ["email"] => kept.field("contact", text),
            ["extra_contact_info"] => kept.field("contact info", text),
            ["report_id"] => kept.report_id = clean(text, 250),
            ["date_range", "begin"] => kept.begin = number(text),
            ["date_range", "end"] => kept.end = number(text),
            ["error"] => kept.field("error", text),
            ["generator"] => kept.field("generator", text),
            _ => {}
        }
    }

    fn policy(&mut self, name: &str, text: &str) {
        match name {
            "domain" => self.kept.domain = super::domain(text),
            "adkim" | "aspf" | "p" | "sp" | "np" | "pct" | "fo" | "testing"
            | "discovery_method" => {
                self.kept.field(name, text);
            }
            _ => {}
        }
    }

    fn record_ends(&mut self) {
        let Some(mut record) = self.record.take() else {
            return;
        };
        let row = &mut record.row;
        let mut detail = std::mem::take(&mut row.detail);
        if !record.envelope_from.is_empty() {
            detail.push_str(&format!("from {}; ", record.envelope_from));
        }
        detail.push_str(&record.reasons);
        row.detail = clean(detail.trim_end_matches("; "), DETAIL_MAX);
        let count = row.count;
        match row.dkim || row.spf {
            true => self.kept.passed = self.kept.passed.saturating_add(count),
            false => self.kept.failed = self.kept.failed.saturating_add(count),
        }
        self.kept.rows.push(record.row);
    }
}

impl Record {
    fn close(&mut self, place: &[&str], text: &str) {
        let row = &mut self.row;
        match place {
            ["row", "source_ip"] => row.source = clean(text, 60),
            ["row", "count"] => row.count = number(text).min(1 << 40),
            ["row", "policy_evaluated", "disposition"] => row.result = clean(text, 30),
            ["row", "policy_evaluated", "dkim"] => row.dkim = text.eq_ignore_ascii_case("pass"),
            ["row", "policy_evaluated", "spf"] => row.spf = text.eq_ignore_ascii_case("pass"),
            ["row", "policy_evaluated", "reason", "type" | "comment"]
                if self.reasons.len() < DETAIL_MAX =>
            {
                self.reasons.push_str(&format!("{text}; "));
            }
            // Some write "identities".
            ["identifiers" | "identities", "header_from"] => row.identity = super::domain(text),
            ["identifiers" | "identities", "envelope_from"] => {
                self.envelope_from = clean(text, 250);
            }
            ["auth_results", "dkim" | "spf", name] => match *name {
                "domain" => self.domain = clean(text, 250),
                "selector" => self.selector = clean(text, 100),
                "result" => self.result = clean(text, 20),
                _ => {}
            },
            ["auth_results", kind @ ("dkim" | "spf")] => self.result_ends(kind),
            _ => {}
        }
    }

    fn result_ends(&mut self, kind: &str) {
        let [domain, selector, result] =
            [&mut self.domain, &mut self.selector, &mut self.result].map(std::mem::take);
        if self.row.detail.len() >= DETAIL_MAX {
            return;
        }
        let selector = match selector.as_str() {
            "" => String::new(),
            selector => format!(" s={selector}"),
        };
        self.row
            .detail
            .push_str(&format!("{kind}={result} {domain}{selector}; "));
    }
}

fn number(text: &str) -> u64 {
    // Some write fractions of seconds.
    let whole = text.split('.').next().unwrap_or_default();
    whole.parse().unwrap_or(0).min(1 << 50)
}
