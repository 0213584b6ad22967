//! Patterns of addresses, as configurations list them.

use crate::Address;
use serde::Deserialize;

/// The addresses that reports of others come to, unless the configuration names others.
pub const REPORT_ADDRESSES: [&str; 3] = ["dmarc-reports@*", "tls-reports@*", "abuse-reports@*"];

/// What other daemons need to know of the section `[reportd]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct ReportAddresses {
    /// `reportd.enabled`.
    pub enabled: bool,
    /// `reportd.addresses`.
    pub addresses: Vec<String>,
    /// What is sent.
    pub send: ReportsSent,
}

/// What other daemons need to know of `[reportd.send]`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default)]
pub struct ReportsSent {
    /// `reportd.send.dmarc`.
    pub dmarc: bool,
    /// `reportd.send.tls`.
    pub tls: bool,
    /// `reportd.send.failure`.
    pub failure: bool,
}

impl Default for ReportsSent {
    fn default() -> Self {
        Self {
            dmarc: true,
            tls: true,
            failure: false,
        }
    }
}

impl Default for ReportAddresses {
    fn default() -> Self {
        Self {
            enabled: false,
            addresses: REPORT_ADDRESSES.map(str::to_owned).to_vec(),
            send: ReportsSent::default(),
        }
    }
}

impl ReportAddresses {
    /// The patterns; none if reportd does not run.
    ///
    /// # Errors
    /// A text for the operator.
    pub fn patterns(&self) -> Result<Vec<AddressPattern>, String> {
        if !self.enabled {
            return Ok(Vec::new());
        }
        self.addresses
            .iter()
            .map(|text| AddressPattern::parse(text))
            .map(|pattern| pattern.map_err(|error| format!("reportd.addresses: {error}")))
            .collect()
    }
}

/// `reports@example.org`, `reports@*`, `dmarc-*@example.org`: one `*` in each part stands for any text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressPattern {
    local: String,
    domain: String,
}

impl AddressPattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// A text for the operator.
    pub fn parse(text: &str) -> Result<Self, String> {
        let none =
            || format!("{text:?} is no pattern of addresses, as reports@example.org or reports@*");
        let (local, domain) = text.trim().rsplit_once('@').ok_or_else(none)?;
        let fine = |part: &str| {
            !part.is_empty()
                && part.matches('*').count() <= 1
                && !part.chars().any(|c| c.is_control() || c.is_whitespace())
        };
        // All of them would be taken from everybody.
        if !fine(local) || !fine(domain) || local == "*" {
            return Err(none());
        }
        Ok(Self {
            local: local.to_lowercase(),
            domain: domain.to_lowercase(),
        })
    }

    /// Whether an address is one of these.
    pub fn matches(&self, address: &Address) -> bool {
        like(&self.local, &address.local().to_lowercase()) && like(&self.domain, address.domain())
    }
}

fn like(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((begin, end)) => {
            text.len() >= begin.len() + end.len() && text.starts_with(begin) && text.ends_with(end)
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn stars_stand_for_any_text() {
        let matches = |pattern: &str, address: &str| {
            AddressPattern::parse(pattern)
                .unwrap()
                .matches(&address.parse().unwrap())
        };
        assert!(matches("dmarc-reports@*", "DMARC-Reports@example.org"));
        assert!(!matches("dmarc-reports@*", "dmarc-reports2@example.org"));
        assert!(matches("r-*@example.org", "r-x@example.org"));
        assert!(!matches("r-*@example.org", "r-x@b.example.org"));
        assert!(matches("r@*.example.org", "r@b.example.org"));
        assert!(!matches("ab*ba@*", "aba@x.example"));
        for bad in [
            "",
            "reports",
            "@x.example",
            "*@x.example",
            "a@",
            "a**b@x",
            "a b@x",
        ] {
            assert!(AddressPattern::parse(bad).is_err(), "{bad}");
        }
        for pattern in REPORT_ADDRESSES {
            AddressPattern::parse(pattern).unwrap();
        }
    }
}
