//! The tables.

use sql::Migration;

/// The component's name in `schema_version`.
pub const COMPONENT: &str = "mail";

/// All steps of the schema.
pub const MIGRATIONS: &[Migration] = &[
    Migration {
        version: 1,
        name: "accounts, mailboxes, messages, bodies",
        statements: &[
            "CREATE TABLE IF NOT EXISTS counter (
            name {key} NOT NULL PRIMARY KEY,
            next {bigint} NOT NULL
        ) {clustered}",
            "CREATE TABLE IF NOT EXISTS account (
            id {bigint} NOT NULL PRIMARY KEY,
            modseq {bigint} NOT NULL,
            next_id {bigint} NOT NULL,
            uidvalidity {bigint} NOT NULL,
            bytes {bigint} NOT NULL,
            messages {bigint} NOT NULL
        ) {table}",
            "CREATE TABLE IF NOT EXISTS mailbox (
            id {bigint} NOT NULL PRIMARY KEY,
            account {bigint} NOT NULL,
            name {name} NOT NULL,
            uidvalidity {bigint} NOT NULL,
            special_use {key}
        ) {table}",
            "CREATE UNIQUE INDEX {if_not_exists} mailbox_name ON mailbox (account, name)",
            "CREATE TABLE IF NOT EXISTS mailbox_state (
            id {bigint} NOT NULL PRIMARY KEY,
            uidnext {bigint} NOT NULL,
            modseq {bigint} NOT NULL,
            floor {bigint} NOT NULL,
            total {bigint} NOT NULL,
            unseen {bigint} NOT NULL,
            deleted {bigint} NOT NULL,
            bytes {bigint} NOT NULL
        ) {table}",
            "CREATE TABLE IF NOT EXISTS message (
            mailbox {bigint} NOT NULL,
            uid {bigint} NOT NULL,
            account {bigint} NOT NULL,
            content {bigint} NOT NULL,
            email {bigint} NOT NULL,
            thread {bigint} NOT NULL,
            flags {bigint} NOT NULL,
            keywords {text} NOT NULL,
            date {bigint} NOT NULL,
            saved {bigint} NOT NULL,
            modseq {bigint} NOT NULL,
            size {bigint} NOT NULL,
            PRIMARY KEY (mailbox, uid)
        ) {clustered}",
            "CREATE INDEX {if_not_exists} message_modseq ON message (mailbox, modseq)",
            "{not_mysql}CREATE INDEX IF NOT EXISTS message_deleted ON message (mailbox, uid) WHERE (flags & 8) <> 0",
            "CREATE INDEX {if_not_exists} message_content ON message (account, content)",
            "CREATE TABLE IF NOT EXISTS content (
            account {bigint} NOT NULL,
            id {bigint} NOT NULL,
            blob_id {bigint} NOT NULL,
            prefix {blob} NOT NULL,
            parsed {blob} NOT NULL,
            PRIMARY KEY (account, id)
        ) {clustered}",
            "CREATE INDEX {if_not_exists} content_blob ON content (blob_id)",
            "CREATE TABLE IF NOT EXISTS body (
            id {bigint} NOT NULL PRIMARY KEY,
            hash {hash} NOT NULL,
            size {bigint} NOT NULL,
            data {blob}
        ) {table}",
            "CREATE UNIQUE INDEX {if_not_exists} body_hash ON body (hash)",
            "CREATE TABLE IF NOT EXISTS expunged (
            mailbox {bigint} NOT NULL,
            modseq {bigint} NOT NULL,
            low {bigint} NOT NULL,
            high {bigint} NOT NULL,
            at {bigint} NOT NULL,
            PRIMARY KEY (mailbox, modseq, low)
        ) {clustered}",
            "CREATE INDEX {if_not_exists} expunged_at ON expunged (at)",
            "CREATE TABLE IF NOT EXISTS subscription (
            account {bigint} NOT NULL,
            name {name} NOT NULL,
            PRIMARY KEY (account, name)
        ) {clustered}",
            "CREATE TABLE IF NOT EXISTS thread_ref (
            hash {bigint} NOT NULL PRIMARY KEY,
            account {bigint} NOT NULL,
            thread {bigint} NOT NULL
        ) {table}",
            "CREATE TABLE IF NOT EXISTS request (
            id {hash} NOT NULL,
            account {bigint} NOT NULL,
            reply {blob} NOT NULL,
            at {bigint} NOT NULL,
            PRIMARY KEY (id, account)
        ) {clustered}",
            "CREATE INDEX {if_not_exists} request_at ON request (at)",
            "CREATE TABLE IF NOT EXISTS delivered (
            queue_id {bigint} NOT NULL,
            recipient {bigint} NOT NULL,
            account {bigint} NOT NULL,
            mailbox {bigint} NOT NULL,
            uid {bigint} NOT NULL,
            modseq {bigint} NOT NULL,
            at {bigint} NOT NULL,
            PRIMARY KEY (queue_id, recipient, account)
        ) {clustered}",
            "CREATE TABLE IF NOT EXISTS orphan (
            account {bigint} NOT NULL,
            content {bigint} NOT NULL,
            PRIMARY KEY (account, content)
        ) {clustered}",
            "CREATE TABLE IF NOT EXISTS blob_gone (
            hash {hash} NOT NULL PRIMARY KEY
        ) {clustered}",
        ],
    },
    Migration {
        version: 2,
        name: "scripts, access control lists, annotations, owners",
        statements: &[
            // Names and limits of accounts, as their last grant told them.
            "CREATE TABLE IF NOT EXISTS owner (
            account {bigint} NOT NULL PRIMARY KEY,
            name {name} NOT NULL,
            quota_bytes {bigint} NOT NULL,
            quota_messages {bigint} NOT NULL
        ) {table}",
            "CREATE INDEX {if_not_exists} owner_name ON owner (name)",
            "CREATE TABLE IF NOT EXISTS script (
            account {bigint} NOT NULL,
            name {name} NOT NULL,
            active {bigint} NOT NULL,
            size {bigint} NOT NULL,
            hash {hash} NOT NULL,
            content {blob} NOT NULL,
            PRIMARY KEY (account, name)
        ) {clustered}",
            "CREATE TABLE IF NOT EXISTS acl (
            mailbox {bigint} NOT NULL,
            identifier {name} NOT NULL,
            account {bigint} NOT NULL,
            rights {bigint} NOT NULL,
            PRIMARY KEY (mailbox, identifier)
        ) {clustered}",
            "CREATE INDEX {if_not_exists} acl_identifier ON acl (identifier)",
            "CREATE INDEX {if_not_exists} acl_account ON acl (account)",
            // mailbox 0: of the account itself; reader 0: shared.
            "CREATE TABLE IF NOT EXISTS metadata (
            account {bigint} NOT NULL,
            mailbox {bigint} NOT NULL,
            reader {bigint} NOT NULL,
            entry {key} NOT NULL,
            value {blob} NOT NULL,
            PRIMARY KEY (account, mailbox, reader, entry)
        ) {clustered}",
            // What scripts must not do again before a time.
            "CREATE TABLE IF NOT EXISTS noted (
            account {bigint} NOT NULL,
            hash {bigint} NOT NULL,
            queue_id {bigint} NOT NULL,
            expires {bigint} NOT NULL,
            PRIMARY KEY (account, hash, queue_id)
        ) {clustered}",
            "CREATE INDEX {if_not_exists} noted_expires ON noted (expires)",
        ],
    },
];
