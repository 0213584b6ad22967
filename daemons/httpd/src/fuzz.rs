//! Entry points for fuzzers: each takes any octets, and panics only if a promise is broken.

use crate::autoconfig;
use crate::site::{Route, Site, host};
use http::header::HOST;
use http::{Request, Uri};
use zone::{Protocol, Service};

/// A target, and in each further line a `Host`: the host is a name, and where a request leads is for that host alone.
pub fn request(octets: &[u8]) {
    let mut lines = octets.split(|octet| *octet == b'\n');
    let mut request = Request::builder().uri(lines.next().unwrap_or_default());
    for line in lines {
        request = request.header(HOST, line);
    }
    let Ok(request) = request.body(()) else {
        return;
    };
    let parts = request.into_parts().0;
    let host = host(&parts);
    let name = host.as_deref().unwrap_or_default();
    let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.');
    assert!(host.is_none() || (1..=253).contains(&name.len()) && name.bytes().all(letter));
    let dns = zone::Config {
        mta_sts: zone::MtaStsMode::Testing,
        autoconfig: "mail.example".to_owned(),
        ..zone::Config::default()
    };
    let site = Site {
        dns: &dns,
        host: "mail.example",
        is_ours: &|name| name.ends_with("example"),
    };
    for secure in [false, true] {
        let route = site.route(host.as_deref(), &parts, secure);
        let ours = secure && name.ends_with("example");
        match &route {
            Route::Policy(text) => assert!(ours && text.contains("mx: mail.example\r\n")),
            Route::Autoconfig(domain) => assert!(ours && name.ends_with(domain.as_str())),
            Route::Autodiscover => assert!(ours && name == "mail.example"),
            Route::Challenge(token) => assert!(
                token
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
            ),
            Route::Unsubscribe(token) => {
                assert!(ours && name == "mail.example");
                assert!(token.bytes().all(|b| b.is_ascii_alphanumeric()));
            }
            Route::Secure(target) => {
                let there = target.parse::<Uri>().ok();
                let there = there.as_ref().and_then(Uri::host);
                assert!(!secure && there == Some(name), "{target:?} for {name:?}");
            }
            Route::Nothing | Route::Stranger | Route::Malformed => {}
        }
    }
}

/// Questions of mail programs (autodiscover): what comes back is the address that was found, as text and not as markup.
pub fn question(octets: &[u8]) {
    let Some(address) = autoconfig::address_in(octets) else {
        return;
    };
    let services = [(Protocol::Imaps, 993), (Protocol::Submissions, 465)];
    let services = services.map(|(protocol, port)| Service { protocol, port });
    let text = autoconfig::outlook(&address, "mail.example", &services);
    let parts: Vec<&str> = text.split("<LoginName>").collect();
    assert!(parts.len() == 3, "{text}");
    for part in parts.iter().skip(1) {
        let login = part.split("</LoginName>").next().unwrap_or_default();
        assert!(!login.contains(['<', '>', '"', '\'']), "{login}");
        let plain = [
            ("&lt;", "<"),
            ("&gt;", ">"),
            ("&quot;", "\""),
            ("&apos;", "'"),
            ("&amp;", "&"),
        ]
        .iter()
        .fold(login.to_owned(), |text, (entity, octet)| {
            text.replace(entity, octet)
        });
        assert_eq!(plain, address.to_string());
    }
}
