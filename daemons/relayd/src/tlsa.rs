//! TLSA records (RFC 6698, RFC 7671) as RFC 7672 has SMTP use them.

use hickory_resolver::proto::rr::rdata::TLSA;
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer};
use sha2::{Digest as _, Sha256, Sha512};
use std::fmt::{self, Display};

/// Records of one host that are looked at; a set is far smaller.
const MOST: usize = 64;

/// One record.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Tlsa {
    pub(crate) usage: u8,
    pub(crate) selector: u8,
    pub(crate) matching: u8,
    pub(crate) data: Vec<u8>,
}

/// What a record says of the certificates that a host shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Usage {
    /// DANE-TA(2): one of the authorities above the host's certificate.
    Authority,
    /// DANE-EE(3): the host's certificate itself.
    Host,
}

impl From<&TLSA> for Tlsa {
    fn from(record: &TLSA) -> Self {
        Self {
            usage: record.cert_usage.into(),
            selector: record.selector.into(),
            matching: record.matching.into(),
            data: record.cert_data.clone(),
        }
    }
}

impl Tlsa {
    /// What it is of use for; `None` if it is of none here. RFC 7672 3.1.3: PKIX-TA(0) and PKIX-EE(1) are not.
    pub(crate) fn usage(&self) -> Option<Usage> {
        let usage = match self.usage {
            2 => Usage::Authority,
            3 => Usage::Host,
            _ => return None,
        };
        let whole = match self.matching {
            // RFC 6698 2.1.3
            0 => !self.data.is_empty(),
            1 => self.data.len() == 32,
            2 => self.data.len() == 64,
            _ => false,
        };
        (self.selector <= 1 && whole).then_some(usage)
    }

    /// Whether this certificate, with this public key, is the one that is meant (RFC 6698 2.1.2, 2.1.3).
    pub(crate) fn matches(
        &self,
        certificate: &CertificateDer<'_>,
        key: &SubjectPublicKeyInfoDer<'_>,
    ) -> bool {
        let selected: &[u8] = match self.selector {
            0 => certificate,
            1 => key,
            _ => return false,
        };
        match self.matching {
            0 => self.data == selected,
            1 => self.data == *Sha256::digest(selected),
            2 => self.data == *Sha512::digest(selected),
            _ => false,
        }
    }
}

/// As in zone files, with the beginning of the data.
impl Display for Tlsa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            usage,
            selector,
            matching,
            data,
        } = self;
        write!(f, "{usage} {selector} {matching} ")?;
        for octet in data.iter().take(8) {
            write!(f, "{octet:02x}")?;
        }
        if data.len() > 8 {
            f.write_str("...")?;
        }
        Ok(())
    }
}

/// The records that are of use, in a fixed order: the same set is the same demand.
pub(crate) fn usable(records: &[Tlsa]) -> Vec<Tlsa> {
    let mut usable: Vec<Tlsa> = records
        .iter()
        .filter(|record| record.usage().is_some())
        .take(MOST)
        .cloned()
        .collect();
    usable.sort();
    usable.dedup();
    usable
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn record(usage: u8, selector: u8, matching: u8, data: &[u8]) -> Tlsa {
        Tlsa {
            usage,
            selector,
            matching,
            data: data.to_vec(),
        }
    }

    #[test]
    fn what_is_of_use() {
        let digest = [7; 32];
        for (usage, selector, matching, expected) in [
            (0, 0, 1, None),
            (1, 1, 1, None),
            (2, 0, 1, Some(Usage::Authority)),
            (3, 1, 1, Some(Usage::Host)),
            (4, 1, 1, None),
            (255, 1, 1, None),
            (3, 2, 1, None),
            (3, 255, 1, None),
            (3, 1, 3, None),
            (3, 1, 2, None), // 32 octets are no SHA-512
            (3, 1, 0, Some(Usage::Host)),
        ] {
            let record = record(usage, selector, matching, &digest);
            assert_eq!(record.usage(), expected, "{record}");
        }
        assert_eq!(record(3, 0, 0, b"").usage(), None);
        assert_eq!(record(3, 0, 1, &digest[..31]).usage(), None);
        assert_eq!(record(3, 0, 2, &[7; 64]).usage(), Some(Usage::Host));
        let some = [record(3, 1, 1, &digest), record(1, 1, 1, &digest)];
        assert_eq!(usable(&some), [some[0].clone()]);
    }

    #[test]
    fn selectors_and_digests() {
        let made = rcgen::generate_simple_self_signed(vec!["mx.example.org".to_owned()]).unwrap();
        let certificate = made.cert.der().clone();
        let parsed = webpki::EndEntityCert::try_from(&certificate).unwrap();
        let key = parsed.subject_public_key_info();
        for (selector, selected) in [(0, certificate.as_ref()), (1, key.as_ref())] {
            let sha256 = Sha256::digest(selected);
            let sha512 = Sha512::digest(selected);
            for (matching, data) in [(0, selected), (1, &*sha256), (2, &*sha512)] {
                let good = record(3, selector, matching, data);
                assert!(good.matches(&certificate, &key), "{good}");
                let mut data = data.to_vec();
                *data.last_mut().unwrap() ^= 1;
                let bad = record(3, selector, matching, &data);
                assert!(!bad.matches(&certificate, &key), "{bad}");
                let other = record(3, 1 - selector, matching, &good.data);
                assert!(!other.matches(&certificate, &key), "{other}");
            }
        }
        assert_eq!(
            record(3, 1, 1, &[0xab; 32]).to_string(),
            "3 1 1 abababababababab..."
        );
    }
}
