//! Where the suite is, and calls to its daemons.

use crate::command::status::daemons;
use crate::failure::Failure;
use ipc::{CallError, Client, ClientOptions, FaultKind, Operation};
use std::cell::RefCell;
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;
use types::{Role, TraceId};

/// How long a daemon has to accept a connection before it counts as away.
const CONNECT: Duration = Duration::from_secs(2);
/// How long an answer may take: adding an account hashes a password, queue commands may concern many messages.
const ANSWER: Duration = Duration::from_secs(60);

/// Which configuration the command is about.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// The configuration file.
    pub(crate) config: PathBuf,
    /// The folder it is in; with `--dir` all state is there too.
    pub(crate) dir: PathBuf,
}

impl Place {
    /// From the options, else the environment, else the default. Absolute, as daemons are given it.
    pub(crate) fn find(config: Option<PathBuf>, dir: Option<PathBuf>) -> Result<Self, Failure> {
        let named = config
            .or_else(|| dir.map(|dir| dir.join("posthouse.toml")))
            .or_else(|| std::env::var_os("POSTHOUSE_CONFIG").map(PathBuf::from))
            .unwrap_or_else(|| PathBuf::from(runtime::DEFAULT_CONFIG));
        let config = std::path::absolute(&named)
            .map_err(|error| Failure::new(format!("{}: {error}", named.display())))?;
        let dir = config.parent().unwrap_or(Path::new("/")).to_owned();
        Ok(Self { config, dir })
    }

    /// Reads the configuration.
    pub(crate) fn document(&self) -> Result<runtime::Document, Failure> {
        runtime::Document::load(&self.config).map_err(|failure| Failure::new(failure.to_string()))
    }
}

/// A running suite.
pub(crate) struct Suite {
    /// Print JSON.
    pub(crate) json: bool,
    /// `suite.hostname`.
    pub(crate) hostname: String,
    /// `suite.state_dir`.
    pub(crate) state_dir: PathBuf,
    /// Of this command.
    pub(crate) trace: TraceId,
    /// `suite.run_dir`.
    pub(crate) run_dir: PathBuf,
    /// The daemons that the configuration wants, in the order in which they start.
    pub(crate) daemons: Vec<Role>,
    clients: RefCell<HashMap<Role, Client>>,
}

impl Suite {
    /// Reads where its daemons are; connects to each when it is first called.
    pub(crate) fn open(place: &Place, json: bool) -> Result<Self, Failure> {
        let document = place.document()?;
        let suite = document
            .suite()
            .map_err(|failure| Failure::new(failure.to_string()))?;
        Ok(Self {
            daemons: daemons().filter(|role| document.enabled(*role)).collect(),
            json,
            hostname: suite.hostname,
            state_dir: suite.state_dir,
            trace: runtime::new_trace(),
            run_dir: suite.run_dir,
            clients: RefCell::default(),
        })
    }

    /// Calls an operation.
    pub(crate) async fn call<O: Operation>(
        &self,
        role: Role,
        request: &O,
    ) -> Result<O::Reply, Failure> {
        let client = self.client(role).await?;
        let answer = client
            .call_with(self.trace, request, Vec::new(), ANSWER)
            .await;
        answer
            .map(|(reply, _)| reply)
            .map_err(|error| explain(role, error))
    }

    /// Calls an operation that may take longer than others.
    pub(crate) async fn call_within<O: Operation>(
        &self,
        role: Role,
        request: &O,
        limit: Duration,
    ) -> Result<O::Reply, Failure> {
        let client = self.client(role).await?;
        let answer = client
            .call_with(self.trace, request, Vec::new(), limit)
            .await;
        answer
            .map(|(reply, _)| reply)
            .map_err(|error| explain(role, error))
    }

    /// Calls an operation whose reply brings a descriptor.
    pub(crate) async fn call_for_file<O: Operation>(
        &self,
        role: Role,
        request: &O,
    ) -> Result<(O::Reply, OwnedFd), Failure> {
        let client = self.client(role).await?;
        let answer = client
            .call_with(self.trace, request, Vec::new(), ANSWER)
            .await;
        let (reply, descriptors) = answer.map_err(|error| explain(role, error))?;
        let descriptor = descriptors.into_iter().next();
        descriptor
            .map(|one| (reply, one))
            .ok_or_else(|| Failure::new(format!("{role} gave no descriptor")))
    }

    /// A client of a daemon that is there.
    pub(crate) async fn client(&self, role: Role) -> Result<Client, Failure> {
        let path = runtime::socket_path(&self.run_dir, role);
        // A tool says at once what a daemon would wait for.
        if let Err(error) = std::os::unix::net::UnixStream::connect(&path) {
            let advice = match error.kind() {
                std::io::ErrorKind::PermissionDenied => {
                    "run this as root, or as the user who runs the suite"
                }
                _ if !self.daemons.contains(&role) => {
                    "it is off: its section does not say `enabled = true`"
                }
                _ => "is it running? `posthouse up`, or its unit",
            };
            let text = format!(
                "{role} cannot be reached at {}: {error}: {advice}",
                path.display()
            );
            return Err(Failure::unreachable(text));
        }
        let new = || Client::new(Role::Posthouse, role, &path, ClientOptions::default());
        let client = self
            .clients
            .borrow_mut()
            .entry(role)
            .or_insert_with(new)
            .clone();
        if client.ready(CONNECT).await {
            return Ok(client);
        }
        let text = format!(
            "{role} refuses us at {}: another version, or another user (its log says which)",
            path.display()
        );
        Err(Failure::unreachable(text))
    }
}

/// Tells it as the operator needs it.
pub(crate) fn explain(role: Role, error: CallError) -> Failure {
    match error.fault() {
        Some(fault) if matches!(fault.kind, FaultKind::Temporary | FaultKind::Internal) => {
            Failure::new(format!("{role}: {}", fault.text))
        }
        Some(fault) => Failure::new(fault.text.clone()),
        None => Failure::unreachable(error.to_string()),
    }
}
