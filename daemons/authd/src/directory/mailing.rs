//! Mailing lists and their members.

use super::accounts::next_number;
use super::personal::give_handles;
use super::{Directory, DirectoryError, Result, occupy, schema, text};
use crate::name;
use ipc::api::authd::{
    FromHandling, ListMember, ListStanding, ListSuspended, MailingList, Moderation, Posting,
    PutMode, ReplyTo, Subscription,
};
use serde::{Deserialize, Serialize};
use sql::{Row, Tx, Value, args};
use std::collections::BTreeMap;
use types::Address;

const OWNERS: usize = 20;
const FOOTER: usize = 4000;
const HELD_DAYS: u32 = 30;
const MEMBERS_AT_ONCE: usize = 200;
/// Members of a list: each post goes to all of them.
const MEMBERS: u64 = 100_000;
/// A frame has 128 KiB.
const ANSWER_OCTETS: usize = 80 * 1024;
/// Rows of one question.
const ROWS: u32 = 1000;
const DAY: u64 = 86_400;

const COLUMNS: &str = "member, shown, display, nomail, can_post, joined, bounces, suspended";

/// What a list has besides its address, as it is kept.
#[derive(Debug, Serialize, Deserialize)]
struct Settings {
    description: String,
    owners: Vec<String>,
    posting: Posting,
    subscription: Subscription,
    tag: String,
    footer: String,
    from: FromHandling,
    reply_to: ReplyTo,
    archive: Option<String>,
    archive_url: Option<String>,
    max_bytes: u64,
    max_bounces: u32,
    #[serde(default)]
    personal: bool,
    // Lists of earlier versions have none of these.
    #[serde(default)]
    moderation: Moderation,
    #[serde(default = "held_days")]
    held_days: u32,
}

/// Days for which posts are held, unless a list says otherwise.
fn held_days() -> u32 {
    7
}

fn invalid<T>(text: impl Into<String>) -> Result<T> {
    Err(DirectoryError::Invalid(text.into()))
}

/// A text that stands in a header field, or in an answer.
fn one_line(what: &str, text: &str, most: usize) -> Result<String> {
    if text.len() > most || text.chars().any(char::is_control) {
        return invalid(format!("{what} is one line of up to {most} octets"));
    }
    Ok(text.trim().to_owned())
}

impl Settings {
    fn of(list: &MailingList) -> Result<Self> {
        if list.owners.len() > OWNERS {
            return invalid(format!("a list has up to {OWNERS} owners"));
        }
        let owners = list
            .owners
            .iter()
            .map(|one| Ok(name::address(one)?.to_string()));
        let has_control = |c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t');
        if list.footer.len() > FOOTER || list.footer.chars().any(has_control) {
            return invalid(format!("a footer is a text of up to {FOOTER} octets"));
        }
        let archive = match list.archive.as_deref().filter(|text| !text.is_empty()) {
            Some(text) => Some(name::address(text)?.to_string()),
            None => None,
        };
        let url = list.archive_url.as_deref().filter(|text| !text.is_empty());
        if let Some(url) = url
            && (!url.starts_with("https://") && !url.starts_with("http://")
                || url.len() > 500
                || !url
                    .bytes()
                    .all(|b| b.is_ascii_graphic() && b != b'<' && b != b'>'))
        {
            return invalid(format!("{url} is no address of a web page"));
        }
        let tag = one_line("the tag", &list.tag, 60)?;
        if tag.contains(['[', ']']) {
            return invalid("the tag stands in brackets without saying so");
        }
        if list.moderation != Moderation::None && owners.len() == 0 {
            return invalid("a list whose posts wait for its owners needs an owner");
        }
        if !(1..=HELD_DAYS).contains(&list.held_days) {
            return invalid(format!("posts are held for 1 to {HELD_DAYS} days"));
        }
        Ok(Self {
            description: one_line("the description", &list.description, 200)?,
            owners: owners.collect::<Result<_>>()?,
            posting: list.posting,
            subscription: list.subscription,
            tag,
            footer: list.footer.replace("\r\n", "\n").replace('\r', "\n"),
            from: list.from,
            reply_to: list.reply_to,
            archive,
            archive_url: url.map(str::to_owned),
            max_bytes: list.max_bytes,
            max_bounces: list.max_bounces,
            personal: list.personal,
            moderation: list.moderation,
            held_days: list.held_days,
        })
    }

    fn read(text: &str) -> Result<Self> {
        serde_json::from_str(text)
            .map_err(|error| DirectoryError::Invalid(format!("a list's settings: {error}")))
    }

    fn list(self, address: String, members: u64) -> MailingList {
        MailingList {
            address,
            description: self.description,
            owners: self.owners,
            posting: self.posting,
            subscription: self.subscription,
            tag: self.tag,
            footer: self.footer,
            from: self.from,
            reply_to: self.reply_to,
            archive: self.archive,
            archive_url: self.archive_url,
            max_bytes: self.max_bytes,
            max_bounces: self.max_bounces,
            members,
            personal: self.personal,
            moderation: self.moderation,
            held_days: self.held_days,
        }
    }
}

fn member(row: &Row) -> Result<ListMember> {
    Ok(ListMember {
        address: text(row, 1)?,
        name: text(row, 2)?,
        nomail: row.bool(3)?,
        can_post: row.bool(4)?,
        joined: row.u64(5)?,
        bounces: u32::try_from(row.u64(6)?).unwrap_or(u32::MAX),
        suspended: row.bool(7)?,
    })
}

/// The members of a list.
async fn count(tx: &mut Tx, id: u64) -> Result<u64> {
    let row = tx
        .fetch_optional(
            "SELECT COUNT(*) FROM directory_member WHERE list = ?",
            args![id],
        )
        .await?;
    Ok(row.map_or(Ok(0), |row| row.u64(0))?)
}

/// A list's number, locked for a change of its members.
async fn number(tx: &mut Tx, key: &str) -> Result<u64> {
    let row = tx
        .fetch_optional(
            "SELECT id FROM directory_list WHERE address = ? {for_update}",
            args![key],
        )
        .await?;
    let row = row.ok_or_else(|| DirectoryError::NotFound(format!("the list {key}")))?;
    Ok(row.u64(0)?)
}

impl Directory {
    /// The owners of lists, by key.
    pub(super) async fn list_owners(
        &self,
        keys: Vec<Value>,
    ) -> Result<Vec<(String, Vec<Address>)>> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let rows = self
            .db
            .fetch_in(
                "SELECT address, settings FROM directory_list WHERE address IN ({list})",
                &[],
                keys,
            )
            .await?;
        let owners = |row: &Row| {
            let settings = Settings::read(row.text(1)?)?;
            let owners = settings.owners.iter().filter_map(|one| one.parse().ok());
            Ok((text(row, 0)?, owners.collect()))
        };
        rows.iter().map(owners).collect()
    }

    /// Makes or changes a mailing list.
    pub(crate) async fn mailing_put(&self, mode: PutMode, list: &MailingList) -> Result<()> {
        let address = name::address(&list.address)?;
        let key = name::key(&address);
        let settings = serde_json::to_string(&Settings::of(list)?)
            .map_err(|error| DirectoryError::Invalid(error.to_string()))?;
        if !crate::personal::fits(list) {
            return invalid(format!(
                "personal posts need a list's name of up to {} octets",
                crate::personal::NAME_MAX
            ));
        }
        let handles = self.handle_key().await?;
        let mut tx = self.db.begin().await?;
        match mode {
            PutMode::Create => {
                occupy(&mut tx, &address, schema::MAILING_LIST, "", false).await?;
                let id = next_number(&mut tx).await?;
                tx.execute(
                    "INSERT INTO directory_list (address, id, settings) VALUES (?, ?, ?)",
                    args![&key, id, settings],
                )
                .await?;
            }
            PutMode::Update => {
                let id = number(&mut tx, &key).await?;
                if list.personal {
                    self.check_members(count(&mut tx, id).await?, true)?;
                    give_handles(&mut tx, &handles, id, &key).await?;
                }
                tx.execute(
                    "UPDATE directory_list SET settings = ? WHERE address = ?",
                    args![settings, &key],
                )
                .await?;
            }
        }
        self.commit(tx).await?;
        tracing::info!(address = key, ?mode, "mailing list written");
        Ok(())
    }

    /// The mailing lists, by address.
    pub(crate) async fn mailing_list(
        &self,
        only: Option<&str>,
        after: Option<&str>,
    ) -> Result<Vec<MailingList>> {
        let mut statement = "SELECT d.shown, l.settings, (SELECT COUNT(*) FROM directory_member m WHERE m.list = l.id), l.address
             FROM directory_list l JOIN directory_address d ON d.address = l.address WHERE 1 = 1"
            .to_owned();
        let mut args: Vec<Value> = Vec::new();
        for (condition, value) in [(" AND l.address = ?", only), (" AND l.address > ?", after)] {
            if let Some(value) = value {
                statement.push_str(condition);
                args.push(name::key(&name::address(value)?).into());
            }
        }
        statement.push_str(" ORDER BY l.address LIMIT 200");
        let mut lists = Vec::new();
        let mut octets = 0;
        for row in &self.db.fetch_all(&statement, args).await? {
            octets += row.text(1)?.len() + 100;
            if octets > ANSWER_OCTETS && !lists.is_empty() {
                break;
            }
            let settings = Settings::read(row.text(1)?)?;
            lists.push(settings.list(text(row, 0)?, row.u64(2)?));
        }
        Ok(lists)
    }

    /// Removes a mailing list and its members.
    pub(crate) async fn mailing_remove(&self, only: &str) -> Result<()> {
        let key = name::key(&name::address(only)?);
        let mut tx = self.db.begin().await?;
        let id = number(&mut tx, &key).await?;
        tx.execute("DELETE FROM directory_member WHERE list = ?", args![id])
            .await?;
        for table in ["directory_list", "directory_address"] {
            let statement = format!("DELETE FROM {table} WHERE address = ?");
            tx.execute(&statement, args![&key]).await?;
        }
        self.commit(tx).await?;
        tracing::info!(address = key, "mailing list removed");
        Ok(())
    }

    /// Makes or changes members.
    pub(crate) async fn member_put(
        &self,
        list: &str,
        members: &[ListMember],
        now: u64,
    ) -> Result<()> {
        if members.len() > MEMBERS_AT_ONCE {
            return invalid(format!("up to {MEMBERS_AT_ONCE} members at once"));
        }
        let list = name::key(&name::address(list)?);
        let mut put = BTreeMap::new();
        for member in members {
            let address = name::address(&member.address)?;
            if name::key(&address) == list {
                return invalid("a list is no member of itself");
            }
            let display = one_line("a member's name", &member.name, 200)?;
            put.insert(name::key(&address), (address, display, member));
        }
        let handles = self.handle_key().await?;
        let mut tx = self.db.begin().await?;
        let id = number(&mut tx, &list).await?;
        let row = tx
            .fetch_optional(
                "SELECT settings FROM directory_list WHERE id = ?",
                args![id],
            )
            .await?;
        let personal = match row {
            Some(row) => Settings::read(row.text(0)?)?.personal,
            None => false,
        };
        for (key, (address, display, member)) in &put {
            let joined = tx
                .fetch_optional(
                    "SELECT joined FROM directory_member WHERE list = ? AND member = ?",
                    args![id, key],
                )
                .await?;
            let joined = match (joined, member.joined) {
                (Some(row), 0) => row.u64(0)?,
                (None, 0) => now,
                (_, given) => given,
            };
            tx.execute(
                "DELETE FROM directory_member WHERE list = ? AND member = ?",
                args![id, key],
            )
            .await?;
            tx.execute(
                "INSERT INTO directory_member (list, member, shown, display, nomail, can_post, joined, bounces, bounced, suspended, handle)
                 VALUES (?, ?, ?, ?, ?, ?, ?, 0, 0, ?, ?)",
                args![
                    id,
                    key,
                    address.to_string(),
                    display.as_str(),
                    member.nomail,
                    member.can_post,
                    joined,
                    member.suspended,
                    handles.handle(&list, key)
                ],
            )
            .await?;
        }
        // Those who were members before are no more.
        self.check_members(count(&mut tx, id).await?, personal)?;
        self.commit(tx).await?;
        tracing::info!(list, members = put.len(), "members written");
        Ok(())
    }

    fn check_members(&self, count: u64, personal: bool) -> Result<()> {
        let (most, what) = match personal {
            true => (
                MEMBERS.min(self.personal_members),
                "a list with personal posts",
            ),
            false => (MEMBERS, "a list"),
        };
        if count > most {
            return Err(DirectoryError::Limit(format!(
                "{what} has up to {most} members"
            )));
        }
        Ok(())
    }

    pub(super) async fn list_id(&self, key: &str) -> Result<Option<u64>> {
        let row = self
            .db
            .fetch_optional(
                "SELECT id FROM directory_list WHERE address = ?",
                args![key],
            )
            .await?;
        Ok(row.map(|row| row.u64(0)).transpose()?)
    }

    /// Members, by address, those behind `after`; as many as fit an answer.
    async fn members(&self, list: u64, after: &str, active: bool) -> Result<Vec<ListMember>> {
        let only = if active {
            " AND nomail = 0 AND suspended = 0"
        } else {
            ""
        };
        let statement = format!(
            "SELECT {COLUMNS} FROM directory_member WHERE list = ? AND member > ?{only} ORDER BY member LIMIT {ROWS}"
        );
        let rows = self.db.fetch_all(&statement, args![list, after]).await?;
        let mut members = Vec::with_capacity(rows.len());
        let mut octets = 0;
        for row in &rows {
            let member = member(row)?;
            octets += member.address.len() + member.name.len() + 24;
            if octets > ANSWER_OCTETS {
                break;
            }
            members.push(member);
        }
        Ok(members)
    }

    /// The members of a list.
    pub(crate) async fn member_list(
        &self,
        list: &str,
        after: Option<&str>,
    ) -> Result<Vec<ListMember>> {
        let key = name::key(&name::address(list)?);
        let id = self.list_id(&key).await?;
        let id = id.ok_or_else(|| DirectoryError::NotFound(format!("the list {key}")))?;
        let after = match after {
            Some(after) => name::key(&name::address(after)?),
            None => String::new(),
        };
        self.members(id, &after, false).await
    }

    /// Ends memberships.
    pub(crate) async fn member_remove(&self, list: &str, members: &[String]) -> Result<u64> {
        if members.len() > MEMBERS_AT_ONCE {
            return invalid(format!("up to {MEMBERS_AT_ONCE} members at once"));
        }
        let key = name::key(&name::address(list)?);
        let mut tx = self.db.begin().await?;
        let id = number(&mut tx, &key).await?;
        let mut gone = 0;
        for member in members {
            let member = name::key(&name::address(member)?);
            gone += tx
                .execute(
                    "DELETE FROM directory_member WHERE list = ? AND member = ?",
                    args![id, member],
                )
                .await?;
        }
        self.commit(tx).await?;
        tracing::info!(list = key, members = gone, "members removed");
        Ok(gone)
    }

    /// A list, and what some addresses are there.
    pub(crate) async fn standing(
        &self,
        list: &Address,
        authors: &[Address],
    ) -> Result<Option<ListStanding>> {
        let address = list.to_string();
        let Some(list) = self.mailing_list(Some(&address), None).await?.pop() else {
            return Ok(None);
        };
        let keys: Vec<String> = authors.iter().take(20).map(name::key).collect();
        let owners: Vec<String> = list
            .owners
            .iter()
            .filter_map(|owner| owner.parse::<Address>().ok())
            .map(|owner| name::key(&owner))
            .collect();
        let owner = keys.iter().any(|key| owners.contains(key));
        let mut member = false;
        if let Some(id) = self.list_id(&name::key(&name::address(&address)?)).await? {
            for key in &keys {
                let row = self
                    .db
                    .fetch_optional(
                        "SELECT can_post FROM directory_member WHERE list = ? AND member = ?",
                        args![id, key],
                    )
                    .await?;
                member |= row.map_or(Ok(false), |row| row.bool(0))?;
            }
        }
        Ok(Some(ListStanding {
            list,
            owner,
            member,
            ours: false,
        }))
    }

    /// Who gets posts, behind an address.
    pub(crate) async fn list_recipients(
        &self,
        list: &Address,
        after: Option<&Address>,
    ) -> Result<Vec<Address>> {
        let Some(id) = self.list_id(&name::key(list)).await? else {
            return Ok(Vec::new());
        };
        let after = after.map(name::key).unwrap_or_default();
        let members = self.members(id, &after, true).await?;
        Ok(members
            .iter()
            .filter_map(|one| one.address.parse().ok())
            .collect())
    }

    /// Notes bounces. A day without any for a week begins anew.
    pub(crate) async fn list_bounced(
        &self,
        list: &Address,
        members: &[Address],
        now: u64,
    ) -> Result<ListSuspended> {
        let address = list.to_string();
        let Some(settings) = self.mailing_list(Some(&address), None).await?.pop() else {
            return Ok(ListSuspended::default());
        };
        let mut suspended = Vec::new();
        let mut tx = self.db.begin().await?;
        let id = number(&mut tx, &name::key(list)).await?;
        for member in members.iter().take(100) {
            let key = name::key(member);
            let row = tx
                .fetch_optional(
                    "SELECT bounces, bounced, suspended FROM directory_member WHERE list = ? AND member = ?",
                    args![id, &key],
                )
                .await?;
            let Some(row) = row else { continue };
            let (bounces, last, out) = (row.u64(0)?, row.u64(1)?, row.bool(2)?);
            // Many posts of a day that fail are one trouble.
            if out || now / DAY == last / DAY {
                continue;
            }
            let bounces = if last + 7 * DAY < now { 1 } else { bounces + 1 };
            let out = settings.max_bounces > 0 && bounces >= u64::from(settings.max_bounces);
            tx.execute(
                "UPDATE directory_member SET bounces = ?, bounced = ?, suspended = ? WHERE list = ? AND member = ?",
                args![bounces, now, out, id, &key],
            )
            .await?;
            tracing::info!(
                list = address,
                member = key,
                bounces,
                suspended = out,
                "a member did not get a post"
            );
            if out {
                suspended.push(member.clone());
            }
        }
        self.commit(tx).await?;
        Ok(ListSuspended {
            members: suspended,
            owners: settings
                .owners
                .iter()
                .filter_map(|one| one.parse().ok())
                .collect(),
        })
    }
}
