//! What is announced (RFC 9051 7.2.2).

use super::Session;
use tokio::io::{AsyncRead, AsyncWrite};

/// Announced always.
const ALWAYS: &[&str] = &[
    "IMAP4rev1",
    "IMAP4rev2",
    "LITERAL+",
    "SASL-IR",
    "ID",
    "ENABLE",
];

/// Announced after the login, a line an extension (or the parts of one).
const LOGGED_IN: &[&str] = &[
    "IDLE",
    "NAMESPACE",
    "CHILDREN",
    "LIST-EXTENDED",
    "LIST-STATUS",
    "LIST-MYRIGHTS",
    "LIST-METADATA",
    "METADATA",
    "SPECIAL-USE",
    "CREATE-SPECIAL-USE",
    "UIDPLUS",
    "MOVE",
    "UNSELECT",
    "CONDSTORE",
    "QRESYNC",
    "NOTIFY",
    "INPROGRESS",
    "UIDONLY",
    "PREVIEW",
    "UNAUTHENTICATE",
    "COMPRESS=DEFLATE",
    "ESEARCH",
    "SEARCHRES",
    "SEARCH=FUZZY",
    "MULTISEARCH",
    "CONTEXT=SEARCH",
    "CONTEXT=SORT",
    "WITHIN",
    "SAVEDATE",
    "PARTIAL",
    "SORT",
    "SORT=DISPLAY",
    "ESORT",
    "THREAD=ORDEREDSUBJECT",
    "THREAD=REFERENCES",
    "BINARY",
    "MULTIAPPEND",
    "CATENATE",
    "REPLACE",
    "UTF8=ACCEPT",
    "STATUS=SIZE",
    "STATUS=DELETED",
    "OBJECTID",
    "ACL",
    "RIGHTS=texk",
    "QUOTA",
    "QUOTA=RES-STORAGE",
    "QUOTA=RES-MESSAGE",
];

impl<S: AsyncRead + AsyncWrite + Unpin + Send + Sync> Session<S> {
    /// The capabilities as they are now (RFC 9051 7.2.2).
    pub(crate) fn capability(&self) -> String {
        let mut names: Vec<String> = ALWAYS.iter().map(|name| (*name).to_owned()).collect();
        if self.account.is_none() {
            if self.may_start_tls() {
                names.push("STARTTLS".to_owned());
            }
            let mechanisms = self.guest.mechanisms();
            if mechanisms.is_empty() {
                names.push("LOGINDISABLED".to_owned());
            }
            names.extend(mechanisms.iter().map(|name| format!("AUTH={name}")));
        } else {
            names.extend(LOGGED_IN.iter().map(|name| (*name).to_owned()));
            names.extend(self.configured());
        }
        names.join(" ")
    }

    /// Those that depend on the configuration.
    fn configured(&self) -> Vec<String> {
        let config = &self.service.config;
        let mut names = vec![format!("APPENDLIMIT={}", config.append_bytes)];
        names.extend(crate::command::limit_capability(config));
        names
    }
}
