//! A daemon that lets people in, from its start to its end.

use crate::config::{ListenerConfig, Logins, TlsMode};
use crate::listener::{Caller, Front, open_store, serve};
use crate::{Connections, Seat};
use ipc::api::authd::Service;
use runtime::{Failure, Listener, Start};
use serde::de::DeserializeOwned;
use std::future::Future;
use std::sync::Arc;
use tokio::sync::watch;
use types::Role;

/// A configuration section of a daemon with listeners and logins.
pub trait Section: DeserializeOwned + Default + Clone + Send + Sync + 'static {
    /// The section's own.
    fn listeners(&self) -> &[ListenerConfig];

    /// The section's own.
    fn logins(&self) -> Logins;
}

/// What such a daemon has once the store is there.
pub struct House<C> {
    /// The store, read-only.
    pub reader: store::Reader,
    /// The section as it is now: a reload changes it. Sessions under way keep what they began with; listeners stay.
    pub config: watch::Receiver<Arc<C>>,
    /// Who is connected.
    pub connections: Arc<Connections>,
    role: Role,
    listeners: Vec<(Listener, ListenerConfig)>,
    fronts: watch::Receiver<Front>,
}

impl<C: Section> House<C> {
    /// Waits for the store, gets the certificates, and follows the configuration. `full` is said, with its line end, to those for
    /// whom there is no place.
    ///
    /// # Errors
    /// What keeps the daemon from starting.
    pub async fn open(
        start: &mut Start<C>,
        role: Role,
        service: Service,
        full: &'static str,
    ) -> Result<Self, Failure> {
        let config = start.config().clone();
        let sockets = start.take_listeners();
        let reader = open_store(
            &start.section("store")?,
            &start.section("blob")?,
            &start.state_of(Role::Stored),
            start.stopping(),
        )
        .await?;
        let wants_tls = |listener: &ListenerConfig| listener.tls != TlsMode::None;
        let tls = if config.listeners().iter().any(wants_tls) {
            let signer = ipc::blocking::Client::new(role, Role::Keyd, start.socket(Role::Keyd));
            let certificates = tls::Certificates::from_keyd(start.client(Role::Keyd), signer).await;
            let acceptor = certificates.acceptor();
            Some(acceptor.map_err(|error| Failure::new(format!("TLS: {error}")))?)
        } else {
            None
        };
        let connections: Arc<Connections> = Arc::default();
        let front = Front {
            logins: Arc::new(config.logins()),
            tls,
            authd: start.client(Role::Authd),
            service,
            connections: Arc::clone(&connections),
            full,
        };
        let listeners = sockets
            .into_iter()
            .zip(config.listeners().iter().cloned())
            .collect();
        let (now, config) = watch::channel(Arc::new(config));
        let (change, fronts) = watch::channel(front);
        let mut documents = start.documents();
        tokio::spawn(async move {
            while documents.changed().await.is_ok() {
                let document = Arc::clone(&documents.borrow_and_update());
                match document.section::<C>(role.name()) {
                    Ok(config) => {
                        let logins = Arc::new(config.logins());
                        change.send_modify(|front| front.logins = logins);
                        now.send_replace(Arc::new(config));
                    }
                    Err(error) => {
                        let section = role.name();
                        tracing::error!(%error, section, "a section stays as it was");
                    }
                }
            }
        });
        Ok(Self {
            reader,
            config,
            connections,
            role,
            listeners,
            fronts,
        })
    }

    /// Answers the operator and accepts until the daemon stops, then waits for the sessions to end. `session` runs one.
    pub async fn serve<S, F>(self, start: Start<C>, session: S)
    where
        S: Fn(Caller, Seat) -> F + Clone + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let connections = Arc::clone(&self.connections);
        start.fact("connections", move || connections.count().0.to_string());
        let stopping = start.stopping();
        let served = start.serve(ipc::Router::new(self.role));
        let mut doors = tokio::task::JoinSet::new();
        for (listener, settings) in self.listeners {
            doors.spawn(serve(
                listener,
                settings,
                self.fronts.clone(),
                stopping.clone(),
                session.clone(),
            ));
        }
        while doors.join_next().await.is_some() {}
        let _ = served.await;
    }
}
