//! One attempt at one destination: which way, which hosts in which order, and what becomes of each recipient.

use crate::config::{Config, RouteConfig};
use crate::connection::{self, Connection, Endpoint, Login, OpenError, Policy, Site};
use crate::demand::{Demand, Step, Way, Wish, nothing_tried};
use crate::dns::{Dns, NoHosts};
use crate::pool::Pool;
use crate::post::Poster;
use crate::reports::Reports;
use crate::result::{Problem, ResultType, Shown, TlsResult};
use crate::sts;
use crate::tls::TlsClient;
use crate::transaction::{self, Interrupted, Job, Outcomes};
use crate::transport::Rules;
use crate::verdict::{by_class, status, with_host};
use ipc::api::relayd::Relayed;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OnceCell;
use types::{Enhanced, Outcome, Status};

/// What every attempt needs.
pub(crate) struct Client {
    pub(crate) config: Config,
    /// Our name, in lower case.
    pub(crate) hostname: String,
    pub(crate) dns: Dns,
    pub(crate) tls: TlsClient,
    pub(crate) pool: Pool,
    pub(crate) rules: Rules,
    pub(crate) sts: sts::Cache,
    /// Made when the first policy is fetched.
    pub(crate) fetcher: OnceCell<sts::Fetcher>,
    /// Made when the first report is posted.
    pub(crate) poster: OnceCell<Poster>,
    /// Where results are counted for reports; `None` if none are sent.
    pub(crate) reports: Option<Arc<Reports>>,
}

/// What became of one host.
enum Visit {
    /// Every recipient that was asked for has its outcome.
    Finished { dsn: bool, by: bool, host: String },
    /// The host was not to be had, or went away; the others may be asked.
    Failed(Failed),
    /// A kept connection that was dead already: nothing was sent.
    Stale,
    /// It went away when it had the whole message.
    Uncertain { status: Status, host: String },
}

struct Failed {
    status: Status,
    /// It is only this message that asks too much.
    demanding: bool,
}

impl Failed {
    fn of(status: Status) -> Self {
        Self {
            status,
            demanding: false,
        }
    }
}

impl Client {
    /// # Errors
    /// No resolver configuration, an unreadable `tls_ca_file`.
    pub(crate) fn new(config: Config, hostname: String) -> Result<Self, String> {
        Ok(Self {
            dns: Dns::new(&config)
                .map_err(|error| format!("the resolver cannot be set up: {error}"))?,
            tls: TlsClient::new(config.tls_ca_file.as_deref())?,
            pool: Pool::default(),
            rules: Rules::of(&config.tls),
            sts: sts::Cache::new(&config.tls),
            fetcher: OnceCell::new(),
            poster: OnceCell::new(),
            reports: None,
            config,
            hostname,
        })
    }

    /// Delivers to all recipients of the job, as far as that goes now.
    pub(crate) async fn deliver(&self, job: &Job, domain: &str, route: Option<&str>) -> Relayed {
        let mut outcomes = Outcomes::new();
        let mut relayed = Relayed {
            outcomes: Vec::new(),
            dsn_passed: false,
            host: None,
            destination_down: false,
            by_passed: false,
            policy: None,
        };
        let wish = Wish {
            require_tls: job.require_tls,
            tls_optional: job.traits.tls_optional,
            tls: job.manner.tls,
            trace: job.trace,
        };
        let way = match self.way(wish, domain, route).await {
            Ok(way) => way.in_manner(&job.manner),
            Err(none) => {
                let all = job.recipients.iter();
                relayed.outcomes = all
                    .map(|recipient| (recipient.index, none.outcome.clone()))
                    .collect();
                relayed.destination_down = none.down;
                return relayed;
            }
        };
        let mut failures = Vec::new();
        // Whether something went wrong that would have gone wrong for every message.
        let mut down = false;
        for turn in way.turns(self.config.max_addresses) {
            let visit = match turn {
                Turn::Skip { status } => Visit::Failed(Failed {
                    status: status.clone(),
                    demanding: job.require_tls,
                }),
                Turn::Try { endpoint, demand } => {
                    let visit = self
                        .visit(job, &way.next_hop, &endpoint, demand, &mut outcomes)
                        .await;
                    if let Visit::Failed(_) = &visit
                        && outcomes.len() >= job.recipients.len()
                    {
                        // It went away, but not before it had said all that was to be said.
                        relayed.host = Some(endpoint.label());
                        break;
                    }
                    visit
                }
            };
            match visit {
                Visit::Finished { dsn, by, host } => {
                    relayed.dsn_passed = dsn;
                    relayed.by_passed = by;
                    relayed.host = Some(host);
                    break;
                }
                // Only what is kept is stale, and that has been tried anew.
                Visit::Stale => {}
                Visit::Failed(failed) => {
                    let host = failed.status.host.as_deref().unwrap_or("no host");
                    tracing::info!(trace = %job.trace, host, reply = %failed.status, "host failed");
                    down |= !failed.demanding;
                    failures.push(failed.status);
                }
                Visit::Uncertain { status, host } => {
                    relayed.host = Some(host);
                    relayed.destination_down = true;
                    failures = vec![status];
                    break;
                }
            }
        }
        relayed.destination_down |= relayed.host.is_none() && (down || failures.is_empty());
        let verdict = weightiest(failures);
        for recipient in &job.recipients {
            outcomes
                .entry(recipient.index)
                .or_insert_with(|| by_class(verdict.clone()));
        }
        relayed.outcomes = outcomes.into_iter().collect();
        relayed
    }

    pub(crate) async fn way(
        &self,
        wish: Wish,
        domain: &str,
        route: Option<&str>,
    ) -> Result<Way, NoHosts> {
        let configured = match route {
            Some(route) => Some(self.named_route(route)?),
            None => self
                .config
                .route
                .iter()
                .find(|route| route.matches(domain))
                .cloned(),
        };
        match configured {
            None => self.by_mx(wish, domain).await,
            Some(route) => {
                let login = self.login(&route)?;
                self.by_route(wish, &route, login).await
            }
        }
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
                bogus: false,
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
                bogus: false,
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
        domain: &str,
        endpoint: &Endpoint,
        demand: &Demand,
        outcomes: &mut Outcomes,
    ) -> Visit {
        let policy = &demand.policy;
        if let Some(mut kept) = self.pool.take(endpoint, policy, &self.config) {
            kept.trace = job.trace;
            // That it still lives shows here, or with the envelope; if it does not, nothing has been lost.
            if kept.offered.pipelining {
                kept.unproved = true;
                match self.converse(job, endpoint, policy, kept, outcomes).await {
                    Visit::Stale => {
                        return self
                            .visit_anew(job, domain, endpoint, demand, outcomes)
                            .await;
                    }
                    other => return other,
                }
            }
            let alive = kept.command("saying RSET", smtp::client::rset).await;
            if alive.is_ok_and(|reply| reply.is_positive()) {
                return self.converse(job, endpoint, policy, kept, outcomes).await;
            }
        }
        self.visit_anew(job, domain, endpoint, demand, outcomes)
            .await
    }

    /// As [`Client::visit`], over a new connection.
    async fn visit_anew(
        &self,
        job: &Job,
        domain: &str,
        endpoint: &Endpoint,
        demand: &Demand,
        outcomes: &mut Outcomes,
    ) -> Visit {
        let policy = &demand.policy;
        match self.open(domain, endpoint, demand, job.trace).await {
            Ok(fresh) => self.converse(job, endpoint, policy, fresh, outcomes).await,
            Err(OpenError {
                status,
                problem: Some(problem),
            }) if job.require_tls => Visit::Failed(required(status, &problem)),
            Err(error) => Visit::Failed(Failed::of(error.status)),
        }
    }

    /// Opens a connection, and tells what became of its security.
    pub(crate) async fn open(
        &self,
        domain: &str,
        endpoint: &Endpoint,
        demand: &Demand,
        trace: types::TraceId,
    ) -> Result<Connection, OpenError> {
        let site = Site {
            own: &self.hostname,
            config: &self.config,
            tls: &self.tls,
            trace,
        };
        let opened = connection::open(endpoint, &demand.policy, site).await;
        let (problem, delivered) = match &opened {
            Ok(connection) => (connection.problem.clone(), true),
            // A host that did not answer says nothing about TLS.
            Err(OpenError { problem: None, .. }) => return opened,
            Err(error) => (error.problem.clone(), false),
        };
        if demand.policy.security != connection::Security::None {
            let result = TlsResult {
                policy: demand.source,
                domain: domain.to_owned(),
                mx: endpoint.label(),
                problem,
                delivered,
                address: Some(endpoint.address.ip()),
                shown: Shown::clone(&demand.shown),
            };
            result.log(trace);
            self.report(&result);
        }
        opened
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
        // RFC 8689 4.2.1: then the next host may. RFC 8689 5: a report is not lost for that; this far it is protected.
        let passed_on = connection.offered.require_tls || job.sender.is_none();
        if job.require_tls && (connection.tls.is_none() || !passed_on) {
            let label = connection.label.clone();
            self.put_away(endpoint, policy, connection);
            let text = format!("{label} does not support REQUIRETLS");
            return Visit::Failed(Failed {
                status: with_host(&label, 550, Enhanced(5, 7, 30), text),
                demanding: true,
            });
        }
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
                return Visit::Failed(Failed::of(lost.status(&connection.label)));
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
                } else if connection.unproved {
                    Visit::Stale
                } else {
                    Visit::Failed(Failed::of(status))
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

    /// Fetches policies of MTA-STS again before they are over. Never returns.
    pub(crate) async fn renew_policies(&self) {
        let every = Duration::from_secs(self.config.tls.mta_sts_refresh.clamp(60, 3600) / 2);
        let mut clock = tokio::time::interval(every);
        loop {
            clock.tick().await;
            self.sts
                .renew(|domain| async move { self.fetch_sts(&domain).await })
                .await;
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
        .unwrap_or_else(nothing_tried)
}

/// RFC 8689 4.2.1: what cannot be had for this message comes back to its sender; 5.7.10 is "encryption needed".
fn required(found: Status, problem: &Problem) -> Failed {
    let lasting = problem.kind != ResultType::ValidationFailure;
    let status = Status {
        code: if lasting { 550 } else { found.code },
        enhanced: if lasting {
            Enhanced(5, 7, 10)
        } else {
            found.enhanced
        },
        text: format!("the message requires TLS (REQUIRETLS): {}", found.text),
        host: found.host,
    };
    Failed {
        status,
        demanding: true,
    }
}

/// One address in its turn, or a host that has none.
pub(crate) enum Turn<'a> {
    Try {
        endpoint: Endpoint,
        demand: &'a Demand,
    },
    Skip {
        status: &'a Status,
    },
}

impl Way {
    /// All addresses in their order, so many at most.
    pub(crate) fn turns(&self, most: usize) -> Vec<Turn<'_>> {
        let mut turns = Vec::new();
        let mut left = most.max(1);
        for step in &self.steps {
            match step {
                Step::Skip { status, .. } => turns.push(Turn::Skip { status }),
                Step::Try { host, demand } => {
                    for address in host.addresses.iter().take(left) {
                        left -= 1;
                        turns.push(Turn::Try {
                            endpoint: Endpoint {
                                name: host.name.clone(),
                                address: SocketAddr::new(*address, self.port),
                            },
                            demand,
                        });
                    }
                }
            }
        }
        turns
    }
}
