//! The names that lists are asked by, and what their answers mean (RFC 5782).

use std::net::{IpAddr, Ipv4Addr};
use types::Network;

/// Which answers count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answers(Vec<(Network, u8)>);

/// What an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// On the list.
    Listed,
    /// Something that does not count here.
    Other,
    /// No answer of a list: the provider refuses to answer, or the zone is nobody's.
    Broken,
}

impl Answers {
    /// # Errors
    /// What is no answer.
    pub(crate) fn new(texts: &[String]) -> Result<Self, String> {
        let read = |text: &String| {
            let fault = || {
                format!(
                    "{text:?} is no answer of a list: 127.0.0.2, 127.0.0.0/24 or 127.0.0.0/24&6"
                )
            };
            let (network, mask) = match text.split_once('&') {
                Some((network, mask)) => (network, mask.parse().map_err(|_| fault())?),
                None => (text.as_str(), 0),
            };
            let network: Network = network.parse().map_err(|_| fault())?;
            Ok((network, mask))
        };
        texts
            .iter()
            .map(read)
            .collect::<Result<_, String>>()
            .map(Self)
    }

    /// What the answer means.
    pub(crate) fn meaning(&self, answer: Ipv4Addr) -> Meaning {
        // RFC 5782 2.1: answers are in 127.0.0.0/8. Providers say in 127.255.255.0/24 that they do not answer us.
        match answer.octets() {
            [127, 255, 255, _] => return Meaning::Broken,
            [127, ..] => {}
            _ => return Meaning::Broken,
        }
        let [.., last] = answer.octets();
        let counts = self.0.is_empty()
            || self.0.iter().any(|(network, mask)| {
                network.contains(IpAddr::V4(answer)) && (*mask == 0 || last & mask != 0)
            });
        if counts {
            Meaning::Listed
        } else {
            Meaning::Other
        }
    }
}

/// The name of an address below a zone (RFC 5782 2.1, 2.4).
pub(crate) fn name_of_address(address: IpAddr, zone: &str) -> String {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            format!("{d}.{c}.{b}.{a}.{zone}.")
        }
        IpAddr::V6(v6) => {
            let mut name = String::with_capacity(64 + zone.len() + 1);
            for digit in format!("{:032x}", v6.to_bits()).chars().rev() {
                name.push(digit);
                name.push('.');
            }
            name + zone + "."
        }
    }
}

/// The name of a domain below a zone (RFC 5782 3); `None` if there can be no such name, or it is no domain.
pub(crate) fn name_of_domain(domain: &str, zone: &str) -> Option<String> {
    let domain = domain.trim_end_matches('.').to_ascii_lowercase();
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    let fine = domain.contains('.')
        && domain.split('.').all(label)
        && domain.parse::<Ipv4Addr>().is_err()
        && domain.len() + zone.len() < 252;
    fine.then(|| format!("{domain}.{zone}."))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_are_turned_around() {
        let name = |address: &str| name_of_address(address.parse().unwrap(), "bl.example");
        assert_eq!(name("192.0.2.99"), "99.2.0.192.bl.example.");
        assert_eq!(name("::ffff:192.0.2.99"), "99.2.0.192.bl.example.");
        // RFC 5782 2.4
        assert_eq!(
            name("2001:db8:1:2:3:4:567:89ab"),
            "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2.bl.example."
        );
        let domain = |domain: &str| name_of_domain(domain, "rhs.example");
        assert_eq!(domain("Example.NET").unwrap(), "example.net.rhs.example.");
        for none in [
            "[192.0.2.1]",
            "192.0.2.1",
            "localhost",
            "a..b",
            "",
            &"a.".repeat(130),
        ] {
            assert_eq!(domain(none), None, "{none}");
        }
    }

    #[test]
    fn only_certain_answers_count() {
        let answers = |texts: &[&str]| {
            let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
            Answers::new(&texts).unwrap()
        };
        let meaning =
            |texts: &[&str], answer: &str| answers(texts).meaning(answer.parse().unwrap());
        assert_eq!(meaning(&[], "127.0.0.2"), Meaning::Listed);
        assert_eq!(
            meaning(&["127.0.0.2", "127.0.1.0/24"], "127.0.1.7"),
            Meaning::Listed
        );
        assert_eq!(meaning(&["127.0.0.2"], "127.0.0.3"), Meaning::Other);
        assert_eq!(meaning(&["127.0.0.0/24&6"], "127.0.0.4"), Meaning::Listed);
        assert_eq!(meaning(&["127.0.0.0/24&6"], "127.0.0.9"), Meaning::Other);
        for texts in [&[][..], &["127.0.0.0/8"]] {
            assert_eq!(meaning(texts, "127.255.255.254"), Meaning::Broken);
        }
        assert_eq!(meaning(&["0.0.0.0/0"], "192.0.2.1"), Meaning::Broken);
        for bad in ["x", "127.0.0.2&", "127.0.0.2&300", "127.0.0/24"] {
            assert!(Answers::new(&[bad.to_owned()]).is_err(), "{bad}");
        }
    }
}
