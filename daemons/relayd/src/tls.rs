//! TLS towards other hosts (RFC 3207, RFC 7435, RFC 8314).

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Both ways to connect: with the certificate verified, and without.
pub(crate) struct TlsClient {
    provider: Arc<CryptoProvider>,
    unverified: Arc<ClientConfig>,
    /// Authorities of the configuration, next to the system's.
    extra: Vec<CertificateDer<'static>>,
    /// Made when it is first needed: the system's authorities take a megabyte, and most mail goes unverified.
    verified: OnceCell<Arc<ClientConfig>>,
}

impl TlsClient {
    /// `ca_file`: further authorities in PEM, next to the system's.
    ///
    /// # Errors
    /// If that file cannot be read, or holds no certificate.
    pub(crate) fn new(ca_file: Option<&Path>) -> Result<Self, String> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let extra = match ca_file {
            Some(path) => authorities(path)
                .map_err(|error| format!("tls_ca_file {}: {error}", path.display()))?,
            None => Vec::new(),
        };
        let unverified = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider.clone())))
            .with_no_client_auth();
        Ok(Self {
            provider,
            unverified: Arc::new(unverified),
            extra,
            verified: OnceCell::new(),
        })
    }

    /// Shakes hands. `name` is the host's name or address.
    pub(crate) async fn connect(
        &self,
        stream: TcpStream,
        name: &str,
        verify: bool,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let name = match name.parse::<IpAddr>() {
            Ok(address) => ServerName::IpAddress(address.into()),
            Err(_) => ServerName::try_from(name.to_owned()).map_err(|_| {
                std::io::Error::other(format!("{name} is no name that TLS could check"))
            })?,
        };
        let config = if verify {
            self.verified().await?
        } else {
            self.unverified.clone()
        };
        TlsConnector::from(config).connect(name, stream).await
    }

    async fn verified(&self) -> std::io::Result<Arc<ClientConfig>> {
        let make = || async {
            let (provider, extra) = (self.provider.clone(), self.extra.clone());
            tokio::task::spawn_blocking(move || verifying(provider, extra))
                .await
                .map_err(std::io::Error::other)?
        };
        self.verified.get_or_try_init(make).await.cloned()
    }
}

fn verifying(
    provider: Arc<CryptoProvider>,
    extra: Vec<CertificateDer<'static>>,
) -> std::io::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots.add_parsable_certificates(extra);
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(std::io::Error::other)?;
    Ok(Arc::new(
        builder.with_root_certificates(roots).with_no_client_auth(),
    ))
}

/// The certificates of a PEM file, all of which must be usable.
fn authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| error.to_string())?;
    if certificates.is_empty() {
        return Err("it holds no certificate".to_owned());
    }
    let mut probe = RootCertStore::empty();
    for certificate in &certificates {
        probe
            .add(certificate.clone())
            .map_err(|error| error.to_string())?;
    }
    Ok(certificates)
}

/// Takes any certificate: opportunistic TLS keeps listeners out, not impostors (RFC 7435). The handshake itself is still
/// checked, so the peer has the key of the certificate that it shows.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
