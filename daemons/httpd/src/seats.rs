//! Who is connected: in all, and from one address.

use runtime::metrics::{Gauge, gauge};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The connections of this daemon. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Seats(Arc<Mutex<Taken>>, Gauge);

#[derive(Debug, Default)]
struct Taken {
    total: usize,
    by_network: HashMap<IpAddr, usize>,
}

/// A connection's place; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    seats: Seats,
    network: Option<IpAddr>,
}

impl Seats {
    pub(crate) fn new() -> Self {
        Self(
            Arc::default(),
            gauge("httpd_connections", "Connections now."),
        )
    }

    /// A place, if there is one. `per_address` 0 is no limit.
    pub(crate) fn take(
        &self,
        address: Option<IpAddr>,
        total: usize,
        per_address: usize,
    ) -> Option<Seat> {
        let mut taken = self.taken();
        if taken.total >= total {
            return None;
        }
        let network = address.filter(|_| per_address > 0).map(network);
        if let Some(network) = network {
            let count = taken.by_network.entry(network).or_default();
            if *count >= per_address {
                return None;
            }
            *count += 1;
        }
        taken.total += 1;
        self.1.change(1);
        Some(Seat {
            seats: self.clone(),
            network,
        })
    }

    /// Connections now.
    pub(crate) fn count(&self) -> usize {
        self.taken().total
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One customer has a network of 64 bits in IPv6 (RFC 6177 2).
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into()
        }
        address @ IpAddr::V4(_) => address,
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken();
        taken.total = taken.total.saturating_sub(1);
        self.seats.1.change(-1);
        if let Some(network) = self.network
            && let Some(count) = taken.by_network.get_mut(&network)
        {
            *count = count.saturating_sub(1);
            if *count == 0 {
                taken.by_network.remove(&network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn places_are_counted_by_network_and_given_back() {
        let seats = Seats::new();
        let from = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        let first = seats.take(from("2001:db8::1"), 3, 1).unwrap();
        assert!(
            seats.take(from("2001:db8::2"), 3, 1).is_none(),
            "the same network"
        );
        let second = seats.take(from("2001:db8:0:1::1"), 3, 1).unwrap();
        let third = seats.take(from("::ffff:192.0.2.1"), 3, 1).unwrap();
        assert!(seats.take(None, 3, 1).is_none(), "three are all");
        drop(third);
        let third = seats.take(from("192.0.2.1"), 3, 1).unwrap();
        assert!(seats.take(from("::ffff:192.0.2.1"), 9, 1).is_none());
        drop((first, second, third));
        assert_eq!(seats.count(), 0);
        assert!(seats.taken().by_network.is_empty());
    }
}
