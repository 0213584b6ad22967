//! Objects in a directory or a bucket.

use crate::codec::{RAW, ZSTD};
use crate::{CodecError, Config, Kind};
use opendal::layers::{RetryLayer, TimeoutLayer};
use opendal::{ErrorKind, Operator, services};
use std::fs::File;
use std::io::Write as _;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use types::BlobId;

/// What can go wrong with an object.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// There is none of that id.
    #[error("there is no blob {0}")]
    NotFound(BlobId),
    /// Its content is not what its id says: the disk, or whoever else writes there, is at fault.
    #[error("blob {0} is damaged: {1}")]
    Damaged(BlobId, &'static str),
    /// The storage is full.
    #[error("no room for blobs: {0}")]
    Full(String),
    /// The storage cannot be reached or refuses; later it may work.
    #[error("blob storage: {0}")]
    Storage(String),
    /// The configuration makes no sense.
    #[error("[blob] {0}")]
    Config(String),
}

impl BlobError {
    fn io(error: std::io::Error) -> Self {
        if matches!(
            error.kind(),
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded
        ) {
            Self::Full(error.to_string())
        } else {
            Self::Storage(error.to_string())
        }
    }

    fn of(id: BlobId, error: opendal::Error) -> Self {
        match error.kind() {
            ErrorKind::NotFound => Self::NotFound(id),
            _ => {
                let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&error);
                while let Some(inner) = source {
                    if let Some(io) = inner.downcast_ref::<std::io::Error>()
                        && io.kind() == std::io::ErrorKind::StorageFull
                    {
                        return Self::Full(io.to_string());
                    }
                    source = inner.source();
                }
                Self::Storage(error.to_string())
            }
        }
    }
}

/// The storage of large bodies. Cheap to clone through an `Arc`; all methods work concurrently.
#[derive(Debug)]
pub struct Blobs {
    pub(crate) operator: Operator,
    /// The directory, if it is one.
    root: Option<PathBuf>,
    level: i32,
    /// Which of the 256 directories are known to be synced in their parent: one bit each.
    synced: [AtomicU64; 4],
}

/// Read and written at a time: 256 KiB.
const CHUNK: usize = 256 * 1024;

impl Blobs {
    /// Opens the storage for reading. `state` is the store's state directory, where `blobs` is by default.
    ///
    /// # Errors
    /// [`BlobError::Config`]; [`BlobError::Storage`] if the secret's file cannot be read.
    pub fn open(config: &Config, state: &Path) -> Result<Self, BlobError> {
        opendal::install_default();
        let wrong = |error: opendal::Error| BlobError::Config(error.to_string());
        let (operator, root) = match config.kind {
            Kind::Fs => {
                let root = config.root.clone().unwrap_or_else(|| state.join("blobs"));
                let (Some(path), Some(tmp)) =
                    (root.to_str(), root.join("tmp").to_str().map(str::to_owned))
                else {
                    return Err(BlobError::Config("root must be a UTF-8 path".to_owned()));
                };
                let service = services::Fs::default().root(path).atomic_write_dir(&tmp);
                (Operator::new(service).map_err(wrong)?, Some(root))
            }
            Kind::S3 => (Self::bucket(config)?, None),
        };
        Ok(Self {
            operator,
            root,
            level: config.zstd_level,
            synced: Default::default(),
        })
    }

    /// Opens the storage for its one writer: makes the directory, and removes what a crash has left half-written.
    ///
    /// # Errors
    /// As [`Blobs::open`]; [`BlobError::Storage`] if the directory cannot be made.
    pub fn open_writer(config: &Config, state: &Path) -> Result<Self, BlobError> {
        let root = config.root.clone().unwrap_or_else(|| state.join("blobs"));
        if config.kind == Kind::Fs {
            let tmp = root.join("tmp");
            std::fs::create_dir_all(&tmp).map_err(BlobError::io)?;
            for entry in std::fs::read_dir(&tmp).map_err(BlobError::io)? {
                let path = entry.map_err(BlobError::io)?.path();
                let removed = if path.is_dir() {
                    std::fs::remove_dir_all(&path)
                } else {
                    std::fs::remove_file(&path)
                };
                if let Err(error) = removed {
                    tracing::warn!(path = %path.display(), %error, "cannot remove a half-written blob");
                }
            }
            sync_directory(&root).map_err(BlobError::io)?;
        }
        Self::open(config, state)
    }

    fn bucket(config: &Config) -> Result<Operator, BlobError> {
        if config.bucket.is_empty() {
            return Err(BlobError::Config("kind = \"s3\" needs a bucket".to_owned()));
        }
        let secret = match &config.secret_key_file {
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|error| BlobError::Storage(format!("{}: {error}", path.display())))?;
                text.lines().next().unwrap_or_default().trim().to_owned()
            }
            None => config.secret_key.0.clone(),
        };
        let mut service = services::S3::default()
            .bucket(&config.bucket)
            .region(&config.region)
            .root(&format!("/{}", config.prefix.trim_start_matches('/')))
            .access_key_id(&config.access_key)
            .secret_access_key(&secret)
            .disable_config_load()
            .disable_ec2_metadata();
        if let Some(endpoint) = &config.endpoint {
            service = service.endpoint(endpoint);
        }
        if config.virtual_host_style {
            service = service.enable_virtual_host_style();
        }
        let time = Duration::from_secs(config.timeout_seconds.max(1));
        Ok(Operator::new(service)
            .map_err(|error| BlobError::Config(error.to_string()))?
            .layer(TimeoutLayer::new().with_timeout(time).with_io_timeout(time))
            .layer(RetryLayer::new().with_max_times(3).with_jitter()))
    }

    /// Whether the storage answers.
    ///
    /// # Errors
    /// [`BlobError::Storage`]
    pub async fn check(&self) -> Result<(), BlobError> {
        self.operator
            .check()
            .await
            .map_err(|error| BlobError::Storage(error.to_string()))
    }

    /// Keeps these octets. After `Ok`, they survive power loss.
    ///
    /// # Errors
    /// [`BlobError::Full`], [`BlobError::Storage`]
    pub async fn put(&self, octets: &[u8]) -> Result<BlobId, BlobError> {
        let id = crate::id_of(octets);
        if self.exists(id).await? {
            self.sync(id).await?;
            return Ok(id);
        }
        let stored = crate::encode(octets, self.level);
        self.operator
            .write(&path_of(id), stored)
            .await
            .map_err(|error| BlobError::of(id, error))?;
        self.sync(id).await?;
        Ok(id)
    }

    /// Keeps the first `len` octets of a file without holding them in memory. The file must not change meanwhile. After
    /// `Ok`, they survive power loss.
    ///
    /// # Errors
    /// [`BlobError::Full`], [`BlobError::Storage`]
    pub async fn put_file(&self, file: File, len: u64) -> Result<BlobId, BlobError> {
        let hashed =
            tokio::task::spawn_blocking(move || hash_file(&file, len).map(|id| (id, file)));
        let (id, file) = hashed
            .await
            .map_err(|error| BlobError::Storage(error.to_string()))?
            .map_err(BlobError::io)?;
        if self.exists(id).await? {
            self.sync(id).await?;
            return Ok(id);
        }
        let (chunks, mut received) = tokio::sync::mpsc::channel(4);
        let level = self.level;
        let producer = tokio::task::spawn_blocking(move || encode_file(&file, len, level, &chunks));
        let mut writer = self
            .operator
            .writer_with(&path_of(id))
            .chunk(8 << 20)
            .await
            .map_err(|error| BlobError::of(id, error))?;
        let mut result = Ok(());
        while let Some(chunk) = received.recv().await {
            let chunk: Vec<u8> = chunk;
            result = writer.write(chunk).await;
            if result.is_err() {
                break;
            }
        }
        drop(received);
        let produced = producer
            .await
            .map_err(|error| BlobError::Storage(error.to_string()))?;
        match (result, produced) {
            (Ok(()), Ok(())) => {
                writer
                    .close()
                    .await
                    .map_err(|error| BlobError::of(id, error))?;
                self.sync(id).await?;
                Ok(id)
            }
            (result, produced) => {
                if let Err(error) = writer.abort().await {
                    tracing::debug!(%id, %error, "cannot abort a blob");
                }
                result.map_err(|error| BlobError::of(id, error))?;
                produced.map_err(BlobError::io)?;
                Err(BlobError::Storage("the blob was not written".to_owned()))
            }
        }
    }

    /// All octets, checked against the id.
    ///
    /// # Errors
    /// [`BlobError::NotFound`], [`BlobError::Damaged`], [`BlobError::Storage`]
    pub async fn get(&self, id: BlobId) -> Result<Vec<u8>, BlobError> {
        let stored = self
            .operator
            .read(&path_of(id))
            .await
            .map_err(|error| BlobError::of(id, error))?;
        let stored = stored.to_vec();
        let octets = crate::decode(&stored, usize::MAX >> 1).map_err(|error| damaged(id, error))?;
        if crate::id_of(&octets) == id {
            Ok(octets)
        } else {
            Err(BlobError::Damaged(id, "its hash is another"))
        }
    }

    /// A range of the octets, cut at their end. Not checked against the id.
    ///
    /// # Errors
    /// As [`Blobs::get`].
    pub async fn get_range(&self, id: BlobId, range: Range<u64>) -> Result<Vec<u8>, BlobError> {
        let path = path_of(id);
        let failed = |error| BlobError::of(id, error);
        let size = self
            .operator
            .stat(&path)
            .await
            .map_err(failed)?
            .content_length();
        let codec = self
            .operator
            .read_with(&path)
            .range(0..size.min(1))
            .await
            .map_err(failed)?
            .to_vec();
        match codec.first() {
            Some(&RAW) => {
                let (start, end) = ((range.start + 1).min(size), (range.end + 1).min(size));
                if start >= end {
                    return Ok(Vec::new());
                }
                let part = self
                    .operator
                    .read_with(&path)
                    .range(start..end)
                    .await
                    .map_err(failed)?;
                Ok(part.to_vec())
            }
            Some(&ZSTD) => {
                let reader = self
                    .operator
                    .reader_with(&path)
                    .chunk(CHUNK)
                    .await
                    .map_err(failed)?;
                inflate_range(id, &reader, size, range).await
            }
            Some(_) => Err(BlobError::Damaged(id, "unknown codec")),
            None => Err(BlobError::Damaged(id, "it is empty")),
        }
    }

    /// Whether there is an object of that id.
    ///
    /// # Errors
    /// [`BlobError::Storage`]
    pub async fn exists(&self, id: BlobId) -> Result<bool, BlobError> {
        self.operator
            .exists(&path_of(id))
            .await
            .map_err(|error| BlobError::of(id, error))
    }

    /// Reads all of it and compares its hash.
    ///
    /// # Errors
    /// As [`Blobs::get`].
    pub async fn verify(&self, id: BlobId) -> Result<(), BlobError> {
        self.get(id).await.map(drop)
    }

    /// Removes it; that there is none is no error.
    ///
    /// # Errors
    /// [`BlobError::Storage`]
    pub async fn delete(&self, id: BlobId) -> Result<(), BlobError> {
        match self.operator.delete(&path_of(id)).await {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(BlobError::of(id, error)),
            _ => Ok(()),
        }
    }

    /// Syncs the directory entry, and once in a process that of the directory itself.
    async fn sync(&self, id: BlobId) -> Result<(), BlobError> {
        let Some(root) = self.root.clone() else {
            return Ok(());
        };
        let first = id.0.first().copied().unwrap_or_default();
        let (word, bit) = (usize::from(first / 64), 1_u64 << (first % 64));
        let known = self
            .synced
            .get(word)
            .is_some_and(|synced| synced.load(Ordering::Acquire) & bit != 0);
        let synced = tokio::task::spawn_blocking(move || {
            sync_directory(&root.join(format!("{first:02x}")))?;
            if known { Ok(()) } else { sync_directory(&root) }
        });
        synced
            .await
            .map_err(|error| BlobError::Storage(error.to_string()))?
            .map_err(BlobError::io)?;
        if let Some(synced) = self.synced.get(word) {
            synced.fetch_or(bit, Ordering::AcqRel);
        }
        Ok(())
    }
}

/// `ab/cdef...`: 256 directories.
fn path_of(id: BlobId) -> String {
    let mut path = id.to_string();
    path.insert(2, '/');
    path
}

fn sync_directory(path: &Path) -> std::io::Result<()> {
    File::open(path)?.sync_all()
}

fn damaged(id: BlobId, error: CodecError) -> BlobError {
    BlobError::Damaged(
        id,
        match error {
            CodecError::Unknown(_) => "unknown codec",
            CodecError::Damaged | CodecError::TooLong(_) => "it does not decompress",
        },
    )
}

/// Calls `each` with the file's octets, a chunk at a time. Reads by offset: descriptors of one file may share a position.
fn read_chunks(
    file: &File,
    len: u64,
    mut each: impl FnMut(&[u8]) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let mut buffer = vec![0; usize::try_from(len).unwrap_or(CHUNK).clamp(1, CHUNK)];
    let mut at = 0;
    while at < len {
        let want = usize::try_from(len - at).unwrap_or(CHUNK).min(buffer.len());
        let slice = buffer.get_mut(..want).unwrap_or_default();
        file.read_exact_at(slice, at)?;
        each(slice)?;
        at += want as u64;
    }
    Ok(())
}

fn hash_file(file: &File, len: u64) -> std::io::Result<BlobId> {
    let mut hasher = blake3::Hasher::new();
    read_chunks(file, len, |chunk| {
        hasher.update(chunk);
        Ok(())
    })?;
    Ok(BlobId(*hasher.finalize().as_bytes()))
}

/// Sends the stored form of a file in chunks. Its first chunk decides whether compressing pays.
fn encode_file(
    file: &File,
    len: u64,
    level: i32,
    chunks: &tokio::sync::mpsc::Sender<Vec<u8>>,
) -> std::io::Result<()> {
    let gone = |_| std::io::Error::from(std::io::ErrorKind::BrokenPipe);
    let mut encoder: Option<zstd::stream::write::Encoder<'static, Vec<u8>>> = None;
    let mut started = false;
    read_chunks(file, len, |chunk| {
        if !started {
            started = true;
            let sample = crate::encode(chunk, level);
            // Less than a twentieth saved is not worth the time of every reader.
            if sample.first() == Some(&ZSTD) && sample.len() < chunk.len() / 20 * 19 {
                encoder = Some(zstd::stream::write::Encoder::new(vec![ZSTD], level)?);
            } else {
                chunks.blocking_send(vec![RAW]).map_err(gone)?;
            }
        }
        match &mut encoder {
            None => chunks.blocking_send(chunk.to_vec()).map_err(gone),
            Some(encoder) => {
                encoder.write_all(chunk)?;
                let ready = std::mem::take(encoder.get_mut());
                if ready.is_empty() {
                    Ok(())
                } else {
                    chunks.blocking_send(ready).map_err(gone)
                }
            }
        }
    })?;
    match encoder {
        Some(encoder) => chunks.blocking_send(encoder.finish()?).map_err(gone),
        None if !started => chunks.blocking_send(vec![RAW]).map_err(gone),
        None => Ok(()),
    }
}

/// Decompresses up to the end of the range and keeps the range.
async fn inflate_range(
    id: BlobId,
    reader: &opendal::Reader,
    size: u64,
    range: Range<u64>,
) -> Result<Vec<u8>, BlobError> {
    let mut decoder = zstd::stream::write::Decoder::new(Window {
        range,
        at: 0,
        kept: Vec::new(),
    })
    .map_err(BlobError::io)?;
    let mut at = 1;
    while at < size && !decoder.get_ref().is_complete() {
        let end = (at + CHUNK as u64).min(size);
        let chunk = reader
            .read(at..end)
            .await
            .map_err(|error| BlobError::of(id, error))?;
        decoder
            .write_all(&chunk.to_vec())
            .map_err(|_| BlobError::Damaged(id, "it does not decompress"))?;
        at = end;
    }
    decoder
        .flush()
        .map_err(|_| BlobError::Damaged(id, "it does not decompress"))?;
    Ok(decoder.into_inner().kept)
}

/// Takes a stream and keeps a range of it.
struct Window {
    range: Range<u64>,
    at: u64,
    kept: Vec<u8>,
}

impl Window {
    fn is_complete(&self) -> bool {
        self.at >= self.range.end
    }
}

impl std::io::Write for Window {
    fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
        let position = |offset: u64| {
            usize::try_from(offset.saturating_sub(self.at))
                .unwrap_or(usize::MAX)
                .min(octets.len())
        };
        let kept = octets
            .get(position(self.range.start)..position(self.range.end))
            .unwrap_or_default();
        self.kept.extend_from_slice(kept);
        self.at += octets.len() as u64;
        Ok(octets.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
