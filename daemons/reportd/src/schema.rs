//! The tables: reports of ours that are gathered (`report_out`, `report_out_row`), destinations that refused one
//! (`report_refused`), and reports of others (`report_in`, `report_in_row`).

use sql::Migration;

/// The name of the schema.
pub(crate) const COMPONENT: &str = "reports";

pub(crate) const MIGRATIONS: &[Migration] = &[FIRST, POSTS];

const FIRST: Migration = Migration {
    version: 1,
    name: "reports to others and of others",
    statements: &[
        "CREATE TABLE IF NOT EXISTS report_out (
            id {bigint} NOT NULL PRIMARY KEY,
            kind {key} NOT NULL,
            domain {key} NOT NULL,
            begin_at {bigint} NOT NULL,
            end_at {bigint} NOT NULL,
            due {bigint} NOT NULL,
            state {key} NOT NULL,
            lease {bigint} NOT NULL,
            queue_id {bigint} NOT NULL,
            row_count {bigint} NOT NULL,
            messages {bigint} NOT NULL,
            left_out {bigint} NOT NULL,
            policy {blob},
            destinations {blob},
            content {blob},
            note {text}
        ) {table}",
        "CREATE INDEX {if_not_exists} report_out_due ON report_out (state, due)",
        "CREATE INDEX {if_not_exists} report_out_domain ON report_out (kind, domain, end_at)",
        "CREATE TABLE IF NOT EXISTS report_out_row (
            report {bigint} NOT NULL,
            digest {hash} NOT NULL,
            messages {bigint} NOT NULL,
            data {blob} NOT NULL,
            PRIMARY KEY (report, digest)
        ) {table}",
        "CREATE TABLE IF NOT EXISTS report_refused (
            address {name} NOT NULL PRIMARY KEY,
            until_at {bigint} NOT NULL
        ) {table}",
        "CREATE TABLE IF NOT EXISTS report_in (
            id {bigint} NOT NULL PRIMARY KEY,
            queue_id {bigint} NOT NULL,
            idx {bigint} NOT NULL,
            part {bigint} NOT NULL,
            kind {key} NOT NULL,
            taken {bigint} NOT NULL,
            organization {key} NOT NULL,
            sender {name} NOT NULL,
            domain {key} NOT NULL,
            report_id {name} NOT NULL,
            begin_at {bigint} NOT NULL,
            end_at {bigint} NOT NULL,
            passed {bigint} NOT NULL,
            failed {bigint} NOT NULL,
            row_count {bigint} NOT NULL,
            note {text},
            fields {blob},
            content {blob}
        ) {table}",
        "CREATE INDEX {if_not_exists} report_in_queue ON report_in (queue_id, idx)",
        "CREATE INDEX {if_not_exists} report_in_name ON report_in (report_id)",
        "CREATE INDEX {if_not_exists} report_in_kind ON report_in (kind, id)",
        "CREATE INDEX {if_not_exists} report_in_domain ON report_in (domain, taken)",
        "CREATE INDEX {if_not_exists} report_in_taken ON report_in (taken)",
        "CREATE TABLE IF NOT EXISTS report_in_row (
            report {bigint} NOT NULL,
            number {bigint} NOT NULL,
            source {key} NOT NULL,
            identity {key} NOT NULL,
            result {key} NOT NULL,
            dkim {bigint} NOT NULL,
            spf {bigint} NOT NULL,
            messages {bigint} NOT NULL,
            detail {text},
            PRIMARY KEY (report, number)
        ) {table}",
    ],
};

const POSTS: Migration = Migration {
    version: 2,
    name: "reports that are posted",
    statements: &[
        // 1: its only destination is an address to post to, and `content` what is posted there.
        "ALTER TABLE report_out ADD COLUMN post {bigint} NOT NULL DEFAULT 0",
        // Attempts that failed, and when the first one began.
        "ALTER TABLE report_out ADD COLUMN attempts {bigint} NOT NULL DEFAULT 0",
        "ALTER TABLE report_out ADD COLUMN first_at {bigint} NOT NULL DEFAULT 0",
    ],
};
