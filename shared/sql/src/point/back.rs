//! Putting a point back. The daemon whose tables they are must not run.

use super::rows::{Part, Reader};
use super::{Point, create, local, name_it, row_name, unused};
use crate::migrate::{MARK, UNFINISHED, make, make_table};
use crate::{Db, Error, Kind, Migration, Options, Value, args, dump};
use std::fs::Permissions;
use std::io::{Read, Seek};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

/// Octets of rows in one transaction.
const BATCH: usize = 4 << 20;
/// Rows in one transaction.
const ROWS: usize = 2000;

/// Puts a point in the place of a SQLite file. What was there is kept beside it under another name, which is given. At no
/// moment is there no whole file of the name; can be repeated when it was interrupted.
///
/// # Errors
/// [`Kind::Config`]: the file is no such point. [`Kind::Busy`]: somebody has the database open. Those of the file system.
pub async fn put_file_back(file: &Path, point: &Path) -> Result<Option<PathBuf>, Error> {
    let known = Point::of(point).is_some() && point.extension().is_some_and(|end| end == "db");
    let mut source = std::fs::File::open(point).map_err(|error| local(point, &error))?;
    let mut magic = [0; 16];
    let read = source.read_exact(&mut magic);
    if !known || read.is_err() || magic != *b"SQLite format 3\0" {
        let text = format!(
            "{} is no backup point of a SQLite database",
            point.display()
        );
        return Err(Error::new(Kind::Config, text));
    }
    let part = ended(file, ".part");
    let _ = std::fs::remove_file(&part);
    let mut copy = create(&part)?;
    source
        .rewind()
        .and_then(|()| std::io::copy(&mut source, &mut copy))
        .map_err(|error| local(&part, &error))?;
    let mut aside = None;
    if let Ok(metadata) = std::fs::metadata(file) {
        // Whoever reads the file does so by its mode and its group.
        std::fs::set_permissions(&part, metadata.permissions())
            .and_then(|()| chown(&part, Some(metadata.uid()), Some(metadata.gid())))
            .map_err(|error| local(&part, &error))?;
        empty_wal(file).await?;
        let kept = unused(|time| ended(file, &format!(".before-{time}")));
        std::fs::hard_link(file, &kept).map_err(|error| local(&kept, &error))?;
        aside = Some(kept);
    } else if let Some(Ok(folder)) = file.parent().map(std::fs::metadata) {
        chown(&part, Some(folder.uid()), Some(folder.gid()))
            .and_then(|()| std::fs::set_permissions(&part, Permissions::from_mode(0o640)))
            .map_err(|error| local(&part, &error))?;
    }
    // They are the other file's, and empty.
    for end in ["-wal", "-shm"] {
        let path = ended(file, end);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(local(&path, &error));
            }
            _ => {}
        }
    }
    name_it(&part, file)?;
    Ok(aside)
}

/// Brings everything into the file itself. One that is damaged stays as it is.
async fn empty_wal(file: &Path) -> Result<(), Error> {
    let url = format!("sqlite://{}", file.display());
    let emptied = async {
        let db = Db::open(&url, &Options::writer()).await?;
        let row = db
            .fetch_optional("PRAGMA wal_checkpoint(TRUNCATE)", args![])
            .await?;
        db.close().await;
        row.map_or(Ok(true), |row| row.bool(0))
    };
    match emptied.await {
        Ok(false) => Ok(()),
        Err(error) if error.kind() == Kind::Corrupt => Ok(()),
        Ok(true) => Err(Error::new(
            Kind::Busy,
            format!("{} is in use: stop all daemons first", file.display()),
        )),
        Err(error) => Err(error),
    }
}

fn ended(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    PathBuf::from(name)
}

/// Puts the rows of a point in the place of all that the component's tables have, with the schema of that time. Until it is
/// done no program begins with them; can be repeated when it was interrupted. Gives the version and how many rows there are.
///
/// # Errors
/// [`Kind::Corrupt`]: the file is damaged; then nothing was changed. [`Kind::Config`]: it is another component's, or of a later
/// version than these steps. Those of the database.
pub async fn put_rows_back(
    db: &Db,
    component: &str,
    migrations: &[Migration],
    point: &Path,
) -> Result<(u32, u64), Error> {
    let mut reader = Reader::open(point)?;
    let version = reader.version;
    let known = migrations.last().map_or(0, |last| last.version);
    if reader.component != component || !(1..=known).contains(&version) {
        return Err(Error::new(
            Kind::Config,
            format!(
                "{} is of {} at version {version}, wanted is {component} up to {known}",
                point.display(),
                reader.component
            ),
        ));
    }
    // All of it is looked at before anything is removed.
    while reader.next()?.is_some() {}
    make_table(db, component).await?;
    db.execute(MARK, args![component, UNFINISHED]).await?;
    for table in dump::tables(migrations) {
        db.execute_raw(&format!("DROP TABLE IF EXISTS {table}"))
            .await?;
    }
    let until = migrations.partition_point(|step| step.version <= version);
    let steps = migrations.get(..until).unwrap_or(migrations);
    make(db, steps).await?;
    let rows = fill(db, Reader::open(point)?).await?;
    let text = "DELETE FROM schema_version WHERE component = ?";
    db.execute(text, args![row_name(component)]).await?;
    db.execute(MARK, args![component, version]).await?;
    Ok((version, rows))
}

async fn fill(db: &Db, mut reader: Reader) -> Result<u64, Error> {
    let (mut table, mut columns) = (String::new(), Vec::new());
    let mut values: Vec<Value> = Vec::new();
    let (mut weight, mut count, mut all) = (0, 0, 0);
    loop {
        let part = reader.next()?;
        if let Some(Part::Row(row)) = part {
            weight += row.iter().map(Value::weight).sum::<usize>();
            count += 1;
            all += 1;
            values.extend(row);
            if weight > BATCH || count >= ROWS {
                dump::write(db, &table, &columns, std::mem::take(&mut values)).await?;
                (weight, count) = (0, 0);
            }
            continue;
        }
        if !values.is_empty() {
            dump::write(db, &table, &columns, std::mem::take(&mut values)).await?;
            (weight, count) = (0, 0);
        }
        match part {
            Some(Part::Table(name, of)) => {
                // Steps of the schema may have left a row in a table of counters.
                db.execute(&format!("DELETE FROM {name}"), args![]).await?;
                (table, columns) = (name, of);
            }
            _ => return Ok(all),
        }
    }
}
