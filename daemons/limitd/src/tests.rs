//! The whole of it over real databases.
#![allow(clippy::unwrap_used)]

use crate::config::Config;
use crate::grey::{Greylisting, Terms};
use crate::service::Limits;
use crate::store::Store;
use ipc::api::limitd::{Facts, GreyList, Identity, Stage, Weigh};
use sql::testing::databases;
use types::{Address, TraceId};

const NOW: u64 = 1_800_000_000;
const NET: &str = "192.0.2.0/24";

fn config(text: &str) -> Config {
    toml::from_str(text).unwrap()
}

fn address(text: &str) -> Address {
    text.parse().unwrap()
}

#[tokio::test]
async fn greylisting_over_every_database() {
    let terms = Terms::new(
        &config("greylist = {enabled = true, delay = 60, window = 3600, lifetime = 86400, network_after = 3,
            except_recipient = ['postmaster@example.org']}")
        .greylist,
    )
    .unwrap();
    for database in databases().await.unwrap() {
        let store = Store::new(database.open().await.unwrap(), "mx.example.org");
        store.prepare().await.unwrap();
        let one = Greylisting::new();
        let jane = address("jane@example.org");
        let sender = address("a@b.example");
        let come = async |grey: &Greylisting, sender: Option<&Address>, to: &Address, now: u64| {
            let status = grey
                .check(&store, &terms, NET, sender, to, now, false)
                .await;
            status.map(|status| (status.code, status.text))
        };
        let from = Some(&sender);
        let (code, text) = come(&one, from, &jane, NOW).await.unwrap();
        assert!(code == 451 && text.contains("60 seconds"), "{text}");
        let (_, text) = come(&one, from, &jane, NOW + 59).await.unwrap();
        assert!(text.contains("in 1 seconds"), "{text}");
        assert_eq!(
            come(&one, from, &address("postmaster@example.org"), NOW).await,
            None
        );
        // Another host, which shares the database.
        one.flush(&store).await.unwrap();
        let two = Greylisting::new();
        assert_eq!(come(&two, from, &jane, NOW + 60).await, None);
        two.flush(&store).await.unwrap();
        // What the null sender brings waits in the same way; a report is nobody's in particular.
        assert!(come(&two, None, &jane, NOW + 60).await.is_some());
        // Too late: it begins anew.
        assert!(come(&two, None, &jane, NOW + 60 + 3600).await.is_some());
        // It came again: the first host learns it, after a restart too.
        let three = Greylisting::new();
        assert_eq!(come(&three, from, &jane, NOW + 80_000).await, None);
        // The network has shown that it comes again.
        for _ in 0..3 {
            assert!(
                come(&three, from, &address("x@example.org"), NOW + 70)
                    .await
                    .is_some()
            );
            three.good(&terms, NET, NOW + 70);
        }
        assert_eq!(
            come(&three, from, &address("x@example.org"), NOW + 70).await,
            None
        );
        three.flush(&store).await.unwrap();
        let four = Greylisting::new();
        assert_eq!(
            come(&four, from, &address("y@example.org"), NOW + 71).await,
            None
        );
        assert!(
            come(&four, from, &address("y@example.org"), NOW + 200_000)
                .await
                .is_some()
        );
        let (greys, networks) = store.greys("jane@example.org", NOW + 90, 10).await.unwrap();
        assert_eq!(greys.len(), 1, "{}: {greys:?}", database.name);
        assert!(networks.is_empty());
        let (_, networks) = store.greys("", NOW + 90, 10).await.unwrap();
        assert!(
            networks
                .iter()
                .any(|one| one.network == NET && one.good == 3 && one.allowed)
        );
        // What an operator allows ends when he says, whatever comes meanwhile.
        let other = "198.51.100.0/24";
        four.allow(&terms, other, NOW + 3600, NOW);
        four.good(&terms, other, NOW + 10);
        let status = async |now| {
            four.check(&store, &terms, other, from, &jane, now, false)
                .await
        };
        assert!(status(NOW + 3599).await.is_none() && status(NOW + 3601).await.is_some());
        assert_eq!(store.forget(NET).await.unwrap(), 3, "{}", database.name);
        let five = Greylisting::new();
        assert!(come(&five, from, &jane, NOW + 100).await.is_some());
        store.close().await;
    }
}

#[tokio::test]
async fn the_rows_of_greylisting_are_bounded() {
    let terms = Terms::new(&config("greylist = {enabled = true, entries = 64}").greylist).unwrap();
    for database in databases().await.unwrap() {
        let store = Store::new(database.open().await.unwrap(), "mx.example.org");
        store.prepare().await.unwrap();
        let grey = Greylisting::new();
        let jane = address("jane@example.org");
        let kept = address("kept@b.example");
        for now in [NOW, NOW + 300] {
            grey.check(&store, &terms, NET, Some(&kept), &jane, now, false)
                .await;
        }
        for number in 0..200_u64 {
            let sender = address(&format!("invented{number}@b.example"));
            grey.check(
                &store,
                &terms,
                NET,
                Some(&sender),
                &jane,
                NOW + 300 + number,
                false,
            )
            .await;
            grey.flush(&store).await.unwrap();
        }
        assert!(grey.len() <= 65, "{}", grey.len());
        store.sweep(NOW + 600, 50).await.unwrap();
        let (greys, _) = store.greys("", NOW + 600, 1000).await.unwrap();
        assert!(
            (40..=50).contains(&greys.len()),
            "{}: {}",
            database.name,
            greys.len()
        );
        assert!(
            greys.iter().any(|grey| grey.sender == "kept@b.example"),
            "{}",
            database.name
        );
        store.sweep(NOW + 100_000, 50).await.unwrap();
        assert_eq!(store.greys("", 0, 1000).await.unwrap().0.len(), 1);
        store.close().await;
    }
}

fn message(recipients: usize) -> Weigh {
    Weigh {
        stage: Stage::Message {
            recipients: (0..recipients)
                .map(|n| address(&format!("u{n}@x.example")))
                .collect(),
            octets: 10,
            rest: false,
        },
        facts: Facts {
            client: Some("192.0.2.1".parse().unwrap()),
            account: Some("jane@example.org".to_owned()),
            ..Facts::default()
        },
    }
}

#[tokio::test]
async fn quotas_survive_over_every_database() {
    let config = config(
        "rule = [{name = 'day', key = ['account'], count = 'recipients', limit = '100/1m, 5/1d'}]",
    );
    for database in databases().await.unwrap() {
        let open = async |node: &str| {
            let store = Store::new(database.open().await.unwrap(), node);
            Limits::open(&config, store).await.unwrap()
        };
        let limits = open("a.example").await;
        assert_eq!(limits.weigh(TraceId(1), &message(4)).await.status, None);
        limits.flush().await;
        assert_eq!(limits.weigh(TraceId(1), &message(1)).await.status, None);
        // It is killed before that is written.
        limits.close().await;
        let limits = open("a.example").await;
        let told = limits.weigh(TraceId(1), &message(2)).await;
        assert_eq!(
            told.status.map(|status| status.code),
            Some(452),
            "{}",
            database.name
        );
        assert_eq!(told.rule, "day");
        assert_eq!(limits.weigh(TraceId(1), &message(1)).await.status, None);
        limits.flush().await;
        limits.flush().await;
        limits.close().await;
        // Another host counts for itself.
        let other = open("b.example").await;
        assert_eq!(other.weigh(TraceId(1), &message(5)).await.status, None);
        other.close().await;
        let limits = open("a.example").await;
        assert!(limits.weigh(TraceId(1), &message(1)).await.status.is_some());
        limits.sweep().await;
        limits.close().await;
    }
}

fn recipient(client: &str, spf: Option<&str>, name: Option<&str>, asked: bool) -> Weigh {
    let identity = Identity {
        name: name.map(str::to_owned),
        spf: spf.map(str::to_owned),
    };
    Weigh {
        stage: Stage::Recipient {
            recipient: address("jane@example.org"),
            taken: 0,
            taken_there: 0,
            declared: 0,
        },
        facts: Facts {
            client: Some(client.parse().unwrap()),
            sender: Some(address("a@large.example")),
            identity: asked.then_some(identity),
            ..Facts::default()
        },
    }
}

#[tokio::test]
async fn greylisting_and_who_a_client_is_in_dns() {
    let greylist = |more: &str| {
        config(&format!(
            "greylist = {{enabled = true, delay = 1, window = 3600, network_after = 2, {more}}}"
        ))
    };
    for database in databases().await.unwrap() {
        let open = async |config: &Config| {
            let store = Store::new(database.open().await.unwrap(), "mx.example.org");
            Limits::open(config, store).await.unwrap()
        };
        let limits = open(&greylist("")).await;
        let weigh = async |weigh: &Weigh| {
            let weighed = limits.weigh(TraceId(1), weigh).await;
            (weighed.status.is_some(), weighed.unidentified)
        };
        let of = |client: &str, asked: bool| recipient(client, Some("large.example"), None, asked);
        // Only who would wait is asked about, and nothing is noted before.
        assert_eq!(weigh(&of("192.0.2.1", false)).await, (true, true));
        limits.flush().await;
        let known = async || {
            let list = GreyList {
                part: String::new(),
                limit: 100,
            };
            let greys = limits.list_greys(&list).await.unwrap();
            let networks = greys.waiting.into_iter().map(|grey| grey.network);
            networks.collect::<Vec<_>>()
        };
        assert!(known().await.is_empty());
        assert_eq!(weigh(&of("192.0.2.1", true)).await, (true, false));
        limits.flush().await;
        assert_eq!(known().await, ["large.example"]);
        tokio::time::sleep(std::time::Duration::from_millis(2100)).await;
        // It comes again from another network, and without SPF it is nobody's.
        assert_eq!(weigh(&of("203.0.113.9", true)).await, (false, false));
        let other = recipient("198.51.100.7", None, None, true);
        assert_eq!(weigh(&other).await, (true, false));
        // After two messages the domain need not wait any more.
        let mut taken = of("203.0.113.9", true);
        taken.facts.sender = Some(address("b@large.example"));
        assert_eq!(weigh(&taken).await, (true, false));
        for _ in 0..2 {
            let mut done = taken.clone();
            done.stage = message(1).stage;
            assert_eq!(weigh(&done).await, (false, false));
        }
        assert_eq!(weigh(&taken).await, (false, false));
        limits.sweep().await;
        limits.close().await;

        let limits = open(&greylist(
            "spf_pass = 'exempt', except_client = ['.out.example']",
        ))
        .await;
        let weigh = async |weigh: &Weigh| {
            let weighed = limits.weigh(TraceId(1), weigh).await;
            (weighed.status.is_some(), weighed.unidentified)
        };
        let new = |spf, name, asked| {
            let mut weigh = recipient("192.0.2.77", spf, name, asked);
            weigh.facts.sender = Some(address("new@other.example"));
            weigh
        };
        assert_eq!(weigh(&new(None, None, false)).await, (true, true));
        let passes = new(Some("other.example"), None, true);
        assert_eq!(weigh(&passes).await, (false, false));
        let named = new(None, Some("a.out.example"), true);
        assert_eq!(weigh(&named).await, (false, false));
        let unnamed = new(None, Some("a.other.example"), true);
        assert_eq!(weigh(&unnamed).await, (true, false));
        limits.close().await;

        let limits = open(&greylist("spf_pass = 'none'")).await;
        let told = limits.weigh(TraceId(1), &new(None, None, false)).await;
        assert!(told.status.is_some() && !told.unidentified);
        limits.close().await;
    }
}
