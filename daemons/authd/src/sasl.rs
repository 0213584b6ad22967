//! PLAIN, LOGIN, OAUTHBEARER and XOAUTH2: what is in their messages. SCRAM is in [`crate::scram`].

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

/// An access token, and as whom its bearer wants to log in.
pub(crate) struct Bearer {
    pub(crate) user: Option<String>,
    pub(crate) token: Zeroizing<String>,
}

/// Reads OAUTHBEARER's only message (RFC 7628 3.1): a GS2 header, then key and value pairs between `\x01`.
pub(crate) fn oauthbearer(octets: &[u8]) -> Option<Bearer> {
    let text = std::str::from_utf8(octets).ok()?;
    let (header, pairs) = text.split_once('\x01')?;
    // RFC 5801 4: n or y; channel binding is not possible here
    let mut parts = header.split(',');
    let (flag, authzid) = (parts.next()?, parts.next()?);
    if !matches!(flag, "n" | "y") || parts.next() != Some("") || parts.next().is_some() {
        return None;
    }
    let user = match authzid.strip_prefix("a=") {
        Some(user) => Some(name(&user.replace("=2C", ",").replace("=3D", "="))?),
        None if authzid.is_empty() => None,
        None => return None,
    };
    bearer(user, pairs)
}

/// Reads XOAUTH2's only message: `user=` and `auth=Bearer` between `\x01`.
pub(crate) fn xoauth2(octets: &[u8]) -> Option<Bearer> {
    let text = std::str::from_utf8(octets).ok()?;
    let (user, pairs) = text.strip_prefix("user=")?.split_once('\x01')?;
    bearer(Some(name(user)?), pairs)
}

fn bearer(user: Option<String>, pairs: &str) -> Option<Bearer> {
    let pairs = pairs.strip_suffix("\x01\x01")?;
    let auth = pairs
        .split('\x01')
        .find_map(|pair| pair.strip_prefix("auth="))?;
    let (scheme, token) = auth.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("Bearer") {
        return None;
    }
    Some(Bearer {
        user,
        token: Zeroizing::new(token.trim().to_owned()),
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
    fn bearer_messages_are_read_as_the_rfc_shows_them() {
        // RFC 7628 4.1
        let message = b"n,a=user@example.com,\x01host=server.example.com\x01port=143\x01auth=Bearer vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==\x01\x01";
        let read = oauthbearer(message).unwrap();
        assert_eq!(read.user.as_deref(), Some("user@example.com"));
        assert_eq!(
            read.token.as_str(),
            "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg=="
        );
        assert!(
            oauthbearer(b"n,,\x01auth=Bearer x\x01\x01")
                .unwrap()
                .user
                .is_none()
        );
        let read = xoauth2(b"user=a@b\x01auth=Bearer y\x01\x01").unwrap();
        assert_eq!(
            (read.user.as_deref(), read.token.as_str()),
            (Some("a@b"), "y")
        );
        for bad in [
            b"".as_slice(),
            b"n,,\x01\x01",
            b"n,,\x01auth=Bearer x",
            b"p=tls,,\x01auth=Bearer x\x01\x01",
            b"n,a=,\x01auth=Bearer x\x01\x01",
            b"n,,\x01auth=Basic x\x01\x01",
            b"n,,,\x01auth=Bearer x\x01\x01",
        ] {
            assert!(oauthbearer(bad).is_none(), "{bad:?}");
        }
        assert!(xoauth2(b"user=\x01auth=Bearer y\x01\x01").is_none());
    }

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
