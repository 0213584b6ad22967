//! The program itself, over its socket, with a keyd that the test plays.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use ipc::api::authd::{
    Account, AccountPut, AuthClient, AuthContinue, AuthReply, AuthStart, Domain, DomainPut,
    MaySend, NewPassword, PutMode, Resolution, ResolveRecipient, Service, Target,
};
use ipc::api::keyd::MacSign;
use ipc::{Client, ClientOptions, Router, ServerOptions, Users};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::sync::watch;
use types::{AccountId, Rights, Role, TraceId};

const TRACE: TraceId = TraceId(1);

struct Daemon {
    child: Child,
    run: PathBuf,
}

impl Daemon {
    fn start(directory: &Path) -> Self {
        let (state, run) = (directory.join("state"), directory.join("run"));
        fs::create_dir_all(&state).unwrap();
        let config = directory.join("posthouse.toml");
        let text = format!(
            "[suite]\nhostname = \"mx.example.org\"\nstate_dir = {state:?}\nrun_dir = {run:?}\nusers = \"single\"\n"
        );
        fs::write(&config, text).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_authd"))
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, run }
    }

    async fn client(&self, caller: Role) -> Client {
        let path = runtime::socket_path(&self.run, Role::Authd);
        let client = Client::new(caller, Role::Authd, path, ClientOptions::default());
        assert!(client.ready(Duration::from_secs(60)).await);
        client
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Seals with the length of what is sealed.
fn play_keyd(directory: &Path) -> watch::Sender<bool> {
    let run = directory.join("run");
    fs::create_dir_all(&run).unwrap();
    let listener = UnixListener::bind(runtime::socket_path(&run, Role::Keyd)).unwrap();
    let router = Router::new(Role::Keyd).on(|_, request: MacSign| async move {
        assert_eq!(request.purpose, types::Grant::PURPOSE);
        Ok(vec![u8::try_from(request.data.len()).unwrap(); 32].into())
    });
    let (stop, stopping) = watch::channel(false);
    tokio::spawn(router.serve(listener, Users::Single, ServerOptions::default(), stopping));
    stop
}

fn start(mechanism: &str, initial: &[u8]) -> AuthStart {
    AuthStart {
        mechanism: mechanism.into(),
        initial: Some(initial.into()),
        client: AuthClient {
            address: "127.0.0.1".parse().unwrap(),
            service: Service::Submission,
            tls: false,
            bindings: Vec::new(),
        },
    }
}

#[tokio::test]
async fn an_account_logs_in_and_gets_mail_also_after_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let _keyd = play_keyd(directory.path());
    let mut daemon = Daemon::start(directory.path());
    let tool = daemon.client(Role::Posthouse).await;
    let domain = DomainPut {
        mode: PutMode::Create,
        domain: Domain {
            name: "example.org".into(),
            enabled: true,
            catch_all: None,
            subaddressing: true,
            quota_bytes: 0,
            alias_of: None,
        },
    };
    tool.call(TRACE, &domain).await.unwrap();
    let put = AccountPut {
        mode: PutMode::Create,
        account: Account {
            id: AccountId(0),
            name: "jane@example.org".into(),
            display_name: String::new(),
            enabled: true,
            quota_bytes: 0,
            quota_messages: 0,
            rights: Rights::ALL,
            has_password: false,
        },
        password: Some(NewPassword::Clear("jane's secret".into())),
    };
    let account = tool.call(TRACE, &put).await.unwrap();

    daemon.child.kill().unwrap();
    daemon.child.wait().unwrap();
    let daemon = Daemon::start(directory.path());
    let smtpd = daemon.client(Role::Smtpd).await;
    let plain = start("PLAIN", b"\0jane@example.org\0jane's secret");
    let AuthReply::Success { login, data: None } = smtpd.call(TRACE, &plain).await.unwrap() else {
        panic!("no success")
    };
    assert_eq!(login.grant.account, account.id);
    assert_eq!(login.grant.rights, Rights::SUBMIT);
    let sealed = u8::try_from(login.grant.sealed().len()).unwrap();
    assert_eq!(&*login.grant.mac, [sealed; 32]);
    let login = start("LOGIN", b"jane@example.org");
    let AuthReply::Challenge { exchange, .. } = smtpd.call(TRACE, &login).await.unwrap() else {
        panic!("no challenge")
    };
    let proceed = AuthContinue {
        exchange,
        response: b"wrong".as_slice().into(),
    };
    let reply = smtpd.call(TRACE, &proceed).await.unwrap();
    assert!(matches!(reply, AuthReply::Failure { .. }), "{reply:?}");
    let resolve = ResolveRecipient {
        address: "Jane+x@example.org".parse().unwrap(),
    };
    let deliverd = daemon.client(Role::Deliverd).await;
    let Resolution::Local(targets) = deliverd.call(TRACE, &resolve).await.unwrap() else {
        panic!("not local")
    };
    assert!(
        matches!(&targets[..], [Target::Account { account: id, detail: Some(detail), .. }] if *id == account.id && detail == "x")
    );
    let may = MaySend {
        account: account.id,
        address: "jane@example.org".parse().unwrap(),
    };
    assert!(smtpd.call(TRACE, &may).await.unwrap());
}
