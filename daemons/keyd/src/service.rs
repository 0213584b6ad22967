//! The operations, on the keys that are held.

use crate::acme::AccountKeys;
use crate::certificate::{self, CertificateStore};
use crate::dkim::{DkimStore, Fresh};
use crate::token::TokenKey;
use crate::{Config, KeyError, state_file};
use ipc::api::keyd::{
    Certificate, CertificatesChanged, DkimCreate, DkimKey, DkimKeys, DkimMark, DkimRemove,
    DkimSign, ListCertificates, MacSign, MacVerify, TlsSign, WatchCertificates,
};
use ipc::{Connection, Fault, FaultKind, Router};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// A TLS transcript is 64 blanks, a line and a hash (RFC 8446 4.4.3), or the key exchange's parameters in TLS 1.2.
const TRANSCRIPT_MAX: usize = 16 * 1024;
/// The header fields of one message.
const DKIM_MAX: usize = 96 * 1024;
const SEALED_MAX: usize = 4 * 1024;
/// Keys in one answer: a frame has 128 KiB, and an RSA record 450 octets.
const LISTED_MAX: usize = 200;

pub(crate) struct Inner {
    token: TokenKey,
    pub(crate) certificates: RwLock<CertificateStore>,
    pub(crate) accounts: AccountKeys,
    dkim: RwLock<DkimStore>,
    pub(crate) config: Mutex<Config>,
    watchers: Mutex<Vec<Connection>>,
}

/// All keys, and what may be asked of them. Cheap to clone.
#[derive(Clone)]
pub struct Keys(pub(crate) Arc<Inner>);

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("keys")
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn reading<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn writing<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn bounded(octets: &[u8], limit: usize) -> Result<(), Fault> {
    if octets.len() <= limit {
        return Ok(());
    }
    Err(Fault::new(
        FaultKind::Invalid,
        format!("more than {limit} octets"),
    ))
}

impl Keys {
    /// Opens the state directory; makes in it what is missing. `host` is the name for which a certificate is made; `now` is in
    /// seconds since 1970.
    ///
    /// # Errors
    /// The directory cannot be used, or the token key is damaged.
    pub fn open(state: &Path, host: &str, config: Config, now: u64) -> Result<Self, KeyError> {
        state_file::make_directory(state)?;
        Ok(Self(Arc::new(Inner {
            token: TokenKey::open(state)?,
            certificates: RwLock::new(CertificateStore::open(state, host, &config, now)?),
            accounts: AccountKeys::open(state)?,
            dkim: RwLock::new(DkimStore::open(state, config.dkim_keys)?),
            config: Mutex::new(config),
            watchers: Mutex::default(),
        })))
    }

    /// Reads certificates and DKIM keys again, by a new configuration if one is given, and renews a self-made certificate in time.
    /// Blocks on files.
    pub fn reload(&self, config: Option<Config>, now: u64) {
        let mut current = lock(&self.0.config);
        if let Some(config) = config {
            *current = config;
        }
        match writing(&self.0.certificates).reload(&current, now) {
            Ok(false) => {}
            Ok(true) => self.tell_watchers(),
            Err(error) => tracing::error!(%error, "the certificates stay as they were"),
        }
        if let Err(error) = writing(&self.0.dkim).reload() {
            tracing::error!(%error, "the DKIM keys stay as they were");
        }
    }

    /// The listeners ask again then.
    pub(crate) fn tell_watchers(&self) {
        tracing::info!("the certificates have changed");
        lock(&self.0.watchers).retain(|watcher| watcher.notify(&CertificatesChanged));
    }

    /// The certificates; the first is the default.
    pub fn certificates(&self) -> Vec<Certificate> {
        reading(&self.0.certificates).list()
    }

    /// Signs a TLS handshake.
    ///
    /// # Errors
    /// No such key, or a scheme that it cannot make.
    pub fn tls_sign(&self, request: &TlsSign) -> Result<Vec<u8>, Fault> {
        bounded(&request.message, TRANSCRIPT_MAX)?;
        let key = reading(&self.0.certificates).key(request.key);
        let key = key.ok_or(KeyError::NotFound)?;
        Ok(certificate::sign(
            key.as_ref(),
            request.scheme,
            &request.message,
        )?)
    }

    /// The DKIM keys of a domain; of all domains if it is empty.
    pub fn dkim_keys(&self, domain: &str) -> Vec<DkimKey> {
        reading(&self.0.dkim).list(domain)
    }

    /// Signs with a DKIM key.
    ///
    /// # Errors
    /// No such key, or too many octets.
    pub fn dkim_sign(&self, request: &DkimSign) -> Result<Vec<u8>, Fault> {
        bounded(&request.data, DKIM_MAX)?;
        let key = reading(&self.0.dkim).get(&request.domain, &request.selector);
        Ok(key.ok_or(KeyError::NotFound)?.sign(&request.data)?)
    }

    /// Makes a DKIM key. Blocks: RSA keys take some 100 ms.
    ///
    /// # Errors
    /// Bad names, a selector that is taken, the limit, the file system.
    pub fn dkim_create(&self, request: &DkimCreate) -> Result<DkimKey, KeyError> {
        let (domain, selector) = (&request.domain, &request.selector);
        let (domain, selector) = reading(&self.0.dkim).vacancy(domain, selector)?;
        // Without the lock: signatures go on meanwhile.
        let fresh = Fresh::generate(&domain, &selector, request.algorithm)?;
        let key = writing(&self.0.dkim).keep(fresh, request.state)?;
        tracing::info!(
            domain = key.domain,
            selector = key.selector,
            "DKIM key made"
        );
        Ok(key)
    }

    /// Moves a DKIM key to another state. Blocks.
    ///
    /// # Errors
    /// Bad names, no such key, the file system.
    pub fn dkim_mark(&self, request: &DkimMark) -> Result<DkimKey, KeyError> {
        let (domain, selector) = (&request.domain, &request.selector);
        let key = writing(&self.0.dkim).mark(domain, selector, request.state)?;
        tracing::info!(
            domain = key.domain,
            selector = key.selector,
            state = ?key.state,
            "DKIM key marked"
        );
        Ok(key)
    }

    /// Removes a DKIM key for good. Blocks.
    ///
    /// # Errors
    /// Bad names, the file system.
    pub fn dkim_remove(&self, request: &DkimRemove) -> Result<(), KeyError> {
        writing(&self.0.dkim).remove(&request.domain, &request.selector)?;
        tracing::info!(
            domain = request.domain,
            selector = request.selector,
            "DKIM key removed"
        );
        Ok(())
    }

    /// The router that answers all operations.
    pub fn router(&self, router: Router) -> Router {
        let keys = || self.clone();
        let (list, tls, watch) = (keys(), keys(), keys());
        let (dkim_list, create, remove, sign) = (keys(), keys(), keys(), keys());
        let mark = keys();
        let (seal, verify) = (keys(), keys());
        self.issuing(router)
            .on(move |_, _: ListCertificates| {
                let keys = list.clone();
                async move { Ok(keys.certificates()) }
            })
            .on(move |_, request: TlsSign| {
                let keys = tls.clone();
                async move { keys.tls_sign(&request).map(Into::into) }
            })
            .on(move |context, _: WatchCertificates| {
                let mut watchers = lock(&watch.0.watchers);
                watchers.retain(|w| w.is_open() && w.id() != context.connection.id());
                watchers.push(context.connection);
                async { Ok(()) }
            })
            .on(move |_, request: DkimKeys| {
                let keys = dkim_list.clone();
                async move {
                    let mut list = keys.dkim_keys(&request.domain);
                    list.truncate(LISTED_MAX);
                    Ok(list)
                }
            })
            .on(move |_, request: DkimCreate| {
                let keys = create.clone();
                blocking(move || keys.dkim_create(&request))
            })
            .on(move |_, request: DkimMark| {
                let keys = mark.clone();
                blocking(move || keys.dkim_mark(&request))
            })
            .on(move |_, request: DkimRemove| {
                let keys = remove.clone();
                blocking(move || keys.dkim_remove(&request))
            })
            .on(move |_, request: DkimSign| {
                let keys = sign.clone();
                async move { keys.dkim_sign(&request).map(Into::into) }
            })
            .on(move |_, request: MacSign| {
                let keys = seal.clone();
                async move {
                    bounded(&request.data, SEALED_MAX)?;
                    Ok(keys.0.token.seal(&request.purpose, &request.data).into())
                }
            })
            .on(move |_, request: MacVerify| {
                let keys = verify.clone();
                async move {
                    bounded(&request.data, SEALED_MAX)?;
                    let token = &keys.0.token;
                    Ok(token.verify(&request.purpose, &request.data, &request.mac))
                }
            })
    }
}

pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, KeyError> + Send + 'static,
) -> Result<T, Fault> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(Fault::new(FaultKind::Internal, "the work was not finished")),
    }
}
