//! What would be demanded of a destination, and why: for `posthouse tls`.

use crate::attempt::{Client, Turn};
use crate::config::Config;
use crate::connection::Security;
use crate::demand::{Demand, Step, Way, Wish};
use crate::sts::Sts;
use ::dns::Proven;
use serde::Serialize;
use types::TraceId;

/// What is known of a destination.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Explanation {
    /// The domain, or the host of the route that its mail goes by.
    pub destination: String,
    /// The policy in force (`relayd.tls.policy`, or that of an entry).
    pub policy: String,
    /// The entry of `[relayd.tls.destination]`; `None`: the default.
    pub entry: Option<String>,
    /// Whether the name servers give signatures.
    pub dnssec: String,
    /// What the signatures say of the MX records.
    pub mx: String,
    /// The policy of MTA-STS.
    pub mta_sts: String,
    /// The hosts in the order in which they are tried.
    pub hosts: Vec<HostExplanation>,
    /// Why there are none.
    pub refused: Option<String>,
}

/// One host.
#[derive(Clone, Debug, Default, Serialize)]
pub struct HostExplanation {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// `none`, `may`, `encrypt`, `names`, `dane`, or `skipped`.
    pub demand: String,
    /// Why that.
    pub why: String,
    /// The names that its certificate must have one of, if any.
    pub names: Vec<String>,
    /// The TLSA records that count.
    pub tlsa: Vec<String>,
    /// What came of connections to its addresses, if they were tried.
    pub sessions: Vec<String>,
    /// Whether a connection failed.
    pub failed: bool,
}

/// Finds out, as an attempt with these settings would. With `connect` the hosts are connected to, up to where a message would
/// be given to them.
///
/// # Errors
/// Settings that make no sense.
pub async fn explain(
    config: Config,
    hostname: &str,
    domain: &str,
    connect: bool,
) -> Result<Explanation, String> {
    config.tls.validate()?;
    let most = config.max_addresses;
    let client = Client::new(config, hostname.to_ascii_lowercase())?;
    let domain = domain.to_ascii_lowercase();
    let dnssec = match client.dns.validating().await {
        None => "not checked".to_owned(),
        Some(validating) => match validating.works().await {
            Ok(()) => "checked".to_owned(),
            Err(error) => format!("checked, and broken: {error}"),
        },
    };
    let mut explanation = Explanation {
        destination: domain.clone(),
        dnssec,
        ..Explanation::default()
    };
    let way = match client.way(Wish::default(), &domain, None).await {
        Ok(way) => way,
        Err(none) => {
            let rule = client.rules.domain(&domain);
            rule.level.name().clone_into(&mut explanation.policy);
            explanation.entry = rule.entry;
            explanation.refused = Some(none.status().text);
            return Ok(explanation);
        }
    };
    way.next_hop.clone_into(&mut explanation.destination);
    way.rule.level.name().clone_into(&mut explanation.policy);
    explanation.entry.clone_from(&way.rule.entry);
    explanation.mx = match way.mx {
        Some(Proven::Secure) => "signed",
        Some(Proven::Insecure) => "not signed",
        None => "none",
    }
    .to_owned();
    explanation.mta_sts = match &way.sts {
        None => "not looked at".to_owned(),
        Some(Sts::Absent) => "none".to_owned(),
        Some(Sts::Unfetched(problem)) => format!("not to be had: {problem}"),
        Some(Sts::Known(policy, _)) => {
            let mx = policy.mx.join(" ");
            format!("{}, mx {mx}, {} s", policy.mode, policy.max_age)
        }
    };
    explanation.hosts = way.steps.iter().map(host).collect();
    if connect {
        sessions(&client, &way, most, &mut explanation.hosts).await;
    }
    Ok(explanation)
}

fn host(step: &Step) -> HostExplanation {
    match step {
        Step::Skip { host, status } => HostExplanation {
            name: host.clone(),
            demand: "skipped".to_owned(),
            why: status.text.clone(),
            failed: true,
            ..HostExplanation::default()
        },
        Step::Try { host, demand } => {
            let Demand { policy, why, .. } = demand;
            let (demand, names, tlsa) = match &policy.security {
                Security::None => ("none", &[][..], &[][..]),
                Security::May { watch } => ("may", watch.as_slice(), &[][..]),
                Security::Encrypt => ("encrypt", &[][..], &[][..]),
                Security::Names(names) => ("names", names.as_slice(), &[][..]),
                Security::Dane { records, names, .. } => {
                    ("dane", names.as_slice(), records.as_slice())
                }
            };
            HostExplanation {
                name: host.name.clone(),
                addresses: host.addresses.iter().map(ToString::to_string).collect(),
                demand: demand.to_owned(),
                why: why.to_string(),
                names: names.to_vec(),
                tlsa: tlsa.iter().map(ToString::to_string).collect(),
                ..HostExplanation::default()
            }
        }
    }
}

async fn sessions(client: &Client, way: &Way, most: usize, hosts: &mut [HostExplanation]) {
    for turn in way.turns(most) {
        let Turn::Try { endpoint, demand } = turn else {
            continue;
        };
        let trace = TraceId::default();
        let opened = client.open(&way.next_hop, &endpoint, demand, trace).await;
        let (text, failed) = match opened {
            Ok(connection) => {
                let mut text = connection.description();
                if connection.tls.is_none() {
                    text.push_str(" in the clear");
                }
                if let Some(problem) = &connection.problem {
                    text.push_str(&format!(": {problem}"));
                }
                connection.quit().await;
                (text, false)
            }
            Err(error) => (error.status.to_string(), true),
        };
        if let Some(host) = hosts.iter_mut().find(|host| host.name == endpoint.name) {
            host.sessions.push(text);
            host.failed |= failed;
        }
    }
}
