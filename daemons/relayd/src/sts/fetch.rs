//! The policy's file, over HTTPS (RFC 8461 3.3).

use super::policy::{Policy, SIZE_MAX};
use crate::result::{Problem, ResultType};
use hickory_resolver::TokioResolver;
use hickory_resolver::proto::rr::{RData, RecordType};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::CONTENT_TYPE;
use rustls::ClientConfig;
use std::error::Error;
use std::net::{IpAddr, SocketAddr};
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
            .dns_resolver(Arc::new(Names(resolver)))
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
            .map_err(|error| explain(&url, &error))?;
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
            .map_err(|error| explain(&url, &error))?
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

/// Of the errors that wrap each other, the innermost says what was wrong.
fn explain(url: &str, error: &reqwest::Error) -> Problem {
    let mut kind = ResultType::StsPolicyFetchError;
    let mut text = error.to_string();
    let mut inner: Option<&(dyn Error + 'static)> = error.source();
    while let Some(cause) = inner {
        text = cause.to_string();
        if let Some(rustls::Error::InvalidCertificate(_)) = of_tls(cause) {
            kind = ResultType::StsWebpkiInvalid;
        }
        inner = cause.source();
    }
    if error.is_timeout() {
        "no answer in time".clone_into(&mut text);
    }
    Problem::new(kind, format!("{url}: {text}"))
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

/// The hosts of policies, found as all other hosts are.
struct Names(TokioResolver);

impl Resolve for Names {
    fn resolve(&self, name: Name) -> Resolving {
        let resolver = self.0.clone();
        Box::pin(async move {
            let mut found: Vec<SocketAddr> = Vec::new();
            let mut failed = None;
            for kind in [RecordType::A, RecordType::AAAA] {
                match resolver.lookup(dns::fqdn(name.as_str()), kind).await {
                    Ok(answer) => found.extend(answer.answers().iter().filter_map(|record| {
                        let address = match &record.data {
                            RData::A(a) => IpAddr::V4(a.0),
                            RData::AAAA(a) => IpAddr::V6(a.0),
                            _ => return None,
                        };
                        Some(SocketAddr::new(address, 0))
                    })),
                    Err(error) => failed = Some(error),
                }
            }
            match failed {
                Some(error) if found.is_empty() => Err(error.into()),
                _ => Ok(Box::new(found.into_iter()) as Addrs),
            }
        })
    }
}
