//! Deliveries over loopback: to a small server whose behaviour is scripted, with a small name server beside it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod delivery;
mod hosts;
mod names;
mod posting;
mod server;
mod signing;
mod transport;
mod verify;

use crate::attempt::Client;
use crate::config::Config;
use crate::content::{Content, Traits};
use crate::transaction::Job;
use crate::transport::{Dnssec, Transport};
use ipc::api::relayd::{RelayRecipient, Relayed};
use runtime::Source;
use types::{BodyType, Notify, Outcome, Status};

/// Short limits: a host that is silent must not hold up the tests.
fn config() -> Config {
    Config {
        nameservers: vec!["127.0.0.1:9".parse().unwrap()],
        connect_timeout: 5,
        greeting_timeout: 5,
        command_timeout: 5,
        data_timeout: 5,
        final_timeout: 5,
        // The name server of these tests signs nothing.
        tls: Transport {
            dnssec: Dnssec::Off,
            ..Transport::default()
        },
        ..Config::default()
    }
}

fn client(config: Config) -> Client {
    Client::new(config, "us.example".to_owned()).unwrap()
}

const BODY: &str = "Subject: test\r\n\r\n.dot\r\nline\r\n";

async fn job(recipients: &[&str], body: &[u8]) -> Job {
    let recipients = recipients
        .iter()
        .zip(0..)
        .map(|(address, index)| RelayRecipient {
            index,
            address: address.parse().unwrap(),
            orcpt: None,
            notify: Notify::default(),
        });
    let body = Source::from(body.to_vec());
    let traits = Traits::of(b"", &body).await.unwrap();
    Job {
        trace: types::TraceId(1),
        sender: Some("me@us.example".parse().unwrap()),
        ret: None,
        envid: None,
        body_type: BodyType::SevenBit,
        smtputf8: false,
        require_tls: false,
        terms: types::Terms::default(),
        manner: ipc::api::relayd::Manner::default(),
        recipients: recipients.collect(),
        content: Content {
            head: b"Received: by us\r\n".to_vec(),
            body,
        },
        traits,
    }
}

fn statuses(relayed: &Relayed) -> Vec<(char, &Status)> {
    fn kind(outcome: &Outcome) -> (char, &Status) {
        match outcome {
            Outcome::Done(status) => ('d', status),
            Outcome::Temporary(status) => ('t', status),
            Outcome::Permanent(status) => ('p', status),
        }
    }
    relayed.outcomes.iter().map(|(_, one)| kind(one)).collect()
}

/// `d250 t451 p550`
fn summary(relayed: &Relayed) -> String {
    let each = statuses(relayed)
        .into_iter()
        .map(|(kind, status)| format!("{kind}{}", status.code));
    each.collect::<Vec<_>>().join(" ")
}
