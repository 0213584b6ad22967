//! Macros: what a milter is told besides the commands.

use crate::filter::{Mail, View};
use ::milter::{Place, Terms};
use ipc::api::hookd::HookAddress;

type Values = Vec<(&'static str, String)>;

/// Those that the filter wants; if it did not say which, those marked as usual.
fn wanted(
    terms: &Terms,
    place: Place,
    all: impl IntoIterator<Item = (&'static str, bool, Option<String>)>,
) -> Values {
    all.into_iter()
        .filter(|(name, usual, _)| terms.wants(place, name, *usual))
        .filter_map(|(name, _, value)| Some((name, value.filter(|value| !value.is_empty())?)))
        .collect()
}

/// At the connection.
pub(super) fn connect(terms: &Terms, view: &View<'_>) -> Values {
    let client = view.client;
    let address = client.address.map(|address| address.to_canonical());
    let shown = address.map_or_else(|| "local".to_owned(), |address| address.to_string());
    let name = view.name.unwrap_or(match address {
        Some(_) => "unknown",
        None => "localhost",
    });
    let server = client.server;
    wanted(
        terms,
        Place::Connect,
        [
            ("j", true, Some(client.hostname.clone())),
            ("{daemon_name}", true, Some(client.listener.clone())),
            (
                "{daemon_addr}",
                true,
                server.map(|server| server.ip().to_canonical().to_string()),
            ),
            (
                "{daemon_port}",
                true,
                server.map(|server| server.port().to_string()),
            ),
            (
                "v",
                true,
                Some(concat!("Posthouse ", env!("CARGO_PKG_VERSION")).to_owned()),
            ),
            ("_", true, Some(format!("{name} [{shown}]"))),
            ("{client_name}", true, Some(name.to_owned())),
            ("{client_ptr}", true, Some(name.to_owned())),
            (
                "{client_addr}",
                true,
                address.map(|address| address.to_string()),
            ),
            ("{client_port}", true, Some(client.port.to_string())),
        ],
    )
}

/// At HELO.
pub(super) fn hello(terms: &Terms, view: &View<'_>) -> Values {
    let tls = view.facts.tls.as_ref();
    wanted(
        terms,
        Place::Hello,
        [
            (
                "{tls_version}",
                true,
                tls.map(|(version, _)| version.clone()),
            ),
            ("{cipher}", true, tls.map(|(_, cipher)| cipher.clone())),
            (
                "{cipher_bits}",
                true,
                tls.map(|(_, cipher)| bits(cipher).to_string()),
            ),
        ],
    )
}

/// The size of a cipher suite's key.
pub(crate) fn bits(cipher: &str) -> u16 {
    if cipher.contains("AES_128") || cipher.contains("AES128") {
        128
    } else {
        256
    }
}

/// At MAIL.
pub(super) fn mail(terms: &Terms, view: &View<'_>, mail: &Mail) -> Values {
    let login = view.facts.login.as_ref();
    let [address, host, mailer] = route(&mail.sender);
    wanted(
        terms,
        Place::Mail,
        [
            ("i", true, Some(mail.id.clone())),
            (
                "{auth_type}",
                true,
                login.map(|(_, mechanism)| mechanism.clone()),
            ),
            ("{auth_authen}", true, login.map(|(name, _)| name.clone())),
            ("{mail_addr}", true, Some(address)),
            ("{mail_host}", true, Some(host)),
            ("{mail_mailer}", true, Some(mailer)),
        ],
    )
}

/// At RCPT.
pub(super) fn rcpt(terms: &Terms, mail: &Mail, recipient: &HookAddress) -> Values {
    let [address, host, mailer] = route(recipient);
    wanted(
        terms,
        Place::Rcpt,
        [
            ("i", true, Some(mail.id.clone())),
            ("{rcpt_addr}", true, Some(address)),
            ("{rcpt_host}", true, Some(host)),
            ("{rcpt_mailer}", true, Some(mailer)),
        ],
    )
}

/// At DATA, the end of the header, and the end.
pub(super) fn message(terms: &Terms, place: Place, mail: &Mail) -> Values {
    wanted(terms, place, [("i", true, Some(mail.id.clone()))])
}

/// The address, its host, and what brings it there.
fn route(path: &HookAddress) -> [String; 3] {
    let host = path
        .address
        .rsplit_once('@')
        .map(|(_, host)| host.to_owned())
        .unwrap_or_default();
    let mailer = if path.remote { "smtp" } else { "local" };
    [path.address.clone(), host, mailer.to_owned()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_ciphers() {
        assert_eq!(bits("TLS13_AES_128_GCM_SHA256"), 128);
        assert_eq!(bits("TLS13_AES_256_GCM_SHA384"), 256);
        assert_eq!(bits("TLS13_CHACHA20_POLY1305_SHA256"), 256);
    }
}
