//! What is at which address: host and path in, a route out. Nothing here waits or writes.

use http::header::HOST;
use http::request::Parts;
use http::uri::Authority;

/// RFC 8461 3.2
const POLICY_PATH: &str = "/.well-known/mta-sts.txt";
/// RFC 8461 3.2
const POLICY_HOST: &str = "mta-sts.";
/// Where programs look for `config-v1.1.xml`: at a host of its own, or at the domain itself.
const AUTOCONFIG_PATHS: [&str; 2] = [
    "/mail/config-v1.1.xml",
    "/.well-known/autoconfig/mail/config-v1.1.xml",
];
/// The host of its own.
const AUTOCONFIG_HOST: &str = "autoconfig.";
/// In whatever case.
const AUTODISCOVER_PATH: &str = "/autodiscover/autodiscover.xml";
/// RFC 8555 8.3
const CHALLENGE_PATH: &str = "/.well-known/acme-challenge/";
/// Tokens have 128 bits at least (RFC 8555 8.3); nobody's are longer than this.
const TOKEN_MAX: usize = 128;

/// Where members leave lists by a link (RFC 8058).
pub(crate) const UNSUBSCRIBE_PATH: &str = "/unsubscribe/";

/// Where a request leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// The policy of a domain.
    Policy(String),
    /// Where the mail programs of a domain find their servers.
    Autoconfig(String),
    /// The same in another form, for the address in the body.
    Autodiscover,
    /// The answer to an authority's challenge with this token.
    Challenge(String),
    /// The end of a membership that this token names.
    Unsubscribe(String),
    /// The same by HTTPS.
    Secure(String),
    /// Nothing.
    Nothing,
    /// This host is none of ours.
    Stranger,
    /// The request makes no sense.
    Malformed,
}

impl Route {
    /// For metrics and the log.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Policy(_) => "policy",
            Self::Autoconfig(_) => "autoconfig",
            Self::Autodiscover => "autodiscover",
            Self::Challenge(_) => "challenge",
            Self::Unsubscribe(_) => "unsubscribe",
            Self::Secure(_) => "secure",
            Self::Nothing => "nothing",
            Self::Stranger => "stranger",
            Self::Malformed => "malformed",
        }
    }
}

/// What the routes depend on.
pub(crate) struct Site<'a> {
    /// What the records of our domains say, and so the policies.
    pub(crate) dns: &'a zone::Config,
    /// `suite.hostname`.
    pub(crate) host: &'a str,
    /// Whether there is a certificate for a name.
    pub(crate) is_ours: &'a dyn Fn(&str) -> bool,
}

impl Site<'_> {
    /// The route of a request that came by HTTPS, or not.
    pub(crate) fn route(&self, host: Option<&str>, parts: &Parts, secure: bool) -> Route {
        let Some(host) = host else {
            return Route::Malformed;
        };
        let path = parts.uri.path();
        if let Some(token) = path.strip_prefix(CHALLENGE_PATH) {
            // RFC 8555 8.3: base64url. Before there is a certificate for the host: nobody else can tell whose it is.
            let sound = (1..=TOKEN_MAX).contains(&token.len())
                && token
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
            return match sound {
                true => Route::Challenge(token.to_owned()),
                false => Route::Nothing,
            };
        }
        if !(self.is_ours)(host) {
            return Route::Stranger;
        }
        if !secure {
            let target = parts
                .uri
                .path_and_query()
                .map(|target| target.as_str())
                // RFC 9112 3.2.4: `*` is no path, and would be part of the host.
                .filter(|target| *target != "*")
                .unwrap_or("/");
            return Route::Secure(format!("https://{host}{target}"));
        }
        if AUTOCONFIG_PATHS.contains(&path) {
            let domain = host.strip_prefix(AUTOCONFIG_HOST).unwrap_or(host);
            return match self.dns.of(domain).serves_autoconfig(self.host) {
                true => Route::Autoconfig(domain.to_owned()),
                false => Route::Nothing,
            };
        }
        // The SRV record leads to our own name.
        if host == self.host && path.eq_ignore_ascii_case(AUTODISCOVER_PATH) {
            return Route::Autodiscover;
        }
        if host == self.host
            && let Some(token) = path.strip_prefix(UNSUBSCRIBE_PATH)
        {
            let sound = (1..=TOKEN_MAX).contains(&token.len())
                && token.bytes().all(|b| b.is_ascii_alphanumeric());
            return match sound {
                true => Route::Unsubscribe(token.to_owned()),
                false => Route::Nothing,
            };
        }
        match host.strip_prefix(POLICY_HOST) {
            Some(domain) if path == POLICY_PATH => match self.policy(domain) {
                Some(text) => Route::Policy(text),
                None => Route::Nothing,
            },
            _ => Route::Nothing,
        }
    }

    /// The text that the id in the domain's `_mta-sts` record was made of, if the domain is to have one.
    fn policy(&self, domain: &str) -> Option<String> {
        let config = self.dns.of(domain);
        (config.mta_sts != zone::MtaStsMode::Off).then(|| zone::mta_sts_policy(&config, self.host))
    }
}

/// The host that a request is for, lower case, without port: the one in the target before the one in the field (RFC 9112 3.2.2).
pub(crate) fn host(parts: &Parts) -> Option<String> {
    let mut fields = parts.headers.get_all(HOST).iter();
    let field = fields.next();
    // RFC 9112 3.2: more than one is malformed.
    if fields.next().is_some() {
        return None;
    }
    let named = match (parts.uri.authority(), field) {
        (Some(authority), _) => authority.clone(),
        (None, field) => field?.to_str().ok()?.parse::<Authority>().ok()?,
    };
    if named.as_str().contains('@') {
        return None;
    }
    let host = named.host().trim_end_matches('.').to_ascii_lowercase();
    let letters = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.');
    ((1..=253).contains(&host.len()) && host.bytes().all(letters)).then_some(host)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use http::Request;

    fn parts(target: &str, hosts: &[&str]) -> Parts {
        let mut request = Request::builder().uri(target);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn route(target: &str, field: &str, secure: bool) -> Route {
        let dns = zone::Config {
            mta_sts: zone::MtaStsMode::Testing,
            autoconfig: "Mail.example".to_owned(),
            domain: [(
                "off.example".to_owned(),
                zone::DomainConfig {
                    mta_sts: Some(zone::MtaStsMode::Off),
                    autoconfig: Some(String::new()),
                    ..zone::DomainConfig::default()
                },
            )]
            .into(),
            ..zone::Config::default()
        };
        let site = Site {
            dns: &dns,
            host: "mail.example",
            is_ours: &|name| name.ends_with("example"),
        };
        let parts = parts(target, &[field]);
        site.route(host(&parts).as_deref(), &parts, secure)
    }

    #[test]
    fn the_host_is_the_targets_or_the_fields() {
        let host = |target: &str, hosts: &[&str]| host(&parts(target, hosts));
        assert_eq!(host("/", &["A.Example:8443"]).as_deref(), Some("a.example"));
        assert_eq!(host("/", &["a.example."]).as_deref(), Some("a.example"));
        assert_eq!(
            host("https://b.example/x", &["a.example"]).as_deref(),
            Some("b.example")
        );
        for bad in ["", "a b", "u@a.example", "[::1]", "a_b", "a.example/x"] {
            assert_eq!(host("/", &[bad]), None, "{bad}");
        }
        assert_eq!(host("/", &[]), None);
        assert_eq!(host("/", &["a.example", "a.example"]), None);
    }

    #[test]
    fn a_policy_is_at_one_address_only() {
        let path = "/.well-known/mta-sts.txt";
        let at = |host: &str, path: &str| route(path, host, true);
        let Route::Policy(text) = at("MTA-STS.one.example", path) else {
            unreachable!("no policy");
        };
        assert_eq!(
            text,
            "version: STSv1\r\nmode: testing\r\nmx: mail.example\r\nmax_age: 604800\r\n"
        );
        assert_eq!(
            at("mta-sts.one.example", "/.well-known/mta-sts.txt/"),
            Route::Nothing
        );
        assert_eq!(at("one.example", path), Route::Nothing);
        assert_eq!(at("mta-sts.off.example", path), Route::Nothing);
        assert_eq!(at("mta-sts.elsewhere.test", path), Route::Stranger);
        assert_eq!(at("", path), Route::Malformed);
        // RFC 8461 3.3: never in the clear.
        let secure = "https://mta-sts.one.example/.well-known/mta-sts.txt?a=b".to_owned();
        assert_eq!(
            route("/.well-known/mta-sts.txt?a=b", "mta-sts.one.example", false),
            Route::Secure(secure)
        );
        assert_eq!(
            route("*", "one.example", false),
            Route::Secure("https://one.example/".to_owned())
        );
        assert_eq!(route("/", "elsewhere.test", false), Route::Stranger);
    }

    #[test]
    fn programs_are_told_where_the_configuration_says_that_we_do() {
        let at = |host: &str, path: &str| route(path, host, true);
        let found = Route::Autoconfig("one.example".to_owned());
        for path in AUTOCONFIG_PATHS {
            assert_eq!(at("autoconfig.one.example", path), found);
            assert_eq!(at("one.example", path), found);
            assert_eq!(at("autoconfig.off.example", path), Route::Nothing);
            assert_eq!(at("autoconfig.elsewhere.test", path), Route::Stranger);
        }
        assert_eq!(
            at("mail.example", "/Autodiscover/Autodiscover.xml"),
            Route::Autodiscover
        );
        assert_eq!(at("one.example", AUTODISCOVER_PATH), Route::Nothing);
    }

    #[test]
    fn lists_are_left_at_our_own_name_by_https() {
        let path = |token: &str| format!("{UNSUBSCRIBE_PATH}{token}");
        let found = Route::Unsubscribe("a2B".to_owned());
        assert_eq!(route(&path("a2B"), "mail.example", true), found);
        assert_eq!(route(&path("a2B"), "one.example", true), Route::Nothing);
        assert!(matches!(
            route(&path("a2B"), "mail.example", false),
            Route::Secure(_)
        ));
        for bad in ["", "a/b", "a.b", "a-b", "%61", &"a".repeat(129)] {
            assert_eq!(
                route(&path(bad), "mail.example", true),
                Route::Nothing,
                "{bad}"
            );
        }
    }

    #[test]
    fn challenges_are_for_every_host() {
        let path = |token: &str| format!("/.well-known/acme-challenge/{token}");
        let token = Route::Challenge("a-_9".to_owned());
        assert_eq!(route(&path("a-_9"), "new.test", false), token);
        assert_eq!(route(&path("a-_9"), "new.example", true), token);
        for bad in ["", "a/b", "a.b", "../x", &"a".repeat(129)] {
            assert_eq!(
                route(&path(bad), "new.example", false),
                Route::Nothing,
                "{bad}"
            );
        }
    }
}
