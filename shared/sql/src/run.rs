//! Running statements: on a pool or in a transaction, with the same four verbs.

use crate::db::Pools;
use crate::tx::Driver;
use crate::{Db, Dialect, Error, Kind, Row, Tx, Value, placeholders, split_rows, tuples};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::mysql::MySqlArguments;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgArguments, PgTypeInfo};
use sqlx::sqlite::SqliteArguments;
use sqlx::{Arguments, AssertSqlSafe, Encode, Postgres, Type};
use std::sync::Arc;

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
            Pools::Sqlite(leases) => {
                let mut args = $args;
                let mut turn = 0;
                loop {
                    let again = $db.is_read_only() && turn < crate::tx::TURNS;
                    let spare = if again { args.clone() } else { Vec::new() };
                    let text = AssertSqlSafe($db.texts.get($text)?);
                    let _turn = match $db.is_read_only() {
                        true => None,
                        false => leases.turn_for($text).await?,
                    };
                    let $query = sqlx::query_with(text, sqlite(args)?);
                    let mut lease = leases.acquire().await?;
                    let $executor = lease.get()?;
                    let result: Result<_, Error> = async { $body }.await;
                    match result {
                        Err(error) if again && error.is_unready() => {
                            drop(lease);
                            turn += 1;
                            crate::tx::pause(turn).await;
                            args = spare;
                        }
                        other => break other,
                    }
                }
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

/// For streams, which must own what they run on.
macro_rules! on_pool_itself {
    ($db:expr, $text:expr, $args:expr, |$query:ident, $executor:ident| $body:expr) => {{
        let text = AssertSqlSafe($db.texts.get($text)?);
        match &$db.pools {
            Pools::Sqlite(leases) => {
                let $executor = &leases.pool;
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
                let $executor = transaction.connection()?;
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
    ($type:ty, $dispatch:ident, $stream:ident, $($self_:tt)+) => {
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
                $stream!(self, text, args, |query, executor| {
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

verbs!(Db, on_pool, on_pool_itself, &);
verbs!(Tx, in_tx, in_tx, &mut);

impl Db {
    /// Runs statements without parameters as they are, past the cache of prepared ones: DDL.
    pub(crate) async fn execute_raw(&self, text: &str) -> Result<(), Error> {
        let text = AssertSqlSafe(self.texts.get(text)?);
        match &self.pools {
            Pools::Sqlite(pool) => {
                let _turn = pool.turn().await?;
                sqlx::raw_sql(text)
                    .execute(pool.acquire().await?.get()?)
                    .await?;
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

/// One of several statements that are run together ([`Tx::execute_each`], [`Tx::fetch_each`]).
#[derive(Clone, Debug)]
pub struct Statement {
    /// Its text, in the words of [`crate::dialect`].
    pub text: String,
    /// Its parameters.
    pub args: Vec<Value>,
}

impl Statement {
    /// An insertion of many rows, as [`Tx::insert_many`] does it.
    pub fn insertions(
        dialect: Dialect,
        head: &str,
        columns: usize,
        values: Vec<Value>,
        tail: &str,
    ) -> Vec<Self> {
        split_rows(dialect, columns, values)
            .into_iter()
            .map(|args| Self {
                text: format!(
                    "{head} VALUES {} {tail}",
                    tuples(args.len() / columns.max(1), columns)
                ),
                args,
            })
            .collect()
    }

    /// A query with a long list, as [`Tx::fetch_in`] does it: nothing for an empty list.
    pub fn listed(text: &str, first: &[Value], list: &[Value]) -> Vec<Self> {
        list.chunks(LIST_MAX)
            .map(|part| {
                let mut part = part.to_vec();
                let count = crate::pad(&mut part);
                let mut args = first.to_vec();
                args.append(&mut part);
                Self {
                    text: text.replace("{list}", &placeholders(count)),
                    args,
                }
            })
            .collect()
    }
}

/// Parameters of statements that are sent to SQLite in one piece: beyond, the way to its thread and back hardly counts, and
/// there would be too many different texts.
const JOINED_MAX: usize = 384;

impl Tx {
    /// Runs statements in their order. SQLite takes small ones in one piece, which saves the way to its thread and back for
    /// each.
    ///
    /// # Errors
    /// See [`Kind`].
    pub async fn execute_each(&mut self, statements: Vec<Statement>) -> Result<(), Error> {
        let total: usize = statements.iter().map(|one| one.args.len()).sum();
        if statements.len() > 1 && total <= JOINED_MAX && self.dialect() == Dialect::Sqlite {
            let joined = join(statements);
            self.execute(&joined.text, joined.args).await?;
            return Ok(());
        }
        for one in statements {
            self.execute(&one.text, one.args).await?;
        }
        Ok(())
    }

    /// Runs queries that do not depend on each other: the rows of each group of them together.
    ///
    /// # Errors
    /// See [`Kind`].
    pub async fn fetch_each(
        &mut self,
        groups: Vec<Vec<Statement>>,
    ) -> Result<Vec<Vec<Row>>, Error> {
        let mut results: Vec<Vec<Row>> = Vec::with_capacity(groups.len());
        let total: usize = groups.iter().flatten().map(|one| one.args.len()).sum();
        let texts = Arc::clone(&self.texts);
        if let Driver::Sqlite(tx) = &mut self.driver
            && total <= JOINED_MAX
        {
            results.resize_with(groups.len(), Vec::new);
            let owners: Vec<usize> = (0..)
                .zip(&groups)
                .flat_map(|(group, statements)| statements.iter().map(move |_| group))
                .collect();
            if owners.is_empty() {
                return Ok(results);
            }
            let joined = join(groups.into_iter().flatten().collect());
            let text = AssertSqlSafe(texts.get(&joined.text)?);
            let query = sqlx::query_with(text, sqlite(joined.args)?);
            // Of sqlx's drivers only that of SQLite gives the results of several statements, each with an end of its own.
            let mut steps = sqlx::Executor::fetch_many(tx.connection()?, query);
            let mut ended = 0;
            while let Some(step) = steps.next().await.transpose()? {
                match step {
                    sqlx::Either::Left(_) => ended += 1,
                    sqlx::Either::Right(row) => {
                        let owner = owners.get(ended).and_then(|group| results.get_mut(*group));
                        owner
                            .ok_or_else(|| Error::new(Kind::Statement, "a result without query"))?
                            .push(Row::from(row));
                    }
                }
            }
            return Ok(results);
        }
        for group in groups {
            let mut rows = Vec::new();
            for one in group {
                rows.append(&mut self.fetch_all(&one.text, one.args).await?);
            }
            results.push(rows);
        }
        Ok(results)
    }
}

fn join(statements: Vec<Statement>) -> Statement {
    let mut all = Statement {
        text: String::new(),
        args: Vec::new(),
    };
    for mut one in statements {
        if !all.text.is_empty() {
            all.text.push_str(";\n");
        }
        all.text.push_str(&one.text);
        all.args.append(&mut one.args);
    }
    all
}

impl Tx {
    /// As [`Db::execute_raw`]: DDL and savepoints.
    pub(crate) async fn execute_raw(&mut self, text: &str) -> Result<(), Error> {
        let text = AssertSqlSafe(self.texts.get(text)?);
        match &mut self.driver {
            Driver::Sqlite(tx) => {
                sqlx::raw_sql(text).execute(tx.connection()?).await?;
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
