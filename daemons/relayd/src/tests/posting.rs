//! Reports that are posted, to an HTTPS server that answers as its script says.

use super::names::{Entry, serve};
use super::server::{Script, Server};
use super::{client, config};
use crate::config::Config;
use ipc::api::relayd::PostedReport;
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// Head and body of each.
type Requests = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

/// What came, and where the certificate is that vouches for the server.
struct Receiver {
    port: u16,
    ca: tempfile::NamedTempFile,
    requests: Requests,
}

/// A server for rua.t.example, or for somebody else. It says `answer` to each request.
async fn receiver(name: &str, answer: &'static [u8]) -> Receiver {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    let ca = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(ca.path(), made.cert.pem()).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let tls = ServerConfig::builder_with_provider(Arc::new(
        rustls::crypto::aws_lc_rs::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .unwrap()
    .with_no_client_auth()
    .with_single_cert(vec![made.cert.der().clone()], key)
    .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let requests = Requests::default();
    let seen = Arc::clone(&requests);
    tokio::spawn(async move {
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(stream) = acceptor.accept(stream).await else {
                continue;
            };
            let mut stream = BufReader::new(stream);
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                if stream.read_line(&mut head).await.unwrap_or(0) == 0 {
                    break;
                }
            }
            let length = head
                .to_lowercase()
                .split("content-length: ")
                .nth(1)
                .and_then(|rest| rest.split("\r\n").next()?.parse().ok());
            let mut body = vec![0; length.unwrap_or(0)];
            let _ = stream.read_exact(&mut body).await;
            seen.lock().unwrap().push((head, body));
            let _ = stream.write_all(answer).await;
            let _ = stream.shutdown().await;
        }
    });
    Receiver { port, ca, requests }
}

/// With the server's certificate as an authority, and loopback allowed.
async fn settings(receiver: &Receiver) -> Config {
    let mut config = Config {
        nameservers: vec![serve(vec![("rua.t.example", Entry::Address([127, 0, 0, 1]))]).await],
        dns_timeout: 1,
        tls_ca_file: Some(receiver.ca.path().to_owned()),
        ..config()
    };
    config.post.networks = vec!["127.0.0.0/8".parse().unwrap()];
    config.post.timeout = 2;
    config
}

async fn post(receiver: &Receiver, config: Config) -> PostedReport {
    let url = format!("https://rua.t.example:{}/v1", receiver.port);
    client(config).post(&url, b"report".to_vec()).await
}

#[tokio::test]
async fn what_servers_answer() {
    const OK: &[u8] = b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n";
    let server = receiver("rua.t.example", OK).await;
    let config = settings(&server).await;
    let accepted = PostedReport::Accepted("201 Created from 127.0.0.1".to_owned());
    assert_eq!(post(&server, config).await, accepted);
    let (head, body) = server.requests.lock().unwrap().pop().unwrap();
    assert!(head.starts_with("POST /v1 HTTP/1.1\r\n"), "{head}");
    let head = head.to_lowercase();
    assert!(
        head.contains("content-type: application/tlsrpt+gzip\r\n"),
        "{head}"
    );
    assert_eq!(body, b"report");
    let again = |text: &str| PostedReport::Again(text.to_owned());
    let refused = |text: &str| PostedReport::Refused(text.to_owned());
    for (answer, expected) in [
        (
            &b"HTTP/1.1 503 x\r\nContent-Length: 9\r\n\r\nfull\r\nup\n"[..],
            again("503 Service Unavailable from 127.0.0.1: full up"),
        ),
        (
            b"HTTP/1.1 410 x\r\nContent-Length: 0\r\n\r\n",
            refused("410 Gone from 127.0.0.1"),
        ),
        (
            b"HTTP/1.1 302 x\r\nLocation: https://rua.t.example/\r\nContent-Length: 0\r\n\r\n",
            again("302 Found from 127.0.0.1"),
        ),
    ] {
        let server = receiver("rua.t.example", answer).await;
        let config = settings(&server).await;
        assert_eq!(post(&server, config).await, expected);
        assert_eq!(server.requests.lock().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn who_the_server_must_be() {
    const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let other = receiver("elsewhere.example", OK).await;
    let config = settings(&other).await;
    let posted = post(&other, config.clone()).await;
    assert!(
        matches!(&posted, PostedReport::Again(why) if why.contains("certificate")),
        "{posted:?}"
    );
    assert!(other.requests.lock().unwrap().is_empty());
    let mut lenient = config;
    lenient.post.verify = false;
    let posted = post(&other, lenient).await;
    assert!(matches!(posted, PostedReport::Accepted(_)), "{posted:?}");
    // Nothing but public addresses, however they are written.
    let server = receiver("rua.t.example", OK).await;
    let mut config = settings(&server).await;
    config.post.networks = Vec::new();
    let unfit = "127.0.0.1 is not an address of the public internet".to_owned();
    assert_eq!(
        post(&server, config.clone()).await,
        PostedReport::Again(unfit.clone())
    );
    for host in ["127.0.0.1", "0x7f.1", "[::ffff:127.0.0.1]"] {
        let url = format!("https://{host}:{}/", server.port);
        let posted = client(config.clone()).post(&url, Vec::new()).await;
        assert!(
            matches!(&posted, PostedReport::Refused(why) if why.contains("not an address of the public")),
            "{posted:?}"
        );
    }
    assert!(server.requests.lock().unwrap().is_empty());
}

#[tokio::test]
async fn who_says_nothing_is_not_waited_for() {
    let mut config = config();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    config.post.networks = vec!["127.0.0.0/8".parse().unwrap()];
    config.post.timeout = 1;
    let url = format!("https://{}/", silent.local_addr().unwrap());
    let posted = client(config.clone()).post(&url, Vec::new()).await;
    assert_eq!(posted, PostedReport::Again("no answer in time".to_owned()));
    // One that speaks another protocol.
    let server = Server::start(Script::default()).await;
    let url = format!("https://{}/", server.address);
    let posted = client(config).post(&url, Vec::new()).await;
    assert!(matches!(posted, PostedReport::Again(_)), "{posted:?}");
}
