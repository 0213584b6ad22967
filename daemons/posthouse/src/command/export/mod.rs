//! `posthouse export`: an account as files that other programs read.

mod maildir;
pub(crate) mod mbox;

use crate::cli::{Export, Format};
use crate::command::import::content_hashes;
use crate::connect::{Place, Suite};
use crate::failure::Failure;
use crate::mailstore::MailStore;
use crate::output;
use crate::progress::Progress;
use serde_json::json;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use store::{ContentBody, Mailbox, MessageRow, Reader};
use types::{AccountId, Uid};

/// Names the file in a failure.
fn failed(path: &Path, error: impl std::fmt::Display) -> Failure {
    Failure::new(format!("{}: {error}", path.display()))
}

/// Writes a file so that it is there whole or not at all.
fn write_whole(path: &Path, content: &[u8]) -> Result<(), Failure> {
    let part = path.with_file_name(".part");
    let write = || {
        let mut file = File::create(&part)?;
        file.write_all(content)?;
        file.sync_data()?;
        std::fs::rename(&part, path)
    };
    write().map_err(|error| failed(path, error))
}

/// An account on its way into a folder.
struct Exporter<'a> {
    reader: &'a Reader,
    account: AccountId,
    /// The unfinished folder.
    dir: PathBuf,
    progress: &'a Progress,
}

/// What was written.
#[derive(Default)]
struct Written {
    messages: u64,
    /// What the format has no place for.
    notes: Vec<String>,
}

pub(crate) async fn run(suite: &Suite, place: &Place, command: Export) -> Result<(), Failure> {
    let Export::Account {
        name,
        folder: dir,
        format,
    } = command;
    if dir.exists() {
        return Err(failed(&dir, "it exists; an export makes a new folder"));
    }
    let target = std::path::absolute(&dir).map_err(|error| failed(&dir, error))?;
    let mut part = target.clone().into_os_string();
    part.push(".part");
    let part = PathBuf::from(part);
    let account = crate::command::owner(suite, &name).await?;
    let reader = MailStore::of(place)?.reader().await?;
    let mailboxes = reader.mailboxes(account).await?;
    std::fs::create_dir_all(&part).map_err(|error| failed(&part, error))?;
    let all = mailboxes
        .iter()
        .map(|mailbox| u64::from(mailbox.total))
        .sum();
    let progress = Progress::new(suite.json, "messages", all);
    let exporter = Exporter {
        reader: &reader,
        account,
        dir: part.clone(),
        progress: &progress,
    };
    let mut written = Written::default();
    for mailbox in &mailboxes {
        match format {
            Format::Maildir => exporter.maildir(mailbox, &mut written).await?,
            Format::Mbox => exporter.mbox(mailbox, &mut written).await?,
        }
    }
    let subscriptions = reader.subscriptions(account).await?;
    match format {
        Format::Maildir => exporter.maildir_subscriptions(&subscriptions)?,
        Format::Mbox => write_whole(
            &part.join(".subscriptions"),
            lines(&subscriptions).as_bytes(),
        )?,
    }
    let scripts = exporter.scripts().await?;
    progress.end();
    std::fs::rename(&part, &target).map_err(|error| failed(&target, error))?;
    if let Some(parent) = target.parent() {
        File::open(parent)
            .and_then(|folder| folder.sync_all())
            .map_err(|error| failed(parent, error))?;
    }
    let text = format!(
        "{} messages of {} mailboxes in {}, compared with the store.",
        written.messages,
        mailboxes.len(),
        target.display()
    );
    let value = json!({
        "account": name,
        "dir": target,
        "mailboxes": mailboxes.len(),
        "messages": written.messages,
        "scripts": scripts,
        "notes": written.notes,
    });
    output::done(suite.json, &text, &value);
    for note in &written.notes {
        eprintln!("posthouse: {note}");
    }
    Ok(())
}

fn lines(names: &[String]) -> String {
    names.iter().map(|name| format!("{name}\n")).collect()
}

impl Exporter<'_> {
    /// The messages of a mailbox, by UID.
    async fn rows(&self, mailbox: &Mailbox) -> Result<Vec<MessageRow>, Failure> {
        let mut rows = Vec::new();
        self.reader
            .messages(self.account, mailbox.id, Uid(1), |row| rows.push(row))
            .await?;
        Ok(rows)
    }

    /// A message as clients see it; `None` if it was expunged meanwhile.
    async fn message(&self, row: &MessageRow) -> Result<Option<Vec<u8>>, Failure> {
        let Some(content) = self.reader.whole(self.account, row.content).await? else {
            return Ok(None);
        };
        let mut octets = content.prefix;
        match content.body {
            ContentBody::Octets(body) => octets.extend_from_slice(&body),
            ContentBody::Outside { blob, .. } => {
                octets.extend_from_slice(&self.reader.body(blob).await?);
            }
            ContentBody::None => {}
        }
        Ok(Some(octets))
    }

    /// The Sieve scripts as `sieve/NAME.sieve`, and `active`, a link to the active one. How many.
    async fn scripts(&self) -> Result<usize, Failure> {
        let scripts = self.reader.scripts(self.account).await?;
        if scripts.is_empty() {
            return Ok(0);
        }
        // Not among the folders: Maildir++ takes what begins with a dot for folders, mbox what begins with `From `.
        let dir = self.dir.join("sieve");
        std::fs::create_dir_all(&dir).map_err(|error| failed(&dir, error))?;
        for script in &scripts {
            let Some(content) = self.reader.script(self.account, &script.name).await? else {
                continue;
            };
            let file = format!("{}.sieve", script.name.replace(['/', '\0'], "_"));
            write_whole(&dir.join(&file), &content)?;
            if script.active {
                let link = dir.join("active");
                let _ = std::fs::remove_file(&link);
                std::os::unix::fs::symlink(&file, &link).map_err(|error| failed(&link, error))?;
            }
        }
        Ok(scripts.len())
    }

    /// The store's own hash of a message, to compare with what was written.
    async fn hash(&self, row: &MessageRow) -> Result<Option<String>, Failure> {
        let hashes = content_hashes(self.reader, self.account, &[row.content]).await?;
        Ok(hashes.get(&row.content).cloned())
    }
}
