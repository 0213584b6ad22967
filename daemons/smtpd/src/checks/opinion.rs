//! The checks without a session: what smtpd would make of a message from somebody (`posthouse judge`).

use super::{Checks, Decision, Letter};
use crate::Config;
use runtime::Failure;
use std::net::IpAddr;
use types::{Address, Notify, Recipient, Route};

/// A message that might arrive.
#[derive(Clone, Debug)]
pub struct Question<'a> {
    /// The client's address.
    pub client: IpAddr,
    /// What it calls itself.
    pub helo: &'a str,
    /// MAIL FROM.
    pub sender: Option<Address>,
    /// RCPT TO.
    pub recipients: Vec<Address>,
    /// Through which listener; empty is the first for other servers.
    pub listener: &'a str,
    /// The whole message.
    pub message: &'a [u8],
}

/// What would become of it.
#[derive(Clone, Debug)]
pub struct Opinion {
    /// What the checks found.
    pub report: mailauth::Report,
    /// The fields that it would get.
    pub fields: String,
    /// The refusal: code, enhanced code and text. `None` if it would be taken.
    pub refusal: Option<String>,
}

/// Checks a message as if it arrived, wherever from: also where a client of that address is not judged.
///
/// # Errors
/// A configuration that makes no sense, or has no listener of that name.
pub async fn opinion(
    config: &Config,
    suite: &str,
    question: &Question<'_>,
) -> Result<Opinion, Failure> {
    let mut settings = config.checks.clone();
    settings.enabled = true;
    let hostname = config.hostname.as_deref().unwrap_or(suite);
    let first = || {
        let mut listeners = config.listener.iter();
        listeners.find(|one| one.role == crate::ListenerRole::Mx)
    };
    let listener = match question.listener {
        "" => first().map_or("", |one| one.name.as_str()),
        name if config.listener.iter().any(|one| one.name == name) => name,
        name => return Err(Failure::new(format!("there is no listener {name:?}"))),
    };
    let (Some(checks), Some(judge)) = (Checks::new(&settings)?, crate::judge(&settings, hostname)?)
    else {
        return Err(Failure::new("nothing is checked"));
    };
    let end = mailauth::header_len(question.message).unwrap_or(question.message.len());
    let (header, body) = question.message.split_at(end);
    let mut hashes = mailauth::BodyHashes::wanted(header);
    hashes.update(body);
    let client = mailauth::Client {
        address: question.client,
        helo: question.helo,
        sender: question.sender.as_ref(),
    };
    let report = judge.judge(&client, header, hashes).await;
    let recipient = |address: &Address| Recipient {
        address: address.clone(),
        orcpt: None,
        notify: Notify::default(),
        route: Route::Local,
    };
    let recipients: Vec<Recipient> = question.recipients.iter().map(recipient).collect();
    let letter = Letter {
        listener,
        sender: question.sender.as_ref(),
        recipients: &recipients,
    };
    let own = match settings.authserv_id.as_str() {
        "" => hostname,
        own => own,
    };
    let mut fields = report.field(own);
    let refusal = match Decision::new(&checks.config, &report, &letter) {
        Decision::Refuse(code, enhanced, text) => Some(format!("{code} {enhanced} {text}")),
        Decision::Take(suspicions) => {
            for suspicion in suspicions {
                suspicion.write(&mut fields);
            }
            None
        }
    };
    Ok(Opinion {
        report,
        fields,
        refusal,
    })
}
