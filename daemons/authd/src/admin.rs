//! What an operator does: accounts, application passwords, blocks.

use crate::config::Config;
use crate::directory::{Directory, DirectoryError, NewSecret};
use crate::login::Logins;
use crate::password::{self, Hash};
use crate::{name, now, secret, throttle};
use ipc::Fault;
use ipc::api::authd::{
    Account, AccountPut, AppPassword, AppPasswordAdd, Block, NewAppPassword, NewPassword, PutMode,
};
use std::sync::Arc;

/// Administration.
pub(crate) struct Admin {
    pub(crate) directory: Directory,
    pub(crate) config: Arc<Config>,
    pub(crate) logins: Arc<Logins>,
}

impl Admin {
    /// Makes or changes an account.
    ///
    /// # Errors
    /// Bad names and passwords, conflicts, the database.
    pub(crate) async fn account_put(&self, request: AccountPut) -> Result<Account, Fault> {
        let AccountPut {
            mode,
            account,
            password,
        } = request;
        let (mut salt, mut iterations) = self.salt(mode, &account.name).await?;
        let secret = match password {
            None => None,
            Some(NewPassword::Clear(clear)) => {
                Some(self.new_secret(&clear, &salt, iterations).await?)
            }
            Some(NewPassword::Hash(hash)) => {
                let parsed = Hash::parse(&hash, self.config.hashing.plain);
                let scram = match parsed.map_err(DirectoryError::from)? {
                    // A new account can go on with the salt of the old one.
                    Hash::Scram(keys) if mode == PutMode::Create && self.config.scram.enabled => {
                        (salt, iterations) = (keys.salt.clone(), keys.iterations);
                        Some(keys)
                    }
                    _ => None,
                };
                Some(NewSecret { hash, scram })
            }
        };
        Ok(self
            .directory
            .account_put(mode, &account, secret, &salt, iterations)
            .await?)
    }

    async fn salt(&self, mode: PutMode, account: &str) -> Result<(Vec<u8>, u32), Fault> {
        if mode == PutMode::Update {
            let known = self.directory.scram_salt(account).await?;
            let missing = || DirectoryError::NotFound(format!("the account {account}"));
            return Ok(known.ok_or_else(missing)?);
        }
        let iterations = self.config.scram.iterations.clamp(4096, 1_000_000);
        Ok((secret::random::<16>()?.to_vec(), iterations))
    }

    async fn new_secret(
        &self,
        clear: &str,
        salt: &[u8],
        iterations: u32,
    ) -> Result<NewSecret, Fault> {
        let prepared = password::opaque(clear).ok_or_else(|| {
            DirectoryError::Invalid(
                "a password is not empty and has no control characters".to_owned(),
            )
        })?;
        let (min, max) = (self.config.password_min, self.config.password_max);
        if prepared.chars().count() < min || prepared.len() > max {
            return Err(DirectoryError::Invalid(format!(
                "a password has at least {min} characters and at most {max} octets"
            ))
            .into());
        }
        self.logins.verifier.hash(&prepared, salt, iterations).await
    }

    /// Makes an application password.
    ///
    /// # Errors
    /// Bad names, conflicts, the limit, the database.
    pub(crate) async fn app_password_add(
        &self,
        request: AppPasswordAdd,
    ) -> Result<NewAppPassword, Fault> {
        let account = &request.account;
        let known = self
            .directory
            .account_list(Some(account), None, None, 1)
            .await?;
        let (Some(known), Some((salt, iterations))) =
            (known.first(), self.directory.scram_salt(account).await?)
        else {
            return Err(DirectoryError::NotFound(format!("the account {account}")).into());
        };
        let password = secret::app_password()?;
        let letters = secret::app_letters(&password).unwrap_or_default();
        // A SCRAM client uses the password as it is shown.
        let keys = self
            .logins
            .verifier
            .scram_keys(&password, &salt, iterations)
            .await?;
        let entry = AppPassword {
            label: request.label,
            rights: request.rights,
            created: now(),
            last_used: None,
        };
        self.directory
            .app_password_add(
                account,
                &entry,
                secret::app_hash(known.id, &letters),
                keys.as_ref(),
                self.config.app_passwords,
            )
            .await?;
        Ok(NewAppPassword {
            password: password.to_string(),
        })
    }

    /// Blocks an address or network.
    ///
    /// # Errors
    /// No such network, too many blocks, the database.
    pub(crate) async fn block_add(&self, block: Block) -> Result<(), Fault> {
        let network = network(&block.network)?;
        let block = Block {
            network: throttle::show(&network),
            reason: block
                .reason
                .chars()
                .filter(|c| !c.is_control())
                .take(200)
                .collect(),
            until: block.until,
        };
        self.directory.block_put(&block).await?;
        if !self.logins.block(network, &block) {
            return Err(DirectoryError::Limit("there are too many blocks".to_owned()).into());
        }
        tracing::warn!(
            network = block.network,
            reason = block.reason,
            "blocked by hand"
        );
        Ok(())
    }

    /// Lifts a block.
    ///
    /// # Errors
    /// No such network, the database.
    pub(crate) async fn block_remove(&self, text: &str) -> Result<(), Fault> {
        let network = network(text)?;
        self.directory
            .block_remove(&throttle::show(&network))
            .await?;
        self.logins.unblock(&network);
        tracing::info!(network = throttle::show(&network), "block lifted");
        Ok(())
    }
}

fn network(text: &str) -> Result<ipnet::IpNet, DirectoryError> {
    throttle::read(text).ok_or_else(|| {
        DirectoryError::Invalid(format!(
            "{text} is no address or network, such as 192.0.2.1 or 2001:db8::/64"
        ))
    })
}

/// Checks the settings that would otherwise fail only when they are used.
///
/// # Errors
/// A text that says which, and why.
pub(crate) fn check(config: &Config) -> Result<(), String> {
    let wrong = |key: &str, why: String| Err(format!("authd.{key}: {why}"));
    if !config.postmaster.is_empty()
        && let Err(error) = name::address(&config.postmaster)
    {
        return wrong("postmaster", error.to_string());
    }
    if !config.default_domain.is_empty()
        && let Err(error) = name::domain(&config.default_domain)
    {
        return wrong("default_domain", error.to_string());
    }
    for user in &config.master_users {
        if name::login(user, &config.default_domain).is_none() {
            return wrong("master_users", format!("{user} is no account's name"));
        }
    }
    if !config.srs.domain.is_empty()
        && let Err(error) = name::domain(&config.srs.domain)
    {
        return wrong("srs.domain", error.to_string());
    }
    // Two characters count the days.
    if !(1..=1000).contains(&config.srs.days) {
        return wrong("srs.days", "1 to 1,000".to_owned());
    }
    // Their copies share one file in the spool, which cannot have more names on some file systems.
    if !(1..=50_000).contains(&config.personal_members) {
        return wrong("personal_members", "1 to 50,000".to_owned());
    }
    if !(4096..=1_000_000).contains(&config.scram.iterations) {
        return wrong("scram.iterations", "4,096 to 1,000,000".to_owned());
    }
    Ok(())
}
