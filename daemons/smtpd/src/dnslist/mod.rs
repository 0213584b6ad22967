//! Lists in DNS of who is not wanted, and of who is known to be good (RFC 5782).
//!
//! All lists are asked at once, when the first recipient is named, and within one time limit. Answers are kept for as long as
//! they say. A list that does not answer, or says that it will not, stops nobody.

mod answer;
mod config;

pub use config::{Ask, DnsList, DnsListsConfig, Kind, ListAction, ListStage, When};

use answer::{Answers, Meaning, name_of_address, name_of_domain};
use hickory_resolver::TokioResolver;
use hickory_resolver::proto::rr::{RData, RecordType};
use runtime::metrics::{Counter, counter};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;
use types::{Enhanced, Status};

/// Who is asked about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stranger {
    /// Its address.
    pub client: Option<IpAddr>,
    /// What it calls itself.
    pub helo: String,
    /// The domain of MAIL FROM; empty for none.
    pub sender: String,
}

/// How far the client is: which lists are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asking {
    /// It came: those that are asked about its address.
    Connect,
    /// It said MAIL: those whose stage that is, and those that let pass.
    Mail,
    /// It said RCPT: all.
    Rcpt,
}

impl Asking {
    fn asks(self, list: &DnsList) -> bool {
        match self {
            Self::Connect => list.ask == Ask::Client,
            Self::Mail => list.stage == ListStage::Mail || list.kind == Kind::Allow,
            Self::Rcpt => true,
        }
    }
}

/// What the lists say together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// About whom.
    pub of: Stranger,
    /// It is on an allow list.
    pub vouched: bool,
    /// What is done, and what the client is told.
    pub stopped: Option<(ListAction, Status)>,
}

impl Standing {
    /// What is done and said, if the client is not to go on.
    pub(crate) fn refused(&self) -> Option<(ListAction, &Status)> {
        let (action, status) = self.stopped.as_ref()?;
        (*action >= ListAction::Later).then_some((*action, status))
    }
}

struct List {
    config: DnsList,
    answers: Answers,
    listed: Counter,
    broken: AtomicBool,
}

/// What one list says.
struct Hit {
    list: Arc<List>,
    name: String,
    txt: Option<String>,
}

/// The lists, and who asks DNS about them.
pub struct DnsLists {
    resolver: TokioResolver,
    lists: Vec<Arc<List>>,
    threshold: u32,
    timeout: Duration,
}

impl std::fmt::Debug for DnsLists {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} lists in DNS", self.lists.len())
    }
}

impl List {
    /// The name by which it is asked about a stranger; `None` if there is nothing to ask.
    fn name(&self, of: &Stranger) -> Option<(String, String)> {
        let zone = self.config.zone.trim_end_matches('.');
        match self.config.ask {
            Ask::Client => {
                let client = of.client?;
                Some((
                    name_of_address(client, zone),
                    client.to_canonical().to_string(),
                ))
            }
            Ask::Helo => Some((name_of_domain(&of.helo, zone)?, of.helo.clone())),
            Ask::Sender => Some((name_of_domain(&of.sender, zone)?, of.sender.clone())),
        }
    }

    /// Whether a name is on it; an error says what kind of no answer came.
    async fn has(&self, resolver: &TokioResolver, name: &str) -> Result<bool, String> {
        let found = match resolver.lookup(name, RecordType::A).await {
            Ok(found) => found,
            Err(error) if error.is_no_records_found() || error.is_nx_domain() => return Ok(false),
            Err(error) => return Err(error.to_string()),
        };
        let mut listed = false;
        for record in found.answers() {
            let RData::A(address) = record.data else {
                continue;
            };
            match self.answers.meaning(address.0) {
                Meaning::Listed => listed = true,
                Meaning::Other => {}
                Meaning::Broken => {
                    return Err(format!(
                        "it answers {}, which says that it does not answer us",
                        address.0
                    ));
                }
            }
        }
        Ok(listed)
    }

    async fn ask(
        self: Arc<Self>,
        resolver: TokioResolver,
        name: String,
        about: String,
    ) -> Option<Hit> {
        match self.has(&resolver, &name).await {
            Ok(true) => {}
            Ok(false) => {
                self.broken.store(false, Ordering::Relaxed);
                return None;
            }
            Err(error) => {
                // Once, until it answers again.
                if !self.broken.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        zone = self.config.zone,
                        error,
                        "a list in DNS gives no answer; it stops nobody"
                    );
                }
                return None;
            }
        }
        self.broken.store(false, Ordering::Relaxed);
        let txt = if self.config.text.contains("{txt}") {
            txt(&resolver, &name).await
        } else {
            None
        };
        Some(Hit {
            list: self,
            name: about,
            txt,
        })
    }
}

/// What a list says of somebody: one line, without what does not belong into a reply.
async fn txt(resolver: &TokioResolver, name: &str) -> Option<String> {
    let found = resolver.lookup(name, RecordType::TXT).await.ok()?;
    let text = found
        .answers()
        .iter()
        .find_map(|record| match &record.data {
            RData::TXT(txt) => Some(txt.txt_data.concat()),
            _ => None,
        })?;
    let printable = |octet: u8| {
        if (0x20..0x7f).contains(&octet) {
            char::from(octet)
        } else {
            '?'
        }
    };
    Some(
        text.iter()
            .take(300)
            .map(|octet| printable(*octet))
            .collect(),
    )
}

impl DnsLists {
    /// `None` if there are no lists.
    ///
    /// # Errors
    /// No resolver can be made of these settings; a list that makes no sense.
    pub fn new(
        config: &DnsListsConfig,
        nameservers: &[SocketAddr],
    ) -> Result<Option<Self>, String> {
        if config.list.is_empty() {
            return Ok(None);
        }
        let timeout = Duration::from_secs(config.timeout.clamp(1, 30));
        let resolver = mailauth::resolver(nameservers, timeout / 2)?;
        let list = |list: &DnsList| {
            let name = format!("smtpd_dnslist_listed_total{{zone=\"{}\"}}", list.zone);
            Ok(Arc::new(List {
                answers: Answers::new(&list.answers)?,
                config: list.clone(),
                listed: counter(&name, "Strangers that were on a list in DNS"),
                broken: AtomicBool::new(false),
            }))
        };
        Ok(Some(Self {
            resolver,
            lists: config
                .list
                .iter()
                .map(list)
                .collect::<Result<_, String>>()?,
            threshold: config.threshold.max(1),
            timeout,
        }))
    }

    /// What the lists say of a stranger.
    pub async fn standing(&self, of: Stranger, at: Asking) -> Standing {
        let mut asking = JoinSet::new();
        for list in &self.lists {
            if !at.asks(&list.config) {
                continue;
            }
            if let Some((name, about)) = list.name(&of) {
                asking.spawn(Arc::clone(list).ask(self.resolver.clone(), name, about));
            }
        }
        let mut hits = Vec::new();
        let answers = async {
            while let Some(answer) = asking.join_next().await {
                hits.extend(answer.ok().flatten());
            }
        };
        if tokio::time::timeout(self.timeout, answers).await.is_err() {
            tracing::debug!("not all lists in DNS have answered in time");
        }
        let standing = judge(&hits, self.threshold, of);
        // At RCPT all of them are asked again.
        if at != Asking::Mail || standing.refused().is_some() {
            for hit in &hits {
                hit.list.listed.add_one();
            }
        }
        standing
    }

    /// Asks each list about the entries that it must and must not have (RFC 5782 5): its zone, and what is wrong.
    pub async fn probe(&self) -> Vec<(String, Result<(), String>)> {
        let mut probed = Vec::new();
        for list in &self.lists {
            let zone = list.config.zone.trim_end_matches('.');
            let (has, has_not) = match list.config.ask {
                Ask::Client => (format!("2.0.0.127.{zone}."), format!("1.0.0.127.{zone}.")),
                _ => (format!("test.{zone}."), format!("invalid.{zone}.")),
            };
            let any = List {
                answers: Answers::default(),
                config: list.config.clone(),
                listed: list.listed.clone(),
                broken: AtomicBool::new(false),
            };
            let result = match (
                any.has(&self.resolver, &has).await,
                any.has(&self.resolver, &has_not).await,
            ) {
                (Ok(true), Ok(false)) => Ok(()),
                (Ok(false), Ok(_)) => Err(format!(
                    "it does not have its test entry {has}: it is no list, or does not serve us"
                )),
                (Ok(true), Ok(true)) => Err(format!("it has {has_not}: it lists everything")),
                (Err(error), _) | (_, Err(error)) => Err(error),
            };
            probed.push((zone.to_owned(), result));
        }
        probed
    }
}

/// What becomes of what the lists say.
fn judge(hits: &[Hit], threshold: u32, of: Stranger) -> Standing {
    let vouched = hits.iter().any(|hit| hit.list.config.kind == Kind::Allow);
    let mut standing = Standing {
        of,
        vouched,
        stopped: None,
    };
    if vouched {
        return standing;
    }
    let weight = hits
        .iter()
        .fold(0_u32, |sum, hit| sum.saturating_add(hit.list.config.weight));
    // The strictest says what happens, and why.
    let Some(hit) = hits.iter().max_by_key(|hit| hit.list.config.action) else {
        return standing;
    };
    if weight < threshold {
        return standing;
    }
    let config = &hit.list.config;
    let address = standing
        .of
        .client
        .map_or_else(String::new, |client| client.to_canonical().to_string());
    let text = config
        .text
        .replace("{address}", &address)
        .replace("{zone}", &config.zone)
        .replace("{name}", &hit.name)
        .replace("{txt}", hit.txt.as_deref().unwrap_or("it is listed"));
    let (code, enhanced) = match config.action {
        ListAction::Later => (451, Enhanced(4, 7, 1)),
        // RFC 5782 2.1, RFC 3463 3.8: delivery not authorized
        _ => (554, Enhanced(5, 7, 1)),
    };
    let status = Status {
        code,
        enhanced,
        text: text.chars().take(450).collect(),
        host: None,
    };
    standing.stopped = Some((config.action, status));
    standing
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn hit(text: &str) -> Hit {
        let config: DnsList = toml::from_str(text).unwrap();
        Hit {
            list: Arc::new(List {
                answers: Answers::new(&config.answers).unwrap(),
                config,
                listed: counter("test_total", "Of a test"),
                broken: AtomicBool::new(false),
            }),
            name: "192.0.2.1".to_owned(),
            txt: Some("see https://example.org".to_owned()),
        }
    }

    fn judged(texts: &[&str], threshold: u32) -> (bool, Option<(ListAction, String)>) {
        let hits: Vec<Hit> = texts.iter().map(|text| hit(text)).collect();
        let standing = judge(&hits, threshold, Stranger::default());
        let stopped = standing
            .stopped
            .map(|(action, status)| (action, status.to_string()));
        (standing.vouched, stopped)
    }

    #[test]
    fn lists_are_weighed_together() {
        assert_eq!(judged(&[], 1), (false, None));
        let (_, stopped) = judged(&["zone = 'a.example'\ntext = '{name} at {zone}: {txt}'"], 1);
        let text = "554 5.7.1 192.0.2.1 at a.example: see https://example.org";
        assert_eq!(stopped, Some((ListAction::Refuse, text.to_owned())));
        let (one, two) = (
            "zone = 'a.example'\naction = 'junk'",
            "zone = 'b.example'\naction = 'later'",
        );
        assert_eq!(judged(&[one], 2), (false, None));
        let (_, stopped) = judged(&[one, two], 2);
        assert_eq!(
            stopped,
            Some((
                ListAction::Later,
                "451 4.7.1 192.0.2.1 is listed at b.example".to_owned()
            ))
        );
        assert_eq!(
            judged(&[one, "zone = 'w.example'\nkind = 'allow'"], 1),
            (true, None)
        );
        assert!(judged(&["zone = 'a.example'\nweight = 3"], 3).1.is_some());
    }

    #[test]
    fn settings_that_make_no_sense() {
        let fault = |text: &str| toml::from_str::<DnsListsConfig>(text).unwrap().fault();
        assert_eq!(fault("list = [{zone = 'bl.example'}]"), None);
        for text in [
            "threshold = 0",
            "timeout = 31",
            "list = [{zone = ''}]",
            "list = [{zone = 'a b'}]",
            "list = [{zone = 'a.example', answers = ['x']}]",
            "list = [{zone = 'a.example', text = \"a\\r\\nb\"}]",
        ] {
            assert!(fault(text).is_some(), "{text}");
        }
    }
}
