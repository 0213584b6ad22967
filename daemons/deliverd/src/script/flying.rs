//! What runs under way have found to be new: until it is noted in the store, another message must not find it new as well.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use types::QueueId;

/// Keys with the message that found each new.
#[derive(Debug, Default)]
pub(super) struct Flying(Mutex<HashMap<u64, QueueId>>);

/// A key that is this message's until this is dropped.
#[derive(Debug)]
pub(crate) struct Flight {
    flying: Arc<Flying>,
    key: u64,
}

/// Another message has that key just now.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Taken;

impl Flying {
    fn keys(&self) -> MutexGuard<'_, HashMap<u64, QueueId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a key; nothing if it is this message's already.
    pub(super) fn take(self: &Arc<Self>, key: u64, id: QueueId) -> Result<Option<Flight>, Taken> {
        match self.keys().entry(key) {
            Entry::Occupied(other) if *other.get() != id => Err(Taken),
            Entry::Occupied(_) => Ok(None),
            Entry::Vacant(free) => {
                free.insert(id);
                let flying = Arc::clone(self);
                Ok(Some(Flight { flying, key }))
            }
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.flying.keys().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_one_message_s_until_it_is_done() {
        let flying = Arc::new(Flying::default());
        let take = |key, id| flying.take(key, QueueId(id));
        let first = take(7, 1);
        assert!(matches!(first, Ok(Some(_))));
        assert!(matches!(take(7, 2), Err(Taken)) && matches!(take(7, 1), Ok(None)));
        assert!(matches!(take(8, 2), Ok(Some(_))));
        drop(first);
        assert!(matches!(take(7, 2), Ok(Some(_))));
    }
}
