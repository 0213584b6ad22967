//! Reports on TLS that are posted (RFC 8460 5.4): one row for each address, with attempts of its own.

use crate::compose::mail::gzip;
use crate::gather::Destinations;
use crate::outgoing::{NOTE_MAX, Outgoing, Report, Written, destinations};
use crate::store::{clean, now, pack};
use ipc::api::reportd::ClaimReport;
use sql::{Error, args};
use types::{Address, TraceId};

/// Seconds after the last attempt's time within which it is made at all.
const GRACE: u64 = 3600;

/// Whether a destination is posted to, and is no mail address. relayd has looked at it.
fn is_url(text: &str) -> bool {
    text.starts_with("https://")
}

impl Report {
    /// Whether addresses to post to stand among its destinations still.
    pub(crate) fn is_to_be_split(&self) -> bool {
        !self.post && self.kind == "tls" && self.destinations.iter().any(|(text, _)| is_url(text))
    }
}

impl Outgoing {
    /// Gives each address to post to a report of its own, with the same content and name; the mail addresses stay together.
    ///
    /// RFC 8460 3: a report may go to each destination, and should to one that takes it.
    pub(crate) async fn split(&self, report: &Report, call: &ClaimReport) -> Result<(), Error> {
        let (mut mail, mut urls): (Destinations, Destinations) = Default::default();
        for destination in &report.destinations {
            let text = destination.0.as_str();
            let list = match is_url(text) {
                true => &mut urls,
                false if text.parse::<Address>().is_ok() => &mut mail,
                false => continue,
            };
            if !list.contains(destination) {
                list.push(destination.clone());
            }
            if mail.len() + urls.len() >= self.config.send.max_destinations {
                break;
            }
        }
        let content = self.content(report).await?.into_bytes();
        let mut tx = self.store.db().await?.begin().await?;
        let mut urls = urls.into_iter();
        // What was gathered stays with the mail, or else with the first address.
        let (post, own, content_of_own) = match (mail.is_empty(), urls.len()) {
            (true, 1..) => (1, urls.by_ref().take(1).collect(), Some(content.clone())),
            _ => (0, mail, None),
        };
        let text = "UPDATE report_out SET post = ?, destinations = ?, content = ?, queue_id = ? WHERE id = ?";
        let values = args![post, pack(&own), content_of_own, call.queue_id.0, report.id];
        tx.execute(text, values).await?;
        for url in urls {
            let destinations: Destinations = vec![url];
            let text = "INSERT INTO report_out (id, kind, domain, begin_at, end_at, due, state, lease, queue_id, row_count,
                messages, left_out, destinations, content, post) SELECT ?, kind, domain, begin_at, end_at, due, state, 0, queue_id,
                row_count, messages, left_out, ?, ?, 1 FROM report_out WHERE id = ?";
            let id = self.store.next_out();
            let values = args![id, pack(&destinations), content.clone(), report.id];
            tx.execute(text, values).await?;
        }
        tx.commit().await
    }

    /// Packs a report that is posted; why it cannot be otherwise.
    pub(crate) async fn write_post(
        &self,
        report: &Report,
    ) -> Result<Result<Written, String>, Error> {
        let (Some((url, _)), Some(content)) = (report.destinations.first(), &report.content) else {
            return Ok(Err("it has no destination".to_owned()));
        };
        if self.is_over(report) {
            return Ok(Err("given up: the time for it is over".to_owned()));
        }
        let message = gzip(content);
        if let Some(why) = self.too_large(&message) {
            return Ok(Err(why));
        }
        if self.refused(url).await? {
            return Ok(Err(format!("{url} refused a report before")));
        }
        Ok(Ok(Written {
            to: Vec::new(),
            post: Some(url.clone()),
            message,
        }))
    }

    /// Puts a report off that could not be posted now: twice as long each time, until it is given up.
    ///
    /// RFC 8460 5.5: for a day at most, with exponential backoff.
    pub(crate) async fn put_off(&self, id: u64, trace: TraceId, why: &str) -> Result<(), Error> {
        let text = "SELECT attempts, first_at, domain FROM report_out WHERE id = ? AND state = 'gathering' AND lease > 0";
        let db = self.store.db().await?;
        let Some(row) = db.fetch_optional(text, args![id]).await? else {
            return Ok(());
        };
        let (attempts, first, domain) = (row.u64(0)?, row.u64(1)?, row.text(2)?.to_owned());
        let now = now();
        let last = first.saturating_add(self.config.send.post_give_up);
        if now >= last {
            let attempts = attempts + 1;
            tracing::info!(report = id, %trace, domain, attempts, why, "report given up");
            self.dropped.add_one();
            let note = format!("given up after {attempts} attempts: {why}");
            return self.end(id, "dropped", &note).await;
        }
        let next = now.saturating_add(wait(self.config.send.post_retry, attempts));
        let due = next.min(last);
        tracing::info!(report = id, %trace, domain, due, why, "report put off");
        self.deferred.add_one();
        let text = "UPDATE report_out SET due = ?, lease = 0, attempts = attempts + 1, note = ? WHERE id = ?";
        db.execute(text, args![due, clean(why, NOTE_MAX), id])
            .await?;
        Ok(())
    }

    /// Whether the time to post it is over, although no attempt was ever settled: relayd was away, or ends with it.
    pub(crate) fn is_over(&self, report: &Report) -> bool {
        let last = report
            .first_at
            .saturating_add(self.config.send.post_give_up);
        report.first_at > 0 && now() > last.saturating_add(GRACE)
    }

    /// Ends a report that can never be sent. The address that says so to what is posted gets none for a while.
    pub(crate) async fn give_up(&self, id: u64, why: &str) -> Result<(), Error> {
        let text =
            "SELECT destinations FROM report_out WHERE id = ? AND state = 'gathering' AND post = 1";
        let db = self.store.db().await?;
        if let Some(row) = db.fetch_optional(text, args![id]).await? {
            for url in destinations(&row, 0)? {
                self.refuse(&url.0).await?;
            }
        }
        self.end(id, "dropped", why).await
    }
}

/// Seconds until the next attempt, after so many that failed before the last.
fn wait(first: u64, attempts: u64) -> u64 {
    let doublings = u32::try_from(attempts.min(20)).unwrap_or(20);
    first.saturating_mul(1 << doublings)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn attempts_come_less_and_less_often() {
        let waits: Vec<u64> = (0..9).map(|attempts| wait(300, attempts)).collect();
        assert_eq!(waits[..4], [300, 600, 1200, 2400]);
        assert!(waits[..8].iter().sum::<u64>() < 86_400 && waits.iter().sum::<u64>() > 86_400);
        assert_eq!(wait(u64::MAX, 1000), u64::MAX);
    }
}
