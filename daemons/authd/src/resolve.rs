//! Where mail for an address goes, and who may send from it. Asked for each RCPT and each delivery: answers are kept in
//! memory.

use crate::cache::Cache;
use crate::config::Config;
use crate::directory::lookup::Entry;
use crate::directory::{Directory, DirectoryError};
use crate::name;
use ipc::api::authd::{Domain, ListPart, Resolution, Target};
use ipc::{Fault, FaultKind};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use types::{AccountId, Address};

/// Finds out what is behind addresses.
pub(crate) struct Resolver {
    directory: Directory,
    config: Arc<Config>,
    domains: Cache<Option<Arc<Domain>>>,
    known: Cache<Resolution>,
    /// Apart, so that whoever tries many names does not push the known ones out.
    unknown: Cache<Resolution>,
    senders: Cache<bool>,
}

/// What a walk from an address through aliases and groups found.
#[derive(Default)]
struct Walk {
    accounts: Vec<Target>,
    ids: HashSet<AccountId>,
    forwards: Vec<Address>,
    lists: Vec<Target>,
    disabled: bool,
    cut: bool,
}

impl Walk {
    fn add_list(&mut self, list: &Address, part: ListPart) {
        let target = Target::List {
            address: list.clone(),
            part,
        };
        if !self.lists.contains(&target) {
            self.lists.push(target);
        }
    }
}

/// The list that an address of its own belongs to, and which one it is; `None` in place of the latter is the owners'.
fn list_part(address: &Address) -> Option<(Address, Option<ListPart>)> {
    let local = address.local();
    let list = |name: &str| Address::new(name, address.domain()).ok();
    if let Some((name, token)) = local.rsplit_once("-confirm+") {
        return Some((list(name)?, Some(ListPart::Confirm(token.to_owned()))));
    }
    if let Some((list, part)) = crate::personal::part(address) {
        return Some((list, Some(part)));
    }
    let (name, suffix) = local.rsplit_once('-')?;
    let part = match suffix.to_ascii_lowercase().as_str() {
        "bounces" => Some(ListPart::Bounces),
        "request" => Some(ListPart::Request),
        "subscribe" => Some(ListPart::Subscribe),
        "unsubscribe" => Some(ListPart::Unsubscribe),
        "owner" => None,
        _ => return None,
    };
    Some((list(name)?, part))
}

/// Whether an address has something in it that anybody may make up.
fn has_token(target: &Target) -> bool {
    let part = match target {
        Target::List { part, .. } => part,
        _ => return false,
    };
    matches!(
        part,
        ListPart::Confirm(_) | ListPart::Bounce(_) | ListPart::Copies(_)
    )
}

/// An address on the way, and the detail that it inherits.
type Step = (Address, Option<String>);

/// Why one walks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Aim {
    Deliver,
    Send,
}

impl Resolver {
    pub(crate) fn new(directory: Directory, config: Arc<Config>) -> Self {
        let fresh = Duration::from_secs(config.cache_seconds);
        let stale = Duration::from_secs(config.stale_seconds);
        let limit = config.cached;
        let generation = || directory.generation().clone();
        Self {
            domains: Cache::new(generation(), limit, fresh, stale),
            known: Cache::new(generation(), limit, fresh, stale),
            unknown: Cache::new(generation(), limit, fresh, stale),
            senders: Cache::new(generation(), limit, fresh, stale),
            directory,
            config,
        }
    }

    /// Where mail for an address goes.
    ///
    /// # Errors
    /// [`FaultKind::Temporary`] when the domain is disabled, or the database is away and nothing is remembered.
    pub(crate) async fn resolve(&self, address: &Address) -> Result<Resolution, Fault> {
        let key = address.to_string();
        if let Some(found) = self.known.get(&key).or_else(|| self.unknown.get(&key)) {
            return Ok(found);
        }
        let generation = self.directory.generation().current();
        let found = match self.find(address).await {
            Err(fault) if fault.kind == FaultKind::Temporary => {
                let known = self.known.get_stale(&key);
                return known.or_else(|| self.unknown.get_stale(&key)).ok_or(fault);
            }
            other => other?,
        };
        let cache = match &found {
            Resolution::Local(targets) if !targets.iter().any(has_token) => &self.known,
            _ => &self.unknown,
        };
        cache.put(key, found.clone(), generation);
        Ok(found)
    }

    /// Whether a domain is one of ours, and enabled.
    ///
    /// # Errors
    /// The database is away and nothing is remembered.
    pub(crate) async fn serves(&self, domain: &str) -> Result<bool, Fault> {
        let found = self.domain(domain).await?;
        Ok(found.is_some_and(|domain| domain.enabled))
    }

    async fn find(&self, address: &Address) -> Result<Resolution, Fault> {
        match self.domain(address.domain()).await? {
            None => {
                // RFC 5321 4.5.1: <Postmaster> alone is that of our own name
                let Some(target) = self.own_postmaster(address) else {
                    return Ok(Resolution::Remote);
                };
                let ours = self.domain(target.domain()).await?.is_some();
                return match ours {
                    true => Box::pin(self.find(&target)).await,
                    false => Ok(Resolution::Local(vec![Target::Forward(target)])),
                };
            }
            Some(domain) if !domain.enabled => {
                return Err(Fault::new(
                    FaultKind::Temporary,
                    format!("the domain {} is disabled", domain.name),
                ));
            }
            Some(_) => {}
        }
        let walk = self.walk(address, Aim::Deliver).await?;
        if walk.cut {
            tracing::warn!(%address, "it leads to more ends than authd.targets or authd.depth allow: the others are left out");
        }
        let mut targets = walk.accounts;
        targets.extend(walk.forwards.into_iter().map(Target::Forward));
        targets.extend(walk.lists);
        if self.is_for_reports(address) {
            targets.push(Target::Reports);
        }
        Ok(match targets.is_empty() {
            false => Resolution::Local(targets),
            true if walk.disabled => Resolution::Disabled,
            true => Resolution::Unknown,
        })
    }

    /// Where mail for `postmaster` and `abuse` of our own name goes.
    fn own_postmaster(&self, address: &Address) -> Option<Address> {
        let own = address.domain() == self.config.hostname && is_role(address);
        own.then(|| self.config.postmaster.parse().ok()).flatten()
    }

    /// Whether reportd takes the mail of an address.
    fn is_for_reports(&self, address: &Address) -> bool {
        self.config
            .reports
            .iter()
            .any(|pattern| pattern.matches(address))
    }

    /// Whether an account may send from an address.
    ///
    /// # Errors
    /// The database is away and nothing is remembered.
    pub(crate) async fn may_send(
        &self,
        account: AccountId,
        address: &Address,
    ) -> Result<bool, Fault> {
        let key = format!("{account} {address}");
        if let Some(found) = self.senders.get(&key) {
            return Ok(found);
        }
        let generation = self.directory.generation().current();
        let found = match self.sender(account, address).await {
            Err(fault) if fault.kind == FaultKind::Temporary => {
                return self.senders.get_stale(&key).ok_or(fault);
            }
            other => other?,
        };
        self.senders.put(key, found, generation);
        Ok(found)
    }

    async fn sender(&self, account: AccountId, address: &Address) -> Result<bool, Fault> {
        match self.domain(address.domain()).await? {
            Some(domain) if domain.enabled => {}
            _ => return Ok(false),
        }
        let walk = self.walk(address, Aim::Send).await?;
        Ok(walk.ids.contains(&account))
    }

    /// One of our domains; `None` if it is not ours.
    async fn domain(&self, name: &str) -> Result<Option<Arc<Domain>>, DirectoryError> {
        if let Some(found) = self.domains.get(name) {
            return Ok(found);
        }
        let generation = self.directory.generation().current();
        let found = match self.directory.domain(name).await {
            Err(DirectoryError::Sql(error)) if error.is_temporary() => {
                let stale = self.domains.get_stale(name);
                return stale.ok_or(DirectoryError::Sql(error));
            }
            other => other?.map(Arc::new),
        };
        self.domains.put(name.to_owned(), found.clone(), generation);
        Ok(found)
    }

    /// Follows aliases and groups, a level at a time: one question to the database for each.
    async fn walk(&self, start: &Address, aim: Aim) -> Result<Walk, DirectoryError> {
        let mut walk = Walk::default();
        let mut visited = HashSet::new();
        let mut level: Vec<Step> = vec![(name::normal(start).into_owned(), None)];
        for _ in 0..=self.config.depth {
            let mut steps = Vec::with_capacity(level.len());
            let mut keys = Vec::with_capacity(level.len() * 2);
            for (address, detail) in level {
                if !visited.insert(name::key(&address)) {
                    continue;
                }
                match self.domain(address.domain()).await? {
                    None => walk.forwards.push(address),
                    Some(domain) if !domain.enabled => walk.disabled = true,
                    Some(domain) => {
                        keys.push(name::key(&address));
                        let base = self.base(&address, &domain);
                        keys.extend(base.as_ref().map(|(base, _)| name::key(base)));
                        keys.extend(list_part(&address).map(|(list, _)| name::key(&list)));
                        steps.push((address, detail, domain, base));
                    }
                }
            }
            if steps.is_empty() {
                return Ok(walk);
            }
            let entries = self.directory.lookup(keys).await?;
            level = Vec::new();
            for (address, detail, domain, base) in steps {
                let exact = entries
                    .get(&name::key(&address))
                    .map(|entry| (entry, detail));
                let found = exact.or_else(|| {
                    let (base, detail) = base?;
                    Some((entries.get(&name::key(&base))?, Some(detail)))
                });
                let part = || {
                    let (list, part) = list_part(&address)?;
                    match entries.get(&name::key(&list))? {
                        Entry::Mailing { address, owners } => Some((address, owners, part)),
                        _ => None,
                    }
                };
                match found {
                    None if aim == Aim::Deliver
                        && let Some((list, owners, part)) = part() =>
                    {
                        match part {
                            None => level.extend(owners.iter().map(|one| (one.clone(), None))),
                            Some(part) => walk.add_list(list, part),
                        }
                    }
                    Some((entry, detail)) => self.follow(entry, detail, aim, &mut walk, &mut level),
                    None => level.extend(self.fallback(&address, &domain, aim)),
                }
            }
        }
        walk.cut |= !level.is_empty();
        Ok(walk)
    }

    /// The address without its detail (RFC 5233), and the detail.
    fn base(&self, address: &Address, domain: &Domain) -> Option<(Address, String)> {
        if !domain.subaddressing {
            return None;
        }
        let (base, detail) = address.split_detail(self.config.subaddress_separator);
        detail.map(|detail| (base, detail.to_owned()))
    }

    fn follow(
        &self,
        entry: &Entry,
        detail: Option<String>,
        aim: Aim,
        walk: &mut Walk,
        level: &mut Vec<Step>,
    ) {
        match entry {
            Entry::Account { enabled: false, .. } => walk.disabled = true,
            Entry::Account {
                id,
                name,
                quota_bytes,
                quota_messages,
                ..
            } => {
                if walk.accounts.len() + walk.forwards.len() >= self.config.targets {
                    walk.cut = true;
                } else if walk.ids.insert(*id) {
                    walk.accounts.push(Target::Account {
                        account: *id,
                        name: name.clone(),
                        detail,
                        quota_bytes: *quota_bytes,
                        quota_messages: *quota_messages,
                    });
                }
            }
            Entry::List {
                group: true,
                send_as: false,
                ..
            } if aim == Aim::Send => {}
            Entry::List {
                shared: Some((id, name)),
                ..
            } if aim == Aim::Deliver => {
                if walk.accounts.len() + walk.forwards.len() >= self.config.targets {
                    walk.cut = true;
                } else if walk.ids.insert(*id) {
                    walk.accounts.push(Target::Account {
                        account: *id,
                        name: name.clone(),
                        detail,
                        quota_bytes: 0,
                        quota_messages: 0,
                    });
                }
            }
            Entry::Mailing { address, .. } => {
                if aim == Aim::Deliver {
                    walk.add_list(address, ListPart::Post);
                }
            }
            Entry::List { targets, .. } => {
                let room = self.config.targets.saturating_sub(level.len());
                walk.cut |= targets.len() > room;
                let targets = targets.iter().take(room).cloned();
                level.extend(targets.map(|target| (target, detail.clone())));
            }
        }
    }

    /// Where mail for an address goes that is not in the directory.
    fn fallback(&self, address: &Address, domain: &Domain, aim: Aim) -> Option<Step> {
        if let Some(other) = &domain.alias_of {
            let address = Address::new(address.local(), other);
            return address.ok().map(|address| (address, None));
        }
        if aim == Aim::Send && !self.config.send_as_catch_all {
            return None;
        }
        // It is known, if only to reportd.
        if aim == Aim::Deliver && self.is_for_reports(address) {
            return None;
        }
        if let Some(target) = &domain.catch_all {
            return target.parse().ok().map(|target| (target, None));
        }
        if !is_role(address) || self.config.postmaster.is_empty() {
            return None;
        }
        let target = self.config.postmaster.parse().ok()?;
        Some((target, None))
    }
}

/// RFC 5321 4.5.1, RFC 2142 4
fn is_role(address: &Address) -> bool {
    ["postmaster", "abuse"]
        .iter()
        .any(|role| address.local().eq_ignore_ascii_case(role))
}

/// For tests and the log: the accounts of an answer.
#[cfg(test)]
pub(crate) fn accounts(resolution: &Resolution) -> Vec<String> {
    let Resolution::Local(targets) = resolution else {
        return vec![format!("{resolution:?}")];
    };
    let show = |target: &Target| match target {
        Target::Account { name, detail, .. } => match detail {
            Some(detail) => format!("{name} [{detail}]"),
            None => name.to_string(),
        },
        Target::Forward(address) => format!("> {address}"),
        Target::List { address, part } => format!("list {address} {part:?}"),
        Target::Reports => "reportd".to_owned(),
    };
    targets.iter().map(show).collect()
}
