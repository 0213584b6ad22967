//! What a daemon is given to run with.

use crate::config::{Document, Suite};
use crate::sockets::{Listener, socket_path};
use crate::{Failure, metrics, probe};
use ipc::api::control;
use ipc::{Client, ClientOptions, Router, ServerOptions, Users, topology};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tokio::sync::{Notify, watch};
use types::Role;

type Fact = (String, Box<dyn Fn() -> String + Send + Sync>);

/// What is known once the daemon is configured, bound and confined; shared with the control operations.
pub(crate) struct Inner {
    pub(crate) role: Role,
    pub(crate) suite: Suite,
    pub(crate) sandbox: Vec<String>,
    pub(crate) listeners: Vec<(String, String)>,
    pub(crate) began: Instant,
    pub(crate) facts: Mutex<Vec<Fact>>,
    pub(crate) clients: Mutex<BTreeMap<Role, Client>>,
    pub(crate) stop: watch::Sender<bool>,
    pub(crate) reload: Notify,
    pub(crate) document: watch::Sender<Arc<Document>>,
    pub(crate) ready: watch::Sender<bool>,
}

/// Everything that a daemon runs with. Its `run` ends when [`Start::stopping`] says so and its work is drained.
pub struct Start<C> {
    pub(crate) inner: Arc<Inner>,
    pub(crate) config: C,
    pub(crate) listeners: Vec<Listener>,
    pub(crate) control: tokio::net::UnixListener,
    pub(crate) users: Users,
}

impl<C> std::fmt::Debug for Start<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "start of {}", self.inner.role)
    }
}

impl<C: DeserializeOwned + Default> Start<C> {
    /// The daemon's own section.
    pub fn config(&self) -> &C {
        &self.config
    }

    /// The section `[suite]`.
    pub fn suite(&self) -> &Suite {
        &self.inner.suite
    }

    /// Another section, for example `store`.
    ///
    /// # Errors
    /// An unknown key or a value of the wrong type.
    pub fn section<T: DeserializeOwned + Default>(&self, name: &str) -> Result<T, Failure> {
        self.inner.document.borrow().section(name)
    }

    /// The directory below `state_dir` that this daemon writes.
    pub fn state_dir(&self) -> PathBuf {
        state_dir(&self.inner.suite, self.inner.role)
    }

    /// The directory of another daemon that topology lets this one read.
    pub fn state_of(&self, other: Role) -> PathBuf {
        state_dir(&self.inner.suite, other)
    }

    /// The listening sockets, in the order of [`crate::Needs::listen`]. Once.
    pub fn take_listeners(&mut self) -> Vec<Listener> {
        std::mem::take(&mut self.listeners)
    }

    /// The connection to a daemon that topology lets us call. One for each, shared by clones.
    pub fn client(&self, server: Role) -> Client {
        self.inner.client(server, ClientOptions::default())
    }

    /// As [`Self::client`], with other limits if it is the first one.
    pub fn client_with(&self, server: Role, options: ClientOptions) -> Client {
        self.inner.client(server, options)
    }

    /// The socket of another daemon, for [`ipc::blocking::Client`].
    pub fn socket(&self, server: Role) -> PathBuf {
        socket_path(&self.inner.suite.run_dir, server)
    }

    /// Whether another daemon runs, as far as the configuration tells: those that the topology calls optional may not.
    pub fn enabled(&self, other: Role) -> bool {
        self.inner.document.borrow().enabled(other)
    }

    /// Becomes true when sessions should end: finish what is under way, take nothing new.
    pub fn stopping(&self) -> watch::Receiver<bool> {
        self.inner.stop.subscribe()
    }

    /// The configuration as read again on HUP; the receiver changes then. Settings that are not looked at again need a
    /// restart, and their documentation says so.
    pub fn documents(&self) -> watch::Receiver<Arc<Document>> {
        self.inner.document.subscribe()
    }

    /// A line for `posthouse status`.
    pub fn fact(&self, name: &str, value: impl Fn() -> String + Send + Sync + 'static) {
        self.inner
            .facts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((name.to_owned(), Box::new(value)));
    }

    /// Serves the daemon's operations together with the control operations, and tells the service manager that it is
    /// ready. Ends when the daemon stops and all calls under way are answered: await it last.
    ///
    /// # Panics
    /// Never; a second call would serve on another socket, so the control socket moves in here.
    pub fn serve(self, router: Router) -> tokio::task::JoinHandle<()> {
        let router = control_operations(router, &self.inner);
        let stop = self.inner.stop.subscribe();
        self.inner.ready.send_replace(true);
        tokio::spawn(router.serve(self.control, self.users, ServerOptions::default(), stop))
    }
}

/// The directory below `state_dir` that a daemon writes.
pub(crate) fn state_dir(suite: &Suite, role: Role) -> PathBuf {
    suite
        .state_dir
        .join(topology::daemon(role).map_or("", |daemon| daemon.state.as_str()))
}

impl Inner {
    fn client(&self, server: Role, options: ClientOptions) -> Client {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || {
            Client::new(
                self.role,
                server,
                socket_path(&self.suite.run_dir, server),
                options,
            )
        };
        clients.entry(server).or_insert_with(new).clone()
    }

    /// Reads the configuration again; the old one stays in force if the new one is not sound.
    pub(crate) fn read_again(&self, path: &Path, sound: impl Fn(&Document) -> Result<(), Failure>) {
        match Document::load(path).and_then(|document| sound(&document).map(|()| document)) {
            Ok(document) => {
                self.document.send_replace(Arc::new(document));
                tracing::info!("configuration read again");
            }
            Err(error) => {
                tracing::error!(%error, "the new configuration is not sound; the old one stays in force")
            }
        }
    }

    fn status(&self) -> control::StatusReply {
        let clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let facts = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        control::StatusReply {
            role: self.role,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uid: rustix::process::geteuid().as_raw(),
            uptime: self.began.elapsed().as_secs(),
            sandbox: self.sandbox.clone(),
            peers: clients
                .iter()
                .map(|(role, client)| (*role, client.is_connected()))
                .collect(),
            facts: facts
                .iter()
                .map(|(name, value)| (name.clone(), value()))
                .collect(),
            listeners: self.listeners.clone(),
        }
    }
}

fn control_operations(router: Router, inner: &Arc<Inner>) -> Router {
    let (status, reload, shutdown) = (Arc::clone(inner), Arc::clone(inner), Arc::clone(inner));
    router
        .on(|_, _: control::Ping| async { Ok(()) })
        .on(move |_, _: control::Status| std::future::ready(Ok(status.status())))
        .on(|_, _: control::Metrics| async { Ok(metrics::text()) })
        .on(move |_, _: control::Reload| {
            reload.reload.notify_one();
            std::future::ready(Ok(()))
        })
        .on(move |_, _: control::Shutdown| {
            shutdown.stop.send_replace(true);
            std::future::ready(Ok(()))
        })
        .on(|_, attempt: control::Probe| async move { Ok(probe::attempt(attempt).await) })
}
