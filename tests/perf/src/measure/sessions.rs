//! Whole sessions: connect, log in, select, fetch the newest, log out.

use super::{Figures, Load, millis, settle};
use crate::side::{Side, USERS};
use crate::{Outcome, processes};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

pub async fn measure(side: &Side, load: &Load, figures: &mut Figures) -> Outcome<()> {
    settle(side).await?;
    let next = Arc::new(AtomicUsize::new(0));
    let cpu = processes::cpu(&side.roots())?;
    let start = Instant::now();
    let (count, to) = (load.sessions, side.imap);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let next = next.clone();
        tasks.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return Outcome::Ok(());
                }
                let user = crate::side::user(number % USERS);
                let mut imap = crate::imap::Imap::login(to, &user, crate::side::PASSWORD).await?;
                imap.command("SELECT INBOX").await?;
                imap.command("FETCH 1:5 (UID FLAGS ENVELOPE)").await?;
                imap.command("LOGOUT").await?;
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    let rate = count as f64 / start.elapsed().as_secs_f64();
    settle(side).await?;
    let cpu = processes::cpu(&side.roots())?.saturating_sub(cpu);
    figures.higher("IMAP sessions, 8 connections", "per s", rate);
    figures.lower(
        "IMAP sessions: server CPU each",
        "ms",
        millis(cpu) / count as f64,
    );
    Ok(())
}
