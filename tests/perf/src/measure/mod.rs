//! What is measured, in an order that lets each measurement use what the ones before it left.

mod change;
mod delivery;
pub mod drain;
mod fetch;
mod idle;
mod large;
mod memory;
mod sessions;

use crate::imap::Imap;
use crate::report::{Better, Figure};
use crate::side::Side;
use crate::{Outcome, corpus, processes};
use std::time::{Duration, Instant};

/// Measurements that can be asked for by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Group {
    /// SMTP to mailbox.
    Delivery,
    /// 250 to IDLE, of one connection and of many to one mailbox.
    Idle,
    /// FETCH, SELECT, SEARCH, SORT, THREAD, STORE, COPY, MOVE, EXPUNGE and APPEND in a mailbox of 10,000 messages.
    Mailbox,
    /// Whole sessions.
    Sessions,
    /// Memory with idle connections.
    Memory,
    /// A long queue: what it costs while it waits, and how fast it empties.
    Drain,
    /// Searches with an index among 100,000 messages, and an account of 1,000,000.
    Large,
}

/// How much of everything.
pub struct Load {
    /// Messages over one connection.
    pub single: usize,
    /// Messages over 32 connections.
    pub parallel: usize,
    /// Messages to ten recipients each.
    pub tenfold: usize,
    /// Messages in the large mailbox.
    pub mailbox: usize,
    /// Those of them appended over one connection.
    pub appended: usize,
    /// Messages changed by one command.
    pub changed: usize,
    /// Measurements of one command, of which the median counts.
    pub rounds: usize,
    /// Messages sent to an idling client, at most.
    pub pushes: usize,
    /// Whole sessions.
    pub sessions: usize,
    /// Idle TLS connections.
    pub idle: usize,
    /// Messages, each with its own text, that are searched with an index.
    pub many: usize,
    /// Messages in the largest mailbox: copies of those.
    pub huge: usize,
    /// Searches with an index.
    pub searches: usize,
    /// Messages in the long queue.
    pub drained: usize,
}

impl Load {
    /// The full load, or about a tenth.
    pub fn new(quick: bool) -> Self {
        if quick {
            return Self {
                single: 30,
                parallel: 300,
                tenfold: 20,
                mailbox: 1000,
                appended: 100,
                changed: 100,
                rounds: 3,
                pushes: 20,
                sessions: 80,
                idle: 50,
                many: 2000,
                huge: 10_000,
                searches: 50,
                drained: 2000,
            };
        }
        Self {
            single: 400,
            parallel: 4000,
            tenfold: 300,
            mailbox: 10_000,
            appended: 1500,
            changed: 1000,
            rounds: 5,
            pushes: 300,
            sessions: 1200,
            idle: 500,
            many: 100_000,
            huge: 1_000_000,
            searches: 500,
            drained: 20_000,
        }
    }
}

/// Takes all measurements, or those of the given groups.
pub async fn all(side: &Side, load: &Load, only: &[Group]) -> Outcome<Vec<Figure>> {
    let wanted = |group| only.is_empty() || only.contains(&group);
    let mut figures = Figures::default();
    settle(side).await?;
    let pss = processes::pss_kib(&side.roots())?;
    figures.lower(
        "all processes after the start, PSS",
        "MiB",
        pss as f64 / 1024.0,
    );
    if wanted(Group::Delivery) {
        delivery::measure(side, load, &mut figures).await?;
    }
    if wanted(Group::Idle) {
        idle::measure(side, load, &mut figures).await?;
    }
    if wanted(Group::Mailbox) {
        change::fill(side, load, &mut figures).await?;
        fetch::measure(side, load, &mut figures).await?;
        change::measure(side, load, &mut figures).await?;
    }
    if wanted(Group::Sessions) {
        sessions::measure(side, load, &mut figures).await?;
    }
    if wanted(Group::Memory) {
        memory::measure(side, load, &mut figures).await?;
    }
    if wanted(Group::Drain) {
        drain::measure(side, load, &mut figures).await?;
    }
    if wanted(Group::Large) {
        large::measure(side, load, &mut figures).await?;
    }
    Ok(figures.0)
}

/// Collects figures and tells of each.
#[derive(Default)]
pub struct Figures(Vec<Figure>);

impl Figures {
    fn higher(&mut self, name: impl Into<String>, unit: &'static str, value: f64) {
        self.add(name.into(), unit, Better::Higher, value);
    }

    fn lower(&mut self, name: impl Into<String>, unit: &'static str, value: f64) {
        self.add(name.into(), unit, Better::Lower, value);
    }

    fn add(&mut self, name: String, unit: &'static str, better: Better, value: f64) {
        eprintln!("perf:   {name}: {value:.2} {unit}");
        self.0.push(Figure {
            name,
            unit,
            better,
            value,
        });
    }
}

/// Waits until the side uses no processor time for half a second, two minutes at most: the index may have work left.
async fn settle(side: &Side) -> Outcome<()> {
    let end = Instant::now() + Duration::from_secs(120);
    let mut before = processes::cpu(&side.roots())?;
    while Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = processes::cpu(&side.roots())?;
        if now.saturating_sub(before) <= Duration::from_millis(10) {
            break;
        }
        before = now;
    }
    Ok(())
}

/// Milliseconds.
fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// How long a command takes, in milliseconds.
async fn timed(imap: &mut Imap, command: &str) -> Outcome<f64> {
    let start = Instant::now();
    imap.command(command).await?;
    Ok(millis(start.elapsed()))
}

/// The value below which `share` (0 to 1) of them lie. The values get sorted.
fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    let at = (last as f64 * share).round() as usize;
    values.get(at.min(last)).copied().unwrap_or(f64::NAN)
}

/// Messages made before the clock starts.
fn messages(series: &str, count: usize) -> Vec<Vec<u8>> {
    (0..count)
        .map(|number| corpus::message(series, number))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::quantile;

    #[test]
    fn quantiles_are_of_the_sorted_values() {
        let mut values = vec![5.0, 1.0, 3.0, 2.0, 4.0];
        assert_eq!(quantile(&mut values, 0.5), 3.0);
        assert_eq!(quantile(&mut values, 0.99), 5.0);
        assert!(quantile(&mut [], 0.5).is_nan());
    }
}
