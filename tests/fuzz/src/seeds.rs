//! Good inputs, and some that are bad on purpose: the corpus that mutation starts from.

use std::fs;
use std::path::Path;

/// All files of a folder under tests/fuzz/corpus.
fn corpus(folder: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(folder);
    let mut files: Vec<_> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    files.sort();
    files
        .iter()
        .filter_map(|file| fs::read(file).ok())
        .collect()
}

fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// Command lines.
pub fn smtp() -> Vec<Vec<u8>> {
    corpus("smtp")
}

/// Replies of servers.
pub fn replies() -> Vec<Vec<u8>> {
    texts(&[
        "220 mx.example.org ESMTP\r\n250-mx.example.org\r\n250-PIPELINING\r\n250-SIZE 52428800\r\n250-AUTH PLAIN LOGIN\r\n250 8BITMIME\r\n",
        "250 2.1.0 ok\r\n550-5.1.1 no such user\r\n550 5.1.1 here\r\n354 go on\r\n421 4.3.2 closing\r\n",
        "250\r\n250-\r\n250 \r\n",
    ])
}

/// Headers of load balancers, and DSN parameters.
pub fn proxy() -> Vec<Vec<u8>> {
    let mut seeds = texts(&[
        "PROXY TCP4 192.0.2.1 198.51.100.1 56324 25\r\n",
        "PROXY TCP6 2001:db8::1 2001:db8::2 56324 25\r\n",
        "PROXY UNKNOWN\r\n",
        "rfc822;bob+2Bx@example.org",
        "utf-8;b\\x{FC}b@example.org",
        "QQ314159+3D",
    ]);
    let mut binary = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c".to_vec();
    binary.extend_from_slice(&[192, 0, 2, 1, 198, 51, 100, 1, 0xdc, 0x04, 0, 25]);
    seeds.push(binary);
    seeds
}

/// IMAP commands.
pub fn imap() -> Vec<Vec<u8>> {
    corpus("imap")
}

/// Messages.
pub fn mime() -> Vec<Vec<u8>> {
    corpus("mime")
}

/// What the store keeps of messages.
pub fn stored() -> Vec<Vec<u8>> {
    mime()
        .iter()
        .map(|mail| message::parse(b"", mail, &message::Limits::default()).encode())
        .collect()
}

/// Frames of ipc.
pub fn frames() -> Vec<Vec<u8>> {
    use ipc::frame::{Header, Kind};
    [
        Kind::Hello,
        Kind::Call,
        Kind::Reply,
        Kind::Fault,
        Kind::Event,
    ]
    .into_iter()
    .map(|kind| {
        let header = Header {
            len: 4,
            operation: 3,
            kind,
            descriptors: 1,
            id: 77,
            trace: types::TraceId(99),
            deadline_ms: if kind == Kind::Call { 1000 } else { 0 },
        };
        let mut frame = header.encode().to_vec();
        frame.extend_from_slice(b"mail");
        frame
    })
    .collect()
}

/// Payloads of ipc.
pub fn payloads() -> Vec<Vec<u8>> {
    use ipc::api::authd::{AuthClient, AuthStart, Service};
    use std::net::{IpAddr, Ipv4Addr};
    let start = AuthStart {
        mechanism: "PLAIN".to_owned(),
        initial: Some(b"\0alice@example.org\0secret".to_vec().into()),
        client: AuthClient {
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            service: Service::Imap,
            tls: true,
            bindings: vec![(
                "tls-exporter".to_owned(),
                b"0123456789abcdef".to_vec().into(),
            )],
        },
    };
    let mut seeds = vec![vec![0; 64], vec![1; 64], (0..=255).collect()];
    seeds.extend(postcard::to_stdvec(&start).ok());
    seeds.extend(mime());
    seeds
}

/// The name that the journal gives to its first segment.
pub fn journal_file_name() -> Option<String> {
    segments().into_iter().next().map(|(name, _)| name)
}

/// Segments of a journal.
pub fn journal() -> Vec<Vec<u8>> {
    segments().into_iter().map(|(_, octets)| octets).collect()
}

/// Writes a small journal, once, and reads its segments.
fn segments() -> Vec<(String, Vec<u8>)> {
    static MADE: std::sync::OnceLock<Vec<(String, Vec<u8>)>> = std::sync::OnceLock::new();
    MADE.get_or_init(|| write_journal().unwrap_or_default())
        .clone()
}

fn write_journal() -> Option<Vec<(String, Vec<u8>)>> {
    use journal::{Journal, Kind, Options, Record};
    let directory = tempfile::tempdir().ok()?;
    let options = Options {
        segment_size: 64 * 1024,
        reserve: 4096,
        ..Options::default()
    };
    let mut journal = Journal::open(directory.path(), options).ok()?;
    for id in 1..=8_u64 {
        let body = vec![b'x'; usize::try_from(id * 100).ok()?];
        let put = Record {
            kind: Kind::Put,
            version: 1,
            id,
            parts: [b"envelope", b"prefix", &body],
        };
        journal.append(&[put], false).ok()?;
        if id % 3 == 0 {
            journal.append(&[Record::free(id - 1)], false).ok()?;
        }
    }
    drop(journal);
    let mut segments: Vec<(String, Vec<u8>)> = Vec::new();
    for entry in fs::read_dir(directory.path()).ok()?.flatten() {
        let name = entry.file_name().into_string().ok()?;
        let mut octets = fs::read(entry.path()).ok()?;
        // The zeros behind the records are all alike.
        let used = octets
            .iter()
            .rposition(|octet| *octet != 0)
            .map_or(0, |last| last + 1);
        octets.truncate(used + 64);
        if used > 512 {
            segments.push((name, octets));
        }
    }
    segments.sort();
    Some(segments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_corpus_is_there() {
        for seeds in [
            smtp(),
            replies(),
            proxy(),
            imap(),
            mime(),
            stored(),
            frames(),
            payloads(),
            journal(),
        ] {
            assert!(!seeds.is_empty() && seeds.iter().all(|seed| !seed.is_empty()));
        }
        assert!(journal_file_name().is_some());
    }
}
