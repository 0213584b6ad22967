//! The program itself, over its socket.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use ipc::api::keyd::{
    CertificatesChanged, DkimAlgorithm, DkimCreate, DkimKeys, DkimRemove, DkimSign, DkimState,
    ListCertificates, MacSign, MacVerify, TlsSign, WatchCertificates,
};
use ipc::{CallError, Client, ClientOptions, FaultKind, Heard};
use rcgen::{CertificateParams, KeyPair};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use types::{Role, TraceId};

const TRACE: TraceId = TraceId(1);

struct Daemon {
    child: Child,
    directory: PathBuf,
}

impl Daemon {
    fn start(directory: &Path, section: &str) -> Self {
        let (state, run) = (directory.join("state"), directory.join("run"));
        fs::create_dir_all(&state).unwrap();
        fs::create_dir_all(&run).unwrap();
        let config = directory.join("posthouse.toml");
        let suite = format!(
            "[suite]\nhostname = \"mx.example.org\"\nstate_dir = {state:?}\nrun_dir = {run:?}\nusers = \"single\"\n\n{section}"
        );
        fs::write(&config, suite).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_keyd"))
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Self {
            child,
            directory: directory.to_owned(),
        }
    }

    async fn client(&self, caller: Role) -> Client {
        let path = runtime::socket_path(&self.directory.join("run"), Role::Keyd);
        let client = Client::new(caller, Role::Keyd, path, ClientOptions::default());
        assert!(client.ready(Duration::from_secs(60)).await);
        client
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &id]).status();
        assert!(sent.unwrap().success());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn write_certificate(directory: &Path, name: &str) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    // As renewal does it: new files take the place of the old ones.
    for (file, text) in [
        ("tls.key", key.serialize_pem()),
        ("tls.crt", certificate.pem()),
    ] {
        let fresh = directory.join("fresh");
        fs::write(&fresh, text).unwrap();
        fs::rename(&fresh, directory.join(file)).unwrap();
    }
}

fn kind<T: std::fmt::Debug>(result: Result<T, CallError>) -> FaultKind {
    result.unwrap_err().fault().unwrap().kind
}

#[tokio::test]
async fn keys_survive_a_kill_and_serve_their_callers_only() {
    let directory = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::start(directory.path(), "");
    let tool = daemon.client(Role::Posthouse).await;
    let create = DkimCreate {
        domain: "example.org".into(),
        selector: "a".into(),
        algorithm: DkimAlgorithm::Rsa2048,
        state: DkimState::Active,
    };
    let key = tool.call(TRACE, &create).await.unwrap();
    assert_eq!(kind(tool.call(TRACE, &create).await), FaultKind::Conflict);
    let certificates = tool.call(TRACE, &ListCertificates).await.unwrap();
    assert_eq!(certificates[0].names, ["mx.example.org", "localhost"]);
    let sealed = MacSign {
        purpose: "grant-1".into(),
        data: b"data".as_slice().into(),
    };
    let mac = daemon
        .client(Role::Authd)
        .await
        .call(TRACE, &sealed)
        .await
        .unwrap();
    // Who may not, may not.
    assert_eq!(kind(tool.call(TRACE, &sealed).await), FaultKind::Denied);

    daemon.child.kill().unwrap();
    daemon.child.wait().unwrap();
    let daemon = Daemon::start(directory.path(), "");
    let relay = daemon.client(Role::Relayd).await;
    let keys = DkimKeys {
        domain: "example.org".into(),
    };
    assert_eq!(relay.call(TRACE, &keys).await.unwrap(), [key]);
    let sign = DkimSign {
        domain: "example.org".into(),
        selector: "a".into(),
        data: b"from:x".as_slice().into(),
    };
    assert_eq!(relay.call(TRACE, &sign).await.unwrap().len(), 256);
    let verify = MacVerify {
        purpose: sealed.purpose,
        data: sealed.data,
        mac,
    };
    assert!(
        daemon
            .client(Role::Stored)
            .await
            .call(TRACE, &verify)
            .await
            .unwrap()
    );
    let smtpd = daemon.client(Role::Smtpd).await;
    assert_eq!(
        smtpd.call(TRACE, &ListCertificates).await.unwrap(),
        certificates
    );
    let handshake = TlsSign {
        key: certificates[0].key,
        scheme: certificates[0].schemes[0],
        message: b"transcript".as_slice().into(),
    };
    assert!(!smtpd.call(TRACE, &handshake).await.unwrap().is_empty());
    let unknown = TlsSign {
        key: 1,
        ..handshake
    };
    assert_eq!(kind(smtpd.call(TRACE, &unknown).await), FaultKind::NotFound);
    let remove = DkimRemove {
        domain: "example.org".into(),
        selector: "a".into(),
    };
    daemon
        .client(Role::Posthouse)
        .await
        .call(TRACE, &remove)
        .await
        .unwrap();
    assert_eq!(kind(relay.call(TRACE, &sign).await), FaultKind::NotFound);
}

#[tokio::test]
async fn a_renewed_certificate_is_taken_on_hup() {
    let directory = tempfile::tempdir().unwrap();
    let files = directory.path().join("certificates");
    fs::create_dir(&files).unwrap();
    write_certificate(&files, "first.example");
    let section = format!(
        "[[keyd.certificate]]\ncert = {:?}\nkey = {:?}\n",
        files.join("tls.crt"),
        files.join("tls.key")
    );
    let daemon = Daemon::start(directory.path(), &section);
    let client = daemon.client(Role::Imapd).await;
    let mut events = client.events::<CertificatesChanged>();
    client.call(TRACE, &WatchCertificates).await.unwrap();
    let first = client.call(TRACE, &ListCertificates).await.unwrap();
    assert_eq!(first[0].names, ["first.example"]);
    write_certificate(&files, "second.example");
    daemon.signal("HUP");
    let changed = async { while matches!(events.next().await.unwrap(), Heard::Resync) {} };
    tokio::time::timeout(Duration::from_secs(60), changed)
        .await
        .unwrap();
    let second = client.call(TRACE, &ListCertificates).await.unwrap();
    assert_eq!(second[0].names, ["second.example"]);
    // A handshake that began before still ends.
    let handshake = TlsSign {
        key: first[0].key,
        scheme: first[0].schemes[0],
        message: b"transcript".as_slice().into(),
    };
    assert!(client.call(TRACE, &handshake).await.is_ok());
}
