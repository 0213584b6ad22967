//! Logins: authd decides, the protocol's own lines go around it.

use crate::guest::Guest;
use crate::{Channel, Ended, Patience};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ipc::api::authd::{AuthContinue, AuthFailure, AuthReply, Login};
use std::future::Future;
use std::time::Duration;
use types::Octets;

/// A login may wait for others' hashing.
const PATIENCE: Duration = Duration::from_secs(60);
/// Octets of a SASL response at most: a token of 16 KiB in base64.
const RESPONSE: usize = 24 * 1024;

/// Why a login was refused. `E` is how the daemon's sessions end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal<E = Ended> {
    /// authd says why.
    Failed(AuthFailure),
    /// The mechanism is not offered now.
    NotOffered,
    /// The response is not base64, or the exchange was malformed.
    Malformed,
    /// The client cancelled it (RFC 4422 5).
    Cancelled,
    /// authd cannot be asked now.
    Unavailable,
    /// Too many connections of this account.
    TooMany,
    /// The connection is over.
    Ended(E),
}

impl From<Ended> for Refusal {
    fn from(ended: Ended) -> Self {
        Self::Ended(ended)
    }
}

/// A session that logs its client in: see [`log_in`].
pub trait Talk: Send {
    /// How such a session ends.
    type End: Send;

    /// Its client.
    fn guest(&mut self) -> &mut Guest;

    /// Sends a challenge and gives the client's response, decoded.
    fn challenge(
        &mut self,
        data: &[u8],
    ) -> impl Future<Output = Result<Vec<u8>, Refusal<Self::End>>> + Send;

    /// As [`SaslText::takes_data`].
    fn takes_data(&self) -> bool {
        false
    }
}

/// Logs a client in. Counts failures; the answer to one is held back as authd wants it. With success comes data for the client,
/// if [`Talk::takes_data`].
///
/// # Errors
/// [`Refusal`]
pub async fn log_in<T: Talk>(
    talk: &mut T,
    mechanism: &str,
    initial: Option<Vec<u8>>,
) -> Result<(Login, Option<Octets>), Refusal<T::End>> {
    let guest = talk.guest();
    if !guest.mechanisms().contains(&mechanism) {
        return Err(Refusal::NotOffered);
    }
    let (trace, client) = (guest.trace, guest.door.address);
    let start = guest.start(mechanism, initial);
    let authd = guest.front.authd.clone();
    let away = |error: ipc::CallError| {
        tracing::warn!(%error, "authd cannot be asked");
        Refusal::Unavailable
    };
    let mut reply = authd
        .call_with(trace, &start, Vec::new(), PATIENCE)
        .await
        .map_err(away)?
        .0;
    loop {
        match reply {
            AuthReply::Challenge { exchange, data } => {
                let response = Octets(talk.challenge(&data).await?);
                let next = AuthContinue { exchange, response };
                reply = authd
                    .call_with(trace, &next, Vec::new(), PATIENCE)
                    .await
                    .map_err(away)?
                    .0;
            }
            AuthReply::Success { login, data } => {
                let data = match data {
                    Some(data) if !talk.takes_data() => {
                        if !talk.challenge(&data).await?.is_empty() {
                            return Err(Refusal::Malformed);
                        }
                        None
                    }
                    data => data,
                };
                tracing::info!(%trace, ?client, login = login.name, "logged in");
                return Ok((login, data));
            }
            AuthReply::Failure { reason, delay_ms } => {
                tracing::info!(%trace, ?client, ?reason, "login failed");
                let pause = Duration::from_millis(u64::from(delay_ms.min(30_000)));
                tokio::time::sleep(pause).await;
                talk.guest().failed += 1;
                return Err(Refusal::Failed(reason));
            }
        }
    }
}

/// How a protocol writes SASL's challenges and reads its responses.
pub trait SaslText: Send {
    /// Sends a challenge and gives the client's response, decoded.
    fn challenge(
        &mut self,
        channel: &mut Channel,
        data: &[u8],
    ) -> impl Future<Output = Result<Vec<u8>, Refusal>> + Send;

    /// Whether data that comes with success goes with the protocol's own success (RFC 5804 2.1), instead of as a last
    /// challenge.
    fn takes_data(&self) -> bool {
        false
    }
}

/// A [`Channel`] with its protocol's way to write.
struct Spoken<'a, T> {
    channel: &'a mut Channel,
    text: &'a mut T,
}

impl<T: SaslText> Talk for Spoken<'_, T> {
    type End = Ended;

    fn guest(&mut self) -> &mut Guest {
        &mut self.channel.guest
    }

    async fn challenge(&mut self, data: &[u8]) -> Result<Vec<u8>, Refusal> {
        self.text.challenge(self.channel, data).await
    }

    fn takes_data(&self) -> bool {
        self.text.takes_data()
    }
}

impl Channel {
    /// [`log_in`], over lines.
    ///
    /// # Errors
    /// [`Refusal`]
    pub async fn login(
        &mut self,
        mechanism: &str,
        initial: Option<Vec<u8>>,
        text: &mut impl SaslText,
    ) -> Result<(Login, Option<Octets>), Refusal> {
        let mut spoken = Spoken {
            channel: self,
            text,
        };
        log_in(&mut spoken, mechanism, initial).await
    }

    /// A line with a response in base64; `*` cancels.
    ///
    /// # Errors
    /// [`Refusal`]
    pub async fn base64_response(&mut self) -> Result<Vec<u8>, Refusal> {
        let Some(mut line) = self.line(RESPONSE, Patience::Stranger).await? else {
            return Err(Refusal::Malformed);
        };
        if line == b"*" {
            return Err(Refusal::Cancelled);
        }
        let decoded = BASE64.decode(&line);
        // What was typed may be a password.
        line.fill(0);
        decoded.map_err(|_| Refusal::Malformed)
    }
}
