//! The operations, and what is done beside them.

use crate::config::Config;
use crate::counts::Counts;
use crate::grey::{self, Greylisting, Terms};
use crate::rule::Nets;
use crate::store::Store;
use ipc::api::limitd::{
    GiveBack, GreyAllow, GreyForget, GreyList, Greys, LimitList, LimitReset, LimitShow, Stage,
    Weigh, Weighed,
};
use ipc::{Fault, FaultKind, Router};
use runtime::metrics::{Counter, Gauge, counter, gauge};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::SystemTime;
use types::TraceId;

/// Rows of counts in an answer: a frame has 128 KiB.
const LISTED: u32 = 300;
/// Rows of greylisting, whose addresses may be long.
const GREYS: u32 = 150;

/// Everything that limitd does.
pub(crate) struct Limits {
    counts: Mutex<Counts>,
    greylisting: Greylisting,
    settings: RwLock<Arc<Settings>>,
    store: Store,
    weighed: Counter,
    failed: Counter,
    keys: Gauge,
}

/// What a reload replaces, beside the rules.
struct Settings {
    terms: Terms,
    nets: Nets,
    rows: u64,
}

/// Milliseconds since 1970.
fn now_ms() -> u64 {
    let elapsed = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

fn fault(error: &sql::Error) -> Fault {
    let kind = if error.is_temporary() {
        FaultKind::Temporary
    } else {
        FaultKind::Internal
    };
    Fault::new(kind, format!("the database of limits: {error}"))
}

impl Settings {
    fn new(config: &Config) -> Result<Arc<Self>, String> {
        Ok(Arc::new(Self {
            terms: Terms::new(&config.greylist)?,
            nets: Nets::of(config),
            rows: config.greylist.rows,
        }))
    }
}

/// What is wrong with the rules and greylisting.
pub(crate) fn check(config: &Config) -> Result<(), String> {
    if !(100..=60_000).contains(&config.write_ms) {
        return Err("limitd.write_ms is from 100 to 60,000".to_owned());
    }
    if config.ipv4_network > 32 || config.ipv6_network > 128 {
        return Err("limitd: an IPv4 network has at most 32 bits, an IPv6 one 128".to_owned());
    }
    if config.entries == 0 || config.greylist.entries == 0 {
        return Err("limitd: entries is at least 1".to_owned());
    }
    Counts::new(config)?;
    Settings::new(config)?;
    Ok(())
}

impl Limits {
    /// Reads what the database has of the quotas.
    ///
    /// # Errors
    /// The database; rules that make no sense.
    pub(crate) async fn open(config: &Config, store: Store) -> Result<Self, Fault> {
        let invalid = |text: String| Fault::new(FaultKind::Invalid, text);
        let mut counts = Counts::new(config).map_err(invalid)?;
        store.prepare().await.map_err(|error| fault(&error))?;
        let now = now_ms() / 1000;
        for scope in counts.scopes() {
            let rows = store.counts(&scope, now, config.entries).await;
            for (key, text) in rows.map_err(|error| fault(&error))? {
                counts.load(&scope, &key, &text);
            }
        }
        Ok(Self {
            counts: Mutex::new(counts),
            greylisting: Greylisting::new(),
            settings: RwLock::new(Settings::new(config).map_err(invalid)?),
            store,
            weighed: counter("limitd_weighed_total", "Questions of smtpd"),
            failed: counter(
                "limitd_writes_failed_total",
                "Times that counts could not be written",
            ),
            keys: gauge("limitd_keys", "Keys that are counted"),
        })
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn settings(&self) -> Arc<Settings> {
        let settings = self.settings.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&settings)
    }

    /// Keys remembered, and combinations and networks of greylisting.
    pub(crate) fn sizes(&self) -> (usize, usize) {
        (self.counts().len(), self.greylisting.len())
    }

    /// Takes new settings over.
    ///
    /// # Errors
    /// Rules that make no sense: then all stays as it was.
    pub(crate) fn reload(&self, config: &Config) -> Result<(), String> {
        check(config)?;
        let settings = Settings::new(config)?;
        self.counts().reload(config)?;
        *self
            .settings
            .write()
            .unwrap_or_else(PoisonError::into_inner) = settings;
        Ok(())
    }

    pub(crate) async fn weigh(&self, trace: TraceId, weigh: &Weigh) -> Weighed {
        self.weighed.add_one();
        let settings = self.settings();
        let now = now_ms();
        let go = Weighed {
            status: None,
            rule: String::new(),
            unidentified: false,
        };
        // What greylisting puts off is not counted.
        let greyed = match (&weigh.stage, &weigh.facts.sender) {
            (Stage::Recipient { .. }, Some(_)) => {
                let over = self.counts().weigh(trace, weigh, now);
                if let Some((status, rule)) = over {
                    return Weighed {
                        status: Some(status),
                        rule,
                        unidentified: false,
                    };
                }
                return self
                    .grey(trace, weigh, &settings, now / 1000)
                    .await
                    .unwrap_or(go);
            }
            // RFC 5321 4.5.5: reports and callouts come from <>, and a callout must not be told that the recipient is not there
            (Stage::Message { .. }, None) => self.grey(trace, weigh, &settings, now / 1000).await,
            _ => None,
        };
        if let Some(greyed) = greyed {
            return greyed;
        }
        if let Some((status, rule)) = self.counts().weigh(trace, weigh, now) {
            return Weighed {
                status: Some(status),
                rule,
                unidentified: false,
            };
        }
        if matches!(weigh.stage, Stage::Message { rest: false, .. })
            && settings.terms.concern(&weigh.facts)
            && let Some(client) = weigh.facts.client
        {
            let network = settings.nets.network(client);
            let of = settings.terms.domain(&weigh.facts).unwrap_or(&network);
            self.greylisting.good(&settings.terms, of, now / 1000);
        }
        go
    }

    /// What greylisting says.
    async fn grey(
        &self,
        trace: TraceId,
        weigh: &Weigh,
        settings: &Settings,
        now: u64,
    ) -> Option<Weighed> {
        let terms = &settings.terms;
        if !terms.concern(&weigh.facts) {
            return None;
        }
        let network = settings.nets.network(weigh.facts.client?);
        let recipients = match &weigh.stage {
            Stage::Recipient { recipient, .. } => std::slice::from_ref(recipient),
            Stage::Message { recipients, .. } => recipients,
            _ => return None,
        };
        let (grey, store, facts) = (&self.greylisting, &self.store, &weigh.facts);
        let sender = facts.sender.as_ref();
        let domain = terms.domain(facts);
        let unidentified = facts.identity.is_none() && terms.wants_identity();
        let mut told = None;
        for recipient in recipients {
            // Whom the network's own past lets pass need not be known better.
            let look = unidentified || domain.is_some();
            let mut status = grey
                .check(store, terms, &network, sender, recipient, now, look)
                .await;
            if let (Some(_), Some(domain)) = (&status, domain) {
                status = grey
                    .check(store, terms, domain, sender, recipient, now, false)
                    .await;
            }
            if let Some(status) = status {
                if !unidentified {
                    tracing::info!(%trace, network, domain, %recipient, text = status.text, "greylisted");
                }
                told = Some(status);
            }
        }
        told.map(|status| Weighed {
            status: Some(status),
            rule: grey::NAME.to_owned(),
            unidentified,
        })
    }

    /// Writes what has changed since the last time.
    pub(crate) async fn flush(&self) {
        let changes = self.counts().changes();
        if !changes.is_empty()
            && let Err(error) = self.store.write_counts(&changes).await
        {
            tracing::warn!(%error, "quotas are not written; they will be");
            self.failed.add_one();
            self.counts().take_back(changes);
        }
        if let Err(error) = self.greylisting.flush(&self.store).await {
            tracing::warn!(%error, "greylisting is not written; it will be");
            self.failed.add_one();
        }
        self.keys
            .set(i64::try_from(self.counts().len()).unwrap_or(i64::MAX));
    }

    /// Forgets what does not count any more.
    pub(crate) async fn sweep(&self) {
        let now = now_ms();
        self.counts().sweep(now);
        self.greylisting.sweep(now / 1000);
        let rows = self.settings().rows;
        if let Err(error) = self.store.sweep(now / 1000, rows).await {
            tracing::warn!(%error, "the database of limits is not swept");
        }
    }

    pub(crate) async fn close(&self) {
        self.store.close().await;
    }

    pub(crate) async fn list_greys(&self, request: &GreyList) -> Result<Greys, Fault> {
        self.flush().await;
        let most = request.limit.clamp(1, GREYS);
        let (waiting, networks) = self
            .store
            .greys(&request.part, now_ms() / 1000, most)
            .await
            .map_err(|error| fault(&error))?;
        Ok(Greys { waiting, networks })
    }

    async fn allow(&self, request: &GreyAllow) -> String {
        let settings = self.settings();
        let now = now_ms() / 1000;
        let lasting = request.seconds.unwrap_or(settings.terms.config.lifetime);
        let network = settings.nets.network(request.address);
        self.greylisting
            .allow(&settings.terms, &network, now.saturating_add(lasting), now);
        self.flush().await;
        network
    }

    async fn forget(&self, request: &GreyForget) -> Result<u64, Fault> {
        self.flush().await;
        let forgotten = self.store.forget(&request.item).await;
        self.greylisting.clear();
        forgotten.map_err(|error| fault(&error))
    }

    /// Which keys an operator means.
    fn meant(&self, text: &str) -> impl Fn(&str) -> bool + use<> {
        let nets = self.settings().nets;
        let mut parts = vec![text.to_lowercase()];
        if let Ok(address) = text.parse::<IpAddr>() {
            parts.extend([nets.address(address), nets.network(address)]);
        }
        move |key: &str| {
            parts
                .iter()
                .any(|part| key == part || key.split(' ').any(|one| one == part))
        }
    }

    /// Adds all operations to a router.
    pub(crate) fn router(self: &Arc<Self>, router: Router) -> Router {
        let [weigh, back, list, show, reset] = std::array::from_fn(|_| Arc::clone(self));
        let [greys, allow, forget] = std::array::from_fn(|_| Arc::clone(self));
        router
            .on(move |context, request: Weigh| {
                let limits = Arc::clone(&weigh);
                async move { Ok(limits.weigh(context.trace, &request).await) }
            })
            .on(move |_, request: GiveBack| {
                back.counts().give_back(&request.weigh, now_ms());
                async move { Ok(()) }
            })
            .on(move |_, request: LimitList| {
                let most = request.limit.clamp(1, LISTED) as usize;
                let used = list
                    .counts()
                    .used(request.rule.as_deref(), |_| true, most, now_ms());
                async move { Ok(used) }
            })
            .on(move |_, request: LimitShow| {
                let meant = show.meant(&request.key);
                let used = show.counts().used(None, meant, LISTED as usize, now_ms());
                async move { Ok(used) }
            })
            .on(move |_, request: LimitReset| {
                let meant = reset.meant(&request.key);
                let count = reset.counts().reset(request.rule.as_deref(), meant);
                let limits = Arc::clone(&reset);
                async move {
                    limits.flush().await;
                    Ok(count)
                }
            })
            .on(move |_, request: GreyList| {
                let limits = Arc::clone(&greys);
                async move { limits.list_greys(&request).await }
            })
            .on(move |_, request: GreyAllow| {
                let limits = Arc::clone(&allow);
                async move { Ok(limits.allow(&request).await) }
            })
            .on(move |_, request: GreyForget| {
                let limits = Arc::clone(&forget);
                async move { limits.forget(&request).await }
            })
    }
}
