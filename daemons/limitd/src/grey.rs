//! Greylisting: a network, sender and recipient that were not seen together before are asked to come again.
//!
//! In memory are the combinations and networks that were asked for lately; what is not there is read from the database once, so
//! that several hosts know the same. What changes is written a moment later. A database that is away costs only that: what
//! memory knows goes on.
//!
//! SECURITY: whoever invents senders fills the memory and the table of those who wait, never of those who came again, and both
//! are bounded.

use crate::config::{Greylist, SpfPass};
use crate::pattern::Patterns;
use crate::store::{GreyRow, Store};
use ipc::api::limitd::{Facts, Grey, GreyNetwork, Identity};
use runtime::metrics::{Counter, counter};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use types::{Address, Enhanced, Status};

/// What it is called where rules have names.
pub(crate) const NAME: &str = "greylist";
/// What waits to be written at most; what is more is not kept, and comes again.
const PENDING_MAX: usize = 20_000;
/// Seconds after which another host may know better of a network.
const NETWORK_FRESH: u64 = 60;
/// Seconds by which an expiry must move to be written again.
const EXPIRY_STEP: u64 = 3600;

type Item = [u8; 16];

/// When a combination came first, when it came again, and when it is forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    first: u64,
    passed: u64,
    expires: u64,
}

#[derive(Clone, Debug)]
struct KnownNetwork {
    good: u64,
    allowed: bool,
    expires: u64,
    read: u64,
}

/// What is in memory.
#[derive(Debug, Default)]
struct Memory {
    known: HashMap<Item, Known>,
    networks: HashMap<String, KnownNetwork>,
    pending: HashMap<Item, Grey>,
    pending_networks: HashMap<String, GreyNetwork>,
}

/// The settings, as they are looked at.
#[derive(Debug)]
pub(crate) struct Terms {
    pub(crate) config: Greylist,
    sender: Patterns,
    recipient: Patterns,
    client: Patterns,
}

impl Terms {
    /// # Errors
    /// What is wrong with them.
    pub(crate) fn new(config: &Greylist) -> Result<Self, String> {
        let fault = |text: String| format!("limitd.greylist: {text}");
        if config.delay == 0 || config.delay >= config.window || config.window > config.lifetime {
            let text = "delay is at least 1 and less than window, which is at most lifetime";
            return Err(fault(text.to_owned()));
        }
        Ok(Self {
            sender: Patterns::new(&config.except_sender).map_err(fault)?,
            recipient: Patterns::new(&config.except_recipient).map_err(fault)?,
            client: Patterns::of_hosts(&config.except_client).map_err(fault)?,
            config: config.clone(),
        })
    }

    /// Whether mail of this client may have to wait at all.
    pub(crate) fn concern(&self, facts: &Facts) -> bool {
        let config = &self.config;
        config.enabled
            && facts.account.is_none()
            && !facts.vouched
            && (config.listener.is_empty() || config.listener.contains(&facts.listener))
            && facts.client.is_some_and(|client| {
                !config
                    .except_network
                    .iter()
                    .any(|network| network.contains(client))
            })
            && !(facts.sender.is_some() && self.sender.mean(facts.sender.as_ref()))
            && !(facts.identity.as_ref()).is_some_and(|identity| self.exempts(identity))
    }

    /// Whether it matters who a client is in DNS.
    pub(crate) fn wants_identity(&self) -> bool {
        self.config.spf_pass != SpfPass::None || !self.client.is_empty()
    }

    fn exempts(&self, identity: &Identity) -> bool {
        let passes = identity.spf.is_some() && self.config.spf_pass == SpfPass::Exempt;
        let named = |name: &String| self.client.mean_host(name);
        passes || identity.name.as_ref().is_some_and(named)
    }

    /// The domain that stands where otherwise the network does.
    pub(crate) fn domain<'a>(&self, facts: &'a Facts) -> Option<&'a str> {
        let identity = facts.identity.as_ref()?;
        let by_domain = self.config.spf_pass == SpfPass::ByDomain;
        identity.spf.as_deref().filter(|_| by_domain)
    }

    fn concern_recipient(&self, recipient: &Address) -> bool {
        !self.recipient.mean(Some(recipient))
    }
}

/// What greylisting knows.
#[derive(Debug)]
pub(crate) struct Greylisting {
    memory: Mutex<Memory>,
    waits: Counter,
    passes: Counter,
}

impl Known {
    /// How long it has to wait from now on, and what is known then. Seconds.
    fn come(known: Option<Self>, config: &Greylist, now: u64) -> (Self, Option<u64>) {
        let fresh = Self {
            first: now,
            passed: 0,
            expires: now.saturating_add(config.window),
        };
        match known.filter(|known| known.expires > now) {
            None => (fresh, Some(config.delay)),
            Some(known) if known.passed > 0 => (known.stay(config, now), None),
            Some(known) => {
                let due = known.first.saturating_add(config.delay);
                match due.checked_sub(now).filter(|left| *left > 0) {
                    // It does not help to come again and again.
                    Some(left) => (known, Some(left)),
                    None => (
                        Self {
                            passed: now,
                            ..known
                        }
                        .stay(config, now),
                        None,
                    ),
                }
            }
        }
    }

    fn stay(self, config: &Greylist, now: u64) -> Self {
        let expires = now.saturating_add(config.lifetime);
        let moved = expires.abs_diff(self.expires) >= EXPIRY_STEP.min(config.lifetime / 4);
        Self {
            expires: if moved { expires } else { self.expires },
            ..self
        }
    }
}

fn item(network: &str, sender: &str, recipient: &str) -> Item {
    let mut hasher = blake3::Hasher::new();
    for part in [network, sender, recipient] {
        hasher.update(part.as_bytes());
        hasher.update(&[0]);
    }
    let mut item = Item::default();
    for (to, from) in item.iter_mut().zip(hasher.finalize().as_bytes()) {
        *to = *from;
    }
    item
}

fn hex(item: &Item) -> String {
    item.iter().map(|octet| format!("{octet:02x}")).collect()
}

fn told(wait: u64) -> Status {
    Status {
        code: 451,
        enhanced: Enhanced(4, 7, 1),
        text: format!(
            "Greylisted: this is the first mail of its kind, come again in {wait} seconds"
        ),
        host: None,
    }
}

impl Greylisting {
    pub(crate) fn new() -> Self {
        Self {
            memory: Mutex::default(),
            waits: counter(
                "limitd_greylisted_total{result=\"wait\"}",
                "Recipients by what greylisting said",
            ),
            passes: counter(
                "limitd_greylisted_total{result=\"pass\"}",
                "Recipients by what greylisting said",
            ),
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Combinations and networks in memory.
    pub(crate) fn len(&self) -> usize {
        let memory = self.memory();
        memory.known.len() + memory.networks.len()
    }

    /// Whether mail from this network (or domain) to this recipient must wait: what to tell. `now` in seconds since 1970. With `look`,
    /// it is not noted that it must.
    #[allow(clippy::too_many_arguments, reason = "what is known of a mail")]
    pub(crate) async fn check(
        &self,
        store: &Store,
        terms: &Terms,
        network: &str,
        sender: Option<&Address>,
        recipient: &Address,
        now: u64,
        look: bool,
    ) -> Option<Status> {
        if !terms.concern_recipient(recipient)
            || self.network(store, terms, network, now).await.allowed
        {
            return None;
        }
        let sender = sender.map_or_else(|| "<>".to_owned(), Address::key);
        let recipient = recipient.key();
        let item = item(network, &sender, &recipient);
        let known = self.memory().known.get(&item).copied();
        let known = match known {
            Some(known) => Some(known),
            None => match store.grey(&hex(&item), now).await {
                Ok(found) => found.map(|(first, passed, expires)| Known {
                    first,
                    passed,
                    expires,
                }),
                Err(error) => {
                    tracing::warn!(%error, "greylisting goes on from memory");
                    None
                }
            },
        };
        let (after, wait) = Known::come(known, &terms.config, now);
        if let (Some(wait), true) = (wait, look) {
            return Some(told(wait));
        }
        let mut memory = self.memory();
        if known != Some(after) && memory.pending.len() < PENDING_MAX {
            let grey = Grey {
                network: network.to_owned(),
                sender,
                recipient,
                first: after.first,
                passed: after.passed,
                expires: after.expires,
            };
            memory.pending.insert(item, grey);
        }
        memory.make_room(terms.config.entries, now);
        memory.known.insert(item, after);
        drop(memory);
        let Some(wait) = wait else {
            self.passes.add_one();
            return None;
        };
        self.waits.add_one();
        Some(told(wait))
    }

    async fn network(&self, store: &Store, terms: &Terms, network: &str, now: u64) -> KnownNetwork {
        let known = self.memory().networks.get(network).cloned();
        let stale = |known: &KnownNetwork| now.saturating_sub(known.read) > NETWORK_FRESH;
        let known = match known {
            Some(known) if !stale(&known) => known,
            known => {
                let found = match store.network(network, now).await {
                    Ok(found) => found,
                    Err(error) => {
                        tracing::warn!(%error, "greylisting goes on from memory");
                        None
                    }
                };
                let good = known.as_ref().map_or(0, |known| known.good);
                let known = KnownNetwork {
                    good: found.as_ref().map_or(0, |found| found.good).max(good),
                    allowed: found
                        .as_ref()
                        .map_or(known.as_ref().is_some_and(|one| one.allowed), |one| {
                            one.allowed
                        }),
                    expires: found.map_or(known.map_or(0, |one| one.expires), |one| one.expires),
                    read: now,
                };
                let mut memory = self.memory();
                memory.make_room_for_networks(terms.config.entries, now);
                memory.networks.insert(network.to_owned(), known.clone());
                known
            }
        };
        KnownNetwork {
            allowed: known.allowed && known.expires > now,
            ..known
        }
    }

    /// A message of this network was taken after waiting, or because it need not wait.
    pub(crate) fn good(&self, terms: &Terms, network: &str, now: u64) {
        let config = &terms.config;
        if config.network_after == 0 {
            return;
        }
        let mut memory = self.memory();
        let Some(known) = memory.networks.get_mut(network) else {
            return;
        };
        let expires = now.saturating_add(config.lifetime);
        if known.expires <= now {
            (known.good, known.allowed) = (0, false);
        }
        let changed = if known.allowed {
            // What an operator allowed ends when he said.
            let earned = known.good >= config.network_after;
            earned && expires.saturating_sub(known.expires) >= EXPIRY_STEP.min(config.lifetime / 4)
        } else {
            known.good += 1;
            known.allowed = known.good >= config.network_after;
            true
        };
        if changed {
            known.expires = expires;
        }
        let row = known.row(network);
        if changed {
            memory.note(row);
        }
    }

    /// Lets a network pass until then.
    pub(crate) fn allow(&self, terms: &Terms, network: &str, until: u64, now: u64) {
        let mut memory = self.memory();
        memory.make_room_for_networks(terms.config.entries, now);
        let known = KnownNetwork {
            good: 0,
            allowed: true,
            expires: until,
            read: now,
        };
        let row = known.row(network);
        memory.networks.insert(network.to_owned(), known);
        memory.note(row);
    }

    /// Forgets all that is in memory; the database has what it needs.
    pub(crate) fn clear(&self) {
        let mut memory = self.memory();
        memory.known = HashMap::new();
        memory.networks = HashMap::new();
    }

    /// Writes what has changed.
    pub(crate) async fn flush(&self, store: &Store) -> Result<(), sql::Error> {
        let (rows, networks) = {
            let mut memory = self.memory();
            (
                std::mem::take(&mut memory.pending),
                std::mem::take(&mut memory.pending_networks),
            )
        };
        if rows.is_empty() && networks.is_empty() {
            return Ok(());
        }
        let list: Vec<GreyRow> = rows
            .iter()
            .map(|(item, grey)| GreyRow {
                item: hex(item),
                grey: grey.clone(),
            })
            .collect();
        let nets: Vec<GreyNetwork> = networks.values().cloned().collect();
        let written = store.write_greys(&list, &nets).await;
        if written.is_err() {
            // What came meanwhile is newer.
            let mut memory = self.memory();
            for (item, grey) in rows {
                if memory.pending.len() < PENDING_MAX {
                    memory.pending.entry(item).or_insert(grey);
                }
            }
            for (network, row) in networks {
                if memory.pending_networks.len() < PENDING_MAX {
                    memory.pending_networks.entry(network).or_insert(row);
                }
            }
        }
        written
    }

    /// Forgets what has run out.
    pub(crate) fn sweep(&self, now: u64) {
        let mut memory = self.memory();
        memory.known.retain(|_, known| known.expires > now);
        memory
            .networks
            .retain(|_, known| now.saturating_sub(known.read) <= 10 * NETWORK_FRESH);
        memory.known.shrink_to(1024);
        memory.networks.shrink_to(1024);
    }
}

impl KnownNetwork {
    fn row(&self, network: &str) -> GreyNetwork {
        GreyNetwork {
            network: network.to_owned(),
            good: self.good,
            allowed: self.allowed,
            expires: self.expires,
        }
    }
}

impl Memory {
    fn note(&mut self, row: GreyNetwork) {
        if self.pending_networks.len() < PENDING_MAX {
            self.pending_networks.insert(row.network.clone(), row);
        }
    }

    /// The database has what is forgotten here. A whole share goes at once, so that it costs little for each that comes.
    fn make_room(&mut self, most: usize, now: u64) {
        if self.known.len() < most.max(16) {
            return;
        }
        self.known.retain(|_, known| known.expires > now);
        let mut over = (self.known.len() + most / 8).saturating_sub(most);
        // Those that wait first.
        for keep_passed in [true, false] {
            self.known.retain(|_, known| {
                let goes = over > 0 && !(keep_passed && known.passed > 0);
                over -= usize::from(goes);
                !goes
            });
        }
    }

    fn make_room_for_networks(&mut self, most: usize, now: u64) {
        if self.networks.len() < most.max(16) {
            return;
        }
        let mut over = most / 8;
        self.networks.retain(|_, known| {
            let goes = over > 0 && !(known.allowed && known.expires > now);
            over -= usize::from(goes);
            !goes
        });
        if self.networks.len() >= most.max(16) {
            self.networks.clear();
        }
    }
}
