//! A small letter on its way into INBOX of the first account.

use std::sync::Arc;
use store::Flags;
use store::writer::{Body, Incoming, Once, Quota, Target, pack};
use types::AccountId;

/// Whose mail it is.
pub const ACCOUNT: AccountId = AccountId(1);

/// A letter of one line without flags.
#[allow(dead_code)] // not every test has use for it
pub fn incoming(subject: &str, once: Once) -> Incoming {
    of(format!("Subject: {subject}\r\n\r\nx").as_bytes(), once)
}

/// A message without flags, its body in the database.
pub fn of(octets: &[u8], once: Once) -> Incoming {
    let parsed = message::parse(b"", octets, &message::Limits::default());
    Incoming {
        account: ACCOUNT,
        quota: Quota::default(),
        target: Target::Named("INBOX".to_owned()),
        create: false,
        once,
        flags: Flags::default(),
        date: 0,
        prefix: Vec::new(),
        parsed: Arc::new(pack(&parsed.encode())),
        threads: Vec::new(),
        body: Arc::new(Body {
            id: blob::id_of(octets),
            len: octets.len() as u64,
            data: Some(blob::encode(octets, 0)),
        }),
    }
}
