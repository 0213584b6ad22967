//! The MTA-STS policy of a domain (RFC 8461 3.2) and its id.

use crate::config::Config;
use sha2::{Digest as _, Sha256};

/// The policy as it is served at `https://mta-sts.DOMAIN/.well-known/mta-sts.txt`. `config` is what holds for the domain
/// ([`Config::of`]); `host` is `suite.hostname`.
#[must_use]
pub fn policy(config: &Config, host: &str) -> String {
    let mut text = format!("version: STSv1\r\nmode: {}\r\n", config.mta_sts.word());
    for (_, exchanger) in config.exchangers(host) {
        text.push_str("mx: ");
        text.push_str(&exchanger);
        text.push_str("\r\n");
    }
    text.push_str(&format!("max_age: {}\r\n", config.mta_sts_max_age));
    text
}

/// The id in the record (RFC 8461 3.1): another policy, another id.
#[must_use]
pub fn policy_id(policy: &str) -> String {
    let digest = Sha256::digest(policy.as_bytes());
    digest
        .iter()
        .take(10)
        .map(|octet| format!("{octet:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MtaStsMode;

    #[test]
    fn the_id_follows_the_policy() {
        let mut config = Config {
            mta_sts: MtaStsMode::Testing,
            ..Config::default()
        };
        let first = policy(&config, "Mail.example.org");
        assert_eq!(
            first,
            "version: STSv1\r\nmode: testing\r\nmx: mail.example.org\r\nmax_age: 604800\r\n"
        );
        config.mta_sts = MtaStsMode::Enforce;
        let second = policy(&config, "mail.example.org");
        assert_ne!(policy_id(&first), policy_id(&second));
        let id = policy_id(&first);
        assert!(id.len() <= 32 && id.bytes().all(|b| b.is_ascii_alphanumeric()));
    }
}
