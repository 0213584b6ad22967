//! SEARCH (RFC 9051 6.4.4): from the view where it knows the answer, from what is stored beside a message where that does,
//! and only then from the message.

use crate::session::{Done, Selected, Session, done, within};
use crate::view::{Row, Snapshot};
use imap::put;
use imap::{ReturnOptions, Search, SearchKey, SequenceSet, date};
use std::collections::HashMap;
use std::sync::Arc;
use store::{Content, ContentBody, Reader, SystemFlags, Wanted};
use tokio::io::{AsyncRead, AsyncWrite};
use types::{AccountId, ContentId};

/// Messages whose description is read at once.
const DESCRIBED: usize = 512;
/// Messages whose text is read at once, and their octets.
const READ: usize = 64;
const READ_OCTETS: u64 = 8 << 20;
/// Octets of text of one message that are looked at.
const TEXT_MAX: usize = 64 << 20;

/// A search, ready to be asked of each message.
#[derive(Debug)]
enum Plan {
    All(Vec<Plan>),
    Any(Vec<Plan>),
    Not(Box<Plan>),
    Test(Test),
}

#[derive(Debug)]
enum Test {
    Always,
    Never,
    /// Positions from 1, ascending ranges.
    Numbers(Vec<(u32, u32)>),
    Uids(Vec<(u32, u32)>),
    System(SystemFlags),
    Keyword(String),
    /// INTERNALDATE: days, from (included) and to (excluded).
    Day(i32, i32),
    Sent(i32, i32),
    Larger(u64),
    Smaller(u64),
    /// INTERNALDATE in seconds: at most, at least.
    NotAfter(i64),
    NotBefore(i64),
    ModSeq(u64),
    Email(u64),
    Thread(u64),
    /// A field's name and what its value contains, in lower case.
    Header(String, String),
    Body(String),
    Text(String),
}

/// The number in an EMAILID or THREADID (RFC 8474), as FETCH shows it.
fn object_id(text: &str, letter: char) -> Option<u64> {
    text.strip_prefix(letter)?.parse().ok()
}

/// What a search needs to know besides the messages.
struct Ground<'a> {
    shown: &'a Snapshot,
    saved: &'a [u32],
    now: i64,
}

impl Ground<'_> {
    fn plan(&self, key: &SearchKey) -> Plan {
        let test = match key {
            SearchKey::And(keys) => {
                return Plan::All(keys.iter().map(|key| self.plan(key)).collect());
            }
            SearchKey::Or(one, other) => return Plan::Any(vec![self.plan(one), self.plan(other)]),
            SearchKey::Not(key) => return Plan::Not(Box::new(self.plan(key))),
            SearchKey::All => Test::Always,
            // Nobody is promised \Recent.
            SearchKey::Recent => Test::Never,
            SearchKey::Sequence(set) => self.numbers(set),
            SearchKey::Uid(set) => {
                let largest = self.shown.rows.last().map_or(0, |row| row.uid);
                Test::Uids(set.resolve(largest).unwrap_or_else(|| self.saved_uids()))
            }
            SearchKey::Flag(name) => {
                let system = SystemFlags::NAMES
                    .iter()
                    .find(|(_, known)| known.eq_ignore_ascii_case(name));
                match system {
                    Some((flag, _)) => Test::System(*flag),
                    None => Test::Keyword(name.clone()),
                }
            }
            SearchKey::Before(day) => Test::Day(i32::MIN, *day),
            SearchKey::On(day) => Test::Day(*day, day.saturating_add(1)),
            SearchKey::Since(day) => Test::Day(*day, i32::MAX),
            SearchKey::SentBefore(day) => Test::Sent(i32::MIN, *day),
            SearchKey::SentOn(day) => Test::Sent(*day, day.saturating_add(1)),
            SearchKey::SentSince(day) => Test::Sent(*day, i32::MAX),
            SearchKey::Larger(size) => Test::Larger(*size),
            SearchKey::Smaller(size) => Test::Smaller(*size),
            // RFC 5032 3
            SearchKey::Older(seconds) => Test::NotAfter(self.now - i64::from(*seconds)),
            SearchKey::Younger(seconds) => Test::NotBefore(self.now - i64::from(*seconds)),
            SearchKey::ModSeq(modseq) => Test::ModSeq(*modseq),
            SearchKey::EmailId(id) => object_id(id, 'M').map_or(Test::Never, Test::Email),
            SearchKey::ThreadId(id) => object_id(id, 'T').map_or(Test::Never, Test::Thread),
            SearchKey::Header(name, text) => Test::Header(name.clone(), text.to_lowercase()),
            SearchKey::Body(text) => Test::Body(text.to_lowercase()),
            SearchKey::Text(text) => Test::Text(text.to_lowercase()),
        };
        Plan::Test(test)
    }

    fn numbers(&self, set: &SequenceSet) -> Test {
        let largest = u32::try_from(self.shown.rows.len()).unwrap_or(u32::MAX);
        match set.resolve(largest) {
            Some(ranges) => Test::Numbers(ranges),
            None => Test::Uids(self.saved_uids()),
        }
    }

    fn saved_uids(&self) -> Vec<(u32, u32)> {
        imap::from_numbers(self.saved.iter().copied())
    }
}

impl Plan {
    /// Whether it holds, as far as `ask` knows.
    fn holds(&self, ask: &mut impl FnMut(&Test) -> Option<bool>) -> Option<bool> {
        let mut known = true;
        match self {
            Self::Test(test) => ask(test),
            Self::Not(plan) => plan.holds(ask).map(|held| !held),
            Self::All(plans) => {
                for plan in plans {
                    match plan.holds(ask) {
                        Some(true) => {}
                        Some(false) => return Some(false),
                        None => known = false,
                    }
                }
                known.then_some(true)
            }
            Self::Any(plans) => {
                for plan in plans {
                    match plan.holds(ask) {
                        Some(true) => return Some(true),
                        Some(false) => {}
                        None => known = false,
                    }
                }
                known.then_some(false)
            }
        }
    }
}

/// What the view knows.
fn ask_row(test: &Test, position: usize, row: &Row) -> Option<bool> {
    Some(match test {
        Test::Always => true,
        Test::Never => false,
        Test::Numbers(ranges) => within(
            ranges,
            u32::try_from(position)
                .unwrap_or(u32::MAX)
                .saturating_add(1),
        ),
        Test::Uids(ranges) => within(ranges, row.uid),
        Test::System(flag) => row.system.contains(*flag),
        Test::Keyword(name) => row
            .keywords
            .as_deref()
            .is_some_and(|words| words.split(' ').any(|word| word.eq_ignore_ascii_case(name))),
        Test::Day(from, to) => (*from..*to).contains(&date::day_of(row.date)),
        Test::Larger(size) => row.size > *size,
        Test::Smaller(size) => row.size < *size,
        Test::NotAfter(unix) => row.date <= *unix,
        Test::NotBefore(unix) => row.date >= *unix,
        Test::ModSeq(modseq) => row.modseq >= *modseq,
        Test::Email(id) => row.content.0 == *id,
        Test::Thread(id) => row.thread.0 == *id,
        Test::Sent(..) | Test::Header(..) | Test::Body(_) | Test::Text(_) => return None,
    })
}

/// What is stored beside the message knows, and with `body` all the rest.
fn ask_content(test: &Test, content: &Content, body: Option<&[u8]>) -> Option<bool> {
    match test {
        Test::Sent(from, to) => {
            let sent = message::Parsed::decode(&content.parsed)
                .ok()
                .and_then(|parsed| parsed.sent);
            // RFC 9051 6.4.4: the date as the sender wrote it, whatever the zone
            Some(sent.is_some_and(|sent| {
                (*from..*to).contains(&date::day_in_zone(sent.unix, sent.zone))
            }))
        }
        Test::Header(name, text) => {
            let names = [name.as_bytes()];
            let listed = message::stored::select_listed(&content.parsed, &content.prefix, &names);
            if let Ok(Some(lines)) = listed {
                return Some(has_field(&lines, name, text));
            }
            let body = body?;
            Some(has_field(&content.prefix, name, text) || has_field(body, name, text))
        }
        Test::Body(text) => Some(in_text(content, body?, text)),
        Test::Text(text) => {
            let body = body?;
            Some(
                in_header(&content.prefix, text)
                    || in_header(body, text)
                    || in_text(content, body, text),
            )
        }
        _ => None,
    }
}

fn has_field(header: &[u8], name: &str, text: &str) -> bool {
    message::Fields::new(header)
        .filter(|field| field.name.eq_ignore_ascii_case(name.as_bytes()))
        .any(|field| text.is_empty() || contains(&message::header_text(field.value), text))
}

fn in_header(header: &[u8], text: &str) -> bool {
    message::Fields::new(header).any(|field| {
        let name = String::from_utf8_lossy(field.name);
        contains(
            &format!("{name}: {}", message::header_text(field.value).trim()),
            text,
        )
    })
}

fn in_text(content: &Content, body: &[u8], text: &str) -> bool {
    let Ok(parsed) = message::Parsed::decode(&content.parsed) else {
        return contains(&String::from_utf8_lossy(body), text);
    };
    let mut found = false;
    message::for_each_text(&parsed, body, TEXT_MAX, |part| {
        found = contains(part, text);
        !found
    });
    found
}

/// Without regard to case; `text` is in lower case.
fn contains(whole: &str, text: &str) -> bool {
    if text.is_ascii() && whole.is_ascii() {
        let (whole, text) = (whole.as_bytes(), text.as_bytes());
        let Some((first, _)) = text.split_first() else {
            return true;
        };
        let mut rest = whole;
        // Both cases of the first letter are looked for at once; the rest is compared where one stands.
        while let Some(at) = memchr::memchr2(*first, first.to_ascii_uppercase(), rest) {
            let here = rest.get(at..).unwrap_or_default();
            if here
                .get(..text.len())
                .is_some_and(|head| head.eq_ignore_ascii_case(text))
            {
                return true;
            }
            rest = here.get(1..).unwrap_or_default();
        }
        return false;
    }
    whole.to_lowercase().contains(text)
}

/// Positions of the messages for which `plan` holds, ascending.
async fn find(
    reader: &Reader,
    account: AccountId,
    shown: &Snapshot,
    plan: &Plan,
) -> Result<Vec<usize>, store::Error> {
    let mut found = Vec::new();
    let mut open = Vec::new();
    for (position, row) in shown.rows.iter().enumerate() {
        match plan.holds(&mut |test| ask_row(test, position, row)) {
            Some(true) => found.push(position),
            Some(false) => {}
            None => open.push((position, row)),
        }
    }
    let mut unread = Vec::new();
    for some in open.chunks(DESCRIBED) {
        let wanted = Wanted {
            prefix: true,
            parsed: true,
            body: false,
        };
        let contents = contents(reader, account, some, wanted).await?;
        for (position, row) in some {
            let Some(content) = contents.get(&row.content) else {
                continue;
            };
            let held = plan.holds(&mut |test| {
                ask_row(test, *position, row).or_else(|| ask_content(test, content, None))
            });
            match held {
                Some(true) => found.push(*position),
                Some(false) => {}
                None => unread.push((*position, *row)),
            }
        }
    }
    let mut rest = unread.as_slice();
    while !rest.is_empty() {
        let mut octets = 0;
        let fits = |(_, row): &&(usize, &Row)| {
            octets += row.size;
            octets <= READ_OCTETS
        };
        let count = rest.iter().take(READ).take_while(fits).count().max(1);
        let (some, behind) = rest.split_at_checked(count).unwrap_or_default();
        rest = behind;
        let wanted = Wanted {
            prefix: true,
            parsed: true,
            body: true,
        };
        let contents = contents(reader, account, some, wanted).await?;
        for (position, row) in some {
            let Some(content) = contents.get(&row.content) else {
                continue;
            };
            let outside;
            let body = match &content.body {
                ContentBody::Octets(octets) => octets.as_slice(),
                ContentBody::Outside { blob, .. } => {
                    outside = reader.body(*blob).await?;
                    outside.as_slice()
                }
                ContentBody::None => continue,
            };
            let held = plan.holds(&mut |test| {
                ask_row(test, *position, row).or_else(|| ask_content(test, content, Some(body)))
            });
            if held == Some(true) {
                found.push(*position);
            }
        }
        tokio::task::yield_now().await;
    }
    found.sort_unstable();
    Ok(found)
}

async fn contents(
    reader: &Reader,
    account: AccountId,
    some: &[(usize, &Row)],
    wanted: Wanted,
) -> Result<HashMap<ContentId, Content>, store::Error> {
    let ids: Vec<ContentId> = some.iter().map(|(_, row)| row.content).collect();
    let mut contents = HashMap::with_capacity(ids.len());
    let take = |content: Content| drop(contents.insert(content.id, content));
    reader.contents(account, &ids, wanted, take).await?;
    Ok(contents)
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + Sync> Session<S> {
    /// SEARCH and UID SEARCH.
    pub(super) async fn search(&mut self, search: &Search) -> Done {
        let result = self.searched(search).await;
        // RFC 9051 6.4.4.4: a search that fails leaves nothing saved
        let saves = search.returns.is_some_and(|returns| returns.save);
        if result.is_err()
            && saves
            && let Some(selected) = &mut self.selected
        {
            selected.saved.clear();
        }
        result
    }

    async fn searched(&mut self, search: &Search) -> Done {
        let account = self.account_id();
        let selected = self.chosen()?;
        let shown = Arc::clone(&selected.shown);
        let ground = Ground {
            shown: &shown,
            saved: &selected.saved,
            now: i64::try_from(crate::now()).unwrap_or(i64::MAX),
        };
        let plan = ground.plan(&search.key);
        let found = find(&self.service.reader, account, &shown, &plan).await?;
        let with_modseq = search.key.any(&|key| matches!(key, SearchKey::ModSeq(_)));
        // RFC 7162 3.1: this search enables CONDSTORE
        self.condstore |= with_modseq;
        let rows: Vec<(usize, &Row)> = found
            .iter()
            .filter_map(|at| shown.rows.get(*at).map(|row| (*at, row)))
            .collect();
        let number = |(at, row): &(usize, &Row)| match search.uid {
            true => row.uid,
            false => u32::try_from(*at).unwrap_or(u32::MAX).saturating_add(1),
        };
        let numbers: Vec<u32> = rows.iter().map(number).collect();
        let modseq = with_modseq
            .then(|| rows.iter().map(|(_, row)| row.modseq).max())
            .flatten();
        // RFC 9051 6.4.4: IMAP4rev2 knows ESEARCH only
        let rev2 = self.rev2.then_some(ReturnOptions {
            all: true,
            ..ReturnOptions::default()
        });
        match search.returns.or(rev2) {
            Some(returns) => {
                put_esearch(
                    &mut self.out,
                    &self.tag,
                    search.uid,
                    returns,
                    &numbers,
                    modseq,
                );
                if returns.save
                    && let Some(selected) = &mut self.selected
                {
                    save(selected, returns, rows.iter().map(|(_, row)| row.uid));
                }
            }
            None => {
                put::text(&mut self.out, "* SEARCH");
                for number in &numbers {
                    self.out.push(b' ');
                    put::number(&mut self.out, u64::from(*number));
                }
                put_modseq(&mut self.out, modseq);
                put::text(&mut self.out, "\r\n");
            }
        }
        self.tell(search.uid, &[]);
        self.flush_if_full().await?;
        done("completed")
    }
}

/// RFC 9051 6.4.4.1: with MIN or MAX alone, only those are saved.
fn save(selected: &mut Selected, returns: ReturnOptions, uids: impl Iterator<Item = u32>) {
    let uids: Vec<u32> = uids.collect();
    if returns.all || returns.count || !(returns.min || returns.max) {
        selected.saved = uids;
        return;
    }
    let min = uids.first().filter(|_| returns.min);
    let max = uids.last().filter(|_| returns.max);
    let mut ends: Vec<u32> = min.into_iter().chain(max).copied().collect();
    ends.dedup();
    selected.saved = ends;
}

/// RFC 9051 7.3.4
fn put_esearch(
    out: &mut Vec<u8>,
    tag: &str,
    uid: bool,
    returns: ReturnOptions,
    numbers: &[u32],
    modseq: Option<u64>,
) {
    let only_save = ReturnOptions {
        save: true,
        ..ReturnOptions::default()
    };
    if returns == only_save {
        return;
    }
    put::text(out, "* ESEARCH (TAG ");
    put::string(out, tag.as_bytes());
    put::text(out, ")");
    if uid {
        put::text(out, " UID");
    }
    let ends = [
        (returns.min, " MIN ", numbers.first()),
        (returns.max, " MAX ", numbers.last()),
    ];
    for (wanted, name, number) in ends {
        if let Some(number) = number.filter(|_| wanted) {
            put::text(out, name);
            put::number(out, u64::from(*number));
        }
    }
    if returns.all && !numbers.is_empty() {
        put::text(out, " ALL ");
        put::set(out, &imap::from_numbers(numbers.iter().copied()));
    }
    if returns.count {
        put::text(out, " COUNT ");
        put::number(out, numbers.len() as u64);
    }
    if let Some(modseq) = modseq {
        put::text(out, " MODSEQ ");
        put::number(out, modseq);
    }
    put::text(out, "\r\n");
}

/// RFC 7162 3.1.5
fn put_modseq(out: &mut Vec<u8>, modseq: Option<u64>) {
    if let Some(modseq) = modseq {
        put::text(out, " (MODSEQ ");
        put::number(out, modseq);
        put::text(out, ")");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_found_in_any_case() {
        assert!(contains("Hello World", "o w"));
        assert!(contains("Hello", ""));
        assert!(!contains("Hello", "hellow"));
        assert!(contains("aaab", "aab"));
        assert!(contains("GRÜSSE", "grüsse"));
        assert!(!contains("Grüße", "x"));
    }

    #[test]
    fn what_is_not_known_stays_open() {
        let text = || Plan::Test(Test::Text("x".into()));
        let always = || Plan::Test(Test::Always);
        let mut ask = |test: &Test| match test {
            Test::Always => Some(true),
            Test::Never => Some(false),
            _ => None,
        };
        assert_eq!(Plan::All(vec![text(), always()]).holds(&mut ask), None);
        assert_eq!(
            Plan::Any(vec![text(), always()]).holds(&mut ask),
            Some(true)
        );
        let never = Plan::Not(Box::new(always()));
        assert_eq!(Plan::All(vec![text(), never]).holds(&mut ask), Some(false));
        assert_eq!(Plan::Not(Box::new(text())).holds(&mut ask), None);
    }

    #[test]
    fn esearch_tells_what_was_asked() {
        let written = |returns, numbers: &[u32], modseq| {
            let mut out = Vec::new();
            put_esearch(&mut out, "a", true, returns, numbers, modseq);
            String::from_utf8_lossy(&out).into_owned()
        };
        let all = ReturnOptions {
            min: true,
            max: true,
            all: true,
            count: true,
            save: false,
        };
        assert_eq!(
            written(all, &[2, 3, 4, 9], Some(7)),
            "* ESEARCH (TAG \"a\") UID MIN 2 MAX 9 ALL 2:4,9 COUNT 4 MODSEQ 7\r\n"
        );
        assert_eq!(
            written(all, &[], None),
            "* ESEARCH (TAG \"a\") UID COUNT 0\r\n"
        );
        assert_eq!(
            written(
                ReturnOptions {
                    save: true,
                    ..ReturnOptions::default()
                },
                &[1],
                None
            ),
            ""
        );
    }
}
