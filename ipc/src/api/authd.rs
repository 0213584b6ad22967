//! authd: logins, recipients, and the directory's administration.

mod list_settings;
mod lists;

pub use list_settings::{FromHandling, Moderation, Posting, ReplyTo, Subscription};
pub use lists::{
    ListAnswer, ListCopiesPage, ListDecide, ListLeft, ListStanding, ListSuspended, PersonalCopy,
};

use crate::operation;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use types::{AccountId, Address, Grant, Octets, QueueId, Rights};

/// Begins a SASL exchange (RFC 4422).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AuthStart {
    /// PLAIN, LOGIN, SCRAM-SHA-256, SCRAM-SHA-256-PLUS, OAUTHBEARER (RFC 7628) or XOAUTH2, upper case.
    pub mechanism: String,
    /// The initial response, decoded; `None` if the client sent none (empty is `Some`).
    pub initial: Option<Octets>,
    /// Who asks.
    pub client: AuthClient,
}
operation!(AuthStart = 1, once -> AuthReply);

/// The next response of a SASL exchange.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AuthContinue {
    /// From [`AuthReply::Challenge`]; bound to this connection.
    pub exchange: u64,
    /// The client's response, decoded.
    pub response: Octets,
}
operation!(AuthContinue = 2, once -> AuthReply);

/// The client of a login.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AuthClient {
    /// Its address (that of the PROXY header where one was accepted).
    pub address: IpAddr,
    /// What it wants to use: the rights of an application password are cut down to this.
    pub service: Service,
    /// Whether the connection is under TLS.
    pub tls: bool,
    /// Channel bindings of the TLS connection by name (`tls-exporter`, RFC 9266; `tls-server-end-point`, RFC 5929).
    pub bindings: Vec<(String, Octets)>,
}

/// What a login is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Service {
    /// SMTP submission.
    Submission,
    /// IMAP.
    Imap,
    /// POP3.
    Pop3,
    /// ManageSieve.
    Sieve,
}

/// A step of a SASL exchange.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum AuthReply {
    /// Send this challenge, and give the response to [`AuthContinue`].
    Challenge {
        /// For [`AuthContinue`].
        exchange: u64,
        /// Not yet base64.
        data: Octets,
    },
    /// It is them.
    Success {
        /// Who.
        login: Login,
        /// Data that comes with success (SCRAM's server-final). A protocol without room for it (IMAP, SMTP) sends it as a
        /// last challenge and expects an empty response before its OK.
        data: Option<Octets>,
    },
    /// It is not.
    Failure {
        /// What to answer.
        reason: AuthFailure,
        /// Wait that long before answering, in milliseconds.
        delay_ms: u32,
    },
}

/// Why a login failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AuthFailure {
    /// Wrong name or password; which one is not said.
    Credentials,
    /// Too many failures from this address or network: close the connection.
    Blocked,
    /// The mechanism is unknown or switched off.
    Mechanism,
    /// Not without TLS.
    NeedsTls,
    /// The exchange is malformed.
    Malformed,
    /// The account is disabled, or the password is not for this service.
    Disabled,
}

/// A successful login.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Login {
    /// The account's name: its primary address.
    pub name: String,
    /// What it may do.
    pub grant: Grant,
}

/// Where mail for an address goes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ResolveRecipient {
    /// The address.
    pub address: Address,
}
operation!(ResolveRecipient = 3, idempotent -> Resolution);

/// The answer to [`ResolveRecipient`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Resolution {
    /// To these, duplicates removed; never empty.
    Local(Vec<Target>),
    /// The domain is not ours.
    Remote,
    /// The domain is ours, the address is not known (550 5.1.1).
    Unknown,
    /// The address is known and disabled (550 5.2.1).
    Disabled,
    /// It is answered with this: a forwarding address that is forged or has expired (SRS).
    Refused(types::Status),
}

/// One end of an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    /// A mailbox here.
    Account {
        /// The account.
        account: AccountId,
        /// Its primary address.
        name: Address,
        /// The subaddress's detail (RFC 5233), if one was given and the domain allows it.
        detail: Option<String>,
        /// Octets it may hold; 0 is unlimited.
        quota_bytes: u64,
        /// Messages it may hold; 0 is unlimited.
        quota_messages: u64,
    },
    /// An address elsewhere.
    Forward(Address),
    /// reportd: one of `reportd.addresses`.
    Reports,
    /// A mailing list.
    List {
        /// Its address.
        address: Address,
        /// Which of its addresses it is.
        part: ListPart,
    },
}

/// Whether an account may use an address as MAIL FROM or From.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MaySend {
    /// The account of the login.
    pub account: AccountId,
    /// The address it claims.
    pub address: Address,
}
operation!(MaySend = 4, idempotent -> bool);

/// A mail domain of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Domain {
    /// A-label, lower case. U-labels are converted on input.
    pub name: String,
    /// Disabled: mail is refused with a temporary code, logins fail.
    pub enabled: bool,
    /// Where unknown addresses go.
    pub catch_all: Option<String>,
    /// Whether `user+detail` is `user`.
    pub subaddressing: bool,
    /// For new accounts: octets; 0 is unlimited.
    pub quota_bytes: u64,
    /// Another domain of ours whose addresses its own are, those aside that it has itself.
    pub alias_of: Option<String>,
}

/// Whether a Put may make, change, or both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PutMode {
    /// Conflict if it is there.
    Create,
    /// NotFound if it is not there.
    Update,
}

/// Makes or changes a domain.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DomainPut {
    /// Create or update.
    pub mode: PutMode,
    /// All of it.
    pub domain: Domain,
}
operation!(DomainPut = 10, once -> ());

/// The domains, by name.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DomainList {
    /// Only this one.
    pub name: Option<String>,
}
operation!(DomainList = 11, idempotent -> Vec<Domain>);

/// The names of the domains that are enabled, 1,000 at most.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DomainNames;
operation!(DomainNames = 60, idempotent -> Vec<String>);

/// Removes a domain. Conflict while it has accounts, aliases or groups.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DomainRemove {
    /// Its name.
    pub name: String,
}
operation!(DomainRemove = 12, once -> ());

/// An account, without its secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Its number; 0 in a request.
    pub id: AccountId,
    /// Its login and primary address.
    pub name: String,
    /// The person's name.
    pub display_name: String,
    /// Disabled: no login, mail refused with 550 5.2.1.
    pub enabled: bool,
    /// Octets; 0 is unlimited.
    pub quota_bytes: u64,
    /// Messages; 0 is unlimited.
    pub quota_messages: u64,
    /// What it may do.
    pub rights: Rights,
    /// Whether it has a password of its own.
    pub has_password: bool,
}

/// A new password.
#[derive(Clone, Serialize, Deserialize)]
pub enum NewPassword {
    /// In clear; authd hashes it.
    Clear(String),
    /// A hash that another system made, in any format that authd reads.
    Hash(String),
}

impl std::fmt::Debug for NewPassword {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a password")
    }
}

/// Makes or changes an account.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AccountPut {
    /// Create or update.
    pub mode: PutMode,
    /// All of it; found by its name.
    pub account: Account,
    /// `None` leaves the password as it is.
    pub password: Option<NewPassword>,
}
operation!(AccountPut = 13, once -> Account);

/// The accounts, by name, in pages.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AccountList {
    /// Only this one.
    pub name: Option<String>,
    /// Only of this domain.
    pub domain: Option<String>,
    /// Names behind this one.
    pub after: Option<String>,
    /// At most so many, up to 200.
    pub limit: u32,
}
operation!(AccountList = 14, idempotent -> Vec<Account>);

/// Removes an account from the directory. Its mail stays until the store's collection of orphans.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AccountRemove {
    /// Its name.
    pub name: String,
}
operation!(AccountRemove = 15, once -> ());

/// An alias: an address with other addresses behind it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alias {
    /// The address, in a domain of ours.
    pub address: String,
    /// Where its mail goes: addresses here or elsewhere, 1 to 100.
    pub targets: Vec<String>,
}

/// Makes or changes an alias.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AliasPut {
    /// Create or update.
    pub mode: PutMode,
    /// All of it.
    pub alias: Alias,
}
operation!(AliasPut = 16, once -> ());

/// The aliases, by address, in pages.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AliasList {
    /// Only this one.
    pub address: Option<String>,
    /// Addresses behind this one.
    pub after: Option<String>,
    /// At most so many, up to 200.
    pub limit: u32,
}
operation!(AliasList = 17, idempotent -> Vec<Alias>);

/// Removes an alias.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AliasRemove {
    /// Its address.
    pub address: String,
}
operation!(AliasRemove = 18, once -> ());

/// A group: an address whose members all get its mail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// The address, in a domain of ours.
    pub address: String,
    /// What it is for.
    pub description: String,
    /// Names of accounts, or addresses elsewhere; up to 1000.
    pub members: Vec<String>,
    /// Whether members may send as the group.
    pub send_as: bool,
    /// Whether the group has mailboxes of its own, which its members own together: then its mail goes there, and not to
    /// the members.
    pub shared: bool,
    /// The account of its mailboxes; 0 if it has none, and in a request.
    pub id: AccountId,
}

/// Makes or changes a group.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GroupPut {
    /// Create or update.
    pub mode: PutMode,
    /// All of it.
    pub group: Group,
}
operation!(GroupPut = 19, once -> ());

/// The groups, by address, in pages.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GroupList {
    /// Only this one.
    pub address: Option<String>,
    /// Addresses behind this one.
    pub after: Option<String>,
    /// At most so many, up to 200.
    pub limit: u32,
}
operation!(GroupList = 20, idempotent -> Vec<Group>);

/// Removes a group.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GroupRemove {
    /// Its address.
    pub address: String,
}
operation!(GroupRemove = 21, once -> ());

/// Makes an application password, which is shown once.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AppPasswordAdd {
    /// The account's name.
    pub account: String,
    /// What it is for, unique in the account.
    pub label: String,
    /// What a login with it may do.
    pub rights: Rights,
}
operation!(AppPasswordAdd = 22, once -> NewAppPassword);

/// The answer to [`AppPasswordAdd`].
#[derive(Clone, Serialize, Deserialize)]
pub struct NewAppPassword {
    /// 24 letters in groups of four; never shown again.
    pub password: String,
}

impl std::fmt::Debug for NewAppPassword {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an application password")
    }
}

/// The application passwords of an account.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AppPasswordList {
    /// The account's name.
    pub account: String,
}
operation!(AppPasswordList = 23, idempotent -> Vec<AppPassword>);

/// An application password, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppPassword {
    /// What it is for.
    pub label: String,
    /// What it may do.
    pub rights: Rights,
    /// Seconds since 1970.
    pub created: u64,
    /// Seconds since 1970, to the hour; `None` if never.
    pub last_used: Option<u64>,
}

/// Removes an application password.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AppPasswordRemove {
    /// The account's name.
    pub account: String,
    /// Which one.
    pub label: String,
}
operation!(AppPasswordRemove = 24, once -> ());

/// A block of an address or network after failed logins, or by hand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// `192.0.2.1` or `192.0.2.0/24` or `2001:db8::/64`.
    pub network: String,
    /// Why.
    pub reason: String,
    /// Seconds since 1970; `None` is for ever.
    pub until: Option<u64>,
}

/// Blocks an address or network.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BlockAdd {
    /// What.
    pub block: Block,
}
operation!(BlockAdd = 25, idempotent -> ());

/// The blocks in force.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BlockList;
operation!(BlockList = 26, idempotent -> Vec<Block>);

/// Lifts a block.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BlockRemove {
    /// As listed.
    pub network: String,
}
operation!(BlockRemove = 27, idempotent -> ());

/// A grant for the operator's tool to act in an account's name: import, export. NotFound if there is no such account. Also
/// for a shared group, by its address.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OperatorGrant {
    /// The account's name.
    pub account: String,
}
operation!(OperatorGrant = 28, once -> Grant);

/// Whether an identifier may stand in an access control list: the name as it is to be written, or `None` if there is no
/// such account or group.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ResolveIdentifier {
    /// An account's name, or `group=` and a group's address; aliases are not followed.
    pub identifier: String,
}
operation!(ResolveIdentifier = 29, idempotent -> Option<String>);

/// The reverse-path under which a message is forwarded (SRS): an address of ours from which failures come back to the sender;
/// `None`: the sender's own, because it is ours, or nothing leaves, or it is so configured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ForwardSender {
    /// The present reverse-path.
    pub sender: Address,
    /// The address of ours whose mail is forwarded.
    pub owner: Address,
    /// Where to.
    pub to: Vec<Address>,
}
operation!(ForwardSender = 40, idempotent -> Option<Address>);

/// What the mail to one of a list's addresses is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ListPart {
    /// A post: `list@`.
    Post,
    /// A report about a copy that a member did not get: `list-bounces@`.
    Bounces,
    /// A command in the subject: `list-request@`.
    Request,
    /// `list-subscribe@`
    Subscribe,
    /// `list-unsubscribe@`
    Unsubscribe,
    /// An answer to a question of the list: `list-confirm+TOKEN@`.
    Confirm(String),
    /// A report about the personal copy of one member: `list-bounces+TOKEN@`.
    Bounce(String),
    /// A post of which members behind a place get their personal copies next: `list-copies+TOKEN@`. Never from outside.
    Copies(String),
}

/// A mailing list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MailingList {
    /// Its address, in a domain of ours.
    pub address: String,
    /// What it is for: one line.
    pub description: String,
    /// Addresses of its owners, up to 20: mail to `list-owner@` goes to them.
    pub owners: Vec<String>,
    /// Who may post.
    pub posting: Posting,
    /// Who becomes a member by mail.
    pub subscription: Subscription,
    /// Put before the subject in brackets; empty: none.
    pub tag: String,
    /// Put below each post; empty: nothing.
    pub footer: String,
    /// From of posts.
    pub from: FromHandling,
    /// Reply-To of posts.
    pub reply_to: ReplyTo,
    /// An address that gets each post as well: a shared group's, whose mailbox is then the archive.
    pub archive: Option<String>,
    /// Where its archive can be read: a URL for List-Archive.
    pub archive_url: Option<String>,
    /// Octets of a post at most; 0 is no limit of its own.
    pub max_bytes: u64,
    /// Days with bounces after which a member gets no more posts; 0 is never.
    pub max_bounces: u32,
    /// Members, in answers.
    pub members: u64,
    /// Each member gets a copy of their own: with a reverse-path and a way to leave that name them.
    pub personal: bool,
    /// Which posts wait for the owners.
    pub moderation: Moderation,
    /// Days for which they wait at most: 1 to 30.
    pub held_days: u32,
}

/// A member of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListMember {
    /// Here or elsewhere.
    pub address: String,
    /// The person's name; may be empty.
    pub name: String,
    /// Posts, but gets none.
    pub nomail: bool,
    /// May post where members may.
    pub can_post: bool,
    /// Seconds since 1970; 0 in a request.
    pub joined: u64,
    /// Days with bounces, in answers.
    pub bounces: u32,
    /// Gets nothing because of them.
    pub suspended: bool,
}

/// Makes or changes a mailing list.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MailingListPut {
    /// Create or update.
    pub mode: PutMode,
    /// All of it, without members.
    pub list: MailingList,
}
operation!(MailingListPut = 50, once -> ());

/// The mailing lists, by address, in pages.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MailingListList {
    /// Only this one.
    pub address: Option<String>,
    /// Addresses behind this one.
    pub after: Option<String>,
}
operation!(MailingListList = 51, idempotent -> Vec<MailingList>);

/// Removes a mailing list with its members.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MailingListRemove {
    /// Its address.
    pub address: String,
}
operation!(MailingListRemove = 52, once -> ());

/// Makes members, or changes those that are. Their bounces are forgotten.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ListMemberPut {
    /// The list.
    pub list: String,
    /// Up to 200.
    pub members: Vec<ListMember>,
}
operation!(ListMemberPut = 53, idempotent -> ());

/// The members of a list, by address, in pages.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ListMemberList {
    /// The list.
    pub list: String,
    /// Addresses behind this one.
    pub after: Option<String>,
}
operation!(ListMemberList = 54, idempotent -> Vec<ListMember>);

/// Ends memberships; how many there were.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ListMemberRemove {
    /// The list.
    pub list: String,
    /// Up to 200 addresses.
    pub members: Vec<String>,
}
operation!(ListMemberRemove = 55, idempotent -> u64);

/// What a post needs to know: the list, and what the poster is there. `None` if there is no such list any more.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ListPoster {
    /// The list.
    pub list: Address,
    /// The author's addresses.
    pub authors: Vec<Address>,
}
operation!(ListPoster = 56, idempotent -> Option<ListStanding>);

/// Who gets a post: members in pages, ordered. Those who want no mail and those suspended are not among them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ListRecipients {
    /// The list.
    pub list: Address,
    /// Those behind this one.
    pub after: Option<Address>,
}
operation!(ListRecipients = 57, idempotent -> Vec<Address>);

/// Notes that members did not get a post: once a day each.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ListBounced {
    /// The list.
    pub list: Address,
    /// Up to 100. They do not count for a list with personal posts.
    pub members: Vec<Address>,
    /// Of [`ListPart::Bounce`]: the member of a personal copy. With a seal that is not ours nothing is noted.
    pub token: Option<String>,
}
operation!(ListBounced = 58, idempotent -> ListSuspended);

/// A command that came by mail.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ListCommand {
    /// The list.
    pub list: Address,
    /// From whom, as MAIL FROM says.
    pub sender: Address,
    /// Whom it may be about: the sender, and up to 10 addresses of the subject. A token tells which.
    pub about: Vec<Address>,
    /// Which.
    pub command: ListPart,
}
operation!(ListCommand = 59, idempotent -> ListAnswer);

/// The addresses by which the owners of a list decide on a post that is held; `None`: the list's name is too long for them. The
/// answer to either comes as a [`ListCommand`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ListHold {
    /// The list.
    pub list: Address,
    /// Under which id the post came.
    pub post: QueueId,
}
operation!(ListHold = 66, idempotent -> Option<ListDecide>);

/// The next members who get personal copies of a post; `None` if the token is not ours, or there is no such list any more.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ListCopies {
    /// The list.
    pub list: Address,
    /// Of [`ListPart::Copies`]; `None`: from the beginning, which has no copies yet, but a place to go on from.
    pub token: Option<String>,
}
operation!(ListCopies = 70, idempotent -> Option<ListCopiesPage>);

/// Ends the membership that a token names (RFC 8058), or shows what it is about. `None`: the token is not ours.
#[derive(Clone, Serialize, Deserialize)]
pub struct ListUnsubscribe {
    /// Of [`PersonalCopy::unsubscribe`].
    pub token: String,
    /// Whether it ends now.
    pub leave: bool,
}
operation!(ListUnsubscribe = 71, idempotent -> Option<ListLeft>);
