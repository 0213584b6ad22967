//! How the queue bears a backlog: `cargo run --release -p queued --example backlog -- [messages] [destinations] [directory]`.
//!
//! Three tenths of the destinations are dead, one tenth takes three seconds for each message, all others answer at once. Told are
//! how fast the healthy ones get their mail, what is in memory while the rest waits, and how long an operator's questions take.

use async_trait::async_trait;
use ipc::api::deliverd::{Deliver, Delivered};
use ipc::api::queued::{Commit, Origin, QueueFilter, Right};
use ipc::api::relayd::{Relay, Relayed};
use ipc::{Fault, FaultKind};
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

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// Hosts elsewhere; the first letter of a domain says of which kind.
#[derive(Default)]
struct Hosts {
    quick: AtomicU64,
    slow: AtomicU64,
    dead: AtomicU64,
}

fn status(code: u16, class: u8) -> Status {
    Status {
        code,
        enhanced: Enhanced(class, 0, 0),
        text: "says the host".to_owned(),
        host: None,
    }
}

#[async_trait]
impl Peers for Hosts {
    async fn deliver(&self, _: &Deliver, _: Option<File>) -> Result<Delivered, Fault> {
        Err(Fault::new(FaultKind::Temporary, "nobody is here"))
    }

    async fn relay(&self, call: &Relay, _: Option<File>) -> Result<Relayed, Fault> {
        let dead = call.domain.starts_with('d');
        let (count, pause) = match call.domain.get(..1) {
            Some("d") => (&self.dead, Duration::from_millis(1)),
            Some("s") => (&self.slow, Duration::from_secs(3)),
            _ => (&self.quick, Duration::from_millis(1)),
        };
        tokio::time::sleep(pause).await;
        count.fetch_add(1, Relaxed);
        let outcome = if dead {
            Outcome::Temporary(status(421, 4))
        } else {
            Outcome::Done(status(250, 2))
        };
        Ok(Relayed {
            outcomes: call
                .recipients
                .iter()
                .map(|one| (one.index, outcome.clone()))
                .collect(),
            dsn_passed: true,
            host: None,
            destination_down: dead,
            by_passed: false,
            policy: None,
        })
    }

    async fn verify(&self, _: TraceId, _: &Grant) -> Result<bool, Fault> {
        Ok(true)
    }
}

/// Which destination a message goes to.
fn domain(number: u64, destinations: u64) -> String {
    let place = number % destinations;
    let kind = match place * 10 / destinations {
        0..3 => 'd',
        3 => 's',
        _ => 'q',
    };
    format!("{kind}{place}.example")
}

fn message(core: &Core, domain: &str) -> Result<Commit, Failed> {
    Ok(Commit {
        id: core.reserve(1)?,
        trace: TraceId(1),
        origin: Origin {
            right: Right::Operator,
            listener: "local".to_owned(),
            client: "here".to_owned(),
        },
        envelope: Envelope {
            sender: Some("a@example.net".parse()?),
            ret: None,
            envid: None,
            body: BodyType::SevenBit,
            smtputf8: false,
            require_tls: false,
            recipients: vec![Recipient {
                address: format!("jane@{domain}").parse()?,
                orcpt: None,
                notify: Notify::default(),
                route: Route::Remote,
            }],
            terms: Terms::default(),
        },
        prefix: vec![b'p'; 200].into(),
        body: Body::Inline(vec![b'x'; 2048].into()),
        held: None,
    })
}

/// MiB of this process in memory.
fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok());
    pages.unwrap_or(0) * 4 / 1024
}

/// Commits one, however often the queue says that it is busy.
async fn commit(core: &Arc<Core>, domain: &str) -> Result<(), Failed> {
    let call = message(core, domain)?;
    loop {
        match core.commit(Role::Posthouse, 1, call.clone()).await {
            Err(fault) if fault.kind == FaultKind::Busy => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            other => return Ok(other?),
        }
    }
}

/// How long an operator waits for the figures, for one page of the list, and for all of it.
async fn ask(core: &Core, when: &str) -> Result<(), Failed> {
    let begin = Instant::now();
    let figures = core.figures().await?;
    let stats = begin.elapsed();
    let begin = Instant::now();
    let (mut first, mut listed, mut after) = (None, 0, None);
    loop {
        let page = core.list(&QueueFilter::default(), after, 200).await?;
        first.get_or_insert(begin.elapsed());
        listed += page.len();
        after = page.last().map(|entry| entry.id);
        if page.len() < 200 {
            break;
        }
    }
    println!(
        "{when}: {} messages, {} MiB in memory; stats {} ms, first page of the list {} ms, all {listed} in {} ms",
        figures.messages,
        resident(),
        stats.as_millis(),
        first.unwrap_or_default().as_millis(),
        begin.elapsed().as_millis(),
    );
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let mut arguments = std::env::args().skip(1);
    let messages: u64 = arguments.next().map_or(Ok(100_000), |text| text.parse())?;
    let destinations: u64 = arguments.next().map_or(Ok(1000), |text| text.parse())?;
    let directory: PathBuf = arguments.next().map_or_else(
        || std::env::temp_dir().join("queued-backlog"),
        PathBuf::from,
    );
    std::fs::create_dir_all(&directory)?;
    let hosts = Arc::new(Hosts::default());
    let peers: Arc<dyn Peers> = Arc::clone(&hosts) as Arc<dyn Peers>;
    let core = Core::open(Config::default(), &directory, "mx.example.org", peers)?;
    core.start();
    println!("{} MiB in memory in the beginning", resident());
    let begin = Instant::now();
    let mut tasks = Vec::new();
    for part in 0..64 {
        let core = Arc::clone(&core);
        tasks.push(tokio::spawn(async move {
            for number in (part..messages).step_by(64) {
                commit(&core, &domain(number, destinations)).await?;
            }
            Ok::<_, Failed>(())
        }));
    }
    for task in tasks {
        task.await??;
    }
    let healthy = (0..messages)
        .filter(|number| domain(*number, destinations).starts_with('q'))
        .count() as u64;
    let accepted = begin.elapsed();
    println!(
        "accepted at {:.0} messages/s; of {healthy} to healthy destinations {} have arrived",
        messages as f64 / accepted.as_secs_f64(),
        hosts.quick.load(Relaxed)
    );
    ask(&core, "while they are delivered").await?;
    while hosts.quick.load(Relaxed) < healthy {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let all = begin.elapsed();
    println!(
        "the last of them arrived {:.1} s after the first commit, {:.1} s after the last one: {:.0} messages/s; meanwhile {} slow \
         ones, and {} attempts at dead ones",
        all.as_secs_f64(),
        all.saturating_sub(accepted).as_secs_f64(),
        healthy as f64 / all.as_secs_f64(),
        hosts.slow.load(Relaxed),
        hosts.dead.load(Relaxed)
    );
    ask(&core, "while the rest waits").await?;
    let (attempts, begin) = (hosts.dead.load(Relaxed), Instant::now());
    let cpu = || {
        let clock = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        Duration::new(
            clock.tv_sec.unsigned_abs(),
            u32::try_from(clock.tv_nsec).unwrap_or(0),
        )
    };
    let before = cpu();
    tokio::time::sleep(Duration::from_secs(10)).await;
    println!(
        "in {:.0} s more: {:.2} s CPU, {} attempts at dead ones, {} MiB in memory",
        begin.elapsed().as_secs_f64(),
        (cpu() - before).as_secs_f64(),
        hosts.dead.load(Relaxed) - attempts,
        resident()
    );
    core.close().await;
    Ok(())
}
