//! Whether a caller may do what it asks: grants, verified by keyd and remembered until they expire.

use ipc::api::keyd::MacVerify;
use ipc::{Client, Fault, FaultKind};
use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use types::{Grant, Rights, TraceId};

#[derive(Debug)]
pub(crate) struct Grants {
    keyd: Client,
    known: Mutex<HashSet<Grant>>,
    most: usize,
}

impl Grants {
    pub(crate) fn new(keyd: Client, most: usize) -> Self {
        Self {
            keyd,
            known: Mutex::default(),
            most: most.max(1),
        }
    }

    /// Passes a grant that is genuine, has the rights and has not expired at `now`.
    pub(crate) async fn check(
        &self,
        trace: TraceId,
        grant: &Grant,
        rights: Rights,
        now: u64,
    ) -> Result<(), Fault> {
        if grant.expires <= now {
            return Err(Fault::new(FaultKind::Denied, "the grant has expired"));
        }
        if !grant.rights.contains(rights) {
            return Err(Fault::new(
                FaultKind::Denied,
                "the grant does not give that right",
            ));
        }
        let known = |set: &Mutex<HashSet<Grant>>| {
            set.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .contains(grant)
        };
        if known(&self.known) {
            return Ok(());
        }
        let call = MacVerify {
            purpose: Grant::PURPOSE.to_owned(),
            data: grant.sealed().into(),
            mac: grant.mac.clone(),
        };
        let genuine = self.keyd.call(trace, &call).await.map_err(|error| {
            Fault::new(
                FaultKind::Temporary,
                format!("the grant cannot be verified: {error}"),
            )
        })?;
        if !genuine {
            return Err(Fault::new(FaultKind::Denied, "the grant is not genuine"));
        }
        let mut set = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if set.len() >= self.most {
            set.retain(|grant| grant.expires > now);
        }
        if set.len() >= self.most {
            set.clear();
        }
        set.insert(grant.clone());
        Ok(())
    }
}
