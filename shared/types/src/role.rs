//! The daemons by name.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

macro_rules! roles {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// A daemon of the suite, or its command line tool.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Role { $($(#[$doc])* $variant,)* }

        impl Role {
            /// All of them, in the order in which they start.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name: of the binary, the configuration section, the topology section and the socket.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }

        impl FromStr for Role {
            type Err = &'static str;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text { $($name => Ok(Self::$variant),)* _ => Err("no such role") }
            }
        }
    };
}

roles! {
    /// Keys: signs.
    Keyd = "keyd",
    /// The directory and logins.
    Authd = "authd",
    /// Rates, quotas and greylisting.
    Limitd = "limitd",
    /// Reports of DMARC and TLS, out and in.
    Reportd = "reportd",
    /// Filters of others: milters, HTTP hooks, administrator's Sieve.
    Hookd = "hookd",
    /// The store's only writer.
    Stored = "stored",
    /// Local delivery.
    Deliverd = "deliverd",
    /// Delivery to other hosts.
    Relayd = "relayd",
    /// The queue.
    Queued = "queued",
    /// SMTP, submission, LMTP.
    Smtpd = "smtpd",
    /// The full-text index.
    Indexd = "indexd",
    /// IMAP.
    Imapd = "imapd",
    /// POP3.
    Pop3d = "pop3d",
    /// ManageSieve.
    Sieved = "sieved",
    /// Certificates from an authority.
    Certd = "certd",
    /// HTTPS front.
    Httpd = "httpd",
    /// The command line tool: calls, serves nothing.
    Posthouse = "posthouse",
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
