//! What is remembered of client addresses: open connections, and guesses at recipients.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The addresses remembered at most; when there are more, those without a connection are forgotten.
const REMEMBERED: usize = 65_536;

/// Connections and recipient guesses by client address; IPv6 clients by their /64.
#[derive(Debug, Default)]
pub struct Clients {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    total: usize,
    clients: HashMap<IpAddr, Client>,
}

#[derive(Debug)]
struct Client {
    connections: usize,
    unknown: u32,
    since: Instant,
}

/// Why a connection is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crowded {
    /// Too many connections in all.
    Total,
    /// Too many from this address.
    Address,
    /// Too many unknown recipients from this address lately.
    Guesses,
}

/// How many of what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// Connections in all.
    pub total: usize,
    /// Connections of one address; 0 is no limit.
    pub per_address: usize,
    /// Unknown recipients of one address in `window`; 0 is no limit.
    pub unknown: u32,
    /// How long guesses are remembered.
    pub window: Duration,
}

/// A connection that is counted until this is dropped.
#[derive(Debug)]
pub struct Seat {
    clients: Arc<Clients>,
    address: Option<IpAddr>,
    window: Duration,
}

impl Clients {
    /// Counts a connection; `address` is `None` for clients without limits of their own (Unix sockets, trusted networks).
    ///
    /// # Errors
    /// [`Crowded`]: nothing is counted then.
    pub fn admit(
        self: &Arc<Self>,
        address: Option<IpAddr>,
        allowance: Allowance,
        now: Instant,
    ) -> Result<Seat, Crowded> {
        let key = address.map(network);
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if table.total >= allowance.total {
            return Err(Crowded::Total);
        }
        if let Some(key) = key {
            if table.clients.len() >= REMEMBERED {
                table.clients.retain(|_, client| client.connections > 0);
            }
            let client = table.clients.entry(key).or_insert(Client {
                connections: 0,
                unknown: 0,
                since: now,
            });
            if now.duration_since(client.since) > allowance.window {
                client.unknown = 0;
                client.since = now;
            }
            if allowance.unknown > 0 && client.unknown >= allowance.unknown {
                return Err(Crowded::Guesses);
            }
            if allowance.per_address > 0 && client.connections >= allowance.per_address {
                return Err(Crowded::Address);
            }
            client.connections += 1;
        }
        table.total += 1;
        Ok(Seat {
            clients: Arc::clone(self),
            address: key,
            window: allowance.window,
        })
    }

    /// Connections now.
    pub fn connections(&self) -> usize {
        self.table
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .total
    }
}

impl Seat {
    /// Notes an unknown recipient; returns how many there were from this address in the window.
    pub fn guessed(&self, now: Instant) -> u32 {
        let Some(key) = self.address else { return 0 };
        let mut table = self
            .clients
            .table
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let Some(client) = table.clients.get_mut(&key) else {
            return 0;
        };
        if now.duration_since(client.since) > self.window {
            client.unknown = 0;
            client.since = now;
        }
        client.unknown = client.unknown.saturating_add(1);
        client.unknown
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut table = self
            .clients
            .table
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        table.total = table.total.saturating_sub(1);
        let Some(key) = self.address else { return };
        let gone = table.clients.get_mut(&key).is_some_and(|client| {
            client.connections = client.connections.saturating_sub(1);
            client.connections == 0 && client.unknown == 0
        });
        if gone {
            table.clients.remove(&key);
        }
    }
}

/// What counts as one client: an IPv4 address, or an IPv6 /64.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const ALLOWANCE: Allowance = Allowance {
        total: 3,
        per_address: 2,
        unknown: 2,
        window: Duration::from_secs(60),
    };

    #[test]
    fn connections_are_counted_and_given_back() {
        let clients = Arc::new(Clients::default());
        let now = Instant::now();
        let admit = |text: &str| clients.admit(Some(text.parse().unwrap()), ALLOWANCE, now);
        let first = admit("2001:db8::1").unwrap();
        let _second = admit("2001:db8::2").unwrap();
        assert_eq!(admit("2001:db8::3").unwrap_err(), Crowded::Address);
        let _other = admit("192.0.2.1").unwrap();
        assert_eq!(admit("192.0.2.2").unwrap_err(), Crowded::Total);
        assert_eq!(clients.connections(), 3);
        drop(first);
        let _again = admit("::ffff:192.0.2.1").unwrap();
        assert_eq!(clients.connections(), 3);
    }

    #[test]
    fn guesses_are_remembered_for_a_while() {
        let clients = Arc::new(Clients::default());
        let now = Instant::now();
        let address = Some("192.0.2.1".parse().unwrap());
        let seat = clients.admit(address, ALLOWANCE, now).unwrap();
        assert_eq!(seat.guessed(now), 1);
        assert_eq!(seat.guessed(now), 2);
        drop(seat);
        let refused = clients.admit(address, ALLOWANCE, now).unwrap_err();
        assert_eq!(refused, Crowded::Guesses);
        let later = now + Duration::from_secs(61);
        let seat = clients.admit(address, ALLOWANCE, later).unwrap();
        assert_eq!(seat.guessed(later), 1);
        let trusted = clients.admit(None, ALLOWANCE, later).unwrap();
        assert_eq!(trusted.guessed(later), 0);
    }
}
