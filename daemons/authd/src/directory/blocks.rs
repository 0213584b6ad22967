//! Blocks of addresses and networks.

use super::{Directory, Result, text};
use ipc::api::authd::Block;
use sql::args;

impl Directory {
    /// Keeps a block.
    pub(crate) async fn block_put(&self, block: &Block) -> Result<()> {
        self.db
            .execute(
                "INSERT INTO directory_block (network, reason, expires) VALUES (?, ?, ?)
                    {on_conflict:network} reason = {excluded:reason}, expires = {excluded:expires}",
                args![&block.network, &block.reason, block.until],
            )
            .await?;
        Ok(())
    }

    /// The blocks in force.
    pub(crate) async fn block_list(&self, now: u64, limit: u32) -> Result<Vec<Block>> {
        let rows = self
            .db
            .fetch_all(
                "SELECT network, reason, expires FROM directory_block WHERE expires IS NULL OR expires > ?
                    ORDER BY network LIMIT ?",
                args![now, limit],
            )
            .await?;
        let block = |row: &sql::Row| {
            Ok(Block {
                network: text(row, 0)?,
                reason: text(row, 1)?,
                until: row.int_opt(2)?.map(i64::cast_unsigned),
            })
        };
        rows.iter().map(block).collect()
    }

    /// Lifts a block, if it is there.
    pub(crate) async fn block_remove(&self, network: &str) -> Result<()> {
        self.db
            .execute(
                "DELETE FROM directory_block WHERE network = ?",
                args![network],
            )
            .await?;
        Ok(())
    }

    /// Forgets blocks that have run out.
    pub(crate) async fn block_expire(&self, now: u64) -> Result<()> {
        self.db
            .execute("DELETE FROM directory_block WHERE expires <= ?", args![now])
            .await?;
        Ok(())
    }
}
