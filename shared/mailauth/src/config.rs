//! What the checks may cost.

use serde::{Deserialize, Serialize};

/// Bounds of the checks of one message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Seconds for all checks of a message, 1 to 120; what has no answer by then is `temperror`. 15.
    pub timeout: u64,
    /// Seconds that one name server has for one answer; it is asked three times. 3.
    pub dns_timeout: u64,
    /// DKIM signatures of a message that are verified, those of the author's domain first. 10.
    pub signatures: usize,
    /// DNS lookups for one message, besides those that RFC 7208 4.6.4 counts; what would need more is `temperror`. 100.
    pub lookups: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            timeout: 15,
            dns_timeout: 3,
            signatures: 10,
            lookups: 100,
        }
    }
}
