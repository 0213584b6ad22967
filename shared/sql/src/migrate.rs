//! Numbered steps of a component's schema.

use crate::point::{self, Points};
use crate::{Db, Dialect, Error, Kind, args};

/// One step. Never changed once it was released: a change is a new step.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// 1, 2, 3 ...
    pub version: u32,
    /// What it does, for the log.
    pub name: &'static str,
    /// Statements in the words of [`crate::dialect`]. MySQL commits each by itself, and a crash may come between them: write
    /// `CREATE TABLE IF NOT EXISTS`, `CREATE INDEX {if_not_exists}`; changes of data must bear to be repeated.
    pub statements: &'static [&'static str],
}

const TABLE: &str = "CREATE TABLE IF NOT EXISTS schema_version (
    component {key} NOT NULL PRIMARY KEY,
    version {bigint} NOT NULL
) {table}";

/// The version of a component's schema; 0 if there is none.
///
/// # Errors
/// See [`Kind`]; [`Kind::Statement`] on a database on which nothing was ever migrated.
pub async fn schema_version(db: &Db, component: &str) -> Result<u32, Error> {
    let row = db
        .fetch_optional(
            "SELECT version FROM schema_version WHERE component = ?",
            args![component],
        )
        .await?;
    row.map_or(Ok(0), |row| row.u32(0))
}

/// Instead of a version while a backup point is put back: no program begins with what is there so far.
pub const UNFINISHED: u32 = 2_000_000_000;

/// Notes a version.
pub(crate) const MARK: &str = "INSERT INTO schema_version (component, version) VALUES (?, ?)
    {on_conflict:component} version = {excluded:version}";

/// Brings a component's schema to the last version; gives that. Repeatable and resumable. Makes no backup point: for what is
/// empty, or a copy itself.
///
/// # Errors
/// [`Kind::Schema`] if the schema is newer than this program; others of the database.
pub async fn migrate(db: &Db, component: &str, migrations: &[Migration]) -> Result<u32, Error> {
    steps(db, component, migrations, None).await
}

/// As [`migrate`], but a schema that is there already is only changed once a backup point of it is complete. Killed in the
/// middle, the next run goes on, and keeps that point.
///
/// # Errors
/// As [`migrate`]; [`Kind::Full`] and others if the point cannot be made: then nothing was changed.
pub async fn migrate_with_point(
    db: &Db,
    component: &str,
    migrations: &[Migration],
    points: &Points,
) -> Result<u32, Error> {
    steps(db, component, migrations, Some(points)).await
}

async fn steps(
    db: &Db,
    component: &str,
    migrations: &[Migration],
    points: Option<&Points>,
) -> Result<u32, Error> {
    let known = migrations.last().map_or(0, |last| last.version);
    make_table(db, component).await?;
    let found = schema_version(db, component).await?;
    if found > known {
        return Err(newer(component, found, known));
    }
    let points = points.filter(|points| points.keep > 0);
    if let Some(points) = points
        && (1..known).contains(&found)
    {
        point::take(db, component, found, migrations, points).await?;
    }
    for migration in migrations.iter().filter(|m| m.version > found) {
        apply(db, component, migration).await?;
        tracing::info!(
            component,
            version = migration.version,
            step = migration.name,
            "schema migrated"
        );
    }
    point::done(db, component).await?;
    Ok(known)
}

/// The table of versions.
pub(crate) async fn make_table(db: &Db, component: &str) -> Result<(), Error> {
    // CREATE ... IF NOT EXISTS of two processes at once fails in one of them on PostgreSQL; the table is there then.
    match db.execute_raw(TABLE).await {
        Err(error) if schema_version(db, component).await.is_err() => Err(error),
        _ => Ok(()),
    }
}

/// Does the statements of these steps and records nothing: for tables that another record keeps everybody away from.
pub(crate) async fn make(db: &Db, steps: &[Migration]) -> Result<(), Error> {
    for step in steps {
        if db.dialect() == Dialect::MySql {
            one_by_one(db, step).await?;
            continue;
        }
        let mut tx = db.begin().await?;
        for statement in for_dialect(db, step) {
            tx.execute_raw(statement).await?;
        }
        tx.commit().await?;
    }
    Ok(())
}

/// The statements that are for this database.
fn for_dialect(db: &Db, step: &Migration) -> impl Iterator<Item = &'static &'static str> {
    let dialect = db.dialect();
    step.statements.iter().filter(move |text| match dialect {
        Dialect::Sqlite => true,
        Dialect::Postgres => !text.starts_with("{only_sqlite}"),
        Dialect::MySql => !text.starts_with("{only_sqlite}") && !text.starts_with("{not_mysql}"),
    })
}

/// MySQL commits each statement by itself. What an earlier run has done already is no error.
async fn one_by_one(db: &Db, migration: &Migration) -> Result<(), Error> {
    for statement in for_dialect(db, migration) {
        match db.execute_raw(statement).await {
            Err(error) if error.is_done_already() => {}
            other => other?,
        }
    }
    Ok(())
}

async fn apply(db: &Db, component: &str, migration: &Migration) -> Result<(), Error> {
    if db.dialect() == Dialect::MySql {
        one_by_one(db, migration).await?;
        db.execute(MARK, args![component, migration.version])
            .await?;
        return Ok(());
    }
    let mut tx = db.begin().await?;
    if db.dialect() == Dialect::Postgres {
        // Two nodes that start at once: the second one waits, and finds the work done.
        tx.execute("SELECT pg_advisory_xact_lock(5012317)", Vec::new())
            .await?;
    }
    let now = tx
        .fetch_optional(
            "SELECT version FROM schema_version WHERE component = ?",
            args![component],
        )
        .await?;
    if now.map_or(Ok(0), |row| row.u32(0))? >= migration.version {
        return tx.rollback().await;
    }
    for statement in for_dialect(db, migration) {
        tx.execute_raw(statement).await?;
    }
    tx.execute(MARK, args![component, migration.version])
        .await?;
    tx.commit().await
}

/// For a process that only reads: whether the schema is the one it knows.
///
/// # Errors
/// [`Kind::Schema`] if the schema is newer or older; [`Kind::Unavailable`] if it is not there yet.
pub async fn verify(db: &Db, component: &str, migrations: &[Migration]) -> Result<u32, Error> {
    let known = migrations.last().map_or(0, |last| last.version);
    let found = match schema_version(db, component).await {
        Err(error) if error.kind() == Kind::Statement => 0,
        other => other?,
    };
    match found {
        0 => Err(Error::new(
            Kind::Unavailable,
            format!("the schema of {component} is not there yet: its writer must start first"),
        )),
        found if found > known => Err(newer(component, found, known)),
        found if found < known => Err(Error::new(
            Kind::Schema,
            format!(
                "the schema of {component} is version {found}, this program needs {known}: start its writer of this version first"
            ),
        )),
        found => Ok(found),
    }
}

fn newer(component: &str, found: u32, known: u32) -> Error {
    if found == UNFINISHED {
        return Error::new(
            Kind::Schema,
            format!(
                "the tables of {component} are being put back from a backup point, and that is unfinished: run `posthouse schema back` again"
            ),
        );
    }
    Error::new(
        Kind::Schema,
        format!(
            "the schema of {component} is version {found}, this program knows {known}: it was written by a later version of Posthouse"
        ),
    )
}
