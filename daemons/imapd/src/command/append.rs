//! APPEND and REPLACE: messages arrive literal by literal (or are made of parts of others); what is large of them goes into a
//! file of stored's as it comes. Each is described when it is complete; then all are stored in one change.

use super::upload::Upload;
use crate::session::{Arrived, Done, End, Refused, Session};
use imap::put::{self, Condition};
use imap::{Append, AppendParser, AppendPiece, Literal, Replaced, SequenceNumber};
use ipc::api::stored::{AppendMessage, Mutation, MutationResult, NewMessage};
use tokio::io::{AsyncRead, AsyncWrite};
use types::{AccountId, Body, MailboxId, Octets, Uid};

/// Octets of a message's description.
const PARSED_MAX: usize = 96 * 1024;

/// Octets of the descriptions and flags of all messages together: they travel in one frame (192 KiB), with bodies of up to
/// 64 KiB. A message with the longest description still has room for its flags.
const DESCRIBED_MAX: usize = PARSED_MAX + 16 * 1024;

/// A command of which a literal is announced.
struct Arriving {
    parser: AppendParser,
    literal: Literal,
}

/// What is gathered while a command arrives.
struct Gathered {
    /// Whose mailbox it is for.
    account: AccountId,
    complete: Vec<AppendMessage>,
    /// The files of those that are complete.
    uploads: Vec<Upload>,
    /// Octets of descriptions and flags, and of bodies that are not in files.
    parsed: usize,
    inline: usize,
    /// Of the message that is arriving: its flags and date; whether it came as literal8.
    flags: Vec<String>,
    date: Option<i64>,
    binary: bool,
}

impl Gathered {
    fn new(account: AccountId) -> Self {
        Self {
            account,
            complete: Vec::new(),
            uploads: Vec::new(),
            parsed: 0,
            inline: 0,
            flags: Vec::new(),
            date: None,
            binary: false,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + Sync> Session<S> {
    /// From the announcement of the first message to the answer.
    pub(crate) async fn append(&mut self, head: &[u8], literal: Literal) -> Result<(), End> {
        let (parser, head) = match AppendParser::begin(head, self.names) {
            Ok(begun) => begun,
            Err(refused) => {
                self.codec.refuse();
                return self.refuse(&refused);
            }
        };
        self.tag.clone_from(&head.tag);
        let arriving = Some(Arriving { parser, literal });
        let result = self.put_in(&head.append, head.pieces, arriving).await;
        // Whatever is still on its way is skipped.
        self.codec.refuse();
        self.message = Vec::new();
        self.upload = None;
        self.arriving = false;
        self.answer(&head.tag, head.append.name(), result)
    }

    /// The same where no literal is a message's: all of them are made of parts of others.
    pub(super) async fn append_parts(&mut self, append: &Append, pieces: Vec<AppendPiece>) -> Done {
        let result = self.put_in(append, pieces, None).await;
        self.message = Vec::new();
        self.upload = None;
        result
    }

    /// Gathers the messages and stores them. Without `arriving` there are no literals to come.
    async fn put_in(
        &mut self,
        append: &Append,
        mut pieces: Vec<AppendPiece>,
        mut arriving: Option<Arriving>,
    ) -> Done {
        if self.account.is_none() {
            return Err(Refused::Bad("Log in first"));
        }
        if self.uid_only && append.uses_sequence_number() {
            return Err(Refused::UidRequired);
        }
        let target = self.target(&append.mailbox, "TRYCREATE", "i").await?;
        let replaces = match append.replaces {
            Some(replaced) => Some(self.replaced(replaced, &target.mailbox).await?),
            None => None,
        };
        let mut gathered = Gathered::new(target.mailbox.account);
        loop {
            let mut literal = None;
            for piece in pieces {
                match piece {
                    AppendPiece::Message { flags, date } => {
                        self.message.clear();
                        (gathered.flags, gathered.date) = (flags, date);
                    }
                    AppendPiece::Literal { utf8 } => literal = Some(utf8),
                    AppendPiece::Url(url) => self.put_url(&url, &gathered).await?,
                    AppendPiece::End => self.complete(&mut gathered).await?,
                }
            }
            let (Some(utf8), Some(next)) = (literal, arriving.as_mut()) else {
                break;
            };
            pieces = self.receive(next, utf8, &mut gathered).await?;
        }
        self.store(target.mailbox, gathered, replaces).await
    }

    /// Receives a literal, and reads what is said behind it.
    async fn receive(
        &mut self,
        arriving: &mut Arriving,
        utf8: bool,
        gathered: &mut Gathered,
    ) -> Result<Vec<AppendPiece>, Refused> {
        let literal = arriving.literal;
        if utf8 && !literal.binary {
            return Err(Refused::Bad("UTF8 takes a literal8: ~{octets}"));
        }
        if utf8 && !self.utf8 && !self.rev2 {
            // RFC 6855 4
            let text = "Say ENABLE UTF8=ACCEPT first".to_owned();
            return Err(Refused::No("", text));
        }
        self.grow(literal.len, gathered).await?;
        gathered.binary |= literal.binary;
        self.codec.accept();
        if literal.synchronising {
            put::continuation(&mut self.out, "Go on");
        }
        let expected = usize::try_from(literal.len).unwrap_or(0);
        self.message.reserve(expected.min(Body::INLINE_MAX));
        self.arriving = true;
        let arrived = self.arrival().await;
        self.arriving = false;
        let (text, last) = match arrived? {
            Arrived::Message(text, literal) => {
                arriving.literal = literal;
                (text, false)
            }
            Arrived::MessageEnd(text) => (text, true),
            Arrived::Overrun(..) => {
                return Err(Refused::Bad("What follows the message is too long"));
            }
            Arrived::Command(_) | Arrived::Response(_) => {
                return Err(Refused::End(End::Gone("the message did not come")));
            }
        };
        let pieces = arriving.parser.go_on(&text, last);
        pieces.map_err(|refusal| Refused::Bad(refusal.text))
    }

    /// Makes sure that there is a place for so many octets more of the message.
    async fn grow(&mut self, more: u64, gathered: &Gathered) -> Result<(), Refused> {
        let written = self.upload.as_ref().map_or(0, Upload::len);
        let all = (written + self.message.len() as u64).saturating_add(more);
        if all > self.service.config.append_bytes {
            // RFC 7889 4, RFC 4469 3
            return Err(Refused::No("TOOBIG", "The message is too large".to_owned()));
        }
        if all > Body::INLINE_MAX as u64 && self.upload.is_none() {
            self.upload = Some(self.open_upload(gathered.account, all).await?);
        }
        Ok(())
    }

    async fn open_upload(&self, account: AccountId, expected: u64) -> Result<Upload, Refused> {
        let grant = self.grant()?.clone();
        Upload::open(&self.service.stored, self.trace, grant, account, expected).await
    }

    /// Adds what a URL means (RFC 4469 3).
    async fn put_url(&mut self, url: &str, gathered: &Gathered) -> Result<(), Refused> {
        let Some(part) = self.url_part(url).await? else {
            // RFC 4469 4: as it was given, as far as a response code can hold it
            let shown = |c: &char| matches!(c, ' '..='~') && !matches!(c, ']' | '"' | '\\');
            let shown: String = url.chars().filter(shown).collect();
            let code = format!("BADURL \"{shown}\"");
            let text = "There is nothing at this URL, or it may not be read";
            let tag = self.tag.clone();
            put::status(&mut self.out, &tag, Condition::No, &code, text);
            return Err(Refused::Answered);
        };
        self.grow(part.len() as u64, gathered).await?;
        self.message.extend_from_slice(&part);
        if let Some(upload) = &mut self.upload {
            upload.write(&mut self.message).await;
        }
        Ok(())
    }

    /// The message has arrived: describes it, and brings its body to where it waits for the others.
    async fn complete(&mut self, gathered: &mut Gathered) -> Result<(), Refused> {
        let mut message = std::mem::take(&mut self.message);
        let mut upload = self.upload.take();
        let mut room = None;
        if let Some(upload) = &mut upload {
            upload.write(&mut message).await;
            room = Some(self.room(upload.len()).await.ok_or_else(busy)?);
            message = upload.read().await?;
        }
        if message.is_empty() {
            // RFC 9051 6.3.12, RFC 3502 6.3.11: an empty message aborts
            return Err(Refused::No("", "An empty message is not kept".to_owned()));
        }
        if std::mem::take(&mut gathered.binary) && message.contains(&0) {
            // RFC 3516 4.3
            let text = "A message with NUL octets is not kept".to_owned();
            return Err(Refused::No("UNKNOWN-CTE", text));
        }
        // RFC 9755 4 has an APPEND with octets of 8 bits in header fields be NO before ENABLE UTF8=ACCEPT. It is not, on purpose:
        // old mail and spam are full of raw Latin-1 and GBK there, programs that move mail (mbsync, imapsync) never say ENABLE, and
        // to them a NO is a message that is left behind. Even ENABLE would be no way for octets that are not UTF-8. Dovecot takes
        // them, too; the octets stay as they are (docs/migration.md).
        self.may_save(gathered.complete.len() + 1)?;
        let (parsed, mut message) = described(message).await?;
        gathered.parsed += parsed.len() + gathered.flags.iter().map(String::len).sum::<usize>();
        if gathered.parsed > DESCRIBED_MAX {
            let text = "Too many messages in one command".to_owned();
            return Err(Refused::No("LIMIT", text));
        }
        if upload.is_none() && gathered.inline + message.len() > Body::INLINE_MAX {
            let len = message.len() as u64;
            let mut file = self.open_upload(gathered.account, len).await?;
            file.write(&mut message).await;
            file.check()?;
            upload = Some(file);
        }
        let body = match upload {
            Some(upload) => {
                let body = upload.body();
                gathered.uploads.push(upload);
                body
            }
            None => {
                gathered.inline += message.len();
                Body::Inline(Octets(message))
            }
        };
        drop(room);
        let now = || i64::try_from(crate::now()).unwrap_or(0);
        gathered.complete.push(AppendMessage {
            flags: std::mem::take(&mut gathered.flags),
            message: NewMessage {
                parsed: Octets(parsed),
                body,
                date: gathered.date.take().unwrap_or_else(now),
            },
        });
        Ok(())
    }

    /// The message of the selected mailbox that REPLACE means (RFC 8508 3).
    async fn replaced(
        &self,
        replaced: Replaced,
        target: &store::Mailbox,
    ) -> Result<(MailboxId, Uid), Refused> {
        let shown = &self.writable()?.shown;
        let found = match replaced.number {
            SequenceNumber::Largest => shown.rows.last(),
            SequenceNumber::Number(uid) if replaced.uid => {
                let at = shown.position(uid);
                at.and_then(|at| shown.rows.get(at))
            }
            SequenceNumber::Number(number) => {
                let at = usize::try_from(number).ok();
                let at = at.and_then(|number| number.checked_sub(1));
                at.and_then(|at| shown.rows.get(at))
            }
        };
        let Some(row) = found else {
            let text = "There is no such message";
            return Err(match replaced.uid {
                true => Refused::No("NONEXISTENT", text.to_owned()),
                false => Refused::Bad(text),
            });
        };
        let (account, mailbox) = (shown.mailbox.account, shown.mailbox.id);
        let grant = self.grant()?;
        let rights = self.service.reader.rights(grant, account, mailbox).await?;
        if !store::owns(grant, account) && !rights.has("te") {
            // RFC 8508 4: what EXPUNGE needs; told before the new message comes
            let text = "You may not remove messages from the selected mailbox".to_owned();
            return Err(Refused::No("NOPERM", text));
        }
        if account != target.account {
            let text = "A message can be replaced by one of the same account only".to_owned();
            return Err(Refused::No("CANNOT", text));
        }
        Ok((mailbox, Uid(row.uid)))
    }

    async fn store(
        &mut self,
        mailbox: store::Mailbox,
        gathered: Gathered,
        replaces: Option<(MailboxId, Uid)>,
    ) -> Done {
        let mutation = Mutation::Append {
            mailbox: mailbox.id,
            messages: gathered.complete,
            replaces,
        };
        let mutated = self.mutate_in(mailbox.account, mutation).await?;
        gathered.uploads.into_iter().for_each(Upload::taken);
        let mut code = String::new();
        // RFC 4315 3, RFC 3502 6.3.11
        if let MutationResult::Appended { uidvalidity, uids } = mutated.result {
            let uids = imap::from_numbers(uids.iter().map(|uid| uid.0));
            let set = super::change::set_text(&uids);
            code = format!("APPENDUID {uidvalidity} {set}");
        }
        if replaces.is_some() {
            // RFC 8508 3.4: told before the message that it replaces is gone
            let said = std::mem::take(&mut code);
            let text = "The replacement is here";
            put::status(&mut self.out, "*", Condition::Ok, &said, text);
        }
        let shown = self.selected.as_ref().map(|one| one.shown.mailbox.id);
        if shown.is_some_and(|shown| shown == mailbox.id) || replaces.is_some() {
            self.refresh().await?;
            self.tell(true, &[]);
        }
        Ok((code, "completed"))
    }

    /// An untagged NO with a reason, for what goes wrong halfway through a command.
    pub(crate) fn warn(&mut self, text: &str) {
        put::status(&mut self.out, "*", Condition::No, "", text);
    }
}

pub(super) fn busy() -> Refused {
    let text = "Too many large messages at once, try again later".to_owned();
    Refused::No("LIMIT", text)
}

/// A message's description, and the message again.
async fn described(message: Vec<u8>) -> Result<(Vec<u8>, Vec<u8>), Refused> {
    let large = message.len() > Body::INLINE_MAX;
    let work = move || {
        let limits = message::Limits::default();
        let parsed = message::parse_within(b"", &message, &limits, PARSED_MAX).1;
        (parsed, message)
    };
    if !large {
        return Ok(work());
    }
    let failed = |_| Refused::No("SERVERBUG", "The message could not be read".to_owned());
    tokio::task::spawn_blocking(work).await.map_err(failed)
}
