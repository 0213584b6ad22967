//! Groups with mailboxes of their own.

use super::*;
use types::Membership;

#[tokio::test]
async fn a_shared_group_gets_its_own_mail_and_its_members_know_it() {
    for test in sql::testing::databases().await.unwrap() {
        eprintln!("on {}", test.name);
        shared_group(&test).await;
    }
}

async fn shared_group(test: &TestDb) {
    let house = House::furnished(test, settings()).await;
    let members = ["jane@example.org", "john@example.org"];
    house
        .list(true, "Desk@example.org", &members)
        .await
        .unwrap();
    house
        .list(true, "all@example.org", &["jane@example.org"])
        .await
        .unwrap();
    house
        .list(true, "desk@example.org", &members)
        .await
        .unwrap_err();
    let groups = house
        .service
        .directory
        .list_list(true, None, None, 0)
        .await
        .unwrap();
    assert!(
        groups
            .iter()
            .any(|row| row.address == "all@example.org" && !row.shared && row.account == 0)
    );
    assert!(
        groups
            .iter()
            .any(|row| row.address == "Desk@example.org" && !row.shared)
    );

    // Addresses that begin with "desk" in lower case are shared in these tests.
    house
        .list(true, "desk2@example.org", &members)
        .await
        .unwrap();
    let desk = house
        .service
        .directory
        .shared_group("desk2@example.org")
        .await
        .unwrap()
        .unwrap();
    assert!(desk.account.0 > 2);
    let address: Address = "desk2+new@example.org".parse().unwrap();
    let found = house.service.resolver.resolve(&address).await.unwrap();
    let Resolution::Local(targets) = found else {
        panic!("{found:?}")
    };
    assert!(
        matches!(targets.as_slice(), [ipc::api::authd::Target::Account { account, detail, .. }]
            if *account == desk.account && detail.as_deref() == Some("new"))
    );

    let login = admitted(house.plain("john@example.org", "john's secret").await);
    let nobody = AccountId(0);
    let expected = [
        (nobody, "Desk@example.org"),
        (desk.account, "desk2@example.org"),
    ];
    let expected = expected.map(|(account, name)| Membership {
        account,
        name: name.to_owned(),
    });
    assert_eq!(login.grant.groups, expected);
    assert_eq!(login.grant.name, "john@example.org");

    let logins = &house.service.logins;
    let grant = logins
        .operator_grant(CALLER, "desk2@example.org")
        .await
        .unwrap();
    assert_eq!((grant.account, grant.rights), (desk.account, Rights(3)));
    let grant = logins.operator_grant(CALLER, "JANE").await.unwrap();
    assert_eq!(
        (grant.name.as_str(), grant.groups.len()),
        ("Jane@example.org", 3)
    );
    let nobody = logins.operator_grant(CALLER, "all@example.org").await;
    assert_eq!(kind(nobody), FaultKind::NotFound);
    for (identifier, expected) in [
        ("JANE@example.org", Some("jane@example.org")),
        ("jane", Some("jane@example.org")),
        ("group=desk2@EXAMPLE.org", Some("group=desk2@example.org")),
        ("desk2@example.org", None),
        ("group=jane@example.org", None),
        ("nobody@example.org", None),
        ("", None),
    ] {
        let found = logins.identifier(identifier).await.unwrap();
        assert_eq!(found.as_deref(), expected, "{identifier}");
    }
}
