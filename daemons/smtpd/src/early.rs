//! Who speaks before its turn.

use crate::config::{EarlyConfig, TlsMode};
use std::time::Duration;
use tokio::net::TcpStream;

/// First words of other protocols: HTTP and what is like it, SSH.
const FOREIGN: [&[u8]; 12] = [
    b"GET ",
    b"POST ",
    b"HEAD ",
    b"PUT ",
    b"DELETE ",
    b"OPTIONS ",
    b"CONNECT ",
    b"TRACE ",
    b"PATCH ",
    b"PRI ",
    b"SSH-",
    b"RTSP/",
];

/// Whether a line is one of another protocol: of HTTP, SSH, or the like.
pub(crate) fn is_foreign(line: &[u8]) -> bool {
    FOREIGN.iter().any(|word| {
        line.get(..word.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(word))
    })
}

/// Whether a stranger has sent something although it was not greeted yet. Behind a PROXY header that is looked for too; under
/// implicit TLS the client speaks first.
pub(crate) async fn talks(stream: &TcpStream, tls: TlsMode, config: &EarlyConfig) -> bool {
    if tls == TlsMode::Implicit || config.before_greeting == crate::config::EarlyAction::Allow {
        return false;
    }
    if is_there(stream) {
        return true;
    }
    let delay = Duration::from_millis(config.greeting_delay_ms.min(60_000));
    if delay.is_zero() {
        return false;
    }
    let mut one = [0_u8; 1];
    // 0 octets: it has gone.
    matches!(
        tokio::time::timeout(delay, stream.peek(&mut one)).await,
        Ok(Ok(1))
    )
}

/// Whether octets are in the socket now. tokio would first have to hear of them.
fn is_there(stream: &TcpStream) -> bool {
    use rustix::net::{RecvFlags, recv};
    let mut one = [0_u8; 1];
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    recv(stream, &mut one[..], flags).is_ok_and(|(_, count)| count > 0)
}

#[cfg(test)]
mod tests {
    use super::is_foreign;

    #[test]
    fn other_protocols() {
        for line in [&b"GET / HTTP/1.1"[..], b"post /x HTTP/1.0", b"SSH-2.0-x"] {
            assert!(is_foreign(line));
        }
        for line in [&b"EHLO get.example"[..], b"HELP", b"", b"GETTING"] {
            assert!(!is_foreign(line));
        }
    }
}
