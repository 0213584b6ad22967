//! TLS towards other hosts (RFC 3207, RFC 7435, RFC 8314).

use crate::result::{Problem, ResultType};
use crate::transport::MinVersion;
use crate::verify::{Check, Verifier};
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// How a handshake is to be.
#[derive(Clone, Debug)]
pub(crate) struct Handshake<'a> {
    /// Who is spoken to, in the handshake too (SNI): a name or an address.
    pub(crate) name: &'a str,
    pub(crate) check: Check,
    /// Go on with a certificate that is not as it should be.
    pub(crate) lenient: bool,
    pub(crate) min_version: MinVersion,
}

/// All ways to connect.
pub(crate) struct TlsClient {
    provider: Arc<CryptoProvider>,
    /// Without a check of the certificate, from TLS 1.2 on.
    unverified: Arc<ClientConfig>,
    /// Authorities of the configuration, next to the system's.
    extra: Vec<CertificateDer<'static>>,
    /// Read when they are first needed: the system's authorities take a megabyte, and most mail goes unverified.
    roots: OnceCell<Arc<RootCertStore>>,
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
        let anyone = Verifier::new(
            provider.clone(),
            Check::Nothing,
            Arc::new(RootCertStore::empty()),
            true,
        );
        let unverified = config(&provider, MinVersion::Tls12, Arc::new(anyone))
            .map_err(|error| error.to_string())?;
        Ok(Self {
            provider,
            unverified: Arc::new(unverified),
            extra,
            roots: OnceCell::new(),
        })
    }

    /// Shakes hands. With the stream comes what was wrong and did not matter.
    ///
    /// # Errors
    /// What was wrong.
    pub(crate) async fn connect(
        &self,
        stream: TcpStream,
        how: &Handshake<'_>,
    ) -> Result<(TlsStream<TcpStream>, Option<Problem>), Problem> {
        let failed = |text: String| Problem::new(ResultType::ValidationFailure, text);
        let name = match how.name.parse::<IpAddr>() {
            Ok(address) => ServerName::IpAddress(address.into()),
            Err(_) => ServerName::try_from(how.name.to_owned())
                .map_err(|_| failed(format!("{} is no name that TLS could check", how.name)))?,
        };
        if how.check == Check::Nothing && how.min_version == MinVersion::Tls12 {
            let connector = TlsConnector::from(self.unverified.clone());
            return match connector.connect(name, stream).await {
                Ok(stream) => Ok((stream, None)),
                Err(error) => Err(failed(error.to_string())),
            };
        }
        let roots = match how.check {
            Check::Names(_) => self
                .roots()
                .await
                .map_err(|error| failed(error.to_string()))?,
            Check::Nothing | Check::Dane { .. } => Arc::new(RootCertStore::empty()),
        };
        let verifier = Arc::new(Verifier::new(
            self.provider.clone(),
            how.check.clone(),
            roots,
            how.lenient,
        ));
        let mut config = config(&self.provider, how.min_version, verifier.clone())
            .map_err(|error| failed(error.to_string()))?;
        // A session that is resumed shows no certificate, and what is demanded may have changed since.
        config.resumption = Resumption::disabled();
        match TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
        {
            Ok(stream) => Ok((stream, verifier.found())),
            Err(error) => Err(verifier
                .found()
                .unwrap_or_else(|| failed(error.to_string()))),
        }
    }

    /// What HTTPS is spoken with: certificates are verified by name.
    pub(crate) async fn https(&self) -> std::io::Result<ClientConfig> {
        let roots = self.roots().await?;
        let builder = ClientConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(std::io::Error::other)?;
        Ok(builder.with_root_certificates(roots).with_no_client_auth())
    }

    /// The same, with any certificate.
    pub(crate) fn unverified(&self) -> ClientConfig {
        (*self.unverified).clone()
    }

    async fn roots(&self) -> std::io::Result<Arc<RootCertStore>> {
        let make = || async {
            let extra = self.extra.clone();
            tokio::task::spawn_blocking(move || {
                let mut roots = RootCertStore::empty();
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                roots.add_parsable_certificates(extra);
                Arc::new(roots)
            })
            .await
            .map_err(std::io::Error::other)
        };
        self.roots.get_or_try_init(make).await.cloned()
    }
}

fn config(
    provider: &Arc<CryptoProvider>,
    min_version: MinVersion,
    verifier: Arc<Verifier>,
) -> Result<ClientConfig, rustls::Error> {
    let versions = match min_version {
        MinVersion::Tls12 => &[&TLS13, &TLS12][..],
        MinVersion::Tls13 => &[&TLS13],
    };
    Ok(ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth())
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
