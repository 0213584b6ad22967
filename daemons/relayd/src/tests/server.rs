//! A server that does what its script says.

use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, pem::PemObject as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// How the server takes STARTTLS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum StartTls {
    NotOffered,
    Works,
    /// Says 220 and then talks nonsense.
    Broken,
    /// Says 454.
    Refused,
}

/// What it says. Keys are beginnings of commands; `drop` closes the connection instead of a reply. `MESSAGE` stands for
/// the end of a message, `CONNECT` for the connection.
#[derive(Clone)]
pub(super) struct Script {
    pub(super) extensions: Vec<&'static str>,
    pub(super) replies: Vec<(&'static str, &'static str)>,
    pub(super) starttls: StartTls,
    pub(super) implicit: bool,
    pub(super) lmtp: bool,
    pub(super) name: &'static str,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            extensions: vec![
                "PIPELINING",
                "8BITMIME",
                "SIZE 100000000",
                "ENHANCEDSTATUSCODES",
            ],
            replies: Vec::new(),
            starttls: StartTls::NotOffered,
            implicit: false,
            lmtp: false,
            name: "mx.example",
        }
    }
}

#[derive(Default)]
pub(super) struct Seen {
    pub(super) commands: Vec<String>,
    /// Decoded.
    pub(super) messages: Vec<Vec<u8>>,
    pub(super) connections: usize,
    pub(super) tls: usize,
}

#[derive(Clone)]
pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) seen: Arc<Mutex<Seen>>,
    /// The certificate, for `tls_ca_file`.
    pub(super) ca_file: PathBuf,
}

trait Both: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Both for T {}

impl Server {
    pub(super) async fn start(script: Script) -> Self {
        Self::start_at("127.0.0.1:0", script).await
    }

    /// The certificate is good for localhost and mx.example.
    pub(super) async fn start_at(address: &str, script: Script) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let names = ["localhost", "mx.example"].map(str::to_owned);
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let ca_file = std::env::temp_dir().join(format!(
            "posthouse-relayd-{}-{}.pem",
            std::process::id(),
            address.port()
        ));
        std::fs::write(&ca_file, made.cert.pem()).unwrap();
        let key =
            PrivateKeyDer::from_pem_slice(made.signing_key.serialize_pem().as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let seen = Arc::new(Mutex::new(Seen::default()));
        let server = Self {
            address,
            seen: seen.clone(),
            ca_file,
        };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                seen.lock().unwrap().connections += 1;
                let session = Session {
                    script: script.clone(),
                    seen: seen.clone(),
                    acceptor: acceptor.clone(),
                };
                tokio::spawn(session.run(stream));
            }
        });
        server
    }

    pub(super) fn commands(&self) -> Vec<String> {
        self.seen.lock().unwrap().commands.clone()
    }

    pub(super) fn messages(&self) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        seen.messages
            .iter()
            .map(|message| String::from_utf8(message.clone()).unwrap())
            .collect()
    }
}

struct Session {
    script: Script,
    seen: Arc<Mutex<Seen>>,
    acceptor: TlsAcceptor,
}

impl Session {
    fn reply(&self, command: &str) -> Option<&'static str> {
        let matches = |key: &str| {
            command
                .get(..key.len())
                .is_some_and(|head| head.eq_ignore_ascii_case(key))
        };
        self.script
            .replies
            .iter()
            .find(|(key, _)| matches(key))
            .map(|(_, reply)| *reply)
    }

    async fn run(self, stream: TcpStream) {
        let tls = self.script.implicit;
        let stream: Box<dyn Both> = if tls {
            let Ok(stream) = self.acceptor.accept(stream).await else {
                return;
            };
            self.seen.lock().unwrap().tls += 1;
            Box::new(stream)
        } else {
            Box::new(stream)
        };
        let mut stream = BufReader::new(stream);
        let greeting = self.reply("CONNECT").unwrap_or("220 ready");
        if greeting == "drop"
            || stream
                .write_all(format!("{greeting}\r\n").as_bytes())
                .await
                .is_err()
        {
            return;
        }
        let _ = self.talk(stream, tls).await;
    }

    async fn talk(
        &self,
        mut stream: BufReader<Box<dyn Both>>,
        mut tls: bool,
    ) -> std::io::Result<()> {
        let mut recipients = 0;
        let mut in_mail = false;
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            let command = line.trim_end().to_owned();
            self.seen.lock().unwrap().commands.push(command.clone());
            let verb = command.split(' ').next().unwrap().to_ascii_uppercase();
            let scripted = self.reply(&command);
            if scripted == Some("drop") {
                return Ok(());
            }
            let reply = match (scripted, verb.as_str()) {
                (Some(reply), _) => reply.to_owned(),
                (None, "EHLO" | "LHLO") => self.hello(tls),
                (None, "RCPT") if !in_mail => "503 5.5.1 no MAIL".to_owned(),
                (None, "DATA") if recipients == 0 => "503 5.5.1 no recipients".to_owned(),
                (None, "DATA") => "354 go on".to_owned(),
                (None, "STARTTLS") => "220 go on".to_owned(),
                (None, "QUIT") => "221 bye".to_owned(),
                (None, "AUTH") => "235 welcome".to_owned(),
                (None, _) => "250 2.0.0 fine".to_owned(),
            };
            stream.write_all(format!("{reply}\r\n").as_bytes()).await?;
            if verb == "MAIL" {
                in_mail = reply.starts_with('2');
            }
            match verb.as_str() {
                "RCPT" if reply.starts_with('2') => recipients += 1,
                "MAIL" | "RSET" => recipients = 0,
                "QUIT" => return Ok(()),
                "DATA" if reply.starts_with("354") => {
                    self.message(&mut stream, recipients).await?;
                    recipients = 0;
                }
                "BDAT" => self.chunk(&mut stream, &command).await?,
                "STARTTLS" if reply.starts_with("220") => {
                    if self.script.starttls == StartTls::Broken {
                        stream.write_all(b"this is no TLS\r\n").await?;
                        return Ok(());
                    }
                    let accepted = self.acceptor.accept(stream.into_inner()).await?;
                    self.seen.lock().unwrap().tls += 1;
                    stream = BufReader::new(Box::new(accepted));
                    tls = true;
                }
                _ => {}
            }
        }
    }

    fn hello(&self, tls: bool) -> String {
        let mut lines = vec![self.script.name];
        lines.extend(&self.script.extensions);
        if self.script.starttls != StartTls::NotOffered && !tls {
            lines.push("STARTTLS");
        }
        let last = lines.pop().unwrap();
        lines
            .iter()
            .map(|line| format!("250-{line}\r\n"))
            .collect::<String>()
            + "250 "
            + last
    }

    async fn message(
        &self,
        stream: &mut BufReader<Box<dyn Both>>,
        recipients: usize,
    ) -> std::io::Result<()> {
        let mut message = Vec::new();
        loop {
            let mut line = Vec::new();
            if stream.read_until(b'\n', &mut line).await? == 0 {
                return Ok(());
            }
            if self.reply("BODY") == Some("drop") && message.len() > 20 {
                return Err(std::io::ErrorKind::ConnectionReset.into());
            }
            if line == b".\r\n" {
                break;
            }
            message.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
        }
        let reply = self.reply("MESSAGE").unwrap_or("250 2.0.0 queued as 1");
        if reply == "drop" {
            return Err(std::io::ErrorKind::ConnectionReset.into());
        }
        if self.script.lmtp {
            for number in 0..recipients {
                let reply = if number == 1 { "452 4.2.2 full" } else { reply };
                stream.write_all(format!("{reply}\r\n").as_bytes()).await?;
            }
        } else {
            stream.write_all(format!("{reply}\r\n").as_bytes()).await?;
        }
        self.seen.lock().unwrap().messages.push(message);
        Ok(())
    }

    async fn chunk(
        &self,
        stream: &mut BufReader<Box<dyn Both>>,
        command: &str,
    ) -> std::io::Result<()> {
        let size = command.split(' ').nth(1).unwrap().parse().unwrap();
        let mut message = vec![0; size];
        stream.read_exact(&mut message).await?;
        self.seen.lock().unwrap().messages.push(message);
        Ok(())
    }
}
