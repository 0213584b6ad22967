//! What authd answers about mailing lists.

use super::{ListUnsubscribe, MailingList};
use serde::{Deserialize, Serialize};
use types::{Address, QueueId};

/// The answer to [`super::ListPoster`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListStanding {
    /// The list.
    pub list: MailingList,
    /// One of the authors is an owner.
    pub owner: bool,
    /// One of them is a member who may post.
    pub member: bool,
    /// One of the authors has an address in a domain of ours.
    pub ours: bool,
}

/// The answer to [`super::ListBounced`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListSuspended {
    /// Members who get nothing more from now on.
    pub members: Vec<Address>,
    /// Who is told of it.
    pub owners: Vec<Address>,
}

/// What follows from [`super::ListCommand`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ListAnswer {
    /// Nothing: there is no such list or membership, or the token is not ours.
    Nothing,
    /// Ask this address whether it is meant: an answer to `list-confirm+TOKEN@` does it.
    Ask {
        /// Whom.
        to: Vec<Address>,
        /// Where the answer goes.
        confirm: Address,
        /// Who joins or leaves.
        member: Address,
        /// Whether they join.
        joins: bool,
    },
    /// It was done.
    Done {
        /// Who joined or left.
        member: Address,
        /// Whether they joined.
        joined: bool,
    },
    /// Nobody joins this list by mail.
    Closed,
    /// What an owner of the list wants of a post that is held. Whether it is an owner who asks is for the caller to find out.
    Decision {
        /// Under which id the post came.
        post: QueueId,
        /// Whether it is let in; otherwise it is refused.
        accept: bool,
    },
}

/// The answer to [`super::ListHold`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListDecide {
    /// Lets it in.
    pub accept: Address,
    /// Refuses it.
    pub reject: Address,
}

/// The answer to [`super::ListCopies`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListCopiesPage {
    /// In the order of their places, which stays as members come and go.
    pub copies: Vec<PersonalCopy>,
    /// `list-copies+TOKEN@`, where the rest is; `None`: these were the last.
    pub next: Option<Address>,
}

/// What is personal in a member's copy of a post.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersonalCopy {
    /// The member.
    pub member: Address,
    /// The reverse-path: `list-bounces+TOKEN@`.
    pub sender: Address,
    /// For [`ListUnsubscribe`]: letters and digits.
    pub unsubscribe: String,
    /// The member's domain is none of ours.
    pub remote: bool,
}

/// The answer to [`ListUnsubscribe`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListLeft {
    /// The list; `None`: the membership has ended before, or the list has.
    pub list: Option<String>,
}

impl std::fmt::Debug for ListUnsubscribe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a token, to leave: {}", self.leave)
    }
}
