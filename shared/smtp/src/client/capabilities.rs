//! What a server offers in its answer to EHLO (RFC 5321 4.1.1.1) or LHLO.

use super::Reply;

/// The extensions of a server. `Default` is one that offers none (HELO).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// The name by which the server calls itself.
    pub host: String,
    /// RFC 2920.
    pub pipelining: bool,
    /// RFC 1870: SIZE is offered.
    pub size: bool,
    /// RFC 1870: the largest message in octets; `None` if it did not say (or said 0).
    pub max_size: Option<u64>,
    /// RFC 6152.
    pub eight_bit: bool,
    /// RFC 6531.
    pub smtputf8: bool,
    /// RFC 3030.
    pub chunking: bool,
    /// RFC 3030; counts only together with CHUNKING.
    pub binary: bool,
    /// RFC 3461.
    pub dsn: bool,
    /// RFC 2034.
    pub enhanced_codes: bool,
    /// RFC 3207.
    pub starttls: bool,
    /// RFC 8689.
    pub require_tls: bool,
    /// RFC 4954: the mechanisms, upper case.
    pub auth: Vec<String>,
    /// RFC 9422.
    pub limits: Limits,
    /// RFC 6710.
    pub priority: bool,
    /// RFC 2852: DELIVERBY is offered, and the fewest seconds that it takes for mode R (0 if it did not say).
    pub deliver_by: Option<u32>,
}

/// The server's limits for one connection (RFC 9422); `None` where it did not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Transactions on a connection.
    pub mail_max: Option<u32>,
    /// Recipients of a transaction.
    pub rcpt_max: Option<u32>,
    /// Recipient domains of a transaction.
    pub rcpt_domain_max: Option<u32>,
}

impl Capabilities {
    /// Reads them from the reply to EHLO. Unknown words are skipped, malformed parameters count as absent.
    pub fn from_reply(reply: &Reply) -> Self {
        let mut lines = reply.lines.iter();
        let host = lines
            .next()
            .and_then(|line| line.split_ascii_whitespace().next())
            .unwrap_or_default()
            .to_owned();
        let mut offered = Self {
            host,
            ..Self::default()
        };
        for line in lines {
            offered.keyword(line);
        }
        offered.binary &= offered.chunking;
        offered
    }

    fn keyword(&mut self, line: &str) {
        let mut words = line.split_ascii_whitespace();
        let Some(keyword) = words.next() else { return };
        match keyword.to_ascii_uppercase().as_str() {
            "PIPELINING" => self.pipelining = true,
            "SIZE" => {
                self.size = true;
                self.max_size = words
                    .next()
                    .and_then(|n| n.parse().ok())
                    .filter(|&max| max > 0);
            }
            "8BITMIME" => self.eight_bit = true,
            "SMTPUTF8" => self.smtputf8 = true,
            "CHUNKING" => self.chunking = true,
            "BINARYMIME" => self.binary = true,
            "DSN" => self.dsn = true,
            "ENHANCEDSTATUSCODES" => self.enhanced_codes = true,
            "STARTTLS" => self.starttls = true,
            "REQUIRETLS" => self.require_tls = true,
            "MT-PRIORITY" => self.priority = true,
            "DELIVERBY" => {
                // RFC 2852 3
                self.deliver_by = Some(words.next().and_then(|n| n.parse().ok()).unwrap_or(0));
            }
            "AUTH" => self.mechanisms(words),
            "LIMITS" => self.limits(words),
            other => {
                // The form of servers before RFC 2554: "AUTH=LOGIN PLAIN"
                if let Some(first) = other.strip_prefix("AUTH=") {
                    let first = first.to_owned();
                    self.mechanisms(std::iter::once(first.as_str()).chain(words));
                }
            }
        }
    }

    fn mechanisms<'a>(&mut self, words: impl Iterator<Item = &'a str>) {
        for word in words.take(32).map(str::to_ascii_uppercase) {
            if !self.auth.contains(&word) {
                self.auth.push(word);
            }
        }
    }

    fn limits<'a>(&mut self, words: impl Iterator<Item = &'a str>) {
        for word in words {
            let Some((name, value)) = word.split_once('=') else {
                continue;
            };
            let value = value.parse::<u32>().ok().filter(|&max| max > 0);
            match name.to_ascii_uppercase().as_str() {
                "MAILMAX" => self.limits.mail_max = value,
                "RCPTMAX" => self.limits.rcpt_max = value,
                "RCPTDOMAINMAX" => self.limits.rcpt_domain_max = value,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_offers() {
        let lines = [
            "mx.example.org at your service",
            "pipelining",
            "SIZE 35882577",
            "8BITMIME",
            "STARTTLS",
            "ENHANCEDSTATUSCODES",
            "AUTH=LOGIN",
            "AUTH PLAIN login",
            "BINARYMIME",
            "LIMITS RCPTMAX=50 MAILMAX=0 X",
            "MT-PRIORITY MIXER",
            "DELIVERBY 240",
            "X-UNKNOWN",
            "",
        ];
        let reply = Reply {
            code: 250,
            enhanced: None,
            lines: lines.map(str::to_owned).to_vec(),
        };
        let offered = Capabilities::from_reply(&reply);
        assert_eq!(offered.host, "mx.example.org");
        assert!(offered.pipelining && offered.eight_bit && offered.starttls);
        assert!(offered.size && offered.enhanced_codes);
        assert_eq!(offered.max_size, Some(35_882_577));
        assert_eq!(offered.auth, ["LOGIN", "PLAIN"]);
        assert!(!offered.binary, "BINARYMIME needs CHUNKING");
        assert!(!offered.dsn && !offered.smtputf8 && !offered.require_tls);
        assert_eq!(offered.limits.rcpt_max, Some(50));
        assert_eq!(offered.limits.mail_max, None);
        assert!(offered.priority);
        assert_eq!(offered.deliver_by, Some(240));
    }
}
