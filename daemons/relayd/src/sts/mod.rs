//! MTA-STS (RFC 8461): what a domain's policy is, fetched over HTTPS and kept in memory.
//!
//! relayd writes nothing, so policies are lost with it. The first mail to a domain after a start is as unprotected against
//! somebody who suppresses the TXT record as the very first one (RFC 8461 10.2); `mta-sts-only` in the table closes that.

mod fetch;
mod policy;
mod record;

pub(crate) use fetch::Fetcher;
pub(crate) use policy::{Mode, Policy};
pub(crate) use record::id;

use crate::result::Problem;
use crate::transport::Transport;
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

struct Kept {
    id: String,
    policy: Arc<Policy>,
    fetched: Instant,
    until: Instant,
}

struct Place {
    slot: Arc<Mutex<Slot>>,
    used: Instant,
}

/// The policies of all domains that mail went to.
pub(crate) struct Cache {
    places: Lock<HashMap<String, Place>>,
    most: usize,
    refresh: Duration,
}

impl Cache {
    pub(crate) fn new(transport: &Transport) -> Self {
        Self {
            places: Lock::default(),
            most: transport.mta_sts_cache.max(1),
            refresh: Duration::from_secs(transport.mta_sts_refresh.max(60)),
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
        let now = Instant::now();
        if slot.kept.as_ref().is_some_and(|kept| kept.until <= now) {
            slot.kept = None;
        }
        let known = slot.kept.as_ref().map(|kept| kept.id.clone());
        let Some(id) = id.filter(|id| known.as_ref() != Some(id)) else {
            return slot.answer(None);
        };
        if let Some((when, problem)) = &slot.failed
            && now.duration_since(*when) < RETRY
        {
            let problem = problem.clone();
            return slot.answer(Some(problem));
        }
        match fetch().await {
            Ok(policy) => {
                slot.keep(id, policy);
                slot.answer(None)
            }
            Err(problem) => {
                slot.failed = Some((now, problem.clone()));
                slot.answer(Some(problem))
            }
        }
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
            let now = Instant::now();
            let Some(kept) = &slot.kept else {
                continue;
            };
            if kept.until <= now {
                slot.kept = None;
                continue;
            }
            let half = kept.until.duration_since(kept.fetched) / 2;
            if now.duration_since(kept.fetched) < self.refresh.min(half) {
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
        let now = Instant::now();
        self.failed = None;
        self.kept = Some(Kept {
            id,
            until: now + Duration::from_secs(policy.max_age),
            policy: Arc::new(policy),
            fetched: now,
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
        cache.refresh = Duration::ZERO;
        let fetch = || async { Ok(policy(Mode::Testing, 60)) };
        cache.policy("a", id("1"), fetch).await;
        cache
            .renew(|_| async { Ok(policy(Mode::Enforce, 60)) })
            .await;
        let now = cache.policy("a", Announced::Nothing, never).await;
        assert_eq!(mode(&now), Some(Mode::Enforce));
        cache.renew(|_| fails()).await;
        let now = cache.policy("a", Announced::Nothing, never).await;
        assert_eq!(mode(&now), Some(Mode::Enforce));
    }
}
