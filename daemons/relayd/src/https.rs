//! HTTPS to servers that strangers name: of MTA-STS policies, and of those who want reports.

use hickory_resolver::TokioResolver;
use hickory_resolver::proto::rr::{RData, RecordType};
use ipnet::IpNet;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

/// The hosts, found as all other hosts are.
pub(crate) struct Names {
    resolver: TokioResolver,
    reach: Reach,
}

/// Which addresses are connected to.
#[derive(Clone, Debug)]
pub(crate) enum Reach {
    All,
    /// Those of the public internet, and of these networks.
    Public(Arc<Vec<IpNet>>),
}

impl Reach {
    /// Whether an address is connected to.
    pub(crate) fn covers(&self, address: IpAddr) -> bool {
        match self {
            Self::All => true,
            Self::Public(more) => {
                is_public(address) || more.iter().any(|net| net.contains(&address.to_canonical()))
            }
        }
    }
}

impl Names {
    pub(crate) fn new(resolver: TokioResolver, reach: Reach) -> Self {
        Self { resolver, reach }
    }
}

impl Resolve for Names {
    fn resolve(&self, name: Name) -> Resolving {
        let (resolver, reach) = (self.resolver.clone(), self.reach.clone());
        Box::pin(async move {
            let mut found: Vec<SocketAddr> = Vec::new();
            let (mut failed, mut unfit) = (None, None);
            for kind in [RecordType::A, RecordType::AAAA] {
                match resolver.lookup(::dns::fqdn(name.as_str()), kind).await {
                    Ok(answer) => {
                        for record in answer.answers() {
                            let address = match &record.data {
                                RData::A(a) => IpAddr::V4(a.0),
                                RData::AAAA(a) => IpAddr::V6(a.0),
                                _ => continue,
                            };
                            match reach.covers(address) {
                                true => found.push(SocketAddr::new(address, 0)),
                                false => unfit = Some(address),
                            }
                        }
                    }
                    Err(error) => failed = Some(error),
                }
            }
            match (failed, unfit) {
                _ if !found.is_empty() => Ok(Box::new(found.into_iter()) as Addrs),
                (_, Some(address)) => Err(not_public(address).into()),
                (Some(error), None) => Err(error.into()),
                (None, None) => Ok(Box::new(found.into_iter()) as Addrs),
            }
        })
    }
}

/// What is said of an address that is not connected to.
pub(crate) fn not_public(address: IpAddr) -> String {
    format!("{address} is not an address of the public internet")
}

/// Whether an address is one that hosts of others have (the registries of RFC 6890).
pub(crate) fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => {
            let [first, second, ..] = v6.segments();
            let [.., a, b, c, d] = v6.octets();
            match (first, second) {
                // RFC 6052 2.1: the IPv4 address behind a translator counts.
                (0x64, 0xff9b) => {
                    v6.segments().get(2..6) == Some(&[0_u16; 4][..])
                        && is_public_v4(Ipv4Addr::new(a, b, c, d))
                }
                // RFC 2928, RFC 3849; 6to4 (RFC 7526); RFC 9637
                (0x2001, 0..=0x1ff | 0xdb8) | (0x2002, _) | (0x3fff, 0..=0xfff) => false,
                // RFC 4291 2.4: what is given out of it.
                _ => first & 0xe000 == 0x2000,
            }
        }
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    // RFC 791 3.2, RFC 6598, RFC 6890, RFC 2544, RFC 1112 4
    let special = matches!(
        address.octets(),
        [0, ..] | [100, 64..=127, ..] | [192, 0, 0, _] | [198, 18..=19, ..] | [240..=255, ..]
    );
    !(special
        || address.is_loopback()
        || address.is_private()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_documentation())
}

/// Of the errors that wrap each other, the innermost says what was wrong; and whether it was the certificate.
pub(crate) fn explain(error: &reqwest::Error) -> (String, bool) {
    let (mut text, mut certificate) = (error.to_string(), false);
    let mut inner: Option<&(dyn Error + 'static)> = error.source();
    while let Some(cause) = inner {
        text = cause.to_string();
        certificate |= matches!(of_tls(cause), Some(rustls::Error::InvalidCertificate(_)));
        inner = cause.source();
    }
    if error.is_timeout() {
        "no answer in time".clone_into(&mut text);
    }
    (text, certificate)
}

/// What TLS said, below the errors of input and output that it is wrapped in.
fn of_tls<'a>(mut error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    while let Some(inner) = error
        .downcast_ref::<std::io::Error>()
        .and_then(std::io::Error::get_ref)
    {
        error = inner;
    }
    error.downcast_ref()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_public() {
        for text in [
            "8.8.8.8",
            "100.63.0.1",
            "172.32.0.1",
            "2606:4700::1",
            "2001:4860::8888",
            "64:ff9b::808:808",
            "::ffff:9.9.9.9",
        ] {
            assert!(is_public(text.parse().unwrap()), "{text}");
        }
        for text in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "192.168.1.1",
            "192.0.2.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "fc00::1",
            "fe80::1",
            "ff02::1",
        ] {
            assert!(!is_public(text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn networks_may_be_added() {
        let reach = Reach::Public(Arc::new(vec!["10.0.0.0/8".parse().unwrap()]));
        for (text, expected) in [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("8.8.8.8", true),
            ("127.0.0.1", false),
        ] {
            assert_eq!(reach.covers(text.parse().unwrap()), expected, "{text}");
        }
    }
}
