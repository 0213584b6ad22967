//! The parameters of MAIL and RCPT (RFC 5321 4.1.2, esmtp-param).

use crate::{CommandError, xtext};
use types::{Address, BodyType, ByMode, Notify, Ret, moment};

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
    /// HOLDFOR or HOLDUNTIL (RFC 4865).
    pub hold: Option<Hold>,
    /// MT-PRIORITY (RFC 6710), -9 to 9.
    pub priority: Option<i8>,
    /// BY (RFC 2852).
    pub by: Option<By>,
    /// Any parameter at all was given: not allowed after HELO.
    pub any: bool,
}

/// How long a message is to be held (RFC 4865 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// HOLDFOR: seconds, 1 to 999,999,999.
    For(u32),
    /// HOLDUNTIL: seconds since 1970.
    Until(u64),
}

/// By when a message is to be delivered (RFC 2852 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct By {
    /// Seconds from now, -999,999,999 to 999,999,999; with [`ByMode::Return`] at least 1.
    pub seconds: i64,
    /// What happens then.
    pub mode: ByMode,
    /// by-trace.
    pub trace: bool,
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
                // RFC 4865 4: one of both, once
                "HOLDFOR" => once(&mut read.hold, hold_for(value)?, "HOLDFOR")?,
                "HOLDUNTIL" => once(&mut read.hold, hold_until(value)?, "HOLDUNTIL")?,
                "MT-PRIORITY" => once(&mut read.priority, priority(value)?, "MT-PRIORITY")?,
                "BY" => once(&mut read.by, by(value)?, "BY")?,
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

/// One to nine digits.
fn nine_digits(text: &str) -> Option<u32> {
    let sound = (1..=9).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    sound.then(|| text.parse().ok())?
}

fn hold_for(value: Option<&str>) -> Result<Hold, CommandError> {
    // RFC 4865 4: future-release-integer, 1 to 999999999
    value
        .and_then(nine_digits)
        .filter(|seconds| *seconds > 0)
        .map(Hold::For)
        .ok_or(CommandError::Parameter("HOLDFOR"))
}

fn hold_until(value: Option<&str>) -> Result<Hold, CommandError> {
    // RFC 4865 4, erratum 2040: date-time of RFC 3339
    value
        .and_then(moment::parse_date_time)
        .map(Hold::Until)
        .ok_or(CommandError::Parameter("HOLDUNTIL"))
}

fn priority(value: Option<&str>) -> Result<i8, CommandError> {
    let fault = CommandError::Parameter("MT-PRIORITY");
    // RFC 6710 6: priority-value, -9 to 9 without a plus
    let (negative, digit) = match value.ok_or(fault.clone())?.as_bytes() {
        [digit @ b'0'..=b'9'] => (false, digit),
        [b'-', digit @ b'1'..=b'9'] => (true, digit),
        _ => return Err(fault),
    };
    let value = i8::try_from(digit - b'0').map_err(|_| fault)?;
    Ok(if negative { -value } else { value })
}

fn by(value: Option<&str>) -> Result<By, CommandError> {
    let fault = CommandError::Parameter("BY");
    let value = value.ok_or(fault.clone())?;
    let (time, mode) = value.split_once(';').ok_or(fault.clone())?;
    // RFC 2852 4: by-time is a sign and one to nine digits
    let (negative, digits) = match time.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, time.strip_prefix('+').unwrap_or(time)),
    };
    let seconds = i64::from(nine_digits(digits).ok_or(fault.clone())?);
    let seconds = if negative { -seconds } else { seconds };
    let (mode, trace) = match mode.to_ascii_uppercase().as_str() {
        "N" => (ByMode::Notify, false),
        "NT" => (ByMode::Notify, true),
        "R" => (ByMode::Return, false),
        "RT" => (ByMode::Return, true),
        _ => return Err(fault),
    };
    // RFC 2852 4: what is to be returned must have some time
    if mode == ByMode::Return && seconds <= 0 {
        return Err(fault);
    }
    Ok(By {
        seconds,
        mode,
        trace,
    })
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
            ("HOLDFOR=0", Parameter("HOLDFOR")),
            ("HOLDFOR=1000000000", Parameter("HOLDFOR")),
            ("HOLDFOR=-1", Parameter("HOLDFOR")),
            ("HOLDFOR", Parameter("HOLDFOR")),
            ("HOLDUNTIL=tomorrow", Parameter("HOLDUNTIL")),
            (
                "HOLDFOR=1 HOLDUNTIL=2030-01-01T00:00:00Z",
                Duplicate("HOLDUNTIL"),
            ),
            ("MT-PRIORITY=10", Parameter("MT-PRIORITY")),
            ("MT-PRIORITY=+1", Parameter("MT-PRIORITY")),
            ("MT-PRIORITY=-0", Parameter("MT-PRIORITY")),
            ("MT-PRIORITY", Parameter("MT-PRIORITY")),
            ("BY=60", Parameter("BY")),
            ("BY=0;R", Parameter("BY")),
            ("BY=-1;R", Parameter("BY")),
            ("BY=1;X", Parameter("BY")),
            ("BY=1;TN", Parameter("BY")),
            ("BY=1234567890;N", Parameter("BY")),
            ("BY=;N", Parameter("BY")),
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
    fn when_and_how_urgently() {
        let read = MailParameters::read("holdfor=3600 mt-priority=-4 by=+120;nt").unwrap();
        assert_eq!(read.hold, Some(Hold::For(3600)));
        assert_eq!(read.priority, Some(-4));
        let by = read.by.unwrap();
        assert_eq!((by.seconds, by.mode, by.trace), (120, ByMode::Notify, true));
        let read = MailParameters::read("HOLDUNTIL=2026-09-21T14:13:20Z BY=-5;N MT-PRIORITY=9");
        let read = read.unwrap();
        assert_eq!(read.hold, Some(Hold::Until(1_790_000_000)));
        assert_eq!(read.by.map(|by| by.seconds), Some(-5));
        assert_eq!(read.priority, Some(9));
        let by = MailParameters::read("BY=999999999;R").unwrap().by.unwrap();
        assert_eq!((by.seconds, by.mode), (999_999_999, ByMode::Return));
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
