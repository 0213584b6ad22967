//! Annotations of mailboxes and of the account, as scripts see them (RFC 5490).

use super::{Scripts, away};
use ipc::Fault;
use sieve::engine::Metadata;
use std::collections::HashMap;
use types::AccountId;

/// Whether a script, or one that it includes, may ask for annotations.
pub(super) fn wanted(text: &[u8]) -> bool {
    let has = |word: &[u8]| {
        text.windows(word.len())
            .any(|piece| piece.eq_ignore_ascii_case(word))
    };
    has(b"metadata") || has(b"include")
}

impl Scripts {
    /// All that the account's owner could read with GETMETADATA (RFC 5464): of each mailbox, and of the server (RFC 5490 3.1, 3.3).
    /// A value that is not UTF-8 is left out, as no script could name it.
    ///
    /// # Errors
    /// The store cannot be read now.
    pub(super) async fn annotations(
        &self,
        account: AccountId,
    ) -> Result<Vec<(Metadata<String>, String)>, Fault> {
        let failed = |error| away(&error);
        let own = self.reader.metadata(account, account, None);
        let own = own.await.map_err(failed)?;
        let all = self.reader.all_metadata(account, account);
        let all = all.await.map_err(failed)?;
        let mut found = Vec::new();
        for (entry, value) in own {
            if let Ok(value) = String::from_utf8(value) {
                found.push((Metadata::server(entry), value));
            }
        }
        if all.is_empty() {
            return Ok(found);
        }
        let mailboxes = self.reader.mailboxes(account);
        let mailboxes = mailboxes.await.map_err(failed)?;
        let names: HashMap<_, _> = mailboxes
            .into_iter()
            .map(|mailbox| (mailbox.id, mailbox.name))
            .collect();
        for (mailbox, entries) in all {
            let Some(name) = names.get(&mailbox) else {
                continue;
            };
            for (entry, value) in entries {
                if let Ok(value) = String::from_utf8(value) {
                    found.push((Metadata::mailbox(name.clone(), entry), value));
                }
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::wanted;

    #[test]
    fn annotations_are_read_for_scripts_that_may_ask() {
        assert!(wanted(b"require \"MboxMetadata\";"));
        assert!(wanted(b"require \"include\"; include \"a\";"));
        assert!(!wanted(b"keep;"));
    }
}
