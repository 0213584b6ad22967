//! Operations on mailing lists, and the commands that come by mail.

use crate::directory::Directory;
use crate::grant::Seal;
use crate::now;
use crate::resolve::Resolver;
use ipc::api::authd::{
    ListAnswer, ListCommand, ListHold, ListMember, ListMemberList, ListMemberPut, ListMemberRemove,
    ListPart, ListPoster, ListRecipients, MailingList, MailingListList, MailingListPut,
    MailingListRemove, Subscription,
};
use ipc::{Fault, Router};
use std::fmt::Write as _;
use std::sync::Arc;
use types::{Address, TraceId};

/// What keyd's seals of these tokens are for.
pub(crate) const PURPOSE: &str = "posthouse lists 1";

/// Days for which a question may be answered.
const DAYS: u64 = 7;
const DAY: u64 = 86_400;

/// Addresses that a token is tried with.
const ABOUT: usize = 11;

/// Mailing lists: the directory, and tokens by keyd.
pub(crate) struct Lists {
    pub(crate) directory: Directory,
    pub(crate) resolver: Arc<Resolver>,
    pub(crate) seal: Seal,
}

impl Lists {
    /// The token for a change: `j` or `l`, the day, and the seal over all of it and the member. Whose it is tells the answer.
    async fn token(
        &self,
        trace: TraceId,
        list: &Address,
        member: &Address,
        joins: bool,
        day: u64,
    ) -> Result<String, Fault> {
        let kind = if joins { "j" } else { "l" };
        let (list, key) = (list.key(), member.key());
        let data = format!("{kind}\0{day}\0{list}\0{key}").into_bytes();
        let mac = (self.seal)(trace, data).await?;
        let mut text = format!("{kind}{day}-");
        // 80 bits; no letter's case counts.
        for octet in mac.0.iter().take(10) {
            let _ = write!(text, "{octet:02x}");
        }
        Ok(text)
    }

    pub(crate) async fn list(&self, address: &Address) -> Result<Option<MailingList>, Fault> {
        let address = address.to_string();
        Ok(self
            .directory
            .mailing_list(Some(&address), None)
            .await?
            .pop())
    }

    /// A question: whoever can read the mail to `to` may answer it.
    async fn ask(
        &self,
        trace: TraceId,
        list: &Address,
        member: Address,
        joins: bool,
        to: Vec<Address>,
    ) -> Result<ListAnswer, Fault> {
        let token = self.token(trace, list, &member, joins, now() / DAY).await?;
        let local = format!("{}-confirm+{token}", list.local());
        // RFC 5321 4.5.3.1.1: an address that is too long cannot be asked about this way.
        let Ok(confirm) = Address::new(&local, list.domain()) else {
            tracing::warn!(%trace, %list, %member, "the list's name is too long for commands by mail");
            return Ok(ListAnswer::Nothing);
        };
        Ok(ListAnswer::Ask {
            to,
            confirm,
            member,
            joins,
        })
    }

    pub(crate) async fn command(
        &self,
        trace: TraceId,
        request: ListCommand,
    ) -> Result<ListAnswer, Fault> {
        let ListCommand {
            list: address,
            sender,
            about,
            command,
        } = request;
        let Some(list) = self.list(&address).await? else {
            return Ok(ListAnswer::Nothing);
        };
        match command {
            ListPart::Subscribe => match list.subscription {
                Subscription::Closed => Ok(ListAnswer::Closed),
                Subscription::Confirm => {
                    self.ask(trace, &address, sender.clone(), true, vec![sender])
                        .await
                }
                Subscription::Owner => {
                    let owners = list.owners.iter().filter_map(|one| one.parse().ok());
                    let owners = owners.collect();
                    self.ask(trace, &address, sender, true, owners).await
                }
            },
            ListPart::Unsubscribe => {
                self.ask(trace, &address, sender.clone(), false, vec![sender])
                    .await
            }
            ListPart::Confirm(token) => self.confirm(trace, &address, &token, &about).await,
            _ => Ok(ListAnswer::Nothing),
        }
    }

    async fn confirm(
        &self,
        trace: TraceId,
        list: &Address,
        token: &str,
        about: &[Address],
    ) -> Result<ListAnswer, Fault> {
        if let Some(decision) = self.decision(trace, list, token).await? {
            return Ok(decision);
        }
        let Some((joins, day)) = token_head(token) else {
            return Ok(ListAnswer::Nothing);
        };
        let today = now() / DAY;
        if day > today || day + DAYS < today {
            return Ok(ListAnswer::Nothing);
        }
        let mut member = None;
        for one in about.iter().take(ABOUT) {
            if same(&self.token(trace, list, one, joins, day).await?, token) {
                member = Some(one.clone());
                break;
            }
        }
        let Some(member) = member else {
            tracing::info!(%trace, %list, "a token that is not ours, or of nobody whom the answer names");
            return Ok(ListAnswer::Nothing);
        };
        let address = list.to_string();
        if joins {
            let new = ListMember {
                address: member.to_string(),
                name: String::new(),
                nomail: false,
                can_post: true,
                joined: 0,
                bounces: 0,
                suspended: false,
            };
            self.directory.member_put(&address, &[new], now()).await?;
        } else {
            self.directory
                .member_remove(&address, &[member.to_string()])
                .await?;
        }
        Ok(ListAnswer::Done {
            member,
            joined: joins,
        })
    }

    /// Adds the operations to a router.
    pub(crate) fn router(self: &Arc<Self>, router: Router) -> Router {
        let [
            put,
            list,
            remove,
            members,
            member_list,
            member_remove,
            poster,
            recipients,
            command,
            hold,
        ] = std::array::from_fn(|_| Arc::clone(self));
        self.personal(router)
            .on(move |_, request: MailingListPut| {
                let lists = Arc::clone(&put);
                async move {
                    Ok(lists
                        .directory
                        .mailing_put(request.mode, &request.list)
                        .await?)
                }
            })
            .on(move |_, request: MailingListList| {
                let lists = Arc::clone(&list);
                async move {
                    let (only, after) = (request.address.as_deref(), request.after.as_deref());
                    Ok(lists.directory.mailing_list(only, after).await?)
                }
            })
            .on(move |_, request: MailingListRemove| {
                let lists = Arc::clone(&remove);
                async move { Ok(lists.directory.mailing_remove(&request.address).await?) }
            })
            .on(move |_, request: ListMemberPut| {
                let lists = Arc::clone(&members);
                async move {
                    let members = &request.members;
                    Ok(lists
                        .directory
                        .member_put(&request.list, members, now())
                        .await?)
                }
            })
            .on(move |_, request: ListMemberList| {
                let lists = Arc::clone(&member_list);
                async move {
                    let after = request.after.as_deref();
                    Ok(lists.directory.member_list(&request.list, after).await?)
                }
            })
            .on(move |_, request: ListMemberRemove| {
                let lists = Arc::clone(&member_remove);
                async move {
                    Ok(lists
                        .directory
                        .member_remove(&request.list, &request.members)
                        .await?)
                }
            })
            .on(move |_, request: ListPoster| {
                let lists = Arc::clone(&poster);
                async move {
                    let ListPoster { list, authors } = &request;
                    let Some(mut standing) = lists.directory.standing(list, authors).await? else {
                        return Ok(None);
                    };
                    for author in authors {
                        standing.ours |= lists.resolver.serves(author.domain()).await?;
                    }
                    Ok(Some(standing))
                }
            })
            .on(move |_, request: ListRecipients| {
                let lists = Arc::clone(&recipients);
                async move {
                    let after = request.after.as_ref();
                    Ok(lists
                        .directory
                        .list_recipients(&request.list, after)
                        .await?)
                }
            })
            .on(move |context, request: ListCommand| {
                let lists = Arc::clone(&command);
                async move { lists.command(context.trace, request).await }
            })
            .on(move |context, request: ListHold| {
                let lists = Arc::clone(&hold);
                async move {
                    let ListHold { list, post } = &request;
                    lists.decide(context.trace, list, *post).await
                }
            })
    }
}

/// Whether somebody joins, and the day of the question.
fn token_head(token: &str) -> Option<(bool, u64)> {
    let (head, _) = token.split_once('-')?;
    let joins = match head.get(..1)?.to_ascii_lowercase().as_str() {
        "j" => true,
        "l" => false,
        _ => return None,
    };
    Some((joins, head.get(1..)?.parse().ok()?))
}

/// In a time that does not tell how much of it is right.
pub(crate) fn same(wanted: &str, given: &str) -> bool {
    let pairs = wanted.bytes().zip(given.bytes());
    let different = pairs.fold(0, |sum, (a, b)| sum | (a ^ b.to_ascii_lowercase()));
    wanted.len() == given.len() && different == 0
}
