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
    let mut sessions = Vec::new();
    for number in 0..load.idle {
        let mut imap = Imap::login_tls(side.imaps, &user(number % USERS), PASSWORD).await?;
        imap.command("SELECT INBOX").await?;
        imap.idle().await?;
        sessions.push(imap);
    }
    settle(side).await?;
    let with = processes::pss_kib(&side.roots())?;
    figures.lower(
        format!(
            "all processes with {} idle IMAP connections under TLS, PSS",
            load.idle
        ),
        "MiB",
        with as f64 / 1024.0,
    );
    figures.lower(
        "an idle IMAP connection under TLS, PSS",
        "KiB",
        with.saturating_sub(before) as f64 / load.idle as f64,
    );
    for mut imap in sessions {
        imap.done().await?;
    }
    Ok(())
}
