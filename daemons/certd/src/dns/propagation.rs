//! Whether all authoritative servers of a zone show a record.

use super::{DnsConfig, DnsError};
use hickory_resolver::TokioResolver;
use hickory_resolver::proto::rr::{RData, RecordType};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::Instant;

/// For one answer of one server.
const ANSWER: Duration = Duration::from_secs(4);

/// Asks the servers themselves, past all caches.
#[derive(Clone, Debug)]
pub(crate) struct Watcher {
    config: DnsConfig,
    nameservers: Vec<SocketAddr>,
}

impl Watcher {
    /// `nameservers` find the zone's own servers; the system's if there are none.
    pub(crate) fn new(config: &DnsConfig, nameservers: &[SocketAddr]) -> Self {
        Self {
            config: config.clone(),
            nameservers: nameservers.to_vec(),
        }
    }

    /// Waits until every server shows this text in a TXT record of the name.
    ///
    /// # Errors
    /// One does not within `certd.dns.propagation_timeout`.
    pub(crate) async fn until_text(&self, name: &str, text: &str) -> Result<(), DnsError> {
        let zone = self.config.zone_of(name)?;
        let patience = Patience::new(&self.config);
        loop {
            let why = match self.unseen(&zone, name, text).await {
                Ok(None) => return Ok(()),
                Ok(Some(server)) => format!("{server} does not"),
                Err(error) => error,
            };
            patience.wait(name, why).await?;
        }
    }

    /// Whether every server shows this text now. One that does not answer is one that does not show it.
    ///
    /// # Errors
    /// The name is in none of our zones.
    pub(crate) async fn shows_text(&self, name: &str, text: &str) -> Result<bool, DnsError> {
        let zone = self.config.zone_of(name)?;
        let unseen = self.unseen(&zone, name, text).await;
        if let Err(why) = &unseen {
            tracing::debug!(name, why, "not all name servers answer");
        }
        Ok(unseen == Ok(None))
    }

    /// Whether every server shows a TLSA record with this digest now.
    ///
    /// # Errors
    /// The name is in none of our zones.
    pub(crate) async fn shows_tlsa(&self, name: &str, digest: &[u8]) -> Result<bool, DnsError> {
        let zone = self.config.zone_of(name)?;
        let is_it = |data: &RData| match data {
            RData::TLSA(found) => found.cert_data == digest,
            _ => false,
        };
        let unseen = self.unseen_by(&zone, name, RecordType::TLSA, is_it).await;
        if let Err(why) = &unseen {
            tracing::debug!(name, why, "not all name servers answer");
        }
        Ok(unseen == Ok(None))
    }

    /// Whether the texts that each server shows at a name do now; what is wrong with the first that do not. The name may be in no zone
    /// of ours.
    pub(crate) async fn judge(
        &self,
        name: &str,
        judge: &impl Fn(&[String]) -> Result<(), String>,
    ) -> Result<(), String> {
        for server in self.servers_for(name).await? {
            let told = |why: String| format!("{server}: {why}");
            let resolver = direct(&[server], false)?;
            let texts: Vec<String> = match resolver.lookup(dns::fqdn(name), RecordType::TXT).await {
                Ok(answer) => answer
                    .answers()
                    .iter()
                    .filter_map(|record| match &record.data {
                        RData::TXT(text) => Some(text.txt_data.concat()),
                        _ => None,
                    })
                    .map(|text| String::from_utf8_lossy(&text).into_owned())
                    .collect(),
                Err(error) if error.is_nx_domain() || error.is_no_records_found() => Vec::new(),
                Err(error) => return Err(told(error.to_string())),
            };
            judge(&texts).map_err(told)?;
        }
        Ok(())
    }

    /// Waits for that.
    ///
    /// # Errors
    /// One server's do not within `certd.dns.propagation_timeout`.
    pub(crate) async fn until(
        &self,
        name: &str,
        judge: &impl Fn(&[String]) -> Result<(), String>,
    ) -> Result<(), DnsError> {
        let patience = Patience::new(&self.config);
        while let Err(why) = self.judge(name, judge).await {
            patience.wait(name, why).await?;
        }
        Ok(())
    }

    /// The authoritative servers for a name: of our zone that it is in, or of the closest above it that has name servers.
    async fn servers_for(&self, name: &str) -> Result<Vec<SocketAddr>, String> {
        if let Ok(zone) = self.config.zone_of(name) {
            return self.servers(&zone).await;
        }
        let mut rest = name;
        let mut first = None;
        // A zone of one label is a registry's.
        while let Some((_, zone)) = rest.split_once('.').filter(|(_, zone)| zone.contains('.')) {
            match self.servers(zone).await {
                Ok(servers) => return Ok(servers),
                Err(error) => first = first.or(Some(error)),
            }
            rest = zone;
        }
        Err(first.unwrap_or_else(|| format!("{name} is in no zone")))
    }

    /// The first server that does not show the text.
    async fn unseen(
        &self,
        zone: &str,
        name: &str,
        text: &str,
    ) -> Result<Option<SocketAddr>, String> {
        let is_it = |data: &RData| match data {
            RData::TXT(found) => found.txt_data.concat() == text.as_bytes(),
            _ => false,
        };
        self.unseen_by(zone, name, RecordType::TXT, is_it).await
    }

    async fn unseen_by(
        &self,
        zone: &str,
        name: &str,
        kind: RecordType,
        is_it: impl Fn(&RData) -> bool,
    ) -> Result<Option<SocketAddr>, String> {
        for server in self.servers(zone).await? {
            let resolver = direct(&[server], false)?;
            let shown = match resolver.lookup(dns::fqdn(name), kind).await {
                Ok(answer) => answer.answers().iter().any(|record| is_it(&record.data)),
                Err(error) if error.is_nx_domain() || error.is_no_records_found() => false,
                Err(error) => return Err(format!("{server}: {error}")),
            };
            if !shown {
                return Ok(Some(server));
            }
        }
        Ok(None)
    }

    /// The authoritative servers: all addresses of all names that the zone gives.
    async fn servers(&self, zone: &str) -> Result<Vec<SocketAddr>, String> {
        if !self.config.authoritative.is_empty() {
            return Ok(self.config.authoritative.clone());
        }
        let resolver = direct(&self.nameservers, true)?;
        let names = resolver
            .lookup(dns::fqdn(zone), RecordType::NS)
            .await
            .map_err(|error| format!("the name servers of {zone}: {error}"))?;
        let mut servers = Vec::new();
        for record in names.answers() {
            let RData::NS(name) = &record.data else {
                continue;
            };
            let addresses = resolver
                .lookup_ip(dns::fqdn(&name.0.to_ascii()))
                .await
                .map_err(|error| format!("the name server {}: {error}", name.0))?;
            servers.extend(addresses.iter().map(|address| SocketAddr::new(address, 53)));
        }
        if servers.is_empty() {
            return Err(format!("{zone} names no name servers"));
        }
        Ok(servers)
    }
}

/// How long and how often is looked.
struct Patience {
    deadline: Instant,
    pause: Duration,
    seconds: u64,
}

impl Patience {
    fn new(config: &DnsConfig) -> Self {
        Self {
            deadline: Instant::now() + Duration::from_secs(config.propagation_timeout),
            pause: Duration::from_millis(config.propagation_pause_ms),
            seconds: config.propagation_timeout,
        }
    }

    /// A pause, if there is time for another look.
    async fn wait(&self, name: &str, why: String) -> Result<(), DnsError> {
        if Instant::now() + self.pause > self.deadline {
            return Err(DnsError::Unseen {
                name: name.to_owned(),
                seconds: self.seconds,
                why,
            });
        }
        tracing::debug!(name, why, "the record is not published everywhere yet");
        tokio::time::sleep(self.pause).await;
        Ok(())
    }
}

fn direct(servers: &[SocketAddr], recursive: bool) -> Result<TokioResolver, String> {
    let mut builder = dns::builder(servers);
    let options = builder.options_mut();
    options.timeout = ANSWER;
    options.attempts = 2;
    options.cache_size = 0;
    options.recursion_desired = recursive;
    builder.build().map_err(|error| error.to_string())
}
