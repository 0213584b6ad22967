//! Memory after the load, and with idle connections under TLS.

use super::{Figures, Load, settle};
use crate::imap::Imap;
use crate::side::{PASSWORD, Side, USERS, user};
use crate::{Outcome, processes};

pub async fn measure(side: &Side, load: &Load, figures: &mut Figures) -> Outcome<()> {
    settle(side).await?;
    let before = processes::pss_kib(&side.roots())?;
    figures.lower(
        "all processes after the load, PSS",
        "MiB",
        before as f64 / 1024.0,
    );
    for tls in [false, true] {
        connections(side, load, tls, figures).await?;
    }
    Ok(())
}

/// What idle connections take beside what is there without them.
async fn connections(side: &Side, load: &Load, tls: bool, figures: &mut Figures) -> Outcome<()> {
    let how = if tls { "under TLS" } else { "without TLS" };
    settle(side).await?;
    let before = processes::pss_kib(&side.roots())?;
    let mut sessions = Vec::new();
    for number in 0..load.idle {
        let user = number % USERS;
        let mut imap = match tls {
            true => Imap::login_tls(side.imaps, &self::user(user), PASSWORD).await?,
            false => side.session(user).await?,
        };
        imap.command("SELECT INBOX").await?;
        imap.idle().await?;
        sessions.push(imap);
    }
    settle(side).await?;
    let with = processes::pss_kib(&side.roots())?;
    figures.lower(
        format!(
            "all processes with {} idle IMAP connections {how}, PSS",
            load.idle
        ),
        "MiB",
        with as f64 / 1024.0,
    );
    figures.lower(
        format!("an idle IMAP connection {how}, PSS"),
        "KiB",
        with.saturating_sub(before) as f64 / load.idle as f64,
    );
    for mut imap in sessions {
        imap.done().await?;
    }
    Ok(())
}
