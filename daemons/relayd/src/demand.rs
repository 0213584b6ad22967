//! What is demanded of each host of a destination: by our table, by the destination's DANE or MTA-STS, by the message.

use crate::attempt::Client;
use crate::config::{Protocol, RouteConfig, TlsMode};
use crate::connection::{Login, Policy, Security};
use crate::dns::{Exchangers, Host, NoHosts};
use crate::result::{PolicyType, Problem, ResultType, Shown, TlsResult};
use crate::sts::{self, Mode, Sts};
use crate::tlsa;
use crate::transport::{Level, Rule};
use crate::verdict::{status, with_host};
use ::dns::{Proven, Unknown};
use ipc::api::relayd::{Manner, TlsDemand};
use types::{Enhanced, Status, TraceId};

/// What a message asks of its way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wish {
    /// MAIL's REQUIRETLS (RFC 8689 2).
    pub(crate) require_tls: bool,
    /// `TLS-Required: No` (RFC 8689 3): better in the clear than not at all.
    pub(crate) tls_optional: bool,
    /// What a rule of the queue wants.
    pub(crate) tls: Option<TlsDemand>,
    pub(crate) trace: TraceId,
}

/// A way to a destination.
#[derive(Debug)]
pub(crate) struct Way {
    pub(crate) steps: Vec<Step>,
    pub(crate) port: u16,
    /// The recipients' domain, or the host of the route.
    pub(crate) next_hop: String,
    pub(crate) rule: Rule,
    /// What the signatures say of the MX records; `None` without any.
    pub(crate) mx: Option<Proven>,
    /// The policy of MTA-STS, if it was asked for.
    pub(crate) sts: Option<Sts>,
}

impl Way {
    /// With the source address and the name in EHLO that a rule of the queue wants.
    pub(crate) fn in_manner(mut self, manner: &Manner) -> Self {
        for step in &mut self.steps {
            if let Step::Try { demand, .. } = step {
                demand.policy.manner = manner.clone();
            }
        }
        self
    }
}

/// One host in its turn.
#[derive(Debug)]
pub(crate) enum Step {
    /// It may be tried.
    Try { host: Host, demand: Demand },
    /// It may not.
    Skip { host: String, status: Status },
}

/// What a host must show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Demand {
    pub(crate) policy: Policy,
    pub(crate) source: PolicyType,
    /// For people: why.
    pub(crate) why: Box<str>,
    /// For reports: the policy.
    pub(crate) shown: Box<Shown>,
}

impl Demand {
    /// TLS, if a rule of the queue wants it and nothing else demands it.
    fn at_least(mut self, wanted: Option<TlsDemand>) -> Self {
        if wanted == Some(TlsDemand::Required)
            && matches!(self.policy.security, Security::May { .. })
        {
            self.policy.security = Security::Encrypt;
            self.why = "a rule of the queue requires TLS".into();
        }
        self
    }
}

/// What is decided for all hosts of a way.
struct Ground<'a> {
    client: &'a Client,
    wish: Wish,
    domain: &'a str,
    rule: &'a Rule,
    base: Policy,
    port: u16,
    /// Whether the names of the hosts can be believed as far as DANE needs it (RFC 7672 2.2.1).
    believed: bool,
    mx: Option<Proven>,
    sts: Option<&'a Sts>,
}

impl Client {
    /// By the domain's mail exchangers.
    pub(crate) async fn by_mx(&self, wish: Wish, domain: &str) -> Result<Way, NoHosts> {
        let mut rule = self.rules.domain(domain);
        // RFC 8689 4.2.2: what the destination publishes is set aside; our own table is not.
        if wish.tls_optional && !wish.require_tls && rule.level.is_theirs() {
            rule.level = Level::May;
        }
        rule.level = rule.level.or(wish.tls, wish.require_tls);
        let found = self.dns.exchangers(domain, &self.hostname).await;
        let found = found.inspect_err(|none| {
            if none.bogus {
                let status = none.status();
                let problem = Problem::new(ResultType::DnssecInvalid, &status.text);
                self.tell(result(PolicyType::Tlsa, domain, "", problem, false), wish);
            }
        })?;
        let asked = rule.level.wants_sts() || wish.require_tls;
        let literal = domain.starts_with('[');
        let sts = match asked && !literal {
            true => Some(self.sts_policy(domain, wish).await),
            false => None,
        };
        let ground = Ground {
            client: self,
            wish,
            domain,
            rule: &rule,
            base: Policy {
                security: Security::May { watch: Vec::new() },
                implicit: false,
                min_version: rule.min_version,
                protocol: Protocol::Smtp,
                login: None,
                watch_loops: true,
                manner: Manner::default(),
            },
            port: self.config.port,
            believed: found.mx != Some(Proven::Insecure),
            mx: found.mx,
            sts: sts.as_ref(),
        };
        let steps = self.steps(&ground, found).await;
        Ok(Way {
            steps,
            port: self.config.port,
            next_hop: domain.to_owned(),
            mx: ground.mx,
            rule: rule.clone(),
            sts,
        })
    }

    /// By a route of the configuration. Its host is named by us, so that nothing need be proved about that.
    pub(crate) async fn by_route(
        &self,
        wish: Wish,
        route: &RouteConfig,
        login: Option<Login>,
    ) -> Result<Way, NoHosts> {
        let port = route.effective_port();
        let host = route.host.trim_matches(['[', ']']).to_ascii_lowercase();
        let entry = self.rules.next_hop(&host, port);
        let mut rule = entry.unwrap_or_else(|| route_rule(route, login.is_some(), &self.rules));
        let bound = wish.require_tls || login.is_some() || route.tls == TlsMode::Implicit;
        rule.level = rule.level.or(wish.tls, bound);
        let found = self.dns.host(&route.host).await?;
        let ground = Ground {
            client: self,
            wish,
            domain: &host,
            rule: &rule,
            base: Policy {
                security: Security::May { watch: Vec::new() },
                implicit: route.tls == TlsMode::Implicit,
                min_version: rule.min_version,
                protocol: route.protocol,
                login,
                watch_loops: false,
                manner: Manner::default(),
            },
            port,
            believed: true,
            mx: None,
            sts: None,
        };
        let steps = self.steps(&ground, found).await;
        Ok(Way {
            steps,
            port,
            next_hop: host.clone(),
            mx: None,
            sts: None,
            rule: rule.clone(),
        })
    }

    async fn steps(&self, ground: &Ground<'_>, found: Exchangers) -> Vec<Step> {
        let mut steps = Vec::new();
        for host in found.hosts {
            match self.demand(ground, &host).await {
                Ok(demand) => steps.push(Step::Try {
                    host,
                    demand: demand.at_least(ground.wish.tls),
                }),
                Err((source, problem, status)) => {
                    let mut found = result(source, ground.domain, &host.name, problem, false);
                    if source == PolicyType::Sts {
                        found.shown = shown_sts(ground.sts);
                    }
                    self.tell(found, ground.wish);
                    steps.push(Step::Skip {
                        host: host.name,
                        status,
                    });
                }
            }
        }
        for (host, error) in found.unusable {
            if matches!(error, Unknown::Bogus(_)) {
                let problem = Problem::new(ResultType::DnssecInvalid, error.to_string());
                let found = result(PolicyType::Tlsa, ground.domain, &host, problem, false);
                self.tell(found, ground.wish);
            }
            let text = format!("no answer from DNS for the address of {host}: {error}");
            steps.push(Step::Skip {
                status: with_host(&host, 451, Enhanced(4, 4, 3), text),
                host,
            });
        }
        steps
    }

    /// What this host must show; or why it may not be tried.
    async fn demand(
        &self,
        ground: &Ground<'_>,
        host: &Host,
    ) -> Result<Demand, (PolicyType, Problem, Status)> {
        let level = ground.rule.level;
        let made = |security, source, why: String| Demand {
            policy: Policy {
                security,
                ..ground.base.clone()
            },
            source,
            why: why.into(),
            shown: Box::new(Shown {
                unreported: ground.wish.tls_optional,
                ..match source {
                    PolicyType::Sts => shown_sts(ground.sts),
                    _ => Shown::default(),
                }
            }),
        };
        if level.wants_dane()
            && ground.believed
            && let Some(demand) = self.by_tlsa(ground, host, &made).await?
        {
            return Ok(demand);
        }
        if level == Level::DaneOnly {
            let why = match (ground.believed, host.bases.is_empty()) {
                (false, _) => "its MX records are not signed",
                (true, true) => "its addresses are not signed",
                (true, false) => "it has no TLSA records",
            };
            let text = format!("DANE is demanded of {}, and {why}", host.name);
            return Err(refuse(
                PolicyType::Tlsa,
                ResultType::DaneRequired,
                host,
                text,
            ));
        }
        if level.wants_sts()
            && let Some(demand) = by_sts(ground, host, &made)?
        {
            return Ok(demand);
        }
        let (security, why) = match level {
            Level::Verify | Level::Secure => {
                let names = ground.rule.certificate_names(&host.name, ground.domain);
                (
                    Security::Names(names),
                    format!("our table says {}", level.name()),
                )
            }
            Level::Encrypt => (Security::Encrypt, "our table says encrypt".to_owned()),
            Level::None => (Security::None, "our table says none".to_owned()),
            Level::May => (
                Security::May { watch: Vec::new() },
                "opportunistic".to_owned(),
            ),
            _ => (
                Security::May { watch: Vec::new() },
                "it publishes no policy".to_owned(),
            ),
        };
        let ours = made(security, PolicyType::NoPolicyFound, why);
        if !ground.wish.require_tls {
            return Ok(ours);
        }
        self.required(ground, host, ours, &made)
    }

    /// RFC 8689 4.2.1: the host's name must be one that is proved, and its certificate one for that name.
    fn required(
        &self,
        ground: &Ground<'_>,
        host: &Host,
        ours: Demand,
        made: &(dyn Fn(Security, PolicyType, String) -> Demand + Sync),
    ) -> Result<Demand, (PolicyType, Problem, Status)> {
        let proved = ground.mx != Some(Proven::Insecure)
            || ground.rule.level == Level::Secure
            || matches!(ground.sts, Some(Sts::Known(policy, _)) if policy.mode != Mode::None && policy.names(&host.name));
        if !proved {
            let text = format!(
                "the message requires TLS (REQUIRETLS), and neither DNSSEC nor MTA-STS proves that {} is a mail exchanger of {}",
                host.name, ground.domain
            );
            let problem = Problem::new(ResultType::ValidationFailure, &text);
            let status = with_host(&host.name, 550, Enhanced(5, 7, 30), text);
            return Err((PolicyType::NoPolicyFound, problem, status));
        }
        if matches!(ours.policy.security, Security::Names(_)) {
            return Ok(ours);
        }
        Ok(made(
            Security::Names(vec![host.name.clone()]),
            ours.source,
            "the message requires TLS".to_owned(),
        ))
    }

    /// RFC 7672 2.2
    async fn by_tlsa(
        &self,
        ground: &Ground<'_>,
        host: &Host,
        made: &(dyn Fn(Security, PolicyType, String) -> Demand + Sync),
    ) -> Result<Option<Demand>, (PolicyType, Problem, Status)> {
        for base in &host.bases {
            let records = match self.dns.tlsa(ground.port, base).await {
                Ok(records) => records,
                // RFC 7672 2.1.1: not this host, and not in the clear.
                Err(error) => {
                    let kind = match error {
                        Unknown::Bogus(_) => ResultType::DnssecInvalid,
                        Unknown::NoAnswer(_) | Unknown::Refused(_) => ResultType::ValidationFailure,
                    };
                    let text = format!("the TLSA records of {base} cannot be known: {error}");
                    return Err(refuse(PolicyType::Tlsa, kind, host, text));
                }
            };
            if records.is_empty() {
                continue;
            }
            let usable = tlsa::usable(&records);
            if usable.is_empty() {
                // RFC 7672 2.2: TLS at least, whoever it is. REQUIRETLS and MTA-STS may ask for more.
                if ground.wish.require_tls || ground.rule.level == Level::DaneOnly {
                    continue;
                }
                if let Some(demand) = by_sts(ground, host, made)?
                    && matches!(demand.policy.security, Security::Names(_))
                {
                    return Ok(Some(demand));
                }
                let why = format!("no TLSA record of {base} is of use: TLS, unauthenticated");
                return Ok(Some(made(Security::Encrypt, PolicyType::Tlsa, why)));
            }
            // RFC 7672 3.2.2
            let mut names = vec![base.clone(), host.name.clone(), ground.domain.to_owned()];
            names.sort();
            names.dedup();
            let why = format!("TLSA records of {base}");
            let text = usable.iter().map(ToString::to_string).collect();
            let security = Security::Dane {
                records: usable,
                names,
                base: base.clone(),
            };
            let mut demand = made(security, PolicyType::Tlsa, why);
            demand.shown.text = text;
            return Ok(Some(demand));
        }
        Ok(None)
    }

    /// The domain's policy, from memory or fetched now.
    pub(crate) async fn sts_policy(&self, domain: &str, wish: Wish) -> Sts {
        let announced = self.dns.sts(domain).await;
        let known = self
            .sts
            .policy(domain, announced, || self.fetch_sts(domain))
            .await;
        if let Sts::Unfetched(problem) | Sts::Known(_, Some(problem)) = &known {
            let delivered = true;
            let mut found = result(PolicyType::Sts, domain, "", problem.clone(), delivered);
            found.shown = shown_sts(Some(&known));
            self.tell(found, wish);
        }
        known
    }

    pub(crate) async fn fetch_sts(&self, domain: &str) -> Result<sts::Policy, Problem> {
        let make = || async {
            let tls = self.tls.https().await.map_err(|error| error.to_string())?;
            let transport = &self.config.tls;
            sts::Fetcher::new(
                tls,
                self.dns.plain().clone(),
                transport.mta_sts_port,
                std::time::Duration::from_secs(transport.mta_sts_timeout.max(1)),
            )
        };
        let fetcher = self
            .fetcher
            .get_or_try_init(make)
            .await
            .map_err(|error| Problem::new(ResultType::StsPolicyFetchError, error))?;
        let fetched = fetcher.fetch(domain).await;
        if let Ok(policy) = &fetched {
            tracing::info!(domain, mode = %policy.mode, max_age = policy.max_age, mx = policy.mx.join(" "), "MTA-STS policy fetched");
        }
        fetched
    }
}

/// RFC 8461 5
fn by_sts(
    ground: &Ground<'_>,
    host: &Host,
    made: &(dyn Fn(Security, PolicyType, String) -> Demand + Sync),
) -> Result<Option<Demand>, (PolicyType, Problem, Status)> {
    let only = ground.rule.level == Level::MtaStsOnly;
    let policy = match ground.sts {
        Some(Sts::Known(policy, _)) if policy.mode != Mode::None => policy,
        known if only => {
            let (kind, why) = match known {
                Some(Sts::Unfetched(problem)) => (problem.kind, problem.text.clone()),
                _ => (ResultType::ValidationFailure, "there is none".to_owned()),
            };
            let text = format!(
                "a policy of MTA-STS is demanded of {}: {why}",
                ground.domain
            );
            return Err(refuse(PolicyType::Sts, kind, host, text));
        }
        _ => return Ok(None),
    };
    let enforce = only || policy.mode == Mode::Enforce;
    let named = policy.names(&host.name);
    let why = format!(
        "the MTA-STS policy of {}, mode {}",
        ground.domain, policy.mode
    );
    if enforce && !named {
        let text = format!(
            "{} is not in the MTA-STS policy of {}",
            host.name, ground.domain
        );
        return Err(refuse(
            PolicyType::Sts,
            ResultType::ValidationFailure,
            host,
            text,
        ));
    }
    let security = if enforce {
        Security::Names(vec![host.name.clone()])
    } else if ground.wish.require_tls {
        return Ok(None);
    } else if named {
        Security::May {
            watch: vec![host.name.clone()],
        }
    } else {
        let text = format!("{} is not in the policy", host.name);
        let problem = Problem::new(ResultType::ValidationFailure, text);
        let mut found = result(PolicyType::Sts, ground.domain, &host.name, problem, true);
        found.shown = shown_sts(ground.sts);
        ground.client.tell(found, ground.wish);
        Security::May { watch: Vec::new() }
    };
    Ok(Some(made(security, PolicyType::Sts, why)))
}

/// What `tls` and `verify` of a route say, where the table has no entry for it.
fn route_rule(route: &RouteConfig, login: bool, rules: &crate::transport::Rules) -> Rule {
    let default = rules.domain("");
    let level = match (route.tls, route.verify) {
        (TlsMode::None, _) => Level::None,
        (TlsMode::Required | TlsMode::Implicit, Some(false)) => Level::Encrypt,
        (TlsMode::Required | TlsMode::Implicit, _) | (TlsMode::Opportunistic, Some(true)) => {
            Level::Verify
        }
        // A password is not for everyone on the way.
        (TlsMode::Opportunistic, _) if login => Level::Encrypt,
        // RFC 7672 2.2.2: what the host publishes counts, unless our default is to look at none of that.
        (TlsMode::Opportunistic, _) if default.level.wants_dane() => Level::Dane,
        (TlsMode::Opportunistic, _) => Level::May,
    };
    Rule {
        level,
        entry: None,
        names: Vec::new(),
        min_version: default.min_version,
    }
}

fn refuse(
    source: PolicyType,
    kind: ResultType,
    host: &Host,
    text: String,
) -> (PolicyType, Problem, Status) {
    let problem = Problem::new(kind, &text);
    let status = with_host(
        &host.name,
        451,
        Enhanced(4, 7, 5),
        format!("{text} ({})", kind.name()),
    );
    (source, problem, status)
}

pub(crate) fn result(
    policy: PolicyType,
    domain: &str,
    mx: &str,
    problem: Problem,
    delivered: bool,
) -> TlsResult {
    TlsResult {
        policy,
        domain: domain.to_owned(),
        mx: mx.to_owned(),
        problem: Some(problem),
        delivered,
        address: None,
        shown: Shown::default(),
    }
}

/// The policy file as it was read (RFC 8460 4.4 `policy-string`).
fn shown_sts(sts: Option<&Sts>) -> Shown {
    let Some(Sts::Known(policy, _)) = sts else {
        return Shown::default();
    };
    let mut text = vec![
        "version: STSv1".to_owned(),
        format!("mode: {}", policy.mode),
    ];
    text.extend(policy.mx.iter().map(|mx| format!("mx: {mx}")));
    text.push(format!("max_age: {}", policy.max_age));
    Shown {
        text,
        mx: policy.mx.clone(),
        unreported: false,
    }
}

impl NoHosts {
    /// Why, in words.
    pub(crate) fn status(&self) -> Status {
        match &self.outcome {
            types::Outcome::Done(found)
            | types::Outcome::Temporary(found)
            | types::Outcome::Permanent(found) => found.clone(),
        }
    }
}

/// When there is not even a host that could have been skipped.
pub(crate) fn nothing_tried() -> Status {
    status(451, Enhanced(4, 4, 1), "no host could be tried")
}
