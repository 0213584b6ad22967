//! What the configured listeners offer to mail programs: for their own questions here, and for the SRV records of `posthouse dns`.

use runtime::{Document, Failure};
use serde::Deserialize;
use std::net::IpAddr;
use zone::{Protocol, Service};

/// As much of a listener as matters here; the daemons themselves check the rest.
#[derive(Clone, Debug, Deserialize)]
struct Listener {
    address: String,
    #[serde(default)]
    role: String,
    #[serde(default = "starttls")]
    tls: String,
}

fn starttls() -> String {
    "starttls".to_owned()
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Section {
    listener: Option<Vec<Listener>>,
}

/// What stands in no section: address, role, TLS. A test holds it equal to the daemons' defaults.
const DEFAULTS: [(&str, &str, &str, &str); 7] = [
    ("smtpd", "[::]:587", "submission", "starttls"),
    ("smtpd", "[::]:465", "submission", "implicit"),
    ("imapd", "[::]:143", "", "starttls"),
    ("imapd", "[::]:993", "", "implicit"),
    ("pop3d", "[::]:110", "", "starttls"),
    ("pop3d", "[::]:995", "", "implicit"),
    ("sieved", "[::]:4190", "", "starttls"),
];

/// The services, by protocol. Of several listeners one that others can reach, and one on a usual port, comes first.
///
/// # Errors
/// A section that makes no sense.
pub fn services(document: &Document) -> Result<Vec<Service>, Failure> {
    let mut all: Vec<(Protocol, bool, u16)> = Vec::new();
    for daemon in ["smtpd", "imapd", "pop3d", "sieved"] {
        let section: Section = document.section(daemon)?;
        let listeners = section.listener.unwrap_or_else(|| defaults(daemon));
        all.extend(listeners.iter().filter_map(|listener| {
            let protocol = protocol(daemon, listener)?;
            let (local, port) = port(&listener.address)?;
            Some((protocol, local, port))
        }));
    }
    all.sort_by_key(|(protocol, local, port)| (*protocol, *local, *port != protocol.port()));
    all.dedup_by_key(|(protocol, ..)| *protocol);
    let service = |(protocol, _, port)| Service { protocol, port };
    Ok(all.into_iter().map(service).collect())
}

fn defaults(daemon: &str) -> Vec<Listener> {
    let own = DEFAULTS.iter().filter(|(of, ..)| *of == daemon);
    own.map(|(_, address, role, tls)| Listener {
        address: (*address).to_owned(),
        role: (*role).to_owned(),
        tls: (*tls).to_owned(),
    })
    .collect()
}

fn protocol(daemon: &str, listener: &Listener) -> Option<Protocol> {
    Some(match (daemon, listener.tls.as_str()) {
        ("smtpd", _) if listener.role != "submission" => return None,
        ("smtpd", "implicit") => Protocol::Submissions,
        ("smtpd", "starttls") => Protocol::Submission,
        ("imapd", "implicit") => Protocol::Imaps,
        ("imapd", "starttls") => Protocol::Imap,
        ("pop3d", "implicit") => Protocol::Pop3s,
        ("pop3d", "starttls") => Protocol::Pop3,
        ("sieved", "starttls") => Protocol::Sieve,
        _ => return None,
    })
}

/// Whether only this host can reach the listener, and its port.
fn port(address: &str) -> Option<(bool, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let port = port.parse().ok()?;
    let host: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
    Some((host.is_some_and(|host| host.is_loopback()), port))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ports_are_read_from_listeners() {
        assert_eq!(port("[::]:993"), Some((false, 993)));
        assert_eq!(port("127.0.0.1:1143"), Some((true, 1143)));
        assert_eq!(port("[::1]:1143"), Some((true, 1143)));
        assert_eq!(port("unix:/run/x"), None);
    }

    #[test]
    fn who_can_be_reached_comes_first() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("posthouse.toml");
        let text = "
            smtpd.listener = [{ name = 'mx', address = '[::]:25' }]
            pop3d.listener = []
            sieved.listener = [{ name = 's', address = '[::]:4190', tls = 'none' }]
            [[imapd.listener]]
            name = 'a'
            address = '127.0.0.1:993'
            tls = 'implicit'
            [[imapd.listener]]
            name = 'b'
            address = '[::]:1993'
            tls = 'implicit'";
        std::fs::write(&file, text).unwrap();
        let found = services(&Document::load(&file).unwrap()).unwrap();
        let only = Service {
            protocol: Protocol::Imaps,
            port: 1993,
        };
        assert_eq!(found, [only]);
    }
}
