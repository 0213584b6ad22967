//! `[[smtpd.rewrite]]` and `[[smtpd.bcc]]`.

use serde::{Deserialize, Serialize};

/// Which addresses a rule rewrites.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Which {
    /// Those of MAIL.
    Sender,
    /// Those of RCPT.
    #[default]
    Recipient,
    /// Both.
    Both,
}

/// An address that becomes another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RewriteRule {
    /// `sender`, `recipient` (default) or `both`.
    #[serde(default)]
    pub which: Which,
    /// Only through these listeners; empty is all.
    #[serde(default)]
    pub listeners: Vec<String>,
    /// Only after a login (true), or only without (false).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<bool>,
    /// Which addresses: `jane@example.org`, `@example.org` (all of the domain), `.example.org` (all of the domains below it), or a
    /// regular expression between slashes, which must fit the whole address. No letter's case counts.
    pub from: String,
    /// What they become: an address, or `@example.net` for the same local part elsewhere. `$1` to `$9` are what the parentheses of
    /// the expression found; with `@domain` `$1` is the local part, with `.domain` `$2` what stands before the dot.
    pub to: String,
    /// Whether From, Sender and Reply-To of submissions are rewritten as well. Their authors' own signatures do not survive that.
    #[serde(default)]
    pub header: bool,
}

/// Recipients who get mail of or to others without anybody seeing it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BccRule {
    /// Mail from these: `jane@example.org`, `@example.org`, `.example.org`, an expression between slashes, `<>` (the null sender) or
    /// `*` (everybody). Empty: the sender does not matter.
    #[serde(default)]
    pub senders: Vec<String>,
    /// Mail to any of these. Empty: recipients do not matter.
    #[serde(default)]
    pub recipients: Vec<String>,
    /// Only through these listeners; empty is all.
    #[serde(default)]
    pub listeners: Vec<String>,
    /// Who gets it, 1 to 20: addresses here. Others only get what logged-in users and `relay_networks` send.
    pub to: Vec<String>,
}
