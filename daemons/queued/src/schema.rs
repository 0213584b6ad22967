//! The tables of deferred mail.
//!
//! `queue_recipient` is the work: one row for each recipient that is not done, with the destination that serves it, when it is
//! due, and under which lease it is worked on. `queue_node` has the leases: one for each node, which it renews while it lives.
//! Posts that wait for the owners of a mailing list are held at a destination of their own until their `due`.
//! `queue_message` is what is delivered. `queue_destination` has a row for each
//! destination with work and says when to look at it again, so that neither a dead destination nor its backlog costs
//! anything until then. `queue_piece` has the bodies that are too large for a row, where several nodes need them.

use sql::Migration;

/// The name of the schema.
pub(crate) const COMPONENT: &str = "queue";

pub(crate) const MIGRATIONS: &[Migration] = &[DEFERRED, ORDER, NODES, LEAN];

const DEFERRED: Migration = Migration {
    version: 1,
    name: "messages, recipients and destinations of deferred mail",
    statements: &[
        "CREATE TABLE IF NOT EXISTS queue_message (
            id {bigint} NOT NULL PRIMARY KEY,
            node {key} NOT NULL,
            arrived {bigint} NOT NULL,
            size {bigint} NOT NULL,
            sender {name} NOT NULL,
            sender_domain {key} NOT NULL,
            head {blob} NOT NULL,
            prefix {blob} NOT NULL,
            body {blob}
        ) {table}",
        "CREATE TABLE IF NOT EXISTS queue_recipient (
            id {bigint} NOT NULL,
            idx {bigint} NOT NULL,
            destination {key} NOT NULL,
            address {name} NOT NULL,
            domain {key} NOT NULL,
            route {key},
            held {bigint} NOT NULL,
            due {bigint} NOT NULL,
            attention {bigint} NOT NULL,
            expires {bigint} NOT NULL,
            attempts {bigint} NOT NULL,
            last {blob},
            lease_owner {key},
            lease_until {bigint} NOT NULL,
            PRIMARY KEY (id, idx)
        ) {table}",
        "CREATE INDEX {if_not_exists} queue_recipient_due ON queue_recipient (destination, held, due)",
        "CREATE INDEX {if_not_exists} queue_recipient_attention ON queue_recipient (held, attention)",
        "CREATE INDEX {if_not_exists} queue_recipient_address ON queue_recipient (address)",
        "CREATE INDEX {if_not_exists} queue_recipient_domain ON queue_recipient (domain)",
        "CREATE TABLE IF NOT EXISTS queue_destination (
            name {key} NOT NULL PRIMARY KEY,
            next {bigint} NOT NULL,
            failures {bigint} NOT NULL
        ) {table}",
        "CREATE INDEX {if_not_exists} queue_destination_next ON queue_destination (next)",
    ],
};

/// What is due goes by priority first. `not_before` is when a message that was to be held is released.
const ORDER: Migration = Migration {
    version: 2,
    name: "priorities, and mail held until its time",
    statements: &[
        "ALTER TABLE queue_recipient ADD COLUMN priority {bigint} NOT NULL DEFAULT 0",
        "ALTER TABLE queue_recipient ADD COLUMN not_before {bigint} NOT NULL DEFAULT 0",
        "CREATE INDEX {if_not_exists} queue_recipient_order ON queue_recipient (destination, held, priority, due)",
        // Figures are read from these, and never from the messages.
        "CREATE INDEX {if_not_exists} queue_message_size ON queue_message (size)",
        "CREATE INDEX {if_not_exists} queue_message_arrived ON queue_message (arrived)",
    ],
};

/// A row's `lease` is 0 if nobody works on it, the lease of the node that does, or -1 less the number of a node in whose journal it
/// still is. `lease_owner` and `lease_until` are not used any more.
const NODES: Migration = Migration {
    version: 3,
    name: "nodes that share the table",
    statements: &[
        "ALTER TABLE queue_recipient ADD COLUMN lease {bigint} NOT NULL DEFAULT 0",
        "CREATE TABLE IF NOT EXISTS queue_node (
            name {key} NOT NULL PRIMARY KEY,
            number {bigint} NOT NULL,
            instance {key} NOT NULL,
            lease {bigint} NOT NULL,
            lease_until {bigint} NOT NULL,
            began {bigint} NOT NULL,
            seen {bigint} NOT NULL,
            in_journal {bigint} NOT NULL,
            loaded {bigint} NOT NULL
        ) {table}",
        "CREATE UNIQUE INDEX {if_not_exists} queue_node_number ON queue_node (number)",
        "CREATE TABLE IF NOT EXISTS queue_piece (
            id {bigint} NOT NULL,
            seq {bigint} NOT NULL,
            written {bigint} NOT NULL,
            octets {blob} NOT NULL,
            PRIMARY KEY (id, seq)
        ) {table}",
    ],
};

/// Each message that is put here or goes away changes every index, each in another place: there are no more of them than the
/// queue needs to go on, and to find an address. In SQLite the recipients are in the order of their key.
const LEAN: Migration = Migration {
    version: 4,
    name: "fewer indexes of deferred mail",
    statements: &[
        "{only_sqlite}CREATE TABLE queue_recipient_by_key (
            id {bigint} NOT NULL,
            idx {bigint} NOT NULL,
            destination {key} NOT NULL,
            address {name} NOT NULL,
            domain {key} NOT NULL,
            route {key},
            held {bigint} NOT NULL,
            due {bigint} NOT NULL,
            attention {bigint} NOT NULL,
            expires {bigint} NOT NULL,
            attempts {bigint} NOT NULL,
            last {blob},
            lease_owner {key},
            lease_until {bigint} NOT NULL,
            priority {bigint} NOT NULL DEFAULT 0,
            not_before {bigint} NOT NULL DEFAULT 0,
            lease {bigint} NOT NULL DEFAULT 0,
            PRIMARY KEY (id, idx)
        ) {clustered}",
        "{only_sqlite}INSERT INTO queue_recipient_by_key SELECT id, idx, destination, address, domain, route, held, due, attention,
            expires, attempts, last, lease_owner, lease_until, priority, not_before, lease FROM queue_recipient",
        "{only_sqlite}DROP TABLE queue_recipient",
        "{only_sqlite}ALTER TABLE queue_recipient_by_key RENAME TO queue_recipient",
        "{only_sqlite}CREATE INDEX queue_recipient_attention ON queue_recipient (held, attention)",
        "{only_sqlite}CREATE INDEX queue_recipient_address ON queue_recipient (address)",
        // MySQL cannot drop what may be gone already: there they stay.
        "{not_mysql}DROP INDEX IF EXISTS queue_recipient_due",
        "{not_mysql}DROP INDEX IF EXISTS queue_recipient_domain",
        "{not_mysql}DROP INDEX IF EXISTS queue_recipient_order",
        "{not_mysql}DROP INDEX IF EXISTS queue_message_size",
        "{not_mysql}DROP INDEX IF EXISTS queue_message_arrived",
        // Of a destination, by priority and time; what is worked on stands apart.
        "CREATE INDEX {if_not_exists} queue_recipient_free ON queue_recipient (destination, held, lease, priority, due)",
        // Figures are read from this one, and never from the messages.
        "CREATE INDEX {if_not_exists} queue_message_figures ON queue_message (arrived, size)",
    ],
};
