//! Where a filter is.

use std::path::PathBuf;

/// An address, as Postfix and others write it too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// `host:port`, `inet:host:port`.
    Tcp(String, u16),
    /// `/path`, `unix:/path`, `local:/path`.
    Local(PathBuf),
}

impl Address {
    /// Reads it.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is neither host:port nor the path of a local socket");
        for prefix in ["unix:", "local:", ""] {
            if let Some(path) = text
                .strip_prefix(prefix)
                .filter(|path| path.starts_with('/'))
            {
                return Ok(Self::Local(path.into()));
            }
        }
        let text = text.strip_prefix("inet:").unwrap_or(text);
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse::<u16>().map_err(|_| wrong())?;
        let bracketed = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let host = bracketed.unwrap_or(host);
        if host.is_empty() || port == 0 || (bracketed.is_none() && host.contains(':')) {
            return Err(wrong());
        }
        Ok(Self::Tcp(host.to_owned(), port))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn forms() {
        let tcp = |host: &str, port| Ok(Address::Tcp(host.to_owned(), port));
        assert_eq!(Address::read("localhost:11332"), tcp("localhost", 11332));
        assert_eq!(Address::read("inet:[::1]:8891"), tcp("::1", 8891));
        for path in ["/run/x.sock", "unix:/run/x.sock", "local:/run/x.sock"] {
            assert_eq!(
                Address::read(path),
                Ok(Address::Local("/run/x.sock".into()))
            );
        }
        for wrong in [
            "",
            "localhost",
            ":25",
            "a:0",
            "a:b",
            "::1:25",
            "unix:x",
            "inet:/x",
        ] {
            assert!(Address::read(wrong).is_err(), "{wrong}");
        }
    }
}
