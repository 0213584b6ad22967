//! IMAP: another server's folders, read with EXAMINE and BODY.PEEK, so that nothing changes there.

use super::source::{Coming, Folder, Item, crlf, keywords, name_of};
use crate::cli::Protection;
use crate::failure::Failure;
use async_imap::types::{Flag, NameAttribute};
use async_imap::{Client, Session};
use futures_util::StreamExt as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use std::collections::{HashSet, VecDeque};
use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;

/// Messages that are asked for at once.
const CHUNK: usize = 64;
/// Silence of the server after which the connection counts as lost.
const PATIENCE: Duration = Duration::from_secs(180);
/// Connections that may fail one after the other without bringing a message.
const FAILURES: u32 = 4;

/// A connection, with or without TLS.
trait Wire: AsyncRead + AsyncWrite + Unpin + Send + Debug {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send + Debug> Wire for T {}

type Open = Session<Box<dyn Wire>>;

/// Another server.
pub(crate) struct Imap {
    /// As it was typed.
    pub(crate) server: String,
    /// The login.
    pub(crate) user: String,
    password: String,
    host: String,
    port: u16,
    protection: Protection,
    tls: Arc<rustls::ClientConfig>,
    only: Vec<String>,
}

/// What is known of a server before it is connected to.
pub(crate) struct Login {
    /// `name` or `name:port`.
    pub(crate) server: String,
    /// The login.
    pub(crate) user: String,
    /// Its password.
    pub(crate) password: String,
    /// How the connection is protected.
    pub(crate) protection: Protection,
    /// Folders that are wanted; empty for all.
    pub(crate) only: Vec<String>,
}

impl Imap {
    /// Prepares; the first connection is made by [`Imap::folders`].
    pub(crate) fn new(login: Login, ca: Option<&Path>) -> Result<Self, Failure> {
        let default = if login.protection == Protection::Implicit {
            993
        } else {
            143
        };
        let (host, port) = host_and_port(&login.server, default)?;
        Ok(Self {
            host,
            port,
            server: login.server,
            user: login.user,
            password: login.password,
            protection: login.protection,
            only: login.only,
            tls: Arc::new(tls(ca)?),
        })
    }

    async fn open(&self) -> Result<Open, String> {
        let connecting = self.connect();
        tokio::time::timeout(PATIENCE, connecting)
            .await
            .map_err(|_| format!("{} does not answer", self.server))?
    }

    async fn connect(&self) -> Result<Open, String> {
        let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", self.server);
        let plain = TcpStream::connect((self.host.as_str(), self.port))
            .await
            .map_err(|error| failed(&error))?;
        let _ = plain.set_nodelay(true);
        let greeted = |client: Client<Box<dyn Wire>>| async {
            let mut client = client;
            match client.read_response().await {
                Ok(Some(_)) => Ok(client),
                Ok(None) => Err(failed(&"no greeting")),
                Err(error) => Err(failed(&error)),
            }
        };
        let client = match self.protection {
            Protection::Implicit => {
                let stream: Box<dyn Wire> = Box::new(self.secure(plain).await?);
                greeted(Client::new(stream)).await?
            }
            Protection::None => greeted(Client::new(Box::new(plain) as Box<dyn Wire>)).await?,
            Protection::Starttls => {
                let mut plain = plain;
                let upgraded = super::upgrade::upgrade(&mut plain).await;
                upgraded.map_err(|error| failed(&error))?;
                let stream: Box<dyn Wire> = Box::new(self.secure(plain).await?);
                Client::new(stream)
            }
        };
        client
            .login(&self.user, &self.password)
            .await
            .map_err(|(error, _)| format!("{}: the login of {}: {error}", self.server, self.user))
    }

    async fn secure(&self, plain: TcpStream) -> Result<impl Wire + use<>, String> {
        let name = ServerName::try_from(self.host.clone())
            .map_err(|_| format!("{} is no name or address", self.host))?;
        TlsConnector::from(Arc::clone(&self.tls))
            .connect(name, plain)
            .await
            .map_err(|error| {
                format!(
                    "{}: TLS: {error} (--ca FILE trusts another certificate)",
                    self.server
                )
            })
    }

    /// All folders, with their special use and whether they are subscribed.
    pub(crate) async fn folders(&self) -> Result<Vec<Folder>, Failure> {
        let failed = |error: async_imap::error::Error| {
            Failure::new(format!("{}: the list of folders: {error}", self.server))
        };
        let mut session = self.open().await.map_err(Failure::new)?;
        let mut subscribed = HashSet::new();
        {
            let mut names = session.lsub(Some(""), Some("*")).await.map_err(failed)?;
            while let Some(name) = names.next().await {
                subscribed.insert(name.map_err(failed)?.name().to_owned());
            }
        }
        let mut folders = Vec::new();
        {
            let mut names = session.list(Some(""), Some("*")).await.map_err(failed)?;
            while let Some(name) = names.next().await {
                let name = name.map_err(failed)?;
                let mut folder = folder(name.name(), name.delimiter(), name.attributes());
                folder.subscribed = subscribed.contains(name.name());
                if self.wanted(&folder) {
                    folders.push(folder);
                }
            }
        }
        let _ = session.logout().await;
        folders.sort_by(|a, b| a.name.cmp(&b.name));
        folders.dedup_by(|a, b| a.at == b.at);
        Ok(folders)
    }

    fn wanted(&self, folder: &Folder) -> bool {
        // A view of all messages is no folder of its own (Gmail's All Mail without labels is: it can be named).
        let named = |only: &String| *only == folder.at || *only == folder.name;
        match self.only.is_empty() {
            true => folder.special_use.as_deref() != Some("\\All"),
            false => self.only.iter().any(named),
        }
    }

    /// Its messages.
    pub(crate) async fn count(&self, folder: &Folder) -> Result<u64, Failure> {
        if !folder.selectable {
            return Ok(0);
        }
        let mut session = self.open().await.map_err(Failure::new)?;
        let mailbox = session
            .examine(&folder.at)
            .await
            .map_err(|error| Failure::new(format!("{}: {}: {error}", self.server, folder.name)))?;
        let _ = session.logout().await;
        Ok(u64::from(mailbox.exists))
    }

    /// Reads a folder's messages by UID. A lost connection is made again.
    pub(crate) async fn read(
        &self,
        folder: &Folder,
        done: &HashSet<String>,
        out: &mpsc::Sender<Coming>,
    ) {
        if !folder.selectable {
            return;
        }
        let mut left = Left::default();
        let mut failures = 0;
        loop {
            let before = left.came;
            match self.read_some(folder, done, &mut left, out).await {
                Ok(()) => return,
                Err(_) if out.is_closed() => return,
                Err(text) => {
                    failures = if left.came > before { 0 } else { failures + 1 };
                    // Whatever breaks the connection again and again is passed over.
                    if failures >= 2
                        && left.single
                        && let Some((validity, uid)) = left.front()
                    {
                        left.uids.pop_front();
                        failures = 0;
                        let key = format!("{validity}.{uid}");
                        let _ = out.send(Err((Some(key), text))).await;
                        continue;
                    }
                    if failures >= FAILURES {
                        let _ = out.send(Err((None, text))).await;
                        return;
                    }
                    left.single = failures > 0;
                    tokio::time::sleep(Duration::from_millis(200 << failures.min(5))).await;
                }
            }
        }
    }

    async fn read_some(
        &self,
        folder: &Folder,
        done: &HashSet<String>,
        left: &mut Left,
        out: &mpsc::Sender<Coming>,
    ) -> Result<(), String> {
        let failed =
            |error: async_imap::error::Error| format!("{}: {}: {error}", self.server, folder.name);
        let mut session = self.open().await?;
        let mailbox = session.examine(&folder.at).await.map_err(failed)?;
        let validity = mailbox.uid_validity.unwrap_or(0);
        if left.validity != Some(validity) {
            let uids = session.uid_search("ALL").await.map_err(failed)?;
            let mut uids: Vec<u32> = uids
                .into_iter()
                .filter(|uid| !done.contains(&format!("{validity}.{uid}")))
                .collect();
            uids.sort_unstable();
            left.uids = uids.into();
            left.validity = Some(validity);
        }
        while !left.uids.is_empty() {
            let count = if left.single { 1 } else { CHUNK };
            let chunk: Vec<u32> = left.uids.iter().take(count).copied().collect();
            self.fetch(&mut session, validity, &chunk, left, out)
                .await
                .map_err(|text| format!("{}: {}: {text}", self.server, folder.name))?;
            // What the server did not give is gone, or it cannot read it itself.
            for uid in chunk {
                if left.uids.front() == Some(&uid) || left.uids.contains(&uid) {
                    left.uids.retain(|one| *one != uid);
                    let text = "the server did not give it".to_owned();
                    let key = format!("{validity}.{uid}");
                    if out.send(Err((Some(key), text))).await.is_err() {
                        return Ok(());
                    }
                }
            }
            left.single = false;
        }
        let _ = session.logout().await;
        Ok(())
    }

    /// Fetches a few messages, and gives them on in the order of their UIDs.
    async fn fetch(
        &self,
        session: &mut Open,
        validity: u32,
        chunk: &[u32],
        left: &mut Left,
        out: &mpsc::Sender<Coming>,
    ) -> Result<(), String> {
        let set: Vec<String> = chunk.iter().map(u32::to_string).collect();
        let mut fetched = session
            .uid_fetch(set.join(","), "(UID FLAGS INTERNALDATE BODY.PEEK[])")
            .await
            .map_err(|error| error.to_string())?;
        loop {
            let next = tokio::time::timeout(PATIENCE, fetched.next()).await;
            let next = next.map_err(|_| "the server is silent".to_owned())?;
            let Some(fetch) = next else { return Ok(()) };
            let fetch = fetch.map_err(|error| error.to_string())?;
            // A change of flags by somebody else comes without a body.
            let (Some(uid), Some(body)) = (fetch.uid, fetch.body()) else {
                continue;
            };
            if !chunk.contains(&uid) || !left.uids.contains(&uid) {
                continue;
            }
            left.uids.retain(|one| *one != uid);
            left.came += 1;
            let key = format!("{validity}.{uid}");
            let coming = if body.is_empty() {
                Err((Some(key), "it is empty".to_owned()))
            } else {
                Ok(Item {
                    key,
                    flags: flags(fetch.flags()),
                    date: fetch.internal_date().map_or(0, |date| date.timestamp()),
                    octets: crlf(body),
                })
            };
            if out.send(coming).await.is_err() {
                return Err("stopped".to_owned());
            }
        }
    }
}

/// What of a folder is still to come.
#[derive(Default)]
struct Left {
    validity: Option<u32>,
    uids: VecDeque<u32>,
    came: u64,
    /// One at a time, to find the one that breaks the connection.
    single: bool,
}

impl Left {
    fn front(&self) -> Option<(u32, u32)> {
        Some((self.validity?, *self.uids.front()?))
    }
}

fn flags<'a>(given: impl Iterator<Item = Flag<'a>>) -> Vec<String> {
    let mut flags = Vec::new();
    let mut words = Vec::new();
    for flag in given {
        match flag {
            Flag::Seen => flags.push("\\Seen".to_owned()),
            Flag::Answered => flags.push("\\Answered".to_owned()),
            Flag::Flagged => flags.push("\\Flagged".to_owned()),
            Flag::Deleted => flags.push("\\Deleted".to_owned()),
            Flag::Draft => flags.push("\\Draft".to_owned()),
            Flag::Custom(word) if !word.starts_with('\\') => words.push(word.into_owned()),
            Flag::Custom(_) | Flag::Recent | Flag::MayCreate => {}
        }
    }
    flags.extend(keywords(words.iter().map(String::as_str)));
    flags
}

fn folder(at: &str, delimiter: Option<&str>, attributes: &[NameAttribute<'_>]) -> Folder {
    let unicode = imap::utf7::decode(at.as_bytes()).unwrap_or_else(|_| at.to_owned());
    let name = match delimiter.filter(|delimiter| !delimiter.is_empty()) {
        Some(delimiter) => name_of(unicode.trim_end_matches(delimiter).split(delimiter)),
        None => name_of([unicode.as_str()].into_iter()),
    };
    let special_use = attributes.iter().find_map(|attribute| match attribute {
        NameAttribute::All => Some("\\All"),
        NameAttribute::Archive => Some("\\Archive"),
        NameAttribute::Drafts => Some("\\Drafts"),
        NameAttribute::Flagged => Some("\\Flagged"),
        NameAttribute::Junk => Some("\\Junk"),
        NameAttribute::Sent => Some("\\Sent"),
        NameAttribute::Trash => Some("\\Trash"),
        NameAttribute::Extension(name) if name.eq_ignore_ascii_case("\\Important") => {
            Some("\\Important")
        }
        _ => None,
    });
    let unselectable = |attribute: &NameAttribute<'_>| match attribute {
        NameAttribute::NoSelect => true,
        NameAttribute::Extension(name) => name.eq_ignore_ascii_case("\\NonExistent"),
        _ => false,
    };
    Folder {
        at: at.to_owned(),
        name,
        special_use: special_use.map(str::to_owned),
        subscribed: false,
        selectable: !attributes.iter().any(unselectable),
    }
}

/// `host`, `host:port`, `[v6]:port`, `v6`.
fn host_and_port(server: &str, default: u16) -> Result<(String, u16), Failure> {
    let wrong = || Failure::new(format!("{server} is no name:port"));
    if let Some(rest) = server.strip_prefix('[') {
        let (host, port) = rest.split_once(']').ok_or_else(wrong)?;
        let port = match port.strip_prefix(':') {
            Some(port) => port.parse().map_err(|_| wrong())?,
            None => default,
        };
        return Ok((host.to_owned(), port));
    }
    match server.split_once(':') {
        Some((host, port)) if !port.contains(':') => {
            Ok((host.to_owned(), port.parse().map_err(|_| wrong())?))
        }
        _ => Ok((server.to_owned(), default)),
    }
}

fn tls(ca: Option<&Path>) -> Result<rustls::ClientConfig, Failure> {
    let mut roots = rustls::RootCertStore::empty();
    match ca {
        Some(path) => {
            let failed = |text: String| Failure::new(format!("{}: {text}", path.display()));
            let pem = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
            for certificate in CertificateDer::pem_slice_iter(&pem) {
                let certificate = certificate.map_err(|error| failed(error.to_string()))?;
                roots
                    .add(certificate)
                    .map_err(|error| failed(error.to_string()))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    Ok(rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Failure::new(format!("TLS: {error}")))?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn servers_have_names_and_ports() {
        let of = |text| host_and_port(text, 993).unwrap();
        assert_eq!(of("a.example"), ("a.example".to_owned(), 993));
        assert_eq!(of("a.example:1143"), ("a.example".to_owned(), 1143));
        assert_eq!(of("[::1]:99"), ("::1".to_owned(), 99));
        assert_eq!(of("::1"), ("::1".to_owned(), 993));
        assert!(host_and_port("a:b", 1).is_err());
    }

    #[test]
    fn names_and_special_uses_are_ours() {
        let got = folder(
            "INBOX.Entw&APw-rfe",
            Some("."),
            &[NameAttribute::Drafts, NameAttribute::NoInferiors],
        );
        assert_eq!(got.name, "INBOX/Entwürfe");
        assert_eq!(got.special_use.as_deref(), Some("\\Drafts"));
        assert!(got.selectable);
        assert!(!folder("x", None, &[NameAttribute::NoSelect]).selectable);
        let extension = NameAttribute::Extension("\\important".into());
        let important = folder("x", None, &[extension]).special_use;
        assert_eq!(important.as_deref(), Some("\\Important"));
    }

    #[test]
    fn flags_that_only_a_server_sets_are_left_out() {
        let given = [
            Flag::Seen,
            Flag::Recent,
            Flag::Custom("$Label1".into()),
            Flag::Custom("\\Strange".into()),
        ];
        assert_eq!(flags(given.into_iter()), ["\\Seen", "$Label1"]);
    }
}
