//! The certificate that keyd makes itself, so that TLS works before anybody has got one. No client trusts it.

use crate::certificate::Held;
use crate::config::Config;
use crate::{KeyError, state_file};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose};
use std::path::Path;
use std::time::Duration;
use zeroize::Zeroizing;

const DAY: u64 = 86_400;

/// The one in `self-signed.pem` if it is for this host and not about to expire, or a new one.
///
/// # Errors
/// It cannot be made or written.
pub(crate) fn current(
    state: &Path,
    host: &str,
    config: &Config,
    now: u64,
) -> Result<Held, KeyError> {
    let path = state.join("self-signed.pem");
    if let Some(pem) = state_file::read(&path)? {
        match Held::from_pem(&pem, &pem, true) {
            Ok(held)
                if held.public.names == names(host)
                    && held.public.expires > now + u64::from(config.renew_days) * DAY =>
            {
                return Ok(held);
            }
            Ok(_) => tracing::info!("the self-made certificate is renewed"),
            Err(error) => tracing::warn!(%error, "the self-made certificate is made anew"),
        }
    }
    let pem = make(host, now, u64::from(config.self_signed_days.max(1)) * DAY)?;
    let held = Held::from_pem(pem.as_bytes(), pem.as_bytes(), true)?;
    state_file::write(&path, pem.as_bytes())?;
    tracing::warn!(
        host,
        "no usable certificate is configured: clients will warn of the one made by ourselves; set [[keyd.certificate]], or have certd get one"
    );
    Ok(held)
}

fn names(host: &str) -> Vec<String> {
    let mut names = vec![host.to_ascii_lowercase()];
    if names.iter().all(|name| name != "localhost") {
        names.push("localhost".to_owned());
    }
    names
}

/// Certificate and key in one PEM text.
fn make(host: &str, now: u64, validity: u64) -> Result<Zeroizing<String>, KeyError> {
    let failed = |_: rcgen::Error| KeyError::Crypto("self-made certificate");
    let mut subjects = names(host);
    // These become IP addresses, which are not among the names.
    subjects.extend(["127.0.0.1".to_owned(), "::1".to_owned()]);
    let mut params = CertificateParams::new(subjects).map_err(failed)?;
    params
        .distinguished_name
        .push(DnType::CommonName, host.to_ascii_lowercase());
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    // A day of room for clients whose clock is slow.
    params.not_before = epoch + Duration::from_secs(now.saturating_sub(DAY));
    params.not_after = epoch + Duration::from_secs(now + validity);
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(failed)?;
    let certificate = params.self_signed(&key).map_err(failed)?;
    let key = Zeroizing::new(key.serialize_pem());
    Ok(Zeroizing::new(format!("{}{}", certificate.pem(), *key)))
}
