//! TLS-ALPN-01 (RFC 8737): a handshake whose certificate is the answer.

use crate::answers::Answers;
use crate::door::Visitor;
use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::sync::Arc;
use tokio::io::AsyncWriteExt;
use tokio_rustls::LazyConfigAcceptor;

/// RFC 8737 6.2
const PROTOCOL: &[u8] = b"acme-tls/1";

/// Answers one handshake. Whoever asks for another protocol, or for a name that does not wait, finds the connection closed.
pub(crate) async fn answer(visitor: Box<dyn Visitor>, answers: Answers) {
    let acceptor = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), visitor);
    let Ok(start) = acceptor.await else {
        return;
    };
    let hello = start.client_hello();
    // RFC 8737 3: that protocol alone.
    let asked = hello
        .alpn()
        .is_some_and(|mut protocols| protocols.any(|one| one == PROTOCOL));
    let Some(name) = hello.server_name().filter(|_| asked).map(str::to_owned) else {
        return;
    };
    let Some(digest) = answers.name(&name) else {
        tracing::debug!(name, "no TLS-ALPN-01 challenge waits for this name");
        return;
    };
    let config = match config(&name, &digest) {
        Ok(config) => config,
        Err(error) => {
            tracing::error!(name, error, "the answer to TLS-ALPN-01 cannot be made");
            return;
        }
    };
    if let Ok(mut stream) = start.into_stream(config).await {
        let _ = stream.shutdown().await;
    }
}

/// A certificate that holds the digest (RFC 8737 3). Its key is good for nothing else, and forgotten at once.
fn config(name: &str, digest: &[u8; 32]) -> Result<Arc<ServerConfig>, String> {
    let told = |error: &dyn std::fmt::Display| error.to_string();
    let mut params = CertificateParams::new(vec![name.to_owned()]).map_err(|e| told(&e))?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let key = KeyPair::generate().map_err(|e| told(&e))?;
    let certificate = params.self_signed(&key).map_err(|e| told(&e))?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let key = any_supported_type(&key).map_err(|e| told(&e))?;
    // Unchecked: RFC 8737 3 makes the extension critical, and rustls does not know it.
    let certified = CertifiedKey::new(vec![certificate.der().clone()], key);
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|e| told(&e))?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    Ok(Arc::new(config))
}
