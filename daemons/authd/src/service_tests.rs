//! The whole service over each database.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;
use crate::config::{Blocking, Hashing, Scram};
use crate::resolve::accounts;
use ipc::FaultKind;
use ipc::api::authd::{
    Account, AuthClient, AuthFailure, AuthReply, Block, Domain, Login, NewPassword, PutMode,
    Resolution,
};
use sql::testing::TestDb;
use types::{AccountId, Address, Octets, Rights, TraceId};

#[path = "service_group_tests.rs"]
mod group;
#[path = "service_login_tests.rs"]
mod login;
#[path = "service_mailing_tests.rs"]
mod mailing;
#[path = "service_personal_tests.rs"]
mod personal;

fn settings() -> Config {
    Config {
        default_domain: "example.org".into(),
        master_users: vec!["root@example.org".into()],
        hashing: Hashing {
            memory_kib: 64,
            iterations: 1,
            ..Hashing::default()
        },
        scram: Scram {
            iterations: 4096,
            ..Scram::default()
        },
        blocking: Blocking {
            address_failures: 3,
            ..Blocking::default()
        },
        ..Config::default()
    }
}

fn seal() -> Seal {
    Box::new(|_, data| {
        let mac = blake3::keyed_hash(&[7; 32], &data).as_bytes().to_vec();
        Box::pin(async move { Ok(mac.into()) })
    })
}

struct House {
    service: Service,
}

impl House {
    async fn open(test: &TestDb, config: Config) -> Self {
        let db = test.open().await.unwrap();
        let service = Service::open(db, std::path::Path::new("/nowhere"), config, seal())
            .await
            .unwrap();
        Self { service }
    }

    /// example.org with jane and john, bücher.example with a catch-all.
    async fn furnished(test: &TestDb, config: Config) -> Self {
        let house = Self::open(test, config).await;
        house.domain("example.org", None).await.unwrap();
        house
            .domain("Bücher.example", Some("jane@example.org"))
            .await
            .unwrap();
        house
            .account("Jane@example.org", Some("jane's secret"))
            .await
            .unwrap();
        house
            .account("john@example.org", Some("john's secret"))
            .await
            .unwrap();
        house
    }

    async fn domain(&self, name: &str, catch_all: Option<&str>) -> Result<(), Fault> {
        let domain = Domain {
            name: name.into(),
            enabled: true,
            catch_all: catch_all.map(str::to_owned),
            subaddressing: true,
            quota_bytes: 0,
            alias_of: None,
        };
        Ok(self
            .service
            .directory
            .domain_put(PutMode::Create, &domain)
            .await?)
    }

    async fn account(&self, name: &str, password: Option<&str>) -> Result<Account, Fault> {
        let password = password.map(|password| NewPassword::Clear(password.into()));
        self.put(PutMode::Create, &account(name), password).await
    }

    async fn put(
        &self,
        mode: PutMode,
        account: &Account,
        password: Option<NewPassword>,
    ) -> Result<Account, Fault> {
        let account = account.clone();
        let request = AccountPut {
            mode,
            account,
            password,
        };
        self.service.admin.account_put(request).await
    }

    async fn list(&self, group: bool, address: &str, targets: &[&str]) -> Result<(), Fault> {
        let targets: Vec<String> = targets.iter().map(|&target| target.to_owned()).collect();
        let put = ListPut {
            group,
            address,
            targets: &targets,
            description: "",
            send_as: !address.starts_with("quiet"),
            shared: address.starts_with("desk"),
        };
        Ok(self
            .service
            .directory
            .list_put(PutMode::Create, &put)
            .await?)
    }

    async fn resolve(&self, address: &str) -> Vec<String> {
        let address: Address = address.parse().unwrap();
        accounts(&self.service.resolver.resolve(&address).await.unwrap())
    }

    async fn may(&self, account: &Account, address: &str) -> bool {
        let address: Address = address.parse().unwrap();
        self.service
            .resolver
            .may_send(account.id, &address)
            .await
            .unwrap()
    }

    async fn start(
        &self,
        mechanism: &str,
        initial: Option<&[u8]>,
        client: AuthClient,
    ) -> AuthReply {
        let request = AuthStart {
            mechanism: mechanism.into(),
            initial: initial.map(Octets::from),
            client,
        };
        self.service.logins.start(CALLER, request).await.unwrap()
    }

    async fn go_on(&self, exchange: u64, response: &[u8]) -> AuthReply {
        let response = response.into();
        let request = AuthContinue { exchange, response };
        self.service.logins.proceed(CALLER, &request).await.unwrap()
    }

    async fn plain(&self, user: &str, password: &str) -> AuthReply {
        let message = format!("\0{user}\0{password}");
        self.start("PLAIN", Some(message.as_bytes()), client("127.0.0.1"))
            .await
    }

    async fn scram(&self, user: &str, password: &str) -> AuthReply {
        let bare = format!("n={user},r=clientnonce");
        let first = format!("n,,{bare}");
        let reply = self
            .start("SCRAM-SHA-256", Some(first.as_bytes()), client("127.0.0.1"))
            .await;
        let (exchange, challenge) = challenged(&reply);
        let last = crate::scram::tests::answer(password, &challenge, &bare, b"n,,");
        self.go_on(exchange, last.as_bytes()).await
    }
}

const CALLER: Caller = Caller {
    connection: 1,
    trace: TraceId(1),
};

fn account(name: &str) -> Account {
    Account {
        id: AccountId(0),
        name: name.into(),
        display_name: "Ä Person".into(),
        enabled: true,
        quota_bytes: 1000,
        quota_messages: 0,
        rights: Rights::ALL,
        has_password: false,
    }
}

fn client(address: &str) -> AuthClient {
    AuthClient {
        address: address.parse().unwrap(),
        service: ipc::api::authd::Service::Imap,
        tls: false,
        bindings: Vec::new(),
    }
}

fn challenged(reply: &AuthReply) -> (u64, Vec<u8>) {
    let AuthReply::Challenge { exchange, data } = reply else {
        panic!("{reply:?}")
    };
    (*exchange, data.to_vec())
}

fn admitted(reply: AuthReply) -> Login {
    let AuthReply::Success { login, .. } = reply else {
        panic!("{reply:?}")
    };
    login
}

fn refused(reply: &AuthReply) -> AuthFailure {
    let AuthReply::Failure { reason, .. } = reply else {
        panic!("{reply:?}")
    };
    *reason
}

fn kind<T: std::fmt::Debug>(result: Result<T, Fault>) -> FaultKind {
    result.unwrap_err().kind
}

#[tokio::test]
async fn the_directory_on_every_database() {
    for test in sql::testing::databases().await.unwrap() {
        eprintln!("on {}", test.name);
        let house = House::furnished(&test, settings()).await;
        names(&house).await;
        lists(&house).await;
        recipients(&house).await;
        senders(&house).await;
        login::logins(&house).await;
        login::app_passwords(&house).await;
        login::imported(&house).await;
        removal(&house).await;
        login::blocks(&house, &test).await;
    }
}

async fn names(house: &House) {
    let directory = &house.service.directory;
    assert_eq!(
        kind(house.domain("EXAMPLE.org.", None).await),
        FaultKind::Conflict
    );
    assert_eq!(kind(house.domain("a b", None).await), FaultKind::Invalid);
    let listed = directory.domain_list(Some("bücher.example")).await.unwrap();
    assert_eq!(listed[0].name, "xn--bcher-kva.example");
    assert_eq!(listed[0].catch_all.as_deref(), Some("jane@example.org"));
    assert_eq!(directory.domain_list(None).await.unwrap().len(), 2);
    assert_eq!(
        kind(house.account("JANE@example.org", None).await),
        FaultKind::Conflict
    );
    assert_eq!(
        kind(house.account("x@nowhere.example", None).await),
        FaultKind::NotFound
    );
    assert_eq!(kind(house.account("x", None).await), FaultKind::Invalid);
    assert_eq!(
        kind(house.account("x@example.org", Some("short")).await),
        FaultKind::Invalid
    );
    let all = directory.account_list(None, None, None, 0).await.unwrap();
    assert_eq!(all[0].name, "Jane@example.org");
    assert_eq!(
        (all[0].display_name.as_str(), all[0].has_password),
        ("Ä Person", true)
    );
    assert_ne!(all[0].id, all[1].id);
    let page =
        |after: &'static str| directory.account_list(None, Some("example.org"), Some(after), 1);
    assert_eq!(
        page("jane@example.org").await.unwrap()[0].name,
        "john@example.org"
    );
    assert!(page("john@example.org").await.unwrap().is_empty());
    let mut changed = all[1].clone();
    changed.quota_messages = 5;
    let changed = house.put(PutMode::Update, &changed, None).await.unwrap();
    assert_eq!((changed.id, changed.quota_messages), (all[1].id, 5));
    assert!(changed.has_password);
    assert_eq!(
        kind(
            house
                .put(PutMode::Update, &account("nobody@example.org"), None)
                .await
        ),
        FaultKind::NotFound
    );
}

async fn lists(house: &House) {
    let directory = &house.service.directory;
    house
        .list(
            false,
            "Info@example.org",
            &["jane@example.org", "friend@far.example", "JANE@example.org"],
        )
        .await
        .unwrap();
    house
        .list(
            true,
            "all@example.org",
            &["info@example.org", "john@example.org"],
        )
        .await
        .unwrap();
    house
        .list(true, "quiet@example.org", &["john@example.org"])
        .await
        .unwrap();
    assert_eq!(
        kind(
            house
                .list(true, "info@example.org", &["john@example.org"])
                .await
        ),
        FaultKind::Conflict
    );
    for bad in [
        &[][..],
        &["nobody@example.org"],
        &["no address"],
        &["loop@example.org"],
    ] {
        assert_eq!(
            kind(house.list(false, "loop@example.org", bad).await),
            FaultKind::Invalid
        );
    }
    let found = directory.list_list(false, None, None, 10).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].address, "Info@example.org");
    assert_eq!(found[0].targets, ["jane@example.org", "friend@far.example"]);
    assert_eq!(
        directory
            .list_list(true, None, Some("all@example.org"), 10)
            .await
            .unwrap()
            .len(),
        1
    );
    let wrong = directory.list_remove(true, "info@example.org").await;
    assert_eq!(kind(wrong.map_err(Fault::from)), FaultKind::Conflict);
    // Two that lead to each other.
    house
        .list(false, "ring1@example.org", &["jane@example.org"])
        .await
        .unwrap();
    house
        .list(false, "ring2@example.org", &["ring1@example.org"])
        .await
        .unwrap();
    let targets = ["ring2@example.org".to_owned()];
    let put = ListPut {
        group: false,
        address: "ring1@example.org",
        targets: &targets,
        description: "",
        send_as: true,
        shared: false,
    };
    directory.list_put(PutMode::Update, &put).await.unwrap();
}

async fn recipients(house: &House) {
    assert_eq!(
        house.resolve("JANE@example.org").await,
        ["Jane@example.org"]
    );
    assert_eq!(
        house.resolve("jane+Lists@example.org").await,
        ["Jane@example.org [Lists]"]
    );
    assert_eq!(house.resolve("x@far.example").await, ["Remote"]);
    assert_eq!(house.resolve("x@[127.0.0.1]").await, ["Remote"]);
    assert_eq!(house.resolve("nobody@example.org").await, ["Unknown"]);
    assert_eq!(house.resolve("nobody+x@example.org").await, ["Unknown"]);
    assert_eq!(
        house.resolve("anything@bücher.example").await,
        ["Jane@example.org"]
    );
    assert_eq!(
        house.resolve("info+x@example.org").await,
        ["Jane@example.org [x]", "> friend@far.example"]
    );
    let all = house.resolve("all@example.org").await;
    assert_eq!(
        all,
        [
            "john@example.org",
            "Jane@example.org",
            "> friend@far.example"
        ]
    );
    assert_eq!(house.resolve("ring1@example.org").await, ["Unknown"]);
    // A change is seen at once, also of what was unknown.
    house.account("nobody@example.org", None).await.unwrap();
    assert_eq!(
        house.resolve("nobody@example.org").await,
        ["nobody@example.org"]
    );
    let mut disabled = account("nobody@example.org");
    disabled.enabled = false;
    house.put(PutMode::Update, &disabled, None).await.unwrap();
    assert_eq!(house.resolve("nobody@example.org").await, ["Disabled"]);
    let mut domain = house
        .service
        .directory
        .domain("xn--bcher-kva.example")
        .await
        .unwrap()
        .unwrap();
    domain.enabled = false;
    house
        .service
        .directory
        .domain_put(PutMode::Update, &domain)
        .await
        .unwrap();
    let address: Address = "x@xn--bcher-kva.example".parse().unwrap();
    let answer: Result<Resolution, Fault> = house.service.resolver.resolve(&address).await;
    assert_eq!(kind(answer), FaultKind::Temporary);
}

async fn senders(house: &House) {
    let all = house
        .service
        .directory
        .account_list(None, None, None, 0)
        .await
        .unwrap();
    let (jane, john) = (&all[0], &all[1]);
    for (who, address, may) in [
        (jane, "jane@example.org", true),
        (jane, "JANE+x@example.org", true),
        (jane, "info@example.org", true),
        (jane, "all@example.org", true),
        (jane, "john@example.org", false),
        (jane, "quiet@example.org", false),
        (jane, "anything@xn--bcher-kva.example", false),
        (jane, "nobody@example.org", false),
        (jane, "friend@far.example", false),
        (john, "info@example.org", false),
        (john, "quiet@example.org", false),
        (john, "all@example.org", true),
    ] {
        assert_eq!(house.may(who, address).await, may, "{} {address}", who.name);
    }
}

async fn removal(house: &House) {
    let directory = &house.service.directory;
    let full = directory.domain_remove("example.org").await;
    assert_eq!(kind(full.map_err(Fault::from)), FaultKind::Conflict);
    let last = directory
        .account_list(Some("scram@example.org"), None, None, 1)
        .await
        .unwrap()[0]
        .id;
    directory.account_remove("SCRAM@example.org").await.unwrap();
    assert_eq!(
        refused(&house.scram("scram", "correct horse ä").await),
        AuthFailure::Credentials
    );
    let gone = directory.account_remove("scram@example.org").await;
    assert_eq!(kind(gone.map_err(Fault::from)), FaultKind::NotFound);
    // A number is never given again.
    let next = house.account("scram@example.org", None).await.unwrap();
    assert!(next.id > last);
    directory
        .list_remove(false, "info@example.org")
        .await
        .unwrap();
    assert_eq!(house.resolve("all@example.org").await, ["john@example.org"]);
    directory.domain_remove("Bücher.example").await.unwrap();
    assert_eq!(house.resolve("x@xn--bcher-kva.example").await, ["Remote"]);
}

#[tokio::test]
async fn limits_hold_and_postmaster_is_reached() {
    let test = sql::testing::sqlite().unwrap();
    let config = Config {
        targets: 3,
        depth: 2,
        exchanges: 2,
        app_passwords: 1,
        postmaster: "jane@example.org".into(),
        send_as_catch_all: true,
        hostname: "mail.example.com".into(),
        ..settings()
    };
    let house = House::furnished(&test, config).await;
    for (ours, expected) in [
        ("postmaster@mail.example.com", "Jane@example.org"),
        ("Abuse@mail.example.com", "Jane@example.org"),
        ("jane@mail.example.com", "Remote"),
        ("postmaster@example.com", "Remote"),
    ] {
        assert_eq!(house.resolve(ours).await, [expected], "{ours}");
    }
    assert_eq!(
        house.resolve("Postmaster@example.org").await,
        ["Jane@example.org"]
    );
    let jane = house
        .service
        .directory
        .account_list(None, None, None, 1)
        .await
        .unwrap();
    assert!(house.may(&jane[0], "anything@xn--bcher-kva.example").await);
    let far: Vec<String> = (0..9).map(|n| format!("a{n}@far.example")).collect();
    let far: Vec<&str> = far.iter().map(String::as_str).collect();
    house.list(true, "many@example.org", &far).await.unwrap();
    assert_eq!(house.resolve("many@example.org").await.len(), 3);
    house
        .list(false, "c1@example.org", &["jane@example.org"])
        .await
        .unwrap();
    for n in 2..5 {
        let (own, target) = (
            format!("c{n}@example.org"),
            format!("c{}@example.org", n - 1),
        );
        house.list(false, &own, &[&target]).await.unwrap();
    }
    assert_eq!(house.resolve("c2@example.org").await, ["Jane@example.org"]);
    assert_eq!(house.resolve("c4@example.org").await, ["Unknown"]);
    for _ in 0..2 {
        challenged(&house.start("SCRAM-SHA-256", None, client("::1")).await);
    }
    let request = AuthStart {
        mechanism: "LOGIN".into(),
        initial: None,
        client: client("::1"),
    };
    let third = house.service.logins.start(CALLER, request).await;
    assert_eq!(kind(third), FaultKind::Busy);
    house.service.logins.closed(CALLER.connection);
    challenged(&house.start("LOGIN", None, client("::1")).await);
    let add = |label: &str| AppPasswordAdd {
        account: "jane@example.org".into(),
        label: label.into(),
        rights: Rights::ALL,
    };
    house
        .service
        .admin
        .app_password_add(add("one"))
        .await
        .unwrap();
    let second = house.service.admin.app_password_add(add("two")).await;
    assert_eq!(kind(second), FaultKind::OverQuota);
}

/// What was resolved lately is still resolved when the database is away, and nothing else.
#[tokio::test]
async fn the_database_may_be_away_for_a_while() {
    let test = sql::testing::sqlite().unwrap();
    let config = Config {
        cache_seconds: 0,
        ..settings()
    };
    let house = House::furnished(&test, config).await;
    assert_eq!(
        house.resolve("jane@example.org").await,
        ["Jane@example.org"]
    );
    house.service.directory.close().await;
    assert_eq!(
        house.resolve("jane@example.org").await,
        ["Jane@example.org"]
    );
    let address: Address = "john@example.org".parse().unwrap();
    let answer = house.service.resolver.resolve(&address).await;
    assert_eq!(kind(answer), FaultKind::Temporary);
}

#[tokio::test]
async fn reports_have_addresses_without_accounts() {
    let test = sql::testing::sqlite().unwrap();
    let config = Config {
        reports: vec![types::AddressPattern::parse("dmarc-reports@*").unwrap()],
        ..settings()
    };
    let house = House::furnished(&test, config).await;
    assert_eq!(
        house.resolve("DMARC-Reports@example.org").await,
        ["reportd"]
    );
    // The catch-all is for addresses that are not known.
    assert_eq!(
        house.resolve("dmarc-reports@bücher.example").await,
        ["reportd"]
    );
    assert_eq!(house.resolve("tls-reports@example.org").await, ["Unknown"]);
    assert_eq!(
        house.resolve("dmarc-reports@elsewhere.example").await,
        ["Remote"]
    );
    house
        .list(false, "dmarc-reports@example.org", &["john@example.org"])
        .await
        .unwrap();
    assert_eq!(
        house.resolve("dmarc-reports@example.org").await,
        ["john@example.org", "reportd"]
    );
}
