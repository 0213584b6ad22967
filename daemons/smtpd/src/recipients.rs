//! Recipients that authd confirmed a moment ago.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use types::Address;

/// So many are kept.
const KEPT: usize = 8192;
/// For so long. deliverd resolves again, so that a recipient removed meanwhile is reported and never lost.
const FRESH: Duration = Duration::from_secs(5);

/// Local recipients, for a few seconds: a burst of mail to one mailbox asks authd once. Only confirmations are kept, so that
/// an address that was just made works at once.
#[derive(Debug, Default)]
pub struct ConfirmedRecipients {
    confirmed: Mutex<HashMap<Address, Instant>>,
}

impl ConfirmedRecipients {
    /// Whether it was confirmed in the last seconds.
    pub fn contains(&self, address: &Address, now: Instant) -> bool {
        self.confirmed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(address)
            .is_some_and(|until| now < *until)
    }

    /// Remembers it.
    pub fn insert(&self, address: Address, now: Instant) {
        let mut confirmed = self
            .confirmed
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if confirmed.len() >= KEPT {
            confirmed.retain(|_, until| now < *until);
            if confirmed.len() >= KEPT {
                confirmed.clear();
            }
        }
        confirmed.insert(address, now + FRESH);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn confirmations_age() {
        let known = ConfirmedRecipients::default();
        let address: Address = "jane@example.org".parse().unwrap();
        let now = Instant::now();
        assert!(!known.contains(&address, now));
        known.insert(address.clone(), now);
        assert!(known.contains(&address, now + Duration::from_secs(4)));
        assert!(!known.contains(&address, now + FRESH));
    }

    #[test]
    fn the_memory_is_bounded() {
        let known = ConfirmedRecipients::default();
        let now = Instant::now();
        for number in 0..3 * KEPT {
            let local = format!("user{number}");
            known.insert(Address::new(&local, "example.org").unwrap(), now);
        }
        assert!(known.confirmed.lock().unwrap().len() <= KEPT);
    }
}
