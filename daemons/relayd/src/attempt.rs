//! One attempt at one destination: which way, which hosts in which order, and what becomes of each recipient.

use crate::config::{Config, Protocol, RouteConfig, TlsMode};
use crate::connection::{self, Connection, Endpoint, Login, Policy, Site};
use crate::dns::{Dns, Host, NoHosts};
use crate::pool::Pool;
use crate::tls::TlsClient;
use crate::transaction::{self, Interrupted, Job, Outcomes};
use crate::verdict::{by_class, status};
use ipc::api::relayd::{Manner, Relayed};
use std::net::SocketAddr;
use std::time::Duration;
use types::{Enhanced, Outcome, Status};

/// What every attempt needs.
pub(crate) struct Client {
    pub(crate) config: Config,
    /// Our name, in lower case.
    pub(crate) hostname: String,
    pub(crate) dns: Dns,
    pub(crate) tls: TlsClient,
    pub(crate) pool: Pool,
}

/// A way to a destination.
struct Way {
    hosts: Vec<Host>,
    port: u16,
    policy: Policy,
}

/// What became of one host.
enum Visit {
    /// Every recipient that was asked for has its outcome.
    Finished { dsn: bool, by: bool, host: String },
    /// The host was not to be had, or went away; the others may be asked.
    Failed(Status),
    /// It went away when it had the whole message.
    Uncertain { status: Status, host: String },
}

impl Client {
    /// Delivers to all recipients of the job, as far as that goes now.
    pub(crate) async fn deliver(&self, job: &Job, domain: &str, route: Option<&str>) -> Relayed {
        let mut outcomes = Outcomes::new();
        let way = match self.way(job, domain, route).await {
            Ok(mut way) => {
                way.policy = way.policy.with(&job.manner, job.require_tls);
                way
            }
            Err(none) => {
                for recipient in &job.recipients {
                    outcomes.insert(recipient.index, none.outcome.clone());
                }
                return Relayed {
                    outcomes: outcomes.into_iter().collect(),
                    dsn_passed: false,
                    host: None,
                    destination_down: none.down,
                    by_passed: false,
                };
            }
        };
        let mut relayed = Relayed {
            outcomes: Vec::new(),
            dsn_passed: false,
            host: None,
            destination_down: false,
            by_passed: false,
        };
        let mut failures = Vec::new();
        for endpoint in way.endpoints(self.config.max_addresses) {
            match self.visit(job, &endpoint, &way.policy, &mut outcomes).await {
                Visit::Finished { dsn, by, host } => {
                    relayed.dsn_passed = dsn;
                    relayed.by_passed = by;
                    relayed.host = Some(host);
                    break;
                }
                Visit::Failed(status) => {
                    tracing::info!(trace = %job.trace, host = endpoint.label(), reply = %status, "host failed");
                    failures.push(status);
                    if outcomes.len() >= job.recipients.len() {
                        // It went away, but not before it had said all that was to be said.
                        relayed.host = Some(endpoint.label());
                        break;
                    }
                }
                Visit::Uncertain { status, host } => {
                    relayed.host = Some(host);
                    relayed.destination_down = true;
                    failures = vec![status];
                    break;
                }
            }
        }
        relayed.destination_down |= relayed.host.is_none();
        let verdict = weightiest(failures);
        for recipient in &job.recipients {
            outcomes
                .entry(recipient.index)
                .or_insert_with(|| by_class(verdict.clone()));
        }
        relayed.outcomes = outcomes.into_iter().collect();
        relayed
    }

    async fn way(&self, job: &Job, domain: &str, route: Option<&str>) -> Result<Way, NoHosts> {
        let configured = match route {
            Some(route) => Some(self.named_route(route)?),
            None => self
                .config
                .route
                .iter()
                .find(|route| route.matches(domain))
                .cloned(),
        };
        let Some(route) = configured else {
            let hosts = self.dns.exchangers(domain, &self.hostname).await?;
            let tls = if job.require_tls {
                TlsMode::Required
            } else {
                self.config.tls
            };
            let policy = Policy {
                tls,
                // RFC 8689 4.2.1 todo: the MX name itself must come from DNSSEC or MTA-STS
                verify: job.require_tls,
                protocol: Protocol::Smtp,
                login: None,
                watch_loops: true,
                manner: Manner::default(),
            };
            return Ok(Way {
                hosts,
                port: self.config.port,
                policy,
            });
        };
        let login = self.login(&route)?;
        let port = route.effective_port();
        let tls = match route.tls {
            TlsMode::Opportunistic | TlsMode::None if job.require_tls => TlsMode::Required,
            // A password is not for everyone on the way.
            TlsMode::Opportunistic if login.is_some() => TlsMode::Required,
            other => other,
        };
        let policy = Policy {
            tls,
            verify: route.must_verify() || job.require_tls,
            protocol: route.protocol,
            login,
            watch_loops: false,
            manner: Manner::default(),
        };
        Ok(Way {
            hosts: self.dns.host(&route.host).await?,
            port,
            policy,
        })
    }

    /// A route by its name in the configuration, or a bare `host:port`.
    fn named_route(&self, name: &str) -> Result<RouteConfig, NoHosts> {
        if let Some(route) = self
            .config
            .route
            .iter()
            .find(|route| route.effective_name() == name)
        {
            return Ok(route.clone());
        }
        let Some((host, port)) = name
            .rsplit_once(':')
            .and_then(|(host, port)| Some((host, port.parse().ok()?)))
        else {
            let text = format!("there is no route called {name}");
            return Err(NoHosts {
                outcome: Outcome::Temporary(status(451, Enhanced(4, 3, 5), text)),
                down: false,
            });
        };
        Ok(RouteConfig {
            host: host.to_owned(),
            port: Some(port),
            ..RouteConfig::default()
        })
    }

    fn login(&self, route: &RouteConfig) -> Result<Option<Login>, NoHosts> {
        let Some(username) = &route.username else {
            return Ok(None);
        };
        let password = route.password().map_err(|error| {
            let text = format!(
                "the password of route {} cannot be read: {error}",
                route.effective_name()
            );
            NoHosts {
                outcome: Outcome::Temporary(status(451, Enhanced(4, 3, 5), text)),
                down: false,
            }
        })?;
        Ok(Some(Login {
            username: username.clone(),
            password,
        }))
    }

    /// Sends what is still to be sent over a kept connection or a new one.
    async fn visit(
        &self,
        job: &Job,
        endpoint: &Endpoint,
        policy: &Policy,
        outcomes: &mut Outcomes,
    ) -> Visit {
        if let Some(mut kept) = self.pool.take(endpoint, policy, &self.config) {
            kept.trace = job.trace;
            // That it still lives shows here; if it does not, nothing has been lost.
            let alive = kept.command("saying RSET", smtp::client::rset).await;
            if alive.is_ok_and(|reply| reply.is_positive()) {
                return self.converse(job, endpoint, policy, kept, outcomes).await;
            }
        }
        let site = Site {
            own: &self.hostname,
            config: &self.config,
            tls: &self.tls,
            trace: job.trace,
        };
        match connection::open(endpoint, policy, site).await {
            Ok(fresh) => self.converse(job, endpoint, policy, fresh, outcomes).await,
            Err(error) => Visit::Failed(error.status),
        }
    }

    async fn converse(
        &self,
        job: &Job,
        endpoint: &Endpoint,
        policy: &Policy,
        mut connection: Connection,
        outcomes: &mut Outcomes,
    ) -> Visit {
        let host = connection.description();
        let dsn = connection.offered.dsn;
        let by = connection.offered.deliver_by.is_some();
        if let Some(why) = transaction::unsuitable(job, &connection, &self.config) {
            for recipient in &job.recipients {
                outcomes
                    .entry(recipient.index)
                    .or_insert_with(|| by_class(why.clone()));
            }
            self.put_away(endpoint, policy, connection);
            return Visit::Finished {
                dsn: false,
                by: false,
                host,
            };
        }
        let waiting: Vec<usize> = (0..job.recipients.len())
            .filter(|position| {
                job.recipients
                    .get(*position)
                    .is_some_and(|recipient| !outcomes.contains_key(&recipient.index))
            })
            .collect();
        // RFC 9422 RCPTMAX
        let most = connection
            .offered
            .limits
            .rcpt_max
            .map_or(usize::MAX, |max| max as usize)
            .max(1);
        let mut first = true;
        for group in waiting.chunks(most.min(waiting.len().max(1))) {
            if !std::mem::take(&mut first)
                && let Err(lost) = connection.command("saying RSET", smtp::client::rset).await
            {
                return Visit::Failed(lost.status(&connection.label));
            }
            let sent = transaction::send(
                job,
                group,
                &mut connection,
                policy.protocol,
                &self.config,
                outcomes,
            )
            .await;
            if let Err(Interrupted { lost, after_end }) = sent {
                let status = lost.status(&connection.label);
                return if after_end {
                    Visit::Uncertain { status, host }
                } else {
                    Visit::Failed(status)
                };
            }
        }
        self.put_away(endpoint, policy, connection);
        Visit::Finished { dsn, by, host }
    }

    fn put_away(&self, endpoint: &Endpoint, policy: &Policy, connection: Connection) {
        if let Some(unwanted) = self.pool.keep(endpoint, policy, connection, &self.config) {
            tokio::spawn(unwanted.quit());
        }
    }

    /// Closes connections that nobody has wanted for a while. Never returns.
    pub(crate) async fn close_idle(&self) {
        let limit = Duration::from_secs(self.config.idle_timeout);
        let mut clock = tokio::time::interval(Duration::from_secs(1));
        loop {
            clock.tick().await;
            for connection in self.pool.expired(limit) {
                tokio::spawn(connection.quit());
            }
        }
    }

    /// Closes all idle connections: the daemon ends.
    pub(crate) async fn close_all(&self) {
        for connection in self.pool.expired(Duration::ZERO) {
            connection.quit().await;
        }
    }
}

/// Of what several hosts said, that which the sender should read. One temporary failure among them means that a later
/// attempt may succeed; a host that spoke tells more than one that could not be reached.
fn weightiest(failures: Vec<Status>) -> Status {
    let weight = |status: &Status| (status.code / 100 != 5, status.enhanced != Enhanced(4, 4, 1));
    failures
        .into_iter()
        .max_by_key(weight)
        .unwrap_or_else(connection::nothing_tried)
}

impl Way {
    fn endpoints(&self, most: usize) -> Vec<Endpoint> {
        let all = self.hosts.iter().flat_map(|host| {
            host.addresses.iter().map(|address| Endpoint {
                name: host.name.clone(),
                address: SocketAddr::new(*address, self.port),
            })
        });
        all.take(most.max(1)).collect()
    }
}
