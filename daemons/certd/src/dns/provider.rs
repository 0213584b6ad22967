//! Changes of zones, by dns-update.

use super::{DnsConfig, DnsError};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use dns_update::providers::google_cloud_dns::GoogleCloudDnsConfig;
use dns_update::providers::ovh::OvhEndpoint;
use dns_update::providers::rfc2136::DnsAddress;
use dns_update::providers::route53::Route53Config;
use dns_update::{DnsRecord, DnsRecordType, DnsUpdater, TsigAlgorithm};
use std::path::PathBuf;
use std::time::Duration;

/// A service account of Google's is some kilobytes.
const SECRET_MAX: u64 = 64 * 1024;

/// Providers that are reached with a token alone.
const TOKEN_ONLY: [&str; 11] = [
    "cloudflare",
    "digitalocean",
    "bunny",
    "desec",
    "gandi",
    "hetzner",
    "linode",
    "ns1",
    "scaleway",
    "vultr",
    "pdns",
];

/// Providers whose secret has a name.
const NAMED: [&str; 6] = [
    "rfc2136",
    "route53",
    "google-cloud-dns",
    "ovh",
    "dnsimple",
    "porkbun",
];

/// Publishes and removes.
#[derive(Clone)]
pub(crate) struct Publisher {
    config: DnsConfig,
    updater: DnsUpdater,
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "publisher at {}", self.config.provider)
    }
}

/// What the chosen provider needs.
///
/// # Errors
/// The setting that is missing.
pub(super) fn sound(config: &DnsConfig) -> Result<(), String> {
    let provider = config.provider.as_str();
    let named = NAMED.contains(&provider);
    if !named && !TOKEN_ONLY.contains(&provider) {
        return Err(format!(
            "certd.dns.provider: {provider} is not known; there are {}, {}",
            NAMED.join(", "),
            TOKEN_ONLY.join(", ")
        ));
    }
    let needs = |setting: &str| Err(format!("certd.dns.{setting}: {provider} needs it"));
    if config.secret_file.is_none() {
        return needs("secret_file");
    }
    if named && config.user.is_empty() {
        return needs("user");
    }
    match provider {
        "rfc2136" if DnsAddress::try_from(config.server.as_str()).is_err() => Err(
            "certd.dns.server: rfc2136 needs the address of the primary, as tcp://192.0.2.1:53"
                .to_owned(),
        ),
        "rfc2136" => algorithm(config).map(drop),
        "pdns" if !config.server.starts_with("http") => needs("server"),
        "route53" if !config.server.is_empty() && !config.server.starts_with("http") => Err(
            "certd.dns.server: for route53 the address of its API, as https://route53.amazonaws.com"
                .to_owned(),
        ),
        "ovh" if config.consumer_key_file.is_none() => needs("consumer_key_file"),
        "ovh" => endpoint(config).map(drop),
        // What would have no effect, and send the token elsewhere than is written there, is said.
        "pdns" | "route53" => Ok(()),
        _ if !config.server.is_empty() => Err(format!(
            "certd.dns.server: {provider} is reached at its own address, leave it empty"
        )),
        _ => Ok(()),
    }
}

fn algorithm(config: &DnsConfig) -> Result<TsigAlgorithm, String> {
    config
        .tsig_algorithm
        .parse()
        .map_err(|()| "certd.dns.tsig_algorithm is none, as hmac-sha256".to_owned())
}

fn endpoint(config: &DnsConfig) -> Result<OvhEndpoint, String> {
    Ok(match config.server.as_str() {
        "" | "ovh-eu" => OvhEndpoint::OvhEu,
        "ovh-us" => OvhEndpoint::OvhUs,
        "ovh-ca" => OvhEndpoint::OvhCa,
        _ => return Err("certd.dns.server: ovh-eu, ovh-us or ovh-ca".to_owned()),
    })
}

/// The first line or the whole of a file with a secret, which is named in errors and never shown.
fn secret(name: &str, file: Option<&PathBuf>) -> Result<String, DnsError> {
    let wrong = |why: &dyn std::fmt::Display| {
        let path = file
            .map(|file| file.display().to_string())
            .unwrap_or_default();
        DnsError::Setting(format!("certd.dns.{name} {path}: {why}"))
    };
    let path = file.ok_or_else(|| wrong(&"is not set"))?;
    if std::fs::metadata(path)
        .map_err(|error| wrong(&error))?
        .len()
        > SECRET_MAX
    {
        return Err(wrong(&"this is no secret: more than 64 KiB"));
    }
    let text = std::fs::read_to_string(path).map_err(|error| wrong(&error))?;
    Ok(text.trim().to_owned())
}

impl Publisher {
    /// Reads the secrets. Blocks on files.
    ///
    /// # Errors
    /// A setting or a file that makes no sense.
    pub(crate) fn new(config: &DnsConfig) -> Result<Self, DnsError> {
        sound(config).map_err(DnsError::Setting)?;
        let token = secret("secret_file", config.secret_file.as_ref())?;
        let user = config.user.as_str();
        let limit = Some(Duration::from_secs(config.timeout));
        let updater = match config.provider.as_str() {
            "rfc2136" => {
                let key = BASE64.decode(&token).map_err(|_| {
                    DnsError::Setting("certd.dns.secret_file: the key is not base64".to_owned())
                })?;
                let algorithm = algorithm(config).map_err(DnsError::Setting)?;
                DnsUpdater::new_rfc2136_tsig(config.server.as_str(), user, key, algorithm)
            }
            "cloudflare" => DnsUpdater::new_cloudflare(token, limit),
            "digitalocean" => DnsUpdater::new_digitalocean(token, limit),
            "bunny" => DnsUpdater::new_bunny(token, limit),
            "desec" => DnsUpdater::new_desec(token, limit),
            "gandi" => DnsUpdater::new_gandiv5(token, limit),
            "hetzner" => DnsUpdater::new_hetzner(token, limit),
            "linode" => DnsUpdater::new_linode(token, limit),
            "ns1" => DnsUpdater::new_ns1(token, limit),
            "scaleway" => DnsUpdater::new_scaleway(token, limit),
            "vultr" => DnsUpdater::new_vultr(token, limit),
            "pdns" => DnsUpdater::new_pdns(token, Some(&config.server), None::<&str>, limit),
            "dnsimple" => DnsUpdater::new_dnsimple(token, user, limit),
            "porkbun" => DnsUpdater::new_porkbun(user, token, limit),
            "route53" => DnsUpdater::new_route53(Route53Config {
                access_key_id: user.to_owned(),
                secret_access_key: token,
                session_token: None,
                region: Some(config.region.clone()).filter(|region| !region.is_empty()),
                hosted_zone_id: None,
                private_zone_only: None,
                endpoint: Some(config.server.trim_end_matches('/').to_owned())
                    .filter(|server| !server.is_empty()),
            }),
            "google-cloud-dns" => DnsUpdater::new_google_cloud_dns(GoogleCloudDnsConfig {
                service_account_json: token,
                project_id: user.to_owned(),
                managed_zone: None,
                private_zone: false,
                impersonate_service_account: None,
                request_timeout: limit,
            }),
            _ => {
                let consumer = secret("consumer_key_file", config.consumer_key_file.as_ref())?;
                let endpoint = endpoint(config).map_err(DnsError::Setting)?;
                DnsUpdater::new_ovh(user, token, consumer, endpoint, limit)
            }
        };
        Ok(Self {
            config: config.clone(),
            updater: updater.map_err(|error| DnsError::Provider(error.to_string()))?,
        })
    }

    /// Adds a record beside those that are there.
    ///
    /// # Errors
    /// A name outside our zones, or the provider's.
    pub(crate) async fn add(
        &self,
        name: &str,
        kind: DnsRecordType,
        ttl: u32,
        record: DnsRecord,
    ) -> Result<(), DnsError> {
        let zone = self.config.zone_of(name)?;
        let change = self
            .updater
            .add_to_rrset(name, kind, ttl, vec![record], zone.as_str());
        self.bounded(change).await?;
        tracing::info!(name, kind = %kind, "DNS record published");
        Ok(())
    }

    /// Removes one record, and leaves others of its name and type.
    ///
    /// # Errors
    /// A name outside our zones, or the provider's; a record that is still there although the provider said yes.
    pub(crate) async fn remove(
        &self,
        name: &str,
        kind: DnsRecordType,
        record: DnsRecord,
    ) -> Result<(), DnsError> {
        let zone = self.config.zone_of(name)?;
        let ours = comparable(&record);
        let change = self
            .updater
            .remove_from_rrset(name, kind, vec![record], zone.as_str());
        self.bounded(change).await?;
        if let Some(ours) = ours
            && self.still_there(name, kind, &zone, &ours).await
        {
            self.remove_rest(name, kind, &zone, &ours).await?;
        }
        tracing::info!(name, kind = %kind, "DNS record removed");
        Ok(())
    }

    /// Whether the provider lists a record that we asked it to remove. The library compares texts, and some providers give names
    /// back otherwise than they took them: without the final dot, in small letters.
    async fn still_there(&self, name: &str, kind: DnsRecordType, zone: &str, ours: &str) -> bool {
        if self.config.provider == "rfc2136" {
            // It compares as DNS does.
            return false;
        }
        match self
            .bounded(self.updater.list_rrset(name, kind, zone))
            .await
        {
            Ok(listed) => listed.iter().any(|other| is(other, ours)),
            Err(error) => {
                tracing::debug!(name, %error, "the provider does not list what it has");
                false
            }
        }
    }

    /// Removes a record as the whole set that it is; beside others it stays, and that is said.
    async fn remove_rest(
        &self,
        name: &str,
        kind: DnsRecordType,
        zone: &str,
        ours: &str,
    ) -> Result<(), DnsError> {
        let listed = self
            .bounded(self.updater.list_rrset(name, kind, zone))
            .await?;
        if listed.iter().all(|other| is(other, ours)) {
            // The TTL is of no record.
            let change = self.updater.set_rrset(name, kind, 60, Vec::new(), zone);
            self.bounded(change).await?;
            if !self.still_there(name, kind, zone, ours).await {
                return Ok(());
            }
        }
        Err(DnsError::Provider(format!(
            "it still has the record {kind} of {name}: remove it by hand"
        )))
    }

    async fn bounded<T>(
        &self,
        change: impl Future<Output = dns_update::Result<T>>,
    ) -> Result<T, DnsError> {
        let limit = Duration::from_secs(self.config.timeout);
        match tokio::time::timeout(limit, change).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(DnsError::Provider(error.to_string())),
            Err(_) => Err(DnsError::Provider(format!(
                "no answer within {} s (certd.dns.timeout)",
                self.config.timeout
            ))),
        }
    }
}

/// A record that names another host, as DNS compares it (RFC 1035 2.3.3): without the final dot, in small letters.
fn comparable(record: &DnsRecord) -> Option<String> {
    let plain = |name: &str| name.trim_end_matches('.').to_ascii_lowercase();
    Some(match record {
        DnsRecord::CNAME(target) | DnsRecord::NS(target) => plain(target),
        DnsRecord::MX(mx) => format!("{} {}", mx.priority, plain(&mx.exchange)),
        DnsRecord::SRV(srv) => format!(
            "{} {} {} {}",
            srv.priority,
            srv.weight,
            srv.port,
            plain(&srv.target)
        ),
        _ => return None,
    })
}

fn is(record: &DnsRecord, ours: &str) -> bool {
    comparable(record).as_deref() == Some(ours)
}
