//! What must not grow with the mailbox: searches with an index among 100,000 messages, and everyday commands in an
//! account of 1,000,000.

use super::fetch::median;
use super::{Figures, Load, millis, quantile, settle, timed};
use crate::imap::Imap;
use crate::side::Side;
use crate::{Outcome, corpus, processes};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// The user whose account is large.
const OWNER: usize = 2;
/// Messages appended by one command: a server that syncs each would take an hour.
const APPENDED: usize = 25;
/// Messages copied by one command.
const COPIED: usize = 20_000;

pub async fn measure(side: &Side, load: &Load, figures: &mut Figures) -> Outcome<()> {
    fill(side, load).await?;
    search(side, load, figures).await?;
    grow(side, load, figures).await?;
    everyday(side, load, figures).await
}

/// Appends over eight connections; from the corpus one message after the other, so that nothing is held in memory.
async fn fill(side: &Side, load: &Load) -> Outcome<()> {
    let mut imap = side.session(OWNER).await?;
    imap.command("CREATE Many").await?;
    let next = Arc::new(AtomicUsize::new(0));
    let count = load.many;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let mut imap = side.session(OWNER).await?;
        let next = next.clone();
        tasks.spawn(async move {
            loop {
                let first = next.fetch_add(APPENDED, Ordering::Relaxed);
                if first >= count {
                    return imap.command("LOGOUT").await;
                }
                let numbers = first..count.min(first + APPENDED);
                imap.append_all(
                    "Many",
                    numbers.map(|number| corpus::message("many", number)),
                )
                .await?;
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    settle(side).await
}

async fn search(side: &Side, load: &Load, figures: &mut Figures) -> Outcome<()> {
    let Some(took) = side.index(OWNER).await? else {
        eprintln!("perf:   no index on this side");
        return Ok(());
    };
    figures.higher(
        format!("messages indexed, {}", load.many),
        "per s",
        load.many as f64 / took.as_secs_f64(),
    );
    let mut imap = side.session(OWNER).await?;
    imap.command("SELECT Many").await?;
    let (mut own, mut both) = (Vec::new(), Vec::new());
    let mut dice = corpus::Dice::new(7);
    for round in 0..load.searches + 10 {
        let number = dice.below(load.many);
        let word = corpus::own_word(number);
        let first = timed(&mut imap, &format!("SEARCH TEXT {word}")).await?;
        let command = format!("SEARCH BODY {word} BODY {}", corpus::COMMON);
        let second = timed(&mut imap, &command).await?;
        // The first ones warm up.
        if round >= 10 {
            own.push(first);
            both.push(second);
        }
    }
    for (name, times) in [("TEXT, a word", &mut own), ("BODY, two words", &mut both)] {
        let name = format!("indexed SEARCH {name}, {} messages", load.many);
        figures.lower(format!("{name}, p50"), "ms", quantile(times, 0.5));
        figures.lower(format!("{name}, p99"), "ms", quantile(times, 0.99));
    }
    let common = format!("SEARCH RETURN (COUNT) TEXT {}", corpus::COMMON);
    let time = median(&mut imap, load, &common, 1).await?;
    figures.lower(
        format!("indexed SEARCH TEXT, a common word, {} messages", load.many),
        "ms",
        time,
    );
    Ok(())
}

/// Copies until the mailbox is as large as it shall be.
async fn grow(side: &Side, load: &Load, figures: &mut Figures) -> Outcome<()> {
    let mut imap = side.session(OWNER).await?;
    imap.command("CREATE Huge").await?;
    imap.command("SELECT Many").await?;
    let start = Instant::now();
    for _ in 0..load.huge / load.many {
        let mut low = 1;
        while low <= load.many {
            let high = (low + COPIED - 1).min(load.many);
            imap.command(&format!("COPY {low}:{high} Huge")).await?;
            low = high + 1;
        }
    }
    let rate = load.huge as f64 / start.elapsed().as_secs_f64();
    figures.higher(
        format!("COPY of {COPIED} at a time, up to {} messages", load.huge),
        "per s",
        rate,
    );
    settle(side).await
}

async fn everyday(side: &Side, load: &Load, figures: &mut Figures) -> Outcome<()> {
    let all = load.huge;
    let mut imap = side.session(OWNER).await?;
    let before = processes::pss_kib(&side.roots())?;
    let time = timed(&mut imap, "SELECT Huge").await?;
    figures.lower(format!("first SELECT, {all} messages"), "ms", time);
    let mut again = Vec::new();
    for _ in 0..load.rounds {
        imap.command("SELECT INBOX").await?;
        again.push(timed(&mut imap, "SELECT Huge").await?);
    }
    figures.lower(
        format!("SELECT, {all} messages"),
        "ms",
        quantile(&mut again, 0.5),
    );
    let (low, at) = (all - 99, all / 2);
    let commands = [
        (
            format!("FETCH {low}:{all} (UID FLAGS ENVELOPE RFC822.SIZE)"),
            "FETCH of the newest 100 (UID FLAGS ENVELOPE RFC822.SIZE)",
            100,
        ),
        (
            format!("FETCH {at} (BODY.PEEK[])"),
            "FETCH of one (BODY.PEEK[])",
            1,
        ),
        (
            "UID FETCH 1:* (FLAGS)".to_owned(),
            "UID FETCH 1:* (FLAGS)",
            all,
        ),
        (
            "SEARCH RETURN (COUNT) UNSEEN".to_owned(),
            "SEARCH RETURN (COUNT) UNSEEN",
            1,
        ),
        (
            "SEARCH RETURN (ALL) FLAGGED".to_owned(),
            "SEARCH RETURN (ALL) FLAGGED",
            1,
        ),
        ("STATUS Huge (UNSEEN UIDNEXT)".to_owned(), "STATUS", 1),
    ];
    for (command, name, expected) in commands {
        let time = median(&mut imap, load, &command, expected).await?;
        figures.lower(format!("{name}, {all} messages"), "ms", time);
    }
    change(&mut imap, load, figures).await?;
    settle(side).await?;
    let after = processes::pss_kib(&side.roots())?;
    figures.lower(
        format!("memory for a session in {all} messages, PSS"),
        "MiB",
        after.saturating_sub(before) as f64 / 1024.0,
    );
    Ok(())
}

async fn change(imap: &mut Imap, load: &Load, figures: &mut Figures) -> Outcome<()> {
    let all = load.huge;
    let (at, many) = (all / 2, load.changed);
    let end = at + many - 1;
    let (mut one, mut store, mut append, mut copy, mut expunge) =
        (vec![], vec![], vec![], vec![], vec![]);
    imap.command("CREATE Part").await?;
    for round in 0..load.rounds {
        let sign = if round % 2 == 0 { '+' } else { '-' };
        one.push(timed(imap, &format!("STORE {at} {sign}FLAGS (\\Flagged)")).await?);
        store.push(timed(imap, &format!("STORE {at}:{end} {sign}FLAGS (\\Answered)")).await?);
        copy.push(timed(imap, &format!("COPY {at}:{end} Part")).await?);
        let start = Instant::now();
        imap.append("Huge", &corpus::message("huge", round)).await?;
        append.push(millis(start.elapsed()));
        imap.command(&format!("STORE {} +FLAGS.SILENT (\\Deleted)", all + 1))
            .await?;
        expunge.push(timed(imap, "EXPUNGE").await?);
    }
    for (name, mut times) in [
        ("STORE of one".to_owned(), one),
        (format!("STORE of {many}"), store),
        (format!("COPY of {many}"), copy),
        ("APPEND".to_owned(), append),
        ("EXPUNGE of one".to_owned(), expunge),
    ] {
        figures.lower(
            format!("{name}, {all} messages"),
            "ms",
            quantile(&mut times, 0.5),
        );
    }
    Ok(())
}
