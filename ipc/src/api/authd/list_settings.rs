//! What a mailing list may be set to.

use serde::{Deserialize, Serialize};

/// Who may post to a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Posting {
    /// Everybody.
    Anyone,
    /// Members, and owners.
    #[default]
    Members,
    /// Owners: announcements.
    Owners,
}

/// Who becomes a member of a list by mail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Subscription {
    /// Nobody: the operator adds members.
    #[default]
    Closed,
    /// Whom an owner lets in.
    Owner,
    /// Whoever shows that the address is theirs.
    Confirm,
}

/// Whether a post gets the list's address as From.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FromHandling {
    /// If the author's domain wants mail refused or put aside that does not pass DMARC.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Which posts wait for the owners of a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Moderation {
    /// None: who may not post is refused.
    #[default]
    None,
    /// Those of whoever may not post.
    Others,
    /// All but the owners' own.
    All,
}

/// Where answers to posts go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReplyTo {
    /// Where the author wants them.
    #[default]
    Author,
    /// To the list.
    List,
}
