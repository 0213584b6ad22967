//! Removing what nobody needs any more, in small steps between the others' transactions.

use crate::Config;
use crate::committer::{Done, Task, Work};
use blob::Blobs;
use std::sync::Arc;
use std::time::Duration;
use store::writer::{Collected, Writer};
use tokio::sync::{RwLock, mpsc, oneshot};

pub(crate) struct Housekeeper {
    pub(crate) writer: Writer,
    pub(crate) blobs: Arc<Blobs>,
    pub(crate) outside: Arc<RwLock<()>>,
    pub(crate) queue: mpsc::WeakSender<Work>,
}

impl Housekeeper {
    /// Works until nobody else gives the committer work any more.
    pub(crate) async fn run(self, config: Config) {
        let pause = Duration::from_secs(config.collect_seconds.max(1));
        let mut rounds: u64 = 0;
        loop {
            tokio::time::sleep(pause).await;
            let mut tasks = vec![true];
            if rounds.is_multiple_of(20) {
                tasks.push(false);
            }
            rounds += 1;
            for collect in tasks {
                loop {
                    let task = if collect {
                        Task::Collect
                    } else {
                        Task::Trim(config.retention())
                    };
                    match self.step(task).await {
                        None => return,
                        Some(Some(done)) if done.more => {}
                        Some(_) => break,
                    }
                }
            }
            if let Err(error) = self.remove_outside().await {
                tracing::warn!(%error, "bodies that nobody has any more could not be removed; tried again later");
            }
        }
    }

    /// One step; the outer `None`: the daemon ends.
    async fn step(&self, task: Task) -> Option<Option<Collected>> {
        let queue = self.queue.upgrade()?;
        let (done, answer) = oneshot::channel();
        let work = Work {
            task,
            weight: 0,
            done,
        };
        queue.send(work).await.ok()?;
        drop(queue);
        match answer.await {
            Ok(Ok(Done::Collected(collected))) => {
                if collected.contents + collected.records > 0 {
                    tracing::debug!(?collected, "collected");
                }
                Some(Some(collected))
            }
            Ok(_) => Some(None),
            Err(_) => None,
        }
    }

    /// Removes bodies outside of the database. Nobody puts one there meanwhile, so that none is removed that has just come
    /// back.
    async fn remove_outside(&self) -> Result<(), store::Error> {
        if self.writer.gone().await?.is_empty() {
            return Ok(());
        }
        let _alone = self.outside.write().await;
        let gone = self.writer.gone().await?;
        for id in &gone {
            match self.blobs.delete(*id).await {
                Ok(()) | Err(blob::BlobError::NotFound(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.writer.forget(&gone).await
    }
}
