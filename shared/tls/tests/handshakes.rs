//! Handshakes with real clients of rustls, whose private keys are behind a socket.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use ipc::api::keyd::{
    Certificate, CertificatesChanged, ListCertificates, TlsSign, WatchCertificates,
};
use ipc::{Client, ClientOptions, Connection, Fault, FaultKind, Router, ServerOptions, Users};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, HandshakeKind, RootCertStore, SignatureScheme, SupportedProtocolVersion,
};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tls::Certificates;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::watch;
use types::{Octets, Role};

/// Certificates with their keys, as keyd has them.
#[derive(Default)]
struct Keys {
    held: Mutex<Vec<(Vec<String>, CertificateDer<'static>, PrivateKeyDer<'static>)>>,
    watchers: Mutex<Vec<Connection>>,
    signatures: AtomicU32,
}

impl Keys {
    fn put(&self, names: &[&str], algorithm: &'static rcgen::SignatureAlgorithm) -> Vec<u8> {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let certificate = rcgen::CertificateParams::new(names.clone())
            .unwrap()
            .self_signed(&key)
            .unwrap();
        let private = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let der = certificate.der().clone();
        self.held
            .lock()
            .unwrap()
            .insert(0, (names, der.clone(), private));
        der.to_vec()
    }

    fn list(&self) -> Vec<Certificate> {
        let held = self.held.lock().unwrap();
        let certificates = held.iter().rev().enumerate().rev();
        certificates
            .map(|(key, (names, der, _))| Certificate {
                key: key as u64,
                names: names.clone(),
                chain: vec![Octets(der.to_vec())],
                schemes: [
                    SignatureScheme::ECDSA_NISTP256_SHA256,
                    SignatureScheme::ED25519,
                ]
                .map(u16::from)
                .to_vec(),
                expires: 0,
                self_signed: true,
            })
            .collect()
    }

    fn sign(&self, request: &TlsSign) -> Result<Octets, Fault> {
        self.signatures.fetch_add(1, Ordering::Relaxed);
        let held = self.held.lock().unwrap();
        let (_, _, private) = held.iter().rev().nth(request.key as usize).unwrap();
        let key = aws_lc_rs::sign::any_supported_type(private).unwrap();
        let signer = key
            .choose_scheme(&[SignatureScheme::from(request.scheme)])
            .ok_or(Fault::new(FaultKind::Invalid, "not this key's scheme"))?;
        Ok(Octets(signer.sign(&request.message.0).unwrap()))
    }

    fn changed(&self) {
        let watchers = self.watchers.lock().unwrap();
        assert!(!watchers.is_empty());
        for watcher in watchers.iter() {
            watcher.notify(&CertificatesChanged);
        }
    }
}

struct Suite {
    keys: Arc<Keys>,
    certificates: Certificates,
    server: std::net::SocketAddr,
    keyd: tokio::task::JoinHandle<()>,
    _folder: tempfile::TempDir,
    _stop: watch::Sender<bool>,
}

/// keyd, and a listener that greets under TLS.
async fn suite(keys: Keys) -> Suite {
    let keys = Arc::new(keys);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keyd.sock");
    let (list, watchers, sign) = (keys.clone(), keys.clone(), keys.clone());
    let router = Router::new(Role::Keyd)
        .on(move |_, _: ListCertificates| std::future::ready(Ok(list.list())))
        .on(move |context, _: WatchCertificates| {
            watchers.watchers.lock().unwrap().push(context.connection);
            std::future::ready(Ok(()))
        })
        .on(move |_, request: TlsSign| std::future::ready(sign.sign(&request)));
    let (stop, stopping) = watch::channel(false);
    let listener = UnixListener::bind(&path).unwrap();
    let keyd =
        tokio::spawn(router.serve(listener, Users::Single, ServerOptions::default(), stopping));
    let client = Client::new(Role::Imapd, Role::Keyd, &path, ClientOptions::default());
    let signer = ipc::blocking::Client::new(Role::Imapd, Role::Keyd, &path);
    let certificates = Certificates::from_keyd(client, signer).await;
    let acceptor = certificates.acceptor().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    return;
                };
                stream.write_all(b"* OK\r\n").await.unwrap();
                stream.shutdown().await.unwrap();
            });
        }
    });
    Suite {
        keys,
        certificates,
        server,
        keyd,
        _folder: folder,
        _stop: stop,
    }
}

fn client(root: &[u8], version: &'static SupportedProtocolVersion) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(root.to_vec())).unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

impl Suite {
    /// Shakes hands and reads to the end. The client verifies chain, name and signature.
    async fn greet(&self, config: &Arc<ClientConfig>, name: &str) -> Option<HandshakeKind> {
        let stream = TcpStream::connect(self.server).await.unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(config));
        let mut stream = connector.connect(name, stream).await.ok()?;
        let mut greeting = String::new();
        stream.read_to_string(&mut greeting).await.unwrap();
        assert_eq!(greeting, "* OK\r\n");
        stream.get_ref().1.handshake_kind()
    }

    fn signatures(&self) -> u32 {
        self.keys.signatures.load(Ordering::Relaxed)
    }
}

const VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS13, &rustls::version::TLS12];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keyd_signs_for_the_name_that_is_asked() {
    let keys = Keys::default();
    let ecdsa = keys.put(&["mail.example.org"], &rcgen::PKCS_ECDSA_P256_SHA256);
    let wild = keys.put(&["*.example.net"], &rcgen::PKCS_ECDSA_P256_SHA256);
    let suite = suite(keys).await;
    for version in VERSIONS {
        let config = client(&ecdsa, version);
        assert!(suite.greet(&config, "mail.example.org").await.is_some());
        assert!(suite.greet(&config, "a.example.net").await.is_none());
        let config = client(&wild, version);
        assert!(suite.greet(&config, "a.example.net").await.is_some());
        assert!(suite.greet(&config, "mail.example.org").await.is_none());
    }
    assert!(suite.signatures() >= 4);
}

#[tokio::test]
async fn it_works_on_one_thread_if_keyd_is_another_process() {
    // keyd on a thread of its own, as the signer blocks ours.
    let keys = Keys::default();
    let root = keys.put(&["mail.example.org"], &rcgen::PKCS_ECDSA_P256_SHA256);
    let (made, wait) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let reactor = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .unwrap();
        reactor.block_on(async {
            let _ = made.send(suite(keys).await);
            std::future::pending::<()>().await;
        });
    });
    let suite = wait.await.unwrap();
    let acceptor = suite.certificates.acceptor().unwrap();
    let (near, far) = tokio::io::duplex(64 * 1024);
    let connector = tokio_rustls::TlsConnector::from(client(&root, &rustls::version::TLS13));
    let name = ServerName::try_from("mail.example.org").unwrap();
    let (server, client) = tokio::join!(acceptor.accept(near), connector.connect(name, far));
    assert!(server.is_ok() && client.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_comes_again_needs_no_signature() {
    let keys = Keys::default();
    let root = keys.put(&["mail.example.org"], &rcgen::PKCS_ECDSA_P256_SHA256);
    let suite = suite(keys).await;
    for version in VERSIONS {
        let config = client(&root, version);
        let first = suite.greet(&config, "mail.example.org").await.unwrap();
        assert_ne!(first, HandshakeKind::Resumed);
        let signed = suite.signatures();
        let second = suite.greet(&config, "mail.example.org").await.unwrap();
        assert_eq!(second, HandshakeKind::Resumed);
        assert_eq!(suite.signatures(), signed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_certificate_is_used_without_a_restart() {
    let keys = Keys::default();
    let old = keys.put(&["mail.example.org"], &rcgen::PKCS_ECDSA_P256_SHA256);
    let suite = suite(keys).await;
    let config = client(&old, &rustls::version::TLS13);
    assert!(suite.greet(&config, "mail.example.org").await.is_some());
    // The client may still be on its way to watching.
    while suite.keys.watchers.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    let new = suite
        .keys
        .put(&["mail.example.org"], &rcgen::PKCS_ECDSA_P256_SHA256);
    suite.keys.changed();
    let patience = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let config = client(&new, &rustls::version::TLS13);
        if suite.greet(&config, "mail.example.org").await.is_some() {
            break;
        }
        assert!(tokio::time::Instant::now() < patience);
        tokio::task::yield_now().await;
    }
    let fresh = client(&old, &rustls::version::TLS13);
    assert!(suite.greet(&fresh, "mail.example.org").await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_keyd_handshakes_fail_and_those_that_resume_do_not() {
    let keys = Keys::default();
    let root = keys.put(&["mail.example.org"], &rcgen::PKCS_ECDSA_P256_SHA256);
    let suite = suite(keys).await;
    let known = client(&root, &rustls::version::TLS13);
    assert!(suite.greet(&known, "mail.example.org").await.is_some());
    suite.keyd.abort();
    while !suite.keyd.is_finished() {
        tokio::task::yield_now().await;
    }
    let stranger = client(&root, &rustls::version::TLS13);
    assert!(suite.greet(&stranger, "mail.example.org").await.is_none());
    let again = suite.greet(&known, "mail.example.org").await;
    assert_eq!(again, Some(HandshakeKind::Resumed));
}
