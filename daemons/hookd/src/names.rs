//! The names of clients: PTR, confirmed by A or AAAA (RFC 8601 3, RFC 1912 2.1).

use crate::config::Config;
use hickory_resolver::TokioResolver;
use hickory_resolver::proto::rr::{RData, RecordType};
use std::net::IpAddr;
use std::time::Duration;

/// Names of one address that are looked at.
const NAMES_MAX: usize = 4;

/// Who looks them up.
#[derive(Clone)]
pub(crate) struct Names {
    resolver: TokioResolver,
    limit: Duration,
}

impl std::fmt::Debug for Names {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "names within {:?}", self.limit)
    }
}

impl Names {
    /// `None` if names are not looked up.
    ///
    /// # Errors
    /// No resolver can be made of these settings.
    pub(crate) fn new(config: &Config) -> Result<Option<Self>, String> {
        if !config.client_names {
            return Ok(None);
        }
        let limit = Duration::from_millis(config.client_names_timeout_ms.max(1));
        let resolver =
            dns::resolver(&config.nameservers, limit).map_err(|error| error.to_string())?;
        Ok(Some(Self { resolver, limit }))
    }

    /// The name, if there is one that leads back.
    pub(crate) async fn of(&self, address: IpAddr) -> Option<String> {
        tokio::time::timeout(self.limit, self.confirmed(address.to_canonical()))
            .await
            .ok()?
    }

    async fn confirmed(&self, address: IpAddr) -> Option<String> {
        let found = self.resolver.reverse_lookup(address).await.ok()?;
        let names = found
            .answers()
            .iter()
            .filter_map(|record| match &record.data {
                RData::PTR(name) => Some(name.to_ascii()),
                _ => None,
            });
        let kind = match address {
            IpAddr::V4(_) => RecordType::A,
            IpAddr::V6(_) => RecordType::AAAA,
        };
        for name in names.take(NAMES_MAX) {
            let Ok(back) = self.resolver.lookup(name.as_str(), kind).await else {
                continue;
            };
            let leads_back = back.answers().iter().any(|record| match &record.data {
                RData::A(a) => IpAddr::V4(a.0) == address,
                RData::AAAA(a) => IpAddr::V6(a.0) == address,
                _ => false,
            });
            if leads_back {
                return Some(name.trim_end_matches('.').to_ascii_lowercase());
            }
        }
        None
    }
}
