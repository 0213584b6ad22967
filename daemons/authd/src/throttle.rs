//! Failed logins: growing delays, and blocks of addresses and networks. Pure: the time is a parameter, in seconds since 1970.

use crate::config::Blocking;
use ipc::api::authd::Block;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::collections::HashMap;
use std::net::IpAddr;

/// Blocks in force at once; a site with more has its router do it.
const BLOCKS_MAX: usize = 100_000;
/// Wrong passwords that are recognised when they come again.
const KNOWN_MAX: usize = 8;

/// The failures of an address or a network.
#[derive(Debug, Default)]
struct Failures {
    /// Within the window.
    count: u32,
    /// In a row: sets the delay.
    streak: u32,
    /// When the window began.
    since: u64,
    /// Fingerprints of what was tried.
    known: Vec<u64>,
}

#[derive(Clone, Debug)]
struct Held {
    reason: String,
    until: Option<u64>,
}

/// What a failure led to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Penalty {
    /// The answer is held back so long.
    pub(crate) delay_ms: u32,
    /// New blocks, to be kept.
    pub(crate) blocks: Vec<Block>,
}

/// Who failed how often, and who is blocked.
#[derive(Debug)]
pub(crate) struct Throttle {
    config: Blocking,
    failures: HashMap<IpNet, Failures>,
    blocks: HashMap<IpNet, Held>,
}

/// The address itself, and its network: /24 or /64.
fn units(address: IpAddr) -> [IpNet; 2] {
    let address = address.to_canonical();
    let network = match address {
        IpAddr::V4(v4) => Ipv4Net::new(v4, 24).map(|net| IpNet::V4(net.trunc())),
        IpAddr::V6(v6) => Ipv6Net::new(v6, 64).map(|net| IpNet::V6(net.trunc())),
    };
    let own = IpNet::from(address);
    [own, network.unwrap_or(own)]
}

/// `192.0.2.1`, or `192.0.2.0/24`.
pub(crate) fn show(network: &IpNet) -> String {
    if network.prefix_len() == network.max_prefix_len() {
        network.addr().to_string()
    } else {
        network.to_string()
    }
}

/// Reads what [`show`] writes; host bits are cleared.
pub(crate) fn read(text: &str) -> Option<IpNet> {
    let text = text.trim();
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(IpNet::from(address.to_canonical()));
    }
    text.parse::<IpNet>().ok().map(|network| network.trunc())
}

impl Throttle {
    pub(crate) fn new(config: Blocking) -> Self {
        Self {
            config,
            failures: HashMap::new(),
            blocks: HashMap::new(),
        }
    }

    fn is_allowed(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.config.allow.iter().any(|net| net.contains(&address))
    }

    /// The reason for which an address is blocked, if it is.
    pub(crate) fn blocked(&self, address: IpAddr, now: u64) -> Option<&str> {
        if self.blocks.is_empty() || self.is_allowed(address) {
            return None;
        }
        let address = address.to_canonical();
        let own = IpNet::from(address);
        // By prefix length rather than by block: each is one look into the table.
        (0..=own.max_prefix_len()).rev().find_map(|len| {
            let network = IpNet::new(address, len).ok()?.trunc();
            let held = self.blocks.get(&network)?;
            held.until
                .is_none_or(|until| until > now)
                .then_some(held.reason.as_str())
        })
    }

    /// Notes a failure. `fingerprint` stands for what was tried: the same again is a forgotten mail program, and counts once.
    pub(crate) fn failed(
        &mut self,
        address: IpAddr,
        fingerprint: Option<u64>,
        now: u64,
    ) -> Penalty {
        if !self.config.enabled || self.is_allowed(address) {
            return Penalty::default();
        }
        self.make_room(now);
        let [own, network] = units(address);
        let mut penalty = Penalty::default();
        let (fresh, streak, count) = self.count(own, fingerprint, now);
        penalty.delay_ms = self.delay(streak);
        if !fresh {
            return penalty;
        }
        if count >= self.config.address_failures {
            penalty.blocks.extend(self.block_for(own, count, now));
        }
        let (_, _, count) = self.count(network, None, now);
        if network != own && count >= self.config.network_failures {
            penalty.blocks.extend(self.block_for(network, count, now));
        }
        penalty
    }

    /// Ends the growth of the delay. The failures still count: who has an account may not guess the password of others.
    pub(crate) fn succeeded(&mut self, address: IpAddr) {
        let [own, _] = units(address);
        if let Some(failures) = self.failures.get_mut(&own) {
            failures.streak = 0;
        }
    }

    fn count(&mut self, unit: IpNet, fingerprint: Option<u64>, now: u64) -> (bool, u32, u32) {
        let failures = self.failures.entry(unit).or_default();
        if now.saturating_sub(failures.since) > self.config.window_seconds {
            *failures = Failures {
                since: now,
                ..Failures::default()
            };
        }
        failures.streak = failures.streak.saturating_add(1);
        if let Some(fingerprint) = fingerprint {
            if failures.known.contains(&fingerprint) {
                return (false, failures.streak, failures.count);
            }
            if failures.known.len() >= KNOWN_MAX {
                failures.known.remove(0);
            }
            failures.known.push(fingerprint);
        }
        failures.count = failures.count.saturating_add(1);
        (true, failures.streak, failures.count)
    }

    fn delay(&self, streak: u32) -> u32 {
        let doubled = 1u32
            .checked_shl(streak.saturating_sub(1))
            .unwrap_or(u32::MAX);
        let delay = self.config.delay_ms.saturating_mul(doubled);
        delay.min(self.config.delay_max_ms)
    }

    fn block_for(&mut self, unit: IpNet, count: u32, now: u64) -> Option<Block> {
        let block = Block {
            network: show(&unit),
            reason: format!("{count} failed logins"),
            until: Some(now + self.config.block_seconds),
        };
        // The count begins anew: otherwise the first failure after the block would block again.
        self.failures.remove(&unit);
        self.add(unit, &block, now).then_some(block)
    }

    /// Holds a block. `false` if there are too many.
    pub(crate) fn add(&mut self, network: IpNet, block: &Block, now: u64) -> bool {
        if self.blocks.len() >= BLOCKS_MAX && !self.blocks.contains_key(&network) {
            self.blocks
                .retain(|_, held| held.until.is_none_or(|until| until > now));
            if self.blocks.len() >= BLOCKS_MAX {
                return false;
            }
        }
        let held = Held {
            reason: block.reason.clone(),
            until: block.until,
        };
        self.blocks.insert(network, held);
        true
    }

    /// Lifts a block, and forgets the failures that led to it.
    pub(crate) fn remove(&mut self, network: &IpNet) {
        self.blocks.remove(network);
        self.failures.retain(|unit, _| !network.contains(unit));
    }

    /// Takes the list of blocks as it is kept, in place of the own.
    pub(crate) fn replace(&mut self, blocks: Vec<Block>) {
        self.blocks = blocks
            .into_iter()
            .filter_map(|block| {
                let held = Held {
                    reason: block.reason,
                    until: block.until,
                };
                Some((read(&block.network)?, held))
            })
            .collect();
    }

    fn make_room(&mut self, now: u64) {
        if self.failures.len() + 2 <= self.config.remembered.max(16) {
            return;
        }
        let window = self.config.window_seconds;
        self.failures
            .retain(|_, failures| now.saturating_sub(failures.since) <= window);
        let limit = self.config.remembered.max(16) / 2;
        let mut least = 1;
        while self.failures.len() > limit {
            self.failures.retain(|_, failures| failures.count > least);
            least = least.saturating_mul(2);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn throttle() -> Throttle {
        Throttle::new(Blocking {
            address_failures: 3,
            network_failures: 5,
            window_seconds: 100,
            block_seconds: 1000,
            delay_ms: 100,
            delay_max_ms: 350,
            ..Blocking::default()
        })
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn delays_grow_and_the_third_failure_blocks() {
        let mut throttle = throttle();
        let address = ip("192.0.2.7");
        assert_eq!(throttle.failed(address, Some(1), 10).delay_ms, 100);
        assert_eq!(throttle.failed(address, Some(2), 10).delay_ms, 200);
        let third = throttle.failed(address, Some(3), 20);
        assert_eq!(third.delay_ms, 350);
        assert_eq!(
            third.blocks,
            [Block {
                network: "192.0.2.7".into(),
                reason: "3 failed logins".into(),
                until: Some(1020)
            }]
        );
        assert!(throttle.blocked(address, 1019).is_some());
        assert!(throttle.blocked(ip("::ffff:192.0.2.7"), 1019).is_some());
        assert!(throttle.blocked(ip("192.0.2.8"), 1019).is_none());
        assert!(throttle.blocked(address, 1020).is_none());
        throttle.remove(&read("192.0.2.7").unwrap());
        assert!(throttle.blocked(address, 1019).is_none());
    }

    #[test]
    fn the_same_again_counts_once_and_old_failures_are_forgotten() {
        let mut throttle = throttle();
        let address = ip("192.0.2.7");
        for _ in 0..50 {
            assert!(throttle.failed(address, Some(1), 10).blocks.is_empty());
        }
        throttle.succeeded(address);
        assert_eq!(throttle.failed(address, Some(2), 10).delay_ms, 100);
        assert!(throttle.failed(address, Some(3), 200).blocks.is_empty());
        assert!(throttle.failed(address, Some(4), 200).blocks.is_empty());
        assert_eq!(throttle.failed(address, Some(5), 200).blocks.len(), 1);
    }

    #[test]
    fn a_network_is_blocked_by_its_addresses_together() {
        for (stem, network, inside, outside) in [
            (
                "198.51.100.",
                "198.51.100.0/24",
                "198.51.100.200",
                "198.51.101.1",
            ),
            (
                "2001:db8:0:1::",
                "2001:db8:0:1::/64",
                "2001:db8:0:1:9::9",
                "2001:db8:0:2::1",
            ),
        ] {
            let mut throttle = throttle();
            let mut blocks = Vec::new();
            for n in 1..=5 {
                let address = ip(&format!("{stem}{n}"));
                blocks.extend(throttle.failed(address, Some(n), 10).blocks);
            }
            assert_eq!(blocks.len(), 1);
            assert_eq!(blocks[0].network, network);
            assert!(throttle.blocked(ip(inside), 11).is_some());
            assert!(throttle.blocked(ip(outside), 11).is_none());
        }
    }

    #[test]
    fn allowed_addresses_are_free_and_manual_blocks_last() {
        let mut throttle = throttle();
        for n in 0..100 {
            assert_eq!(
                throttle.failed(ip("127.0.0.9"), Some(n), 10),
                Penalty::default()
            );
            assert_eq!(throttle.failed(ip("::1"), Some(n), 10), Penalty::default());
        }
        let by_hand = |network: &str| Block {
            network: network.into(),
            reason: "by hand".into(),
            until: None,
        };
        throttle.replace(vec![by_hand("0.0.0.0/0"), by_hand("nonsense")]);
        assert!(throttle.blocked(ip("127.0.0.1"), 10).is_none());
        assert_eq!(throttle.blocked(ip("8.8.8.8"), u64::MAX), Some("by hand"));
        assert!(throttle.blocked(ip("2001:db8::1"), 10).is_none());
    }

    #[test]
    fn memory_is_bounded() {
        let mut throttle = throttle();
        throttle.config.remembered = 100;
        for n in 0u32..10_000 {
            throttle.failed(
                IpAddr::from((0x0a00_0000 + n * 300).to_be_bytes()),
                None,
                10,
            );
            assert!(throttle.failures.len() <= 100);
        }
        assert_eq!(read("10.1.2.3/8").map(|n| show(&n)).unwrap(), "10.0.0.0/8");
        assert!(read("10.1.2.3/33").is_none() && read("x").is_none());
    }
}
