//! What mail programs ask before an account is set up: autoconfig (Thunderbird and others) and autodiscover (Outlook). The answers say
//! where our listeners are, as the SRV records do, and nothing of accounts.

use types::{Address, xml};
use zone::{Protocol, Service};

/// Octets of a question.
pub(crate) const QUESTION_MAX: usize = 16 * 1024;

/// How each is called: type, direction, security. Under TLS from the start is the better one (RFC 8314 3).
const KINDS: [(Protocol, &str, bool, bool); 6] = [
    (Protocol::Imaps, "imap", true, true),
    (Protocol::Imap, "imap", true, false),
    (Protocol::Pop3s, "pop3", true, true),
    (Protocol::Pop3, "pop3", true, false),
    (Protocol::Submissions, "smtp", false, true),
    (Protocol::Submission, "smtp", false, false),
];

/// A server as both forms describe it.
struct Server {
    kind: &'static str,
    incoming: bool,
    implicit: bool,
    port: u16,
}

fn servers(services: &[Service]) -> impl Iterator<Item = Server> + '_ {
    KINDS
        .iter()
        .filter_map(|(protocol, kind, incoming, implicit)| {
            let service = services.iter().find(|one| one.protocol == *protocol)?;
            Some(Server {
                kind,
                incoming: *incoming,
                implicit: *implicit,
                port: service.port,
            })
        })
}

/// `config-v1.1.xml`. `domain` and `host` are names of hosts: letters, digits, hyphens, dots.
pub(crate) fn thunderbird(domain: &str, host: &str, services: &[Service]) -> String {
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<clientConfig version=\"1.1\">\n  <emailProvider id=\"{domain}\">\n    \
         <domain>{domain}</domain>\n    <displayName>{domain}</displayName>\n    <displayShortName>{domain}</displayShortName>\n"
    );
    for server in servers(services) {
        let element = match server.incoming {
            true => "incomingServer",
            false => "outgoingServer",
        };
        let (kind, port) = (server.kind, server.port);
        let security = if server.implicit { "SSL" } else { "STARTTLS" };
        text.push_str(&format!(
            "    <{element} type=\"{kind}\">\n      <hostname>{host}</hostname>\n      <port>{port}</port>\n      \
             <socketType>{security}</socketType>\n      <authentication>password-cleartext</authentication>\n      \
             <username>%EMAILADDRESS%</username>\n    </{element}>\n"
        ));
    }
    text.push_str("  </emailProvider>\n</clientConfig>\n");
    text
}

/// The answer to a POX autodiscover request for this address.
pub(crate) fn outlook(address: &Address, host: &str, services: &[Service]) -> String {
    const BASE: &str = "http://schemas.microsoft.com/exchange/autodiscover";
    let address = address.to_string();
    let login = xml::escape(&address);
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<Autodiscover xmlns=\"{BASE}/responseschema/2006\">\n  \
         <Response xmlns=\"{BASE}/outlook/responseschema/2006a\">\n    <Account>\n      <AccountType>email</AccountType>\n      \
         <Action>settings</Action>\n"
    );
    for server in servers(services) {
        let (kind, port) = (server.kind.to_ascii_uppercase(), server.port);
        let (ssl, encryption) = match server.implicit {
            true => ("on", "SSL"),
            false => ("off", "TLS"),
        };
        text.push_str(&format!(
            "      <Protocol>\n        <Type>{kind}</Type>\n        <Server>{host}</Server>\n        <Port>{port}</Port>\n        \
             <LoginName>{login}</LoginName>\n        <DomainRequired>off</DomainRequired>\n        <SPA>off</SPA>\n        \
             <SSL>{ssl}</SSL>\n        <Encryption>{encryption}</Encryption>\n        <AuthRequired>on</AuthRequired>\n      </Protocol>\n"
        ));
    }
    text.push_str("    </Account>\n  </Response>\n</Autodiscover>\n");
    text
}

/// The address in a request: `<EMailAddress>jane@example.org</EMailAddress>`.
pub(crate) fn address_in(question: &[u8]) -> Option<Address> {
    let text = std::str::from_utf8(question).ok()?;
    let (_, rest) = text.split_once("<EMailAddress>")?;
    let (address, _) = rest.split_once("</EMailAddress>")?;
    address.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn some() -> Vec<Service> {
        [
            (Protocol::Imap, 143),
            (Protocol::Imaps, 1993),
            (Protocol::Submission, 587),
            (Protocol::Sieve, 4190),
        ]
        .map(|(protocol, port)| Service { protocol, port })
        .to_vec()
    }

    #[test]
    fn servers_stand_in_order_of_preference() {
        let text = thunderbird("a.example", "mail.example", &some());
        let at = |part: &str| text.find(part).unwrap();
        assert!(
            at("<port>1993</port>\n      <socketType>SSL<")
                < at("<port>143</port>\n      <socketType>STARTTLS<")
        );
        assert!(at("<outgoingServer type=\"smtp\">") > at("<domain>a.example</domain>"));
        assert!(!text.contains("pop3") && !text.contains("4190"));
    }

    #[test]
    fn an_address_comes_back_as_text() {
        let question = "<Autodiscover><Request><EMailAddress> \"o'b<>\"@a.example </EMailAddress></Request></Autodiscover>";
        let address = address_in(question.as_bytes()).unwrap();
        let text = outlook(&address, "mail.example", &some());
        assert!(
            text.contains("<LoginName>&quot;o&apos;b&lt;&gt;&quot;@a.example</LoginName>"),
            "{text}"
        );
        assert_eq!(text.matches("<Protocol>").count(), 3);
        for bad in [
            "",
            "<EMailAddress>a@b.example",
            "<EMailAddress>nobody</EMailAddress>",
            "<EMailAddress></EMailAddress>",
        ] {
            assert!(address_in(bad.as_bytes()).is_none(), "{bad}");
        }
        assert!(address_in(b"<EMailAddress>\xff</EMailAddress>").is_none());
    }
}
