//! Memory that a burst of work leaves behind: the allocator keeps what lies between things that live longer.

use std::time::Duration;

/// How often somebody looks.
const EVERY: Duration = Duration::from_secs(10);
/// Octets of free memory, beyond what was free after the last time, that are worth the trouble.
const WORTH: usize = 4 << 20;

/// Gives free memory back to the system when there is much. Never returns.
pub(crate) async fn tend() {
    let mut clock = tokio::time::interval(EVERY);
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // Free memory counts as free also when its pages are given back.
    let mut known = 0;
    loop {
        clock.tick().await;
        let free = free();
        if free < known {
            known = free;
        } else if free - known > WORTH {
            // Off the reactor: it goes through all that is free.
            let trimmed = tokio::task::spawn_blocking(trim).await;
            tracing::trace!(free, done = trimmed.is_ok(), "memory given back");
            known = self::free();
        }
    }
}

/// Octets that the allocator has and nobody uses.
#[cfg(target_env = "gnu")]
#[allow(unsafe_code)]
fn free() -> usize {
    // SAFETY: it reads the allocator's own numbers, under its locks.
    unsafe { libc::mallinfo2() }.fordblks
}

#[cfg(not(target_env = "gnu"))]
fn free() -> usize {
    0
}

#[cfg(target_env = "gnu")]
#[allow(unsafe_code)]
fn trim() {
    // SAFETY: only what is free is given back, under the allocator's locks.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(not(target_env = "gnu"))]
fn trim() {}

#[cfg(test)]
mod tests {
    use super::*;

    fn resident() -> usize {
        let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let pages = text.split(' ').nth(1).and_then(|pages| pages.parse().ok());
        pages.unwrap_or(0) * 4096
    }

    #[cfg(target_env = "gnu")]
    #[test]
    fn what_lies_between_is_given_back() {
        let mut pieces: Vec<Vec<u8>> = (0..40_000).map(|_| vec![1; 2000]).collect();
        // The last one stays, and one in a hundred: none of it is at the end of the heap.
        let mut number = 0;
        pieces.retain(|_| {
            number += 1;
            number % 100 == 0
        });
        let (free, before) = (free(), resident());
        assert!(free > 60_000_000, "{free}");
        trim();
        assert!(
            resident() + 50_000_000 < before,
            "{} of {before}",
            resident()
        );
        assert_eq!(pieces.len(), 400);
    }
}
