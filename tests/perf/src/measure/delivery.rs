//! SMTP to mailbox: acknowledged per second, in the mailboxes per second, processor time per message.

use super::{Figures, Load, messages, millis, settle};
use crate::side::{Side, USERS, user};
use crate::smtp::Smtp;
use crate::{Outcome, processes};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

pub async fn measure(side: &Side, load: &Load, figures: &mut Figures) -> Outcome<()> {
    // Caches, mailboxes and processes that come with the first messages are not what is measured.
    run(side, "warm", 4, 40, 1).await?;
    let one = run(side, "single", 1, load.single, 1).await?;
    figures.higher(
        "mail over 1 connection: acknowledged",
        "per s",
        one.acknowledged,
    );
    figures.higher(
        "mail over 1 connection: in mailboxes",
        "per s",
        one.delivered,
    );
    figures.lower("mail over 1 connection: server CPU per mail", "ms", one.cpu);
    let many = run(side, "parallel", 32, load.parallel, 1).await?;
    figures.higher(
        "mail over 32 connections: acknowledged",
        "per s",
        many.acknowledged,
    );
    figures.higher(
        "mail over 32 connections: in mailboxes",
        "per s",
        many.delivered,
    );
    figures.lower(
        "mail over 32 connections: server CPU per mail",
        "ms",
        many.cpu,
    );
    let ten = run(side, "tenfold", 8, load.tenfold, USERS).await?;
    figures.higher(
        "mail to 10 recipients: mails in all mailboxes",
        "per s",
        ten.delivered,
    );
    figures.lower("mail to 10 recipients: server CPU per mail", "ms", ten.cpu);
    Ok(())
}

struct Run {
    acknowledged: f64,
    delivered: f64,
    cpu: f64,
}

/// Sends `count` messages over `connections`, each to `recipients` of the users in turn.
async fn run(
    side: &Side,
    series: &str,
    connections: usize,
    count: usize,
    recipients: usize,
) -> Outcome<Run> {
    settle(side).await?;
    let mut watchers = Vec::new();
    let mut target = 0;
    for number in 0..USERS {
        let mut watcher = side.session(number).await?;
        target += watcher.messages("INBOX").await?;
        watchers.push(watcher);
    }
    target += count * recipients;
    let mails = Arc::new(messages(series, count));
    let next = Arc::new(AtomicUsize::new(0));
    let mut clients = Vec::new();
    for _ in 0..connections {
        clients.push(Smtp::connect(side.smtp).await?);
    }
    let cpu = processes::cpu(&side.roots())?;
    let start = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for mut client in clients {
        let (mails, next) = (mails.clone(), next.clone());
        tasks.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some(mail) = mails.get(number) else {
                    return client.quit().await;
                };
                let to: Vec<String> = (0..recipients)
                    .map(|add| user((number + add) % USERS))
                    .collect();
                client.send(&to, mail).await?;
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    let acknowledged = start.elapsed();
    let end = Instant::now() + Duration::from_secs(180);
    loop {
        let mut there = 0;
        for watcher in &mut watchers {
            there += watcher.messages("INBOX").await?;
        }
        if there == target {
            break;
        }
        if there > target {
            return Err(
                format!("{there} messages in the mailboxes where {target} should be").into(),
            );
        }
        if Instant::now() > end {
            return Err(format!("{} messages still not delivered", target - there).into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let delivered = start.elapsed();
    settle(side).await?;
    let cpu = processes::cpu(&side.roots())?.saturating_sub(cpu);
    Ok(Run {
        acknowledged: count as f64 / acknowledged.as_secs_f64(),
        delivered: count as f64 / delivered.as_secs_f64(),
        cpu: millis(cpu) / count as f64,
    })
}
