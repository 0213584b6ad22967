//! Members of lists by their handles: what stands for them in addresses and links.

use super::{Directory, DirectoryError, Result, text};
use crate::name;
use sql::{Tx, args};
use types::Address;

/// Bits of a handle: with a million members, the chance that any two are alike is less than one in a million.
pub(crate) const BITS: u32 = 60;
/// Members of one page.
const PAGE: u32 = 200;
/// Rows that get handles by one question.
const ROWS: u32 = 1000;
/// A frame has 128 KiB, and each copy two tokens besides its addresses.
const PAGE_OCTETS: usize = 40 * 1024;
/// The name of the key that handles are made with.
const SECRET: &str = "list-members";

/// The key of the handles. Without it, whoever joins could look for an address with the handle of somebody else.
pub(super) struct HandleKey([u8; 32]);

impl HandleKey {
    /// Not 0, which says that there is none yet; a member who comes back has it again, so that old links mean them.
    pub(super) fn handle(&self, list: &str, member: &str) -> u64 {
        let data = format!("{list}\0{member}");
        let hash = blake3::keyed_hash(&self.0, data.as_bytes());
        let first = hash.as_bytes().first_chunk().copied().unwrap_or_default();
        (u64::from_le_bytes(first) >> (64 - BITS)).max(1)
    }
}

/// Gives handles to members that were there before there were any.
pub(super) async fn give_handles(tx: &mut Tx, key: &HandleKey, id: u64, list: &str) -> Result<()> {
    loop {
        let statement = format!(
            "SELECT member FROM directory_member WHERE list = ? AND handle = 0 LIMIT {ROWS}"
        );
        let rows = tx.fetch_all(&statement, args![id]).await?;
        if rows.is_empty() {
            return Ok(());
        }
        for row in &rows {
            let member = text(row, 0)?;
            tx.execute(
                "UPDATE directory_member SET handle = ? WHERE list = ? AND member = ?",
                args![key.handle(list, &member), id, member],
            )
            .await?;
        }
    }
}

impl Directory {
    pub(super) async fn handle_key(&self) -> Result<HandleKey> {
        let fresh = crate::secret::random()
            .map_err(|_| DirectoryError::Invalid("the system has no random octets".to_owned()))?;
        let known = self.secret(SECRET, fresh).await?;
        let wrong = |_| DirectoryError::Invalid(format!("the secret {SECRET} is damaged"));
        known.try_into().map(HandleKey).map_err(wrong)
    }

    /// The next members who get posts, with their handles, in the order of these; `None` if there is no such list.
    pub(crate) async fn personal_page(
        &self,
        list: &Address,
        after: u64,
    ) -> Result<Option<Vec<(Address, u64)>>> {
        let Some(id) = self.list_id(&name::key(list)).await? else {
            return Ok(None);
        };
        let statement = format!(
            "SELECT shown, handle FROM directory_member WHERE list = ? AND handle > ? AND nomail = 0 AND suspended = 0
             ORDER BY handle LIMIT {PAGE}"
        );
        let rows = self.db.fetch_all(&statement, args![id, after]).await?;
        let mut members: Vec<(Address, u64)> = Vec::with_capacity(rows.len());
        let mut octets = 0;
        for row in &rows {
            let shown = row.text(0)?;
            octets += shown.len() + list.domain().len() + 150;
            if octets > PAGE_OCTETS && !members.is_empty() {
                break;
            }
            let address = shown
                .parse()
                .map_err(|error| DirectoryError::Invalid(format!("the member {shown}: {error}")))?;
            members.push((address, row.u64(1)?));
        }
        Ok(Some(members))
    }

    /// As if all members were written by the version before.
    #[cfg(test)]
    #[allow(clippy::unwrap_used)]
    pub(crate) async fn forget_handles(&self) {
        let statement = "UPDATE directory_member SET handle = 0";
        self.db.execute(statement, args![]).await.unwrap();
    }

    /// The list and the member that a handle stands for.
    pub(crate) async fn by_handle(&self, handle: u64) -> Result<Option<(Address, Address)>> {
        let row = self
            .db
            .fetch_optional(
                "SELECT d.shown, m.shown FROM directory_member m JOIN directory_list l ON l.id = m.list
                 JOIN directory_address d ON d.address = l.address WHERE m.handle = ?",
                args![handle],
            )
            .await?;
        let Some(row) = row else { return Ok(None) };
        let pair = row.text(0)?.parse().ok().zip(row.text(1)?.parse().ok());
        Ok(pair)
    }
}
