//! GETQUOTA and GETQUOTAROOT (RFC 9208). An account has one root, with the empty name.

use crate::session::{Done, Refused, Session, done};
use imap::put;
use tokio::io::{AsyncRead, AsyncWrite};

impl<S: AsyncRead + AsyncWrite + Unpin + Send + Sync> Session<S> {
    pub(super) async fn get_quota(&mut self, root: &str) -> Done {
        if !root.is_empty() {
            return Err(Refused::No(
                "NONEXISTENT",
                "There is no such quota root".to_owned(),
            ));
        }
        self.put_quota().await?;
        done("completed")
    }

    pub(super) async fn get_quota_root(&mut self, name: &str) -> Done {
        let found = self.target(name, "NONEXISTENT", "r").await?.mailbox;
        if found.account != self.account_id() {
            // RFC 9208 4.1.2: the owner's quota is not this user's business
            put::text(&mut self.out, "* QUOTAROOT ");
            self.names.put(&mut self.out, &found.name);
            put::text(&mut self.out, "\r\n");
            return done("completed");
        }
        put::text(&mut self.out, "* QUOTAROOT ");
        self.names.put(&mut self.out, &found.name);
        put::text(&mut self.out, " \"\"\r\n");
        self.put_quota().await?;
        done("completed")
    }

    async fn put_quota(&mut self) -> Result<(), Refused> {
        let used = self
            .service
            .reader
            .account(self.account_id())
            .await?
            .unwrap_or_default();
        let grant = self.account.as_ref().map(|account| &account.login.grant);
        let (bytes, messages) =
            grant.map_or((0, 0), |grant| (grant.quota_bytes, grant.quota_messages));
        let mut parts = Vec::new();
        if bytes > 0 {
            // RFC 9208 5.1: in units of 1,024 octets
            parts.push(format!(
                "STORAGE {} {}",
                used.bytes.div_ceil(1024),
                bytes.div_ceil(1024)
            ));
        }
        if messages > 0 {
            parts.push(format!("MESSAGE {} {}", used.messages, messages));
        }
        put::text(
            &mut self.out,
            &format!("* QUOTA \"\" ({})\r\n", parts.join(" ")),
        );
        Ok(())
    }
}
