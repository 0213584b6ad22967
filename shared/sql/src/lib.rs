//! One way to three databases: SQLite, PostgreSQL and MySQL or MariaDB, over sqlx.
//!
//! A statement is written once, with `?` for its parameters and with a few words in braces where the dialects differ
//! ([`dialect`]). It is rewritten once, kept, and prepared once a connection.
//!
//! What to know:
//! - **Integers** are 64 bits wide everywhere: declare columns as `{bigint}`, and cast sums: `CAST(SUM(x) AS {int})`.
//! - **Writers** of SQLite use WAL and synchronous=FULL: a commit survives power loss. Several connections may read; only one
//!   process should write. The `-wal` and `-shm` files stay when the writer ends, so that processes which may not write
//!   the directory can always read.
//! - **Errors** say whose fault it is and whether trying again helps ([`Kind`]).
//! - A transaction whose commit fails with [`Kind::Unavailable`] may have been committed: make it idempotent.
//!
//! SECURITY: parameters are always bound, never put into the text. Errors and `Debug` show no values and no URL.
#![forbid(unsafe_code)]

mod batch;
mod db;
pub mod dialect;
pub mod dump;
mod error;
pub mod fuzz;
mod migrate;
pub mod point;
mod row;
mod run;
mod sqlite_lease;
#[cfg(feature = "testing")]
pub mod testing;
mod tx;
mod value;

pub use batch::{pad, placeholders, split_rows, tuples};
pub use db::{Db, Options, sqlite_file};
pub use dialect::Dialect;
pub use error::{Error, Kind};
pub use migrate::{Migration, migrate, migrate_with_point, schema_version, verify};
pub use point::Points;
pub use row::Row;
pub use run::{Rows, Statement};
pub use tx::Tx;
pub use value::Value;
