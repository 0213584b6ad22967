//! A long queue: how fast it empties when its destinations are back, and what it costs while it waits.
//!
//! All destinations refuse connections at first, so that everything waits as it does when a large site is away. Then they are open,
//! and the queue is told to try all of it now.

use super::{Figures, Load, millis, settle};
use crate::side::Side;
use crate::sink::{Sink, numbered};
use crate::smtp::Smtp;
use crate::{Outcome, corpus, processes};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Destinations among which the messages are spread, each a host of its own: `d0.drain.test` and so on.
pub const DESTINATIONS: usize = 200;
/// The domain below which they all are.
pub const ELSEWHERE: &str = "drain.test";

/// Where a destination is: an address of its own on this machine, so that each has its connections.
pub fn host(number: usize, port: u16) -> SocketAddr {
    let [high, low] = u16::try_from(number + 257)
        .unwrap_or(u16::MAX)
        .to_be_bytes();
    (Ipv4Addr::new(127, 0, high, low), port).into()
}
/// How long the queue is watched while nothing can be sent: attempts are made every ten seconds.
const WATCHED: Duration = Duration::from_secs(12);
/// Longer than this it must not take.
const PATIENCE: Duration = Duration::from_secs(600);

pub async fn measure(side: &Side, load: &Load, figures: &mut Figures) -> Outcome<()> {
    let mut sent = 0;
    for goal in [load.drained / 100, load.drained / 10, load.drained] {
        let rate = fill(side, sent..goal).await?;
        sent = goal;
        if goal == load.drained {
            figures.higher("queueing for hosts that are away", "per s", rate);
        }
        wait(side, figures, goal).await?;
    }
    drain(side, figures, load.drained).await
}

/// Has messages accepted that cannot be sent; gives how many were in a second.
async fn fill(side: &Side, numbers: std::ops::Range<usize>) -> Outcome<f64> {
    let count = numbers.len();
    let next = Arc::new(AtomicUsize::new(numbers.start));
    let begin = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let (next, end) = (Arc::clone(&next), numbers.end);
        let mut client = Smtp::connect(side.smtp).await?;
        tasks.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= end {
                    return client.quit().await;
                }
                let to = format!("u@d{}.{ELSEWHERE}", number % DESTINATIONS);
                let message = numbered(number, &corpus::message("drain", number));
                client.send(&[to], &message).await?;
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(count as f64 / begin.elapsed().as_secs_f64())
}

/// What it costs while nothing can be sent.
async fn wait(side: &Side, figures: &mut Figures, waiting: usize) -> Outcome<()> {
    // What has just come is tried, and put away.
    side.queue_settled(waiting).await?;
    settle_quickly(side).await?;
    let cpu = processes::cpu(&side.roots())?;
    tokio::time::sleep(WATCHED).await;
    let cpu = processes::cpu(&side.roots())?.saturating_sub(cpu);
    let pids = side.queue_processes()?;
    let pss = processes::pss_kib(&pids)?;
    figures.lower(
        format!("{waiting} messages wait: the queue's process, PSS"),
        "MiB",
        pss as f64 / 1024.0,
    );
    figures.lower(
        format!("{waiting} messages wait: CPU of all processes"),
        "ms per s",
        millis(cpu) / WATCHED.as_secs_f64(),
    );
    Ok(())
}

/// As [`settle`], but not for long: attempts go on all the time.
async fn settle_quickly(side: &Side) -> Outcome<()> {
    let settled = tokio::time::timeout(Duration::from_secs(10), settle(side)).await;
    settled.unwrap_or(Ok(()))
}

async fn drain(side: &Side, figures: &mut Figures, count: usize) -> Outcome<()> {
    let hosts: Vec<SocketAddr> = (0..DESTINATIONS)
        .map(|number| host(number, side.elsewhere))
        .collect();
    let sink = Sink::open(&hosts)?;
    let cpu = processes::cpu(&side.roots())?;
    let pids = side.queue_processes()?;
    let begin = Instant::now();
    side.flush_queue().await?;
    let (mut last, mut reached) = (0, begin);
    let mut asked = Vec::new();
    let mut most = 0;
    let mut turn = begin;
    while sink.different() < count {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let there = sink.different();
        if there > last {
            (last, reached) = (there, Instant::now());
        }
        if reached.elapsed() > Duration::from_secs(60) || begin.elapsed() > PATIENCE {
            return Err(format!("{there} of {count} messages arrived, and no more").into());
        }
        if turn.elapsed() > Duration::from_secs(1) {
            let start = Instant::now();
            side.queue_figures().await?;
            asked.push(millis(start.elapsed()));
            most = most.max(processes::pss_kib(&pids)?);
            turn = Instant::now();
        }
    }
    let took = begin.elapsed();
    settle_quickly(side).await?;
    let cpu = processes::cpu(&side.roots())?.saturating_sub(cpu);
    let rate = count as f64 / took.as_secs_f64();
    figures.higher(
        format!("{count} messages to {DESTINATIONS} hosts that are back"),
        "per s",
        rate,
    );
    figures.lower(
        "draining: server CPU per mail",
        "ms",
        millis(cpu) / count as f64,
    );
    figures.lower(
        "draining: the queue's process, PSS at most",
        "MiB",
        most as f64 / 1024.0,
    );
    if !asked.is_empty() {
        figures.lower(
            "draining: asking for the queue's figures, slowest",
            "ms",
            super::quantile(&mut asked, 1.0),
        );
    }
    figures.lower(
        "draining: messages that came twice",
        "",
        (sink.all() - count.min(sink.all())) as f64,
    );
    Ok(())
}
