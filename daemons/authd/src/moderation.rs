//! The addresses by which the owners of a mailing list decide on a post that is held.
//!
//! `list-confirm+TOKEN@`: the token is a letter, the id under which the post came, and keyd's seal over both and the list. It needs
//! no day: a post that waits no longer cannot be decided on.

use crate::mailing::{Lists, same};
use ipc::Fault;
use ipc::api::authd::{ListAnswer, ListDecide};
use types::{Address, QueueId, TraceId};

/// Characters of an id, in base 32.
const ID: usize = 13;

impl Lists {
    /// The token that lets a post in, or refuses it: as long as those of other questions.
    async fn token_of_post(
        &self,
        trace: TraceId,
        list: &Address,
        post: QueueId,
        accept: bool,
    ) -> Result<String, Fault> {
        let kind = if accept { "a" } else { "r" };
        let data = format!("{kind}\0{post}\0{}", list.key()).into_bytes();
        let mac = (self.seal)(trace, data).await?;
        // 64 bits: each guess is a mail, and one of an owner's besides.
        let seal = mac.0.first_chunk().map(|first| u64::from_be_bytes(*first));
        let seal = seal.ok_or_else(|| Fault::new(ipc::FaultKind::Internal, "a short seal"))?;
        Ok(format!("{kind}{post}{}", QueueId(seal)).to_ascii_lowercase())
    }

    /// See [`ipc::api::authd::ListHold`].
    pub(crate) async fn decide(
        &self,
        trace: TraceId,
        list: &Address,
        post: QueueId,
    ) -> Result<Option<ListDecide>, Fault> {
        let mut both = Vec::with_capacity(2);
        for accept in [true, false] {
            let token = self.token_of_post(trace, list, post, accept).await?;
            let local = format!("{}-confirm+{token}", list.local());
            // RFC 5321 4.5.3.1.1
            both.extend(Address::new(&local, list.domain()));
        }
        Ok(match <[Address; 2]>::try_from(both) {
            Ok([accept, reject]) => Some(ListDecide { accept, reject }),
            Err(_) => {
                tracing::warn!(%trace, %list, "the list's name is too long for decisions by mail");
                None
            }
        })
    }

    /// What a token decides; `None` if it is none of these. One with a seal that is not ours decides nothing.
    pub(crate) async fn decision(
        &self,
        trace: TraceId,
        list: &Address,
        token: &str,
    ) -> Result<Option<ListAnswer>, Fault> {
        let Some((accept, post)) = token_head(token) else {
            return Ok(None);
        };
        if !same(&self.token_of_post(trace, list, post, accept).await?, token) {
            tracing::info!(%trace, %list, "a decision whose seal is not ours");
            return Ok(Some(ListAnswer::Nothing));
        }
        Ok(Some(ListAnswer::Decision { post, accept }))
    }
}

/// Whether a post is let in, and which.
fn token_head(token: &str) -> Option<(bool, QueueId)> {
    if token.len() != 1 + 2 * ID {
        return None;
    }
    let accept = match token.get(..1)?.to_ascii_lowercase().as_str() {
        "a" => true,
        "r" => false,
        _ => return None,
    };
    Some((accept, token.get(1..=ID)?.parse().ok()?))
}
