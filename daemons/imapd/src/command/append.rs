//! APPEND.

use crate::session::{Arrived, Done, End, Refused, Session};
use imap::put::{self, Condition};
use imap::{Append, Literal};
use ipc::api::stored::{Mutate, Mutation, MutationResult, NewMessage, OpenUpload};
use std::io::Write as _;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use types::{Body, Octets, RequestId};

/// Octets of a message's description at most: it travels in a frame with a body of up to 64 KiB.
const PARSED_MAX: usize = 96 * 1024;

impl<S: AsyncRead + AsyncWrite + Unpin + Send + Sync> Session<S> {
    /// From the announcement of the message to the answer.
    pub(crate) async fn append(&mut self, head: &[u8], literal: Literal) -> Result<(), End> {
        let append = match Append::parse(head, self.names) {
            Ok(append) => append,
            Err(refused) => {
                self.codec.refuse();
                return self.refuse(&refused);
            }
        };
        match self.may_append(&append, literal).await {
            Err(refused) => {
                self.codec.refuse();
                self.answer(&append.tag, "APPEND", Err(refused))
            }
            Ok(mailbox) => {
                let large = literal.len > Body::INLINE_MAX as u64;
                let room = if large {
                    self.room(literal.len).await
                } else {
                    None
                };
                if large && room.is_none() {
                    self.codec.refuse();
                    let busy = "Too many large messages at once, try again later".to_owned();
                    return self.answer(&append.tag, "APPEND", Err(Refused::No("LIMIT", busy)));
                }
                self.codec.accept();
                if literal.synchronising {
                    put::continuation(&mut self.out, "Go on");
                }
                self.message.clear();
                self.message
                    .reserve(usize::try_from(literal.len).unwrap_or(0).min(1 << 20));
                let whole = match self.arrival().await? {
                    Arrived::MessageEnd(whole) => whole,
                    Arrived::Overrun(..) => false,
                    Arrived::Command(_) | Arrived::Message(..) | Arrived::Response(_) => {
                        return Err(End::Gone("the message did not come"));
                    }
                };
                let message = std::mem::take(&mut self.message);
                if !whole {
                    return self.answer(
                        &append.tag,
                        "APPEND",
                        Err(Refused::Bad("The command goes on behind its message")),
                    );
                }
                let tag = append.tag.clone();
                let result = self.store_message(mailbox, append, message).await;
                self.answer(&tag, "APPEND", result)
            }
        }
    }

    async fn may_append(
        &mut self,
        append: &Append,
        literal: Literal,
    ) -> Result<store::Mailbox, Refused> {
        if self.account.is_none() {
            return Err(Refused::Bad("Log in first"));
        }
        if literal.len > self.service.config.append_bytes {
            // RFC 7889 4
            return Err(Refused::No("TOOBIG", "The message is too large".to_owned()));
        }
        self.named(&append.mailbox, "TRYCREATE").await
    }

    async fn store_message(
        &mut self,
        mailbox: store::Mailbox,
        append: Append,
        message: Vec<u8>,
    ) -> Done {
        if message.is_empty() {
            // RFC 9051 6.3.12, RFC 3502 6.3.11: an empty message aborts
            return Err(Refused::No("", "An empty message is not kept".to_owned()));
        }
        let Some(account) = &self.account else {
            return Err(Refused::Bad("Log in first"));
        };
        let grant = account.login.grant.clone();
        let limits = message::Limits::default();
        let (parsed, message) = if message.len() > Body::INLINE_MAX {
            let work = move || {
                (
                    message::parse_within(b"", &message, &limits, PARSED_MAX).1,
                    message,
                )
            };
            let failed = |_| Refused::No("SERVERBUG", "The message could not be read".to_owned());
            tokio::task::spawn_blocking(work).await.map_err(failed)?
        } else {
            (
                message::parse_within(b"", &message, &limits, PARSED_MAX).1,
                message,
            )
        };
        let body = if message.len() > Body::INLINE_MAX {
            let len = message.len() as u64;
            let slot = self.upload(grant.clone(), message).await?;
            Body::Slot { slot, len }
        } else {
            Body::Inline(Octets(message))
        };
        let date = append
            .date
            .unwrap_or_else(|| i64::try_from(crate::now()).unwrap_or(0));
        let message = NewMessage {
            parsed: Octets(parsed),
            body,
            date,
        };
        let mutation = Mutation::Append {
            mailbox: mailbox.id,
            flags: append.flags,
            message,
        };
        let call = Mutate {
            request: RequestId(rand::random()),
            grant,
            mutation,
        };
        let mutated = self
            .service
            .stored
            .call_with(self.trace, &call, Vec::new(), super::PATIENCE)
            .await?
            .0;
        if self
            .selected
            .as_ref()
            .is_some_and(|selected| selected.shown.mailbox.id == mailbox.id)
        {
            self.refresh().await?;
            self.tell(true, &[]);
        }
        match mutated.result {
            // RFC 4315 3
            MutationResult::Appended { uidvalidity, uid } => {
                Ok((format!("APPENDUID {uidvalidity} {uid}"), "completed"))
            }
            _ => Ok((String::new(), "completed")),
        }
    }

    /// Writes a large message into stored's file.
    async fn upload(&self, grant: types::Grant, message: Vec<u8>) -> Result<u64, Refused> {
        let request = OpenUpload {
            grant,
            expected: message.len() as u64,
        };
        let (slot, descriptors) = self
            .service
            .stored
            .call_with(self.trace, &request, Vec::new(), Duration::from_secs(30))
            .await?;
        let failed = |text: String| {
            tracing::error!(trace = %self.trace, text, "an upload failed");
            Refused::No(
                "UNAVAILABLE",
                "The message could not be written, try again later".to_owned(),
            )
        };
        let Some(descriptor) = descriptors.into_iter().next() else {
            return Err(failed("stored gave no descriptor".to_owned()));
        };
        let mut file = std::fs::File::from(descriptor);
        let written = tokio::task::spawn_blocking(move || file.write_all(&message)).await;
        match written {
            Ok(Ok(())) => Ok(slot),
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(error) => Err(failed(error.to_string())),
        }
    }

    /// An untagged NO with a reason, for what goes wrong halfway through a command.
    pub(crate) fn warn(&mut self, text: &str) {
        put::status(&mut self.out, "*", Condition::No, "", text);
    }
}
