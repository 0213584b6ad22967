//! Reports about members (RFC 3464).

use super::post::{list_id, part};
use std::fmt::Write as _;
use types::Address;

/// Members in one report that are looked at.
const MOST: usize = 100;

/// The recipients that a report says have failed for good.
pub(super) fn failed(octets: &[u8]) -> Vec<Address> {
    let mut found: Vec<Address> = Vec::new();
    groups(octets, |group| take(group, &mut found));
    found.truncate(MOST);
    found
}

/// Whether a report says that somebody has failed for good, whoever that is; `None`: it is no such report.
pub(super) fn any_failed(octets: &[u8]) -> Option<bool> {
    let mut failed = false;
    groups(octets, |group| failed |= has_failed(group)).then_some(failed)
}

/// Shows the groups of message/delivery-status, which are parted by empty lines, as is its own header; whether there is one.
fn groups(octets: &[u8], mut see: impl FnMut(&[&str])) -> bool {
    let text = String::from_utf8_lossy(octets);
    let mut inside = false;
    let mut group: Vec<&str> = Vec::new();
    for line in text.lines().chain([""]) {
        let line = line.trim_end();
        if line
            .to_ascii_lowercase()
            .starts_with("content-type: message/delivery-status")
        {
            inside = true;
            group.clear();
            continue;
        }
        if inside && line.starts_with("--") {
            see(&group);
            break;
        }
        if !inside {
            continue;
        }
        if line.is_empty() {
            see(&group);
            group.clear();
        } else {
            group.push(line);
        }
    }
    inside
}

fn value<'a>(group: &[&'a str], name: &str) -> Option<&'a str> {
    group.iter().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

fn has_failed(group: &[&str]) -> bool {
    let failed = value(group, "Action").is_some_and(|action| action.eq_ignore_ascii_case("failed"));
    // RFC 3463 2: class 5 is for good
    failed && value(group, "Status").is_none_or(|status| status.starts_with('5'))
}

/// The recipient of a group, under its original name and the final one, if it has failed.
fn take(group: &[&str], found: &mut Vec<Address>) {
    if !has_failed(group) {
        return;
    }
    for name in ["Original-Recipient", "Final-Recipient"] {
        let address = value(group, name)
            .and_then(|value| value.split_once(';'))
            .and_then(|(_, address)| address.trim().trim_matches(['<', '>']).parse().ok());
        if let Some(address) = address
            && !found.contains(&address)
        {
            found.push(address);
        }
    }
}

/// What owners are told of members that get nothing more.
pub(super) fn notice(list: &Address, members: &[Address], id: &str, at: u64) -> String {
    let mut text = format!(
        "From: <{}>\r\nTo: <{}>\r\nSubject: Members of {list} get no more posts\r\n",
        part(list, "bounces"),
        part(list, "owner")
    );
    head(&mut text, list, id, at);
    text.push_str("Posts to these members have come back on several days. They get none until you let them again\r\n");
    let _ = write!(text, "(posthouse list member add {list} ADDRESS):\r\n\r\n");
    for member in members {
        let _ = write!(text, "    {member}\r\n");
    }
    text
}

/// The fields that all messages of a list's own have (RFC 3834 3.1), and the empty line.
pub(super) fn head(text: &mut String, list: &Address, id: &str, at: u64) {
    let _ = write!(
        text,
        "Date: {}\r\nMessage-ID: <{id}.list@{}>\r\nAuto-Submitted: auto-replied\r\nPrecedence: list\r\nList-Id: {}\r\n\
         MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n",
        date(at),
        list.domain(),
        list_id(list)
    );
}

/// RFC 5322 3.3, in UTC.
pub(super) fn date(at: u64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let days = (at / 86_400).cast_signed();
    let (year, month, day) = types::moment::civil(days);
    let name = |names: &[&'static str], at: i64| {
        let at = usize::try_from(at).ok();
        at.and_then(|at| names.get(at)).copied().unwrap_or_default()
    };
    format!(
        "{}, {day} {} {year:04} {:02}:{:02}:{:02} +0000",
        name(&DAYS, days % 7),
        name(&MONTHS, month - 1),
        at / 3600 % 24,
        at / 60 % 60,
        at % 60
    )
}
