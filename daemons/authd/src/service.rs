//! The operations, each handed to who knows about it.

use crate::admin::Admin;
use crate::config::Config;
use crate::directory::{Directory, ListPut, ListRow};
use crate::grant::Seal;
use crate::login::{BLOCKS, Caller, Logins};
use crate::mailing::Lists;
use crate::now;
use crate::resolve::Resolver;
use crate::srs::Srs;
use ipc::api::authd::{
    AccountList, AccountPut, AccountRemove, Alias, AliasList, AliasPut, AliasRemove,
    AppPasswordAdd, AppPasswordList, AppPasswordRemove, AuthContinue, AuthStart, BlockAdd,
    BlockList, BlockRemove, DomainList, DomainNames, DomainPut, DomainRemove, ForwardSender, Group,
    GroupList, GroupPut, GroupRemove, ListPart, MaySend, OperatorGrant, Resolution,
    ResolveIdentifier, ResolveRecipient, Target,
};
use ipc::{Context, Fault, Router};
use std::sync::Arc;
use types::Role;

/// A frame has 128 KiB.
const BLOCKS_SHOWN: u32 = 1000;

/// Everything that authd does, over one database. Cheap to clone.
#[derive(Clone)]
pub struct Service {
    directory: Directory,
    pub(crate) logins: Arc<Logins>,
    pub(crate) resolver: Arc<Resolver>,
    pub(crate) admin: Arc<Admin>,
    srs: Option<Arc<Srs>>,
    lists: Option<Arc<Lists>>,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the directory's service")
    }
}

fn caller(context: &Context) -> Caller {
    Caller {
        connection: context.peer.connection,
        trace: context.trace,
    }
}

impl Service {
    /// Opens the directory; its schema is brought up to date. `state` is authd's state directory.
    ///
    /// # Errors
    /// The database, or settings that are impossible.
    pub(crate) async fn open(
        db: sql::Db,
        state: &std::path::Path,
        config: Config,
        seal: Seal,
    ) -> Result<Self, Fault> {
        let config = Arc::new(config);
        let directory = Directory::open(db, &sql::Points::new(state.to_owned()))
            .await?
            .with_personal_members(config.personal_members);
        let logins = Logins::open(directory.clone(), Arc::clone(&config), seal).await?;
        let logins = Arc::new(logins);
        Ok(Self {
            resolver: Arc::new(Resolver::new(directory.clone(), Arc::clone(&config))),
            admin: Arc::new(Admin {
                directory: directory.clone(),
                config,
                logins: Arc::clone(&logins),
            }),
            logins,
            directory,
            srs: None,
            lists: None,
        })
    }

    /// Forwarded mail leaves under addresses of ours.
    pub(crate) fn with_srs(mut self, seal: Seal, config: crate::config::Srs) -> Self {
        self.srs = Some(Arc::new(Srs::new(seal, config, Arc::clone(&self.resolver))));
        self
    }

    /// Mailing lists, whose tokens are sealed so.
    pub(crate) fn with_lists(mut self, seal: Seal) -> Self {
        self.lists = Some(Arc::new(Lists {
            directory: self.directory.clone(),
            resolver: Arc::clone(&self.resolver),
            seal,
        }));
        self
    }

    /// Takes over blocks that other nodes have made, and forgets those that have run out.
    pub(crate) async fn refresh(&self) {
        if let Err(fault) = self.logins.refresh_blocks().await {
            tracing::warn!(%fault, "the blocks are not read again");
        }
    }

    /// Adds all operations to a router.
    pub(crate) fn router(&self, router: Router) -> Router {
        let closed = Arc::clone(&self.logins);
        let router = router.on_closed(move |peer| closed.closed(peer.connection));
        let router = self.people(self.domains(self.logins(router)));
        match &self.lists {
            Some(lists) => lists.router(router),
            None => router,
        }
    }

    fn logins(&self, router: Router) -> Router {
        let (start, proceed) = (self.clone(), self.clone());
        let (resolve, send, forward) = (self.clone(), self.clone(), self.clone());
        let (operator, identifier) = (self.clone(), self.clone());
        router
            .on(move |context, request: AuthStart| {
                let logins = Arc::clone(&start.logins);
                async move { logins.start(caller(&context), request).await }
            })
            .on(move |context, request: AuthContinue| {
                let logins = Arc::clone(&proceed.logins);
                async move { logins.proceed(caller(&context), &request).await }
            })
            .on(move |context, request: ResolveRecipient| {
                let (resolver, srs) = (Arc::clone(&resolve.resolver), resolve.srs.clone());
                async move {
                    if let Some(srs) = srs
                        && let Some(found) =
                            srs.back(context.trace, &request.address, now()).await?
                    {
                        return Ok(found);
                    }
                    let found = resolver.resolve(&request.address).await?;
                    let inner = matches!(&found, Resolution::Local(targets)
                        if targets.iter().any(|target| matches!(target, Target::List { part: ListPart::Copies(_), .. })));
                    // Where posts go on inside is no address for anybody outside.
                    Ok(match inner && context.peer.role == Role::Smtpd {
                        true => Resolution::Unknown,
                        false => found,
                    })
                }
            })
            .on(move |context, request: ForwardSender| {
                let srs = forward.srs.clone();
                async move {
                    let Some(srs) = srs else { return Ok(None) };
                    let ForwardSender { sender, owner, to } = &request;
                    srs.forward(context.trace, sender, owner, to, now()).await
                }
            })
            .on(move |context, request: OperatorGrant| {
                let logins = Arc::clone(&operator.logins);
                async move {
                    logins
                        .operator_grant(caller(&context), &request.account)
                        .await
                }
            })
            .on(move |_, request: ResolveIdentifier| {
                let logins = Arc::clone(&identifier.logins);
                async move { logins.identifier(&request.identifier).await }
            })
            .on(move |_, request: MaySend| {
                let resolver = Arc::clone(&send.resolver);
                async move { resolver.may_send(request.account, &request.address).await }
            })
    }

    fn domains(&self, router: Router) -> Router {
        let directory = || self.directory.clone();
        let (put, list, remove, names) = (directory(), directory(), directory(), directory());
        let (alias_put, alias_list, alias_remove) = (directory(), directory(), directory());
        let (group_put, group_list, group_remove) = (directory(), directory(), directory());
        router
            .on(move |_, request: DomainPut| {
                let directory = put.clone();
                async move { Ok(directory.domain_put(request.mode, &request.domain).await?) }
            })
            .on(move |_, request: DomainList| {
                let directory = list.clone();
                async move { Ok(directory.domain_list(request.name.as_deref()).await?) }
            })
            .on(move |_, _: DomainNames| {
                let directory = names.clone();
                async move {
                    let all = directory.domain_list(None).await?;
                    let enabled = all.into_iter().filter(|domain| domain.enabled);
                    Ok(enabled.map(|domain| domain.name).collect())
                }
            })
            .on(move |_, request: DomainRemove| {
                let directory = remove.clone();
                async move { Ok(directory.domain_remove(&request.name).await?) }
            })
            .on(move |_, request: AliasPut| {
                let directory = alias_put.clone();
                async move {
                    let put = ListPut {
                        group: false,
                        address: &request.alias.address,
                        targets: &request.alias.targets,
                        description: "",
                        send_as: true,
                        shared: false,
                    };
                    Ok(directory.list_put(request.mode, &put).await?)
                }
            })
            .on(move |_, request: AliasList| {
                let directory = alias_list.clone();
                async move {
                    let (only, after) = (request.address.as_deref(), request.after.as_deref());
                    let rows = directory
                        .list_list(false, only, after, request.limit)
                        .await?;
                    Ok(rows.into_iter().map(alias).collect())
                }
            })
            .on(move |_, request: AliasRemove| {
                let directory = alias_remove.clone();
                async move { Ok(directory.list_remove(false, &request.address).await?) }
            })
            .on(move |_, request: GroupPut| {
                let directory = group_put.clone();
                async move {
                    let put = ListPut {
                        group: true,
                        address: &request.group.address,
                        targets: &request.group.members,
                        description: &request.group.description,
                        send_as: request.group.send_as,
                        shared: request.group.shared,
                    };
                    Ok(directory.list_put(request.mode, &put).await?)
                }
            })
            .on(move |_, request: GroupList| {
                let directory = group_list.clone();
                async move {
                    let (only, after) = (request.address.as_deref(), request.after.as_deref());
                    let rows = directory
                        .list_list(true, only, after, request.limit)
                        .await?;
                    Ok(rows.into_iter().map(group).collect())
                }
            })
            .on(move |_, request: GroupRemove| {
                let directory = group_remove.clone();
                async move { Ok(directory.list_remove(true, &request.address).await?) }
            })
    }

    fn people(&self, router: Router) -> Router {
        let directory = || self.directory.clone();
        let admin = || Arc::clone(&self.admin);
        let (put, list, remove) = (admin(), directory(), directory());
        let (app_add, app_list, app_remove) = (admin(), directory(), directory());
        let (block_add, block_list, block_remove) = (admin(), directory(), admin());
        router
            .on(move |_, request: AccountPut| {
                let admin = Arc::clone(&put);
                async move { admin.account_put(request).await }
            })
            .on(move |_, request: AccountList| {
                let directory = list.clone();
                async move {
                    let (only, domain) = (request.name.as_deref(), request.domain.as_deref());
                    let after = request.after.as_deref();
                    Ok(directory
                        .account_list(only, domain, after, request.limit)
                        .await?)
                }
            })
            .on(move |_, request: AccountRemove| {
                let directory = remove.clone();
                async move { Ok(directory.account_remove(&request.name).await?) }
            })
            .on(move |_, request: AppPasswordAdd| {
                let admin = Arc::clone(&app_add);
                async move { admin.app_password_add(request).await }
            })
            .on(move |_, request: AppPasswordList| {
                let directory = app_list.clone();
                async move { Ok(directory.app_password_list(&request.account).await?) }
            })
            .on(move |_, request: AppPasswordRemove| {
                let directory = app_remove.clone();
                async move {
                    let (account, label) = (&request.account, &request.label);
                    Ok(directory.app_password_remove(account, label).await?)
                }
            })
            .on(move |_, request: BlockAdd| {
                let admin = Arc::clone(&block_add);
                async move { admin.block_add(request.block).await }
            })
            .on(move |_, _: BlockList| {
                let directory = block_list.clone();
                async move {
                    Ok(directory
                        .block_list(now(), BLOCKS_SHOWN.min(BLOCKS))
                        .await?)
                }
            })
            .on(move |_, request: BlockRemove| {
                let admin = Arc::clone(&block_remove);
                async move { admin.block_remove(&request.network).await }
            })
    }
}

fn alias(row: ListRow) -> Alias {
    Alias {
        address: row.address,
        targets: row.targets,
    }
}

fn group(row: ListRow) -> Group {
    Group {
        address: row.address,
        description: row.description,
        members: row.targets,
        send_as: row.send_as,
        shared: row.shared,
        id: types::AccountId(if row.shared { row.account } else { 0 }),
    }
}

#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;
