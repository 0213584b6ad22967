//! The section `[reportd]`.

use serde::{Deserialize, Serialize};

/// The section `[reportd]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether it runs at all. false.
    pub enabled: bool,
}
