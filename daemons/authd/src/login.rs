//! Logins: SASL exchanges from their first message to the grant.

use crate::cache::Cache;
use crate::config::{Cleartext, Config};
use crate::directory::{Credentials, Directory};
use crate::exchange::Exchanges;
use crate::grant::{Grants, Seal};
use crate::oauth::Tokens;
use crate::sasl::{self, Clear};
use crate::scram::{Challenge, ClientFirst, Keys, ScramError};
use crate::throttle::Throttle;
use crate::verify::{Fit, Verifier};
use crate::{name, now, secret};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use ipc::api::authd::{
    Account, AuthClient, AuthContinue, AuthFailure, AuthReply, AuthStart, Block, Login, Service,
};
use ipc::{Fault, FaultKind};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use types::{AccountId, Grant, Octets, Rights, TraceId};
use zeroize::Zeroizing;

/// Where an exchange stands.
enum State {
    /// PLAIN: its message is awaited.
    Plain,
    /// LOGIN: the name is awaited.
    LoginName,
    /// LOGIN: the password is awaited.
    LoginPassword(String),
    /// OAUTHBEARER or XOAUTH2 (true): its message is awaited.
    Bearer(bool),
    /// A token was refused, and the client was told why: its empty answer is awaited (RFC 7628 3.2.3).
    Refused(u32),
    /// SCRAM: the first message is awaited; whether it is -PLUS.
    ScramFirst(bool),
    /// SCRAM: the proof is awaited.
    ScramProof(Box<Proof>),
}

struct Proof {
    challenge: Challenge,
    credentials: Option<Arc<Credentials>>,
    user: String,
    authzid: Option<String>,
}

struct Exchange {
    client: AuthClient,
    state: State,
}

/// Everything about logins.
pub(crate) struct Logins {
    directory: Directory,
    config: Arc<Config>,
    pub(crate) verifier: Verifier,
    grants: Grants,
    tokens: Option<Tokens>,
    throttle: Mutex<Throttle>,
    exchanges: Mutex<Exchanges<Exchange>>,
    credentials: Cache<Option<Arc<Credentials>>>,
    /// From this the salts of those come who are not there.
    site: [u8; 32],
    masters: Vec<String>,
    /// The hour up to which the use of an application password is noted.
    noted: Mutex<HashMap<(AccountId, String), u64>>,
}

/// Who asks, for one step.
#[derive(Clone, Copy)]
pub(crate) struct Caller {
    pub(crate) connection: u64,
    pub(crate) trace: TraceId,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn failure(reason: AuthFailure) -> AuthReply {
    AuthReply::Failure {
        reason,
        delay_ms: 0,
    }
}

/// What a service may do at most: a hijacked listener holds no more.
fn service_rights(service: Service) -> Rights {
    match service {
        Service::Submission => Rights::SUBMIT,
        Service::Imap | Service::Pop3 | Service::Sieve => Rights(Rights::READ.0 | Rights::WRITE.0),
    }
}

/// Application passwords whose use is remembered.
const NOTED_MAX: usize = 20_000;

/// Blocks read back at once.
pub(crate) const BLOCKS: u32 = 100_000;

impl Logins {
    /// # Errors
    /// The database cannot be read, or the settings of hashing are impossible.
    pub(crate) async fn open(
        directory: Directory,
        config: Arc<Config>,
        seal: Seal,
    ) -> Result<Self, Fault> {
        let stored = directory.secret("scram-salts", secret::random()?).await?;
        let verifier = Verifier::new(directory.clone(), Arc::clone(&config))?;
        let mut throttle = Throttle::new(config.blocking.clone());
        throttle.replace(directory.block_list(now(), BLOCKS).await?);
        let fresh = Duration::from_secs(config.cache_seconds);
        let generation = directory.generation().clone();
        let masters = config.master_users.iter();
        let masters = masters.filter_map(|user| name::login(user, &config.default_domain));
        Ok(Self {
            verifier,
            grants: Grants::new(seal, config.grant_seconds),
            tokens: Tokens::new(config.oauth.clone())?,
            throttle: Mutex::new(throttle),
            exchanges: Mutex::new(Exchanges::new(config.exchanges, config.exchange_seconds)),
            credentials: Cache::new(generation, config.cached.min(20_000), fresh, Duration::ZERO),
            site: secret::keyed(&[0; 32], &[&stored]),
            masters: masters.collect(),
            noted: Mutex::default(),
            directory,
            config,
        })
    }

    /// Exchanges under way.
    pub(crate) fn under_way(&self) -> usize {
        lock(&self.exchanges).len()
    }

    /// Forgets the exchanges of a connection that has ended.
    pub(crate) fn closed(&self, connection: u64) {
        lock(&self.exchanges).closed(connection);
    }

    /// Holds a block made by hand.
    pub(crate) fn block(&self, network: ipnet::IpNet, block: &Block) -> bool {
        lock(&self.throttle).add(network, block, now())
    }

    /// Lifts a block.
    pub(crate) fn unblock(&self, network: &ipnet::IpNet) {
        lock(&self.throttle).remove(network);
    }

    /// Takes over the blocks as other nodes have them, too.
    pub(crate) async fn refresh_blocks(&self) -> Result<(), Fault> {
        self.directory.block_expire(now()).await?;
        let blocks = self.directory.block_list(now(), BLOCKS).await?;
        lock(&self.throttle).replace(blocks);
        Ok(())
    }

    /// Begins an exchange.
    ///
    /// # Errors
    /// The database or keyd cannot be reached, or too many exchanges are under way.
    pub(crate) async fn start(
        &self,
        caller: Caller,
        request: AuthStart,
    ) -> Result<AuthReply, Fault> {
        let AuthStart {
            mechanism,
            initial,
            client,
        } = request;
        if let Some(reason) = lock(&self.throttle).blocked(client.address, now()) {
            tracing::debug!(address = %client.address, reason, "login refused: blocked");
            return Ok(failure(AuthFailure::Blocked));
        }
        let state = match mechanism.as_str() {
            "PLAIN" | "LOGIN" if !self.may_be_clear(&client) => {
                return Ok(failure(AuthFailure::NeedsTls));
            }
            "PLAIN" => State::Plain,
            "LOGIN" => State::LoginName,
            "OAUTHBEARER" | "XOAUTH2" if self.tokens.is_some() => {
                if !self.may_be_clear(&client) {
                    return Ok(failure(AuthFailure::NeedsTls));
                }
                State::Bearer(mechanism == "XOAUTH2")
            }
            "SCRAM-SHA-256" if self.config.scram.enabled => State::ScramFirst(false),
            "SCRAM-SHA-256-PLUS" if self.config.scram.enabled => State::ScramFirst(true),
            _ => return Ok(failure(AuthFailure::Mechanism)),
        };
        let exchange = Exchange { client, state };
        match initial {
            Some(response) => self.step(caller, exchange, &response).await,
            None => {
                let prompt: &[u8] = match exchange.state {
                    State::LoginName => b"Username:",
                    _ => b"",
                };
                self.challenge(caller, exchange, prompt)
            }
        }
    }

    /// Goes on with an exchange.
    ///
    /// # Errors
    /// As for [`Logins::start`].
    pub(crate) async fn proceed(
        &self,
        caller: Caller,
        request: &AuthContinue,
    ) -> Result<AuthReply, Fault> {
        let found = lock(&self.exchanges).take(request.exchange, caller.connection, now());
        match found {
            Some(exchange) => self.step(caller, exchange, &request.response).await,
            None => Ok(failure(AuthFailure::Malformed)),
        }
    }

    fn may_be_clear(&self, client: &AuthClient) -> bool {
        client.tls
            || match self.config.cleartext {
                Cleartext::Never => false,
                Cleartext::Loopback => client.address.to_canonical().is_loopback(),
                Cleartext::Always => true,
            }
    }

    /// Remembers where the exchange stands, and asks the client.
    fn challenge(
        &self,
        caller: Caller,
        exchange: Exchange,
        data: &[u8],
    ) -> Result<AuthReply, Fault> {
        // Not to be guessed, although only its own connection may go on with it.
        let number = u64::from_le_bytes(secret::random()?);
        if lock(&self.exchanges).add(number, caller.connection, exchange, now()) {
            return Ok(AuthReply::Challenge {
                exchange: number,
                data: data.into(),
            });
        }
        Err(Fault::new(FaultKind::Busy, "too many logins at once"))
    }

    async fn step(
        &self,
        caller: Caller,
        exchange: Exchange,
        response: &[u8],
    ) -> Result<AuthReply, Fault> {
        let Exchange { client, state } = exchange;
        let max = self.config.password_max;
        match state {
            State::Plain => match sasl::plain(response, max) {
                Some(clear) => self.password(caller, &client, clear).await,
                None => Ok(failure(AuthFailure::Malformed)),
            },
            State::LoginName => match sasl::login_name(response) {
                Some(user) => {
                    let state = State::LoginPassword(user);
                    self.challenge(caller, Exchange { client, state }, b"Password:")
                }
                None => Ok(failure(AuthFailure::Malformed)),
            },
            State::LoginPassword(user) => match sasl::login_password(response, max) {
                Some(password) => {
                    let clear = Clear {
                        authzid: None,
                        user,
                        password,
                    };
                    self.password(caller, &client, clear).await
                }
                None => Ok(failure(AuthFailure::Malformed)),
            },
            State::Bearer(xoauth2) => self.bearer(caller, client, xoauth2, response).await,
            State::Refused(delay_ms) => Ok(AuthReply::Failure {
                reason: AuthFailure::Credentials,
                delay_ms,
            }),
            State::ScramFirst(plus) => self.scram_first(caller, client, plus, response).await,
            State::ScramProof(proof) => self.scram_proof(caller, &client, *proof, response).await,
        }
    }

    /// PLAIN and LOGIN.
    async fn password(
        &self,
        caller: Caller,
        client: &AuthClient,
        clear: Clear,
    ) -> Result<AuthReply, Fault> {
        let Clear {
            authzid,
            user,
            password,
        } = clear;
        let password: Zeroizing<String> = password;
        let credentials = self.find(&user).await?;
        let fit = self
            .verifier
            .verify(credentials.as_ref(), &password)
            .await?;
        let (Some(credentials), Some(fit)) = (credentials, fit) else {
            let fingerprint = self.verifier.fingerprint(&user, &password);
            return Ok(self.wrong(client, &user, Some(fingerprint)));
        };
        self.admit(caller, client, &credentials, &fit, authzid.as_deref(), None)
            .await
    }

    /// OAUTHBEARER and XOAUTH2.
    async fn bearer(
        &self,
        caller: Caller,
        client: AuthClient,
        xoauth2: bool,
        response: &[u8],
    ) -> Result<AuthReply, Fault> {
        let read = if xoauth2 {
            sasl::xoauth2(response)
        } else {
            sasl::oauthbearer(response)
        };
        let (Some(bearer), Some(tokens)) = (read, &self.tokens) else {
            return Ok(failure(AuthFailure::Malformed));
        };
        let named = tokens.name(&bearer.token).await?;
        let credentials = match &named {
            Some(name) => self.find(name).await?,
            None => None,
        };
        if let Some(credentials) = credentials {
            let wanted = bearer.user.as_deref();
            return self
                .admit(caller, &client, &credentials, &Fit::Token, wanted, None)
                .await;
        }
        let user = named.or(bearer.user).unwrap_or_default();
        let fingerprint = self.verifier.fingerprint(&user, &bearer.token);
        let AuthReply::Failure { delay_ms, .. } = self.wrong(&client, &user, Some(fingerprint))
        else {
            return Ok(failure(AuthFailure::Credentials));
        };
        let refusal = tokens.refusal();
        let state = State::Refused(delay_ms);
        self.challenge(caller, Exchange { client, state }, refusal.as_bytes())
    }

    async fn scram_first(
        &self,
        caller: Caller,
        client: AuthClient,
        plus: bool,
        response: &[u8],
    ) -> Result<AuthReply, Fault> {
        let first = match ClientFirst::parse(response, plus, &client.bindings) {
            Ok(first) => first,
            Err(error) => return Ok(self.scram_refused(&client, "", error)),
        };
        let (user, authzid) = (first.user.clone(), first.authzid.clone());
        let credentials = self.find(&user).await?;
        let usable = credentials.as_ref().filter(|credentials| {
            credentials.scram.is_some()
                || credentials
                    .app_passwords
                    .iter()
                    .any(|app| app.scram.is_some())
        });
        let (salt, iterations) = match usable {
            Some(credentials) => (credentials.salt.clone(), credentials.iterations),
            // Whether somebody is there must not show: the same salt each time, also after a restart.
            None => (self.invented_salt(&user), self.config.scram.iterations),
        };
        let nonce = BASE64.encode(secret::random::<18>()?);
        let (challenge, message) = Challenge::new(first, &salt, iterations, &nonce);
        let proof = Proof {
            challenge,
            credentials,
            user,
            authzid,
        };
        let state = State::ScramProof(Box::new(proof));
        self.challenge(caller, Exchange { client, state }, &message)
    }

    async fn scram_proof(
        &self,
        caller: Caller,
        client: &AuthClient,
        proof: Proof,
        response: &[u8],
    ) -> Result<AuthReply, Fault> {
        let (keys, fits) = scram_keys(proof.credentials.as_deref());
        let (place, last) = match proof.challenge.finish(response, keys.iter()) {
            Ok(fitting) => fitting,
            Err(error) => return Ok(self.scram_refused(client, &proof.user, error)),
        };
        let (Some(credentials), Some(fit)) = (&proof.credentials, fits.get(place)) else {
            return Ok(self.wrong(client, &proof.user, None));
        };
        let authzid = proof.authzid.as_deref();
        self.admit(caller, client, credentials, fit, authzid, Some(last.into()))
            .await
    }

    fn scram_refused(&self, client: &AuthClient, user: &str, error: ScramError) -> AuthReply {
        match error {
            ScramError::Proof => self.wrong(client, user, None),
            ScramError::Binding => {
                tracing::warn!(address = %client.address, %error, "SCRAM refused");
                failure(AuthFailure::Malformed)
            }
            ScramError::Malformed | ScramError::Extension => failure(AuthFailure::Malformed),
        }
    }

    fn invented_salt(&self, user: &str) -> Vec<u8> {
        let key = name::login(user, &self.config.default_domain);
        let key = key.unwrap_or_else(|| user.to_owned());
        let hash = secret::keyed(&self.site, &[b"salt", key.as_bytes()]);
        hash.iter().take(16).copied().collect()
    }

    /// The credentials of a login name.
    async fn find(&self, user: &str) -> Result<Option<Arc<Credentials>>, Fault> {
        let Some(key) = name::login(user, &self.config.default_domain) else {
            return Ok(None);
        };
        if let Some(found) = self.credentials.get(&key) {
            return Ok(found);
        }
        let generation = self.directory.generation().current();
        let found = self.directory.credentials(&key).await?.map(Arc::new);
        self.credentials.put(key, found.clone(), generation);
        Ok(found)
    }

    /// After a right password: as whom, for what, with which rights.
    async fn admit(
        &self,
        caller: Caller,
        client: &AuthClient,
        owner: &Arc<Credentials>,
        fit: &Fit,
        authzid: Option<&str>,
        data: Option<Octets>,
    ) -> Result<AuthReply, Fault> {
        lock(&self.throttle).succeeded(client.address);
        let Some(who) = self.acts_as(owner, fit, authzid).await? else {
            tracing::warn!(account = owner.account.name, address = %client.address, "may not log in as another");
            return Ok(failure(AuthFailure::Credentials));
        };
        let mut rights = who.account.rights.0 & service_rights(client.service).0;
        if let Fit::App(label, limited) = fit {
            rights &= limited.0;
            self.used(owner, label);
        }
        if !owner.enabled || !who.enabled || rights == 0 {
            tracing::info!(account = who.account.name, service = ?client.service, address = %client.address,
                "login refused: disabled, or without the right");
            return Ok(failure(AuthFailure::Disabled));
        }
        let grant = self
            .grants
            .give(
                caller.trace,
                &who.account,
                &who.groups,
                Rights(rights),
                now(),
            )
            .await?;
        tracing::info!(account = who.account.name, service = ?client.service, address = %client.address,
            tls = client.tls, trace = %caller.trace, "login");
        let login = Login {
            name: who.account.name.clone(),
            grant,
        };
        Ok(AuthReply::Success { login, data })
    }

    /// A grant for the operator's tool.
    ///
    /// # Errors
    /// NotFound; the database or keyd cannot be reached.
    pub(crate) async fn operator_grant(
        &self,
        caller: Caller,
        account: &str,
    ) -> Result<Grant, Fault> {
        let rights = Rights(Rights::READ.0 | Rights::WRITE.0);
        if let Some(found) = self.find(account).await? {
            tracing::info!(account = found.account.name, trace = %caller.trace, "grant for the operator");
            return self
                .grants
                .give(caller.trace, &found.account, &found.groups, rights, now())
                .await;
        }
        let unknown = || {
            Fault::new(
                FaultKind::NotFound,
                format!("there is no account or shared group {account}"),
            )
        };
        let key = name::login(account, &self.config.default_domain).ok_or_else(unknown)?;
        let group = self
            .directory
            .shared_group(&key)
            .await?
            .ok_or_else(unknown)?;
        tracing::info!(group = group.name, trace = %caller.trace, "grant for the operator");
        let owner = Account {
            id: group.account,
            name: group.name,
            display_name: String::new(),
            enabled: true,
            quota_bytes: 0,
            quota_messages: 0,
            rights,
            has_password: false,
        };
        self.grants
            .give(caller.trace, &owner, &[], rights, now())
            .await
    }

    /// An identifier of access control lists (RFC 4314 3) as it is to be written, in lower case.
    ///
    /// # Errors
    /// The database cannot be reached.
    pub(crate) async fn identifier(&self, identifier: &str) -> Result<Option<String>, Fault> {
        let (group, address) = match identifier.strip_prefix("group=") {
            Some(address) => (true, address),
            None => (false, identifier),
        };
        let Some(key) = name::login(address, &self.config.default_domain) else {
            return Ok(None);
        };
        let shown = self.directory.shown(&key, group).await?;
        Ok(shown.map(|shown| {
            let prefix = if group { "group=" } else { "" };
            format!("{prefix}{}", shown.to_lowercase())
        }))
    }

    /// Oneself, or another for those who may (RFC 4616 2, RFC 5801 4).
    async fn acts_as(
        &self,
        owner: &Arc<Credentials>,
        fit: &Fit,
        authzid: Option<&str>,
    ) -> Result<Option<Arc<Credentials>>, Fault> {
        let Some(authzid) = authzid else {
            return Ok(Some(Arc::clone(owner)));
        };
        let own = name::login(&owner.account.name, "");
        let wanted = name::login(authzid, &self.config.default_domain);
        if wanted == own {
            return Ok(Some(Arc::clone(owner)));
        }
        let master = own.is_some_and(|own| self.masters.contains(&own));
        if !master || *fit != Fit::Account {
            return Ok(None);
        }
        self.find(authzid).await
    }

    /// Notes that an application password was used, to the hour.
    fn used(&self, owner: &Arc<Credentials>, label: &str) {
        let hour = now() / 3600 * 3600;
        let app = owner.app_passwords.iter().find(|app| app.label == label);
        if app.is_none_or(|app| app.last_used.is_some_and(|last| last >= hour)) {
            return;
        }
        let mut noted = lock(&self.noted);
        if noted.len() >= NOTED_MAX {
            noted.clear();
        }
        if noted.insert((owner.account.id, label.to_owned()), hour) == Some(hour) {
            return;
        }
        drop(noted);
        let (directory, id, label) = (self.directory.clone(), owner.account.id, label.to_owned());
        tokio::spawn(async move {
            if let Err(error) = directory.app_password_used(id, &label, hour).await {
                tracing::warn!(%error, "the use of an application password is not noted");
            }
        });
    }

    /// Counts a failure, and blocks where it is too much.
    fn wrong(&self, client: &AuthClient, user: &str, fingerprint: Option<u64>) -> AuthReply {
        let penalty = lock(&self.throttle).failed(client.address, fingerprint, now());
        // Only what looks like an address is logged: people type passwords into the wrong field.
        let user = name::login(user, &self.config.default_domain).unwrap_or_default();
        tracing::info!(user, address = %client.address, service = ?client.service, "login failed");
        for block in penalty.blocks {
            tracing::warn!(network = block.network, reason = block.reason, "blocked");
            let directory = self.directory.clone();
            tokio::spawn(async move {
                if let Err(error) = directory.block_put(&block).await {
                    tracing::error!(%error, "a block holds only until the next restart");
                }
            });
        }
        AuthReply::Failure {
            reason: AuthFailure::Credentials,
            delay_ms: penalty.delay_ms,
        }
    }
}

/// All keys against which a proof may fit, and what each of them stands for. Never empty, so that those who are not there
/// take as long as others.
fn scram_keys(credentials: Option<&Credentials>) -> (Vec<Keys>, Vec<Fit>) {
    let mut keys = Vec::new();
    let mut fits = Vec::new();
    if let Some(credentials) = credentials {
        let with = |pair: ([u8; 32], [u8; 32])| Keys {
            salt: Vec::new(),
            iterations: credentials.iterations,
            stored: pair.0,
            server: pair.1,
        };
        if let Some(pair) = credentials.scram {
            keys.push(with(pair));
            fits.push(Fit::Account);
        }
        for app in &credentials.app_passwords {
            if let Some(pair) = app.scram {
                keys.push(with(pair));
                fits.push(Fit::App(app.label.clone(), app.rights));
            }
        }
    }
    if keys.is_empty() {
        keys.push(Keys {
            salt: Vec::new(),
            iterations: 1,
            stored: [0; 32],
            server: [0; 32],
        });
    }
    (keys, fits)
}
