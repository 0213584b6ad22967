//! From a request to its answer, its line in the log and its count.

use crate::answer::{Answer, Body};
use crate::autoconfig;
use crate::config::Config;
use crate::seats::Seats;
use crate::site::{Route, Site, UNSUBSCRIBE_PATH, host};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use ipc::Client;
use ipc::api::certd::HttpChallenge;
use runtime::metrics::{Counter, Histogram, counter, histogram};
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tls::Certificates;
use types::TraceId;

/// What mail programs are told.
const XML: &str = "application/xml; charset=utf-8";
/// Octets of a path or a host in the log.
const SHOWN: usize = 200;

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller {
    /// Of the connection.
    pub(crate) trace: TraceId,
    /// `None` on a local socket.
    pub(crate) address: Option<IpAddr>,
    /// By HTTPS.
    pub(crate) secure: bool,
}

/// What the configuration says; another one after HUP.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) config: Config,
    pub(crate) dns: zone::Config,
    /// What our listeners offer.
    pub(crate) services: Vec<zone::Service>,
}

/// What all connections share.
pub(crate) struct Front {
    pub(crate) settings: RwLock<Arc<Settings>>,
    /// `suite.hostname`.
    pub(crate) host: String,
    pub(crate) certificates: Certificates,
    /// Knows who is a member of what.
    pub(crate) authd: Client,
    /// If it runs.
    pub(crate) certd: Option<Client>,
    pub(crate) seats: Seats,
    pub(crate) figures: Figures,
}

/// Counts.
pub(crate) struct Figures {
    pub(crate) refused: Counter,
    pub(crate) handshakes: Counter,
    took: Histogram,
}

impl Figures {
    pub(crate) fn new() -> Self {
        Self {
            refused: counter(
                "httpd_connections_refused_total",
                "Connections that were closed because there were too many.",
            ),
            handshakes: counter(
                "httpd_handshakes_failed_total",
                "TLS handshakes that did not come to an end.",
            ),
            took: histogram("httpd_request_seconds", "Time to answer a request."),
        }
    }

    fn request(&self, route: &Route, status: StatusCode, took: Duration) {
        let (route, class) = (route.word(), status.as_u16() / 100);
        let name = format!("httpd_requests_total{{route=\"{route}\",status=\"{class}xx\"}}");
        counter(&name, "Requests that were answered.").add_one();
        self.took.observe(took);
    }
}

impl Front {
    pub(crate) fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The answer to a request; it comes in time or is 503.
    pub(crate) async fn answer(
        &self,
        settings: &Settings,
        caller: Caller,
        request: Request<Incoming>,
    ) -> Response<Body> {
        let began = Instant::now();
        let (parts, body) = request.into_parts();
        let host = host(&parts);
        let route = self.route(settings, host.as_deref(), &parts, caller.secure);
        let limit = Duration::from_secs(settings.config.request_s);
        let found = async {
            match &route {
                Route::Autodiscover if parts.method == Method::POST => {
                    self.discovered(settings, body).await
                }
                Route::Unsubscribe(token) => self.unsubscribed(caller, &parts, token, body).await,
                _ => {
                    // Nobody wants it. But a reset behind an answer in HTTP/2, which an unread body
                    // gets, is a failure to some clients: so a small one is taken off the wire.
                    let _ = Limited::new(body, autoconfig::QUESTION_MAX).collect().await;
                    let asked = (host.as_deref(), &parts.method);
                    self.found(settings, caller, asked, &route).await
                }
            }
        };
        let answer = tokio::time::timeout(limit, found).await;
        let answer = answer.unwrap_or_else(|_| Answer::status(StatusCode::SERVICE_UNAVAILABLE));
        let (status, took) = (answer.status, began.elapsed());
        self.figures.request(&route, status, took);
        if settings.config.access_log {
            log(caller, host.as_deref(), &parts, status, took);
        }
        let hsts = Some(settings.config.hsts_s).filter(|seconds| caller.secure && *seconds > 0);
        answer.dressed(&parts.method, hsts)
    }

    fn route(&self, settings: &Settings, host: Option<&str>, parts: &Parts, secure: bool) -> Route {
        let site = Site {
            dns: &settings.dns,
            host: &self.host,
            is_ours: &|name| self.certificates.has(name),
        };
        site.route(host, parts, secure)
    }

    /// POX autodiscover.
    async fn discovered(&self, settings: &Settings, body: Incoming) -> Answer {
        let question = Limited::new(body, autoconfig::QUESTION_MAX).collect();
        let Ok(question) = question.await else {
            return Answer::status(StatusCode::PAYLOAD_TOO_LARGE);
        };
        let Some(address) = autoconfig::address_in(&question.to_bytes()) else {
            return Answer::status(StatusCode::BAD_REQUEST);
        };
        if !settings
            .dns
            .of(address.domain())
            .serves_autoconfig(&self.host)
        {
            return Answer::status(StatusCode::NOT_FOUND);
        }
        let text = autoconfig::outlook(&address, &self.host, &settings.services);
        Answer::text(XML, text)
    }

    async fn found(
        &self,
        settings: &Settings,
        caller: Caller,
        (host, method): (Option<&str>, &Method),
        route: &Route,
    ) -> Answer {
        match route {
            Route::Autodiscover => return Answer::post_only(),
            Route::Unsubscribe(_) => return Answer::read_or_post(),
            Route::Malformed => return Answer::status(StatusCode::BAD_REQUEST),
            // RFC 9110 15.5.20
            Route::Stranger => return Answer::status(StatusCode::MISDIRECTED_REQUEST),
            Route::Nothing => return Answer::status(StatusCode::NOT_FOUND),
            _ if !matches!(*method, Method::GET | Method::HEAD) => {
                return Answer::status(StatusCode::METHOD_NOT_ALLOWED);
            }
            Route::Secure(address) => return Answer::elsewhere(address.clone()),
            // RFC 8461 3.2
            Route::Policy(text) => {
                return Answer::text("text/plain; charset=utf-8", text.clone());
            }
            Route::Autoconfig(domain) => {
                let text = autoconfig::thunderbird(domain, &self.host, &settings.services);
                return Answer::text(XML, text);
            }
            Route::Challenge(_) => {}
        }
        let (Some(certd), Some(host), Route::Challenge(token)) = (&self.certd, host, route) else {
            return Answer::status(StatusCode::NOT_FOUND);
        };
        let question = HttpChallenge {
            host: host.to_owned(),
            token: token.clone(),
        };
        match certd.call(caller.trace, &question).await {
            // RFC 8555 8.3
            Ok(Some(text)) => Answer::text("application/octet-stream", text),
            Ok(None) => Answer::status(StatusCode::NOT_FOUND),
            Err(error) => {
                tracing::warn!(trace = %caller.trace, %error, "certd does not answer for a challenge");
                Answer::status(StatusCode::SERVICE_UNAVAILABLE)
            }
        }
    }
}

fn log(caller: Caller, host: Option<&str>, parts: &Parts, status: StatusCode, took: Duration) {
    let version = match parts.version {
        Version::HTTP_2 => "2",
        Version::HTTP_11 => "1.1",
        _ => "1.0",
    };
    // A query may hold an address, and is nothing to us.
    let path: String = match parts.uri.path() {
        // Who has the rest of it can end a membership.
        path if path.starts_with(UNSUBSCRIBE_PATH) => format!("{UNSUBSCRIBE_PATH}..."),
        path => path.chars().take(SHOWN).collect(),
    };
    let method: String = parts.method.as_str().chars().take(SHOWN).collect();
    tracing::info!(
        trace = %caller.trace,
        client = %caller.address.map_or_else(|| "local".to_owned(), |address| address.to_string()),
        host = host.unwrap_or("-"),
        method,
        path,
        version,
        tls = caller.secure,
        status = status.as_u16(),
        ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        "request"
    );
}
