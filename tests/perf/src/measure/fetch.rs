//! Reading a large mailbox: SELECT, FETCH of all kinds, SEARCH, SORT, THREAD. Each command is said once before it is measured.

use super::{Figures, Load, millis, quantile, settle};
use crate::imap::Imap;
use crate::side::Side;
use crate::{Outcome, corpus};
use std::time::Instant;

pub async fn measure(side: &Side, load: &Load, figures: &mut Figures) -> Outcome<()> {
    settle(side).await?;
    let mut imap = side.session(0).await?;
    let all = load.mailbox;
    let some = all.min(200);
    select(&mut imap, load, figures).await?;
    imap.command("SELECT Big").await?;
    let commands = [
        (
            "FETCH 1:* (UID FLAGS ENVELOPE INTERNALDATE RFC822.SIZE)",
            all,
        ),
        ("FETCH 1:* (UID FLAGS)", all),
        (
            "FETCH 1:* (BODY.PEEK[HEADER.FIELDS (FROM TO SUBJECT DATE)])",
            all,
        ),
        ("FETCH 1:200 (BODY.PEEK[])", some),
        ("FETCH 1:200 (BODYSTRUCTURE)", some),
    ];
    for (command, expected) in commands {
        let time = median(&mut imap, load, command, expected).await?;
        figures.lower(format!("{command}, {all} messages"), "ms", time);
    }
    for (name, command) in [
        (
            "SEARCH TEXT, a rare word",
            format!("SEARCH TEXT {}", corpus::RARE),
        ),
        (
            "SEARCH TEXT, a common word",
            format!("SEARCH TEXT {}", corpus::COMMON),
        ),
        ("SEARCH UNSEEN", "SEARCH UNSEEN".to_owned()),
        ("SEARCH SUBJECT", "SEARCH SUBJECT invoice".to_owned()),
        (
            "SORT (REVERSE DATE)",
            "SORT (REVERSE DATE) UTF-8 ALL".to_owned(),
        ),
        ("SORT (SUBJECT)", "SORT (SUBJECT) UTF-8 ALL".to_owned()),
        ("SORT (FROM) UNSEEN", "SORT (FROM) UTF-8 UNSEEN".to_owned()),
        (
            "THREAD REFERENCES",
            "THREAD REFERENCES UTF-8 ALL".to_owned(),
        ),
    ] {
        let time = median(&mut imap, load, &command, 1).await?;
        figures.lower(format!("{name}, {all} messages"), "ms", time);
    }
    Ok(())
}

async fn select(imap: &mut Imap, load: &Load, figures: &mut Figures) -> Outcome<()> {
    let mut times = Vec::new();
    for _ in 0..load.rounds * 4 {
        imap.command("SELECT INBOX").await?;
        let start = Instant::now();
        imap.command("SELECT Big").await?;
        times.push(millis(start.elapsed()));
    }
    figures.lower(
        format!("SELECT, {} messages", load.mailbox),
        "ms",
        quantile(&mut times, 0.5),
    );
    Ok(())
}

pub async fn median(imap: &mut Imap, load: &Load, command: &str, expected: usize) -> Outcome<f64> {
    let mut times = Vec::new();
    imap.command(command).await?;
    for _ in 0..load.rounds {
        let start = Instant::now();
        let answer = imap.command(command).await?;
        times.push(millis(start.elapsed()));
        if answer.responses != expected {
            return Err(format!(
                "{command}: {} responses, {expected} expected",
                answer.responses
            )
            .into());
        }
    }
    Ok(quantile(&mut times, 0.5))
}
