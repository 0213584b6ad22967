//! The sides that are measured: what each of them is started as.

pub mod peers;
pub mod postgresql;
pub mod posthouse;

use crate::Outcome;
use crate::imap::Imap;
use crate::smtp::Smtp;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

/// Which software.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// The suite, with SQLite and files.
    Posthouse,
    /// The suite, with PostgreSQL and files.
    PosthousePostgresql,
    /// Debian's Postfix, handing over to Debian's Dovecot by LMTP.
    PostfixDovecot,
}

impl Kind {
    /// For file names and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Posthouse => "posthouse",
            Self::PosthousePostgresql => "posthouse-postgresql",
            Self::PostfixDovecot => "postfix-dovecot",
        }
    }

    /// For people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Posthouse => "Posthouse",
            Self::PosthousePostgresql => "Posthouse on PostgreSQL",
            Self::PostfixDovecot => "Postfix + Dovecot",
        }
    }
}

/// How many mailboxes the load goes to.
pub const USERS: usize = 10;
/// The domain of the load.
pub const DOMAIN: &str = "bench.test";
/// Everybody's password.
pub const PASSWORD: &str = "horse-and-rider-7";

/// What answers the commands that are not SMTP or IMAP.
enum Software {
    Posthouse(posthouse::Suite),
    Peers(peers::Peers),
}

/// A running side; dropping it ends its processes.
pub struct Side {
    /// Where it takes mail.
    pub smtp: SocketAddr,
    /// IMAP in clear text.
    pub imap: SocketAddr,
    /// IMAP under TLS.
    pub imaps: SocketAddr,
    /// The port of hosts elsewhere; nobody is there before a sink is opened.
    pub elsewhere: u16,
    /// Where its data are.
    pub data: PathBuf,
    software: Software,
    children: Vec<Child>,
}

impl Side {
    /// The roots of its process trees.
    pub fn roots(&self) -> Vec<u32> {
        self.children.iter().map(Child::id).collect()
    }

    /// Whether it is somebody else's software.
    pub fn is_peer(&self) -> bool {
        matches!(self.software, Software::Peers(_))
    }

    /// Opens an IMAP session of user `number`.
    pub async fn session(&self, number: usize) -> Outcome<Imap> {
        Imap::login(self.imap, &user(number), PASSWORD).await
    }

    /// Makes the index of user `number` anew and has searches use it from the next session on; how long the index took.
    /// `None` if the side has none.
    pub async fn index(&self, number: usize) -> Outcome<Option<Duration>> {
        match &self.software {
            Software::Posthouse(suite) => suite.index(&user(number)).await.map(Some),
            Software::Peers(peers) => peers.index(&user(number)),
        }
    }

    /// Waits until so many messages wait in its queue, and none is being tried.
    pub async fn queue_settled(&self, count: usize) -> Outcome<()> {
        let end = Instant::now() + Duration::from_secs(300);
        while Instant::now() < end {
            let waiting = match &self.software {
                Software::Posthouse(suite) => suite.deferred()?,
                Software::Peers(peers) => peers.deferred(),
            };
            if waiting >= count {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Err(format!("{count} messages do not wait in the queue").into())
    }

    /// Has all of its queue tried now.
    pub async fn flush_queue(&self) -> Outcome<()> {
        match &self.software {
            Software::Posthouse(suite) => {
                suite
                    .administer_at_length(&["queue", "retry", "--all"])
                    .await
            }
            Software::Peers(peers) => peers.flush(),
        }
    }

    /// Asks for the figures of its queue, as an operator does.
    pub async fn queue_figures(&self) -> Outcome<()> {
        match &self.software {
            Software::Posthouse(suite) => suite.administer_at_length(&["queue", "stats"]).await,
            Software::Peers(peers) => peers.figures().await,
        }
    }

    /// The process that schedules its queue.
    pub fn queue_processes(&self) -> Outcome<Vec<u32>> {
        let named = |pid: &u32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let words: Vec<&[u8]> = line.split(|octet| *octet == 0).collect();
            match &self.software {
                Software::Posthouse(_) => words.contains(&b"queued".as_slice()),
                Software::Peers(_) => words.first().is_some_and(|word| word.ends_with(b"qmgr")),
            }
        };
        Ok(crate::processes::tree(&self.roots())?
            .into_iter()
            .filter(named)
            .collect())
    }

    /// Waits until it takes mail and shows it.
    async fn ready(&mut self) -> Outcome<()> {
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            let attempt = async {
                Smtp::connect(self.smtp).await?.quit().await?;
                self.session(0).await?.command("LOGOUT").await
            };
            let error = match attempt.await {
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            for child in &mut self.children {
                if let Some(status) = child.try_wait()? {
                    return Err(format!("ended while starting: {status}; {error}").into());
                }
            }
            if Instant::now() > end {
                return Err(format!("not ready after a minute: {error}").into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        for child in &mut self.children {
            end(child);
        }
    }
}

/// Asks a process to end, and insists after ten seconds.
fn end(child: &mut Child) {
    if let Ok(pid) = i32::try_from(child.id())
        && let Some(pid) = rustix::process::Pid::from_raw(pid)
    {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
    let end = Instant::now() + Duration::from_secs(10);
    while Instant::now() < end {
        if matches!(child.try_wait(), Ok(Some(_)) | Err(_)) {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// The address of user `number`.
pub fn user(number: usize) -> String {
    format!("u{number}@{DOMAIN}")
}

/// A loopback address that nobody uses now.
fn free_address() -> Outcome<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
