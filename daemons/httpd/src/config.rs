//! The section `[httpd]`.

use runtime::Failure;
use serde::{Deserialize, Serialize};

/// The section `[httpd]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether it runs at all.
    pub enabled: bool,
    /// Where HTTPS is served. Others ask port 443.
    pub https_address: String,
    /// Where challenges of an authority are answered, and everybody else is sent to HTTPS. The authority asks port 80. Empty: not
    /// opened.
    pub http_address: String,
    /// Connections at one time; more are closed. 1 to 100,000.
    pub connections: usize,
    /// Connections of one address, or of one IPv6 network of 64 bits; 0 is no limit.
    pub connections_per_address: usize,
    /// Seconds for the TLS handshake.
    pub handshake_s: u64,
    /// Seconds for the header of a request.
    pub header_s: u64,
    /// Seconds for a request and its answer.
    pub request_s: u64,
    /// Seconds that a connection may be without a request.
    pub idle_s: u64,
    /// Seconds that a connection may last in all.
    pub connection_s: u64,
    /// Requests over one connection; the client then makes another.
    pub requests: u32,
    /// Octets of a request's header, 8,192 to 1,048,576.
    pub header_octets: u32,
    /// Requests that one HTTP/2 connection may have under way.
    pub streams: u32,
    /// Requests that an HTTP/2 client may take back before they are answered; with more it is sent away.
    pub resets: usize,
    /// Seconds for which browsers are told to ask for these hosts by HTTPS only (RFC 6797); 0: they are not told.
    pub hsts_s: u32,
    /// Whether each request is a line in the log.
    pub access_log: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: false,
            https_address: "[::]:443".to_owned(),
            http_address: "[::]:80".to_owned(),
            connections: 1000,
            connections_per_address: 50,
            handshake_s: 10,
            header_s: 10,
            request_s: 30,
            idle_s: 30,
            connection_s: 300,
            requests: 100,
            header_octets: 16_384,
            streams: 32,
            resets: 16,
            hsts_s: 31_536_000,
            access_log: true,
        }
    }
}

impl Config {
    /// # Errors
    /// The setting that makes no sense.
    pub(crate) fn sound(&self) -> Result<(), Failure> {
        let wrong = |text: &str| Err(Failure::new(format!("httpd.{text}")));
        if self.https_address.is_empty() {
            return wrong("https_address is empty: without HTTPS there is nothing to serve");
        }
        if !(1..=100_000).contains(&self.connections) {
            return wrong("connections is 1 to 100,000");
        }
        if !(8192..=1_048_576).contains(&self.header_octets) {
            return wrong("header_octets is 8,192 to 1,048,576");
        }
        for (name, value) in [
            ("handshake_s", self.handshake_s),
            ("header_s", self.header_s),
            ("request_s", self.request_s),
            ("idle_s", self.idle_s),
            ("connection_s", self.connection_s),
        ] {
            if !(1..=86_400).contains(&value) {
                return wrong(&format!("{name} is 1 to 86,400"));
            }
        }
        if self.requests == 0 || self.streams == 0 || self.resets == 0 {
            return wrong("requests, streams and resets are at least 1");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_makes_no_sense_is_named() {
        Config::default().sound().unwrap();
        for (change, word) in [
            (
                &(|c: &mut Config| c.https_address.clear()) as &dyn Fn(&mut Config),
                "https_address",
            ),
            (&|c| c.connections = 0, "connections"),
            (&|c| c.header_octets = 100, "header_octets"),
            (&|c| c.idle_s = 0, "idle_s"),
            (&|c| c.streams = 0, "streams"),
        ] {
            let mut config = Config::default();
            change(&mut config);
            let error = config.sound().unwrap_err().to_string();
            assert!(error.contains(word), "{error} has no {word}");
        }
    }
}
