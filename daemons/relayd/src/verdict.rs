//! How an attempt can end short of a host's own word, as the statuses that the sender may read (RFC 3463).

use types::{Enhanced, Outcome, Status};

/// A status of our own.
pub(crate) fn status(code: u16, enhanced: Enhanced, text: impl Into<String>) -> Status {
    let mut text: String = text.into();
    text.retain(|c| !c.is_control());
    while text.len() > 1000 {
        text.pop();
    }
    Status {
        code,
        enhanced,
        text,
        host: None,
    }
}

/// A status of our own that says what happened with this host.
pub(crate) fn with_host(
    host: &str,
    code: u16,
    enhanced: Enhanced,
    text: impl Into<String>,
) -> Status {
    Status {
        host: Some(host.to_owned()),
        ..status(code, enhanced, text)
    }
}

/// By the reply's class: 2 done, 4 temporary, 5 permanent. Anything else was not expected here: try again later.
pub(crate) fn by_class(status: Status) -> Outcome {
    match status.code / 100 {
        2 => Outcome::Done(status),
        5 => Outcome::Permanent(status),
        _ => Outcome::Temporary(status),
    }
}
