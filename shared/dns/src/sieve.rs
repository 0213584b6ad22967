//! Takes out of answers what would keep good ones from being proved.
//!
//! Caching name servers may put a denial that they happened to learn (that an alias's target has no A record, say) beside an
//! answer that needs none. The validation takes every denial for a part of the proof, finds that this one proves nothing, and
//! calls the answer bogus. An answer whose records are signed as they stand, not made from a wildcard, needs no denial
//! (RFC 4035 5.3): without it the signatures are judged as before.

use futures_util::{Stream, StreamExt as _};
use hickory_resolver::ConnectionProvider;
use hickory_resolver::PoolContext;
use hickory_resolver::config::ConnectionConfig;
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::xfer::DnsHandle;
use hickory_resolver::proto::dnssec::rdata::DNSSECRData;
use hickory_resolver::proto::op::{DnsRequest, DnsResponse, Message, ResponseCode};
use hickory_resolver::proto::rr::{RData, Record, RecordType};
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;

/// Makes connections to name servers whose answers go through the sieve.
#[derive(Clone, Default)]
pub(crate) struct Sieved(TokioRuntimeProvider);

/// Such a connection.
#[derive(Clone)]
pub(crate) struct Sieve<H>(H);

impl ConnectionProvider for Sieved {
    type Conn = Sieve<<TokioRuntimeProvider as ConnectionProvider>::Conn>;
    type FutureConn = Pin<Box<dyn Future<Output = Result<Self::Conn, NetError>> + Send>>;
    type RuntimeProvider = TokioRuntimeProvider;

    fn new_connection(
        &self,
        ip: IpAddr,
        config: &ConnectionConfig,
        cx: &PoolContext,
    ) -> Result<Self::FutureConn, NetError> {
        let made = self.0.new_connection(ip, config, cx)?;
        Ok(Box::pin(async move { made.await.map(Sieve) }))
    }

    fn runtime_provider(&self) -> &TokioRuntimeProvider {
        &self.0
    }
}

impl<H: DnsHandle> DnsHandle for Sieve<H> {
    type Response = Pin<Box<dyn Stream<Item = Result<DnsResponse, NetError>> + Send>>;
    type Runtime = H::Runtime;

    fn is_verifying_dnssec(&self) -> bool {
        self.0.is_verifying_dnssec()
    }

    fn is_using_edns(&self) -> bool {
        self.0.is_using_edns()
    }

    fn send(&self, request: DnsRequest) -> Self::Response {
        let answers = self.0.send(request);
        Box::pin(answers.map(|answer| {
            answer.map(|mut answer| {
                sieve(&mut answer);
                answer
            })
        }))
    }
}

fn sieve(answer: &mut Message) {
    let Some(kind) = answer.queries.first().map(|query| query.query_type()) else {
        return;
    };
    let complete = answer
        .answers
        .iter()
        .any(|record| record.record_type() == kind);
    if answer.metadata.response_code == ResponseCode::NoError
        && complete
        && !answer.answers.iter().any(of_wildcard)
    {
        answer.authorities.retain(|record| !denies(record));
    }
}

/// RFC 4035 5.3.4: then a denial is part of the proof.
fn of_wildcard(record: &Record) -> bool {
    match &record.data {
        RData::DNSSEC(DNSSECRData::RRSIG(signature)) => {
            signature.input().num_labels < record.name.num_labels()
        }
        _ => false,
    }
}

fn denies(record: &Record) -> bool {
    let denial = |kind| matches!(kind, RecordType::NSEC | RecordType::NSEC3);
    match &record.data {
        RData::DNSSEC(DNSSECRData::RRSIG(signature)) => denial(signature.input().type_covered),
        _ => denial(record.record_type()),
    }
}
