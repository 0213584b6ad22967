//! Changing a large mailbox: APPEND, STORE, COPY, MOVE, EXPUNGE.

use super::{Figures, Load, messages, quantile, settle, timed};
use crate::side::Side;
use crate::{Outcome, processes};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// Fills the large mailbox, the first part over one connection, which is measured.
pub async fn fill(side: &Side, load: &Load, figures: &mut Figures) -> Outcome<()> {
    settle(side).await?;
    let disk = processes::disk_kib(&side.data)?;
    let mut imap = side.session(0).await?;
    for mailbox in ["Big", "One", "Two"] {
        imap.command(&format!("CREATE {mailbox}")).await?;
    }
    let mails = Arc::new(messages("big", load.mailbox));
    let octets: usize = mails.iter().map(Vec::len).sum();
    let start = Instant::now();
    for mail in mails.iter().take(load.appended) {
        imap.append("Big", mail).await?;
    }
    let rate = load.appended as f64 / start.elapsed().as_secs_f64();
    figures.higher("APPEND of 2 KB over 1 connection", "per s", rate);
    let next = Arc::new(AtomicUsize::new(load.appended));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let mut imap = side.session(0).await?;
        let (mails, next) = (mails.clone(), next.clone());
        tasks.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some(mail) = mails.get(number) else {
                    return imap.command("LOGOUT").await;
                };
                imap.append("Big", mail).await?;
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    settle(side).await?;
    let disk = processes::disk_kib(&side.data)?.saturating_sub(disk);
    figures.lower(
        format!(
            "disk for {} mails of {} MB",
            load.mailbox,
            octets / 1_000_000
        ),
        "MB",
        disk as f64 * 1024.0 / 1e6,
    );
    Ok(())
}

pub async fn measure(side: &Side, load: &Load, figures: &mut Figures) -> Outcome<()> {
    settle(side).await?;
    let mut imap = side.session(0).await?;
    let set = format!("1:{}", load.changed);
    let (mut store, mut copy, mut moved, mut expunge) = (vec![], vec![], vec![], vec![]);
    for round in 0..load.rounds {
        imap.command("SELECT Big").await?;
        let sign = if round % 2 == 0 { '+' } else { '-' };
        store.push(timed(&mut imap, &format!("STORE {set} {sign}FLAGS (\\Flagged)")).await?);
        copy.push(timed(&mut imap, &format!("COPY {set} One")).await?);
        imap.command("SELECT One").await?;
        moved.push(timed(&mut imap, &format!("MOVE {set} Two")).await?);
        imap.command("SELECT Two").await?;
        imap.command(&format!("STORE {set} +FLAGS.SILENT (\\Deleted)"))
            .await?;
        expunge.push(timed(&mut imap, "EXPUNGE").await?);
        let left = imap.messages("Big").await?;
        if left != load.mailbox {
            return Err(format!("{left} messages in Big after a round of changes").into());
        }
    }
    for (name, mut times) in [
        ("STORE", store),
        ("COPY", copy),
        ("MOVE", moved),
        ("EXPUNGE", expunge),
    ] {
        figures.lower(format!("{name} {set}"), "ms", quantile(&mut times, 0.5));
    }
    Ok(())
}
