//! Running statements: on a pool or in a transaction, with the same four verbs.

use crate::db::Pools;
use crate::tx::Driver;
use crate::{Db, Error, Kind, Row, Tx, Value, placeholders, split_rows, tuples};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::mysql::MySqlArguments;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgArguments, PgTypeInfo};
use sqlx::sqlite::SqliteArguments;
use sqlx::{Arguments, AssertSqlSafe, Encode, Postgres, Type};

/// A result on its way: rows are taken from the database as they are asked for. Dropping it ends the query.
pub struct Rows<'a>(BoxStream<'a, Result<Row, sqlx::Error>>);

impl Rows<'_> {
    /// The next row; `None` after the last one.
    ///
    /// # Errors
    /// See [`Kind`]; nothing comes after an error.
    pub async fn next(&mut self) -> Result<Option<Row>, Error> {
        Ok(self.0.next().await.transpose()?)
    }

    /// Gives each row to `take`, until it fails.
    ///
    /// # Errors
    /// Those of the query and those of `take`.
    pub async fn each<E: From<Error>>(
        mut self,
        mut take: impl FnMut(Row) -> Result<(), E>,
    ) -> Result<(), E> {
        while let Some(row) = self.next().await? {
            take(row)?;
        }
        Ok(())
    }
}

/// NULL whose type PostgreSQL infers from where it stands.
struct Untyped;

impl Type<Postgres> for Untyped {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(0))
    }
}

impl Encode<'_, Postgres> for Untyped {
    fn encode_by_ref(&self, _: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        Ok(IsNull::Yes)
    }
}

fn misfit(_: BoxDynError) -> Error {
    Error::new(Kind::Statement, "a parameter cannot be encoded")
}

fn sqlite(args: Vec<Value>) -> Result<SqliteArguments, Error> {
    let mut bound = SqliteArguments::default();
    Arguments::reserve(&mut bound, args.len(), 0);
    for value in args {
        match value {
            Value::Null => Arguments::add(&mut bound, None::<i64>),
            Value::Int(value) => Arguments::add(&mut bound, value),
            Value::Text(value) => Arguments::add(&mut bound, value),
            Value::Blob(value) => Arguments::add(&mut bound, value),
        }
        .map_err(misfit)?;
    }
    Ok(bound)
}

fn postgres(args: Vec<Value>) -> Result<PgArguments, Error> {
    let mut bound = PgArguments::default();
    let size = args.iter().map(Value::weight).sum();
    Arguments::reserve(&mut bound, args.len(), size);
    for value in args {
        match value {
            Value::Null => Arguments::add(&mut bound, Untyped),
            Value::Int(value) => Arguments::add(&mut bound, value),
            Value::Text(value) => Arguments::add(&mut bound, value),
            Value::Blob(value) => Arguments::add(&mut bound, value),
        }
        .map_err(misfit)?;
    }
    Ok(bound)
}

fn mysql(args: Vec<Value>) -> Result<MySqlArguments, Error> {
    let mut bound = MySqlArguments::default();
    let size = args.iter().map(Value::weight).sum();
    Arguments::reserve(&mut bound, args.len(), size);
    for value in args {
        match value {
            Value::Null => Arguments::add(&mut bound, None::<i64>),
            Value::Int(value) => Arguments::add(&mut bound, value),
            Value::Text(value) => Arguments::add(&mut bound, value),
            Value::Blob(value) => Arguments::add(&mut bound, value),
        }
        .map_err(misfit)?;
    }
    Ok(bound)
}

macro_rules! on_pool {
    ($db:expr, $text:expr, $args:expr, |$query:ident, $executor:ident| $body:expr) => {{
        let text = AssertSqlSafe($db.texts.get($text)?);
        match &$db.pools {
            Pools::Sqlite($executor) => {
                let $query = sqlx::query_with(text, sqlite($args)?);
                $body
            }
            Pools::Postgres($executor) => {
                let $query = sqlx::query_with(text, postgres($args)?);
                $body
            }
            Pools::MySql($executor) => {
                let $query = sqlx::query_with(text, mysql($args)?);
                $body
            }
        }
    }};
}

macro_rules! in_tx {
    ($tx:expr, $text:expr, $args:expr, |$query:ident, $executor:ident| $body:expr) => {{
        let text = AssertSqlSafe($tx.texts.get($text)?);
        match &mut $tx.driver {
            Driver::Sqlite(transaction) => {
                let $executor = &mut **transaction;
                let $query = sqlx::query_with(text, sqlite($args)?);
                $body
            }
            Driver::Postgres(transaction) => {
                let $executor = &mut **transaction;
                let $query = sqlx::query_with(text, postgres($args)?);
                $body
            }
            Driver::MySql(transaction) => {
                let $executor = &mut **transaction;
                let $query = sqlx::query_with(text, mysql($args)?);
                $body
            }
        }
    }};
}

macro_rules! verbs {
    ($type:ty, $dispatch:ident, $($self_:tt)+) => {
        impl $type {
            /// Runs a statement; gives the number of rows it changed (MySQL: that it found).
            ///
            /// # Errors
            /// See [`Kind`].
            pub async fn execute($($self_)+ self, text: &str, args: Vec<Value>) -> Result<u64, Error> {
                $dispatch!(self, text, args, |query, executor| {
                    Ok(query.execute(executor).await?.rows_affected())
                })
            }

            /// Runs a query; gives all rows. For results that are small by their nature.
            ///
            /// # Errors
            /// See [`Kind`].
            pub async fn fetch_all($($self_)+ self, text: &str, args: Vec<Value>) -> Result<Vec<Row>, Error> {
                $dispatch!(self, text, args, |query, executor| {
                    let rows = query.fetch_all(executor).await?;
                    Ok(rows.into_iter().map(Row::from).collect())
                })
            }

            /// Runs a query; gives its first row.
            ///
            /// # Errors
            /// See [`Kind`].
            pub async fn fetch_optional($($self_)+ self, text: &str, args: Vec<Value>) -> Result<Option<Row>, Error> {
                $dispatch!(self, text, args, |query, executor| {
                    Ok(query.fetch_optional(executor).await?.map(Row::from))
                })
            }

            /// Runs a query; its rows come one after the other.
            ///
            /// # Errors
            /// See [`Kind`]; those of the query itself come from [`Rows::next`].
            pub fn fetch($($self_)+ self, text: &str, args: Vec<Value>) -> Result<Rows<'_>, Error> {
                $dispatch!(self, text, args, |query, executor| {
                    Ok(Rows(query.fetch(executor).map(|row| row.map(Row::from)).boxed()))
                })
            }

            /// Inserts rows in few statements: `head` VALUES (...), (...) `tail`, with `columns` values for each row. Gives the
            /// number of rows inserted.
            ///
            /// # Errors
            /// See [`Kind`].
            pub async fn insert_many(
                $($self_)+ self,
                head: &str,
                columns: usize,
                values: Vec<Value>,
                tail: &str,
            ) -> Result<u64, Error> {
                let mut count = 0;
                for part in split_rows(self.dialect(), columns, values) {
                    let rows = part.len() / columns.max(1);
                    let text = format!("{head} VALUES {} {tail}", tuples(rows, columns));
                    count += self.execute(&text, part).await?;
                }
                Ok(count)
            }

            /// Runs a query once for each part of a long list: `text` has `{list}` where `IN (...)` takes it, and `first` are
            /// the parameters before it.
            ///
            /// # Errors
            /// See [`Kind`].
            pub async fn fetch_in(
                $($self_)+ self,
                text: &str,
                first: &[Value],
                list: Vec<Value>,
            ) -> Result<Vec<Row>, Error> {
                let mut rows = Vec::new();
                for part in list.chunks(LIST_MAX) {
                    let mut part = part.to_vec();
                    let count = crate::pad(&mut part);
                    let text = text.replace("{list}", &placeholders(count));
                    let mut args = first.to_vec();
                    args.append(&mut part);
                    rows.append(&mut self.fetch_all(&text, args).await?);
                }
                Ok(rows)
            }

            /// As [`Self::fetch_in`], for statements that change; gives the number of rows.
            ///
            /// # Errors
            /// See [`Kind`].
            pub async fn execute_in(
                $($self_)+ self,
                text: &str,
                first: &[Value],
                list: Vec<Value>,
            ) -> Result<u64, Error> {
                let mut rows = 0;
                for part in list.chunks(LIST_MAX) {
                    let mut part = part.to_vec();
                    let count = crate::pad(&mut part);
                    let text = text.replace("{list}", &placeholders(count));
                    let mut args = first.to_vec();
                    args.append(&mut part);
                    rows += self.execute(&text, args).await?;
                }
                Ok(rows)
            }
        }
    };
}

/// Values in one `IN (...)`: a power of two.
const LIST_MAX: usize = 512;

verbs!(Db, on_pool, &);
verbs!(Tx, in_tx, &mut);

impl Db {
    /// Runs statements without parameters as they are, past the cache of prepared ones: DDL.
    pub(crate) async fn execute_raw(&self, text: &str) -> Result<(), Error> {
        let text = AssertSqlSafe(self.texts.get(text)?);
        match &self.pools {
            Pools::Sqlite(pool) => {
                sqlx::raw_sql(text).execute(pool).await?;
            }
            Pools::Postgres(pool) => {
                sqlx::raw_sql(text).execute(pool).await?;
            }
            Pools::MySql(pool) => {
                sqlx::raw_sql(text).execute(pool).await?;
            }
        }
        Ok(())
    }
}

impl Tx {
    /// As [`Db::execute_raw`]: DDL and savepoints.
    pub(crate) async fn execute_raw(&mut self, text: &str) -> Result<(), Error> {
        let text = AssertSqlSafe(self.texts.get(text)?);
        match &mut self.driver {
            Driver::Sqlite(tx) => {
                sqlx::raw_sql(text).execute(&mut **tx).await?;
            }
            Driver::Postgres(tx) => {
                sqlx::raw_sql(text).execute(&mut **tx).await?;
            }
            Driver::MySql(tx) => {
                sqlx::raw_sql(text).execute(&mut **tx).await?;
            }
        }
        Ok(())
    }
}
