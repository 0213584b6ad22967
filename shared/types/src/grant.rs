//! What authd hands out at login, and stored and queued demand before they act.

use crate::{AccountId, Octets};
use serde::{Deserialize, Serialize};

/// A right to act on one account until a given time, sealed by keyd's token key. A hijacked listener can use the grants
/// that it holds, and no other.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Grant {
    /// The account.
    pub account: AccountId,
    /// Its name, which is its primary address: who it is in access control lists (RFC 4314).
    pub name: String,
    /// The groups it is a member of.
    pub groups: Vec<Membership>,
    /// What may be done.
    pub rights: Rights,
    /// Seconds since 1970 after which it is void.
    pub expires: u64,
    /// Octets that the account may hold; 0 is unlimited.
    pub quota_bytes: u64,
    /// Messages that the account may hold; 0 is unlimited.
    pub quota_messages: u64,
    /// Over [`Grant::sealed`], under the purpose [`Grant::PURPOSE`]; 32 octets.
    pub mac: Octets,
}

impl Grant {
    /// The purpose given to keyd's MacSign and MacVerify.
    pub const PURPOSE: &'static str = "grant-2";

    /// The octets that the MAC covers.
    pub fn sealed(&self) -> Vec<u8> {
        let mut octets = Vec::with_capacity(36);
        octets.extend_from_slice(&self.account.0.to_le_bytes());
        octets.extend_from_slice(&self.rights.0.to_le_bytes());
        octets.extend_from_slice(&self.expires.to_le_bytes());
        octets.extend_from_slice(&self.quota_bytes.to_le_bytes());
        octets.extend_from_slice(&self.quota_messages.to_le_bytes());
        seal_text(&mut octets, &self.name);
        for group in &self.groups {
            octets.extend_from_slice(&group.account.0.to_le_bytes());
            seal_text(&mut octets, &group.name);
        }
        octets
    }
}

/// Length first, so that no two grants have the same octets.
fn seal_text(octets: &mut Vec<u8>, text: &str) {
    octets.extend_from_slice(&(text.len() as u64).to_le_bytes());
    octets.extend_from_slice(text.as_bytes());
}

/// A group, for one of its members.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Membership {
    /// The account of the group's own mailboxes, which its members own together; 0 if it has none.
    pub account: AccountId,
    /// The group's address: `group=` before it is its identifier in access control lists.
    pub name: String,
}

/// A set of rights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Rights(pub u32);

impl Rights {
    /// Read mail.
    pub const READ: Self = Self(1);
    /// Change mail and mailboxes.
    pub const WRITE: Self = Self(2);
    /// Submit mail to any recipient.
    pub const SUBMIT: Self = Self(4);
    /// All of the above.
    pub const ALL: Self = Self(7);

    /// Whether every right of `other` is in this set.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}
