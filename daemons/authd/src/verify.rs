//! Whether a password is right: application passwords first, then what was verified a moment ago, then the hash, of which
//! only a few are computed at once.

use crate::config::Config;
use crate::directory::{Credentials, Directory, NewSecret};
use crate::password::{self, Hash};
use crate::{scram, secret};
use ipc::{Fault, FaultKind};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use types::{AccountId, Rights};
use zeroize::Zeroizing;

/// Passwords known to be right at once.
const VERIFIED_MAX: usize = 20_000;

/// What fitted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fit {
    /// The account's own password.
    Account,
    /// The application password with this label and these rights.
    App(String, Rights),
    /// An access token.
    Token,
}

/// Verifies and makes hashes.
pub(crate) struct Verifier {
    directory: Directory,
    config: Arc<Config>,
    turns: Arc<Semaphore>,
    waiting: AtomicUsize,
    /// Known to this process only.
    key: [u8; 32],
    verified: Mutex<HashMap<[u8; 32], Instant>>,
    /// Of nobody's password: what unknown accounts are verified against, so that they take as long as others.
    nobody: String,
    /// Accounts whose hash is being replaced.
    improving: Arc<Mutex<HashSet<AccountId>>>,
}

impl Verifier {
    /// # Errors
    /// The parameters of the hash are impossible.
    pub(crate) fn new(directory: Directory, config: Arc<Config>) -> Result<Self, Fault> {
        let nobody = password::make(&secret::app_password()?, &config.hashing)
            .map_err(|error| Fault::new(FaultKind::Invalid, error.to_string()))?;
        Ok(Self {
            directory,
            turns: Arc::new(Semaphore::new(config.hashing.concurrent.max(1))),
            waiting: AtomicUsize::new(0),
            key: secret::random()?,
            verified: Mutex::default(),
            nobody,
            improving: Arc::default(),
            config,
        })
    }

    /// Stands for a name and a password that were tried.
    pub(crate) fn fingerprint(&self, user: &str, password: &str) -> u64 {
        let hash = secret::keyed(&self.key, &[b"tried", user.as_bytes(), password.as_bytes()]);
        hash.iter()
            .take(8)
            .fold(0, |number, octet| number << 8 | u64::from(*octet))
    }

    /// Whether a password is one of the account's.
    ///
    /// # Errors
    /// [`FaultKind::Busy`]: too many logins wait for their turn.
    pub(crate) async fn verify(
        &self,
        credentials: Option<&Arc<Credentials>>,
        typed: &str,
    ) -> Result<Option<Fit>, Fault> {
        if let Some(credentials) = credentials
            && let Some(fit) = app_fit(credentials, typed)
        {
            return Ok(Some(fit));
        }
        let hash = credentials.and_then(|credentials| credentials.hash.as_ref());
        let id = credentials.map_or(0, |credentials| credentials.account.id.0);
        let number = id.to_le_bytes();
        let known = hash.map(|hash| {
            let fields = [number.as_slice(), hash.as_bytes(), typed.as_bytes()];
            secret::keyed(&self.key, &fields)
        });
        if known.is_some_and(|known| self.is_verified(&known)) {
            return Ok(Some(Fit::Account));
        }
        let text = hash.unwrap_or(&self.nobody).clone();
        let plain = self.config.hashing.plain;
        let password = Zeroizing::new(typed.to_owned());
        let right = self
            .in_turn(move || match Hash::parse(&text, plain) {
                Ok(hash) => fits(&hash, &password),
                Err(error) => {
                    tracing::error!(%error, account = id, "a stored password cannot be used: set a new one");
                    false
                }
            })
            .await?;
        let (Some(credentials), Some(known), true) = (credentials, known, right) else {
            return Ok(None);
        };
        self.remember(known);
        self.improve(credentials, typed);
        Ok(Some(Fit::Account))
    }

    /// Hashes a new password, and makes its SCRAM keys.
    ///
    /// # Errors
    /// [`FaultKind::Busy`], and parameters that are impossible.
    pub(crate) async fn hash(
        &self,
        password: &str,
        salt: &[u8],
        iterations: u32,
    ) -> Result<NewSecret, Fault> {
        let (config, password, salt) = (
            Arc::clone(&self.config),
            Zeroizing::new(password.to_owned()),
            salt.to_vec(),
        );
        self.in_turn(move || new_secret(&config, &password, &salt, iterations))
            .await?
    }

    /// SCRAM keys, unless SCRAM is switched off.
    ///
    /// # Errors
    /// [`FaultKind::Busy`].
    pub(crate) async fn scram_keys(
        &self,
        password: &str,
        salt: &[u8],
        iterations: u32,
    ) -> Result<Option<scram::Keys>, Fault> {
        if !self.config.scram.enabled {
            return Ok(None);
        }
        let (password, salt) = (Zeroizing::new(password.to_owned()), salt.to_vec());
        self.in_turn(move || Some(scram::Keys::derive(&password, &salt, iterations)))
            .await
    }

    /// Runs costly work when it is its turn.
    async fn in_turn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Fault> {
        let _place = Place::take(&self.waiting, self.config.hashing.waiting)
            .ok_or_else(|| Fault::new(FaultKind::Busy, "too many logins at once"))?;
        let stopped = || Fault::new(FaultKind::Internal, "the work was not finished");
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        let turn = turn.map_err(|_| stopped())?;
        let work = move || {
            let done = work();
            drop(turn);
            done
        };
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|_| stopped())
    }

    fn is_verified(&self, known: &[u8; 32]) -> bool {
        let verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        verified
            .get(known)
            .is_some_and(|until| *until > Instant::now())
    }

    fn remember(&self, known: [u8; 32]) {
        if self.config.verified_seconds == 0 {
            return;
        }
        let now = Instant::now();
        let mut verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        if verified.len() >= VERIFIED_MAX {
            verified.retain(|_, until| *until > now);
            if verified.len() >= VERIFIED_MAX {
                verified.clear();
            }
        }
        verified.insert(
            known,
            now + Duration::from_secs(self.config.verified_seconds),
        );
    }

    /// Replaces a weak hash, and adds SCRAM keys, now that the password is known. The login does not wait for it.
    fn improve(&self, credentials: &Arc<Credentials>, typed: &str) {
        let Some(old) = credentials.hash.clone() else {
            return;
        };
        let weak = !password::is_current(&old, &self.config.hashing);
        let without = self.config.scram.enabled && credentials.scram.is_none();
        if !self.config.hashing.rehash || !(weak || without) {
            return;
        }
        let Some(prepared) = password::opaque(typed) else {
            return;
        };
        let id = credentials.account.id;
        let improving = Arc::clone(&self.improving);
        let begun = |set: &Mutex<HashSet<AccountId>>| {
            set.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(id)
        };
        if !begun(&improving) {
            return;
        }
        let prepared = Zeroizing::new(prepared.into_owned());
        let (directory, config) = (self.directory.clone(), Arc::clone(&self.config));
        let (turns, credentials) = (Arc::clone(&self.turns), Arc::clone(credentials));
        tokio::spawn(async move {
            let _done = Improving(improving, id);
            let Ok(turn) = turns.acquire_owned().await else {
                return;
            };
            let owner = Arc::clone(&credentials);
            let made = tokio::task::spawn_blocking(move || {
                let _turn = turn;
                new_secret(&config, &prepared, &owner.salt, owner.iterations)
            });
            match made.await {
                Ok(Ok(secret)) => match directory.rehash(id, &old, &secret).await {
                    Ok(()) => {
                        tracing::info!(account = credentials.account.name, "password hashed anew")
                    }
                    Err(error) => tracing::warn!(%error, "a password could not be hashed anew"),
                },
                Ok(Err(fault)) => tracing::warn!(%fault, "a password could not be hashed anew"),
                Err(_) => {}
            }
        });
    }
}

fn new_secret(
    config: &Config,
    password: &str,
    salt: &[u8],
    iterations: u32,
) -> Result<NewSecret, Fault> {
    let hash = password::make(password, &config.hashing)
        .map_err(|error| Fault::new(FaultKind::Invalid, error.to_string()))?;
    let scram = config
        .scram
        .enabled
        .then(|| scram::Keys::derive(&password::saslprep(password), salt, iterations));
    Ok(NewSecret { hash, scram })
}

/// As prepared, which is how we hash; then as typed, which is how others did.
fn fits(hash: &Hash<'_>, typed: &str) -> bool {
    let prepared = password::opaque(typed);
    if let Some(prepared) = &prepared
        && hash.verify(prepared)
    {
        return true;
    }
    prepared.as_deref() != Some(typed) && hash.verify(typed)
}

fn app_fit(credentials: &Credentials, typed: &str) -> Option<Fit> {
    if credentials.app_passwords.is_empty() {
        return None;
    }
    let letters = secret::app_letters(typed)?;
    let hash = secret::app_hash(credentials.account.id, &letters);
    credentials
        .app_passwords
        .iter()
        .find(|app| secret::same(&app.hash, &hash))
        .map(|app| Fit::App(app.label.clone(), app.rights))
}

/// Takes an account out of the set when its hash is replaced.
struct Improving(Arc<Mutex<HashSet<AccountId>>>, AccountId);

impl Drop for Improving {
    fn drop(&mut self) {
        let mut set = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        set.remove(&self.1);
    }
}

/// A place among those who wait.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(count: &'a AtomicUsize, limit: usize) -> Option<Self> {
        let before = count.fetch_add(1, Ordering::AcqRel);
        let place = Self(count);
        (before < limit.max(1)).then_some(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
