//! The IMAP side of the load: commands out, answers counted, literals skipped.

use crate::{Outcome, tls};
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// What came back for a command.
#[derive(Default, Debug)]
pub struct Answer {
    /// Untagged responses.
    pub responses: usize,
    /// All octets, literals included.
    pub octets: usize,
    /// The untagged response lines, where they were asked for; literals left out.
    pub lines: Vec<String>,
}

/// A connection.
pub struct Imap {
    stream: Box<dyn Stream>,
    buffer: Vec<u8>,
    start: usize,
    tag: u32,
}

impl Imap {
    /// Connects in clear text and logs in.
    pub async fn login(to: SocketAddr, user: &str, password: &str) -> Outcome<Self> {
        let stream = TcpStream::connect(to).await?;
        stream.set_nodelay(true)?;
        Self::over(Box::new(stream), user, password).await
    }

    /// Connects with TLS from the first octet and logs in.
    pub async fn login_tls(to: SocketAddr, user: &str, password: &str) -> Outcome<Self> {
        let stream = tls::connect(to).await?;
        Self::over(Box::new(stream), user, password).await
    }

    async fn over(stream: Box<dyn Stream>, user: &str, password: &str) -> Outcome<Self> {
        let mut this = Self {
            stream,
            buffer: Vec::with_capacity(256 * 1024),
            start: 0,
            tag: 0,
        };
        let greeting = this.line().await?;
        if !greeting.starts_with("* OK") {
            return Err(format!("IMAP greeting: {greeting}").into());
        }
        this.command(&format!("LOGIN {user} {password}")).await?;
        Ok(this)
    }

    /// Sends a command and reads its answer, which must be OK.
    pub async fn command(&mut self, command: &str) -> Outcome<Answer> {
        self.send(command.as_bytes()).await?;
        self.answer(command, false).await
    }

    /// As [`command`](Self::command), with the untagged lines.
    pub async fn lines(&mut self, command: &str) -> Outcome<Vec<String>> {
        self.send(command.as_bytes()).await?;
        Ok(self.answer(command, true).await?.lines)
    }

    /// Appends a message with a non-synchronising literal (RFC 7888).
    pub async fn append(&mut self, mailbox: &str, message: &[u8]) -> Outcome<()> {
        self.append_all(mailbox, [message]).await
    }

    /// Appends messages by one command (RFC 3502).
    pub async fn append_all<M: AsRef<[u8]>>(
        &mut self,
        mailbox: &str,
        messages: impl IntoIterator<Item = M>,
    ) -> Outcome<()> {
        let mut command = format!("APPEND {mailbox}").into_bytes();
        for message in messages {
            let message = message.as_ref();
            command.extend_from_slice(format!(" (\\Seen) {{{}+}}\r\n", message.len()).as_bytes());
            command.extend_from_slice(message);
        }
        self.send(&command).await?;
        self.answer("APPEND", false).await?;
        Ok(())
    }

    /// How many messages a mailbox has.
    pub async fn messages(&mut self, mailbox: &str) -> Outcome<usize> {
        let lines = self.lines(&format!("STATUS {mailbox} (MESSAGES)")).await?;
        lines
            .iter()
            .find_map(|line| {
                let after = line.split("MESSAGES ").nth(1)?;
                let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
                digits.parse().ok()
            })
            .ok_or_else(|| "IMAP: STATUS without MESSAGES".into())
    }

    /// Begins to IDLE (RFC 2177).
    pub async fn idle(&mut self) -> Outcome<()> {
        self.send(b"IDLE").await?;
        loop {
            let line = self.line().await?;
            if line.starts_with('+') {
                return Ok(());
            }
            if !line.starts_with('*') {
                return Err(format!("IMAP: IDLE refused: {line}").into());
            }
        }
    }

    /// While idling: waits for an EXISTS.
    pub async fn wait_exists(&mut self) -> Outcome<()> {
        while !self.line().await?.ends_with(" EXISTS") {}
        Ok(())
    }

    /// Ends idling.
    pub async fn done(&mut self) -> Outcome<()> {
        self.stream.write_all(b"DONE\r\n").await?;
        self.stream.flush().await?;
        self.answer("DONE", false).await?;
        Ok(())
    }

    async fn send(&mut self, command: &[u8]) -> Outcome<()> {
        self.tag += 1;
        let mut all = format!("t{} ", self.tag).into_bytes();
        all.extend_from_slice(command);
        all.extend_from_slice(b"\r\n");
        self.stream.write_all(&all).await?;
        self.stream.flush().await?;
        Ok(())
    }

    async fn answer(&mut self, command: &str, keep: bool) -> Outcome<Answer> {
        let tag = format!("t{} ", self.tag).into_bytes();
        let mut answer = Answer::default();
        let mut first = true;
        loop {
            let end = self.fill_line().await?;
            let line = self.buffer.get(self.start..end).unwrap_or_default();
            answer.octets += line.len();
            if first {
                if line.starts_with(&tag) {
                    let rest = line.get(tag.len()..).unwrap_or_default();
                    if !rest.starts_with(b"OK") {
                        let text = String::from_utf8_lossy(rest).trim_end().to_owned();
                        return Err(format!("IMAP: {command}: {text}").into());
                    }
                    self.start = end;
                    return Ok(answer);
                }
                answer.responses += 1;
            }
            if keep {
                let text = String::from_utf8_lossy(line).trim_end().to_owned();
                match answer.lines.last_mut() {
                    Some(last) if !first => last.push_str(&text),
                    _ => answer.lines.push(text),
                }
            }
            let literal = literal_length(line);
            self.start = end;
            first = literal.is_none();
            if let Some(length) = literal {
                answer.octets += length;
                self.skip(length).await?;
            }
        }
    }

    /// Reads a line without its end; for lines that carry no literal.
    async fn line(&mut self) -> Outcome<String> {
        let end = self.fill_line().await?;
        let line = self.buffer.get(self.start..end).unwrap_or_default();
        let text = String::from_utf8_lossy(line).trim_end().to_owned();
        self.start = end;
        Ok(text)
    }

    /// Reads until the buffer holds a whole line from `start`; returns where it ends.
    async fn fill_line(&mut self) -> Outcome<usize> {
        let mut searched = self.start;
        loop {
            let rest = self.buffer.get(searched..).unwrap_or_default();
            if let Some(at) = memchr::memchr(b'\n', rest) {
                return Ok(searched + at + 1);
            }
            searched = self.buffer.len() - self.start;
            self.more().await?;
        }
    }

    async fn skip(&mut self, mut length: usize) -> Outcome<()> {
        loop {
            let there = self.buffer.len() - self.start;
            if there >= length {
                self.start += length;
                return Ok(());
            }
            length -= there;
            self.start = self.buffer.len();
            self.more().await?;
        }
    }

    /// Moves what is left to the front and reads on.
    async fn more(&mut self) -> Outcome<()> {
        self.buffer.drain(..self.start);
        self.start = 0;
        if self.stream.read_buf(&mut self.buffer).await? == 0 {
            return Err("IMAP: connection closed".into());
        }
        Ok(())
    }
}

/// `{123}` at the end of a line.
fn literal_length(line: &[u8]) -> Option<usize> {
    let line = line.strip_suffix(b"}\r\n")?;
    let open = memchr::memrchr(b'{', line)?;
    std::str::from_utf8(line.get(open + 1..)?)
        .ok()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::literal_length;

    #[test]
    fn literals_are_seen_at_the_end_of_a_line_only() {
        assert_eq!(literal_length(b"* 1 FETCH (BODY[] {12}\r\n"), Some(12));
        assert_eq!(literal_length(b"* 1 FETCH (BODY[] {12} x\r\n"), None);
        assert_eq!(literal_length(b"* OK {}\r\n"), None);
    }
}
