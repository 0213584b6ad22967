//! ENABLE (RFC 5161).

use super::{Done, Session, done};
use imap::put;
use tokio::io::{AsyncRead, AsyncWrite};

impl<S: AsyncRead + AsyncWrite + Unpin + Send + Sync> Session<S> {
    /// What is not known, or on already, is passed over (RFC 5161 3.1).
    pub(crate) fn enable(&mut self, names: &[String]) -> Done {
        let mut enabled = Vec::new();
        let condstore = self.condstore;
        for name in names {
            let (name, on) = match name.as_str() {
                "CONDSTORE" => ("CONDSTORE", &mut self.condstore),
                // RFC 7162 3.2.3: it includes CONDSTORE
                "QRESYNC" => {
                    self.condstore = true;
                    ("QRESYNC", &mut self.qresync)
                }
                "UIDONLY" => ("UIDONLY", &mut self.uid_only),
                "IMAP4REV2" => {
                    self.names = imap::Names::Utf8;
                    ("IMAP4rev2", &mut self.rev2)
                }
                "UTF8=ACCEPT" => {
                    self.names = imap::Names::Utf8;
                    ("UTF8=ACCEPT", &mut self.utf8)
                }
                _ => continue,
            };
            if !std::mem::replace(on, true) || name == "CONDSTORE" {
                enabled.push(name);
            }
        }
        put::text(&mut self.out, "* ENABLED");
        for name in enabled {
            put::text(&mut self.out, " ");
            put::text(&mut self.out, name);
        }
        put::text(&mut self.out, "\r\n");
        if self.condstore && !condstore {
            self.put_highest_modseq();
        }
        done("completed")
    }
}
