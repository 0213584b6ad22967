//! The XML of an aggregate report (RFC 7489 appendix C). Readers of RFC 9990's form take this one, too, while older ones know
//! nothing else.

use super::About;
use ipc::api::reportd::{Evaluation, Published};
use std::fmt::Write;

/// Writes the report.
pub(crate) fn write(about: &About<'_>, policy: &Published, rows: &[(&Evaluation, u64)]) -> String {
    let mut out = String::with_capacity(1024 + rows.len() * 700);
    // Writing to a String cannot fail.
    let _ = head(&mut out, about, policy);
    for (row, count) in rows {
        let _ = record(&mut out, row, *count);
    }
    out.push_str("</feedback>\n");
    out
}

fn head(out: &mut String, about: &About<'_>, policy: &Published) -> std::fmt::Result {
    out.push_str("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<feedback>\n <version>1.0</version>\n <report_metadata>\n");
    element(out, "  ", "org_name", about.organization)?;
    element(out, "  ", "email", about.from)?;
    if !about.contact.is_empty() {
        element(out, "  ", "extra_contact_info", about.contact)?;
    }
    element(out, "  ", "report_id", about.report_id)?;
    // The end is the last second, as everybody writes it.
    let (begin, end) = (about.begin, about.end.saturating_sub(1));
    writeln!(
        out,
        "  <date_range><begin>{begin}</begin><end>{end}</end></date_range>"
    )?;
    if about.left_out > 0 {
        let text = format!("{} messages found no row in this report", about.left_out);
        element(out, "  ", "error", &text)?;
    }
    out.push_str(" </report_metadata>\n <policy_published>\n");
    element(out, "  ", "domain", &policy.domain)?;
    let mode = |strict: bool| if strict { "s" } else { "r" };
    element(out, "  ", "adkim", mode(policy.strict_dkim))?;
    element(out, "  ", "aspf", mode(policy.strict_spf))?;
    element(out, "  ", "p", disposition(&policy.policy))?;
    element(out, "  ", "sp", disposition(&policy.subdomains))?;
    out.push_str("  <pct>100</pct>\n");
    let fo = match policy.failures.as_str() {
        "" => "0",
        own => own,
    };
    element(out, "  ", "fo", fo)?;
    out.push_str(" </policy_published>\n");
    Ok(())
}

fn record(out: &mut String, row: &Evaluation, count: u64) -> std::fmt::Result {
    out.push_str(" <record>\n  <row>\n");
    let source = row.source.map(|address| address.to_canonical().to_string());
    element(
        out,
        "   ",
        "source_ip",
        source.as_deref().unwrap_or("0.0.0.0"),
    )?;
    writeln!(out, "   <count>{count}</count>\n   <policy_evaluated>")?;
    element(out, "    ", "disposition", disposition(&row.disposition))?;
    let word = |aligned: bool| if aligned { "pass" } else { "fail" };
    element(out, "    ", "dkim", word(row.dkim_aligned))?;
    element(out, "    ", "spf", word(row.spf_aligned))?;
    for (kind, comment) in &row.reasons {
        out.push_str("    <reason>\n");
        element(out, "     ", "type", override_type(kind))?;
        if !comment.is_empty() {
            element(out, "     ", "comment", comment)?;
        }
        out.push_str("    </reason>\n");
    }
    out.push_str("   </policy_evaluated>\n  </row>\n  <identifiers>\n");
    if !row.envelope_to.is_empty() {
        element(out, "   ", "envelope_to", &row.envelope_to)?;
    }
    element(out, "   ", "envelope_from", &row.envelope_from)?;
    element(out, "   ", "header_from", &row.header_from)?;
    out.push_str("  </identifiers>\n  <auth_results>\n");
    for (domain, selector, result, reason) in &row.dkim {
        out.push_str("   <dkim>\n");
        element(out, "    ", "domain", domain)?;
        if !selector.is_empty() {
            element(out, "    ", "selector", selector)?;
        }
        element(out, "    ", "result", dkim_result(result))?;
        if !reason.is_empty() {
            element(out, "    ", "human_result", reason)?;
        }
        out.push_str("   </dkim>\n");
    }
    // The schema demands one.
    let none = (
        row.envelope_from.clone(),
        "mfrom".to_owned(),
        "none".to_owned(),
    );
    let (domain, scope, result) = row.spf.as_ref().unwrap_or(&none);
    out.push_str("   <spf>\n");
    element(out, "    ", "domain", domain)?;
    element(
        out,
        "    ",
        "scope",
        if scope == "helo" { "helo" } else { "mfrom" },
    )?;
    element(out, "    ", "result", spf_result(result))?;
    out.push_str("   </spf>\n  </auth_results>\n </record>\n");
    Ok(())
}

fn element(out: &mut String, indent: &str, name: &str, text: &str) -> std::fmt::Result {
    writeln!(out, "{indent}<{name}>{}</{name}>", types::xml::escape(text))
}

/// DispositionType
fn disposition(text: &str) -> &str {
    one_of(text, &["none", "quarantine", "reject"], "none")
}

/// PolicyOverrideType
fn override_type(text: &str) -> &str {
    let known = [
        "forwarded",
        "sampled_out",
        "trusted_forwarder",
        "mailing_list",
        "local_policy",
        "other",
    ];
    one_of(text, &known, "other")
}

/// DKIMResultType
fn dkim_result(text: &str) -> &str {
    let known = [
        "none",
        "pass",
        "fail",
        "policy",
        "neutral",
        "temperror",
        "permerror",
    ];
    one_of(text, &known, "none")
}

/// SPFResultType
fn spf_result(text: &str) -> &str {
    let known = [
        "none",
        "neutral",
        "pass",
        "fail",
        "softfail",
        "temperror",
        "permerror",
    ];
    one_of(text, &known, "none")
}

fn one_of<'a>(text: &'a str, known: &[&str], other: &'a str) -> &'a str {
    if known.contains(&text) { text } else { other }
}
