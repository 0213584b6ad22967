//! `posthouse send`: composes a message, or takes a whole one from standard input as sendmail does, and commits it to
//! queued. Built by lettre; what comes whole stays as it is but for line ends.

use crate::cli::Send;
use crate::connect::Suite;
use crate::failure::Failure;
use crate::output;
use ipc::api::authd::{Resolution, ResolveRecipient};
use ipc::api::queued::{Commit, OpenSpool, Origin, ReserveIds, Right};
use serde_json::json;
use std::io::{Read, Write};
use types::{
    Address, Body, BodyType, Envelope, Notify, Octets, QueueId, Recipient, Role, Route, Terms,
};

pub(crate) async fn run(suite: &Suite, options: Send) -> Result<(), Failure> {
    let mut to = options
        .to
        .iter()
        .map(|text| address(text))
        .collect::<Result<Vec<_>, _>>()?;
    let from = match &options.from {
        Some(text) if text == "<>" => None,
        Some(text) => Some(address(text)?),
        None => Some(address(&format!("postmaster@{}", suite.hostname))?),
    };
    let octets = match &options.subject {
        Some(subject) => compose(from.as_ref(), &to, subject, &text(&options)?)?,
        None => crlf(&standard_input()?),
    };
    if options.read_recipients {
        to.extend(header_recipients(&octets)?);
    }
    if to.is_empty() {
        return Err(Failure::new(
            "say to whom: addresses on the command line, or -t with To in the message",
        ));
    }
    to.sort();
    to.dedup();
    let id = submit(suite, from, to, octets).await?;
    output::done(
        suite.json,
        &format!("Queued as {id}."),
        &json!({ "id": id.to_string() }),
    );
    Ok(())
}

/// Hands a finished message to queued, with the operator's right.
pub(crate) async fn submit(
    suite: &Suite,
    sender: Option<Address>,
    to: Vec<Address>,
    octets: Vec<u8>,
) -> Result<QueueId, Failure> {
    let smtputf8 = to.iter().chain(&sender).any(Address::needs_utf8);
    let mut recipients = Vec::with_capacity(to.len());
    for address in to {
        let route = match suite
            .call(
                Role::Authd,
                &ResolveRecipient {
                    address: address.clone(),
                },
            )
            .await?
        {
            Resolution::Local(_) => Route::Local,
            Resolution::Remote => Route::Remote,
            Resolution::Unknown => {
                return Err(Failure::new(format!("{address} does not exist here")));
            }
            Resolution::Disabled => return Err(Failure::new(format!("{address} is disabled"))),
            Resolution::Refused(status) => return Err(Failure::new(status.text)),
        };
        recipients.push(Recipient {
            address,
            orcpt: None,
            notify: Notify::default(),
            route,
        });
    }
    let id = suite
        .call(Role::Queued, &ReserveIds { count: 1 })
        .await?
        .first;
    let eight_bit = octets.iter().any(|byte| !byte.is_ascii());
    let body = match octets.len() {
        0..=Body::INLINE_MAX => Body::Inline(Octets(octets)),
        len => {
            let request = OpenSpool {
                expected: len as u64,
            };
            let (slot, descriptor) = suite.call_for_file(Role::Queued, &request).await?;
            let mut file = std::fs::File::from(descriptor);
            file.write_all(&octets)
                .map_err(|error| Failure::new(format!("the spool file: {error}")))?;
            Body::Slot {
                slot: slot.slot,
                len: len as u64,
            }
        }
    };
    let commit = Commit {
        id,
        trace: suite.trace,
        origin: Origin {
            right: Right::Operator,
            listener: "local".to_owned(),
            client: "posthouse send".to_owned(),
        },
        envelope: Envelope {
            sender,
            ret: None,
            envid: None,
            body: if eight_bit {
                BodyType::EightBit
            } else {
                BodyType::SevenBit
            },
            smtputf8,
            require_tls: false,
            terms: Terms::default(),
            recipients,
        },
        prefix: Octets::default(),
        body,
        held: None,
    };
    suite.call(Role::Queued, &commit).await?;
    Ok(id)
}

/// A plain message with Date and Message-ID.
pub(crate) fn compose(
    from: Option<&Address>,
    to: &[Address],
    subject: &str,
    text: &str,
) -> Result<Vec<u8>, Failure> {
    let mailbox = |address: &Address| {
        address
            .to_string()
            .parse::<lettre::message::Mailbox>()
            .map_err(|error| Failure::new(format!("{address}: {error}")))
    };
    let mut builder = lettre::Message::builder().subject(subject).message_id(None);
    if let Some(from) = from {
        builder = builder.from(mailbox(from)?);
    }
    for address in to {
        builder = builder.to(mailbox(address)?);
    }
    let message = builder
        .header(lettre::message::header::ContentType::TEXT_PLAIN)
        .body(text.to_owned())
        .map_err(|error| Failure::new(format!("the message cannot be composed: {error}")))?;
    Ok(message.formatted())
}

fn text(options: &Send) -> Result<String, Failure> {
    match &options.text {
        Some(text) => Ok(text.clone()),
        None => Ok(String::from_utf8_lossy(&standard_input()?).into_owned()),
    }
}

fn standard_input() -> Result<Vec<u8>, Failure> {
    let mut octets = Vec::new();
    std::io::stdin()
        .lock()
        .read_to_end(&mut octets)
        .map_err(|error| Failure::new(format!("standard input cannot be read: {error}")))?;
    Ok(octets)
}

/// Line ends of the local system become those of the network.
fn crlf(octets: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(octets.len() + octets.len() / 32);
    for line in octets.split_inclusive(|&byte| byte == b'\n') {
        let bare = line.strip_suffix(b"\n").unwrap_or(line);
        out.extend_from_slice(bare.strip_suffix(b"\r").unwrap_or(bare));
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// The addresses of To, Cc and Bcc.
fn header_recipients(octets: &[u8]) -> Result<Vec<Address>, Failure> {
    let parsed = mail_parser::MessageParser::default()
        .parse_headers(octets)
        .ok_or_else(|| Failure::new("standard input has no message header"))?;
    let fields = [parsed.to(), parsed.cc(), parsed.bcc()];
    fields
        .into_iter()
        .flatten()
        .flat_map(|field| field.clone().into_list())
        .filter_map(|entry| entry.address.map(|text| text.into_owned()))
        .map(|text| address(&text))
        .collect()
}

fn address(text: &str) -> Result<Address, Failure> {
    text.parse()
        .map_err(|error| Failure::new(format!("{text}: {error}")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn local_line_ends_become_those_of_the_network() {
        assert_eq!(crlf(b"a\nb\r\n\nc"), b"a\r\nb\r\n\r\nc\r\n");
        assert_eq!(crlf(b""), b"");
    }

    #[test]
    fn recipients_stand_in_the_header() {
        let message = b"To: A <a@x.test>, b@x.test\r\nBcc: c@y.test\r\n\r\nbody to: d@z.test\r\n";
        let found: Vec<String> = header_recipients(message)
            .unwrap()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(found, ["a@x.test", "b@x.test", "c@y.test"]);
    }
}
