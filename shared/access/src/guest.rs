//! A client that has come in, until it is logged in: what it may use, and how long it may take.

use crate::config::TlsMode;
use crate::listener::{Door, Front};
use crate::{Ended, Refusal, Seat};
use ipc::api::authd::{AuthClient, AuthStart, Login};
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};
use tls::Wire;
use tokio::io::{AsyncRead, AsyncWrite};
use types::{Octets, TraceId};

/// Who is at the other end, as far as it is known without a login.
pub struct Guest {
    pub(crate) front: Front,
    /// How it came.
    pub door: Door,
    /// For logs.
    pub trace: TraceId,
    /// It is under TLS.
    pub secured: bool,
    /// Logins that failed so far.
    pub(crate) failed: u32,
    bindings: Vec<(String, Octets)>,
    since: Instant,
}

impl Guest {
    /// One that has just come: its time runs.
    pub fn new(front: Front, door: Door) -> Self {
        Self {
            front,
            door,
            trace: runtime::new_trace(),
            secured: false,
            failed: 0,
            bindings: Vec::new(),
            since: Instant::now(),
        }
    }

    /// What is left of the time for the TLS handshake, all that is said, and the login: a deadline, whatever comes meanwhile.
    pub fn left(&self) -> Duration {
        Duration::from_secs(self.front.logins.login_s.max(1)).saturating_sub(self.since.elapsed())
    }

    /// The client has to log in (again): its time begins anew.
    pub fn estrange(&mut self) {
        self.since = Instant::now();
    }

    /// Whether the client may ask for TLS now.
    pub fn may_start_tls(&self) -> bool {
        self.door.tls == TlsMode::Starttls && !self.secured && self.front.tls.is_some()
    }

    /// The handshake. What was read before it is the caller's to forget (RFC 2595 4, RFC 5804 2.2, RFC 9051 6.2.1).
    ///
    /// # Errors
    /// It failed, or took what was left of the time until the login.
    pub async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        wire: &mut Wire<S>,
    ) -> Result<(), Ended> {
        let Wire::Plain(stream) = std::mem::replace(wire, Wire::Gone) else {
            return Err(Ended::Gone("TLS twice"));
        };
        let Some(acceptor) = self.front.tls.clone() else {
            return Err(Ended::Gone("no certificate for TLS"));
        };
        match tokio::time::timeout(self.left(), acceptor.accept(stream)).await {
            Ok(Ok(stream)) => {
                // RFC 9266 2
                let exported = stream.get_ref().1.export_keying_material(
                    vec![0_u8; 32],
                    b"EXPORTER-Channel-Binding",
                    Some(b""),
                );
                self.bindings = exported
                    .map(|octets| ("tls-exporter".to_owned(), Octets(octets)))
                    .into_iter()
                    .collect();
                self.secured = true;
                *wire = Wire::Tls(Box::new(stream));
                Ok(())
            }
            Ok(Err(error)) => {
                tracing::info!(trace = %self.trace, client = ?self.door.address, %error, "TLS handshake failed");
                Err(Ended::Gone("TLS handshake failed"))
            }
            Err(_) => Err(Ended::Gone("TLS handshake timed out")),
        }
    }

    /// The mechanisms offered now, in the order of the offer; none where a login needs TLS first.
    pub fn mechanisms(&self) -> Vec<&str> {
        if !self.secured && !self.door.plain {
            return Vec::new();
        }
        let bound = !self.bindings.is_empty();
        // RFC 5802 6: -PLUS needs a channel binding
        let offered = |mechanism: &&str| bound || !mechanism.ends_with("-PLUS");
        self.front
            .logins
            .mechanisms
            .iter()
            .map(String::as_str)
            .filter(offered)
            .collect()
    }

    pub(crate) fn start(&self, mechanism: &str, initial: Option<Vec<u8>>) -> AuthStart {
        AuthStart {
            mechanism: mechanism.to_owned(),
            initial: initial.map(Octets),
            client: AuthClient {
                address: self.door.address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
                service: self.front.service,
                // A network that the configuration trusts in the clear counts as protected.
                tls: self.secured || self.door.plain,
                bindings: self.bindings.clone(),
            },
        }
    }

    /// Whether the client has failed often enough.
    pub fn failed_too_often(&self) -> bool {
        self.failed >= self.front.logins.failed.max(1)
    }

    /// Takes a place among the account's connections.
    ///
    /// # Errors
    /// There are too many.
    pub fn take_place(&self, seat: &mut Seat, login: &Login) -> Result<(), Refusal> {
        let limit = self.front.logins.per_account;
        if seat.log_in(login.grant.account, limit) {
            return Ok(());
        }
        Err(Refusal::TooMany)
    }
}
