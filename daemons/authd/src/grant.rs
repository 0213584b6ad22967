//! Grants: what authd hands out at login, sealed by keyd.

use ipc::Fault;
use ipc::api::authd::Account;
use ipc::api::keyd::MacSign;
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use types::{AccountId, Grant, Membership, Octets, Rights, TraceId};

/// Seals octets.
pub(crate) type Seal = Box<
    dyn Fn(TraceId, Vec<u8>) -> Pin<Box<dyn Future<Output = Result<Octets, Fault>> + Send>>
        + Send
        + Sync,
>;

/// A seal by keyd, for one purpose.
pub(crate) fn by_keyd(keyd: ipc::Client, purpose: &'static str) -> Seal {
    Box::new(move |trace, data| {
        let keyd = keyd.clone();
        Box::pin(async move {
            let request = MacSign {
                purpose: purpose.to_owned(),
                data: data.into(),
            };
            Ok(keyd.call(trace, &request).await?)
        })
    })
}

type Key = (AccountId, Rights, u64, u64, Vec<Membership>);

/// Grants remembered at once.
const REMEMBERED: usize = 50_000;

/// Makes grants. One that is good for another half of its time is given again: clients which log in all the time cost
/// keyd, stored and queued nothing.
pub(crate) struct Grants {
    seal: Seal,
    seconds: u64,
    made: Mutex<HashMap<Key, Grant>>,
}

impl Grants {
    pub(crate) fn new(seal: Seal, seconds: u64) -> Self {
        Self {
            seal,
            seconds: seconds.max(60),
            made: Mutex::default(),
        }
    }

    /// A grant for an account.
    ///
    /// # Errors
    /// keyd cannot be reached.
    pub(crate) async fn give(
        &self,
        trace: TraceId,
        account: &Account,
        groups: &[Membership],
        rights: Rights,
        now: u64,
    ) -> Result<Grant, Fault> {
        let made = || self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (
            account.id,
            rights,
            account.quota_bytes,
            account.quota_messages,
            groups.to_vec(),
        );
        if let Some(grant) = made().get(&key)
            && grant.expires > now + self.seconds / 2
        {
            return Ok(grant.clone());
        }
        let mut grant = Grant {
            account: account.id,
            name: account.name.clone(),
            groups: groups.to_vec(),
            rights,
            expires: now + self.seconds,
            quota_bytes: account.quota_bytes,
            quota_messages: account.quota_messages,
            mac: Octets::default(),
        };
        grant.mac = (self.seal)(trace, grant.sealed()).await?;
        let mut made = made();
        if made.len() >= REMEMBERED {
            made.clear();
        }
        made.insert(key, grant.clone());
        Ok(grant)
    }
}
