//! Who may send to other hosts. An open relay must not be one mistake in a listener away.

use crate::peers::Peers;
use ipc::api::queued::{Commit, Right};
use ipc::{Fault, FaultKind};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use types::{Grant, Network, Rights, Role, Route, TraceId};

/// Grants remembered at most.
const REMEMBERED: usize = 4096;

/// What a right is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Allowed {
    /// To other hosts.
    pub(crate) relay: bool,
    /// With our signature.
    pub(crate) sign: bool,
}

/// Checks rights.
#[derive(Debug)]
pub(crate) struct Gate {
    networks: Vec<Network>,
    /// Genuine grants, until they expire.
    grants: Mutex<HashMap<Grant, u64>>,
}

impl Gate {
    pub(crate) fn new(networks: Vec<Network>) -> Self {
        Self {
            networks,
            grants: Mutex::default(),
        }
    }

    /// What the message may do. Denied if it wants more. `now` is in seconds since 1970.
    pub(crate) async fn check(
        &self,
        peers: &dyn Peers,
        caller: Role,
        call: &Commit,
        now: u64,
    ) -> Result<Allowed, Fault> {
        let allowed = match &call.origin.right {
            Right::Incoming => Allowed {
                relay: false,
                sign: false,
            },
            Right::Submission(grant) => {
                self.verify(peers, call.trace, grant, now).await?;
                Allowed {
                    relay: true,
                    sign: true,
                }
            }
            Right::Network(address) => {
                if !self
                    .networks
                    .iter()
                    .any(|network| network.contains(*address))
                {
                    return Err(Fault::new(
                        FaultKind::Denied,
                        format!("{address} is in none of queued.relay_networks"),
                    ));
                }
                Allowed {
                    relay: true,
                    sign: true,
                }
            }
            Right::Operator if caller == Role::Posthouse => Allowed {
                relay: true,
                sign: true,
            },
            Right::Operator => {
                return Err(Fault::new(
                    FaultKind::Denied,
                    format!("{caller} is not the operator's tool"),
                ));
            }
        };
        let remote = call
            .envelope
            .recipients
            .iter()
            .any(|recipient| recipient.route == Route::Remote);
        if remote && !allowed.relay {
            return Err(Fault::new(
                FaultKind::Denied,
                "no right to send to other hosts",
            ));
        }
        Ok(allowed)
    }

    async fn verify(
        &self,
        peers: &dyn Peers,
        trace: TraceId,
        grant: &Grant,
        now: u64,
    ) -> Result<(), Fault> {
        if grant.expires <= now {
            return Err(Fault::new(FaultKind::Denied, "the grant has expired"));
        }
        if !grant.rights.contains(Rights::SUBMIT) {
            return Err(Fault::new(FaultKind::Denied, "the account may not submit"));
        }
        let known = self
            .grants
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains_key(grant);
        if known {
            return Ok(());
        }
        if !peers.verify(trace, grant).await? {
            tracing::warn!(account = %grant.account, "a grant with a wrong seal");
            return Err(Fault::new(FaultKind::Denied, "the grant is not genuine"));
        }
        let mut grants = self.grants.lock().unwrap_or_else(PoisonError::into_inner);
        if grants.len() >= REMEMBERED {
            grants.retain(|_, expires| *expires > now);
            if grants.len() >= REMEMBERED {
                grants.clear();
            }
        }
        grants.insert(grant.clone(), grant.expires);
        Ok(())
    }
}
