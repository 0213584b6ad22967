//! What belongs to people: names and limits, scripts, access control lists, annotations, notes of scripts.

use super::{Batch, Quota, Refusal};
use crate::Error;
use crate::acl::AclRights;
use sql::{Value, args};
use types::{AccountId, MailboxId, QueueId};

/// How much people may keep beside their mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Scripts of one account.
    pub scripts: u64,
    /// Octets of one script.
    pub script_bytes: u64,
    /// Entries of one access control list.
    pub acl_entries: u64,
    /// Annotations of one mailbox, or of an account itself, for one reader.
    pub metadata_entries: u64,
    /// Octets of one annotation.
    pub metadata_bytes: u64,
}

/// Whether a script may have that name (RFC 5804 1.6): 1 to 128 characters, no controls, no line and paragraph separators.
fn named(name: &str) -> Result<(), Refusal> {
    let bad = |c: char| c.is_control() || ('\u{2028}'..='\u{2029}').contains(&c) || c == '\u{fffd}';
    if name.is_empty() || name.chars().count() > 128 || name.chars().any(bad) {
        return Err(Refusal::Invalid(
            "a script's name has 1 to 128 characters, none of them controls",
        ));
    }
    Ok(())
}

/// Whether that can be an entry's name (RFC 5464 3.2), already in lower case.
fn entry_named(name: &str) -> bool {
    let private = name.starts_with("/private/") || name.starts_with("/shared/");
    private
        && name.len() <= 255
        && !name.ends_with('/')
        && !name.contains("//")
        && name
            .bytes()
            .all(|octet| octet.is_ascii_graphic() && !matches!(octet, b'*' | b'%'))
        && !name.bytes().any(|octet| octet.is_ascii_uppercase())
}

impl Batch {
    /// Notes an account's name and limits as a grant tells them. Costs a read; a write if they are new.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn note_owner(
        &mut self,
        account: AccountId,
        name: &str,
        quota: Quota,
    ) -> Result<(), Error> {
        let name = name.to_lowercase();
        self.tx
            .execute(
                "INSERT INTO owner (account, name, quota_bytes, quota_messages) VALUES (?, ?, ?, ?)
                    {on_conflict:account} name = {excluded:name}, quota_bytes = {excluded:quota_bytes},
                    quota_messages = {excluded:quota_messages}",
                args![account.0, name, quota.bytes, quota.messages],
            )
            .await?;
        Ok(())
    }

    async fn count(&mut self, text: &str, args: Vec<Value>) -> Result<u64, Error> {
        let row = self.tx.fetch_optional(text, args).await?;
        Ok(row.map_or(Ok(0), |row| row.u64(0))?)
    }

    /// A change of the account that no message shows: its modseq moves on, so that nobody keeps what is old.
    fn moved_on(&mut self, account: AccountId, mailbox: Option<MailboxId>) {
        if let Some(row) = self.accounts.get_mut(&account) {
            row.advance();
        }
        let touched = self.touched.entry(account).or_default();
        touched.extend(mailbox);
    }

    /// SETACL, DELETEACL: the whole entry; no rights remove it.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn set_acl(
        &mut self,
        account: AccountId,
        mailbox: MailboxId,
        identifier: &str,
        rights: AclRights,
        limits: Limits,
    ) -> Result<Result<(), Refusal>, Error> {
        if !self.owns(account, mailbox).await? {
            return Ok(Err(Refusal::NotFound));
        }
        let bare = identifier.strip_prefix('-').unwrap_or(identifier);
        let bad = |c: char| c.is_control() || c.is_whitespace() || c.is_uppercase();
        if bare.is_empty() || identifier.len() > 600 || identifier.chars().any(bad) {
            return Ok(Err(Refusal::Invalid("no such identifier")));
        }
        if rights.is_empty() {
            self.tx
                .execute(
                    "DELETE FROM acl WHERE mailbox = ? AND identifier = ?",
                    args![mailbox.0, identifier],
                )
                .await?;
        } else {
            let text = "SELECT COUNT(*) FROM acl WHERE mailbox = ? AND identifier <> ?";
            if self.count(text, args![mailbox.0, identifier]).await? >= limits.acl_entries {
                return Ok(Err(Refusal::Invalid("the list has too many entries")));
            }
            self.tx
                .execute(
                    "INSERT INTO acl (mailbox, identifier, account, rights) VALUES (?, ?, ?, ?)
                        {on_conflict:mailbox, identifier} rights = {excluded:rights}",
                    args![mailbox.0, identifier, account.0, rights.number()],
                )
                .await?;
        }
        self.moved_on(account, Some(mailbox));
        Ok(Ok(()))
    }

    /// SETMETADATA: all entries or none. `reader` is who set the private ones.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn set_metadata(
        &mut self,
        account: AccountId,
        reader: AccountId,
        mailbox: Option<MailboxId>,
        entries: &[(String, Option<Vec<u8>>)],
        limits: Limits,
    ) -> Result<Result<(), Refusal>, Error> {
        match mailbox {
            Some(mailbox) if !self.owns(account, mailbox).await? => {
                return Ok(Err(Refusal::NotFound));
            }
            Some(_) => {}
            None => self.provision(&[account]).await?,
        }
        if entries.iter().any(|(name, _)| !entry_named(name)) {
            return Ok(Err(Refusal::Invalid("no such entry name")));
        }
        let long = |value: &Option<Vec<u8>>| {
            let len = value.as_ref().map_or(0, Vec::len);
            len as u64 > limits.metadata_bytes
        };
        if entries.iter().any(|(_, value)| long(value)) {
            return Ok(Err(Refusal::TooLarge));
        }
        let place = mailbox.map_or(0, |id| id.0);
        let private = |name: &str| {
            if name.starts_with("/private/") {
                reader.0
            } else {
                0
            }
        };
        // Counted as it will be, before anything is written.
        let rows = self
            .tx
            .fetch_all(
                "SELECT entry FROM metadata WHERE account = ? AND mailbox = ? AND (reader = 0 OR reader = ?)",
                args![account.0, place, reader.0],
            )
            .await?;
        let mut names = std::collections::BTreeSet::new();
        for row in &rows {
            names.insert(row.text(0)?.to_owned());
        }
        for (name, value) in entries {
            if value.is_some() && name != crate::SPECIAL_USE_ENTRY {
                names.insert(name.clone());
            } else {
                names.remove(name);
            }
        }
        if names.len() as u64 > limits.metadata_entries {
            return Ok(Err(Refusal::TooMany));
        }
        let (special_use, entries): (Vec<_>, Vec<_>) = entries
            .iter()
            .partition(|(name, _)| name == crate::SPECIAL_USE_ENTRY);
        if let Some((_, value)) = special_use.last() {
            let set = self.special_use_entry(account, reader, mailbox, value.as_deref());
            if let Err(refusal) = set.await? {
                return Ok(Err(refusal));
            }
        }
        for (name, value) in entries {
            let key = args![account.0, place, private(name), name.as_str()];
            match value {
                None => {
                    self.tx
                        .execute(
                            "DELETE FROM metadata WHERE account = ? AND mailbox = ? AND reader = ? AND entry = ?",
                            key,
                        )
                        .await?;
                }
                Some(value) => {
                    let mut all = key;
                    all.push(value.as_slice().into());
                    self.tx
                        .execute(
                            "INSERT INTO metadata (account, mailbox, reader, entry, value) VALUES (?, ?, ?, ?, ?)
                                {on_conflict:account, mailbox, reader, entry} value = {excluded:value}",
                            all,
                        )
                        .await?;
                }
            }
        }
        self.moved_on(account, mailbox);
        Ok(Ok(()))
    }

    /// RFC 6154 5.4: the entry is the mailbox's special use itself, which is its owner's to say.
    async fn special_use_entry(
        &mut self,
        account: AccountId,
        reader: AccountId,
        mailbox: Option<MailboxId>,
        value: Option<&[u8]>,
    ) -> Result<Result<(), Refusal>, Error> {
        let Some(mailbox) = mailbox.filter(|_| reader == account) else {
            return Ok(Err(Refusal::Invalid(
                "only own mailboxes have a special use",
            )));
        };
        let text = match value.map(std::str::from_utf8).transpose() {
            Ok(text) => text.map(str::trim).filter(|text| !text.is_empty()),
            Err(_) => return Ok(Err(Refusal::Invalid("no such special use"))),
        };
        self.set_special_use(account, mailbox, text).await
    }

    /// PUTSCRIPT.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn put_script(
        &mut self,
        account: AccountId,
        name: &str,
        content: &[u8],
        limits: Limits,
    ) -> Result<Result<(), Refusal>, Error> {
        if let Err(refusal) = named(name) {
            return Ok(Err(refusal));
        }
        if content.len() as u64 > limits.script_bytes {
            return Ok(Err(Refusal::TooLarge));
        }
        self.provision(&[account]).await?;
        let text = "SELECT COUNT(*) FROM script WHERE account = ? AND name <> ?";
        if self.count(text, args![account.0, name]).await? >= limits.scripts {
            return Ok(Err(Refusal::TooMany));
        }
        self.tx
            .execute(
                "INSERT INTO script (account, name, active, size, hash, content) VALUES (?, ?, 0, ?, ?, ?)
                    {on_conflict:account, name} size = {excluded:size}, hash = {excluded:hash}, content = {excluded:content}",
                args![
                    account.0,
                    name,
                    content.len() as u64,
                    blob::id_of(content).0,
                    content
                ],
            )
            .await?;
        self.moved_on(account, None);
        Ok(Ok(()))
    }

    /// Whether there is such a script, and whether it is active.
    async fn script_state(
        &mut self,
        account: AccountId,
        name: &str,
    ) -> Result<Option<bool>, Error> {
        self.provision(&[account]).await?;
        let row = self
            .tx
            .fetch_optional(
                "SELECT active FROM script WHERE account = ? AND name = ?",
                args![account.0, name],
            )
            .await?;
        Ok(row.map(|row| row.bool(0)).transpose()?)
    }

    /// DELETESCRIPT (RFC 5804 2.10).
    ///
    /// # Errors
    /// [`Error`]
    pub async fn delete_script(
        &mut self,
        account: AccountId,
        name: &str,
    ) -> Result<Result<(), Refusal>, Error> {
        match self.script_state(account, name).await? {
            None => return Ok(Err(Refusal::NotFound)),
            Some(true) => return Ok(Err(Refusal::Conflict("the script is active"))),
            Some(false) => {}
        }
        self.tx
            .execute(
                "DELETE FROM script WHERE account = ? AND name = ?",
                args![account.0, name],
            )
            .await?;
        self.moved_on(account, None);
        Ok(Ok(()))
    }

    /// RENAMESCRIPT (RFC 5804 2.11).
    ///
    /// # Errors
    /// [`Error`]
    pub async fn rename_script(
        &mut self,
        account: AccountId,
        from: &str,
        to: &str,
    ) -> Result<Result<(), Refusal>, Error> {
        if let Err(refusal) = named(to) {
            return Ok(Err(refusal));
        }
        if self.script_state(account, from).await?.is_none() {
            return Ok(Err(Refusal::NotFound));
        }
        if self.script_state(account, to).await?.is_some() {
            return Ok(Err(Refusal::Conflict("there is a script of that name")));
        }
        self.tx
            .execute(
                "UPDATE script SET name = ? WHERE account = ? AND name = ?",
                args![to, account.0, from],
            )
            .await?;
        self.moved_on(account, None);
        Ok(Ok(()))
    }

    /// SETACTIVE (RFC 5804 2.8); `None`: none is active.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn activate_script(
        &mut self,
        account: AccountId,
        name: Option<&str>,
    ) -> Result<Result<(), Refusal>, Error> {
        if let Some(name) = name
            && self.script_state(account, name).await?.is_none()
        {
            return Ok(Err(Refusal::NotFound));
        }
        self.provision(&[account]).await?;
        self.tx
            .execute(
                "UPDATE script SET active = 0 WHERE account = ? AND active = 1",
                args![account.0],
            )
            .await?;
        if let Some(name) = name {
            self.tx
                .execute(
                    "UPDATE script SET active = 1 WHERE account = ? AND name = ?",
                    args![account.0, name],
                )
                .await?;
        }
        self.moved_on(account, None);
        Ok(Ok(()))
    }

    /// Notes what scripts must not do again: keys with the seconds since 1970 until which they count.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn note(
        &mut self,
        account: AccountId,
        id: QueueId,
        notes: &[(u64, i64)],
    ) -> Result<(), Error> {
        for (key, expires) in notes {
            self.tx
                .execute(
                    "INSERT INTO noted (account, hash, queue_id, expires) VALUES (?, ?, ?, ?)
                        {on_conflict:account, hash, queue_id} expires = {excluded:expires}",
                    args![account.0, *key, id.0, *expires],
                )
                .await?;
        }
        Ok(())
    }

    /// Removes everything of an account that the directory no longer has.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn erase(&mut self, account: AccountId) -> Result<(), Error> {
        self.write_pending().await?;
        self.load_all(account).await?;
        let mailboxes: Vec<MailboxId> = self
            .mailboxes
            .iter()
            .filter(|(_, state)| state.account == account)
            .map(|(id, _)| *id)
            .collect();
        for mailbox in &mailboxes {
            self.orphan(*mailbox, "uid > 0", &[]).await?;
            for table in ["message", "expunged"] {
                let text = format!("DELETE FROM {table} WHERE mailbox = ?");
                self.tx.execute(&text, args![mailbox.0]).await?;
            }
            for table in ["mailbox_state", "mailbox"] {
                let text = format!("DELETE FROM {table} WHERE id = ?");
                self.tx.execute(&text, args![mailbox.0]).await?;
            }
            if let Some(gone) = self.mailboxes.remove(mailbox) {
                self.names.remove(&(account, gone.name));
            }
        }
        for table in [
            "subscription",
            "script",
            "acl",
            "metadata",
            "noted",
            "owner",
            "thread_ref",
            "request",
        ] {
            let text = format!("DELETE FROM {table} WHERE account = ?");
            self.tx.execute(&text, args![account.0]).await?;
        }
        self.tx
            .execute("DELETE FROM metadata WHERE reader = ?", args![account.0])
            .await?;
        self.tx
            .execute("DELETE FROM account WHERE id = ?", args![account.0])
            .await?;
        self.accounts.remove(&account);
        self.touched.entry(account).or_default().extend(mailboxes);
        Ok(())
    }
}
