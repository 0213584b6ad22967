//! SELECT, EXAMINE and CLOSE.

use crate::session::{Done, Refused, Selected, Session, done};
use imap::put;
use ipc::api::stored::Mutation;
use std::collections::BTreeSet;
use store::SystemFlags;
use tokio::io::{AsyncRead, AsyncWrite};

impl<S: AsyncRead + AsyncWrite + Unpin + Send + Sync> Session<S> {
    pub(super) async fn select(&mut self, select: imap::Select) -> Done {
        if self.selected.take().is_some() {
            // RFC 9051 7.1, RFC 7162 3.2.11
            put::text(
                &mut self.out,
                "* OK [CLOSED] The previous mailbox is closed\r\n",
            );
        }
        self.condstore |= select.condstore;
        let found = self.named(&select.mailbox, "NONEXISTENT").await?;
        let view = self.service.views.open(found.account, found.id).await?;
        let view =
            view.ok_or_else(|| Refused::No("NONEXISTENT", "There is no such mailbox".to_owned()))?;
        let shown = view.current();
        let mailbox = &shown.mailbox;
        let out = &mut self.out;
        put::text(out, "* ");
        put::number(out, shown.rows.len() as u64);
        put::text(out, " EXISTS\r\n");
        if self.rev2 {
            // RFC 9051 6.3.2
            put::text(out, "* LIST () \"/\" ");
            self.names.put(out, &mailbox.name);
            put::text(out, "\r\n");
        } else {
            put::text(out, "* 0 RECENT\r\n");
            let unseen = shown
                .rows
                .iter()
                .position(|row| !row.system.contains(SystemFlags::SEEN));
            if let Some(unseen) = unseen {
                put::text(
                    out,
                    &format!("* OK [UNSEEN {}] First unseen\r\n", unseen + 1),
                );
            }
        }
        let keywords: BTreeSet<&str> = shown
            .rows
            .iter()
            .filter_map(|row| row.keywords.as_deref())
            .flat_map(|all| all.split(' '))
            .collect();
        let mut flags = imap::flag::SYSTEM.join(" ");
        for keyword in keywords {
            flags.push(' ');
            flags.push_str(keyword);
        }
        put::text(out, &format!("* FLAGS ({flags})\r\n"));
        if select.read_only {
            put::text(out, "* OK [PERMANENTFLAGS ()] Read-only\r\n");
        } else {
            put::text(
                out,
                &format!("* OK [PERMANENTFLAGS ({flags} \\*)] Flags that stay\r\n"),
            );
        }
        put::text(
            out,
            &format!(
                "* OK [UIDVALIDITY {}] UIDs are valid\r\n* OK [UIDNEXT {}] Next UID\r\n* OK [HIGHESTMODSEQ {}] \
                 Highest\r\n* OK [MAILBOXID (F{})] Id\r\n",
                mailbox.uidvalidity, mailbox.uidnext, mailbox.modseq, mailbox.id
            ),
        );
        self.selected = Some(Selected {
            view,
            shown,
            read_only: select.read_only,
            saved: Vec::new(),
        });
        let code = if select.read_only {
            "READ-ONLY"
        } else {
            "READ-WRITE"
        };
        Ok((code.to_owned(), "completed"))
    }

    /// RFC 9051 6.4.1: what is \Deleted goes without a word.
    pub(super) async fn close_mailbox(&mut self) -> Done {
        let selected = self.chosen()?;
        let mailbox = selected.shown.mailbox.id;
        let deleted = |row: &crate::view::Row| row.system.contains(SystemFlags::DELETED);
        let work = !selected.read_only && selected.view.current().rows.iter().any(deleted);
        if work {
            self.mutate(Mutation::Expunge {
                mailbox,
                uids: None,
            })
            .await?;
        }
        self.selected = None;
        done("completed")
    }
}
