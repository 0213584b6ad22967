//! Parts of messages that are here, for CATENATE (RFC 4469).

use crate::session::{End, Refused, Session};
use imap::MessageUrl;
use store::{Content, Mailbox, Wanted};
use tokio::io::{AsyncRead, AsyncWrite};
use types::Body;

impl<S: AsyncRead + AsyncWrite + Unpin + Send + Sync> Session<S> {
    /// What a URL means in this session; `None` if there is nothing that the user may read.
    pub(super) async fn url_part(&mut self, url: &str) -> Result<Option<Vec<u8>>, Refused> {
        let Some(url) = MessageUrl::parse(url) else {
            return Ok(None);
        };
        let Some(mailbox) = self.url_mailbox(&url).await? else {
            return Ok(None);
        };
        let view = self
            .service
            .views
            .open(mailbox.account, mailbox.id)
            .await?
            .map(|view| view.current());
        let Some(shown) = view else {
            return Ok(None);
        };
        let row = shown
            .position(url.uid)
            .and_then(|at| shown.rows.get(at))
            .map(|row| (row.content, row.size));
        let Some((content, size)) = row else {
            return Ok(None);
        };
        let _room = match size > Body::INLINE_MAX as u64 {
            true => Some(self.room(size).await.ok_or_else(super::append::busy)?),
            false => None,
        };
        let mut found: Option<Content> = None;
        let all = Wanted {
            prefix: true,
            parsed: true,
            body: true,
        };
        let take = |content: Content| found = Some(content);
        let reader = self.service.reader.clone();
        reader
            .contents(mailbox.account, &[content], all, take)
            .await?;
        let Some(content) = found else {
            return Ok(None);
        };
        let octets = self.section_octets(&content, &url.section, url.partial);
        octets.await.map_err(|refused| match refused {
            // Nothing of an answer is on its way yet.
            Refused::End(End::Damaged) => Refused::No(
                "CORRUPTION",
                "A message is damaged and cannot be used".to_owned(),
            ),
            other => other,
        })
    }

    /// The mailbox of a URL, if the user may read it, and it is still the same.
    async fn url_mailbox(&self, url: &MessageUrl) -> Result<Option<Mailbox>, Refused> {
        let mailbox = match &url.mailbox {
            Some(name) => match self.target(name, "NONEXISTENT", "r").await {
                Ok(target) => target.mailbox,
                Err(Refused::No("NONEXISTENT" | "NOPERM", _)) => return Ok(None),
                Err(other) => return Err(other),
            },
            // Relative to the mailbox that is selected (RFC 4469 3), if it may still be read.
            None => match &self.selected {
                Some(selected) => {
                    let mailbox = selected.shown.mailbox.clone();
                    let (grant, account) = (self.grant()?, mailbox.account);
                    let reader = &self.service.reader;
                    let rights = reader.rights(grant, account, mailbox.id).await?;
                    if !store::owns(grant, account) && !rights.has("r") {
                        return Ok(None);
                    }
                    mailbox
                }
                None => return Ok(None),
            },
        };
        let same = url.uidvalidity.is_none_or(|one| one == mailbox.uidvalidity);
        Ok(same.then_some(mailbox))
    }
}
