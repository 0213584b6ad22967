//! The operations for certd: keys of certificates, and the account key of the authority.

use crate::issued::Pending;
use crate::service::{Keys, blocking, bounded, lock, reading, writing};
use crate::{KeyError, now};
use ipc::Router;
use ipc::api::keyd::{
    AcmeKey, AcmePublicKey, AcmeSign, CertificateInstall, CertificateRemove, CertificateRequest,
    CertificateRequested, IssuedCertificate, IssuedCertificates,
};

/// A request to an authority: a certificate request is some kilobytes.
const REQUEST_MAX: usize = 64 * 1024;

impl Keys {
    /// The request for a certificate, with a key that is made if none waits for these names. Blocks.
    ///
    /// # Errors
    /// Bad names, the limit, the file system.
    pub fn certificate_request(
        &self,
        request: &CertificateRequest,
    ) -> Result<CertificateRequested, KeyError> {
        let (id, names, algorithm) = (&request.id, &request.names, request.algorithm);
        let limit = lock(&self.0.config).issued_certificates;
        let waiting = reading(&self.0.certificates)
            .issued
            .pending(id, names, algorithm, limit)?;
        if let Some(pending) = waiting {
            return pending.request();
        }
        // Without the lock: signatures go on meanwhile.
        let pending = Pending::make(id, names, algorithm)?;
        writing(&self.0.certificates).issued.keep(&pending)?;
        tracing::info!(id, names = names.join(" "), "key for a certificate made");
        pending.request()
    }

    /// Takes a chain, and tells the listeners. Blocks.
    ///
    /// # Errors
    /// No key waits for it, it does not fit, the file system.
    pub fn certificate_install(
        &self,
        request: &CertificateInstall,
        now: u64,
    ) -> Result<IssuedCertificate, KeyError> {
        let config = lock(&self.0.config).clone();
        let mut certificates = writing(&self.0.certificates);
        let installed = certificates
            .issued
            .install(&request.id, &request.chain, now)?;
        let changed = certificates.reload(&config, now)?;
        drop(certificates);
        tracing::info!(
            id = installed.id,
            expires = installed.expires,
            "certificate taken"
        );
        if changed {
            self.tell_watchers();
        }
        Ok(installed)
    }

    /// Forgets a certificate, and tells the listeners. Blocks.
    ///
    /// # Errors
    /// A bad name, the file system.
    pub fn certificate_remove(
        &self,
        request: &CertificateRemove,
        now: u64,
    ) -> Result<(), KeyError> {
        let config = lock(&self.0.config).clone();
        let mut certificates = writing(&self.0.certificates);
        certificates.issued.remove(&request.id)?;
        let changed = certificates.reload(&config, now)?;
        drop(certificates);
        tracing::info!(id = request.id, "certificate removed");
        if changed {
            self.tell_watchers();
        }
        Ok(())
    }

    /// The certificates that authorities made.
    pub fn issued_certificates(&self) -> Vec<IssuedCertificate> {
        reading(&self.0.certificates).issued.list()
    }

    /// The public half of an account key. Blocks.
    ///
    /// # Errors
    /// A bad address, the limit, the file system.
    pub fn acme_key(&self, request: &AcmeKey) -> Result<AcmePublicKey, KeyError> {
        self.0.accounts.public(&request.directory)
    }

    /// The operations for certd.
    pub(crate) fn issuing(&self, router: Router) -> Router {
        let keys = || self.clone();
        let (make, install, remove, list) = (keys(), keys(), keys(), keys());
        let (public, sign) = (keys(), keys());
        router
            .on(move |_, request: CertificateRequest| {
                let keys = make.clone();
                blocking(move || keys.certificate_request(&request))
            })
            .on(move |_, request: CertificateInstall| {
                let keys = install.clone();
                blocking(move || keys.certificate_install(&request, now()))
            })
            .on(move |_, request: CertificateRemove| {
                let keys = remove.clone();
                blocking(move || keys.certificate_remove(&request, now()))
            })
            .on(move |_, _: IssuedCertificates| {
                let keys = list.clone();
                async move { Ok(keys.issued_certificates()) }
            })
            .on(move |_, request: AcmeKey| {
                let keys = public.clone();
                blocking(move || keys.acme_key(&request))
            })
            .on(move |_, request: AcmeSign| {
                let keys = sign.clone();
                async move {
                    bounded(&request.data, REQUEST_MAX)?;
                    blocking(move || {
                        let (directory, data) = (&request.directory, &request.data);
                        keys.0.accounts.sign(directory, data)
                    })
                    .await
                    .map(Into::into)
                }
            })
    }
}
