//! What sessions are served by: made from the configuration, and again each time it is read.

use crate::clients::Clients;
use crate::config::Config;
use crate::dnslist::ListStage;
use crate::listener::{Networks, Serving};
use crate::peers::Peers;
use crate::session::{ListPolicy, Policy, Service};
use crate::{checks, figures, hooks, judge, limitd, lists, recipients, reports, rewriting};
use ipc::Client;
use runtime::{Document, Failure};
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;
use types::{Address, Role};

/// What stays when the configuration is read again: connections to the other daemons, seats, certificates.
pub(crate) struct Surroundings {
    pub(crate) authd: Client,
    pub(crate) queued: Client,
    /// `None` if it does not run.
    pub(crate) limitd: Option<Client>,
    /// `None` if it does not run.
    pub(crate) hookd: Option<Client>,
    /// What is gathered for reportd; `None` if it does not run.
    pub(crate) reports: Option<Arc<reports::Reports>>,
    pub(crate) clients: Arc<Clients>,
    /// `None` if no listener has TLS.
    pub(crate) tls: Option<TlsAcceptor>,
}

impl Surroundings {
    /// What sessions are served by under this configuration. Listeners are not part of it: those stay as they are.
    ///
    /// # Errors
    /// Settings that make no sense.
    pub(crate) fn serving(&self, document: &Document) -> Result<Arc<Serving<Peers>>, Failure> {
        let config: Config = document.section(Role::Smtpd.name())?;
        let limits: limitd::Section = document.section(Role::Limitd.name())?;
        let hostname = match &config.hostname {
            Some(own) => own.clone(),
            None => document.suite()?.hostname,
        };
        let hooks = hooks::Hooks::new(document)?.filter(|_| self.hookd.is_some());
        let service = Service {
            backend: Peers::new(
                self.authd.clone(),
                self.queued.clone(),
                self.hookd.clone(),
                judge(&config.checks, &hostname)?,
                lists(&config)?,
                self.limitd.clone().map(limitd::Limitd::new),
            ),
            policy: self.policy(&config, hostname, &limits)?,
            clients: Arc::clone(&self.clients),
            confirmed: recipients::ConfirmedRecipients::default(),
            figures: figures::Figures::default(),
            hooks,
            tls: self.tls.clone(),
        };
        let networks = Networks {
            proxy: config.proxy_networks,
            trusted: config.trusted_networks,
            relay: config.relay_networks,
        };
        Ok(Arc::new(Serving {
            service: Arc::new(service),
            networks: Arc::new(networks),
        }))
    }

    fn policy(
        &self,
        config: &Config,
        hostname: String,
        limits: &limitd::Section,
    ) -> Result<Policy, Failure> {
        let postmaster = Address::new("postmaster", &hostname)
            .map_err(|error| Failure::new(format!("suite.hostname {hostname:?}: {error}")))?;
        let mut checks = checks::Checks::new(&config.checks)?;
        if let Some(checks) = &mut checks {
            checks.reports.clone_from(&self.reports);
        }
        let authserv_id = match config.checks.authserv_id.as_str() {
            "" => hostname.as_str(),
            own => own,
        };
        let authserv_id = authserv_id.into();
        let lists = (!config.dnslists.list.is_empty()).then(|| ListPolicy {
            when: config.dnslists.when,
            at_mail: (config.dnslists.list.iter()).any(|list| list.stage == ListStage::Mail),
            reachable: config.dnslists.reachable.clone(),
        });
        Ok(Policy {
            hostname,
            postmaster,
            limits: config.limits.clone(),
            timeouts: config.timeouts.clone(),
            line_endings: config.line_endings,
            check_from: config.check_from,
            auth_without_tls: config.auth_without_tls,
            mechanisms: config.mechanisms.clone(),
            authserv_id,
            checks,
            terms: config.terms.clone(),
            asked: limits.asked().filter(|_| self.limitd.is_some()),
            lists,
            early: config.early.clone(),
            rewriting: rewriting::Rewriting::new(config)?.map(Arc::new),
        })
    }
}
