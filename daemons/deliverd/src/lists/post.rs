//! A post as members get it (RFC 2369, RFC 2919).

use super::footer::Letter;
use super::trust::Findings;
use ipc::api::authd::{FromHandling, MailingList, Posting, ReplyTo, Subscription};
use mail_builder::encoders::Base64Encoder;
use std::fmt::Write as _;
use types::Address;

/// What a list says about itself, and what an earlier list said.
const REPLACED: &[&str] = &[
    "List-Id",
    "List-Post",
    "List-Help",
    "List-Subscribe",
    "List-Unsubscribe",
    "List-Unsubscribe-Post",
    "List-Owner",
    "List-Archive",
    "Precedence",
    "Return-Path",
];

/// Whether a post has no such field, or one of ours.
pub(super) fn is_replaced(name: &[u8]) -> bool {
    REPLACED
        .iter()
        .any(|gone| name.eq_ignore_ascii_case(gone.as_bytes()))
}

/// Characters of a name in From.
const NAME: usize = 60;

/// One of the list's addresses.
pub(super) fn part(list: &Address, suffix: &str) -> Address {
    let local = format!("{}-{suffix}", list.local());
    Address::new(&local, list.domain()).unwrap_or_else(|_| list.clone())
}

/// RFC 6068 2
pub(super) fn mailto(address: &Address) -> String {
    let mut text = "mailto:".to_owned();
    for octet in address.local().bytes() {
        if octet.is_ascii_alphanumeric() || b"-._~+".contains(&octet) {
            text.push(char::from(octet));
        } else {
            let _ = write!(text, "%{octet:02X}");
        }
    }
    let _ = write!(text, "@{}", address.domain());
    text
}

/// RFC 2919 2: the list's name in the namespace of its domain.
pub(super) fn list_id(list: &Address) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let local: String = list
        .local()
        .chars()
        .map(|c| if plain(c) { c } else { '-' })
        .collect();
    format!("<{}.{}>", local.to_ascii_lowercase(), list.domain())
}

/// The fields that stand before a post.
pub(super) fn fields(list: &MailingList, address: &Address) -> String {
    let mut out = format!("Delivered-To: {address}\r\n");
    let mut field = |name: &str, value: &str| {
        let _ = write!(out, "{name}: {value}\r\n");
    };
    let id = list_id(address);
    match list.description.as_str() {
        "" => field("List-Id", &id),
        text => field("List-Id", &format!("{}\r\n\t{id}", phrase(text))),
    }
    match list.posting {
        // RFC 2369 3.4
        Posting::Owners => field("List-Post", "NO (announcements)"),
        _ => field("List-Post", &format!("<{}>", mailto(address))),
    }
    let help = mailto(&part(address, "request"));
    field("List-Help", &format!("<{help}?subject=help>"));
    if list.subscription != Subscription::Closed {
        field(
            "List-Subscribe",
            &format!("<{}>", mailto(&part(address, "subscribe"))),
        );
    }
    field(
        "List-Unsubscribe",
        &format!("<{}>", mailto(&part(address, "unsubscribe"))),
    );
    if !list.owners.is_empty() {
        field(
            "List-Owner",
            &format!("<{}>", mailto(&part(address, "owner"))),
        );
    }
    if let Some(url) = &list.archive_url {
        field("List-Archive", &format!("<{url}>"));
    }
    field("Precedence", "list");
    out
}

/// Changes a post into what members get. `mark` is unique to it; `ours`: the author is one of us, whose mail we sign.
pub(super) fn change(
    letter: &mut Letter,
    list: &MailingList,
    address: &Address,
    findings: &Findings,
    ours: bool,
    mark: &str,
) {
    let had = letter.header.len();
    letter.remove(is_replaced);
    let mut changed = letter.header.len() != had;
    changed |= tag_subject(letter, &list.tag);
    if !list.footer.trim().is_empty() {
        changed |= letter.append(&list.footer, mark);
    }
    changed |= list.reply_to == ReplyTo::List;
    let from = letter.field("From").unwrap_or_default().to_vec();
    let author = message::first_domain(&from).unwrap_or_default();
    let munge = match list.from {
        FromHandling::Never => false,
        FromHandling::Always => true,
        FromHandling::Auto => !ours && findings.needs_our_name(&author, !changed),
    };
    if munge {
        give_name(letter, list, address, &from);
    }
    if list.reply_to == ReplyTo::List {
        letter.replace("Reply-To", address.to_string().as_bytes());
    }
}

/// Puts the list's address into From, and keeps the author where answers go.
fn give_name(letter: &mut Letter, list: &MailingList, address: &Address, from: &[u8]) {
    let of_list = match list.tag.as_str() {
        "" => address.local(),
        tag => tag,
    };
    let name = format!("{} via {of_list}", author_name(from));
    letter.replace("From", format!("{} <{address}>", phrase(&name)).as_bytes());
    letter.replace("X-Original-From", from);
    match list.reply_to {
        ReplyTo::Author if letter.field("Reply-To").is_none() => letter.replace("Reply-To", from),
        ReplyTo::Author => {}
        // Reply-To is the list's: whoever answers to all reaches the author.
        ReplyTo::List => {
            let cc = match letter.field("Cc") {
                Some(cc) => [cc, b",\r\n\t", from].concat(),
                None => from.to_vec(),
            };
            letter.replace("Cc", &cc);
        }
    }
}

/// How the author is called.
fn author_name(from: &[u8]) -> String {
    let text = message::header_text(from);
    let name = text.split('<').next().unwrap_or_default().trim();
    let name = if text.contains('<') && !name.is_empty() {
        name.trim_matches('"').to_owned()
    } else {
        let at = text.find('@').unwrap_or(text.len());
        let local = text.get(..at).unwrap_or_default();
        local.trim_start_matches('<').trim().to_owned()
    };
    let name: String = name
        .chars()
        .filter(|c| !c.is_control() && !"\"\\<>".contains(*c))
        .take(NAME)
        .collect();
    match name.trim() {
        "" => "Somebody".to_owned(),
        name => name.to_owned(),
    }
}

/// A name as RFC 5322 3.2.5 or RFC 2047 5 has it.
pub(super) fn phrase(text: &str) -> String {
    if text.is_ascii() {
        let plain: String = text
            .chars()
            .filter(|c| !c.is_ascii_control() && !"\"\\".contains(*c))
            .collect();
        return format!("\"{plain}\"");
    }
    words(text)
}

/// Encoded words of 75 characters at most (RFC 2047 2).
pub(super) fn words(text: &str) -> String {
    let mut out = String::new();
    let mut chunk = String::new();
    let mut flush = |chunk: &mut String| {
        if chunk.is_empty() {
            return;
        }
        let encoded = Base64Encoder::new()
            .encode(chunk.as_bytes())
            .unwrap_or_default();
        if !out.is_empty() {
            out.push_str("\r\n\t");
        }
        let _ = write!(out, "=?utf-8?b?{}?=", String::from_utf8_lossy(&encoded));
        chunk.clear();
    };
    for c in text.chars() {
        if chunk.len() + c.len_utf8() > 45 {
            flush(&mut chunk);
        }
        chunk.push(c);
    }
    flush(&mut chunk);
    out
}

/// Puts the tag before the subject unless it is somewhere in it; whether it did.
fn tag_subject(letter: &mut Letter, tag: &str) -> bool {
    if tag.is_empty() {
        return false;
    }
    let subject = letter.field("Subject").unwrap_or_default().to_vec();
    let shown = message::header_text(&subject).to_lowercase();
    if shown.contains(&format!("[{}]", tag.to_lowercase())) {
        return false;
    }
    let tag = if tag.is_ascii() {
        format!("[{tag}]")
    } else {
        words(&format!("[{tag}]"))
    };
    let value = [tag.as_bytes(), b" ", subject.trim_ascii()].concat();
    letter.replace("Subject", value.trim_ascii_end());
    true
}
