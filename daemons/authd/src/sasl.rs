//! PLAIN and LOGIN: what is in their messages. SCRAM is in [`crate::scram`].

use zeroize::Zeroizing;

/// Name and password in clear.
pub(crate) struct Clear {
    /// As whom; `None` is as oneself.
    pub(crate) authzid: Option<String>,
    /// Who.
    pub(crate) user: String,
    pub(crate) password: Zeroizing<String>,
}

/// Names beyond this are nobody's.
const NAME_MAX: usize = 512;

/// Reads PLAIN's only message (RFC 4616 2): `[authzid] NUL authcid NUL passwd`. `None` if it is malformed.
pub(crate) fn plain(octets: &[u8], password_max: usize) -> Option<Clear> {
    let text = std::str::from_utf8(octets).ok()?;
    let mut fields = text.split('\0');
    let (authzid, user, secret) = (fields.next()?, fields.next()?, fields.next()?);
    if fields.next().is_some() || authzid.len() > NAME_MAX {
        return None;
    }
    Some(Clear {
        authzid: (!authzid.is_empty()).then(|| authzid.to_owned()),
        user: name(user)?,
        password: password(secret, password_max)?,
    })
}

/// A name, as LOGIN's first response gives it.
pub(crate) fn login_name(octets: &[u8]) -> Option<String> {
    name(std::str::from_utf8(octets).ok()?)
}

/// A password, as LOGIN's second response gives it.
pub(crate) fn login_password(octets: &[u8], max: usize) -> Option<Zeroizing<String>> {
    password(std::str::from_utf8(octets).ok()?, max)
}

fn name(text: &str) -> Option<String> {
    (!text.is_empty() && text.len() <= NAME_MAX && !text.contains('\0')).then(|| text.to_owned())
}

fn password(text: &str, max: usize) -> Option<Zeroizing<String>> {
    (!text.is_empty() && text.len() <= max).then(|| Zeroizing::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn plain_has_three_fields() {
        let clear = plain(b"\0tim\0tanstaaftanstaaf", 99).unwrap();
        assert_eq!((clear.user.as_str(), clear.authzid), ("tim", None));
        assert_eq!(clear.password.as_str(), "tanstaaftanstaaf");
        let clear = plain("Ursel\0Kurt\0xipj3plmqä".as_bytes(), 99).unwrap();
        assert_eq!(
            (clear.user.as_str(), clear.authzid.as_deref()),
            ("Kurt", Some("Ursel"))
        );
        for bad in [
            b"".as_slice(),
            b"a\0b",
            b"\0\0c",
            b"\0b\0",
            b"a\0b\0c\0",
            b"\0b\0\xff",
            b"\0b\x001234567",
        ] {
            assert!(plain(bad, 6).is_none(), "{bad:?}");
        }
    }
}
