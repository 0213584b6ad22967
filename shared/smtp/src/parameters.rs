//! The parameters of MAIL and RCPT (RFC 5321 4.1.2, esmtp-param).

use crate::{CommandError, xtext};
use types::{Address, BodyType, Notify, Ret};

/// What MAIL says behind the path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MailParameters {
    /// SIZE (RFC 1870), octets.
    pub size: Option<u64>,
    /// BODY (RFC 6152, RFC 3030).
    pub body: BodyType,
    /// SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// RET (RFC 3461 4.3).
    pub ret: Option<Ret>,
    /// ENVID (RFC 3461 4.4), decoded.
    pub envid: Option<String>,
    /// AUTH (RFC 4954 5): who submitted it first. `Some(None)` is `<>`.
    pub auth: Option<Option<Address>>,
    /// REQUIRETLS (RFC 8689).
    pub require_tls: bool,
    /// Any parameter at all was given: not allowed after HELO.
    pub any: bool,
}

/// What RCPT says behind the path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RcptParameters {
    /// NOTIFY (RFC 3461 4.1).
    pub notify: Notify,
    /// ORCPT (RFC 3461 4.2): `type;value`, decoded.
    pub orcpt: Option<String>,
    /// Any parameter at all was given: not allowed after HELO.
    pub any: bool,
}

type Parameter<'a> = (&'a str, Option<&'a str>);

/// Cuts `NAME=value NAME ...` apart.
fn parameters(text: &str) -> impl Iterator<Item = Result<Parameter<'_>, CommandError>> {
    text.split(' ').filter(|word| !word.is_empty()).map(|word| {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word, None),
        };
        // RFC 5321 4.1.2: esmtp-keyword
        let keyword =
            |(at, byte): (usize, u8)| byte.is_ascii_alphanumeric() || (at > 0 && byte == b'-');
        if name.is_empty() || !name.bytes().enumerate().all(keyword) || value == Some("") {
            return Err(CommandError::ParameterSyntax);
        }
        Ok((name, value))
    })
}

/// Refuses a second one of a kind.
fn once<T>(slot: &mut Option<T>, value: T, name: &'static str) -> Result<(), CommandError> {
    if slot.replace(value).is_some() {
        return Err(CommandError::Duplicate(name));
    }
    Ok(())
}

fn flag(set: &mut bool, value: Option<&str>, name: &'static str) -> Result<(), CommandError> {
    if value.is_some() {
        return Err(CommandError::Parameter(name));
    }
    if std::mem::replace(set, true) {
        return Err(CommandError::Duplicate(name));
    }
    Ok(())
}

impl MailParameters {
    pub(crate) fn read(text: &str) -> Result<Self, CommandError> {
        let mut read = Self::default();
        let mut body = None;
        for parameter in parameters(text) {
            let (name, value) = parameter?;
            read.any = true;
            match name.to_ascii_uppercase().as_str() {
                "SIZE" => once(&mut read.size, size(value)?, "SIZE")?,
                "BODY" => once(&mut body, body_type(value)?, "BODY")?,
                "SMTPUTF8" => flag(&mut read.smtputf8, value, "SMTPUTF8")?,
                "RET" => once(&mut read.ret, ret(value)?, "RET")?,
                "ENVID" => once(&mut read.envid, envid(value)?, "ENVID")?,
                "AUTH" => once(&mut read.auth, auth(value)?, "AUTH")?,
                "REQUIRETLS" => flag(&mut read.require_tls, value, "REQUIRETLS")?,
                _ => return Err(CommandError::UnknownParameter),
            }
        }
        read.body = body.unwrap_or_default();
        Ok(read)
    }
}

impl RcptParameters {
    pub(crate) fn read(text: &str) -> Result<Self, CommandError> {
        let mut read = Self::default();
        let mut wish = None;
        for parameter in parameters(text) {
            let (name, value) = parameter?;
            read.any = true;
            match name.to_ascii_uppercase().as_str() {
                "NOTIFY" => once(&mut wish, notify(value)?, "NOTIFY")?,
                "ORCPT" => once(&mut read.orcpt, orcpt(value)?, "ORCPT")?,
                _ => return Err(CommandError::UnknownParameter),
            }
        }
        read.notify = wish.unwrap_or_default();
        Ok(read)
    }
}

fn size(value: Option<&str>) -> Result<u64, CommandError> {
    // RFC 1870 3: 1*20DIGIT
    value
        .filter(|v| v.len() <= 20 && v.bytes().all(|b| b.is_ascii_digit()))
        .map(|v| v.parse().unwrap_or(u64::MAX))
        .ok_or(CommandError::Parameter("SIZE"))
}

fn body_type(value: Option<&str>) -> Result<BodyType, CommandError> {
    match value.map(str::to_ascii_uppercase).as_deref() {
        Some("7BIT") => Ok(BodyType::SevenBit),
        Some("8BITMIME") => Ok(BodyType::EightBit),
        Some("BINARYMIME") => Ok(BodyType::Binary),
        _ => Err(CommandError::Parameter("BODY")),
    }
}

fn ret(value: Option<&str>) -> Result<Ret, CommandError> {
    match value.map(str::to_ascii_uppercase).as_deref() {
        Some("FULL") => Ok(Ret::Full),
        Some("HDRS") => Ok(Ret::Headers),
        _ => Err(CommandError::Parameter("RET")),
    }
}

fn envid(value: Option<&str>) -> Result<String, CommandError> {
    let fault = CommandError::Parameter("ENVID");
    // RFC 3461 4.4: at most 100 characters
    let value = value.filter(|v| v.len() <= 100).ok_or(fault.clone())?;
    xtext::decode(value).map_err(|_| fault)
}

fn auth(value: Option<&str>) -> Result<Option<Address>, CommandError> {
    let fault = CommandError::Parameter("AUTH");
    let value = value.ok_or(fault.clone())?;
    let plain = xtext::decode(value).map_err(|_| fault.clone())?;
    if plain == "<>" {
        return Ok(None);
    }
    plain.parse().map(Some).map_err(|_| fault)
}

fn notify(value: Option<&str>) -> Result<Notify, CommandError> {
    let fault = CommandError::Parameter("NOTIFY");
    let mut wish = Notify {
        success: false,
        failure: false,
        delay: false,
        explicit: true,
    };
    let value = value.ok_or(fault.clone())?.to_ascii_uppercase();
    // RFC 3461 4.1: NEVER stands alone
    if value == "NEVER" {
        return Ok(wish);
    }
    for word in value.split(',') {
        match word {
            "SUCCESS" => wish.success = true,
            "FAILURE" => wish.failure = true,
            "DELAY" => wish.delay = true,
            _ => return Err(fault),
        }
    }
    Ok(wish)
}

fn orcpt(value: Option<&str>) -> Result<String, CommandError> {
    let fault = CommandError::Parameter("ORCPT");
    // RFC 3461 4.2: at most 500 characters
    let value = value.filter(|v| v.len() <= 500).ok_or(fault.clone())?;
    xtext::decode_orcpt(value).map_err(|_| fault)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn mail_with_everything() {
        let read = MailParameters::read(
            " SIZE=10  body=8bitmime SMTPUTF8 RET=hdrs ENVID=x+2By AUTH=a+40b.example REQUIRETLS ",
        );
        let read = read.unwrap();
        assert_eq!(read.size, Some(10));
        assert_eq!(read.body, BodyType::EightBit);
        assert!(read.smtputf8 && read.require_tls && read.any);
        assert_eq!(read.ret, Some(Ret::Headers));
        assert_eq!(read.envid.as_deref(), Some("x+y"));
        assert_eq!(read.auth.unwrap().unwrap().to_string(), "a@b.example");
        assert_eq!(MailParameters::read("AUTH=<>").unwrap().auth, Some(None));
        assert!(!MailParameters::read("").unwrap().any);
    }

    #[test]
    fn what_is_wrong_is_named() {
        use CommandError::*;
        for (text, error) in [
            ("SIZE=", ParameterSyntax),
            ("SIZE=1x", Parameter("SIZE")),
            ("SIZE=1 SIZE=2", Duplicate("SIZE")),
            ("SMTPUTF8=1", Parameter("SMTPUTF8")),
            ("SMTPUTF8 SMTPUTF8", Duplicate("SMTPUTF8")),
            ("BODY=9BIT", Parameter("BODY")),
            ("FOO=1", UnknownParameter),
            ("=1", ParameterSyntax),
            ("ENVID=a=b", Parameter("ENVID")),
        ] {
            assert_eq!(MailParameters::read(text).unwrap_err(), error, "{text}");
        }
        for (text, error) in [
            ("NOTIFY=NEVER,SUCCESS", Parameter("NOTIFY")),
            ("NOTIFY=SUCCESS,", Parameter("NOTIFY")),
            ("NOTIFY=NEVER NOTIFY=NEVER", Duplicate("NOTIFY")),
            ("ORCPT=jane", Parameter("ORCPT")),
        ] {
            assert_eq!(RcptParameters::read(text).unwrap_err(), error, "{text}");
        }
    }

    #[test]
    fn report_wishes() {
        let read = RcptParameters::read("NOTIFY=success,DELAY ORCPT=rfc822;a@b").unwrap();
        assert!(read.notify.success && read.notify.delay && !read.notify.failure);
        assert!(read.notify.explicit);
        assert_eq!(read.orcpt.as_deref(), Some("rfc822;a@b"));
        assert!(!RcptParameters::read("").unwrap().notify.explicit);
    }
}
