//! SEARCH. Flags, dates, sizes and numbers are answered from the view; fields and text by reading messages in sets, but only
//! those that the cheap criteria leave.

use crate::session::{Done, Refused, Selected, Session, done};
use crate::view::{Row, Snapshot};
use imap::{ReturnOptions, Search, SearchKey, date, put};
use message::Parsed;
use std::collections::HashMap;
use store::{Content, ContentBody, SystemFlags, Wanted};
use tokio::io::{AsyncRead, AsyncWrite};
use types::ContentId;

/// Messages read at once, without and with bodies.
const SET: (usize, usize) = (512, 32);
/// Octets of a message's text that are searched at most.
const TEXT_MAX: usize = 16 << 20;

/// How much of a message a criterion needs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Cost {
    View,
    Parsed,
    Body,
}

fn cost(key: &SearchKey) -> Cost {
    match key {
        SearchKey::And(keys) => keys.iter().map(cost).max().unwrap_or(Cost::View),
        SearchKey::Or(one, other) => cost(one).max(cost(other)),
        SearchKey::Not(key) => cost(key),
        SearchKey::SentBefore(_) | SearchKey::SentOn(_) | SearchKey::SentSince(_) => Cost::Parsed,
        SearchKey::Header(name, _) => {
            const KEPT: [&str; 7] = ["from", "to", "cc", "bcc", "subject", "date", "message-id"];
            if KEPT.contains(&name.to_ascii_lowercase().as_str()) {
                Cost::Parsed
            } else {
                Cost::Body
            }
        }
        SearchKey::Body(_) | SearchKey::Text(_) => Cost::Body,
        _ => Cost::View,
    }
}

/// A message as the criteria see it.
struct Candidate<'c> {
    position: usize,
    row: &'c Row,
    snapshot: &'c Snapshot,
    saved: &'c [u32],
    now: i64,
    content: Option<&'c Content>,
    parsed: Option<&'c Parsed>,
}

impl Candidate<'_> {
    fn matches(&self, key: &SearchKey) -> bool {
        let row = self.row;
        match key {
            SearchKey::All => true,
            SearchKey::And(keys) => keys.iter().all(|key| self.matches(key)),
            SearchKey::Or(one, other) => self.matches(one) || self.matches(other),
            SearchKey::Not(key) => !self.matches(key),
            SearchKey::Sequence(set) => {
                let largest = u32::try_from(self.snapshot.rows.len()).unwrap_or(u32::MAX);
                match set.resolve(largest) {
                    Some(ranges) => within(
                        &ranges,
                        u32::try_from(self.position + 1).unwrap_or(u32::MAX),
                    ),
                    None => self.saved.binary_search(&row.uid).is_ok(),
                }
            }
            SearchKey::Uid(set) => {
                let largest = self.snapshot.rows.last().map_or(0, |row| row.uid);
                match set.resolve(largest) {
                    Some(ranges) => within(&ranges, row.uid),
                    None => self.saved.binary_search(&row.uid).is_ok(),
                }
            }
            SearchKey::Flag(name) => has_flag(row, name),
            // RFC 9051: there is no \Recent any more
            SearchKey::Recent => false,
            SearchKey::Before(day) => date::day_of(row.date) < *day,
            SearchKey::On(day) => date::day_of(row.date) == *day,
            SearchKey::Since(day) => date::day_of(row.date) >= *day,
            SearchKey::SentBefore(day) => self.sent_day().is_some_and(|sent| sent < *day),
            SearchKey::SentOn(day) => self.sent_day() == Some(*day),
            SearchKey::SentSince(day) => self.sent_day().is_some_and(|sent| sent >= *day),
            SearchKey::Larger(size) => row.size > *size,
            SearchKey::Smaller(size) => row.size < *size,
            // RFC 5032 3
            SearchKey::Older(seconds) => row.date <= self.now - i64::from(*seconds),
            SearchKey::Younger(seconds) => row.date >= self.now - i64::from(*seconds),
            SearchKey::ModSeq(modseq) => row.modseq >= *modseq,
            SearchKey::EmailId(id) => *id == format!("M{}", row.content),
            SearchKey::ThreadId(id) => *id == format!("T{}", row.thread),
            SearchKey::Header(name, text) => self.header(name, text),
            SearchKey::Body(text) => self.text(text, false),
            SearchKey::Text(text) => self.text(text, true),
        }
    }

    fn sent_day(&self) -> Option<i32> {
        let sent = self.parsed?.sent?;
        Some(date::day_in_zone(sent.unix, sent.zone))
    }

    fn header(&self, name: &str, text: &str) -> bool {
        let wanted = text.to_lowercase();
        let found = |value: &str| value.to_lowercase().contains(&wanted);
        let Some((content, parsed)) = self.content.zip(self.parsed) else {
            return false;
        };
        let of_prefix = fields(&content.prefix, name);
        if of_prefix.iter().any(|value| found(value)) {
            return true;
        }
        match (parsed.listed_values(name.as_bytes()), &content.body) {
            (Some(values), _) => values.iter().any(|value| found(value)),
            (None, ContentBody::Octets(body)) => {
                fields(body, name).iter().any(|value| found(value))
            }
            (None, _) => false,
        }
    }

    /// RFC 9051 6.4.4: BODY is the text of the parts, TEXT that and the headers.
    fn text(&self, text: &str, headers: bool) -> bool {
        let wanted = text.to_lowercase();
        let Some((content, parsed)) = self.content.zip(self.parsed) else {
            return false;
        };
        let ContentBody::Octets(body) = &content.body else {
            return false;
        };
        if headers {
            let own = body
                .get(..usize::try_from(parsed.header_len).unwrap_or(0))
                .unwrap_or_default();
            let mut lines = message::Fields::new(&content.prefix).chain(message::Fields::new(own));
            let hit = lines.any(|field| {
                let name = String::from_utf8_lossy(field.name);
                format!("{name}: {}", message::header_text(field.value))
                    .to_lowercase()
                    .contains(&wanted)
            });
            if hit {
                return true;
            }
        }
        let mut found = false;
        message::for_each_text(parsed, body, TEXT_MAX, |part| {
            found = part.to_lowercase().contains(&wanted);
            !found
        });
        found
    }
}

fn fields(header: &[u8], name: &str) -> Vec<String> {
    message::Fields::new(header)
        .filter(|field| field.name.eq_ignore_ascii_case(name.as_bytes()))
        .map(|field| message::header_text(field.value))
        .collect()
}

fn within(ranges: &[(u32, u32)], number: u32) -> bool {
    let at = ranges.partition_point(|(_, high)| *high < number);
    ranges.get(at).is_some_and(|(low, _)| *low <= number)
}

fn has_flag(row: &Row, name: &str) -> bool {
    match SystemFlags::NAMES
        .iter()
        .find(|(_, known)| known.eq_ignore_ascii_case(name))
    {
        Some((flag, _)) => row.system.contains(*flag),
        None => row
            .keywords
            .as_deref()
            .is_some_and(|all| all.split(' ').any(|word| word.eq_ignore_ascii_case(name))),
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + Sync> Session<S> {
    pub(super) async fn search(&mut self, search: Search) -> Done {
        let modseq = search.key.any(&|key| matches!(key, SearchKey::ModSeq(_)));
        self.condstore |= modseq;
        let found = match self.find(&search.key).await {
            Ok(found) => found,
            Err(refused) => {
                if let (Some(selected), Some(true)) = (
                    &mut self.selected,
                    search.returns.map(|returns| returns.save),
                ) {
                    // RFC 9051 6.4.4.1: a search that fails empties what was saved
                    selected.saved.clear();
                }
                return Err(refused);
            }
        };
        let shown = self.chosen()?.shown.clone();
        let number = |position: usize| {
            if search.uid {
                shown.rows.get(position).map_or(0, |row| row.uid)
            } else {
                u32::try_from(position + 1).unwrap_or(u32::MAX)
            }
        };
        let highest = || {
            found
                .iter()
                .filter_map(|at| shown.rows.get(*at))
                .map(|row| row.modseq)
                .max()
        };
        let numbers: Vec<u32> = found.iter().map(|position| number(*position)).collect();
        let returns = match search.returns {
            None if self.rev2 => Some(ReturnOptions {
                all: true,
                ..ReturnOptions::default()
            }),
            other => other,
        };
        match returns {
            None => {
                put::text(&mut self.out, "* SEARCH");
                for number in &numbers {
                    self.out.push(b' ');
                    put::number(&mut self.out, u64::from(*number));
                }
                if let Some(highest) = highest().filter(|_| modseq) {
                    put::text(&mut self.out, &format!(" (MODSEQ {highest})"));
                }
                put::text(&mut self.out, "\r\n");
            }
            Some(returns) => {
                if returns.save {
                    let saved = saved(&returns, &found, &shown);
                    if let Some(selected) = &mut self.selected {
                        selected.saved = saved;
                    }
                }
                let quiet =
                    returns.save && !(returns.min || returns.max || returns.all || returns.count);
                if !quiet {
                    self.put_esearch(&returns, &numbers, search.uid, highest().filter(|_| modseq));
                }
            }
        }
        self.tell(search.uid, &[]);
        done("completed")
    }

    /// RFC 4731 3.1. The tag is put in by the caller's answer in IMAP; here by the last command's.
    fn put_esearch(
        &mut self,
        returns: &ReturnOptions,
        numbers: &[u32],
        uid: bool,
        modseq: Option<u64>,
    ) {
        let plain = !(returns.min || returns.max || returns.all || returns.count);
        let out = &mut self.out;
        put::text(out, &format!("* ESEARCH (TAG \"{}\")", self.tag));
        if uid {
            put::text(out, " UID");
        }
        if let Some(first) = numbers.first().filter(|_| returns.min) {
            put::text(out, &format!(" MIN {first}"));
        }
        if let Some(last) = numbers.last().filter(|_| returns.max) {
            put::text(out, &format!(" MAX {last}"));
        }
        if (returns.all || plain) && !numbers.is_empty() {
            put::text(out, " ALL ");
            put::set(out, &imap::from_numbers(numbers.iter().copied()));
        }
        if returns.count {
            put::text(out, &format!(" COUNT {}", numbers.len()));
        }
        if let Some(modseq) = modseq {
            put::text(out, &format!(" MODSEQ {modseq}"));
        }
        put::text(out, "\r\n");
    }

    /// Positions of the messages that match.
    async fn find(&mut self, key: &SearchKey) -> Result<Vec<usize>, Refused> {
        let selected: &Selected = self.chosen()?;
        let (shown, saved) = (selected.shown.clone(), selected.saved.clone());
        let now = i64::try_from(crate::now()).unwrap_or(0);
        // What the view can tell is told first, and spares reading the rest.
        let keys: Vec<&SearchKey> = match key {
            SearchKey::And(keys) => keys.iter().collect(),
            one => vec![one],
        };
        let (cheap, costly): (Vec<&SearchKey>, Vec<&SearchKey>) =
            keys.into_iter().partition(|key| cost(key) == Cost::View);
        let candidate = |position: usize, row| Candidate {
            position,
            row,
            snapshot: &shown,
            saved: &saved,
            now,
            content: None,
            parsed: None,
        };
        let mut found: Vec<usize> = Vec::new();
        for (position, row) in shown.rows.iter().enumerate() {
            let one = candidate(position, row);
            if cheap.iter().all(|key| one.matches(key)) {
                found.push(position);
            }
        }
        let Some(most) = costly.iter().map(|key| cost(key)).max() else {
            return Ok(found);
        };
        let wanted = Wanted {
            prefix: true,
            parsed: true,
            body: most == Cost::Body,
        };
        let mut matching = Vec::new();
        for part in found.chunks(if wanted.body { SET.1 } else { SET.0 }) {
            let rows: Vec<(usize, &Row)> = part
                .iter()
                .filter_map(|position| shown.rows.get(*position).map(|row| (*position, row)))
                .collect();
            let ids: Vec<ContentId> = rows.iter().map(|(_, row)| row.content).collect();
            let mut contents: HashMap<ContentId, Content> = HashMap::with_capacity(ids.len());
            let reader = self.service.reader.clone();
            let account = self.account_id();
            reader
                .contents(account, &ids, wanted, |content| {
                    drop(contents.insert(content.id, content))
                })
                .await?;
            for (position, row) in rows {
                let Some(content) = contents.get_mut(&row.content) else {
                    continue;
                };
                if let ContentBody::Outside { blob, .. } = content.body {
                    content.body = ContentBody::Octets(reader.body(blob).await?);
                }
                let Ok(parsed) = Parsed::decode(&content.parsed) else {
                    continue;
                };
                let one = Candidate {
                    content: Some(content),
                    parsed: Some(&parsed),
                    ..candidate(position, row)
                };
                if costly.iter().all(|key| one.matches(key)) {
                    matching.push(position);
                }
            }
            // Others have a turn while a large mailbox is searched.
            tokio::task::yield_now().await;
        }
        Ok(matching)
    }
}

/// RFC 9051 6.4.4.4: what SAVE keeps depends on the other options.
fn saved(returns: &ReturnOptions, found: &[usize], shown: &Snapshot) -> Vec<u32> {
    let uid = |position: &usize| shown.rows.get(*position).map(|row| row.uid);
    if (returns.min || returns.max) && !returns.all && !returns.count {
        let first = found.first().filter(|_| returns.min).and_then(uid);
        let last = found.last().filter(|_| returns.max).and_then(uid);
        let mut both: Vec<u32> = first.into_iter().chain(last).collect();
        both.dedup();
        return both;
    }
    found.iter().filter_map(uid).collect()
}
