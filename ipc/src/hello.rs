//! The first frame of each side, and the hash that keeps stale daemons apart.

use serde::{Deserialize, Serialize};
use types::Role;

/// The version of framing itself.
pub(crate) const VERSION: u16 = 1;

/// Who speaks, and which API it knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) version: u16,
    /// [`api_hash`] of the server.
    pub(crate) api: u64,
    pub(crate) role: Role,
}

/// A hash over the source of what a daemon serves: two builds that differ there do not talk.
pub const fn api_hash(server: Role) -> u64 {
    let own = match server {
        Role::Keyd => include_str!("api/keyd.rs"),
        Role::Authd => include_str!("api/authd.rs"),
        Role::Stored => include_str!("api/stored.rs"),
        Role::Deliverd => include_str!("api/deliverd.rs"),
        Role::Relayd => include_str!("api/relayd.rs"),
        Role::Queued => include_str!("api/queued.rs"),
        Role::Indexd => include_str!("api/indexd.rs"),
        Role::Certd => include_str!("api/certd.rs"),
        Role::Limitd => include_str!("api/limitd.rs"),
        Role::Reportd => include_str!("api/reportd.rs"),
        Role::Hookd => include_str!("api/hookd.rs"),
        Role::Smtpd | Role::Imapd | Role::Pop3d | Role::Sieved | Role::Httpd | Role::Posthouse => {
            ""
        }
    };
    fnv(own, SHARED)
}

/// What all APIs are made of.
const SHARED: u64 = {
    let mut hash = 0xcbf2_9ce4_8422_2325;
    hash = fnv(include_str!("api/control.rs"), hash);
    hash = fnv(include_str!("operation.rs"), hash);
    hash = fnv(include_str!("../../shared/types/src/address.rs"), hash);
    hash = fnv(include_str!("../../shared/types/src/body.rs"), hash);
    hash = fnv(include_str!("../../shared/types/src/envelope.rs"), hash);
    hash = fnv(include_str!("../../shared/types/src/grant.rs"), hash);
    hash = fnv(include_str!("../../shared/types/src/id.rs"), hash);
    hash = fnv(include_str!("../../shared/types/src/role.rs"), hash);
    fnv(include_str!("../../shared/types/src/status.rs"), hash)
};

/// FNV-1a, which is const; it only has to tell sources apart.
const fn fnv(text: &str, mut hash: u64) -> u64 {
    let octets = text.as_bytes();
    let mut at = 0;
    while at < octets.len() {
        #[allow(
            clippy::indexing_slicing,
            reason = "the loop's own bound; const code has no iterators"
        )]
        let octet = octets[at];
        hash = (hash ^ octet as u64).wrapping_mul(0x0000_0100_0000_01b3);
        at += 1;
    }
    hash
}
