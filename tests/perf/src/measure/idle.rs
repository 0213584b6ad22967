//! From the 250 to the EXISTS that an idling client sees.

use super::{Figures, Load, messages, millis, quantile, settle};
use crate::Outcome;
use crate::side::{Side, user};
use crate::smtp::Smtp;
use std::time::{Duration, Instant};

/// Longer than this the measurement takes on no side, whatever the number of messages.
const TIME: Duration = Duration::from_secs(30);

pub async fn measure(side: &Side, load: &Load, figures: &mut Figures) -> Outcome<()> {
    settle(side).await?;
    let mut imap = side.session(1).await?;
    imap.command("SELECT INBOX").await?;
    imap.idle().await?;
    let mut smtp = Smtp::connect(side.smtp).await?;
    let to = [user(1)];
    let end = Instant::now() + TIME;
    let mut latencies = Vec::new();
    for (number, mail) in messages("push", load.pushes).iter().enumerate() {
        // The EXISTS can be there before the 250: both are waited for at once, and such a push took no time.
        let start = Instant::now();
        let acknowledged = async {
            smtp.send(&to, mail).await?;
            Ok(start.elapsed())
        };
        let seen = async {
            imap.wait_exists().await?;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(start.elapsed())
        };
        let (acknowledged, seen) = tokio::try_join!(acknowledged, seen)?;
        // The first ones warm up.
        if number >= 5 {
            latencies.push(millis(seen.saturating_sub(acknowledged)));
        }
        if Instant::now() > end {
            break;
        }
    }
    imap.done().await?;
    figures.lower("250 to IDLE push, p50", "ms", quantile(&mut latencies, 0.5));
    figures.lower(
        "250 to IDLE push, p99",
        "ms",
        quantile(&mut latencies, 0.99),
    );
    fan_out(side, load, figures).await
}

/// One mailbox that many connections look at: from the 250 until the last of them has seen the EXISTS.
async fn fan_out(side: &Side, load: &Load, figures: &mut Figures) -> Outcome<()> {
    // Each of Dovecot's processes needs an inotify instance of its own, or looks every half a minute only: that would measure
    // the system's limit.
    if side.is_peer() && inotify_instances() < load.idle + 20 {
        eprintln!(
            "perf:   left out: {} connections in IDLE need as many fs.inotify.max_user_instances",
            load.idle
        );
        return Ok(());
    }
    let mut sessions = Vec::new();
    for _ in 0..load.idle {
        let mut imap = side.session(3).await?;
        imap.command("SELECT INBOX").await?;
        imap.idle().await?;
        sessions.push(imap);
    }
    settle(side).await?;
    let mut smtp = Smtp::connect(side.smtp).await?;
    let to = [user(3)];
    let (mut one, mut last) = (Vec::new(), Vec::new());
    for mail in &messages("fan", load.rounds * 4) {
        let mut waiting = tokio::task::JoinSet::new();
        for mut imap in sessions.drain(..) {
            waiting.spawn(async move {
                imap.wait_exists().await?;
                Outcome::Ok((imap, Instant::now()))
            });
        }
        smtp.send(&to, mail).await?;
        let acknowledged = Instant::now();
        let mut slowest = 0.0_f64;
        while let Some(seen) = waiting.join_next().await {
            let (imap, at) = seen??;
            let took = millis(at.saturating_duration_since(acknowledged));
            slowest = slowest.max(took);
            one.push(took);
            sessions.push(imap);
        }
        last.push(slowest);
    }
    let name = format!("250 to IDLE push, {} connections to one mailbox", load.idle);
    figures.lower(format!("{name}, p50"), "ms", quantile(&mut one, 0.5));
    figures.lower(
        format!("{name}, the last of them, p50"),
        "ms",
        quantile(&mut last, 0.5),
    );
    for mut imap in sessions {
        imap.done().await?;
    }
    Ok(())
}

/// How many a user may have.
fn inotify_instances() -> usize {
    let limit = std::fs::read_to_string("/proc/sys/fs/inotify/max_user_instances");
    limit
        .ok()
        .and_then(|limit| limit.trim().parse().ok())
        .unwrap_or(usize::MAX)
}
