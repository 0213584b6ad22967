//! What the operator may see while the work goes on.

use crate::config::{Config, Target};
use crate::now;
use crate::state::Progress;
use ipc::api::certd::{
    CertificateStatusReply, DkimRotationRow, OrderedCertificate, PersistentRecord,
};
use ipc::api::keyd::IssuedCertificate;
use runtime::metrics::Counter;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Shared by the worker, who writes, and the operations. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Board {
    shown: Arc<Mutex<CertificateStatusReply>>,
    rotations: Arc<Mutex<BTreeMap<String, Vec<DkimRotationRow>>>>,
    got: Counter,
    failed: Counter,
}

impl Board {
    pub(crate) fn new(got: Counter, failed: Counter) -> Self {
        Self {
            shown: Arc::default(),
            rotations: Arc::default(),
            got,
            failed,
        }
    }

    /// After the configuration was read.
    pub(crate) fn begin(&self, config: &Config, targets: &[Target]) {
        let mut shown = self.shown();
        shown.enabled = config.enabled;
        shown.directory.clone_from(&config.directory);
        shown
            .certificates
            .retain(|row| targets.iter().any(|target| target.id == row.id));
        for target in targets {
            if !shown.certificates.iter().any(|row| row.id == target.id) {
                shown.certificates.push(OrderedCertificate {
                    id: target.id.clone(),
                    names: target.names.clone(),
                    challenge: target.challenge.word().to_owned(),
                    state: "unknown".to_owned(),
                    ..OrderedCertificate::default()
                });
            }
        }
    }

    /// How the DKIM keys of a domain stand.
    pub(crate) fn rotation(&self, domain: &str, rows: Vec<DkimRotationRow>) {
        let mut rotations = self
            .rotations
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        rotations.insert(domain.to_owned(), rows);
    }

    pub(crate) fn rotations(&self) -> Vec<DkimRotationRow> {
        let rotations = self
            .rotations
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        rotations.values().flatten().cloned().collect()
    }

    pub(crate) fn account(&self, url: &str) {
        url.clone_into(&mut self.shown().account);
    }

    pub(crate) fn persistent(&self, records: Vec<PersistentRecord>) {
        self.shown().persistent = records;
    }

    pub(crate) fn ordering(&self, id: &str) {
        let mut shown = self.shown();
        if let Some(row) = shown.certificates.iter_mut().find(|row| row.id == id) {
            "ordering".clone_into(&mut row.state);
        }
    }

    /// How a certificate stands now.
    pub(crate) fn show(
        &self,
        target: &Target,
        current: Option<&IssuedCertificate>,
        progress: &Progress,
    ) -> OrderedCertificate {
        let state = match current {
            _ if progress.waits > 0 => "unpublished",
            _ if progress.failures > 0 => "failed",
            None => "none",
            Some(current) if current.expires <= now() => "due",
            Some(_) if progress.forced || progress.renew_at <= now() => "due",
            Some(_) => "good",
        };
        let row = OrderedCertificate {
            id: target.id.clone(),
            names: target.names.clone(),
            challenge: target.challenge.word().to_owned(),
            state: state.to_owned(),
            expires: current.map_or(0, |current| current.expires),
            renew_at: progress.renew_at,
            window: progress.window,
            failures: progress.failures,
            retry_at: progress.retry_at,
            trouble: progress.trouble.clone(),
        };
        let mut shown = self.shown();
        match shown.certificates.iter_mut().find(|one| one.id == row.id) {
            Some(old) => old.clone_from(&row),
            None => shown.certificates.push(row.clone()),
        }
        row
    }

    pub(crate) fn count(&self, well: bool) {
        if well {
            self.got.add_one();
        } else {
            self.failed.add_one();
        }
    }

    pub(crate) fn all(&self) -> CertificateStatusReply {
        self.shown().clone()
    }

    fn shown(&self) -> MutexGuard<'_, CertificateStatusReply> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
