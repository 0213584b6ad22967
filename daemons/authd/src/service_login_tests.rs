//! Logins over the whole service.

use super::*;

pub(super) async fn logins(house: &House) {
    let login = admitted(house.plain("jane@example.org", "jane's secret").await);
    assert_eq!(login.name, "Jane@example.org");
    let grant = &login.grant;
    assert_eq!(grant.rights, Rights(3));
    assert_eq!(grant.quota_bytes, 1000);
    assert!(grant.expires > crate::now() + 43_000);
    assert_eq!(
        &*grant.mac,
        blake3::keyed_hash(&[7; 32], &grant.sealed()).as_bytes()
    );
    // The same again comes from memory, and the default domain is added.
    assert_eq!(
        admitted(house.plain("JANE", "jane's secret").await).grant,
        *grant
    );
    for (user, password) in [
        ("jane", "john's secret"),
        ("jane", ""),
        ("nobody", "jane's secret"),
        ("@", "x"),
        ("ghost", "x"),
    ] {
        let reply = house.plain(user, password).await;
        let expected = if password.is_empty() {
            AuthFailure::Malformed
        } else {
            AuthFailure::Credentials
        };
        assert_eq!(refused(&reply), expected, "{user} {password}");
    }
    assert_eq!(
        admitted(house.scram("john", "john's secret").await).name,
        "john@example.org"
    );
    assert_eq!(
        refused(&house.scram("john", "jane's secret").await),
        AuthFailure::Credentials
    );
    assert_eq!(
        refused(&house.scram("ghost", "x").await),
        AuthFailure::Credentials
    );
    let far = |tls| AuthClient {
        tls,
        ..client("192.0.2.99")
    };
    let message = b"\0jane\0jane's secret";
    assert_eq!(
        refused(&house.start("PLAIN", Some(message), far(false)).await),
        AuthFailure::NeedsTls
    );
    admitted(house.start("PLAIN", Some(message), far(true)).await);
    assert_eq!(
        refused(&house.start("CRAM-MD5", None, far(true)).await),
        AuthFailure::Mechanism
    );
    let (exchange, prompt) = challenged(&house.start("LOGIN", None, far(true)).await);
    assert_eq!(prompt, b"Username:");
    let (exchange, prompt) = challenged(&house.go_on(exchange, b"jane").await);
    assert_eq!(prompt, b"Password:");
    let elsewhere = AuthContinue {
        exchange,
        response: b"jane's secret".as_slice().into(),
    };
    let caller = Caller {
        connection: 2,
        ..CALLER
    };
    let stolen = house
        .service
        .logins
        .proceed(caller, &elsewhere)
        .await
        .unwrap();
    assert_eq!(refused(&stolen), AuthFailure::Malformed);
    admitted(house.go_on(exchange, b"jane's secret").await);
    masters(house).await;
    passwords_change(house).await;
}

async fn masters(house: &House) {
    house
        .account("root@example.org", Some("root's secret"))
        .await
        .unwrap();
    let as_john = |who: &str| format!("john@example.org\0{who}\0{who}'s secret");
    let reply = house
        .start("PLAIN", Some(as_john("root").as_bytes()), client("::1"))
        .await;
    assert_eq!(admitted(reply).name, "john@example.org");
    let reply = house
        .start("PLAIN", Some(as_john("jane").as_bytes()), client("::1"))
        .await;
    assert_eq!(refused(&reply), AuthFailure::Credentials);
    let reply = house
        .start("PLAIN", Some(as_john("john").as_bytes()), client("::1"))
        .await;
    assert_eq!(admitted(reply).name, "john@example.org");
}

async fn passwords_change(house: &House) {
    let jane = account("jane@example.org");
    let new = |text: &str| Some(NewPassword::Clear(text.into()));
    house
        .put(PutMode::Update, &jane, new("another secret"))
        .await
        .unwrap();
    assert_eq!(
        refused(&house.plain("jane", "jane's secret").await),
        AuthFailure::Credentials
    );
    assert_eq!(
        refused(&house.scram("jane", "jane's secret").await),
        AuthFailure::Credentials
    );
    admitted(house.plain("jane", "another secret").await);
    admitted(house.scram("jane", "another secret").await);
    let disabled = Account {
        enabled: false,
        ..jane.clone()
    };
    house.put(PutMode::Update, &disabled, None).await.unwrap();
    assert_eq!(
        refused(&house.plain("jane", "another secret").await),
        AuthFailure::Disabled
    );
    assert_eq!(
        refused(&house.scram("jane", "another secret").await),
        AuthFailure::Disabled
    );
    assert_eq!(
        refused(&house.plain("jane", "wrong").await),
        AuthFailure::Credentials
    );
    let submitter = Account {
        rights: Rights::SUBMIT,
        ..jane.clone()
    };
    house.put(PutMode::Update, &submitter, None).await.unwrap();
    assert_eq!(
        refused(&house.plain("jane", "another secret").await),
        AuthFailure::Disabled
    );
    house.put(PutMode::Update, &jane, None).await.unwrap();
    // Composed and decomposed are the same password.
    house
        .put(PutMode::Update, &jane, new("p\u{e4}sswort"))
        .await
        .unwrap();
    admitted(house.plain("jane", "pa\u{308}sswort").await);
    admitted(house.plain("jane", "p\u{e4}sswort").await);
}

pub(super) async fn app_passwords(house: &House) {
    let add = |label: &str, rights| AppPasswordAdd {
        account: "john@example.org".into(),
        label: label.into(),
        rights,
    };
    let admin = &house.service.admin;
    let phone = admin
        .app_password_add(add("phone", Rights(3)))
        .await
        .unwrap()
        .password;
    let printer = admin
        .app_password_add(add("Drucker ä", Rights::SUBMIT))
        .await
        .unwrap()
        .password;
    assert_eq!(
        kind(admin.app_password_add(add("phone", Rights(3))).await),
        FaultKind::Conflict
    );
    assert_eq!(
        kind(admin.app_password_add(add("", Rights(3))).await),
        FaultKind::Invalid
    );
    assert_eq!(
        admitted(house.plain("john", &phone).await).grant.rights,
        Rights(3)
    );
    assert_eq!(
        admitted(house.plain("john", &phone.replace('-', "")).await)
            .grant
            .rights,
        Rights(3)
    );
    assert_eq!(
        admitted(house.scram("john", &phone).await).grant.rights,
        Rights(3)
    );
    assert_eq!(
        refused(&house.plain("john", &printer).await),
        AuthFailure::Disabled
    );
    let submission = AuthClient {
        service: ipc::api::authd::Service::Submission,
        ..client("::1")
    };
    let message = format!("\0john\0{printer}");
    let reply = house
        .start("PLAIN", Some(message.as_bytes()), submission)
        .await;
    assert_eq!(admitted(reply).grant.rights, Rights::SUBMIT);
    assert_eq!(
        refused(&house.plain("jane", &phone).await),
        AuthFailure::Credentials
    );
    admitted(house.plain("john", "john's secret").await);
    let directory = &house.service.directory;
    let until_noted = async {
        loop {
            let list = directory
                .app_password_list("john@example.org")
                .await
                .unwrap();
            assert_eq!(list.len(), 2);
            if list.iter().all(|one| one.last_used.is_some()) {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), until_noted)
        .await
        .unwrap();
    directory
        .app_password_remove("john@example.org", "phone")
        .await
        .unwrap();
    assert_eq!(
        refused(&house.plain("john", &phone).await),
        AuthFailure::Credentials
    );
    assert_eq!(
        refused(&house.scram("john", &phone).await),
        AuthFailure::Credentials
    );
    let gone = directory
        .app_password_remove("john@example.org", "phone")
        .await;
    assert_eq!(kind(gone.map_err(Fault::from)), FaultKind::NotFound);
}

pub(super) async fn imported(house: &House) {
    let hash = "{SSHA}Q6VgSMii3G3jC3kx8iFlTtB0eDKwbZmj";
    let given = |text: &str| Some(NewPassword::Hash(text.into()));
    let moved = account("moved@example.org");
    for bad in ["{PLAIN}secret", "nothing", "$2y$31$x"] {
        let put = house.put(PutMode::Create, &moved, given(bad)).await;
        assert_eq!(kind(put), FaultKind::Invalid, "{bad}");
    }
    house
        .put(PutMode::Create, &moved, given(hash))
        .await
        .unwrap();
    assert_eq!(
        refused(&house.scram("moved", "correct horse ä").await),
        AuthFailure::Credentials
    );
    admitted(house.plain("moved", "correct horse ä").await);
    let directory = &house.service.directory;
    let until_better = async {
        loop {
            let now = directory
                .credentials("moved@example.org")
                .await
                .unwrap()
                .unwrap();
            if now.hash.is_some_and(|hash| hash.starts_with("$argon2id$")) {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), until_better)
        .await
        .unwrap();
    admitted(house.plain("moved", "correct horse ä").await);
    // The row may be seen a moment before the cache is void.
    let until_known = async {
        while let AuthReply::Failure { .. } = house.scram("moved", "correct horse ä").await {}
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), until_known)
        .await
        .unwrap();
    // Made by Dovecot: its salt goes on to be used.
    let hash = "{SCRAM-SHA-256}4096,QkUAgmMaB8EyGqwV8a4Y2Q==,fEFJbgH1fvU49kphgLRcrBSuffV0RW1NqP0ILophDdo=,XZnQVoEn5Ze0q97/ZQDQkRqVzmKsiNt5fb7jVDQp1Dg=";
    house
        .put(PutMode::Create, &account("scram@example.org"), given(hash))
        .await
        .unwrap();
    admitted(house.scram("scram", "correct horse ä").await);
}

pub(super) async fn blocks(house: &House, test: &TestDb) {
    let from = |address: &str| AuthClient {
        tls: true,
        ..client(address)
    };
    let mut delays = Vec::new();
    for n in 0..3 {
        let message = format!("\0john\0wrong {n}");
        let reply = house
            .start("PLAIN", Some(message.as_bytes()), from("203.0.113.5"))
            .await;
        let AuthReply::Failure {
            reason: AuthFailure::Credentials,
            delay_ms,
        } = reply
        else {
            panic!("{reply:?}")
        };
        delays.push(delay_ms);
    }
    assert_eq!(delays, [500, 1000, 2000]);
    let right = b"\0john\0john's secret";
    let reply = house.start("PLAIN", Some(right), from("203.0.113.5")).await;
    assert_eq!(refused(&reply), AuthFailure::Blocked);
    admitted(house.start("PLAIN", Some(right), from("203.0.113.6")).await);
    let by_hand = Block {
        network: "2001:db8::5/32".into(),
        reason: "by hand".into(),
        until: None,
    };
    house.service.admin.block_add(by_hand).await.unwrap();
    let reply = house
        .start("SCRAM-SHA-256", None, from("2001:db8:9::1"))
        .await;
    assert_eq!(refused(&reply), AuthFailure::Blocked);
    let directory = &house.service.directory;
    let until_kept = async {
        while directory.block_list(crate::now(), 10).await.unwrap().len() < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), until_kept)
        .await
        .unwrap();
    // After a restart.
    let again = House::open(test, settings()).await;
    let reply = again.start("PLAIN", Some(right), from("203.0.113.5")).await;
    assert_eq!(refused(&reply), AuthFailure::Blocked);
    let listed = again
        .service
        .directory
        .block_list(crate::now(), 10)
        .await
        .unwrap();
    let networks: Vec<&str> = listed.iter().map(|block| block.network.as_str()).collect();
    assert_eq!(networks, ["2001:db8::/32", "203.0.113.5"]);
    again
        .service
        .admin
        .block_remove("203.0.113.5")
        .await
        .unwrap();
    admitted(again.start("PLAIN", Some(right), from("203.0.113.5")).await);
    assert_eq!(
        kind(again.service.admin.block_remove("nonsense").await),
        FaultKind::Invalid
    );
    // The invented salt stays the same over restarts, and is another for another name.
    let mut salts = Vec::new();
    for (house, user) in [(house, "ghost"), (&again, "GHOST"), (&again, "spook")] {
        let first = format!("n,,n={user},r=nonce");
        let reply = house
            .start("SCRAM-SHA-256", Some(first.as_bytes()), client("::1"))
            .await;
        let text = String::from_utf8(challenged(&reply).1).unwrap();
        salts.push(text.split(',').nth(1).unwrap().to_owned());
    }
    assert_eq!(salts[0], salts[1]);
    assert_ne!(salts[1], salts[2]);
}

/// A hundred logins at once are all answered, a few hashes at a time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_logins_waits_its_turn() {
    let test = sql::testing::sqlite().unwrap();
    let house = Arc::new(House::furnished(&test, settings()).await);
    let mut logins = tokio::task::JoinSet::new();
    for n in 0..100 {
        let house = Arc::clone(&house);
        logins.spawn(async move {
            if n % 2 == 0 {
                admitted(house.plain("jane", "jane's secret").await);
            } else {
                let reply = house.plain("jane", &format!("wrong {n}")).await;
                assert_eq!(refused(&reply), AuthFailure::Credentials);
            }
        });
    }
    while let Some(done) = logins.join_next().await {
        done.unwrap();
    }
}
