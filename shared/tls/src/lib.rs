//! TLS for the daemons that listen, with private keys that stay in keyd.
//!
//! [`Certificates`] asks keyd for the chains and keeps them current; rustls chooses one by SNI, and each handshake's one
//! signature is made by keyd over its socket. A listener that is hijacked can sign while it is, and take nothing along.
#![forbid(unsafe_code)]

mod names;
mod signer;
mod wire;

pub use wire::Wire;

use ipc::api::keyd::{Certificate, CertificatesChanged, ListCertificates, WatchCertificates};
use ipc::{Client, blocking};
use names::Chosen;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::CertificateDer;
use signer::RemoteKey;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio_rustls::TlsAcceptor;
use types::TraceId;

/// The certificates that keyd holds keys for, kept current.
#[derive(Clone, Debug)]
pub struct Certificates {
    chosen: Arc<RwLock<Arc<Chosen>>>,
}

impl Certificates {
    /// Asks keyd, waiting for it as long as it takes, and follows its changes in the background.
    ///
    /// `client` and `signer` are two ways to the same keyd: handshakes are signed in rustls's blocking code.
    pub async fn from_keyd(client: Client, signer: blocking::Client) -> Self {
        let signer = Arc::new(signer);
        let mut events = client.events::<CertificatesChanged>();
        let chosen = Arc::new(RwLock::new(Arc::new(ask(&client, &signer).await)));
        let current = Arc::clone(&chosen);
        tokio::spawn(async move {
            loop {
                // A lost notice is made good by the next connection: it begins with a resync.
                if let Err(error) = client.call(TraceId(0), &WatchCertificates).await {
                    tracing::debug!(%error, "keyd does not tell of changes now");
                }
                // Asked after it began to watch, so that no change falls between.
                let new = Arc::new(ask(&client, &signer).await);
                *current.write().unwrap_or_else(PoisonError::into_inner) = new;
                tracing::debug!("certificates read again");
                if events.next().await.is_none() {
                    return;
                }
            }
        });
        Self { chosen }
    }

    /// An acceptor for TLS 1.2 and 1.3 with these certificates. Make it once and clone it: sessions resume within it.
    ///
    /// # Errors
    /// None that a configuration could cause: the provider lacks the protocol versions.
    pub fn acceptor(&self) -> Result<TlsAcceptor, rustls::Error> {
        self.acceptor_for(&[])
    }

    /// As [`Self::acceptor`], for protocols that are chosen in the handshake (RFC 7301), the best first.
    ///
    /// # Errors
    /// As [`Self::acceptor`].
    pub fn acceptor_for(&self, protocols: &[&[u8]]) -> Result<TlsAcceptor, rustls::Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(self.clone()));
        // RFC 5077, RFC 8446 2.2: clients that come again need no signature. Tickets are sealed with keys that change.
        config.ticketer = aws_lc_rs::Ticketer::new()?;
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        config.send_tls13_tickets = 1;
        config.alpn_protocols = protocols.iter().map(|one| one.to_vec()).collect();
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

impl Certificates {
    /// Whether a certificate is for this name, and not just the default one.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        let chosen = Arc::clone(&self.chosen.read().unwrap_or_else(PoisonError::into_inner));
        chosen.has(name)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let chosen = Arc::clone(&self.chosen.read().unwrap_or_else(PoisonError::into_inner));
        chosen.for_name(hello.server_name())
    }
}

async fn ask(client: &Client, signer: &Arc<blocking::Client>) -> Chosen {
    loop {
        match client.call(TraceId(0), &ListCertificates).await {
            Ok(certificates) if !certificates.is_empty() => {
                let keys = certificates.into_iter().map(|certificate| {
                    let names = certificate.names.clone();
                    (names, Arc::new(certified(certificate, signer)))
                });
                return Chosen::new(keys.collect());
            }
            Ok(_) => tracing::error!("keyd has no certificate: TLS waits for one"),
            Err(error) => {
                tracing::warn!(%error, "keyd does not give certificates: TLS waits for it")
            }
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

fn certified(certificate: Certificate, signer: &Arc<blocking::Client>) -> CertifiedKey {
    let key = RemoteKey::new(certificate.key, &certificate.schemes, Arc::clone(signer));
    let chain = certificate
        .chain
        .into_iter()
        .map(|der| CertificateDer::from(der.0))
        .collect();
    CertifiedKey::new(chain, Arc::new(key))
}
