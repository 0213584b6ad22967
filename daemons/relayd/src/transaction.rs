//! One message over one connection: MAIL, RCPT, DATA or BDAT (RFC 5321 3.3, RFC 2920, RFC 3030, RFC 2033).

use crate::config::{Config, EightBit, Protocol};
use crate::connection::{Connection, Lost};
use crate::content::{CHUNK, Content, Traits};
use crate::service::now;
use crate::verdict::{by_class, with_host};
use smtp::By;
use smtp::client::{self, MailFrom, RcptTo, Reply, Stuffer};
use std::collections::BTreeMap;
use std::time::Duration;
use types::{Address, BodyType, Enhanced, Notify, Outcome, Ret, Status, Terms, TraceId};

use ipc::api::relayd::{Manner, RelayRecipient};

/// What is sent.
#[derive(Debug)]
pub(crate) struct Job {
    /// For logs.
    pub(crate) trace: TraceId,
    pub(crate) sender: Option<Address>,
    pub(crate) ret: Option<Ret>,
    pub(crate) envid: Option<String>,
    pub(crate) body_type: BodyType,
    pub(crate) smtputf8: bool,
    pub(crate) require_tls: bool,
    pub(crate) terms: Terms,
    /// What a rule of the queue wants.
    pub(crate) manner: Manner,
    pub(crate) recipients: Vec<RelayRecipient>,
    pub(crate) content: Content,
    pub(crate) traits: Traits,
}

/// Outcomes by the recipient's index in the envelope.
pub(crate) type Outcomes = BTreeMap<u16, Outcome>;

/// A connection that broke in the middle of it.
#[derive(Debug)]
pub(crate) struct Interrupted {
    pub(crate) lost: Lost,
    /// The whole message had been sent: the host may have it (RFC 1047), so no other host is asked in this attempt.
    pub(crate) after_end: bool,
}

impl From<Lost> for Interrupted {
    fn from(lost: Lost) -> Self {
        Self {
            lost,
            after_end: false,
        }
    }
}

/// Whether the message may go to this host at all; otherwise why not.
pub(crate) fn unsuitable(job: &Job, connection: &Connection, config: &Config) -> Option<Status> {
    let offered = &connection.offered;
    let label = &connection.label;
    let refuse = |code, enhanced, text: String| Some(with_host(label, code, enhanced, text));
    if let Some(end) = job.terms.return_at() {
        // RFC 2852 4.1: one that is to be returned in time may only go where that is known
        let Some(least) = offered.deliver_by else {
            let text = format!("{label} cannot return mail at a time limit (DELIVERBY)");
            return refuse(550, Enhanced(5, 3, 3), text);
        };
        let left = end.saturating_sub(now());
        if left == 0 || left < u64::from(least) {
            let text =
                format!("{left} seconds are left, and {label} wants at least {least} (DELIVERBY)");
            return refuse(550, Enhanced(5, 4, 7), text);
        }
    }
    // RFC 1870 6.1
    if let Some(max) = offered.max_size
        && job.content.len() > max
    {
        let text = format!(
            "the message has {} octets, {label} takes {max}",
            job.content.len()
        );
        return refuse(552, Enhanced(5, 3, 4), text);
    }
    let needs_utf8 = job.traits.utf8_header
        || job.sender.as_ref().is_some_and(Address::needs_utf8)
        || job
            .recipients
            .iter()
            .any(|recipient| recipient.address.needs_utf8());
    // RFC 6531 3.2: a message that needs it may not go where it is not offered. One that was only declared so may.
    if job.smtputf8 && needs_utf8 && !offered.smtputf8 {
        return refuse(
            550,
            Enhanced(5, 6, 7),
            format!("{label} does not support internationalised mail (SMTPUTF8)"),
        );
    }
    // RFC 3030 3
    if job.body_type == BodyType::Binary && !offered.binary {
        return refuse(
            554,
            Enhanced(5, 6, 3),
            format!("{label} does not take binary mail (BINARYMIME)"),
        );
    }
    // RFC 6152 3
    if job.traits.eight_bit && !offered.eight_bit && config.eight_bit == EightBit::Bounce {
        return refuse(
            554,
            Enhanced(5, 6, 3),
            format!("{label} does not take eight-bit text (8BITMIME)"),
        );
    }
    None
}

/// Sends the message to those of `recipients` (positions in the job's list). Outcomes are added as they become known, also
/// before an interruption.
pub(crate) async fn send(
    job: &Job,
    recipients: &[usize],
    connection: &mut Connection,
    protocol: Protocol,
    config: &Config,
    outcomes: &mut Outcomes,
) -> Result<(), Interrupted> {
    connection.messages += 1;
    let bdat = job.body_type == BodyType::Binary;
    let accepted = if connection.offered.pipelining {
        envelope_pipelined(job, recipients, connection, !bdat, outcomes).await?
    } else {
        envelope_stepwise(job, recipients, connection, !bdat, outcomes).await?
    };
    let (accepted, go_on) = accepted;
    if accepted.is_empty() {
        if go_on {
            // RFC 2920 3.1: DATA was accepted although no recipient was: an empty message that nobody gets.
            connection.out.extend_from_slice(b".\r\n");
            let limit = Config::seconds(config.data_timeout);
            connection.flush("ending an empty message", limit).await?;
            connection.next_reply("ending an empty message").await?;
        }
        return Ok(());
    }
    if !go_on && !bdat {
        return Ok(());
    }
    let sent = if bdat {
        send_binary(job, connection, config).await
    } else {
        send_text(job, connection, config).await
    };
    if let Err(lost) = sent {
        // The host may have said why before it closed.
        let reply = connection
            .reply("sending the message", Duration::from_secs(2))
            .await;
        return match reply {
            Ok(reply) if !reply.is_positive() => {
                decide(outcomes, job, &accepted, &reply, connection);
                Err(lost.into())
            }
            _ => Err(lost.into()),
        };
    }
    final_replies(job, &accepted, connection, protocol, config, outcomes).await
}

/// The reply, or with LMTP the replies, to the end of the message.
async fn final_replies(
    job: &Job,
    accepted: &[usize],
    connection: &mut Connection,
    protocol: Protocol,
    config: &Config,
    outcomes: &mut Outcomes,
) -> Result<(), Interrupted> {
    let limit = Config::seconds(config.final_timeout);
    let stage = "waiting for the message to be accepted";
    let after_end = |lost| Interrupted {
        lost,
        after_end: true,
    };
    if protocol == Protocol::Smtp {
        let reply = connection.reply(stage, limit).await.map_err(after_end)?;
        decide(outcomes, job, accepted, &reply, connection);
        return Ok(());
    }
    // RFC 2033 4.2: one for each accepted recipient, in their order.
    for position in accepted {
        let reply = connection.reply(stage, limit).await.map_err(after_end)?;
        decide(
            outcomes,
            job,
            std::slice::from_ref(position),
            &reply,
            connection,
        );
    }
    Ok(())
}

fn decide(
    outcomes: &mut Outcomes,
    job: &Job,
    positions: &[usize],
    reply: &Reply,
    connection: &Connection,
) {
    for position in positions {
        if let Some(recipient) = job.recipients.get(*position) {
            outcomes.insert(
                recipient.index,
                by_class(reply.status(Some(&connection.label))),
            );
        }
    }
}

fn write_mail(job: &Job, connection: &mut Connection) {
    let offered = connection.offered.clone();
    let mail = MailFrom {
        sender: job.sender.as_ref(),
        size: Some(job.content.len()),
        body: match job.body_type {
            BodyType::Binary => BodyType::Binary,
            _ if job.traits.eight_bit => BodyType::EightBit,
            other => other,
        },
        smtputf8: job.smtputf8,
        ret: job.ret,
        envid: job.envid.as_deref(),
        require_tls: job.require_tls,
        // RFC 6710 4.3: what was asked for and granted here
        priority: job.terms.priority,
        // RFC 2852 4.1.3: less what has passed here
        by: job.terms.by.map(|by| By {
            seconds: by
                .deadline
                .cast_signed()
                .saturating_sub(now().cast_signed()),
            mode: by.mode,
            trace: by.trace,
        }),
    };
    client::mail(&mut connection.out, &mail, &offered);
}

fn write_rcpt(job: &Job, position: usize, connection: &mut Connection) {
    let Some(recipient) = job.recipients.get(position) else {
        return;
    };
    let offered = connection.offered.clone();
    let rcpt = RcptTo {
        address: &recipient.address,
        notify: notify(recipient.notify, &job.terms, offered.deliver_by.is_some()),
        orcpt: recipient.orcpt.as_deref(),
    };
    client::rcpt(&mut connection.out, &rcpt, &offered, job.smtputf8);
}

/// RFC 2852 4.1.4.2: a host that knows nothing of a time limit which is not over is asked to report delays in its place.
fn notify(asked: Notify, terms: &Terms, by_passed: bool) -> Notify {
    let limit = terms.notify_at().filter(|limit| *limit > now());
    if limit.is_none() || by_passed || asked.is_never() {
        return asked;
    }
    Notify {
        delay: true,
        explicit: true,
        ..asked
    }
}

/// What RCPT's answer means: RFC 5321 4.5.3.1.10 says that 552 here is to be read as 452, too many recipients.
fn rcpt_outcome(reply: &Reply, connection: &Connection) -> Outcome {
    let mut status = reply.status(Some(&connection.label));
    let full_mailbox = reply.enhanced.is_some_and(|code| code.1 == 2);
    if reply.code == 552 && !full_mailbox {
        status.code = 452;
        status.enhanced = Enhanced(4, status.enhanced.1, status.enhanced.2);
    }
    by_class(status)
}

/// The whole envelope in one go (RFC 2920). Gives the accepted recipients, and whether the host waits for the message.
async fn envelope_pipelined(
    job: &Job,
    recipients: &[usize],
    connection: &mut Connection,
    with_data: bool,
    outcomes: &mut Outcomes,
) -> Result<(Vec<usize>, bool), Interrupted> {
    if connection.unproved {
        // RFC 2920 3.1: RSET may stand anywhere in a group
        client::rset(&mut connection.out);
    }
    write_mail(job, connection);
    for position in recipients {
        write_rcpt(job, *position, connection);
    }
    if with_data {
        client::data(&mut connection.out);
    }
    connection.send("sending the envelope").await?;
    if connection.unproved {
        let stage = "saying RSET";
        if !connection.next_reply(stage).await?.is_positive() {
            return Err(Lost::Closed(stage).into());
        }
        connection.unproved = false;
    }
    let mail = connection.next_reply("saying MAIL").await?;
    let mut accepted = Vec::new();
    for position in recipients {
        let reply = connection.next_reply("saying RCPT").await?;
        if !mail.is_positive() {
            decide(
                outcomes,
                job,
                std::slice::from_ref(position),
                &mail,
                connection,
            );
        } else if reply.is_positive() {
            accepted.push(*position);
        } else if let Some(recipient) = job.recipients.get(*position) {
            outcomes.insert(recipient.index, rcpt_outcome(&reply, connection));
        }
    }
    if !with_data {
        return Ok((accepted, false));
    }
    let data = connection.next_reply("saying DATA").await?;
    if !data.is_intermediate() {
        decide(outcomes, job, &accepted, &data, connection);
        unexpected_success(outcomes, job, &accepted);
    }
    Ok((accepted, data.is_intermediate()))
}

/// Command by command, for hosts without PIPELINING.
async fn envelope_stepwise(
    job: &Job,
    recipients: &[usize],
    connection: &mut Connection,
    with_data: bool,
    outcomes: &mut Outcomes,
) -> Result<(Vec<usize>, bool), Interrupted> {
    write_mail(job, connection);
    let mail = connection.command("saying MAIL", |_| ()).await?;
    if !mail.is_positive() {
        decide(outcomes, job, recipients, &mail, connection);
        return Ok((Vec::new(), false));
    }
    let mut accepted = Vec::new();
    for position in recipients {
        write_rcpt(job, *position, connection);
        let reply = connection.command("saying RCPT", |_| ()).await?;
        if reply.is_positive() {
            accepted.push(*position);
        } else if let Some(recipient) = job.recipients.get(*position) {
            outcomes.insert(recipient.index, rcpt_outcome(&reply, connection));
        }
    }
    if accepted.is_empty() || !with_data {
        return Ok((accepted, false));
    }
    let data = connection.command("saying DATA", client::data).await?;
    if !data.is_intermediate() {
        decide(outcomes, job, &accepted, &data, connection);
        unexpected_success(outcomes, job, &accepted);
    }
    Ok((accepted, data.is_intermediate()))
}

/// A 2xx to DATA is no acceptance of a message that was never sent.
fn unexpected_success(outcomes: &mut Outcomes, job: &Job, accepted: &[usize]) {
    for recipient in accepted
        .iter()
        .filter_map(|position| job.recipients.get(*position))
    {
        if let Some(outcome) = outcomes.get_mut(&recipient.index)
            && let Outcome::Done(status) = outcome
        {
            *outcome = Outcome::Temporary(status.clone());
        }
    }
}

async fn send_text(job: &Job, connection: &mut Connection, config: &Config) -> Result<(), Lost> {
    let limit = Config::seconds(config.data_timeout);
    let stage = "sending the message";
    let mut stuffer = Stuffer::default();
    stuffer.encode_into(&job.content.head, &mut connection.out);
    let mut offset = 0;
    loop {
        let chunk = job
            .content
            .body
            .piece(offset, CHUNK)
            .await
            .map_err(|error| Lost::Io("reading the message", error))?;
        offset += chunk.len() as u64;
        stuffer.encode_into(&chunk, &mut connection.out);
        let done = chunk.is_empty() || offset >= job.content.body.len();
        if done {
            stuffer.finish_into(&mut connection.out);
        }
        connection.flush(stage, limit).await?;
        if done {
            return Ok(());
        }
    }
}

async fn send_binary(job: &Job, connection: &mut Connection, config: &Config) -> Result<(), Lost> {
    let limit = Config::seconds(config.data_timeout);
    let stage = "sending the message";
    client::bdat(&mut connection.out, job.content.len(), true);
    connection.out.extend_from_slice(&job.content.head);
    let mut offset = 0;
    loop {
        let chunk = job
            .content
            .body
            .piece(offset, CHUNK)
            .await
            .map_err(|error| Lost::Io("reading the message", error))?;
        offset += chunk.len() as u64;
        connection.out.extend_from_slice(&chunk);
        connection.flush(stage, limit).await?;
        if chunk.is_empty() || offset >= job.content.body.len() {
            return Ok(());
        }
    }
}
