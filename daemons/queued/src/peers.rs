//! The daemons that queued calls. A trait, so that the tests can be them.

use async_trait::async_trait;
use ipc::api::deliverd::{Deliver, Delivered};
use ipc::api::keyd::MacVerify;
use ipc::api::relayd::{Relay, Relayed};
use ipc::{Client, Fault};
use std::fs::File;
use std::time::Duration;
use types::{Grant, TraceId};

/// deliverd, relayd and keyd.
#[async_trait]
pub trait Peers: Send + Sync + 'static {
    /// Delivers here. `body` is the file of an attached body.
    async fn deliver(&self, call: &Deliver, body: Option<File>) -> Result<Delivered, Fault>;

    /// The same, with the files of posts to mailing lists, in the order of these.
    async fn deliver_posts(
        &self,
        call: &Deliver,
        body: Option<File>,
    ) -> Result<(Delivered, Vec<File>), Fault> {
        Ok((self.deliver(call, body).await?, Vec::new()))
    }

    /// Delivers to another host. A fault says nothing about whether it was done.
    async fn relay(&self, call: &Relay, body: Option<File>) -> Result<Relayed, Fault>;

    /// Whether a grant is genuine.
    async fn verify(&self, trace: TraceId, grant: &Grant) -> Result<bool, Fault>;
}

/// The real ones.
#[derive(Debug)]
pub struct Daemons {
    /// To deliverd.
    pub deliverd: Client,
    /// To relayd.
    pub relayd: Client,
    /// To keyd.
    pub keyd: Client,
    /// How long a delivery may take.
    pub deliver_timeout: Duration,
    /// How long an attempt at another host may take.
    pub relay_timeout: Duration,
}

#[async_trait]
impl Peers for Daemons {
    async fn deliver(&self, call: &Deliver, body: Option<File>) -> Result<Delivered, Fault> {
        Ok(self.deliver_posts(call, body).await?.0)
    }

    async fn deliver_posts(
        &self,
        call: &Deliver,
        body: Option<File>,
    ) -> Result<(Delivered, Vec<File>), Fault> {
        let descriptors = body.into_iter().map(Into::into).collect();
        let (reply, files) = self
            .deliverd
            .call_with(call.trace, call, descriptors, self.deliver_timeout)
            .await?;
        Ok((reply, files.into_iter().map(File::from).collect()))
    }

    async fn relay(&self, call: &Relay, body: Option<File>) -> Result<Relayed, Fault> {
        let descriptors = body.into_iter().map(Into::into).collect();
        let (reply, _) = self
            .relayd
            .call_with(call.trace, call, descriptors, self.relay_timeout)
            .await?;
        Ok(reply)
    }

    async fn verify(&self, trace: TraceId, grant: &Grant) -> Result<bool, Fault> {
        let call = MacVerify {
            purpose: Grant::PURPOSE.to_owned(),
            data: grant.sealed().into(),
            mac: grant.mac.clone(),
        };
        Ok(self.keyd.call(trace, &call).await?)
    }
}
