//! What is old goes, and what is too much.

use crate::config::Config;
use crate::gather::forget_rows;
use crate::store::{Store, now};
use sql::{Error, Value, args};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How often.
const EVERY: Duration = Duration::from_secs(900);
/// Reports that are removed by one statement.
const AT_ONCE: u64 = 200;

/// Looks every quarter of an hour until the daemon stops.
pub(crate) async fn run(store: Arc<Store>, config: Arc<Config>, mut stop: watch::Receiver<bool>) {
    loop {
        if let Err(error) = once(&store, &config).await {
            tracing::warn!(%error, "old reports stay for now");
        }
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

/// Removes what is to be removed.
pub(crate) async fn once(store: &Store, config: &Config) -> Result<(), Error> {
    let days = |days: u64| now().saturating_sub(days.saturating_mul(86_400));
    let db = store.db().await?;
    let text =
        "SELECT id FROM report_out WHERE state <> 'gathering' AND due < ? ORDER BY due LIMIT ?";
    loop {
        let _writing = store.write().await;
        let old = args![days(config.send.keep_days), AT_ONCE];
        let ids = ids(&db.fetch_all(text, old).await?)?;
        if ids.is_empty() {
            break;
        }
        forget_rows(store, ids.clone()).await?;
        db.execute_in("DELETE FROM report_out WHERE id IN ({list})", &[], ids)
            .await?;
    }
    db.execute(
        "DELETE FROM report_refused WHERE until_at < ?",
        args![now()],
    )
    .await?;
    let text = "SELECT id FROM report_in WHERE taken < ? ORDER BY taken LIMIT ?";
    loop {
        let _writing = store.write().await;
        let old = args![days(config.intake.keep_days), AT_ONCE];
        let ids = ids(&db.fetch_all(text, old).await?)?;
        if ids.is_empty() {
            break;
        }
        remove(store, ids).await?;
    }
    for (kind, most) in [
        ("unreadable", config.intake.max_unreadable),
        ("", config.intake.max_reports),
    ] {
        while too_many(store, kind, most).await? {}
    }
    Ok(())
}

/// Removes some of the oldest if there are too many; whether it did.
async fn too_many(store: &Store, kind: &str, most: u64) -> Result<bool, Error> {
    let _writing = store.write().await;
    let db = store.db().await?;
    let (condition, place) = match kind {
        "" => ("", args![]),
        kind => ("WHERE kind = ?", args![kind]),
    };
    let text = format!("SELECT COUNT(*) FROM report_in {condition}");
    let count = db.fetch_optional(&text, place.clone()).await?;
    let count = count.map_or(Ok(0), |row| row.u64(0))?;
    let over = count.saturating_sub(most).min(AT_ONCE);
    if over == 0 {
        return Ok(false);
    }
    let text = format!("SELECT id FROM report_in {condition} ORDER BY id LIMIT ?");
    let mut place = place;
    place.push(Value::from(over));
    let ids = ids(&db.fetch_all(&text, place).await?)?;
    remove(store, ids).await?;
    Ok(true)
}

async fn remove(store: &Store, ids: Vec<Value>) -> Result<(), Error> {
    let db = store.db().await?;
    db.execute_in(
        "DELETE FROM report_in_row WHERE report IN ({list})",
        &[],
        ids.clone(),
    )
    .await?;
    db.execute_in("DELETE FROM report_in WHERE id IN ({list})", &[], ids)
        .await?;
    Ok(())
}

fn ids(rows: &[sql::Row]) -> Result<Vec<Value>, Error> {
    rows.iter().map(|row| row.u64(0).map(Value::from)).collect()
}
