//! The SMTP side of the load: one connection, pipelined, nothing clever.

use crate::Outcome;
use std::net::SocketAddr;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// A connection after EHLO.
pub struct Smtp {
    stream: BufReader<TcpStream>,
    line: String,
    outgoing: Vec<u8>,
}

impl Smtp {
    /// Connects and says EHLO.
    pub async fn connect(to: SocketAddr) -> Outcome<Self> {
        let stream = TcpStream::connect(to).await?;
        stream.set_nodelay(true)?;
        let mut this = Self {
            stream: BufReader::new(stream),
            line: String::new(),
            outgoing: Vec::new(),
        };
        this.expect("220").await?;
        this.stream.write_all(b"EHLO perf.example.net\r\n").await?;
        this.expect("250").await?;
        Ok(this)
    }

    /// Sends a message to the recipients; returns when the server has acknowledged it.
    pub async fn send(&mut self, recipients: &[String], message: &[u8]) -> Outcome<()> {
        self.outgoing.clear();
        self.outgoing
            .extend_from_slice(b"MAIL FROM:<sender@example.net>\r\n");
        for recipient in recipients {
            self.outgoing
                .extend_from_slice(format!("RCPT TO:<{recipient}>\r\n").as_bytes());
        }
        self.outgoing.extend_from_slice(b"DATA\r\n");
        self.stream.write_all(&self.outgoing).await?;
        self.expect("250").await?;
        for _ in recipients {
            self.expect("250").await?;
        }
        self.expect("354").await?;
        self.outgoing.clear();
        self.outgoing.extend_from_slice(message);
        self.outgoing.extend_from_slice(b".\r\n");
        self.stream.write_all(&self.outgoing).await?;
        self.expect("250").await
    }

    /// Takes leave.
    pub async fn quit(mut self) -> Outcome<()> {
        self.stream.write_all(b"QUIT\r\n").await?;
        self.expect("221").await
    }

    /// Reads a reply of any number of lines (RFC 5321 4.2.1); it must have that code.
    async fn expect(&mut self, code: &str) -> Outcome<()> {
        loop {
            self.line.clear();
            if self.stream.read_line(&mut self.line).await? == 0 {
                return Err(format!("SMTP: connection closed while waiting for {code}").into());
            }
            if !self.line.starts_with(code) {
                return Err(format!("SMTP: {code} expected, got {}", self.line.trim_end()).into());
            }
            if self.line.as_bytes().get(3) != Some(&b'-') {
                return Ok(());
            }
        }
    }
}
