//! Who sent a message, as far as DNS tells: SPF, DKIM, ARC, DMARC and the client's name, and the field that says so.
//!
//! [`Judge::judge`] asks them all at once and within one time limit, and gives a [`Report`]; it decides nothing. What is not
//! answered in time is `temperror`. The message is needed as its header and the hashes of its body ([`BodyHashes`]), so that a
//! large body never lies in memory.
//!
//! STANDARDS: RFC 7208 (SPF), 6376, 8301 and 8463 (DKIM), 8617 (ARC), 7489 and 9989 (DMARC, with the tree walk), 8601
//! (Authentication-Results, iprev).
#![forbid(unsafe_code)]

mod arc;
mod body;
mod config;
mod dkim;
mod dmarc;
mod field;
pub mod fuzz;
mod iprev;
mod ledger;
mod report;
mod spf;
mod tags;

pub use body::{BodyHashes, header_len};
pub use config::Limits;
pub use field::{claims, has_result};
pub use report::{
    ArcReport, DkimReport, DmarcPolicy, DmarcReport, IprevReport, Published, Report, SpfReport,
    Word,
};

use ledger::Ledger;
use mail_auth::{AuthenticatedMessage, MessageAuthenticator};
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use types::Address;

/// Who brings a message, and from whom.
#[derive(Clone, Debug)]
pub struct Client<'a> {
    /// From where it connected.
    pub address: IpAddr,
    /// What it called itself in HELO or EHLO.
    pub helo: &'a str,
    /// MAIL FROM; `None` is the null reverse-path.
    pub sender: Option<&'a Address>,
}

/// Judges messages. Cheap to clone; the answers of DNS are shared by all clones.
#[derive(Clone)]
pub struct Judge {
    authenticator: MessageAuthenticator,
    limits: Limits,
    hostname: String,
}

impl std::fmt::Debug for Judge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "judge at {}", self.hostname)
    }
}

/// What every check has.
pub(crate) struct Case<'a> {
    authenticator: &'a MessageAuthenticator,
    limits: &'a Limits,
    ledger: &'a Ledger,
    until: Instant,
}

impl Case<'_> {
    /// The answer, or `None` where it does not come in time.
    async fn in_time<T>(&self, answer: impl Future<Output = T>) -> Option<T> {
        timeout_at(self.until, answer).await.ok()
    }
}

/// Name servers are asked in clear: there is nobody to trust, and no file of certificates to read.
fn no_tls() -> rustls::ClientConfig {
    rustls::ClientConfig::builder_with_provider(
        rustls::crypto::aws_lc_rs::default_provider().into(),
    )
    .with_protocol_versions(rustls::DEFAULT_VERSIONS)
    .unwrap_or_else(|_| rustls::ClientConfig::builder())
    .with_root_certificates(rustls::RootCertStore::empty())
    .with_no_client_auth()
}

/// A resolver for a daemon that may read no file: as [`dns::resolver`] makes one, without any certificates.
///
/// # Errors
/// If it cannot be made of these settings.
pub fn resolver(
    nameservers: &[SocketAddr],
    timeout: Duration,
) -> Result<hickory_resolver::TokioResolver, String> {
    let mut builder = dns::builder(nameservers).with_tls_config(no_tls());
    dns::tune(builder.options_mut(), timeout);
    builder.build().map_err(|error| error.to_string())
}

impl Judge {
    /// One that asks these name servers, or the system's if there are none, and calls this host by that name (`%{r}` of SPF).
    ///
    /// # Errors
    /// If no resolver can be made of these settings.
    pub fn new(nameservers: &[SocketAddr], limits: Limits, hostname: &str) -> Result<Self, String> {
        let resolver = resolver(nameservers, Duration::from_secs(limits.dns_timeout))?;
        Ok(Self {
            authenticator: MessageAuthenticator(resolver),
            limits,
            hostname: hostname.to_owned(),
        })
    }

    /// Which of these addresses have agreed to get reports on a domain (RFC 7489 7.1): those in the domain itself and below it, and
    /// those whose domain says so. `None`: DNS does not answer now.
    pub async fn agreed(&self, domain: &str, addresses: &[String]) -> Option<Vec<String>> {
        let ledger = Ledger::new(self.limits.lookups);
        let until = Duration::from_secs(self.limits.timeout.clamp(1, 120));
        let asked =
            self.authenticator
                .verify_dmarc_report_address(domain, addresses, Some(&ledger));
        let agreed = tokio::time::timeout(until, asked).await.ok()??;
        Some(agreed.into_iter().cloned().collect())
    }

    /// Asks who a client is, before there is a message: its name, if that leads back to its address (RFC 8601 3), and the domain of MAIL
    /// FROM (of HELO, for the null reverse-path: RFC 7208 2.4), if SPF passes for it.
    pub async fn identify(&self, client: &Client<'_>) -> (Option<String>, Option<String>) {
        let ledger = Ledger::new(self.limits.lookups);
        let case = self.case(&ledger);
        let spf = async {
            match client.sender {
                Some(_) => spf::mail_from(&case, client, &self.hostname).await,
                None => spf::helo(&case, client, &self.hostname).await,
            }
        };
        let (iprev, spf) = tokio::join!(iprev::check(&case, client.address), spf);
        let passed = spf.filter(|spf| spf.result == Word::Pass);
        (
            Some(iprev.name).filter(|name| !name.is_empty()),
            passed.map(|spf| spf.domain),
        )
    }

    fn case<'a>(&'a self, ledger: &'a Ledger) -> Case<'a> {
        Case {
            authenticator: &self.authenticator,
            limits: &self.limits,
            ledger,
            until: Instant::now() + Duration::from_secs(self.limits.timeout.clamp(1, 120)),
        }
    }

    /// Asks who sent a message, given its header as it came, with the empty line, and the hashes of what follows.
    pub async fn judge(&self, client: &Client<'_>, header: &[u8], body: BodyHashes) -> Report {
        let ledger = Ledger::new(self.limits.lookups);
        let case = self.case(&ledger);
        let mut message =
            AuthenticatedMessage::parse_with_opts(header, None, true).unwrap_or_default();
        body.put_into(&mut message);
        let (spf_helo, spf_mail_from, dkim, arc, iprev) = tokio::join!(
            spf::helo(&case, client, &self.hostname),
            spf::mail_from(&case, client, &self.hostname),
            dkim::check(&case, &message),
            arc::check(&case, &message),
            iprev::check(&case, client.address),
        );
        let dmarc = dmarc::check(&case, client, &message, &dkim, &spf_helo, &spf_mail_from).await;
        Report {
            iprev,
            spf_helo,
            spf_mail_from,
            dkim: dkim.into_iter().map(|one| one.report).collect(),
            arc,
            dmarc,
        }
    }
}
