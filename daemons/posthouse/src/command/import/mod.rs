//! `posthouse import`: mail from elsewhere into an account, through stored as every other change.

mod append;
pub mod fuzz;
mod imap;
mod maildir;
mod mbox;
mod source;
mod state;
mod upgrade;

pub(crate) use append::content_hashes;

use crate::cli::{Import, Into};
use crate::connect::{Place, Suite};
use crate::failure::Failure;
use crate::mailstore::MailStore;
use crate::output;
use crate::password;
use crate::progress::Progress;
use append::{Appender, Batch, Prepared};
use futures_util::{StreamExt as _, stream};
use ipc::api::stored::{Mutation, MutationResult, Provision};
use serde_json::{Value, json};
use source::{Folder, Source};
use state::State;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use types::{MailboxId, Role, Uid};

const COLUMNS: &[(&str, &str)] = &[
    ("folder", "FOLDER"),
    ("mailbox", "MAILBOX"),
    ("source", "SOURCE"),
    ("earlier", "EARLIER"),
    ("imported", "IMPORTED"),
    ("failed", "FAILED"),
];

/// A folder and where it goes.
struct Task {
    folder: Folder,
    mailbox: String,
    count: u64,
}

/// What became of a folder.
#[derive(Default)]
struct Filled {
    earlier: u64,
    imported: u64,
    failed: u64,
}

pub(crate) async fn run(suite: &Suite, place: &Place, command: Import) -> Result<(), Failure> {
    let (source, into) = open(command)?;
    let source = Arc::new(source);
    let store = MailStore::of(place)?;
    let grant = crate::command::operator(suite, &into.account).await?;
    if !into.dry_run {
        let provision = Provision {
            grant: grant.clone(),
        };
        suite.call(Role::Stored, &provision).await?;
    }
    let name = source.name();
    let path = match &into.state {
        Some(path) => path.clone(),
        None => state_path(
            &suite.state_dir,
            grant.account.0,
            &name,
            into.into.as_deref(),
        ),
    };
    let state = State::open(&path, &name, grant.account.0, into.again, into.dry_run)?;
    let appender = Appender {
        stored: suite.client(Role::Stored).await?,
        authd: suite.client(Role::Authd).await?,
        reader: store.reader().await?,
        trace: suite.trace,
        name: into.account.clone(),
        account: grant.account,
        grant: RefCell::new(grant),
        state: RefCell::new(state),
    };
    let tasks = tasks(&source, &appender, into.into.as_deref()).await?;
    if into.dry_run {
        return tell_plan(suite, &appender, &tasks);
    }
    import(suite, &source, &appender, tasks, into.window, &path).await
}

fn open(command: Import) -> Result<(Source, Into), Failure> {
    Ok(match command {
        Import::Maildir { folder, into } => {
            (Source::Maildir(maildir::Maildir::open(&folder)?), into)
        }
        Import::Mbox {
            path,
            quoting,
            into,
        } => (Source::Mbox(mbox::Mbox::open(&path, quoting)?), into),
        Import::Imap {
            server,
            user,
            password_file,
            tls,
            ca,
            folders,
            into,
        } => {
            let password = match &password_file {
                Some(path) => first_line(path)?,
                None => password::once(&format!("Password of {user} at {server}: "))?,
            };
            let login = imap::Login {
                server,
                user,
                password,
                protection: tls,
                only: folders,
            };
            (Source::Imap(imap::Imap::new(login, ca.as_deref())?), into)
        }
    })
}

fn first_line(path: &Path) -> Result<String, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
    let line = text.lines().next().unwrap_or_default();
    if line.is_empty() {
        return Err(Failure::new(format!(
            "{}: its first line is empty",
            path.display()
        )));
    }
    Ok(line.to_owned())
}

/// `import/ACCOUNT-HASH` in the state directory.
fn state_path(dir: &Path, account: u64, source: &str, into: Option<&str>) -> PathBuf {
    let hash = blake3::hash(format!("{source}\n{}", into.unwrap_or_default()).as_bytes());
    let short: String = hash.to_hex().chars().take(16).collect();
    dir.join("import").join(format!("{account}-{short}"))
}

/// Which mailbox each folder goes to.
async fn tasks(
    source: &Source,
    appender: &Appender,
    into: Option<&str>,
) -> Result<Vec<Task>, Failure> {
    let folders = source.folders().await?;
    let existing = appender.reader.mailboxes(appender.account).await?;
    let uses: HashMap<String, String> = existing
        .into_iter()
        .filter_map(|mailbox| Some((mailbox.special_use?, mailbox.name)))
        .collect();
    let below_inbox = all_below_inbox(&folders);
    let mut tasks = Vec::with_capacity(folders.len());
    for folder in folders {
        let count = source.count(&folder).await?;
        tasks.push(Task {
            mailbox: target(&folder, into, below_inbox, &uses),
            folder,
            count,
        });
    }
    Ok(tasks)
}

/// Some servers keep all folders below INBOX; here they stand beside it.
fn all_below_inbox(folders: &[Folder]) -> bool {
    let mut others = folders.iter().filter(|folder| folder.name != "INBOX");
    folders.len() > 1 && others.all(|folder| folder.name.starts_with("INBOX/"))
}

fn target(
    folder: &Folder,
    into: Option<&str>,
    below_inbox: bool,
    uses: &HashMap<String, String>,
) -> String {
    let name = match folder.name.strip_prefix("INBOX/") {
        Some(rest) if below_inbox => rest,
        _ => &folder.name,
    };
    match into {
        Some(into) if name == "INBOX" => into.to_owned(),
        Some(into) => format!("{}/{name}", into.trim_end_matches('/')),
        None => folder
            .special_use
            .as_ref()
            .and_then(|special_use| uses.get(special_use))
            .map_or_else(|| name.to_owned(), String::clone),
    }
}

fn tell_plan(suite: &Suite, appender: &Appender, tasks: &[Task]) -> Result<(), Failure> {
    let state = appender.state.borrow();
    let rows: Vec<Value> = tasks
        .iter()
        .map(|task| {
            let earlier = state.done(&task.folder.at).len() as u64;
            json!({
                "folder": task.folder.name,
                "mailbox": task.mailbox,
                "source": task.count,
                "earlier": earlier,
                "to_import": task.count.saturating_sub(earlier),
                "subscribed": task.folder.subscribed,
                "special_use": task.folder.special_use,
            })
        })
        .collect();
    let columns = &[
        ("folder", "FOLDER"),
        ("mailbox", "MAILBOX"),
        ("source", "SOURCE"),
        ("earlier", "EARLIER"),
        ("to_import", "TO IMPORT"),
        ("special_use", "USE"),
        ("subscribed", "SUBSCRIBED"),
    ];
    output::list(suite.json, columns, &rows);
    Ok(())
}

async fn import(
    suite: &Suite,
    source: &Arc<Source>,
    appender: &Appender,
    tasks: Vec<Task>,
    window: u32,
    path: &Path,
) -> Result<(), Failure> {
    let mut ids = Vec::with_capacity(tasks.len());
    for task in &tasks {
        ids.push(mailbox(appender, task).await?);
    }
    let all = tasks.iter().map(|task| task.count).sum();
    let progress = Progress::new(suite.json, "messages", all);
    let filled: Vec<Result<Filled, Failure>> = {
        let fill = |(task, mailbox)| fill(source, appender, task, mailbox, &progress);
        stream::iter(tasks.iter().zip(&ids).map(|(task, id)| (task, *id)))
            .map(fill)
            .buffered(window.max(1) as usize)
            .collect()
            .await
    };
    progress.end();
    let mut rows = Vec::with_capacity(tasks.len());
    let (mut imported, mut failed) = (0, 0);
    for (task, filled) in tasks.iter().zip(filled) {
        let filled = filled.map_err(|failure| {
            Failure::new(format!(
                "{failure}; run it again to go on (state in {})",
                path.display()
            ))
        })?;
        imported += filled.imported;
        failed += filled.failed;
        rows.push(json!({
            "folder": task.folder.name,
            "mailbox": task.mailbox,
            "source": task.count,
            "earlier": filled.earlier,
            "imported": filled.imported,
            "failed": filled.failed,
        }));
    }
    let (verified, wrong) = verify(suite, appender).await?;
    if suite.json {
        output::print(&json!({
            "folders": rows,
            "imported": imported,
            "failed": failed,
            "verified": verified,
            "wrong": wrong,
            "state": path,
        }));
    } else {
        output::list(false, COLUMNS, &rows);
        output::say(&format!(
            "{imported} messages imported, {verified} compared with the source, {failed} failed."
        ));
    }
    match (failed, wrong.len()) {
        (0, 0) => Ok(()),
        (_, 0) => Err(Failure::new(format!(
            "{failed} messages were not imported; the reasons stand above"
        ))),
        (_, wrong) => Err(Failure::check(format!(
            "{wrong} messages in the store are not as in the source"
        ))),
    }
}

/// The mailbox's id; it is made and subscribed if need be.
async fn mailbox(appender: &Appender, task: &Task) -> Result<MailboxId, Failure> {
    let account = appender.account;
    let explain = |error| crate::connect::explain(Role::Stored, error);
    let existing = appender
        .reader
        .mailbox_named(account, &task.mailbox)
        .await?;
    let id = match existing {
        Some(mailbox) => mailbox.id,
        None => {
            let known = appender.reader.mailboxes(account).await?;
            // One mailbox for each use; `\All` and others are no use of a mailbox of ours.
            let special_use = task.folder.special_use.clone().filter(|wanted| {
                wanted != "\\All"
                    && !known
                        .iter()
                        .any(|mailbox| mailbox.special_use.as_ref() == Some(wanted))
            });
            let create = Mutation::MailboxCreate {
                name: task.mailbox.clone(),
                special_use,
            };
            match appender.change(create).await.map_err(explain)? {
                MutationResult::Created { mailbox } => mailbox,
                _ => return Err(Failure::new("stored gave another answer than asked for")),
            }
        }
    };
    if task.folder.subscribed {
        let known = appender.reader.subscriptions(account).await?;
        if !known.contains(&task.mailbox) {
            let subscribe = Mutation::Subscribe {
                name: task.mailbox.clone(),
                subscribed: true,
            };
            appender.change(subscribe).await.map_err(explain)?;
        }
    }
    Ok(id)
}

/// All messages of a folder that are not there yet, in their order.
async fn fill(
    source: &Arc<Source>,
    appender: &Appender,
    task: &Task,
    mailbox: MailboxId,
    progress: &Progress,
) -> Result<Filled, Failure> {
    let at = &task.folder.at;
    let mut filled = Filled::default();
    // What an append that was cut off had, in its form.
    let mut expected: VecDeque<(String, String)> = VecDeque::new();
    let unfinished = appender.state.borrow().unfinished(at);
    if let Some(plan) = unfinished
        && let Some(rest) = appender.recover(plan).await?
    {
        expected = rest.items.into();
    }
    let done = Arc::new(appender.state.borrow().done(at));
    filled.earlier = done.len() as u64;
    progress.add(filled.earlier.min(task.count));
    let mut coming = source.read(&task.folder, Arc::clone(&done));
    let mut batch = Batch::default();
    let mut failed = |filled: &mut Filled, key: &str, text: &str| {
        filled.failed += 1;
        progress.tell(&format!("{}: {key}: {text}", task.folder.name));
    };
    while let Some(next) = coming.recv().await {
        let item = match next {
            Ok(item) if done.contains(&item.key) => continue,
            Ok(item) => item,
            Err((Some(key), text)) => {
                failed(&mut filled, &key, &text);
                progress.add(1);
                continue;
            }
            Err((None, text)) => {
                failed(&mut filled, "the rest", &text);
                break;
            }
        };
        let prepared = tokio::task::spawn_blocking(move || Prepared::new(item))
            .await
            .map_err(|error| Failure::new(format!("a message could not be read: {error}")))?;
        let again = expected
            .front()
            .is_some_and(|(key, hash)| *key == prepared.item.key && *hash == prepared.hex());
        if again {
            expected.pop_front();
        } else {
            expected.clear();
        }
        if !again && !batch.fits(&prepared) {
            let full = std::mem::take(&mut batch);
            put(
                appender,
                at,
                mailbox,
                full,
                progress,
                &mut filled,
                &mut failed,
            )
            .await?;
        }
        batch.push(prepared);
        if again && expected.is_empty() {
            let full = std::mem::take(&mut batch);
            put(
                appender,
                at,
                mailbox,
                full,
                progress,
                &mut filled,
                &mut failed,
            )
            .await?;
        }
    }
    put(
        appender,
        at,
        mailbox,
        batch,
        progress,
        &mut filled,
        &mut failed,
    )
    .await?;
    let seen = filled.earlier + filled.imported + filled.failed;
    if seen < task.count {
        let text = format!("{} messages did not come", task.count - seen);
        failed(&mut filled, "the folder", &text);
    }
    Ok(filled)
}

async fn put(
    appender: &Appender,
    at: &str,
    mailbox: MailboxId,
    batch: Batch,
    progress: &Progress,
    filled: &mut Filled,
    failed: &mut impl FnMut(&mut Filled, &str, &str),
) -> Result<(), Failure> {
    let count = batch.messages.len() as u64;
    let outcome = appender.append(at, mailbox, batch).await?;
    filled.imported += outcome.stored;
    for (key, text) in &outcome.refused {
        failed(filled, key, text);
    }
    progress.add(count);
    Ok(())
}

/// Compares what is in the store with what the source gave. How many were compared, and which differ.
async fn verify(suite: &Suite, appender: &Appender) -> Result<(u64, Vec<Value>), Failure> {
    let mut by_mailbox: BTreeMap<MailboxId, Vec<(String, state::Put)>> = BTreeMap::new();
    for (folder, put) in appender.state.borrow().unverified() {
        let of = by_mailbox.entry(put.mailbox).or_default();
        of.push((folder.clone(), put.clone()));
    }
    let all = by_mailbox.values().map(|puts| puts.len() as u64).sum();
    let progress = Progress::new(suite.json, "messages compared", all);
    let mut wrong = Vec::new();
    for (mailbox, puts) in &by_mailbox {
        let from = puts.iter().map(|(_, put)| put.uid).min().unwrap_or(1);
        let stored: HashMap<u32, String> = appender
            .hashes(*mailbox, Uid(from))
            .await?
            .into_iter()
            .collect();
        for (folder, put) in puts {
            if stored.get(&put.uid) != Some(&put.hash) {
                let found = stored.contains_key(&put.uid);
                let what = if found { "differs" } else { "is not there" };
                progress.tell(&format!(
                    "{folder}: {}: UID {} {what} in the store",
                    put.key, put.uid
                ));
                wrong.push(
                    json!({ "folder": folder, "key": put.key, "uid": put.uid, "found": found }),
                );
            }
        }
        progress.add(puts.len() as u64);
    }
    progress.end();
    // What differs is told once: the next run compares what it brings itself.
    appender.state.borrow_mut().verified()?;
    Ok((all, wrong))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str, special_use: Option<&str>) -> Folder {
        Folder {
            name: name.to_owned(),
            special_use: special_use.map(str::to_owned),
            selectable: true,
            ..Folder::default()
        }
    }

    #[test]
    fn folders_find_their_mailboxes() {
        let uses = HashMap::from([("\\Sent".to_owned(), "Sent".to_owned())]);
        let to =
            |name, special_use, into, below| target(&folder(name, special_use), into, below, &uses);
        assert_eq!(to("Sent Items", Some("\\Sent"), None, false), "Sent");
        assert_eq!(to("Sent Items", None, None, false), "Sent Items");
        assert_eq!(to("INBOX", None, Some("Old"), false), "Old");
        assert_eq!(to("Sent", Some("\\Sent"), Some("Old/"), false), "Old/Sent");
        assert_eq!(to("INBOX/Work", None, None, true), "Work");
        assert_eq!(to("INBOX/Work", None, None, false), "INBOX/Work");
    }

    #[test]
    fn folders_below_inbox_are_known_by_all_of_them() {
        assert!(all_below_inbox(&[
            folder("INBOX", None),
            folder("INBOX/a", None)
        ]));
        assert!(!all_below_inbox(&[
            folder("INBOX/a", None),
            folder("b", None)
        ]));
        assert!(!all_below_inbox(&[folder("INBOX", None)]));
    }
}
