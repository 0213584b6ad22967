//! Backup points: a copy of a component's tables, made before its schema is changed.
//!
//! | database | what | how it is put back |
//! |---|---|---|
//! | SQLite | the whole file, by `VACUUM INTO`, beside it: `COMPONENT-schemaVERSION-TIME.db` | [`put_file_back`] |
//! | PostgreSQL, MySQL, MariaDB | the component's rows in a folder of the daemon: `COMPONENT-schemaVERSION-TIME.rows` | [`put_rows_back`] |
//!
//! A point has its name only when all of it is on disk. While a migration is under way a row of `schema_version` says so
//! (`COMPONENT point`), so that one that is killed and gone on with, however often, keeps the one point from before it.
//!
//! SECURITY: a point holds what the tables hold. It is readable for its owner alone.

mod back;
mod rows;

pub use back::{put_file_back, put_rows_back};

use crate::migrate::MARK;
pub use crate::migrate::UNFINISHED;
use crate::{Db, Dialect, Error, Kind, Migration, args};
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// What must be free beside the copy itself: the migration needs room, too. 16 MiB.
pub const RESERVE: u64 = 16 << 20;

/// Where points are kept, and how many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Points {
    /// The folder of those of database servers. Those of SQLite stand beside its file.
    pub folder: PathBuf,
    /// How many are kept of a component; older ones are removed when a new one is complete. 0: none is made.
    pub keep: usize,
}

/// A point that is complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    /// The file.
    pub path: PathBuf,
    /// The component.
    pub component: String,
    /// The version of its schema.
    pub version: u32,
    /// When it was made, UTC: `20260301T120005Z`.
    pub made: String,
}

impl Point {
    /// The point in a file of such a name; `None` if it is not the name of one.
    pub fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        let (stem, kind) = name.rsplit_once('.')?;
        let (front, made) = stem.rsplit_once('-')?;
        let (component, version) = front.rsplit_once("-schema")?;
        let sound = ["db", "rows"].contains(&kind) && made.len() == 16 && !component.is_empty();
        sound.then_some(Self {
            path: path.to_owned(),
            component: component.to_owned(),
            version: version.parse().ok()?,
            made: made.to_owned(),
        })
    }
}

impl Points {
    /// The newest two, in that folder.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, keep: 2 }
    }

    /// The folder in which this database's points stand.
    ///
    /// # Errors
    /// See [`Kind`].
    pub async fn folder_of(&self, db: &Db) -> Result<PathBuf, Error> {
        if db.dialect() != Dialect::Sqlite {
            return Ok(self.folder.clone());
        }
        let file = main_file(db).await?;
        Ok(file.parent().unwrap_or(Path::new("/")).to_owned())
    }

    /// What a point of this database takes, in octets, and what is free where it would be; for a server the first is not
    /// known.
    ///
    /// # Errors
    /// See [`Kind`].
    pub async fn room(&self, db: &Db) -> Result<(Option<u64>, u64), Error> {
        let folder = self.folder_of(db).await?;
        let space = rustix::fs::statvfs(&folder)
            .map_err(|error| local(&folder, &std::io::Error::from(error)))?;
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        if db.dialect() != Dialect::Sqlite {
            return Ok((None, free));
        }
        let pages = "SELECT (SELECT page_count FROM pragma_page_count) - (SELECT freelist_count FROM pragma_freelist_count), \
             (SELECT page_size FROM pragma_page_size)";
        let row = db.fetch_optional(pages, args![]).await?;
        let taken = row.map_or(Ok(0), |row| {
            Ok::<u64, Error>(row.u64(0)?.saturating_mul(row.u64(1)?))
        })?;
        Ok((Some(taken), free))
    }
}

/// The points of a component in a folder, oldest first. A folder that cannot be read has none.
pub fn list(folder: &Path, component: &str) -> Vec<Point> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<Point> = entries
        .filter_map(|entry| Point::of(&entry.path()))
        .filter(|point| point.component == component)
        .collect();
    found.sort_by(|a, b| (&a.made, a.version).cmp(&(&b.made, b.version)));
    found
}

/// Makes a point, unless the migration that is under way has made one before it was interrupted.
pub(crate) async fn take(
    db: &Db,
    component: &str,
    found: u32,
    migrations: &[Migration],
    points: &Points,
) -> Result<(), Error> {
    let folder = points.folder_of(db).await?;
    if let Some(first) = marked(db, component).await?
        && list(&folder, component)
            .iter()
            .any(|point| point.version == first)
    {
        return Ok(());
    }
    remove_parts(&folder, component);
    let (needed, free) = points.room(db).await?;
    if needed.unwrap_or(0).saturating_add(RESERVE) > free {
        return Err(refused(
            Kind::Full,
            &folder,
            &format!(
                "it takes {} MiB, and {} MiB are free",
                (needed.unwrap_or(0) + RESERVE) >> 20,
                free >> 20
            ),
        ));
    }
    let kind = match db.dialect() {
        Dialect::Sqlite => "db",
        Dialect::Postgres | Dialect::MySql => "rows",
    };
    let path = unused(|time| folder.join(format!("{component}-schema{found}-{time}.{kind}")));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let part = folder.join(format!(".{name}.part"));
    let written = match db.dialect() {
        Dialect::Sqlite => copy_file(db, &part).await,
        Dialect::Postgres | Dialect::MySql => {
            let until = migrations.partition_point(|step| step.version <= found);
            let steps = migrations.get(..until).unwrap_or(migrations);
            rows::write(db, component, found, steps, &part).await
        }
    };
    let named = written.and_then(|()| name_it(&part, &path));
    if let Err(error) = named {
        let _ = std::fs::remove_file(&part);
        return Err(refused(error.kind(), &folder, &error.to_string()));
    }
    tracing::info!(component, version = found, point = %path.display(), "backup point made");
    mark(db, component, found).await?;
    let mut all = list(&folder, component);
    all.truncate(all.len().saturating_sub(points.keep.max(1)));
    for old in all {
        if let Err(error) = std::fs::remove_file(&old.path) {
            tracing::warn!(point = %old.path.display(), %error, "an old backup point cannot be removed");
        }
    }
    Ok(())
}

/// The migration is complete: its point is of the past.
pub(crate) async fn done(db: &Db, component: &str) -> Result<(), Error> {
    if marked(db, component).await?.is_some() {
        let text = "DELETE FROM schema_version WHERE component = ?";
        db.execute(text, args![row_name(component)]).await?;
    }
    Ok(())
}

/// The row that is there while a migration is under way.
fn row_name(component: &str) -> String {
    format!("{component} point")
}

async fn marked(db: &Db, component: &str) -> Result<Option<u32>, Error> {
    let text = "SELECT version FROM schema_version WHERE component = ?";
    let row = db.fetch_optional(text, args![row_name(component)]).await?;
    row.map(|row| row.u32(0)).transpose()
}

async fn mark(db: &Db, component: &str, version: u32) -> Result<(), Error> {
    db.execute(MARK, args![row_name(component), version])
        .await?;
    Ok(())
}

async fn main_file(db: &Db) -> Result<PathBuf, Error> {
    let text = "SELECT file FROM pragma_database_list WHERE name = 'main'";
    let row = db.fetch_optional(text, args![]).await?;
    let path = row
        .map(|row| row.text(0).map(str::to_owned))
        .transpose()?
        .unwrap_or_default();
    Ok(PathBuf::from(path))
}

/// All of the file as it is at one moment. SQLite does not sync it: that is done before it gets its name.
async fn copy_file(db: &Db, part: &Path) -> Result<(), Error> {
    drop(create(part)?);
    let path = part.to_str();
    let path = path.ok_or_else(|| Error::new(Kind::Config, "the path is not UTF-8"))?;
    db.execute("VACUUM INTO ?", args![path]).await?;
    Ok(())
}

/// An empty file that only its owner can read.
pub(crate) fn create(path: &Path) -> Result<File, Error> {
    let file = std::fs::OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(path);
    file.map_err(|error| local(path, &error))
}

/// Gives a file its name once all of it is on disk.
pub(crate) fn name_it(part: &Path, path: &Path) -> Result<(), Error> {
    let named = File::open(part)
        .and_then(|file| file.sync_all())
        .and_then(|()| std::fs::rename(part, path))
        .and_then(|()| File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all());
    named.map_err(|error| local(path, &error))
}

/// What a killed attempt has left.
fn remove_parts(folder: &Path, component: &str) {
    let begin = format!(".{component}-schema");
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(&begin)
            && [".part", ".part-journal"]
                .iter()
                .any(|end| name.ends_with(end))
        {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

fn refused(kind: Kind, folder: &Path, why: &str) -> Error {
    Error::new(
        kind,
        format!(
            "the schema is older than this program and was left as it is, because no backup point could be made in {}: {why}. \
             Make room there, or, for the mail store and if you have a backup, set stored.backup_points = 0",
            folder.display()
        ),
    )
}

pub(crate) fn local(path: &Path, error: &std::io::Error) -> Error {
    use std::io::ErrorKind::{PermissionDenied, QuotaExceeded, StorageFull};
    let kind = match error.kind() {
        StorageFull | QuotaExceeded => Kind::Full,
        PermissionDenied => Kind::Denied,
        _ => Kind::Unavailable,
    };
    Error::new(kind, format!("{}: {error}", path.display()))
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// A path with the time of now; if that is taken, with the next second that is not: what has its name is never replaced.
pub(crate) fn unused(path: impl Fn(&str) -> PathBuf) -> PathBuf {
    let mut time = now();
    loop {
        let path = path(&stamp(time));
        if !path.exists() {
            return path;
        }
        time += 1;
    }
}

/// `20260301T120005Z`
pub(crate) fn stamp(seconds: u64) -> String {
    types::moment::date_time(seconds).replace(['-', ':'], "")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn times_are_written_out() {
        assert_eq!(stamp(0), "19700101T000000Z");
        assert_eq!(stamp(1_790_000_000), "20260921T141320Z");
        assert_eq!(stamp(951_782_400), "20000229T000000Z");
        assert_eq!(stamp(4_107_542_399), "21000228T235959Z");
        assert_eq!(stamp(4_107_542_400), "21000301T000000Z");
    }

    #[test]
    fn a_name_that_is_taken_is_not_given_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut made: Vec<Point> = Vec::new();
        for count in 1..=3 {
            let path = unused(|time| folder.path().join(format!("mail-schema1-{time}.db")));
            std::fs::write(&path, count.to_string()).unwrap();
            made.push(Point::of(&path).unwrap());
        }
        assert_eq!(list(folder.path(), "mail"), made);
    }

    #[test]
    fn names_tell_component_version_and_time() {
        let point = Point::of(Path::new("/x/mail-schema12-20260921T141320Z.db")).unwrap();
        assert_eq!((point.component.as_str(), point.version), ("mail", 12));
        assert_eq!(point.made, "20260921T141320Z");
        for other in [
            "mail.db",
            ".mail-schema1-20260921T141320Z.db.part",
            "mail-schema1-x.db",
            "mail-schemax-20260921T141320Z.db",
            "mail-schema1-20260921T141320Z.txt",
            "-schema1-20260921T141320Z.db",
        ] {
            assert_eq!(Point::of(Path::new(other)), None, "{other}");
        }
    }
}
