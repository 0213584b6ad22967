//! Whether the certificates that a host shows are what is demanded: by authorities (RFC 5280, RFC 6125), by TLSA records
//! (RFC 7672 3), or not at all (RFC 7435).

use crate::result::{Problem, ResultType};
use crate::tlsa::{Tlsa, Usage};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, Der, ServerName, TrustAnchor, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::sync::{Arc, Mutex, PoisonError};
use webpki::{EndEntityCert, KeyUsage};

/// Certificates above the host's own that are looked at.
const CHAIN_MAX: usize = 16;

/// What is asked of the certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Check {
    /// Nothing: TLS keeps listeners out, not impostors.
    Nothing,
    /// A chain to an authority, and one of these names; `.example.org` is any below that.
    Names(Vec<String>),
    /// One of these records; where it names an authority, one of these names too.
    Dane {
        records: Vec<Tlsa>,
        names: Vec<String>,
    },
}

/// The check as a part of the handshake. The handshake itself is checked in any case, so the peer has the key of the
/// certificate that it shows.
#[derive(Debug)]
pub(crate) struct Verifier {
    pub(crate) provider: Arc<CryptoProvider>,
    pub(crate) check: Check,
    pub(crate) roots: Arc<RootCertStore>,
    /// Go on whatever is found.
    pub(crate) lenient: bool,
    found: Mutex<Option<Problem>>,
}

impl Verifier {
    pub(crate) fn new(
        provider: Arc<CryptoProvider>,
        check: Check,
        roots: Arc<RootCertStore>,
        lenient: bool,
    ) -> Self {
        Self {
            provider,
            check,
            roots,
            lenient,
            found: Mutex::new(None),
        }
    }

    /// What was wrong with the certificates, if they came so far.
    pub(crate) fn found(&self) -> Option<Problem> {
        self.found
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn judge(
        &self,
        host: &CertificateDer<'_>,
        above: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), (Problem, rustls::Error)> {
        let above = above.get(..above.len().min(CHAIN_MAX)).unwrap_or_default();
        match &self.check {
            Check::Nothing => Ok(()),
            Check::Names(names) => self.by_authority(host, above, now, names),
            Check::Dane { records, names } => self
                .by_records(host, above, now, records, names)
                .map_err(|problem| {
                    let error = CertificateError::ApplicationVerificationFailure;
                    (problem, rustls::Error::InvalidCertificate(error))
                }),
        }
    }

    fn by_authority(
        &self,
        host: &CertificateDer<'_>,
        above: &[CertificateDer<'_>],
        now: UnixTime,
        names: &[String],
    ) -> Result<(), (Problem, rustls::Error)> {
        let explained = |error: rustls::Error| (explain(&error), error);
        let certificate = ParsedCertificate::try_from(host).map_err(explained)?;
        verify_server_cert_signed_by_trust_anchor(
            &certificate,
            &self.roots,
            above,
            now,
            self.provider.signature_verification_algorithms.all,
        )
        .map_err(explained)?;
        let mut last = rustls::Error::InvalidCertificate(CertificateError::NotValidForName);
        for name in names {
            if name.starts_with('.') {
                if below(host, name) {
                    return Ok(());
                }
            } else if let Ok(name) = ServerName::try_from(name.as_str()) {
                match verify_server_name(&certificate, &name) {
                    Ok(()) => return Ok(()),
                    Err(error) => last = error,
                }
            }
        }
        Err(explained(last))
    }

    /// RFC 7672 3.1
    fn by_records(
        &self,
        host: &CertificateDer<'_>,
        above: &[CertificateDer<'_>],
        now: UnixTime,
        records: &[Tlsa],
        names: &[String],
    ) -> Result<(), Problem> {
        let broken = |error| {
            let text = format!("the host's certificate cannot be read: {error}");
            Problem::new(ResultType::ValidationFailure, text)
        };
        let certificate = EndEntityCert::try_from(host).map_err(broken)?;
        let key = certificate.subject_public_key_info();
        // RFC 7672 3.1.1: neither names nor dates count.
        let host_records = records
            .iter()
            .filter(|record| record.usage() == Some(Usage::Host));
        if host_records
            .into_iter()
            .any(|record| record.matches(host, &key))
        {
            return Ok(());
        }
        let authorities: Vec<&Tlsa> = records
            .iter()
            .filter(|record| record.usage() == Some(Usage::Authority))
            .collect();
        let anchors = anchors(&authorities, &certificate, above);
        if anchors.is_empty() {
            let records: Vec<String> = records.iter().map(ToString::to_string).collect();
            let text = format!(
                "the certificates fit none of the TLSA records {}",
                records.join(", ")
            );
            return Err(Problem::new(ResultType::TlsaInvalid, text));
        }
        // RFC 7672 3.1.2: a chain to that authority, in its time, and for one of the names of 3.2.2.
        certificate
            .verify_for_usage(
                self.provider.signature_verification_algorithms.all,
                &anchors,
                above,
                now,
                KeyUsage::server_auth(),
                None,
                None,
            )
            .map_err(|error| explain_path(&error))?;
        let named = names.iter().any(|name| {
            ServerName::try_from(name.as_str())
                .is_ok_and(|name| certificate.verify_is_valid_for_subject_name(&name).is_ok())
        });
        if named {
            return Ok(());
        }
        let text = format!("the certificate is not for {}", names.join(" or "));
        Err(Problem::new(ResultType::CertificateHostMismatch, text))
    }
}

/// The authorities that the records mean: certificates that the host sent, or what stands in the records themselves.
fn anchors<'a>(
    records: &[&'a Tlsa],
    host: &EndEntityCert<'_>,
    above: &'a [CertificateDer<'a>],
) -> Vec<TrustAnchor<'static>> {
    let mut anchors = Vec::new();
    let mut issuers = vec![host.issuer().to_vec()];
    for certificate in above {
        let Ok(parsed) = EndEntityCert::try_from(certificate) else {
            continue;
        };
        issuers.push(parsed.issuer().to_vec());
        let key = parsed.subject_public_key_info();
        if records
            .iter()
            .any(|record| record.matches(certificate, &key))
            && let Ok(anchor) = webpki::anchor_from_trusted_cert(certificate)
        {
            anchors.push(anchor.to_owned());
        }
    }
    for record in records.iter().filter(|record| record.matching == 0) {
        // RFC 7671 5.2.2: the host need not send what stands whole in DNS.
        if record.selector == 0 {
            let certificate = CertificateDer::from(record.data.as_slice());
            if let Ok(anchor) = webpki::anchor_from_trusted_cert(&certificate) {
                anchors.push(anchor.to_owned());
            }
        } else if let Some(content) = sequence(&record.data) {
            // RFC 7671 5.2.3: a bare key, which whoever issued a certificate of the chain may have.
            anchors.extend(issuers.iter().map(|issuer| TrustAnchor {
                subject: Der::from(issuer.clone()),
                subject_public_key_info: Der::from(content.to_vec()),
                name_constraints: None,
            }));
        }
    }
    anchors
}

/// What a DER SEQUENCE holds.
fn sequence(der: &[u8]) -> Option<&[u8]> {
    let rest = der.strip_prefix(&[0x30])?;
    let (first, rest) = rest.split_first()?;
    let (length, content) = match first {
        short @ 0..=0x7f => (usize::from(*short), rest),
        0x81 => {
            let (length, content) = rest.split_first()?;
            (usize::from(*length), content)
        }
        0x82 => {
            let (length, content) = rest.split_at_checked(2)?;
            (
                usize::from(u16::from_be_bytes(length.try_into().ok()?)),
                content,
            )
        }
        _ => return None,
    };
    (content.len() == length).then_some(content)
}

/// Whether the certificate has a name below `.example.org`.
fn below(certificate: &CertificateDer<'_>, suffix: &str) -> bool {
    EndEntityCert::try_from(certificate).is_ok_and(|certificate| {
        certificate.valid_dns_names().any(|name| {
            let name = name.to_ascii_lowercase();
            name.strip_suffix(suffix)
                .is_some_and(|label| !label.is_empty())
        })
    })
}

/// In the words of reports.
pub(crate) fn explain(error: &rustls::Error) -> Problem {
    use CertificateError as C;
    let kind = match error {
        rustls::Error::InvalidCertificate(error) => match error {
            C::Expired
            | C::ExpiredContext { .. }
            | C::NotValidYet
            | C::NotValidYetContext { .. } => ResultType::CertificateExpired,
            C::NotValidForName | C::NotValidForNameContext { .. } => {
                ResultType::CertificateHostMismatch
            }
            C::ApplicationVerificationFailure => ResultType::TlsaInvalid,
            _ => ResultType::CertificateNotTrusted,
        },
        _ => ResultType::ValidationFailure,
    };
    Problem::new(kind, error.to_string())
}

fn explain_path(error: &webpki::Error) -> Problem {
    use webpki::Error as W;
    let (kind, text) = match error {
        W::CertExpired { .. } => (
            ResultType::CertificateExpired,
            "a certificate has expired".to_owned(),
        ),
        W::CertNotValidYet { .. } => (
            ResultType::CertificateExpired,
            "a certificate is not valid yet".to_owned(),
        ),
        W::UnknownIssuer => (
            ResultType::CertificateNotTrusted,
            "the certificate was not issued by the authority that TLSA names".to_owned(),
        ),
        other => (
            ResultType::CertificateNotTrusted,
            format!("the chain of certificates is not valid: {other}"),
        ),
    };
    Problem::new(kind, text)
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.judge(end_entity, intermediates, now) {
            Ok(()) => Ok(ServerCertVerified::assertion()),
            Err((problem, error)) => {
                *self.found.lock().unwrap_or_else(PoisonError::into_inner) = Some(problem);
                if self.lenient {
                    Ok(ServerCertVerified::assertion())
                } else {
                    Err(error)
                }
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
