//! The PROXY protocol, versions 1 and 2 (haproxy, doc/proxy-protocol.txt): who the client behind a load balancer is.
//!
//! Read it only on connections from addresses that the configuration lists: anybody can write one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What begins version 2.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 1 with its CRLF (section 2.1).
const V1_MAX: usize = 107;
/// Version 2's addresses and TLVs: more is refused, though the format has room for 65,535.
const V2_MAX: usize = 4096;

/// The header's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// The proxy speaks for itself (a health check), or does not know: the connection's own addresses count.
    Local,
    /// The client's address, and the one it connected to.
    Proxied {
        /// The client.
        source: SocketAddr,
        /// Where it connected to.
        destination: SocketAddr,
    },
}

/// The connection does not begin with a header, though it must: close it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no valid PROXY protocol header; check that the load balancer sends one")]
pub struct ProxyError;

/// Reads the header at the start of a connection; `None` when octets are missing yet. With the header comes its length.
///
/// # Errors
/// [`ProxyError`]
pub fn read(input: &[u8]) -> Result<Option<(Header, usize)>, ProxyError> {
    let common = input.len().min(SIGNATURE.len());
    if input.get(..common) == SIGNATURE.get(..common) && common > 0 {
        return if common == SIGNATURE.len() {
            version_2(input)
        } else {
            Ok(None)
        };
    }
    version_1(input)
}

fn version_1(input: &[u8]) -> Result<Option<(Header, usize)>, ProxyError> {
    const START: &[u8] = b"PROXY ";
    let common = input.len().min(START.len());
    if input.get(..common) != START.get(..common) {
        return Err(ProxyError);
    }
    let window = input.get(..V1_MAX).unwrap_or(input);
    let Some(end) = memchr::memmem::find(window, b"\r\n") else {
        return if input.len() >= V1_MAX {
            Err(ProxyError)
        } else {
            Ok(None)
        };
    };
    let line = window.get(START.len()..end).ok_or(ProxyError)?;
    let line = std::str::from_utf8(line).map_err(|_| ProxyError)?;
    let mut words = line.split(' ');
    let header = match words.next() {
        Some("UNKNOWN") => Header::Local,
        Some(family @ ("TCP4" | "TCP6")) => {
            let mut address = || -> Option<IpAddr> {
                let word = words.next()?;
                if family == "TCP4" {
                    word.parse::<Ipv4Addr>().ok().map(IpAddr::V4)
                } else {
                    word.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
                }
            };
            let (from, to) = (address().ok_or(ProxyError)?, address().ok_or(ProxyError)?);
            let mut port = || -> Option<u16> {
                let word = words.next()?;
                let digits = word.bytes().all(|b| b.is_ascii_digit());
                digits.then(|| word.parse().ok()).flatten()
            };
            let (source, destination) = (port().ok_or(ProxyError)?, port().ok_or(ProxyError)?);
            if words.next().is_some() {
                return Err(ProxyError);
            }
            Header::Proxied {
                source: SocketAddr::new(from, source),
                destination: SocketAddr::new(to, destination),
            }
        }
        _ => return Err(ProxyError),
    };
    Ok(Some((header, end + 2)))
}

fn version_2(input: &[u8]) -> Result<Option<(Header, usize)>, ProxyError> {
    let Some(&[version_command, family, high, low]) = input.get(12..16) else {
        return Ok(None);
    };
    let len = usize::from(u16::from_be_bytes([high, low]));
    if version_command >> 4 != 2 || len > V2_MAX {
        return Err(ProxyError);
    }
    let Some(payload) = input.get(16..16 + len) else {
        return Ok(None);
    };
    let header = match version_command & 15 {
        0 => Header::Local,
        1 => match family {
            0x11 => v4(payload).ok_or(ProxyError)?,
            0x21 => v6(payload).ok_or(ProxyError)?,
            // Unix sockets, UDP, unspecified: section 2.2 says to use the connection's own addresses
            0x00 | 0x12 | 0x22 | 0x31 | 0x32 => Header::Local,
            _ => return Err(ProxyError),
        },
        _ => return Err(ProxyError),
    };
    Ok(Some((header, 16 + len)))
}

fn port(octets: &[u8], at: usize) -> Option<u16> {
    let pair = octets.get(at..at + 2)?;
    pair.try_into().ok().map(u16::from_be_bytes)
}

fn v4(payload: &[u8]) -> Option<Header> {
    let address = |at: usize| -> Option<IpAddr> {
        let octets: [u8; 4] = payload.get(at..at + 4)?.try_into().ok()?;
        Some(IpAddr::from(octets))
    };
    Some(Header::Proxied {
        source: SocketAddr::new(address(0)?, port(payload, 8)?),
        destination: SocketAddr::new(address(4)?, port(payload, 10)?),
    })
}

fn v6(payload: &[u8]) -> Option<Header> {
    let address = |at: usize| -> Option<IpAddr> {
        let octets: [u8; 16] = payload.get(at..at + 16)?.try_into().ok()?;
        Some(IpAddr::from(octets))
    };
    Some(Header::Proxied {
        source: SocketAddr::new(address(0)?, port(payload, 32)?),
        destination: SocketAddr::new(address(16)?, port(payload, 34)?),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn proxied(source: &str, destination: &str) -> Header {
        Header::Proxied {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
        }
    }

    fn v2(command: u8, family: u8, payload: &[u8]) -> Vec<u8> {
        let mut header = SIGNATURE.to_vec();
        header.extend_from_slice(&[0x20 | command, family]);
        header.extend_from_slice(&(payload.len() as u16).to_be_bytes());
        header.extend_from_slice(payload);
        header
    }

    #[test]
    fn both_versions() {
        let input = b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 25\r\nEHLO x\r\n";
        let expected = proxied("192.0.2.1:56324", "198.51.100.2:25");
        assert_eq!(read(input).unwrap(), Some((expected, 44)));
        let input = b"PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n";
        let expected = proxied("[2001:db8::1]:1", "[2001:db8::2]:2");
        assert_eq!(read(input).unwrap(), Some((expected, input.len())));
        let input = b"PROXY UNKNOWN whatever\r\n";
        assert_eq!(read(input).unwrap(), Some((Header::Local, input.len())));

        let payload = [192, 0, 2, 1, 198, 51, 100, 2, 0, 80, 0, 25, 4, 0, 1, 7];
        let input = v2(1, 0x11, &payload);
        let expected = proxied("192.0.2.1:80", "198.51.100.2:25");
        assert_eq!(read(&input).unwrap(), Some((expected, 32)));
        assert_eq!(read(&v2(0, 0, &[])).unwrap(), Some((Header::Local, 16)));
    }

    #[test]
    fn what_is_no_header() {
        for input in [
            &b"EHLO x\r\n"[..],
            b"PROXY TCP4 192.0.2.1 198.51.100.2 56324\r\n",
            b"PROXY TCP4 2001:db8::1 198.51.100.2 1 2\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.2 70000 25\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.2 1 2 3\r\n",
            b"PROXY UDP4 192.0.2.1 198.51.100.2 1 2\r\n",
        ] {
            assert!(read(input).is_err(), "{:?}", String::from_utf8_lossy(input));
        }
        assert!(read(&[b"PROXY ".as_slice(), &[b'x'; 120]].concat()).is_err());
        assert!(read(&v2(2, 0x11, &[0; 12])).is_err());
        assert!(read(&v2(1, 0x11, &[0; 11])).is_err());
        assert!(read(&v2(1, 0x11, &[0; 5000])).is_err());
    }

    proptest! {
        #[test]
        fn a_part_of_a_header_is_waited_for(cut in 0_usize..60) {
            let one = b"PROXY TCP6 2001:db8::1 2001:db8::2 56324 443\r\n".to_vec();
            let two = v2(1, 0x21, &[7; 36]);
            for whole in [one, two] {
                let cut = cut.min(whole.len() - 1);
                prop_assert_eq!(read(&whole[..cut]), Ok(None));
                prop_assert!(read(&whole).unwrap().is_some());
            }
        }

        #[test]
        fn no_octets_panic(input in proptest::collection::vec(any::<u8>(), 0..300), signed in any::<bool>()) {
            let input = if signed { [&SIGNATURE[..], &input].concat() } else { input };
            if let Ok(Some((_, len))) = read(&input) {
                prop_assert!(len <= input.len());
            }
        }
    }
}
