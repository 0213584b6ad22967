//! SELECT, EXAMINE and CLOSE.

use super::Contexts;
use crate::session::{Done, Refused, Selected, Session, done};
use imap::put;
use ipc::api::stored::Mutation;
use tokio::io::{AsyncRead, AsyncWrite};

/// The flags that the user may set (RFC 4314 5.1.1).
fn permanent_flags(rights: store::AclRights, flags: &str) -> String {
    let allowed = |flag: &&str| match *flag {
        "\\Seen" => rights.has("s"),
        "\\Deleted" => rights.has("t"),
        _ => rights.has("w"),
    };
    let wild = std::iter::once("\\*");
    let flags: Vec<&str> = flags.split(' ').chain(wild).filter(allowed).collect();
    flags.join(" ")
}

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
        if let Some(resync) = &select.resync {
            // RFC 7162 3.2.5
            if !self.qresync {
                return Err(Refused::Bad("Say ENABLE QRESYNC first"));
            }
            if resync.modseq == 0 {
                return Err(Refused::Bad("A mod-sequence is 1 or more"));
            }
        }
        let target = self.target(&select.mailbox, "NONEXISTENT", "r").await?;
        let (found, rights) = (target.mailbox, target.rights);
        // RFC 4314 5.2
        let read_only = select.read_only || !rights.has_any("istwe");
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
            super::mailbox::put_supplied(out, self.names, &found.name);
        } else {
            put::text(out, "* 0 RECENT\r\n");
            // RFC 9586 3: UIDONLY knows no sequence numbers
            let unseen = shown.rows.first_unseen().filter(|_| !self.uid_only);
            if let Some(unseen) = unseen {
                put::text(
                    out,
                    &format!("* OK [UNSEEN {}] First unseen\r\n", unseen + 1),
                );
            }
        }
        let mut flags = imap::flag::SYSTEM.join(" ");
        for keyword in shown.rows.keywords() {
            flags.push(' ');
            flags.push_str(keyword);
        }
        put::text(out, &format!("* FLAGS ({flags})\r\n"));
        if read_only {
            put::text(out, "* OK [PERMANENTFLAGS ()] Read-only\r\n");
        } else {
            let permanent = permanent_flags(rights, &flags);
            put::text(
                out,
                &format!("* OK [PERMANENTFLAGS ({permanent})] Flags that stay\r\n"),
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
        if let Some(resync) = &select.resync {
            self.resynchronize(&shown, resync).await?;
        }
        self.selected = Some(Selected {
            view,
            announced: shown.mailbox.uidnext,
            shown,
            read_only,
            saved: Vec::new(),
            contexts: Contexts::default(),
        });
        let code = if read_only { "READ-ONLY" } else { "READ-WRITE" };
        Ok((code.to_owned(), "completed"))
    }

    /// RFC 9051 6.4.1: what is \Deleted goes without a word.
    pub(super) async fn close_mailbox(&mut self) -> Done {
        let selected = self.chosen()?;
        let mailbox = selected.shown.mailbox.id;
        let work = !selected.read_only && selected.view.current().mailbox.deleted > 0;
        if work {
            let expunge = Mutation::Expunge {
                mailbox,
                uids: None,
            };
            match self.mutate_selected(expunge).await {
                // RFC 4314 4: without the right to expunge, CLOSE only closes
                Ok(_) | Err(Refused::No("NOPERM", _)) => {}
                Err(other) => return Err(other),
            }
        }
        self.selected = None;
        done("completed")
    }
}
