//! Bodies on their way in: hashed, compressed and, if they are large, durable before any row names them.

use crate::uploads::Uploads;
use blob::Blobs;
use ipc::{Fault, FaultKind};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use tokio::sync::{OwnedRwLockReadGuard, RwLock};
use types::{Body, Octets};

/// A body that rows can name, and what is known of its message.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) body: Arc<store::writer::Body>,
    pub(crate) parsed: Arc<Vec<u8>>,
    pub(crate) structure: message::Parsed,
    /// Held until the rows are committed, if the body lies outside: nothing is removed there meanwhile.
    pub(crate) _outside: Option<OwnedRwLockReadGuard<()>>,
}

/// What bodies go through.
#[derive(Debug)]
pub(crate) struct Intake {
    pub(crate) blobs: Arc<Blobs>,
    pub(crate) inline_max: usize,
    pub(crate) level: i32,
    pub(crate) message_bytes: u64,
    /// Write-locked while objects are removed from the storage.
    pub(crate) outside: Arc<RwLock<()>>,
}

/// Where the octets are.
enum Source {
    Memory(Octets),
    File(File, u64),
}

impl Intake {
    /// Prepares a message. `descriptors` came with the call, `connection` is the caller's.
    pub(crate) async fn prepare(
        &self,
        parsed: &Octets,
        body: Body,
        descriptors: Vec<OwnedFd>,
        uploads: &Uploads,
        connection: u64,
    ) -> Result<Prepared, Fault> {
        let invalid = |text: &str| Fault::new(FaultKind::Invalid, text.to_owned());
        if body.len() > self.message_bytes {
            return Err(Fault::new(FaultKind::Invalid, "the message is too large"));
        }
        let structure = message::Parsed::decode(parsed)
            .map_err(|error| Fault::new(FaultKind::Invalid, error.to_string()))?;
        if structure.size != body.len() {
            return Err(invalid("the structure is that of another message"));
        }
        let packed = Arc::new(store::writer::pack(parsed));
        let source = match body {
            Body::Inline(octets) => Source::Memory(octets),
            Body::Attached { len } => {
                let file = descriptors.into_iter().next();
                let file = file.ok_or_else(|| invalid("the body's descriptor is missing"))?;
                Source::File(file.into(), len)
            }
            Body::Slot { slot, len } => {
                let file = uploads.take(slot, connection);
                Source::File(
                    // The caller can upload it again.
                    file.ok_or_else(|| Fault::new(FaultKind::Temporary, "no such upload"))?,
                    len,
                )
            }
        };
        let (body, outside) = self.keep(source).await?;
        Ok(Prepared {
            body: Arc::new(body),
            parsed: packed,
            structure,
            _outside: outside,
        })
    }

    async fn keep(
        &self,
        source: Source,
    ) -> Result<(store::writer::Body, Option<OwnedRwLockReadGuard<()>>), Fault> {
        let source = match source {
            Source::File(file, len) if len <= self.inline_max as u64 => {
                Source::Memory(read_all(file, len).await?)
            }
            other => other,
        };
        match source {
            Source::Memory(octets) if octets.len() <= self.inline_max => {
                let body = store::writer::Body {
                    id: blob::id_of(&octets),
                    len: octets.len() as u64,
                    data: Some(blob::encode(&octets, self.level)),
                };
                Ok((body, None))
            }
            Source::Memory(octets) => {
                let guard = Arc::clone(&self.outside).read_owned().await;
                let id = self.blobs.put(&octets).await.map_err(fault)?;
                let len = octets.len() as u64;
                Ok((
                    store::writer::Body {
                        id,
                        len,
                        data: None,
                    },
                    Some(guard),
                ))
            }
            Source::File(file, len) => {
                let guard = Arc::clone(&self.outside).read_owned().await;
                let id = self.blobs.put_file(file, len).await.map_err(fault)?;
                Ok((
                    store::writer::Body {
                        id,
                        len,
                        data: None,
                    },
                    Some(guard),
                ))
            }
        }
    }
}

async fn read_all(file: File, len: u64) -> Result<Octets, Fault> {
    let read = tokio::task::spawn_blocking(move || {
        let mut octets = vec![0; usize::try_from(len).unwrap_or_default()];
        file.read_exact_at(&mut octets, 0).map(|()| octets)
    });
    match read.await {
        Ok(Ok(octets)) => Ok(octets.into()),
        Ok(Err(error)) => Err(Fault::new(
            FaultKind::Invalid,
            format!("the body cannot be read: {error}"),
        )),
        Err(error) => Err(Fault::new(FaultKind::Internal, error.to_string())),
    }
}

fn fault(error: blob::BlobError) -> Fault {
    crate::committer::store_fault(&store::Error::Blob(error))
}
