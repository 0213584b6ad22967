//! A name server for the tests: answers from a table, over UDP.

use hickory_resolver::proto::op::{Message, MessageType, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, MX};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use std::net::SocketAddr;
use tokio::net::UdpSocket;

/// What a name has.
#[derive(Clone, Copy)]
pub(super) enum Entry {
    Mx(u16, &'static str),
    Address([u8; 4]),
    /// The name is there, and nothing else.
    Nothing,
    /// SERVFAIL
    Failing,
}

/// Names without a final dot; those not in the table do not exist.
pub(super) async fn serve(table: Vec<(&'static str, Entry)>) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 1500];
        while let Ok((len, peer)) = socket.recv_from(&mut buffer).await {
            let query = Message::from_vec(&buffer[..len]).unwrap();
            let answer = answer(&query, &table);
            socket
                .send_to(&answer.to_vec().unwrap(), peer)
                .await
                .unwrap();
        }
    });
    address
}

fn answer(query: &Message, table: &[(&'static str, Entry)]) -> Message {
    let question = query.queries[0].clone();
    let asked = question
        .name()
        .to_ascii()
        .trim_end_matches('.')
        .to_ascii_lowercase();
    let mut response = Message::new(
        query.metadata.id,
        MessageType::Response,
        query.metadata.op_code,
    );
    response.metadata.recursion_available = true;
    response.metadata.recursion_desired = true;
    response.add_query(question.clone());
    let mut known = false;
    for (_, entry) in table.iter().filter(|(name, _)| *name == asked) {
        known = true;
        let data = match (entry, question.query_type()) {
            (Entry::Failing, _) => {
                response.metadata.response_code = ResponseCode::ServFail;
                continue;
            }
            (Entry::Mx(preference, host), RecordType::MX) => RData::MX(MX::new(
                *preference,
                Name::from_ascii(format!("{host}.")).unwrap(),
            )),
            (Entry::Address([a, b, c, d]), RecordType::A) => RData::A(A::new(*a, *b, *c, *d)),
            _ => continue,
        };
        response.add_answer(Record::from_rdata(question.name().clone(), 60, data));
    }
    if !known {
        response.metadata.response_code = ResponseCode::NXDomain;
    }
    response
}
