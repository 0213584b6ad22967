//! How many messages a second the queue takes and gives to a deliverd that answers at once, and what CPU each costs:
//! `cargo run --release -p queued --example load -- [messages] [connections] [directory]`.

use async_trait::async_trait;
use ipc::Fault;
use ipc::api::deliverd::{Deliver, Delivered};
use ipc::api::queued::{Commit, Origin, Right};
use ipc::api::relayd::{Relay, Relayed};
use queued::{Config, Core, Peers};
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use types::{
    Body, BodyType, Enhanced, Envelope, Grant, Notify, Outcome, Recipient, Role, Route, Status,
    Terms, TraceId,
};

#[derive(Default)]
struct Sink {
    delivered: AtomicU64,
}

#[async_trait]
impl Peers for Sink {
    async fn deliver(&self, call: &Deliver, _: Option<File>) -> Result<Delivered, Fault> {
        tokio::task::yield_now().await;
        self.delivered.fetch_add(1, Relaxed);
        let status = Status {
            code: 250,
            enhanced: Enhanced(2, 0, 0),
            text: "in the mailbox".to_owned(),
            host: None,
        };
        let outcomes = call
            .recipients
            .iter()
            .map(|one| (one.index, Outcome::Done(status.clone())));
        Ok(Delivered {
            outcomes: outcomes.collect(),
            follow_ups: Vec::new(),
        })
    }

    async fn relay(&self, _: &Relay, _: Option<File>) -> Result<Relayed, Fault> {
        Ok(Relayed {
            outcomes: Vec::new(),
            dsn_passed: false,
            host: None,
            destination_down: false,
            by_passed: false,
            policy: None,
        })
    }

    async fn verify(&self, _: TraceId, _: &Grant) -> Result<bool, Fault> {
        Ok(true)
    }
}

fn cpu() -> Duration {
    let clock = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(
        clock.tv_sec.unsigned_abs(),
        u32::try_from(clock.tv_nsec).unwrap_or(0),
    )
}

fn message(core: &Core) -> Result<Commit, Box<dyn std::error::Error + Send + Sync>> {
    Ok(Commit {
        id: core.reserve(1)?,
        trace: TraceId(1),
        origin: Origin {
            right: Right::Incoming,
            listener: "mx".to_owned(),
            client: "192.0.2.1".to_owned(),
        },
        envelope: Envelope {
            sender: Some("a@example.net".parse()?),
            ret: None,
            envid: None,
            body: BodyType::SevenBit,
            smtputf8: false,
            require_tls: false,
            terms: Terms::default(),
            recipients: vec![Recipient {
                address: "jane@example.org".parse()?,
                orcpt: None,
                notify: Notify::default(),
                route: Route::Local,
            }],
        },
        prefix: vec![b'p'; 200].into(),
        body: Body::Inline(vec![b'x'; 2048].into()),
        held: None,
    })
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut arguments = std::env::args().skip(1);
    let messages: u64 = arguments.next().map_or(Ok(20_000), |text| text.parse())?;
    let connections: u64 = arguments.next().map_or(Ok(32), |text| text.parse())?;
    let directory: PathBuf = arguments
        .next()
        .map_or_else(|| std::env::temp_dir().join("queued-load"), PathBuf::from);
    std::fs::create_dir_all(&directory)?;
    let sink = Arc::new(Sink::default());
    let peers: Arc<dyn Peers> = Arc::clone(&sink) as Arc<dyn Peers>;
    let core = Core::open(Config::default(), &directory, "mx.example.org", peers)?;
    core.start();
    let (begin, began) = (Instant::now(), cpu());
    let mut tasks = Vec::new();
    for _ in 0..connections {
        let core = Arc::clone(&core);
        tasks.push(tokio::spawn(async move {
            for _ in 0..messages / connections {
                core.commit(Role::Smtpd, 1, message(&core)?).await?;
            }
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
        }));
    }
    for task in tasks {
        task.await??;
    }
    let taken = begin.elapsed();
    let count = messages / connections * connections;
    while sink.delivered.load(Relaxed) < count {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let spent = cpu() - began;
    println!(
        "{:.0} messages/s, {:.3} ms CPU each",
        count as f64 / taken.as_secs_f64(),
        spent.as_secs_f64() * 1000.0 / count as f64
    );
    core.close().await;
    Ok(())
}
