//! Personal posts: what names one member in a reverse-path and in a link, and the place where a post goes on.
//!
//! A token is a member's handle, or a place among handles, and a seal of keyd's over it: 50 bits in an address, where room is
//! little and each guess is a message; 80 bits in a link. Letters' case counts in none.

use crate::mailing::{Lists, same};
use ipc::api::authd::{
    ListBounced, ListCopies, ListCopiesPage, ListLeft, ListPart, ListSuspended, ListUnsubscribe,
    MailingList, PersonalCopy,
};
use ipc::{Fault, FaultKind, Router};
use std::sync::Arc;
use types::{Address, TraceId};

/// RFC 4648 6, in lower case.
const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
/// Characters of a handle: 60 bits.
const HANDLE: usize = 12;
/// Characters of a seal in an address.
const SHORT: usize = 10;
/// Characters of a seal in a link.
const LONG: usize = 16;
/// Octets of a local part that a list's own name may have: RFC 5321 4.5.3.1.1 allows 64 with `-bounces+` and a token.
pub(crate) const NAME_MAX: usize = 64 - "-bounces+".len() - HANDLE - SHORT;

fn letter(bits: u64) -> char {
    let index = usize::try_from(bits & 31).unwrap_or(0);
    BASE32.get(index).copied().map_or('a', char::from)
}

/// The first `count` characters of octets as base32.
fn text_of(octets: &[u8], count: usize) -> String {
    let mut text = String::with_capacity(count + 8);
    for five in octets.chunks_exact(5) {
        let bits = five.iter().fold(0_u64, |bits, o| bits << 8 | u64::from(*o));
        text.extend((0..8).rev().map(|at| letter(bits >> (at * 5))));
    }
    text.truncate(count);
    text
}

fn handle_text(handle: u64) -> String {
    (0..HANDLE)
        .rev()
        .map(|at| letter(handle >> (at * 5)))
        .collect()
}

/// The handle and the seal of a token; `None` if it has not the form of one.
fn parse(token: &str, seal: usize) -> Option<(u64, &str)> {
    if token.len() != HANDLE + seal || !token.is_ascii() {
        return None;
    }
    let digit = |octet: u8| {
        let lower = octet.to_ascii_lowercase();
        BASE32.iter().position(|one| *one == lower)
    };
    let (handle, seal) = token.split_at_checked(HANDLE)?;
    if !seal.bytes().all(|octet| digit(octet).is_some()) {
        return None;
    }
    let value = handle.bytes().try_fold(0_u64, |value, octet| {
        Some(value << 5 | u64::try_from(digit(octet)?).ok()?)
    })?;
    Some((value, seal))
}

/// The list and the part of an address of a personal post, `list-bounces+TOKEN@` or `list-copies+TOKEN@`.
pub(crate) fn part(address: &Address) -> Option<(Address, ListPart)> {
    let (head, token) = address.local().rsplit_once('+')?;
    let (list, suffix) = head.rsplit_once('-')?;
    let token = token.to_owned();
    let part = match suffix.to_ascii_lowercase().as_str() {
        "bounces" => ListPart::Bounce(token),
        "copies" => ListPart::Copies(token),
        _ => return None,
    };
    Some((Address::new(list, address.domain()).ok()?, part))
}

/// What keyd has sealed for a member.
struct Seals {
    short: String,
    long: String,
}

impl Lists {
    async fn seals(&self, trace: TraceId, handle: u64) -> Result<Seals, Fault> {
        let mac = (self.seal)(trace, format!("m\0{handle}").into_bytes()).await?;
        // Different octets of it: who knows one knows nothing of the other.
        let (short, long) = mac.0.split_at_checked(10).unwrap_or_default();
        Ok(Seals {
            short: text_of(short, SHORT),
            long: text_of(long, LONG),
        })
    }

    /// The address from which a post goes on behind a handle.
    async fn place(&self, trace: TraceId, list: &Address, after: u64) -> Result<Address, Fault> {
        let seal = self.place_seal(trace, list, after).await?;
        let local = format!("{}-copies+{}{seal}", list.local(), handle_text(after));
        address(&local, list)
    }

    async fn place_seal(&self, trace: TraceId, list: &Address, at: u64) -> Result<String, Fault> {
        let data = format!("c\0{}\0{at}", list.key()).into_bytes();
        Ok(text_of(&(self.seal)(trace, data).await?.0, SHORT))
    }

    /// Members for whom a post has not been copied yet.
    pub(crate) async fn copies(
        &self,
        trace: TraceId,
        request: ListCopies,
    ) -> Result<Option<ListCopiesPage>, Fault> {
        let list = request.list;
        let Some(token) = request.token else {
            return Ok(Some(ListCopiesPage {
                copies: Vec::new(),
                next: Some(self.place(trace, &list, 0).await?),
            }));
        };
        let Some((after, seal)) = parse(&token, SHORT) else {
            return Ok(None);
        };
        if !same(&self.place_seal(trace, &list, after).await?, seal) {
            return Ok(None);
        }
        let Some(members) = self.directory.personal_page(&list, after).await? else {
            return Ok(None);
        };
        let next = match members.last() {
            Some((_, last)) => Some(self.place(trace, &list, *last).await?),
            None => None,
        };
        let mut copies = Vec::with_capacity(members.len());
        for (member, handle) in members {
            copies.push(self.copy(trace, &list, member, handle).await?);
        }
        Ok(Some(ListCopiesPage { copies, next }))
    }

    async fn copy(
        &self,
        trace: TraceId,
        list: &Address,
        member: Address,
        handle: u64,
    ) -> Result<PersonalCopy, Fault> {
        let (seals, text) = (self.seals(trace, handle).await?, handle_text(handle));
        let local = format!("{}-bounces+{text}{}", list.local(), seals.short);
        Ok(PersonalCopy {
            sender: address(&local, list)?,
            unsubscribe: format!("{text}{}", seals.long),
            remote: !self.resolver.serves(member.domain()).await?,
            member,
        })
    }

    /// The member that the reverse-path of a personal copy names, if it was made here.
    async fn bounced_member(
        &self,
        trace: TraceId,
        list: &Address,
        token: &str,
    ) -> Result<Option<Address>, Fault> {
        let Some((handle, seal)) = parse(token, SHORT) else {
            return Ok(None);
        };
        if !same(&self.seals(trace, handle).await?.short, seal) {
            tracing::info!(%trace, %list, "a bounce to an address that was not made here");
            return Ok(None);
        }
        let found = self.directory.by_handle(handle).await?;
        Ok(found
            .filter(|(of, _)| of.key() == list.key())
            .map(|(_, member)| member))
    }

    /// Notes bounces: those of a personal copy by its reverse-path, others by whom they name.
    pub(crate) async fn bounced(
        &self,
        trace: TraceId,
        request: ListBounced,
    ) -> Result<ListSuspended, Fault> {
        let ListBounced {
            list: address,
            members,
            token,
        } = request;
        let Some(list) = self.list(&address).await? else {
            return Ok(ListSuspended::default());
        };
        let members: Vec<Address> = match (token, list.personal) {
            (Some(token), _) => self
                .bounced_member(trace, &address, &token)
                .await?
                .into_iter()
                .collect(),
            // No copy has that reverse-path, so nobody who had one says so.
            (None, true) => Vec::new(),
            (None, false) => members,
        };
        if members.is_empty() {
            return Ok(ListSuspended::default());
        }
        let now = crate::now();
        Ok(self.directory.list_bounced(&address, &members, now).await?)
    }

    /// One click (RFC 8058), or a look at what it would do.
    pub(crate) async fn unsubscribe(
        &self,
        trace: TraceId,
        request: &ListUnsubscribe,
    ) -> Result<Option<ListLeft>, Fault> {
        let Some((handle, seal)) = parse(&request.token, LONG) else {
            return Ok(None);
        };
        if !same(&self.seals(trace, handle).await?.long, seal) {
            return Ok(None);
        }
        let Some((list, member)) = self.directory.by_handle(handle).await? else {
            return Ok(Some(ListLeft { list: None }));
        };
        if request.leave {
            let (list, members) = (list.to_string(), [member.to_string()]);
            match self.directory.member_remove(&list, &members).await {
                Err(crate::directory::DirectoryError::NotFound(_)) => {}
                other => drop(other?),
            }
            tracing::info!(%trace, list, %member, "left by a link");
        }
        let list = Some(list.to_string());
        Ok(Some(ListLeft { list }))
    }

    /// Adds the operations to a router.
    pub(crate) fn personal(self: &Arc<Self>, router: Router) -> Router {
        let [copies, bounced, leave] = std::array::from_fn(|_| Arc::clone(self));
        router
            .on(move |context, request: ListCopies| {
                let lists = Arc::clone(&copies);
                async move { lists.copies(context.trace, request).await }
            })
            .on(move |context, request: ListBounced| {
                let lists = Arc::clone(&bounced);
                async move { lists.bounced(context.trace, request).await }
            })
            .on(move |context, request: ListUnsubscribe| {
                let lists = Arc::clone(&leave);
                async move { lists.unsubscribe(context.trace, &request).await }
            })
    }
}

/// Whether a list's name leaves room for tokens.
pub(crate) fn fits(list: &MailingList) -> bool {
    let local = list.address.rsplit_once('@').map_or("", |(local, _)| local);
    !list.personal || local.len() <= NAME_MAX
}

fn address(local: &str, list: &Address) -> Result<Address, Fault> {
    Address::new(local, list.domain()).map_err(|error| {
        let text = format!("the name {list} is too long for personal posts: {error}");
        Fault::new(FaultKind::Invalid, text)
    })
}

/// Tokens and local parts, one a line, as anybody may send them: what is taken apart can be put together again.
pub fn fuzz(octets: &[u8]) {
    for line in String::from_utf8_lossy(octets).lines() {
        for length in [SHORT, LONG] {
            if let Some((handle, seal)) = parse(line, length) {
                let whole = format!("{}{seal}", handle_text(handle));
                assert!(whole.eq_ignore_ascii_case(line) && handle >> 60 == 0);
            }
        }
        let Ok(address) = Address::new(line, "x.example") else {
            continue;
        };
        if let Some((list, part)) = part(&address) {
            let (ListPart::Bounce(token) | ListPart::Copies(token)) = part else {
                continue;
            };
            assert!(address.local().starts_with(list.local()) && address.local().ends_with(&token));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn tokens_are_read_in_any_case_and_no_other_form() {
        for handle in [1, 77, (1 << 60) - 1] {
            let token = format!("{}{}", handle_text(handle), "a2".repeat(5));
            assert_eq!(parse(&token, SHORT).unwrap().0, handle);
            assert_eq!(parse(&token.to_uppercase(), SHORT).unwrap().0, handle);
            for wrong in [
                &token[1..],
                &format!("{token}a"),
                &token.replace('2', "1"),
                &token.replacen('a', "é", 1),
                "",
            ] {
                assert_eq!(parse(wrong, SHORT), None, "{wrong}");
            }
            assert_eq!(parse(&token, LONG), None);
        }
        assert_eq!(text_of(&[0xff; 10], SHORT), "7777777777");
        assert_eq!(text_of(&[0; 22], LONG), "aaaaaaaaaaaaaaaa");
    }

    #[test]
    fn addresses_of_personal_posts_have_room() {
        let at = |local: &str| Address::new(local, "x.example").ok();
        let token = "a".repeat(HANDLE + SHORT);
        let name = "l".repeat(NAME_MAX);
        let longest = at(&format!("{name}-Bounces+{token}")).unwrap();
        assert_eq!(longest.local().len(), 64);
        let found = part(&longest).unwrap();
        assert_eq!(found, (at(&name).unwrap(), ListPart::Bounce(token.clone())));
        let copies = part(&at("a-b-copies+x").unwrap()).unwrap();
        assert_eq!(copies, (at("a-b").unwrap(), ListPart::Copies("x".into())));
        for other in ["list-bounces", "list+bounces", "bounces+x", "-bounces+x"] {
            assert_eq!(at(other).and_then(|one| part(&one)), None, "{other}");
        }
    }
}
