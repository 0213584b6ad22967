//! Blobs in a real directory, and in a real bucket where POSTHOUSE_TEST_S3 names one as
//! `http://KEY:SECRET@host:port/bucket`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use blob::{BlobError, Blobs, Config, Kind, Secret, id_of};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("posthouse-blob-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn noise(len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().finalize_xof().fill(&mut out);
    out
}

fn text(len: usize) -> Vec<u8> {
    (0..)
        .flat_map(|n: u32| format!("line {n} of a long text\r\n").into_bytes())
        .take(len)
        .collect()
}

async fn round_trips(blobs: &Blobs, scratch: &Path) {
    for body in [
        Vec::new(),
        b"x".to_vec(),
        text(5000),
        noise(5000),
        text(3_000_000),
        noise(900_000),
    ] {
        let id = blobs.put(&body).await.unwrap();
        assert_eq!(id, id_of(&body));
        assert_eq!(blobs.put(&body).await.unwrap(), id);
        assert_eq!(blobs.get(id).await.unwrap(), body);
        blobs.verify(id).await.unwrap();
        let len = body.len() as u64;
        for range in [
            0..len,
            0..1,
            1..2,
            len / 2..len / 2 + 1000,
            len.saturating_sub(1)..len + 5,
            len + 1..len + 2,
        ] {
            let cut = |at: u64| usize::try_from(at.min(len)).unwrap();
            let expected = &body[cut(range.start)..cut(range.end)];
            assert_eq!(
                blobs.get_range(id, range.clone()).await.unwrap(),
                expected,
                "{len} {range:?}"
            );
        }
        blobs.delete(id).await.unwrap();
        blobs.delete(id).await.unwrap();
        assert!(!blobs.exists(id).await.unwrap());
        assert!(matches!(blobs.get(id).await, Err(BlobError::NotFound(_))));
        // The same from a file that is longer than the message, and whose position is anywhere.
        std::fs::write(scratch, [&body[..], b"behind"].concat()).unwrap();
        let file = std::fs::File::open(scratch).unwrap();
        assert_eq!(blobs.put_file(file, len).await.unwrap(), id);
        assert_eq!(blobs.get(id).await.unwrap(), body);
    }
}

#[tokio::test]
async fn a_directory_keeps_what_it_is_given() {
    let directory = Directory::new("keeps");
    let blobs = Blobs::open_writer(&Config::default(), &directory.0).unwrap();
    blobs.check().await.unwrap();
    round_trips(&blobs, &directory.0.join("scratch")).await;
    let left = std::fs::read_dir(directory.0.join("blobs/tmp"))
        .unwrap()
        .count();
    assert_eq!(left, 0, "no temporary files remain");
}

#[tokio::test]
async fn damage_is_found() {
    let directory = Directory::new("damage");
    let blobs = Blobs::open_writer(&Config::default(), &directory.0).unwrap();
    for body in [text(50_000), noise(50_000)] {
        let id = blobs.put(&body).await.unwrap();
        let mut path = id.to_string();
        path.insert(2, '/');
        let path = directory.0.join("blobs").join(path);
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(b"\xaa\x55", 300).unwrap();
        assert!(matches!(
            blobs.verify(id).await,
            Err(BlobError::Damaged(..))
        ));
        file.set_len(0).unwrap();
        assert!(matches!(blobs.get(id).await, Err(BlobError::Damaged(..))));
        assert!(matches!(
            blobs.get_range(id, 0..10).await,
            Err(BlobError::Damaged(..))
        ));
    }
}

#[tokio::test]
async fn what_a_crash_leaves_is_removed() {
    let directory = Directory::new("crash");
    drop(Blobs::open_writer(&Config::default(), &directory.0).unwrap());
    let tmp = directory.0.join("blobs/tmp");
    std::fs::create_dir_all(tmp.join("ab")).unwrap();
    std::fs::write(tmp.join("ab/half"), b"half").unwrap();
    std::fs::write(tmp.join("half"), b"half").unwrap();
    Blobs::open_writer(&Config::default(), &directory.0).unwrap();
    assert_eq!(std::fs::read_dir(tmp).unwrap().count(), 0);
}

#[test]
fn secrets_are_not_shown() {
    let config = Config {
        secret_key: Secret("hush".to_owned()),
        ..Config::default()
    };
    assert!(!format!("{config:?}").contains("hush"));
    let missing = Config {
        kind: Kind::S3,
        ..Config::default()
    };
    assert!(matches!(
        Blobs::open(&missing, Path::new("/")),
        Err(BlobError::Config(_))
    ));
}

#[tokio::test]
async fn a_bucket_keeps_what_it_is_given() {
    let Ok(url) = std::env::var("POSTHOUSE_TEST_S3") else {
        eprintln!("skipped: POSTHOUSE_TEST_S3 is not set");
        return;
    };
    let (scheme, rest) = url.split_once("://").unwrap();
    let (keys, place) = rest.split_once('@').unwrap();
    let (key, secret) = keys.split_once(':').unwrap();
    let (host, bucket) = place.split_once('/').unwrap();
    let config = Config {
        kind: Kind::S3,
        endpoint: Some(format!("{scheme}://{host}")),
        bucket: bucket.to_owned(),
        access_key: key.to_owned(),
        secret_key: Secret(secret.to_owned()),
        prefix: "mail/".to_owned(),
        ..Config::default()
    };
    let directory = Directory::new("s3");
    let blobs = Blobs::open_writer(&config, &directory.0).unwrap();
    round_trips(&blobs, &directory.0.join("scratch")).await;
}
