//! The checks of who sends, for mail that arrives on `mx` listeners: what they find and what is done about it.

mod config;
mod decision;
mod opinion;

pub use config::{Action, ChecksConfig, DmarcAction, Preset, Rule, Temporary};
pub(crate) use decision::{Decision, Letter};
pub use opinion::{Opinion, Question, opinion};

use crate::reports::Reports;
use runtime::Failure;
use std::sync::Arc;
use types::Address;

/// What sessions need of the configuration.
#[derive(Clone, Debug)]
pub struct Checks {
    /// The rules.
    pub config: ChecksConfig,
    /// Where results are counted for reports; `None` if none are sent.
    pub(crate) reports: Option<Arc<Reports>>,
}

impl Checks {
    /// `None` if nothing is checked.
    ///
    /// # Errors
    /// A domain that is none.
    pub fn new(config: &ChecksConfig) -> Result<Option<Self>, Failure> {
        if !config.enabled {
            return Ok(None);
        }
        let mut config = config.clone();
        let domain = |text: &str| {
            let (dot, name) = match text.strip_prefix('.') {
                Some(name) => (".", name),
                None => ("", text),
            };
            Address::domain_of(name)
                .map(|name| format!("{dot}{name}"))
                .map_err(|error| Failure::new(format!("smtpd.checks: {text:?}: {error}")))
        };
        for rule in &mut config.rule {
            for list in [&mut rule.recipients, &mut rule.senders] {
                for name in list {
                    *name = domain(name)?;
                }
            }
        }
        for name in &mut config.trusted_sealers {
            *name = domain(name)?;
        }
        Ok(Some(Self {
            config,
            reports: None,
        }))
    }
}

/// What arrived, as far as the checks need it.
#[derive(Debug)]
pub struct Evidence {
    /// The header as it came, with the empty line.
    pub header: Vec<u8>,
    /// Of the body.
    pub hashes: mailauth::BodyHashes,
}
