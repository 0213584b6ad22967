//! The tables. Secrets are in here: in a shared database only authd's role may read them.

use sql::Migration;

/// Kinds of addresses, as the column `kind` has them.
pub(crate) const ACCOUNT: i64 = 1;
pub(crate) const ALIAS: i64 = 2;
pub(crate) const GROUP: i64 = 3;
pub(crate) const MAILING_LIST: i64 = 4;

/// The component's name in `schema_version`.
pub const COMPONENT: &str = "directory";

/// All steps of the schema.
pub const MIGRATIONS: &[Migration] = &[
    Migration {
        version: 1,
        name: "domains, addresses, accounts, application passwords, blocks",
        statements: &[
            "CREATE TABLE IF NOT EXISTS directory_counter (
            name {key} NOT NULL PRIMARY KEY,
            number {bigint} NOT NULL) {table}",
            "CREATE TABLE IF NOT EXISTS directory_secret (
            name {key} NOT NULL PRIMARY KEY,
            secret {hash} NOT NULL) {table}",
            "CREATE TABLE IF NOT EXISTS directory_domain (
            name {key} NOT NULL PRIMARY KEY,
            enabled {bigint} NOT NULL,
            catch_all {text},
            subaddressing {bigint} NOT NULL,
            quota_bytes {bigint} NOT NULL) {table}",
            // Each address once, whatever it is; for aliases and groups all that is known besides their targets.
            "CREATE TABLE IF NOT EXISTS directory_address (
            address {name} NOT NULL PRIMARY KEY,
            kind {bigint} NOT NULL,
            domain {key} NOT NULL,
            shown {text} NOT NULL,
            description {text} NOT NULL,
            send_as {bigint} NOT NULL) {table}",
            "CREATE INDEX {if_not_exists} directory_address_domain ON directory_address (domain)",
            // Targets of aliases and members of groups; `target` is filed as addresses are, `shown` as it was given.
            "CREATE TABLE IF NOT EXISTS directory_target (
            address {name} NOT NULL,
            place {bigint} NOT NULL,
            target {name} NOT NULL,
            shown {text} NOT NULL,
            PRIMARY KEY (address, place)) {clustered}",
            "CREATE INDEX {if_not_exists} directory_target_target ON directory_target (target)",
            "CREATE TABLE IF NOT EXISTS directory_account (
            id {bigint} NOT NULL PRIMARY KEY,
            address {name} NOT NULL,
            display_name {text} NOT NULL,
            enabled {bigint} NOT NULL,
            quota_bytes {bigint} NOT NULL,
            quota_messages {bigint} NOT NULL,
            rights {bigint} NOT NULL,
            password {text},
            scram_salt {hash} NOT NULL,
            scram_iterations {bigint} NOT NULL,
            scram_stored {hash},
            scram_server {hash}) {table}",
            "CREATE UNIQUE INDEX {if_not_exists} directory_account_address ON directory_account (address)",
            "CREATE TABLE IF NOT EXISTS directory_app_password (
            account {bigint} NOT NULL,
            label {key} NOT NULL,
            rights {bigint} NOT NULL,
            created {bigint} NOT NULL,
            last_used {bigint},
            hash {hash} NOT NULL,
            scram_stored {hash},
            scram_server {hash},
            PRIMARY KEY (account, label)) {clustered}",
            "CREATE TABLE IF NOT EXISTS directory_block (
            network {key} NOT NULL PRIMARY KEY,
            reason {text} NOT NULL,
            expires {bigint}) {table}",
        ],
    },
    Migration {
        version: 2,
        name: "groups with mailboxes of their own",
        statements: &[
            "ALTER TABLE directory_address ADD COLUMN shared {bigint} NOT NULL DEFAULT 0",
            // The number of the group's mailboxes; it keeps it when it is no longer shared.
            "ALTER TABLE directory_address ADD COLUMN account {bigint} NOT NULL DEFAULT 0",
        ],
    },
    Migration {
        version: 3,
        name: "mailing lists, and domains that are others",
        statements: &[
            "ALTER TABLE directory_domain ADD COLUMN alias_of {key}",
            // `settings` is JSON: nobody looks for lists by them.
            "CREATE TABLE IF NOT EXISTS directory_list (
            address {name} NOT NULL PRIMARY KEY,
            id {bigint} NOT NULL,
            settings {text} NOT NULL) {table}",
            "CREATE TABLE IF NOT EXISTS directory_member (
            list {bigint} NOT NULL,
            member {name} NOT NULL,
            shown {text} NOT NULL,
            display {text} NOT NULL,
            nomail {bigint} NOT NULL,
            can_post {bigint} NOT NULL,
            joined {bigint} NOT NULL,
            bounces {bigint} NOT NULL,
            bounced {bigint} NOT NULL,
            suspended {bigint} NOT NULL,
            PRIMARY KEY (list, member)) {clustered}",
        ],
    },
    Migration {
        version: 4,
        name: "handles of members, for personal posts",
        statements: &[
            // 0: none yet.
            "ALTER TABLE directory_member ADD COLUMN handle {bigint} NOT NULL DEFAULT 0",
            "CREATE INDEX {if_not_exists} directory_member_handle ON directory_member (handle)",
            "CREATE INDEX {if_not_exists} directory_member_order ON directory_member (list, handle)",
        ],
    },
];
