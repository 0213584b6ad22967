//! What `posthouse check` looks at beside the daemons themselves: databases, listeners, the index, scripts.

use super::check::Findings;
use crate::connect::{Place, Suite};
use crate::failure::Failure;
use crate::mailstore::MailStore;
use ipc::api::authd::{Resolution, ResolveRecipient};
use ipc::api::control;
use ipc::api::indexd::IndexStatus;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;
use types::Role;

/// A listener that takes longer is not there.
const CONNECT: Duration = Duration::from_secs(3);

/// The full-text index follows the store.
pub(crate) async fn index(findings: &mut Findings, suite: &Suite) {
    // Whether indexd runs at all is said elsewhere.
    let Ok(figures) = suite.call(Role::Indexd, &IndexStatus).await else {
        return;
    };
    if !figures.trouble.is_empty() {
        let text = format!(
            "{}: searches read the mail itself meanwhile",
            figures.trouble
        );
        findings.error("index", text);
    } else if figures.missing > 0 && figures.rebuild.is_none() {
        findings.warn(
            "index",
            format!(
                "{} of {} messages are not in it yet; if that does not fall: `posthouse index rebuild`",
                figures.missing,
                figures.documents.saturating_add(figures.missing)
            ),
        );
    } else {
        findings.fine("index", format!("{} messages", figures.documents));
    }
}

/// Each filter answers when hookd asks.
pub(crate) async fn filters(findings: &mut Findings, suite: &Suite) {
    if !suite.daemons.contains(&Role::Hookd) {
        return;
    }
    // Whether hookd runs at all is said elsewhere.
    let Ok(rows) = crate::command::hook::list(suite, true).await else {
        return;
    };
    for row in rows {
        match row.answers {
            Some(Err(why)) => findings.error(
                "filters",
                format!(
                    "{} ({} at {}) is away: {why}",
                    row.name, row.kind, row.place
                ),
            ),
            _ => findings.fine("filters", format!("{} ({}) answers", row.name, row.kind)),
        }
    }
}

/// Lists in DNS have the entries that every list has (RFC 5782 5), and not all others.
pub(crate) async fn dns_lists(findings: &mut Findings, place: &Place) {
    let Ok(config) = place.document().and_then(|document| {
        let section = document.section::<smtpd::Config>("smtpd");
        section.map_err(|error| Failure::new(error.to_string()))
    }) else {
        return;
    };
    // What is wrong with the settings is said elsewhere.
    let Ok(Some(lists)) = smtpd::lists(&config) else {
        return;
    };
    for (zone, result) in lists.probe().await {
        match result {
            Ok(()) => findings.fine("dnslist", format!("{zone} answers")),
            Err(error) => findings.error("dnslist", format!("{zone}: {error}")),
        }
    }
}

/// A server that acknowledges what is not on its disk breaks the promise of 250.
pub(crate) async fn databases(findings: &mut Findings, place: &Place) {
    let Ok(store) = MailStore::of(place) else {
        return;
    };
    let options = sql::Options::reader();
    let opened = [
        ("store", store.tables(&options).await),
        ("directory", store.directory(&options).await),
    ];
    for (area, db) in opened {
        let Ok(db) = db else { continue };
        durable(findings, area, &db).await;
        db.close().await;
    }
}

/// The queue table, where it is not a file of queued: with `ack = "sql"` it is what a 250 stands on, and deferred mail is nowhere else.
pub(crate) async fn queue_table(findings: &mut Findings, place: &Place) {
    let config = place
        .document()
        .ok()
        .and_then(|document| document.section::<queued::Config>(Role::Queued.name()).ok());
    let Some(config) = config else { return };
    let in_sql = config.ack == queued::Ack::Sql;
    if config.database == "sqlite" || config.database.starts_with("sqlite:") {
        if in_sql {
            let text = "queued.ack is sql and the queue table is a file of this node: that is slower than the journal and no safer";
            findings.warn("queue", text);
        }
        return;
    }
    let options = sql::Options {
        timeout: CONNECT,
        ..sql::Options::reader()
    };
    match sql::Db::open(&config.database, &options).await {
        Ok(db) => {
            durable(findings, "queue", &db).await;
            db.close().await;
        }
        Err(error) => findings.error("queue", format!("queued.database: {error}")),
    }
}

/// Whether a server syncs what it acknowledges.
async fn durable(findings: &mut Findings, area: &'static str, db: &sql::Db) {
    let (text, bad): (&str, &[&str]) = match db.dialect() {
        sql::Dialect::Sqlite => return,
        sql::Dialect::Postgres => (
            "SELECT CASE current_setting('fsync') WHEN 'off' THEN 'fsync' \
             ELSE current_setting('synchronous_commit') END",
            &["off", "fsync"],
        ),
        sql::Dialect::MySql => (
            "SELECT CAST(@@innodb_flush_log_at_trx_commit AS CHAR)",
            &["0", "2"],
        ),
    };
    match db.fetch_optional(text, Vec::new()).await {
        Ok(Some(row)) => {
            let value = row.text(0).unwrap_or_default().to_owned();
            if bad.contains(&value.as_str()) {
                findings.error(area, durability(db.dialect(), &value));
            } else {
                findings.fine(area, format!("{} commits durably", db.dialect().name()));
            }
        }
        Ok(None) => {}
        Err(error) => findings.error(area, format!("the database: {error}")),
    }
}

fn durability(dialect: sql::Dialect, value: &str) -> String {
    let (setting, value) = match (dialect, value) {
        (sql::Dialect::MySql, value) => ("innodb_flush_log_at_trx_commit", value),
        (_, "fsync") => ("fsync", "off"),
        (_, value) => ("synchronous_commit", value),
    };
    format!(
        "{setting} is {value}: the server acknowledges what a power cut takes away, and mail that was accepted is lost; \
         set it to {}",
        if dialect == sql::Dialect::MySql {
            "1"
        } else {
            "on"
        }
    )
}

/// Who gets silent copies takes mail: smtpd leaves out who does not.
pub(crate) async fn copies(findings: &mut Findings, place: &Place, suite: &Suite) {
    let Ok(document) = place.document() else {
        return;
    };
    let Ok(config) = document.section::<smtpd::Config>(Role::Smtpd.name()) else {
        return;
    };
    let addresses: BTreeSet<&String> = config.bcc.iter().flat_map(|rule| &rule.to).collect();
    for text in addresses {
        let Ok(address) = text.parse() else { continue };
        let request = ResolveRecipient { address };
        let why = match suite.call(Role::Authd, &request).await {
            // What is wrong with authd is said elsewhere.
            Ok(Resolution::Local(_)) | Err(_) => continue,
            Ok(Resolution::Remote) => {
                "is not ours: it gets no copies of strangers' mail; make an alias to it"
            }
            Ok(_) => "takes no mail: it gets no copies",
        };
        findings.warn("smtpd.bcc", format!("{text} {why}"));
    }
}

/// Settings of different daemons that contradict each other: each is sound by itself, and mail is lost time on them.
pub(crate) fn limits(findings: &mut Findings, place: &Place) {
    let Ok(document) = place.document() else {
        return;
    };
    macro_rules! section {
        ($role:ident $daemon:ident) => {
            document.section::<$daemon::Config>(Role::$role.name())
        };
    }
    // What is wrong in a section itself is said as an error of the configuration.
    let (Ok(smtpd), Ok(queued), Ok(stored), Ok(imapd)) = (
        section!(Smtpd smtpd),
        section!(Queued queued),
        section!(Stored stored),
        section!(Imapd imapd),
    ) else {
        return;
    };
    let mut found = Vec::new();
    for (setting, size, what) in [
        (
            "smtpd.limits.message_bytes",
            smtpd.limits.message_bytes,
            "mail between the two is accepted and then returned",
        ),
        (
            "imapd.append_bytes",
            imapd.append_bytes,
            "what is between the two is taken from the client and then refused",
        ),
    ] {
        // Trace fields come before the message.
        if size > stored.message_bytes {
            found.push(format!(
                "{setting} ({size}) is more than stored.message_bytes ({}): {what}",
                stored.message_bytes
            ));
        }
    }
    if queued.min_free < smtpd.limits.message_bytes {
        found.push(format!(
            "queued.min_free ({}) is less than smtpd.limits.message_bytes ({}): one message can fill the disk",
            queued.min_free, smtpd.limits.message_bytes
        ));
    }
    for network in &smtpd.relay_networks {
        if !queued.relay_networks.contains(network) {
            found.push(format!(
                "smtpd.relay_networks has {network}, queued.relay_networks does not: mail for elsewhere from there is refused after DATA"
            ));
        }
    }
    if queued.local_retry_min > queued.retry_max {
        found.push(format!(
            "queued.local_retry_min ({}) is more than queued.retry_max ({}), which holds for all",
            queued.local_retry_min, queued.retry_max
        ));
    }
    if found.is_empty() {
        findings.fine("limits", "those of the daemons fit each other");
    }
    for text in found {
        findings.warn("limits", text);
    }
}

/// Every listener that is configured is open, and every one that is open answers.
pub(crate) async fn listeners(findings: &mut Findings, place: &Place, suite: &Suite) {
    let Ok(document) = place.document() else {
        return;
    };
    let mut configured: Vec<(Role, String)> = Vec::new();
    macro_rules! of {
        ($($role:ident $daemon:ident),*) => {$(
            if let Ok(config) = document.section::<$daemon::Config>(Role::$role.name()) {
                configured.extend(config.listener.into_iter().map(|one| (Role::$role, one.name)));
            }
        )*};
    }
    of!(Smtpd smtpd, Imapd imapd, Pop3d pop3d, Sieved sieved);
    let mut roles = vec![Role::Smtpd, Role::Imapd, Role::Pop3d, Role::Sieved];
    if let Ok(config) = document.section::<httpd::Config>(Role::Httpd.name())
        && config.enabled
    {
        roles.push(Role::Httpd);
        configured.push((Role::Httpd, "https".to_owned()));
        if !config.http_address.is_empty() {
            configured.push((Role::Httpd, "http".to_owned()));
        }
    }
    let (mut count, mut bad) = (0, 0);
    for role in roles {
        // A daemon that is away is said elsewhere.
        let Ok(status) = suite.call(role, &control::Status).await else {
            continue;
        };
        let missing = configured.iter().filter(|(of, name)| {
            *of == role && !status.listeners.iter().any(|(open, _)| open == name)
        });
        for (_, name) in missing {
            bad += 1;
            let text = format!("{role} has no listener {name}, which is configured: restart it");
            findings.error("listeners", text);
        }
        for (name, address) in &status.listeners {
            count += 1;
            if let Some(why) = silent(address).await {
                bad += 1;
                findings.error(
                    "listeners",
                    format!(
                        "{role} does not answer at {address} ({name}): {why}; its log says more"
                    ),
                );
            }
        }
    }
    if bad == 0 {
        findings.fine("listeners", format!("all {count} answer"));
    }
}

/// Why an address cannot be connected to, if so.
async fn silent(address: &str) -> Option<String> {
    let to = reachable(address)?;
    match tokio::time::timeout(CONNECT, tokio::net::TcpStream::connect(to)).await {
        Ok(Ok(_)) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some("no answer".to_owned()),
    }
}

/// Where a listener can be reached from this machine.
fn reachable(address: &str) -> Option<SocketAddr> {
    let mut address: SocketAddr = address.parse().ok()?;
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    Some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_address_is_tried_on_loopback() {
        assert_eq!(reachable("0.0.0.0:25"), "127.0.0.1:25".parse().ok());
        assert_eq!(reachable("[::]:25"), "[::1]:25".parse().ok());
        assert_eq!(reachable("192.0.2.1:25"), "192.0.2.1:25".parse().ok());
        assert_eq!(reachable("mx"), None);
    }

    #[test]
    fn the_advice_names_the_setting() {
        assert!(durability(sql::Dialect::Postgres, "fsync").starts_with("fsync is off"));
        assert!(durability(sql::Dialect::Postgres, "off").contains("synchronous_commit is off"));
        assert!(durability(sql::Dialect::MySql, "2").ends_with("set it to 1"));
    }
}
