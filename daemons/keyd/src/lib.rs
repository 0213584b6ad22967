//! keyd: holds TLS, DKIM and token keys; signs, and never gives a private key away.
//!
//! It loads the TLS certificates that the configuration names (or makes one for the host name, which no client trusts), and
//! signs handshakes for smtpd and imapd, whose rustls asks here instead of holding keys. It makes and keeps DKIM keys for
//! each domain and signs for relayd. For certd it makes the keys of certificates, signs its requests to the authority, and takes
//! the chains, which are in use at once: the key of a certificate is born here and never leaves. With a key of its own it seals what authd grants at login, and tells stored
//! and queued whether such a seal is genuine.
//!
//! | in the state directory `keys` (mode 0700) | |
//! |---|---|
//! | `token.key` | 32 random octets: seals of grants. Without it all logins must be made anew. |
//! | `self-signed.pem` | the self-made certificate and its key |
//! | `issued/NAME/current.pem` | a certificate that certd got from an authority, and its key |
//! | `issued/NAME/pending.pem` | the key of one that is asked for |
//! | `acme/*.pem` | account keys, one for each authority |
//! | `dkim/DOMAIN/SELECTOR.pem` | DKIM keys, PKCS#8; keys of another system may be put there (HUP finds them) |
//!
//! SECURITY: user `posthouse-key`. No network, calls nobody, writes only its state directory, reads besides the certificate
//! files of the configuration. Who may ask for what stands in ipc/topology.toml. No private key is in a log, in a core dump's
//! reach longer than needed, or in any answer. Signing is not free of trust: whoever holds smtpd can have handshakes
//! signed while it does, but cannot take the key along.
//!
//! STANDARDS: RFC 8446 and RFC 5246 (signatures of handshakes), RFC 6376 and RFC 8463 (DKIM), RFC 2104 (HMAC), RFC 7468 (PEM),
//! RFC 2986 (certificate requests), RFC 7518 3.4 (ES256).
//!
//! RECOVERY: files are written whole (temporary file, sync, rename, sync of the directory); after a kill all that was
//! acknowledged is there. A broken certificate or DKIM file keeps the old key in use, and the log says what to do. Back up the
//! state directory: DKIM keys can be made anew only together with new DNS records.
#![forbid(unsafe_code)]

mod acme;
mod certificate;
mod config;
mod dkim;
mod issued;
mod issuing;
mod self_signed;
mod service;
mod state_file;
mod token;

pub use config::{CertificateFiles, Config};
pub use service::Keys;

use ipc::{Fault, FaultKind, Router};
use runtime::{Failure, Needs, Setting, Start};
use std::path::Path;
use std::time::{Duration, SystemTime};
use tokio::time::MissedTickBehavior;
use types::Role;

/// What it reads besides its state: the directories of the certificate files, as renewal replaces the files.
///
/// # Errors
/// None.
pub fn needs(config: &Config, _: &Setting) -> Result<Needs, Failure> {
    let mut needs = Needs::default();
    for files in &config.certificate {
        for path in [&files.cert, &files.key] {
            needs.read.extend(path.parent().map(Path::to_owned));
            // ACME clients link from a directory of current files to one of all files.
            let real = path.canonicalize().ok();
            let real = real.as_deref().and_then(Path::parent);
            needs.read.extend(real.map(Path::to_owned));
        }
    }
    needs.read.sort();
    needs.read.dedup();
    Ok(needs)
}

/// How often a self-made certificate's age is looked at.
const RENEWAL: Duration = Duration::from_secs(3600);

/// Serves until it is told to stop.
///
/// # Errors
/// The state directory cannot be used.
pub async fn run(start: Start<Config>) -> Result<(), Failure> {
    let keys = Keys::open(
        &start.state_dir(),
        &start.suite().hostname,
        start.config().clone(),
        now(),
    )
    .map_err(|error| Failure::new(error.to_string()))?;
    let counted = keys.clone();
    start.fact("certificates", move || {
        counted.certificates().len().to_string()
    });
    let counted = keys.clone();
    start.fact("dkim_keys", move || counted.dkim_keys("").len().to_string());
    let mut documents = start.documents();
    let mut stopping = start.stopping();
    let server = start.serve(keys.router(Router::new(Role::Keyd)));
    let mut renewal = tokio::time::interval(RENEWAL);
    renewal.set_missed_tick_behavior(MissedTickBehavior::Delay);
    renewal.tick().await;
    loop {
        let config = tokio::select! {
            _ = stopping.wait_for(|stop| *stop) => break,
            _ = renewal.tick() => None,
            changed = documents.changed() => {
                if changed.is_err() {
                    break;
                }
                let document = std::sync::Arc::clone(&documents.borrow_and_update());
                match document.section(Role::Keyd.name()) {
                    Ok(config) => Some(config),
                    Err(error) => {
                        tracing::error!(%error, "the section [keyd] stays as it was");
                        None
                    }
                }
            }
        };
        let keys = keys.clone();
        let reload = tokio::task::spawn_blocking(move || keys.reload(config, now()));
        if reload.await.is_err() {
            tracing::error!("reading the keys again was not finished");
        }
    }
    // Calls under way are answered first.
    let _ = server.await;
    Ok(())
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::UNIX_EPOCH
        .elapsed()
        .map_or(0, |time| time.as_secs())
}

/// Why something could not be done with a key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A name or a file that makes no sense; the caller's or the configuration's fault.
    #[error("{0}")]
    Invalid(String),
    /// There is a key of that name.
    #[error("there is such a key already: choose another selector")]
    Taken,
    /// There is no key of that name.
    #[error("there is no such key")]
    NotFound,
    /// The limit `keyd.dkim_keys`.
    #[error("there are {0} keys, the limit that keyd.dkim_keys sets")]
    TooMany(usize),
    /// The limit `keyd.issued_certificates`.
    #[error("there are {0} certificates, the limit that keyd.issued_certificates sets")]
    TooManyIssued(usize),
    /// A chain that an authority gave is not what was asked for; in what.
    #[error("the certificate is not taken: {0}")]
    Unfit(String),
    /// The text has no certificate that can be used.
    #[error("there is no PEM certificate in it")]
    NoCertificate,
    /// The text has no private key that can be used.
    #[error(
        "there is no PEM private key in it that can be used: RSA, ECDSA or Ed25519, without a passphrase"
    )]
    NoKey,
    /// The key belongs to another certificate.
    #[error("the key does not belong to the certificate")]
    Mismatch,
    /// The key cannot make such signatures.
    #[error("the key cannot make signatures of the scheme {0:#06x}")]
    Scheme(u16),
    /// The cryptographic library refused; with what.
    #[error("{0} failed")]
    Crypto(&'static str),
    /// The file system.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

impl From<KeyError> for Fault {
    fn from(error: KeyError) -> Self {
        let kind = match &error {
            KeyError::Invalid(_) | KeyError::Scheme(_) | KeyError::Unfit(_) => FaultKind::Invalid,
            KeyError::Taken => FaultKind::Conflict,
            KeyError::NotFound => FaultKind::NotFound,
            KeyError::TooMany(_) | KeyError::TooManyIssued(_) => FaultKind::OverQuota,
            KeyError::Io(_) => FaultKind::Temporary,
            KeyError::NoCertificate
            | KeyError::NoKey
            | KeyError::Mismatch
            | KeyError::Crypto(_) => FaultKind::Internal,
        };
        Self::new(kind, error.to_string())
    }
}
