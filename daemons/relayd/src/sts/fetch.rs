//! The policy's file, over HTTPS (RFC 8461 3.3).

use super::policy::{Policy, SIZE_MAX};
use crate::https::{Names, Reach, explain};
use crate::result::{Problem, ResultType};
use hickory_resolver::TokioResolver;
use reqwest::header::CONTENT_TYPE;
use rustls::ClientConfig;
use std::sync::Arc;
use std::time::Duration;

/// Gets policies.
pub(crate) struct Fetcher {
    client: reqwest::Client,
    port: u16,
}

impl Fetcher {
    /// `tls` verifies certificates by name; `resolver` finds the hosts.
    ///
    /// # Errors
    /// What the client cannot be made of.
    pub(crate) fn new(
        tls: ClientConfig,
        resolver: TokioResolver,
        port: u16,
        limit: Duration,
    ) -> Result<Self, String> {
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .dns_resolver(Arc::new(Names::new(resolver, Reach::All)))
            .https_only(true)
            // RFC 8461 3.3: redirects are not followed.
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .referer(false)
            .http1_only()
            // Each domain has one file, asked for once a day.
            .pool_max_idle_per_host(0)
            .timeout(limit)
            .connect_timeout(limit)
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self { client, port })
    }

    /// The policy of a domain.
    ///
    /// # Errors
    /// Why there is none to be had.
    pub(crate) async fn fetch(&self, domain: &str) -> Result<Policy, Problem> {
        let at = if self.port == 443 {
            String::new()
        } else {
            format!(":{}", self.port)
        };
        let url = format!("https://mta-sts.{domain}{at}/.well-known/mta-sts.txt");
        let unfetched =
            |text: String| Problem::new(ResultType::StsPolicyFetchError, format!("{url}: {text}"));
        let mut answer = self
            .client
            .get(&url)
            .send()
            .await
            .map_err(|error| explained(&url, &error))?;
        // RFC 8461 3.3: anything but 200 is a failure.
        if answer.status() != reqwest::StatusCode::OK {
            return Err(unfetched(format!("the answer is {}", answer.status())));
        }
        let kind = answer.headers().get(CONTENT_TYPE);
        let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let media = kind.split(';').next().unwrap_or_default().trim();
        // RFC 8461 3.2
        if !media.eq_ignore_ascii_case("text/plain") {
            return Err(unfetched("it is not text/plain".to_owned()));
        }
        let mut octets = Vec::new();
        while let Some(chunk) = answer
            .chunk()
            .await
            .map_err(|error| explained(&url, &error))?
        {
            octets.extend_from_slice(&chunk);
            if octets.len() > SIZE_MAX {
                return Err(unfetched(format!("it has more than {SIZE_MAX} octets")));
            }
        }
        Policy::parse(&octets)
            .map_err(|why| Problem::new(ResultType::StsPolicyInvalid, format!("{url}: {why}")))
    }
}

fn explained(url: &str, error: &reqwest::Error) -> Problem {
    let (text, certificate) = explain(error);
    let kind = match certificate {
        true => ResultType::StsWebpkiInvalid,
        false => ResultType::StsPolicyFetchError,
    };
    Problem::new(kind, format!("{url}: {text}"))
}
