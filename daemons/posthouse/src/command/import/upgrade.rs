//! STARTTLS towards another IMAP server, by hand: nothing that is said in clear text may be taken for what the server says under TLS.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Octets of clear text in all: a greeting, an answer, and some capabilities.
const CLEAR_MAX: usize = 64 * 1024;
const TAG: &str = "tls";

/// Has the server begin TLS; the connection is then at the first octet of the handshake.
///
/// # Errors
/// Whatever is no plain yes: a greeting that is a login or a leave, a refusal, octets that come unasked.
pub(super) async fn upgrade(plain: &mut TcpStream) -> Result<(), String> {
    let mut clear = Clear {
        stream: plain,
        input: Vec::new(),
        taken: 0,
    };
    let greeting = clear.line().await?;
    match word(&greeting, 1).as_str() {
        "OK" => {}
        // RFC 9051 7.1.4: there is no STARTTLS after the login, so whoever says this forces clear text.
        "PREAUTH" => {
            return Err("it greets with PREAUTH, so that there can be no STARTTLS".to_owned());
        }
        other => return Err(format!("it greets with {other}: {}", shown(&greeting))),
    }
    if clear.has_more() {
        return Err("it says more than its greeting before it is asked".to_owned());
    }
    let command = format!("{TAG} STARTTLS\r\n");
    let sent = clear.stream.write_all(command.as_bytes()).await;
    sent.map_err(|error| error.to_string())?;
    loop {
        let line = clear.line().await?;
        if word(&line, 0) == "*" {
            // RFC 9051 6.2.1: what is told before TLS counts for nothing.
            continue;
        }
        if word(&line, 0) != TAG.to_ascii_uppercase() || word(&line, 1) != "OK" {
            return Err(format!("it refuses STARTTLS: {}", shown(&line)));
        }
        // CVE-2011-0411, and its like for clients
        return match clear.has_more() {
            true => Err("it sent more behind its answer to STARTTLS".to_owned()),
            false => Ok(()),
        };
    }
}

struct Clear<'a> {
    stream: &'a mut TcpStream,
    input: Vec<u8>,
    taken: usize,
}

impl Clear<'_> {
    /// The next line, without its end.
    async fn line(&mut self) -> Result<Vec<u8>, String> {
        loop {
            let rest = self.input.get(self.taken..).unwrap_or_default();
            if let Some(end) = rest.iter().position(|octet| *octet == b'\n') {
                let line = rest.get(..end).unwrap_or_default().to_vec();
                self.taken += end + 1;
                return Ok(line);
            }
            if self.input.len() >= CLEAR_MAX {
                return Err("what it says before TLS is too long".to_owned());
            }
            let mut piece = [0; 4096];
            let count = self.stream.read(&mut piece).await;
            match count.map_err(|error| error.to_string())? {
                0 => return Err("it closed the connection before TLS".to_owned()),
                count => self
                    .input
                    .extend_from_slice(piece.get(..count).unwrap_or_default()),
            }
        }
    }

    fn has_more(&self) -> bool {
        self.taken < self.input.len()
    }
}

/// A word of a response, in capitals.
fn word(line: &[u8], number: usize) -> String {
    String::from_utf8_lossy(line)
        .split_ascii_whitespace()
        .nth(number)
        .unwrap_or_default()
        .to_ascii_uppercase()
}

/// For the operator, with nothing that a terminal obeys.
fn shown(line: &[u8]) -> String {
    String::from_utf8_lossy(line)
        .trim()
        .chars()
        .filter(|c| !c.is_control())
        .take(200)
        .collect()
}
