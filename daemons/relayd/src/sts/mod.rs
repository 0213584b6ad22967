//! MTA-STS (RFC 8461): what a domain's policy is, fetched over HTTPS and remembered.
//!
//! relayd writes nothing. queued keeps the policies, gives with each message what it has of the domain ([`Cache::recall`]), and gets
//! back what is newer ([`Cache::remembered`]): so the first mail after a restart is held to the policy, whoever suppresses the TXT
//! record or the HTTPS server (RFC 8461 10.2).

mod fetch;
mod policy;
mod record;

pub(crate) use fetch::Fetcher;
pub(crate) use policy::{AGE_MAX, Mode, Policy};
pub(crate) use record::id;

use crate::result::Problem;
use crate::service::now;
use crate::transport::Transport;
use ipc::api::relayd::StsPolicy;
use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex as Lock, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// After a failure a policy is not fetched again so soon (RFC 8461 3.3).
const RETRY: Duration = Duration::from_secs(300);

/// What is known of a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sts {
    /// It has no policy.
    Absent,
    /// It says that it has one, which cannot be had, and none is remembered: as if it had none (RFC 8461 3.3).
    Unfetched(Problem),
    /// This one. The problem is that of an attempt to renew it.
    Known(Arc<Policy>, Option<Problem>),
}

/// What the TXT record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Announced {
    /// There is a policy of this id.
    Id(String),
    /// There is none, or no answer: what is remembered still counts (RFC 8461 5.1).
    Nothing,
}

#[derive(Default)]
struct Slot {
    kept: Option<Kept>,
    failed: Option<(Instant, Problem)>,
}

/// Times are in seconds since 1970: they are kept over restarts.
struct Kept {
    id: String,
    policy: Arc<Policy>,
    fetched: u64,
    until: u64,
}

impl Kept {
    /// Whether it is to be fetched again before it is over, whatever its id (RFC 8461 3.3, 10.2).
    fn is_due(&self, refresh: u64, now: u64) -> bool {
        let half = self.until.saturating_sub(self.fetched) / 2;
        now.saturating_sub(self.fetched) >= refresh.min(half)
    }
}

struct Place {
    slot: Arc<Mutex<Slot>>,
    used: Instant,
}

/// The policies of all domains that mail went to.
pub(crate) struct Cache {
    places: Lock<HashMap<String, Place>>,
    most: usize,
    /// Seconds.
    refresh: u64,
}

impl Cache {
    pub(crate) fn new(transport: &Transport) -> Self {
        Self {
            places: Lock::default(),
            most: transport.mta_sts_cache.max(1),
            refresh: transport.mta_sts_refresh.max(60),
        }
    }

    fn places(&self) -> MutexGuard<'_, HashMap<String, Place>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The slot of a domain; made if `make` says so. One fetch at a time for each domain: the others wait for it.
    fn slot(&self, domain: &str, make: bool) -> Option<Arc<Mutex<Slot>>> {
        let now = Instant::now();
        let mut places = self.places();
        if let Some(place) = places.get_mut(domain) {
            place.used = now;
            return Some(place.slot.clone());
        }
        if !make {
            return None;
        }
        while places.len() >= self.most {
            let oldest = places
                .iter()
                .min_by_key(|(_, place)| place.used)
                .map(|(domain, _)| domain.clone())?;
            places.remove(&oldest);
        }
        let slot = Arc::default();
        places.insert(
            domain.to_owned(),
            Place {
                slot: Arc::clone(&slot),
                used: now,
            },
        );
        Some(slot)
    }

    /// The policy in force. `fetch` gets the file.
    pub(crate) async fn policy<F>(
        &self,
        domain: &str,
        announced: Announced,
        fetch: impl FnOnce() -> F,
    ) -> Sts
    where
        F: Future<Output = Result<Policy, Problem>>,
    {
        let id = match announced {
            Announced::Id(id) => Some(id),
            Announced::Nothing => None,
        };
        let Some(slot) = self.slot(domain, id.is_some()) else {
            return Sts::Absent;
        };
        let mut slot = slot.lock().await;
        let time = now();
        if slot.kept.as_ref().is_some_and(|kept| kept.until <= time) {
            slot.kept = None;
        }
        let refresh = self.refresh;
        let known = slot
            .kept
            .as_ref()
            .map(|kept| (kept.id.clone(), kept.is_due(refresh, time)));
        // Another id is another policy; the same one, or no record any more, leaves the one that is remembered.
        let (id, is_new) = match (id, known) {
            (Some(id), Some((kept, due))) if id == kept => match due {
                true => (id, false),
                false => return slot.answer(None),
            },
            (None, Some((kept, true))) => (kept, false),
            (None, _) => return slot.answer(None),
            (Some(id), _) => (id, true),
        };
        if let Some((when, problem)) = &slot.failed
            && when.elapsed() < RETRY
        {
            let problem = Some(problem.clone()).filter(|_| is_new);
            return slot.answer(problem);
        }
        match fetch().await {
            Ok(policy) => {
                slot.keep(id, policy);
                slot.answer(None)
            }
            Err(problem) => {
                slot.failed = Some((Instant::now(), problem.clone()));
                if !is_new {
                    tracing::info!(domain, %problem, "the MTA-STS policy cannot be renewed; the old one counts until its end");
                }
                slot.answer(Some(problem).filter(|_| is_new))
            }
        }
    }

    /// Takes what queued remembers of a domain, unless something newer is known.
    pub(crate) async fn recall(&self, domain: &str, remembered: &StsPolicy) {
        let time = now();
        let until = remembered.expires.min(time.saturating_add(AGE_MAX));
        if until <= time {
            return;
        }
        let policy = match Policy::parse(remembered.text.as_bytes()) {
            Ok(policy) => policy,
            Err(why) => {
                tracing::error!(domain, why, "a remembered MTA-STS policy makes no sense");
                return;
            }
        };
        let Some(slot) = self.slot(domain, true) else {
            return;
        };
        let mut slot = slot.lock().await;
        let known = slot.kept.as_ref().filter(|kept| kept.until > time);
        if known.is_none_or(|kept| kept.fetched < remembered.fetched) {
            slot.kept = Some(Kept {
                id: remembered.id.clone(),
                policy: Arc::new(policy),
                // A clock that was set back does not make it young for ever.
                fetched: remembered.fetched.min(time),
                until,
            });
        }
    }

    /// What is to be remembered of a domain.
    pub(crate) async fn remembered(&self, domain: &str) -> Option<StsPolicy> {
        let slot = self.slot(domain, false)?;
        let slot = slot.lock().await;
        let kept = slot.kept.as_ref().filter(|kept| kept.until > now())?;
        let text = kept.policy.to_string();
        (text.len() <= StsPolicy::TEXT_MAX).then(|| StsPolicy {
            id: kept.id.clone(),
            text,
            fetched: kept.fetched,
            expires: kept.until,
        })
    }

    /// Domains whose policy is to be fetched again before it is over, whatever its id (RFC 8461 10.2).
    fn stale(&self) -> Vec<(String, Arc<Mutex<Slot>>)> {
        let places = self.places();
        places
            .iter()
            .map(|(domain, place)| (domain.clone(), place.slot.clone()))
            .collect()
    }

    /// Fetches again what is due. Those that nobody has used for as long as a policy lives run out by themselves.
    pub(crate) async fn renew<F>(&self, mut fetch: impl FnMut(String) -> F)
    where
        F: Future<Output = Result<Policy, Problem>>,
    {
        for (domain, slot) in self.stale() {
            let mut slot = slot.lock().await;
            let time = now();
            let Some(kept) = &slot.kept else {
                continue;
            };
            if kept.until <= time {
                slot.kept = None;
                continue;
            }
            if !kept.is_due(self.refresh, time) {
                continue;
            }
            let id = kept.id.clone();
            match fetch(domain.clone()).await {
                Ok(policy) => slot.keep(id, policy),
                Err(problem) => {
                    tracing::info!(domain, %problem, "the MTA-STS policy cannot be renewed; the old one counts until its end");
                }
            }
        }
        let mut places = self.places();
        places.retain(|_, place| {
            place.used.elapsed() < RETRY
                || place
                    .slot
                    .try_lock()
                    .map_or(true, |slot| slot.kept.is_some())
        });
    }
}

impl Slot {
    fn keep(&mut self, id: String, policy: Policy) {
        let time = now();
        self.failed = None;
        self.kept = Some(Kept {
            id,
            until: time.saturating_add(policy.max_age),
            policy: Arc::new(policy),
            fetched: time,
        });
    }

    fn answer(&self, problem: Option<Problem>) -> Sts {
        match (&self.kept, problem) {
            (Some(kept), problem) => Sts::Known(kept.policy.clone(), problem),
            (None, Some(problem)) => Sts::Unfetched(problem),
            (None, None) => Sts::Absent,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use crate::result::ResultType;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    fn cache(most: usize) -> Cache {
        Cache::new(&Transport {
            mta_sts_cache: most,
            ..Transport::default()
        })
    }

    fn policy(mode: Mode, max_age: u64) -> Policy {
        Policy {
            mode,
            max_age,
            mx: vec!["mx.example".to_owned()],
        }
    }

    fn id(id: &str) -> Announced {
        Announced::Id(id.to_owned())
    }

    fn mode(sts: &Sts) -> Option<Mode> {
        match sts {
            Sts::Known(policy, _) => Some(policy.mode),
            _ => None,
        }
    }

    async fn never() -> Result<Policy, Problem> {
        panic!("nothing was to be fetched")
    }

    async fn fails() -> Result<Policy, Problem> {
        Err(Problem::new(ResultType::StsPolicyFetchError, "404"))
    }

    #[tokio::test]
    async fn a_policy_counts_until_its_end_or_its_successor() {
        let cache = cache(10);
        let none = cache.policy("a", Announced::Nothing, never).await;
        assert_eq!(none, Sts::Absent);
        let first = cache
            .policy("a", id("1"), || async { Ok(policy(Mode::Enforce, 60)) })
            .await;
        assert_eq!(mode(&first), Some(Mode::Enforce));
        // The same id; no record any more (RFC 8461 5.1): it is remembered.
        assert_eq!(
            mode(&cache.policy("a", id("1"), never).await),
            Some(Mode::Enforce)
        );
        let suppressed = cache.policy("a", Announced::Nothing, never).await;
        assert_eq!(mode(&suppressed), Some(Mode::Enforce));
        // A new one that cannot be had: the old one counts, and it is not tried at once again.
        let broken = cache.policy("a", id("2"), fails).await;
        assert!(matches!(&broken, Sts::Known(_, Some(_))));
        let again = cache.policy("a", id("2"), never).await;
        assert!(matches!(&again, Sts::Known(_, Some(_))));
        // Another domain: a failure without anything remembered.
        let unfetched = cache.policy("b", id("1"), fails).await;
        assert!(matches!(unfetched, Sts::Unfetched(_)));
    }

    #[tokio::test]
    async fn a_policy_without_age_counts_once() {
        let cache = cache(10);
        let fetched = AtomicUsize::new(0);
        for _ in 0..2 {
            let fetch = || async {
                fetched.fetch_add(1, SeqCst);
                Ok(policy(Mode::Testing, 0))
            };
            let sts = cache.policy("a", id("1"), fetch).await;
            assert_eq!(mode(&sts), Some(Mode::Testing));
        }
        assert_eq!(fetched.load(SeqCst), 2);
        let over = cache.policy("a", Announced::Nothing, never).await;
        assert_eq!(over, Sts::Absent);
    }

    #[tokio::test]
    async fn the_cache_is_bounded() {
        let cache = cache(2);
        for domain in ["a", "b", "a", "c"] {
            let fetch = || async { Ok(policy(Mode::Enforce, 60)) };
            cache.policy(domain, id("1"), fetch).await;
        }
        assert_eq!(cache.places().len(), 2);
        assert!(
            cache.places().contains_key("a"),
            "the one used last but one"
        );
        assert!(!cache.places().contains_key("b"));
    }

    #[tokio::test]
    async fn one_fetch_serves_all_that_wait() {
        let cache = cache(2);
        let fetched = AtomicUsize::new(0);
        let ask = || {
            cache.policy("a", id("1"), || async {
                fetched.fetch_add(1, SeqCst);
                tokio::task::yield_now().await;
                Ok(policy(Mode::Enforce, 60))
            })
        };
        tokio::join!(ask(), ask(), ask());
        assert_eq!(fetched.load(SeqCst), 1);
    }

    #[tokio::test]
    async fn old_policies_are_renewed() {
        let mut cache = cache(2);
        cache.refresh = 0;
        let fetch = || async { Ok(policy(Mode::Testing, 60)) };
        cache.policy("a", id("1"), fetch).await;
        cache
            .renew(|_| async { Ok(policy(Mode::Enforce, 60)) })
            .await;
        cache.refresh = 60;
        let renewed = cache.policy("a", Announced::Nothing, never).await;
        assert_eq!(mode(&renewed), Some(Mode::Enforce));
        cache.refresh = 0;
        cache.renew(|_| fails()).await;
        // Mail renews it, too, whether there is a record or not; a failure leaves the old one, and is not repeated at once.
        for announced in [Announced::Nothing, id("1")] {
            let kept = cache.policy("a", announced, fails).await;
            assert!(matches!(&kept, Sts::Known(policy, None) if policy.mode == Mode::Enforce));
        }
        let kept = cache.policy("a", id("1"), never).await;
        assert_eq!(mode(&kept), Some(Mode::Enforce));
    }

    #[tokio::test]
    async fn what_is_remembered_outlives_the_cache() {
        let first = cache(2);
        let fetch = || async { Ok(policy(Mode::Enforce, 3600)) };
        first.policy("a", id("1"), fetch).await;
        let remembered = first.remembered("a").await.unwrap();
        assert_eq!(remembered.expires, remembered.fetched + 3600);
        assert_eq!(first.remembered("b").await, None);
        let second = cache(2);
        second.recall("a", &remembered).await;
        assert_eq!(second.remembered("a").await, Some(remembered.clone()));
        for announced in [Announced::Nothing, id("1")] {
            let known = second.policy("a", announced, never).await;
            assert_eq!(mode(&known), Some(Mode::Enforce));
        }
        // A new id that cannot be fetched; what is older, or over, or nonsense.
        let broken = second.policy("a", id("2"), fails).await;
        assert!(matches!(broken, Sts::Known(_, Some(_))));
        let mut other = StsPolicy {
            text: policy(Mode::Testing, 3600).to_string(),
            fetched: remembered.fetched - 1,
            ..remembered.clone()
        };
        second.recall("a", &other).await;
        assert_eq!(second.remembered("a").await, Some(remembered.clone()));
        other.expires = now();
        second.recall("b", &other).await;
        second
            .recall(
                "b",
                &StsPolicy {
                    text: "?".to_owned(),
                    ..remembered
                },
            )
            .await;
        assert_eq!(second.remembered("b").await, None);
    }
}
