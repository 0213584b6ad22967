//! When two policies mean the same, and when one is the operator's own choice rather than a fault.

use crate::config::Config;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// How a published policy compares with the one that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Likeness {
    /// It says the same.
    Same,
    /// It differs in what is the operator's choice; in what.
    Choice(String),
    /// It does not do what is wanted; why.
    Fault(String),
}

use Likeness::{Choice, Fault, Same};

/// SPF (RFC 7208).
pub(crate) fn spf(wanted: &str, published: &str, config: &Config, host: &str) -> Likeness {
    let (wanted, published) = (terms(wanted), terms(published));
    if wanted == published {
        return Same;
    }
    let (ours, theirs) = (all(&wanted), all(&published));
    let redirected = published.iter().any(|term| term.starts_with("redirect="));
    if theirs < ours && !(redirected && theirs == NEUTRAL) {
        return Fault(format!(
            "it ends with `{}`, which is weaker than what is wanted",
            ["+all", "?all", "~all", "-all"][usize::from(theirs)]
        ));
    }
    let missing: Vec<&String> = wanted
        .iter()
        .filter(|term| !is_all(term) && !term.contains('=') && !published.contains(term))
        .collect();
    if missing.is_empty() {
        return Choice("it lists further senders, or is stricter".to_owned());
    }
    let named = published
        .iter()
        .any(|term| *term == "a" || *term == format!("a:{host}") || *term == "mx");
    if named || covers(&published, &config.addresses) {
        return Choice("it names the host in another way".to_owned());
    }
    let elsewhere = |term: &&String| term.starts_with("include:") || term.starts_with("redirect=");
    if let Some(other) = published.iter().find(elsewhere) {
        return Choice(format!("`{other}` must name {host}: that is not looked at"));
    }
    let missing: Vec<&str> = missing.iter().map(|term| term.as_str()).collect();
    Fault(format!("it has no `{}`", missing.join(" ")))
}

const NEUTRAL: u8 = 1;

/// The terms behind the version, in a form that can be compared.
fn terms(text: &str) -> Vec<String> {
    text.split_ascii_whitespace()
        .skip(1)
        .map(|term| term.to_ascii_lowercase())
        .map(|term| term.strip_prefix('+').map(str::to_owned).unwrap_or(term))
        .collect()
}

fn is_all(term: &str) -> bool {
    term.trim_start_matches(['-', '~', '?']) == "all"
}

/// How strict the end is: `+all` 0, `?all` or nothing 1, `~all` 2, `-all` 3.
fn all(terms: &[String]) -> u8 {
    match terms.iter().find(|term| is_all(term)).map(String::as_str) {
        Some("-all") => 3,
        Some("~all") => 2,
        Some("all") => 0,
        _ => NEUTRAL,
    }
}

/// Whether `ip4:` and `ip6:` terms cover all addresses; false without any.
fn covers(terms: &[String], addresses: &[IpAddr]) -> bool {
    let covered = |address: &IpAddr| {
        terms.iter().any(|term| {
            let network = term
                .strip_prefix("ip4:")
                .or_else(|| term.strip_prefix("ip6:"));
            network.is_some_and(|network| contains(network, *address))
        })
    };
    !addresses.is_empty() && addresses.iter().all(covered)
}

fn contains(network: &str, address: IpAddr) -> bool {
    let (base, length) = network.split_once('/').unwrap_or((network, "128"));
    let Ok(length) = length.parse::<u32>() else {
        return false;
    };
    match (base.parse(), address) {
        (Ok(IpAddr::V4(base)), IpAddr::V4(address)) => {
            let shift = 32 - length.min(32);
            let cut = |bits: u32| bits.checked_shr(shift).unwrap_or(0);
            cut(base.to_bits()) == cut(address.to_bits())
        }
        (Ok(IpAddr::V6(base)), IpAddr::V6(address)) => {
            let shift = 128 - length.min(128);
            let cut = |bits: u128| bits.checked_shr(shift).unwrap_or(0);
            cut(base.to_bits()) == cut(address.to_bits())
        }
        _ => false,
    }
}

/// `tag=value` pairs (RFC 6376 3.2, RFC 7489 6.4). Names in lower case, white space around values gone.
pub(crate) fn tags(text: &str) -> BTreeMap<String, String> {
    text.split(';')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned()))
        .collect()
}

/// DMARC (RFC 7489 6.3).
pub(crate) fn dmarc(wanted: &str, published: &str) -> Likeness {
    let (wanted, published) = (tags(wanted), tags(published));
    if wanted == published {
        return Same;
    }
    let strictness = |tags: &BTreeMap<String, String>, tag: &str| {
        let value = tags.get(tag).or_else(|| tags.get("p"))?;
        ["none", "quarantine", "reject"]
            .iter()
            .position(|known| value.eq_ignore_ascii_case(known))
    };
    for tag in ["p", "sp"] {
        let Some(theirs) = strictness(&published, tag) else {
            return Fault(format!("its `{tag}` is not none, quarantine or reject"));
        };
        if strictness(&wanted, tag).is_some_and(|ours| theirs < ours) {
            return Fault(format!("its `{tag}` is weaker than what is wanted"));
        }
    }
    Choice(differing(&wanted, &published))
}

/// TLS-RPT (RFC 8460 3).
pub(crate) fn tls_rpt(wanted: &str, published: &str) -> Likeness {
    let (wanted, published) = (tags(wanted), tags(published));
    if wanted == published {
        Same
    } else if published.get("rua").is_none_or(String::is_empty) {
        Fault("it has no `rua`".to_owned())
    } else {
        Choice(differing(&wanted, &published))
    }
}

/// MTA-STS (RFC 8461 3.1).
pub(crate) fn mta_sts(wanted: &str, published: &str) -> Likeness {
    if tags(wanted) == tags(published) {
        Same
    } else {
        Fault("its id is not that of the policy: others go on with the one they know".to_owned())
    }
}

/// A DKIM key (RFC 6376 3.6.1).
pub(crate) fn dkim(wanted: &str, published: &str) -> Likeness {
    let (wanted, published) = (tags(wanted), tags(published));
    let key = |tags: &BTreeMap<String, String>| {
        let text = tags.get("p").map(String::as_str).unwrap_or_default();
        text.split_whitespace().collect::<String>()
    };
    let kind = |tags: &BTreeMap<String, String>| {
        tags.get("k")
            .map_or("rsa", String::as_str)
            .to_ascii_lowercase()
    };
    if key(&published).is_empty() {
        return Fault("its `p` is empty: the key is revoked".to_owned());
    }
    if key(&wanted) != key(&published) || kind(&wanted) != kind(&published) {
        return Fault("it holds another key".to_owned());
    }
    let hashes = published.get("h").is_none_or(|list| {
        list.split(':')
            .any(|hash| hash.trim().eq_ignore_ascii_case("sha256"))
    });
    if !hashes {
        return Fault("its `h` does not allow sha256".to_owned());
    }
    let email = published.get("s").is_none_or(|list| {
        list.split(':')
            .any(|service| ["*", "email"].contains(&service.trim()))
    });
    if !email {
        return Fault("its `s` does not allow email".to_owned());
    }
    match published.get("t") {
        Some(flags) if flags.split(':').any(|flag| flag.trim() == "y") => {
            Choice("it says that DKIM is only tested (`t=y`): others may ignore it".to_owned())
        }
        _ => Same,
    }
}

fn differing(wanted: &BTreeMap<String, String>, published: &BTreeMap<String, String>) -> String {
    let mut names: Vec<&str> = wanted
        .keys()
        .chain(published.keys())
        .filter(|name| wanted.get(*name) != published.get(*name))
        .map(String::as_str)
        .collect();
    names.sort_unstable();
    names.dedup();
    format!("it differs in `{}`", names.join("`, `"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(likeness: &Likeness) -> bool {
        matches!(likeness, Fault(_))
    }

    fn choice(likeness: &Likeness) -> bool {
        matches!(likeness, Choice(_))
    }

    #[test]
    fn spf_is_compared_by_what_it_means() {
        let mut config = Config::default();
        let mut with = |published: &str| {
            config.addresses = vec!["192.0.2.9".parse().unwrap_or(IpAddr::from([0; 4]))];
            spf("v=spf1 mx -all", published, &config, "mail.example.org")
        };
        assert_eq!(with("v=spf1  +MX -ALL"), Same);
        for text in [
            "v=spf1 mx include:other.example -all",
            "v=spf1 a:mail.example.org -all",
            "v=spf1 ip4:192.0.2.0/28 -all",
            "v=spf1 include:other.example -all",
            "v=spf1 redirect=other.example",
        ] {
            assert!(choice(&with(text)), "{text}");
        }
        for text in [
            "v=spf1 mx ~all",
            "v=spf1 mx",
            "v=spf1 mx +all",
            "v=spf1 -all",
            "v=spf1 ip4:192.0.2.16/28 -all",
            "v=spf1 ip4:192.0.2.9/x -all",
        ] {
            assert!(fault(&with(text)), "{text}");
        }
    }

    #[test]
    fn a_stricter_dmarc_is_a_choice() {
        let wanted = "v=DMARC1; p=quarantine; rua=mailto:a@example.org";
        assert_eq!(
            dmarc(wanted, "v=DMARC1;p=quarantine;rua=mailto:a@example.org;"),
            Same
        );
        assert!(choice(&dmarc(
            wanted,
            "v=DMARC1; p=reject; rua=mailto:a@example.org"
        )));
        assert!(choice(&dmarc(wanted, "v=DMARC1; p=quarantine")));
        assert!(fault(&dmarc(
            wanted,
            "v=DMARC1; p=none; rua=mailto:a@example.org"
        )));
        assert!(fault(&dmarc(wanted, "v=DMARC1; p=reject; sp=none")));
        assert!(fault(&dmarc(wanted, "v=DMARC1; p=maybe")));
        assert!(fault(&dmarc(wanted, "v=DMARC1")));
    }

    #[test]
    fn keys_and_reports() {
        let wanted = "v=DKIM1; k=rsa; h=sha256; p=AAAA";
        assert_eq!(dkim(wanted, "k=rsa; p=AA AA"), Same);
        assert!(choice(&dkim(wanted, "v=DKIM1; t=s:y; p=AAAA")));
        for text in [
            "p=",
            "p=AAAB",
            "k=ed25519; p=AAAA",
            "h=sha1; p=AAAA",
            "s=tlsrpt; p=AAAA",
        ] {
            assert!(fault(&dkim(wanted, text)), "{text}");
        }
        let wanted = "v=TLSRPTv1; rua=mailto:a@example.org";
        assert!(choice(&tls_rpt(
            wanted,
            "v=TLSRPTv1; rua=https://r.example/x"
        )));
        assert!(fault(&tls_rpt(wanted, "v=TLSRPTv1;")));
        assert!(fault(&mta_sts("v=STSv1; id=1", "v=STSv1; id=2;")));
        assert_eq!(mta_sts("v=STSv1; id=1", "v=STSv1;id=1;"), Same);
    }
}
