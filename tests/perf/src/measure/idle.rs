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
    Ok(())
}
