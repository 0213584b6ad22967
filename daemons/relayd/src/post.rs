//! Reports on TLS, posted to the `https:` addresses that want them (RFC 8460 3 and 5.4).
//!
//! A stranger's record says where: so only addresses of the public internet are connected to, no redirect is followed, and of
//! the answer nothing is read but its status and, for the log, its beginning.

use crate::attempt::Client;
use crate::https::{Names, Reach, explain, not_public};
use ipc::api::relayd::PostedReport;
use ipnet::IpNet;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{StatusCode, Url};
use runtime::metrics::counter;
use rustls::ClientConfig;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Octets of an address at most.
const URL_MAX: usize = 500;
/// Characters of an answer's body that are told.
const WORDS_MAX: usize = 200;

/// The section `[relayd.post]`: how reports on TLS are posted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Posting {
    /// Seconds from connecting to the answer: 1 to 60. 30.
    pub timeout: u64,
    /// Whether the server's certificate must be valid; RFC 8460 3 leaves that open. true.
    pub verify: bool,
    /// Networks to which reports are posted besides the public internet: loopback, private and link-local addresses are refused
    /// otherwise, as strangers say where reports go. None.
    pub networks: Vec<IpNet>,
}

impl Default for Posting {
    fn default() -> Self {
        Self {
            timeout: 30,
            verify: true,
            networks: Vec::new(),
        }
    }
}

impl Posting {
    /// # Errors
    /// A time that makes no sense: a report is given again after two minutes.
    pub(crate) fn validate(&self) -> Result<(), String> {
        match self.timeout {
            1..=60 => Ok(()),
            other => Err(format!("relayd.post.timeout: {other} is not from 1 to 60")),
        }
    }
}

/// An address that can be posted to, as it is written everywhere else; `None` if it is none.
pub(crate) fn address(text: &str) -> Option<String> {
    let mut url = Url::parse(text).ok()?;
    url.set_fragment(None);
    let fine = url.scheme() == "https"
        && url.has_host()
        && url.username().is_empty()
        && url.password().is_none()
        && url.as_str().len() <= URL_MAX;
    fine.then(|| url.into())
}

/// Posts reports.
pub(crate) struct Poster {
    client: reqwest::Client,
    reach: Reach,
}

impl Poster {
    /// # Errors
    /// What the client cannot be made of.
    fn new(tls: ClientConfig, client: &Client) -> Result<Self, String> {
        let config = &client.config.post;
        let reach = Reach::Public(Arc::new(config.networks.clone()));
        let limit = Duration::from_secs(config.timeout);
        let names = Names::new(client.dns.plain().clone(), reach.clone());
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .dns_resolver(Arc::new(names))
            .https_only(true)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .referer(false)
            .http1_only()
            .user_agent("Posthouse")
            .pool_max_idle_per_host(0)
            .timeout(limit)
            .connect_timeout(limit)
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self { client, reach })
    }

    async fn post(&self, url: &str, report: Vec<u8>) -> PostedReport {
        let Some(url) = address(url).and_then(|url| Url::parse(&url).ok()) else {
            return PostedReport::Refused("it is no https: address".to_owned());
        };
        // The resolver is not asked for those.
        let host = url.host_str().unwrap_or_default();
        let literal = host.trim_matches(['[', ']']).parse::<IpAddr>();
        if let Some(address) = literal.ok().filter(|host| !self.reach.covers(*host)) {
            return PostedReport::Refused(not_public(address));
        }
        let request = self
            .client
            .post(url)
            // RFC 8460 5.4
            .header(
                CONTENT_TYPE,
                HeaderValue::from_static("application/tlsrpt+gzip"),
            )
            .body(report);
        let mut answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) => return PostedReport::Again(explain(&error).0),
        };
        let (status, from) = (answer.status(), answer.remote_addr());
        let from = from.map_or_else(String::new, |from| format!(" from {}", from.ip()));
        let told = format!("{status}{from}");
        if status.is_success() {
            return PostedReport::Accepted(told);
        }
        let words = match answer.chunk().await {
            Ok(Some(octets)) => words(&octets),
            _ => String::new(),
        };
        let told = match words.as_str() {
            "" => told,
            words => format!("{told}: {words}"),
        };
        match is_final(status) {
            true => PostedReport::Refused(told),
            false => PostedReport::Again(told),
        }
    }
}

/// RFC 8460 5.4: what may be tried again is for us to say. Not what blames the request, but for those that ask for another time.
fn is_final(status: StatusCode) -> bool {
    status.is_client_error()
        && !matches!(
            status,
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS
        )
}

/// The beginning of an answer, in one line.
fn words(octets: &[u8]) -> String {
    let beginning = octets.get(..4 * WORDS_MAX).unwrap_or(octets);
    let text = String::from_utf8_lossy(beginning).replace(char::is_control, " ");
    text.split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .chars()
        .take(WORDS_MAX)
        .collect()
}

impl Client {
    /// Posts a report once.
    pub(crate) async fn post(&self, url: &str, report: Vec<u8>) -> PostedReport {
        let make = || async {
            let tls = match self.config.post.verify {
                true => self.tls.https().await.map_err(|error| error.to_string())?,
                false => self.tls.unverified(),
            };
            Poster::new(tls, self)
        };
        let posted = match self.poster.get_or_try_init(make).await {
            Ok(poster) => poster.post(url, report).await,
            Err(error) => PostedReport::Again(error),
        };
        let result = match posted {
            PostedReport::Accepted(_) => "accepted",
            PostedReport::Again(_) => "again",
            PostedReport::Refused(_) => "refused",
        };
        let name = format!("relayd_reports_posted_total{{result=\"{result}\"}}");
        counter(&name, "Attempts to post a report on TLS.").add_one();
        posted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_to_post_to() {
        let long = format!("https://x.example/{}", "a".repeat(URL_MAX));
        for (text, expected) in [
            (
                "https://x.example/v1?a=%2C",
                Some("https://x.example/v1?a=%2C"),
            ),
            (
                "HTTPS://X.Example:8443#there",
                Some("https://x.example:8443/"),
            ),
            ("https://[2001:db8::1]/", Some("https://[2001:db8::1]/")),
            // Other ways of writing an address are that address.
            ("https://0x7f.1/", Some("https://127.0.0.1/")),
            ("http://x.example/", None),
            ("https://user@x.example/", None),
            ("https://:secret@x.example/", None),
            ("https:///", None),
            ("mailto:a@x.example", None),
            (long.as_str(), None),
        ] {
            assert_eq!(address(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn which_answers_are_final() {
        for (code, expected) in [
            (301, false),
            (308, false),
            (400, true),
            (404, true),
            (408, false),
            (410, true),
            (429, false),
            (500, false),
            (503, false),
        ] {
            assert_eq!(
                StatusCode::from_u16(code).map(is_final).ok(),
                Some(expected),
                "{code}"
            );
        }
    }

    #[test]
    fn what_a_server_says_is_one_short_line() {
        assert_eq!(words(b"no\r\n\x1b[31mway  \0out"), "no [31mway out");
        assert_eq!(words(&[b'x'; 5000]).len(), WORDS_MAX);
    }
}
