//! Does a change in the store and in the model, and compares the two.

use super::plain::{Account, Folder, Mail, Message, Model, Op, body, has, normal, with, without};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use store::writer::{
    Body, FlagChange, Incoming, Once, Placed, Quota, Refusal, Target, Writer, pack, thread_keys,
};
use store::{ContentBody, Flags, Reader, Wanted};
use types::{AccountId, MailboxId, ModSeq, QueueId};

const NOW: i64 = 1_700_000_000;
const STANDARD: [&str; 6] = ["INBOX", "Drafts", "Sent", "Junk", "Trash", "Archive"];

pub async fn open(db: sql::Db) -> (Writer, Reader, tempfile::TempDir) {
    let home = tempfile::tempdir().unwrap();
    let writer = Writer::new(db);
    writer.migrate().await.unwrap();
    let blobs = blob::Blobs::open_writer(&blob::Config::default(), home.path()).unwrap();
    let reader = writer.reader(Arc::new(blobs));
    (writer, reader, home)
}

fn ensure(model: &mut Model, id: u64) -> &mut Account {
    model.accounts.entry(id).or_insert_with(|| {
        let mut account = Account {
            modseq: 1,
            ..Account::default()
        };
        for name in STANDARD {
            // The ids are learnt from the store.
            account.folders.insert(name.to_owned(), folder(0, 1));
            account.subscribed.insert(name.to_owned());
        }
        account
    })
}

fn folder(id: u64, modseq: u64) -> Folder {
    Folder {
        id,
        uidvalidity: 0,
        uidnext: 1,
        modseq,
        messages: BTreeMap::new(),
        gone: Vec::new(),
    }
}

fn incoming(mail: &Mail, target: Target, once: Once) -> Incoming {
    let octets = body(mail.body);
    let parsed = message::parse(b"", &octets, &message::Limits::default());
    let account = AccountId(u64::from(mail.account) + 1);
    Incoming {
        account,
        quota: quota(mail),
        target,
        create: false,
        once,
        flags: Flags::parse(&mail.flags).unwrap(),
        date: 5,
        prefix: b"X: y\r\n".to_vec(),
        threads: thread_keys(account, &parsed),
        parsed: Arc::new(pack(&parsed.encode())),
        body: Arc::new(Body {
            id: blob::id_of(&octets),
            len: octets.len() as u64,
            data: Some(blob::encode(&octets, 3)),
        }),
    }
}

fn quota(mail: &Mail) -> Quota {
    Quota {
        bytes: 0,
        messages: if mail.quota < 6 {
            0
        } else {
            u64::from(mail.quota)
        },
    }
}

/// Puts a mail into a folder of the model.
fn place(model: &mut Model, mail: &Mail, name: &str) -> Result<(u64, u32), Refusal> {
    model.next_email += 1;
    let email = model.next_email;
    let account = ensure(model, u64::from(mail.account) + 1);
    let limit = quota(mail).messages;
    if limit != 0 && account.usage().1 >= limit {
        return Err(Refusal::OverQuota);
    }
    account.modseq += 1;
    let modseq = account.modseq;
    let folder = account.folders.get_mut(name).ok_or(Refusal::NotFound)?;
    let uid = folder.uidnext;
    folder.uidnext += 1;
    folder.modseq = modseq;
    folder.messages.insert(
        uid,
        Message {
            body: mail.body,
            flags: with(&BTreeSet::new(), &mail.flags),
            modseq,
            email,
            size: body(mail.body).len() as u64 + 6,
        },
    );
    Ok((folder.id, uid))
}

fn agree(
    store: &Result<Placed, Refusal>,
    model: &Result<(u64, u32), Refusal>,
) -> Result<(), String> {
    let store = store.clone().map(|placed| placed.uid.0);
    let model = model.clone().map(|(_, uid)| uid);
    if store == model {
        return Ok(());
    }
    Err(format!("store {store:?}, model {model:?}"))
}

fn same<T: PartialEq + std::fmt::Debug>(store: T, model: T) -> Result<(), String> {
    if store == model {
        return Ok(());
    }
    Err(format!("store {store:?}, model {model:?}"))
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// The folder that the small number means: the n-th by name; beyond the last one, one that is not there.
fn pick(model: &Model, account: u8, number: u8) -> (AccountId, MailboxId, Option<String>) {
    let id = u64::from(account) + 1;
    let found = model
        .accounts
        .get(&id)
        .and_then(|account| account.folders.iter().nth(usize::from(number)));
    match found {
        Some((name, folder)) => (AccountId(id), MailboxId(folder.id), Some(name.clone())),
        None => (AccountId(id), MailboxId(999_999), None),
    }
}

/// Does one change in both.
pub async fn perform(writer: &Writer, model: &mut Model, op: &Op) -> Result<(), String> {
    let mut batch = writer.begin(NOW).await.map_err(text)?;
    match op {
        Op::Deliver(mails) => {
            let all: Vec<Incoming> = mails
                .iter()
                .map(|mail| {
                    let once = Once::Delivery(QueueId(u64::from(mail.queue)), 0);
                    incoming(mail, Target::Named(mail.name.to_owned()), once)
                })
                .collect();
            let all: Vec<&Incoming> = all.iter().collect();
            let results = batch.put(&all).await.map_err(text)?;
            for (mail, result) in mails.iter().zip(&results) {
                let account = ensure(model, u64::from(mail.account) + 1);
                if let Some(mark) = account.marks.get(&mail.queue).copied() {
                    let placed = result.as_ref().map_err(text)?;
                    same((placed.duplicate, placed.uid.0), (true, mark.1))?;
                    continue;
                }
                let name = if account.folders.contains_key(mail.name) {
                    mail.name
                } else {
                    "INBOX"
                };
                let expected = place(model, mail, name);
                agree(result, &expected)?;
                if let Ok(mark) = expected {
                    let account = ensure(model, u64::from(mail.account) + 1);
                    account.marks.insert(mail.queue, mark);
                }
            }
        }
        Op::Append(number, mail) => {
            let (_, id, name) = pick(model, mail.account, *number);
            let message = incoming(mail, Target::Mailbox(id), Once::Request);
            let results = batch.put(&[&message]).await.map_err(text)?;
            let expected = match name {
                Some(name) => place(model, mail, &name),
                None => Err(Refusal::NotFound),
            };
            agree(&results[0], &expected)?;
        }
        Op::Flags {
            account,
            mailbox,
            uids,
            change,
            flags,
            since,
        } => {
            let (id, mailbox, name) = pick(model, *account, *mailbox);
            let change =
                [FlagChange::Replace, FlagChange::Add, FlagChange::Remove][usize::from(*change)];
            let parsed = Flags::parse(flags).unwrap();
            let since = since.map(|since| ModSeq(u64::from(since)));
            let result = batch
                .change_flags(id, mailbox, uids, change, &parsed, since)
                .await
                .map_err(text)?;
            let Some(name) = name else {
                same(result, Err(Refusal::NotFound))?;
                return batch.commit().await.map(drop).map_err(text);
            };
            let account = model.accounts.get_mut(&id.0).unwrap();
            let next = account.modseq + 1;
            let folder = account.folders.get_mut(&name).unwrap();
            let mut held = Vec::new();
            let mut changed = false;
            for (uid, message) in folder
                .messages
                .iter_mut()
                .filter(|(uid, _)| has(uids, **uid))
            {
                if since.is_some_and(|since| message.modseq > since.0) {
                    held.push(*uid);
                    continue;
                }
                let new = match change {
                    FlagChange::Replace => with(&BTreeSet::new(), flags),
                    FlagChange::Add => with(&message.flags, flags),
                    FlagChange::Remove => without(&message.flags, flags),
                };
                if new != message.flags {
                    message.flags = new;
                    message.modseq = next;
                    changed = true;
                }
            }
            if changed {
                folder.modseq = next;
                account.modseq = next;
            }
            same(result, Ok(store::to_ranges(held)))?;
        }
        Op::Copy(account, from, uids, to) => {
            let (id, source, from) = pick(model, *account, *from);
            let (_, target, to) = pick(model, *account, *to);
            let result = batch
                .copy(id, Quota::default(), source, uids, target)
                .await
                .map_err(text)?;
            transfer(model, id.0, from, uids, to, false, result)?;
        }
        Op::Move(account, from, uids, to) => {
            let (id, source, from) = pick(model, *account, *from);
            let (_, target, to) = pick(model, *account, *to);
            let result = batch
                .move_to(id, source, uids, target)
                .await
                .map_err(text)?;
            transfer(model, id.0, from, uids, to, true, result)?;
        }
        Op::Expunge(account, mailbox, uids) => {
            let (id, mailbox, name) = pick(model, *account, *mailbox);
            let result = batch
                .expunge(id, mailbox, uids.as_deref())
                .await
                .map_err(text)?;
            let Some(name) = name else {
                same(result, Err(Refusal::NotFound))?;
                return batch.commit().await.map(drop).map_err(text);
            };
            let account = model.accounts.get_mut(&id.0).unwrap();
            let folder = account.folders.get_mut(&name).unwrap();
            let gone: Vec<u32> = folder
                .messages
                .iter()
                .filter(|(uid, message)| {
                    message.flags.contains("\\Deleted")
                        && uids.as_ref().is_none_or(|uids| has(uids, **uid))
                })
                .map(|(uid, _)| *uid)
                .collect();
            if !gone.is_empty() {
                account.modseq += 1;
                folder.modseq = account.modseq;
                for uid in &gone {
                    folder.messages.remove(uid);
                    folder.gone.push((*uid, account.modseq));
                }
            }
            same(result, Ok(store::to_ranges(gone)))?;
        }
        Op::Create(account, name) => {
            let id = u64::from(*account) + 1;
            let result = batch
                .create(AccountId(id), name, None)
                .await
                .map_err(text)?;
            // A refused name provisions nothing.
            match normal(name) {
                None => same(matches!(result, Err(Refusal::Invalid(_))), true)?,
                Some(name) => {
                    let account = ensure(model, id);
                    if account.folders.contains_key(&name) {
                        same(matches!(result, Err(Refusal::Conflict(_))), true)?;
                    } else {
                        result.map_err(text)?;
                        create(account, &name);
                    }
                }
            }
        }
        Op::Delete(account, mailbox) => {
            let (id, mailbox, name) = pick(model, *account, *mailbox);
            let result = batch.delete(id, mailbox).await.map_err(text)?;
            match name {
                None => same(result, Err(Refusal::NotFound))?,
                Some(name) if name == "INBOX" => {
                    same(matches!(result, Err(Refusal::Invalid(_))), true)?;
                }
                Some(name) => {
                    let account = model.accounts.get_mut(&id.0).unwrap();
                    let below = format!("{name}/");
                    if account
                        .folders
                        .keys()
                        .any(|other| other.starts_with(&below))
                    {
                        same(matches!(result, Err(Refusal::Conflict(_))), true)?;
                    } else {
                        same(result, Ok(()))?;
                        account.folders.remove(&name);
                        account.modseq += 1;
                    }
                }
            }
        }
        Op::Rename(account, mailbox, new) => {
            let (id, mailbox, name) = pick(model, *account, *mailbox);
            let result = batch.rename(id, mailbox, new).await.map_err(text)?;
            match (name, normal(new)) {
                (None, _) => same(result, Err(Refusal::NotFound))?,
                (Some(_), None) => same(matches!(result, Err(Refusal::Invalid(_))), true)?,
                (Some(name), Some(new)) => {
                    let account = model.accounts.get_mut(&id.0).unwrap();
                    let expected = rename(account, &name, &new);
                    same(result.is_ok(), expected)?;
                }
            }
        }
        Op::Subscribe(account, name, subscribed) => {
            let id = u64::from(*account) + 1;
            let result = batch
                .subscribe(AccountId(id), name, *subscribed)
                .await
                .map_err(text)?;
            match normal(name) {
                None => same(matches!(result, Err(Refusal::Invalid(_))), true)?,
                Some(name) => {
                    same(result, Ok(()))?;
                    let account = ensure(model, id);
                    let changed = if *subscribed {
                        account.subscribed.insert(name)
                    } else {
                        account.subscribed.remove(&name)
                    };
                    account.modseq += u64::from(changed);
                }
            }
        }
        Op::Collect => while batch.collect().await.map_err(text)?.more {},
    }
    batch.commit().await.map(drop).map_err(text)
}

fn create(account: &mut Account, name: &str) {
    account.modseq += 1;
    let modseq = account.modseq;
    let parents = name.match_indices('/').map(|(at, _)| &name[..at]);
    for name in parents.chain([name]) {
        account
            .folders
            .entry(name.to_owned())
            .or_insert_with(|| folder(0, modseq));
    }
}

/// Whether it can be done.
fn rename(account: &mut Account, name: &str, new: &str) -> bool {
    if account.folders.contains_key(new) {
        return false;
    }
    if name == "INBOX" {
        create(account, new);
        let messages = std::mem::take(&mut account.folders.get_mut("INBOX").unwrap().messages);
        if messages.is_empty() {
            return true;
        }
        account.modseq += 1;
        let modseq = account.modseq;
        let target = account.folders.get_mut(new).unwrap();
        target.modseq = modseq;
        for message in messages.values() {
            let message = Message {
                modseq,
                ..message.clone()
            };
            target.messages.insert(target.uidnext, message);
            target.uidnext += 1;
        }
        let inbox = account.folders.get_mut("INBOX").unwrap();
        inbox.modseq = modseq;
        inbox.gone.extend(messages.keys().map(|uid| (*uid, modseq)));
        return true;
    }
    let below = format!("{name}/");
    if new.starts_with(&below) {
        return false;
    }
    let moving: Vec<String> = account
        .folders
        .keys()
        .filter(|other| *other == name || other.starts_with(&below))
        .cloned()
        .collect();
    let renamed = |old: &str| format!("{new}{}", &old[name.len()..]);
    if moving
        .iter()
        .any(|old| account.folders.contains_key(&renamed(old)))
    {
        return false;
    }
    let taken: Vec<(String, Folder)> = moving
        .into_iter()
        .map(|old| (old.clone(), account.folders.remove(&old).unwrap()))
        .collect();
    account.modseq += 1;
    let modseq = account.modseq;
    // Parents of the new name that are being moved away themselves stay missing only if they were below the old one.
    for (at, _) in new.match_indices('/') {
        let parent = &new[..at];
        account
            .folders
            .entry(parent.to_owned())
            .or_insert_with(|| folder(0, modseq));
    }
    for (old, mut folder) in taken {
        folder.modseq = modseq;
        if account.subscribed.remove(&old) {
            account.subscribed.insert(renamed(&old));
        }
        account.folders.insert(renamed(&old), folder);
    }
    true
}

fn transfer(
    model: &mut Model,
    id: u64,
    from: Option<String>,
    uids: &[(u32, u32)],
    to: Option<String>,
    moving: bool,
    result: Result<store::writer::Transferred, Refusal>,
) -> Result<(), String> {
    let (Some(from), Some(to)) = (from, to) else {
        return same(result, Err(Refusal::NotFound));
    };
    let done = result.map_err(text)?;
    let mut next_email = model.next_email;
    let account = model.accounts.get_mut(&id).unwrap();
    let taken: Vec<(u32, Message)> = account.folders[&from]
        .messages
        .iter()
        .filter(|(uid, _)| has(uids, **uid))
        .map(|(uid, message)| (*uid, message.clone()))
        .collect();
    same(
        done.source.clone(),
        store::to_ranges(taken.iter().map(|(uid, _)| *uid)),
    )?;
    if taken.is_empty() {
        return same(done.target, Vec::new());
    }
    account.modseq += 1;
    let modseq = account.modseq;
    let mut new = Vec::new();
    let target = account.folders.get_mut(&to).unwrap();
    target.modseq = modseq;
    for (_, message) in &taken {
        next_email += 1;
        let message = Message {
            modseq,
            email: if moving { message.email } else { next_email },
            ..message.clone()
        };
        new.push(target.uidnext);
        target.messages.insert(target.uidnext, message);
        target.uidnext += 1;
    }
    if moving {
        let source = account.folders.get_mut(&from).unwrap();
        source.modseq = modseq;
        for (uid, _) in &taken {
            source.messages.remove(uid);
            source.gone.push((*uid, modseq));
        }
    }
    model.next_email = next_email;
    same(done.target, store::to_ranges(new))
}

/// Takes over the ids of new folders.
pub async fn learn(reader: &Reader, model: &mut Model) -> Result<(), String> {
    for (id, account) in &mut model.accounts {
        for stored in reader.mailboxes(AccountId(*id)).await.map_err(text)? {
            if let Some(folder) = account.folders.get_mut(&stored.name) {
                if folder.id == 0 {
                    folder.id = stored.id.0;
                    folder.uidvalidity = stored.uidvalidity;
                }
                same(
                    (stored.id.0, stored.uidvalidity),
                    (folder.id, folder.uidvalidity),
                )?;
            }
        }
    }
    Ok(())
}

/// Compares everything that can be read.
pub async fn compare(reader: &Reader, model: &Model) -> Result<(), String> {
    for (id, account) in &model.accounts {
        let id = AccountId(*id);
        let state = reader
            .account(id)
            .await
            .map_err(text)?
            .ok_or("no account")?;
        let (bytes, messages) = account.usage();
        same(
            (state.modseq.0, state.bytes, state.messages),
            (account.modseq, bytes, messages),
        )?;
        let subscribed: BTreeSet<String> = reader
            .subscriptions(id)
            .await
            .map_err(text)?
            .into_iter()
            .collect();
        same(&subscribed, &account.subscribed)?;
        let folders = reader.mailboxes(id).await.map_err(text)?;
        let names: BTreeSet<&String> = folders.iter().map(|folder| &folder.name).collect();
        same(names, account.folders.keys().collect())?;
        let mut emails: BTreeMap<u64, u64> = BTreeMap::new();
        for stored in folders {
            let folder = &account.folders[&stored.name];
            same(stored.subscribed, account.subscribed.contains(&stored.name))?;
            compare_folder(reader, id, &stored, folder, &mut emails)
                .await
                .map_err(|error| format!("{}: {error}", stored.name))?;
        }
        // One e-mail in the store is one in the model, and the other way round.
        let back: BTreeSet<&u64> = emails.values().collect();
        same(back.len(), emails.len())?;
    }
    Ok(())
}

async fn compare_folder(
    reader: &Reader,
    account: AccountId,
    stored: &store::Mailbox,
    folder: &Folder,
    emails: &mut BTreeMap<u64, u64>,
) -> Result<(), String> {
    let count = |flag: &str| {
        folder
            .messages
            .values()
            .filter(|message| message.flags.contains(flag))
            .count() as u32
    };
    let total = folder.messages.len() as u32;
    same(
        (
            stored.uidnext,
            stored.modseq.0,
            stored.total,
            stored.unseen,
            stored.deleted,
            stored.bytes,
        ),
        (
            folder.uidnext,
            folder.modseq,
            total,
            total - count("\\Seen"),
            count("\\Deleted"),
            folder.messages.values().map(|message| message.size).sum(),
        ),
    )?;
    let mut rows = Vec::new();
    let same_folder = reader
        .messages(account, stored.id, types::Uid(1), |row| rows.push(row))
        .await
        .map_err(text)?
        .ok_or("no mailbox")?;
    same(same_folder.uidvalidity, stored.uidvalidity)?;
    same(
        rows.iter().map(|row| row.uid.0).collect::<Vec<_>>(),
        folder.messages.keys().copied().collect(),
    )?;
    let mut ids = Vec::new();
    for row in &rows {
        let message = &folder.messages[&row.uid.0];
        let flags: BTreeSet<String> = row.flags.names().map(str::to_owned).collect();
        same(
            (&flags, row.modseq.0, row.size),
            (&message.flags, message.modseq, message.size),
        )?;
        let known = *emails.entry(row.email.0).or_insert(message.email);
        same(known, message.email)?;
        ids.push(row.content);
    }
    let wanted = Wanted {
        prefix: true,
        parsed: true,
        body: true,
    };
    let mut contents = BTreeMap::new();
    reader
        .contents(account, &ids, wanted, |content| {
            contents.insert(content.id, content);
        })
        .await
        .map_err(text)?;
    for row in &rows {
        let content = contents.get(&row.content).ok_or("a content is missing")?;
        let octets = body(folder.messages[&row.uid.0].body);
        same(&content.body, &ContentBody::Octets(octets))?;
        same(content.prefix.as_slice(), b"X: y\r\n")?;
        message::Parsed::decode(&content.parsed).map_err(text)?;
    }
    compare_changes(reader, account, stored, folder).await
}

async fn compare_changes(
    reader: &Reader,
    account: AccountId,
    stored: &store::Mailbox,
    folder: &Folder,
) -> Result<(), String> {
    for since in [
        stored.floor.0,
        folder.modseq / 2,
        folder.modseq.saturating_sub(1),
    ] {
        if since < stored.floor.0 {
            continue;
        }
        let changes = reader
            .changes(account, stored.id, ModSeq(since))
            .await
            .map_err(text)?
            .ok_or("no mailbox")?;
        same(changes.complete, true)?;
        let mut gone: Vec<u32> = folder
            .gone
            .iter()
            .filter(|(_, modseq)| *modseq > since)
            .map(|(uid, _)| *uid)
            .collect();
        gone.sort_unstable();
        let told: Vec<u32> = changes
            .expunged
            .iter()
            .flat_map(|(low, high)| *low..=*high)
            .collect();
        same(told, gone)?;
        let changed: Vec<u32> = folder
            .messages
            .iter()
            .filter(|(_, message)| message.modseq > since)
            .map(|(uid, _)| *uid)
            .collect();
        same(
            changes
                .changed
                .iter()
                .map(|row| row.uid.0)
                .collect::<Vec<_>>(),
            changed,
        )?;
    }
    Ok(())
}
