//! The section `[relayd]`.

use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// How mail leaves for other hosts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The name in EHLO, and by which loops are recognised. The suite's host name if it is not given.
    pub hostname: Option<String>,
    /// The port of other domains' mail exchangers. 25; others are for tests.
    pub port: u16,
    /// Name servers, `192.0.2.1:53`; the system's if there are none.
    pub nameservers: Vec<SocketAddr>,
    /// Seconds that a name server has for an answer; each question is asked up to three times. 5.
    pub dns_timeout: u64,
    /// Which addresses are used, and which first: `ipv6-first`, `ipv4-first` (default), `ipv6-only`, `ipv4-only`.
    pub addresses: AddressOrder,
    /// Source address for IPv4 connections.
    pub bind_ipv4: Option<Ipv4Addr>,
    /// Source address for IPv6 connections.
    pub bind_ipv6: Option<Ipv6Addr>,
    /// Mail exchangers that are looked at in one attempt. 5.
    pub max_hosts: usize,
    /// Addresses that are tried in one attempt. 8.
    pub max_addresses: usize,
    /// Deliveries at one time; more wait. 256.
    pub concurrency: usize,
    /// Seconds for a connection to be made, and again for TLS. 30.
    pub connect_timeout: u64,
    /// Seconds for the greeting (RFC 5321 4.5.3.2.1). 300.
    pub greeting_timeout: u64,
    /// Seconds for the reply to a command (RFC 5321 4.5.3.2.2, 4.5.3.2.3). 300.
    pub command_timeout: u64,
    /// Seconds for each piece of the message to be taken (RFC 5321 4.5.3.2.5). 180.
    pub data_timeout: u64,
    /// Seconds for the reply to the whole message (RFC 5321 4.5.3.2.6). 600.
    pub final_timeout: u64,
    /// Seconds that a connection is kept for the next message; 0 keeps none. 5.
    pub idle_timeout: u64,
    /// Connections kept so, in all. 64.
    pub max_idle: usize,
    /// Messages on one connection. 100.
    pub messages_per_connection: u32,
    /// Seconds after which a connection is not used again. 300.
    pub connection_age: u64,
    /// PEM file of further certificate authorities, for verified connections and for the servers of MTA-STS policies.
    pub tls_ca_file: Option<PathBuf>,
    /// What to do with eight-bit text if the next host does not take it: `bounce` (RFC 6152 3) or `send` regardless
    /// (default; hosts that do not say 8BITMIME and still mind are no more).
    pub eight_bit: EightBit,
    /// Whether mail of local senders is signed (DKIM) with the keys that keyd has for their domain. true.
    pub dkim: bool,
    /// Seconds for which the list of a domain's DKIM keys is remembered. 60.
    pub dkim_keys_cache: u64,
    /// What a signature covers, and whose it is.
    pub signing: crate::Signing,
    /// Seals on what is forwarded.
    pub arc: crate::Sealing,
    /// How well mail is protected on its way. One word instead of the table is its `policy`.
    #[serde(deserialize_with = "crate::transport::table_or_word")]
    pub tls: crate::Transport,
    /// How reports on TLS are posted.
    pub post: crate::Posting,
    /// Where certain domains go instead of their mail exchangers. The first match counts.
    pub route: Vec<RouteConfig>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            hostname: None,
            port: 25,
            nameservers: Vec::new(),
            dns_timeout: 5,
            addresses: AddressOrder::default(),
            bind_ipv4: None,
            bind_ipv6: None,
            max_hosts: 5,
            max_addresses: 8,
            concurrency: 256,
            connect_timeout: 30,
            greeting_timeout: 300,
            command_timeout: 300,
            data_timeout: 180,
            final_timeout: 600,
            idle_timeout: 5,
            max_idle: 64,
            messages_per_connection: 100,
            connection_age: 300,
            tls_ca_file: None,
            eight_bit: EightBit::Send,
            dkim: true,
            dkim_keys_cache: 60,
            signing: crate::Signing::default(),
            arc: crate::Sealing::default(),
            tls: crate::Transport::default(),
            post: crate::Posting::default(),
            route: Vec::new(),
        }
    }
}

/// `[[relayd.route]]`: a smart host, or another way for a domain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RouteConfig {
    /// The domain, `.example.com` for all below it, `*` for every domain.
    #[serde(rename = "match")]
    pub pattern: String,
    /// What operators call it (`posthouse queue reroute`); `host:port` if it is not given.
    pub name: Option<String>,
    /// The host: a name, whose addresses are looked up (not its MX), or an address.
    pub host: String,
    /// Its port; 25 (465 with `tls = "implicit"`, 24 for LMTP) if it is not given.
    pub port: Option<u16>,
    /// `opportunistic` (default), `none`, `required`, `implicit`. An entry for the host in `[relayd.tls.destination]` counts
    /// instead.
    pub tls: TlsMode,
    /// Whether its certificate must be valid for `host`. By default with `required` and `implicit`; with `opportunistic` it
    /// makes TLS a must.
    pub verify: Option<bool>,
    /// Log in as; never without TLS unless `tls = "none"` says so.
    pub username: Option<String>,
    /// A file that holds the password in its first line.
    pub password_file: Option<PathBuf>,
    /// `smtp` (default) or `lmtp`.
    pub protocol: Protocol,
}

/// How TLS is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TlsMode {
    /// Never.
    None,
    /// Where the host offers STARTTLS; in the clear if that fails. The certificate is not verified (RFC 7435).
    #[default]
    Opportunistic,
    /// STARTTLS or nothing.
    Required,
    /// TLS from the first octet.
    Implicit,
}

/// The protocol of a route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// RFC 5321
    #[default]
    Smtp,
    /// RFC 2033
    Lmtp,
}

/// What to do with eight-bit text that the next host does not take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EightBit {
    /// Return it to the sender.
    Bounce,
    /// Send it as it is.
    #[default]
    Send,
}

/// Which addresses, and in what order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AddressOrder {
    /// IPv6, then IPv4.
    Ipv6First,
    /// IPv4, then IPv6.
    #[default]
    Ipv4First,
    /// IPv6 alone.
    Ipv6Only,
    /// IPv4 alone.
    Ipv4Only,
}

impl Config {
    /// The address to connect from.
    pub(crate) fn source(&self, target: IpAddr) -> Option<IpAddr> {
        match target {
            IpAddr::V4(_) => self.bind_ipv4.map(IpAddr::V4),
            IpAddr::V6(_) => self.bind_ipv6.map(IpAddr::V6),
        }
    }

    pub(crate) fn seconds(value: u64) -> Duration {
        Duration::from_secs(value.max(1))
    }
}

impl RouteConfig {
    /// The port, or the protocol's own.
    pub fn effective_port(&self) -> u16 {
        self.port.unwrap_or(match (self.protocol, self.tls) {
            (Protocol::Lmtp, _) => 24,
            (_, TlsMode::Implicit) => 465,
            _ => 25,
        })
    }

    /// What operators call it.
    pub fn effective_name(&self) -> String {
        self.name
            .clone()
            .unwrap_or_else(|| format!("{}:{}", self.host, self.effective_port()))
    }

    /// Whether mail for this domain (lower case) goes this way.
    pub(crate) fn matches(&self, domain: &str) -> bool {
        let pattern = self.pattern.to_ascii_lowercase();
        pattern == "*"
            || pattern == domain
            || (pattern.starts_with('.') && domain.ends_with(&pattern))
    }

    /// The password's first line.
    ///
    /// # Errors
    /// What reading the file gives.
    pub(crate) fn password(&self) -> std::io::Result<String> {
        match &self.password_file {
            Some(path) => Ok(std::fs::read_to_string(path)?
                .lines()
                .next()
                .unwrap_or_default()
                .to_owned()),
            None => Ok(String::new()),
        }
    }
}
