//! `posthouse restore`: a generation into an empty store, table by table, and the comparison afterwards.

use super::manifest::{BODIES, Component, Manifest, Table, failed, write_whole};
use super::pack::Packs;
use super::rows;
use super::take::{DATA, digest, hash_of};
use crate::failure::Failure;
use crate::mailstore::MailStore;
use crate::progress::Progress;
use serde::{Deserialize, Serialize};
use sql::dump::{self, Column, ColumnKind};
use sql::{Db, Migration, Options, Value, args};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use types::{BlobId, Role};

/// Octets of rows in one transaction.
const BATCH: usize = 4 << 20;
/// Rows in one transaction.
const ROWS: usize = 2000;
/// The file that says how far a restore is; it is there while one is under way.
const MARKER: &str = "restore.json";

/// How far a restore is.
#[derive(Default, Serialize, Deserialize)]
struct Marker {
    /// Of which generation.
    generation: PathBuf,
    /// The target was found empty.
    checked: bool,
    /// Tables that are complete, as `component.table`.
    done: BTreeSet<String>,
}

/// A restore.
pub(crate) struct Restorer<'a> {
    /// Where to.
    pub(crate) store: &'a MailStore,
    /// The generation's folder.
    pub(crate) generation: &'a Path,
    /// What it has.
    pub(crate) manifest: &'a Manifest,
    /// No progress on standard error.
    pub(crate) json: bool,
}

impl Restorer<'_> {
    fn packs(&self) -> Result<Packs, Failure> {
        let dir = self.generation.parent().unwrap_or(Path::new("."));
        Packs::open(&dir.join(BODIES))
    }

    /// The schemas with the databases that they go to.
    async fn parts(&self) -> Result<Vec<(&Component, &'static [Migration], Db)>, Failure> {
        let mut parts = Vec::new();
        for component in &self.manifest.components {
            let (migrations, db) = match component.name.as_str() {
                store::COMPONENT => (
                    store::MIGRATIONS,
                    self.store.tables(&Options::writer()).await?,
                ),
                authd::COMPONENT => (
                    authd::MIGRATIONS,
                    self.store.directory(&Options::writer()).await?,
                ),
                other => {
                    return Err(Failure::new(format!(
                        "the backup has a part that this program does not know: {other}"
                    )));
                }
            };
            let known = migrations.last().map_or(0, |last| last.version);
            if component.schema > known {
                return Err(Failure::new(format!(
                    "the backup's schema of {} is version {}, this program knows {known}",
                    component.name, component.schema
                )));
            }
            parts.push((component, migrations, db));
        }
        Ok(parts)
    }

    /// All of it, from where an earlier run was cut off.
    pub(crate) async fn run(&self) -> Result<u64, Failure> {
        let dir = &self.store.state_dir;
        std::fs::create_dir_all(dir).map_err(|error| failed(dir, error))?;
        let path = dir.join(MARKER);
        // Noted before the first file is made: whatever is there later is of this restore.
        let mut marker = self.marker(&path)?;
        self.note(&path, &marker)?;
        for role in [Role::Stored, Role::Authd, Role::Keyd] {
            let below = ipc::topology::daemon(role).map_or("", |daemon| &daemon.state);
            let folder = dir.join(below);
            std::fs::create_dir_all(&folder).map_err(|error| failed(&folder, error))?;
        }
        let parts = self.parts().await?;
        if !marker.checked {
            if let Err(failure) = self.refuse_mail(&parts).await {
                for (_, _, db) in parts {
                    db.close().await;
                }
                self.clear(&path)?;
                return Err(failure);
            }
            marker.checked = true;
            self.note(&path, &marker)?;
        }
        let packs = self.packs()?;
        let all = self.tables().map(|table| table.rows).sum();
        let progress = Progress::new(self.json, "rows", all);
        for (component, migrations, db) in &parts {
            let until = migrations.partition_point(|step| step.version <= component.schema);
            let steps = migrations.get(..until).unwrap_or(migrations);
            sql::migrate(db, &component.name, steps).await?;
            for table in &component.tables {
                let name = format!("{}.{}", component.name, table.name);
                if !marker.done.contains(&name) {
                    self.fill(db, table, &packs, &progress).await?;
                    marker.done.insert(name);
                    self.note(&path, &marker)?;
                } else {
                    progress.add(table.rows);
                }
            }
        }
        progress.end();
        self.keys()?;
        let compared = self.compare(&parts).await?;
        for (component, migrations, db) in parts {
            sql::migrate(&db, &component.name, migrations).await?;
            db.close().await;
        }
        Ok(compared)
    }

    /// Nothing is left to do.
    pub(crate) fn finish(&self) -> Result<(), Failure> {
        let path = self.store.state_dir.join(MARKER);
        std::fs::remove_file(&path).map_err(|error| failed(&path, error))
    }

    fn tables(&self) -> impl Iterator<Item = &Table> {
        self.manifest
            .components
            .iter()
            .flat_map(|component| &component.tables)
    }

    fn marker(&self, path: &Path) -> Result<Marker, Failure> {
        let text = match std::fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                self.refuse_files()?;
                return Ok(Marker {
                    generation: self.generation.to_owned(),
                    ..Marker::default()
                });
            }
            Err(error) => return Err(failed(path, error)),
        };
        let marker: Marker = serde_json::from_slice(&text).map_err(|error| failed(path, error))?;
        if marker.generation != self.generation {
            return Err(Failure::new(format!(
                "a restore of {} is unfinished here ({}): finish that one first, or empty the state directory",
                marker.generation.display(),
                path.display()
            )));
        }
        Ok(marker)
    }

    fn note(&self, path: &Path, marker: &Marker) -> Result<(), Failure> {
        let text = serde_json::to_vec(marker).map_err(|error| failed(path, error))?;
        write_whole(path, &text)
    }

    /// Takes back what was made before a database was found not to be empty.
    fn clear(&self, marker: &Path) -> Result<(), Failure> {
        for below in ["store", "directory"] {
            let folder = self.store.state_dir.join(below);
            for entry in std::fs::read_dir(&folder).map_err(|error| failed(&folder, error))? {
                let path = entry.map_err(|error| failed(&folder, error))?.path();
                if path.is_file() {
                    std::fs::remove_file(&path).map_err(|error| failed(&path, error))?;
                }
            }
        }
        std::fs::remove_file(marker).map_err(|error| failed(marker, error))
    }

    /// Files of a store, a directory or keys are no empty target.
    fn refuse_files(&self) -> Result<(), Failure> {
        for below in ["store", "directory", "keys"] {
            let folder = self.store.state_dir.join(below);
            let Ok(mut entries) = std::fs::read_dir(&folder) else {
                continue;
            };
            if let Some(Ok(entry)) = entries.next() {
                return Err(Failure::new(format!(
                    "{} is not empty ({} is there): restore puts a backup on an empty machine only",
                    folder.display(),
                    entry.file_name().to_string_lossy()
                )));
            }
        }
        Ok(())
    }

    /// Neither are rows in a database server.
    async fn refuse_mail(
        &self,
        parts: &[(&Component, &'static [Migration], Db)],
    ) -> Result<(), Failure> {
        for (component, migrations, db) in parts {
            let mut snapshot = db.snapshot().await?;
            for table in dump::tables(migrations) {
                if dump::columns(&mut snapshot, &table).await?.is_empty() {
                    continue;
                }
                // Steps of the schema themselves may have left a row in a table of counters.
                let text = format!("SELECT 1 FROM {table} LIMIT 1");
                let some = snapshot.fetch_optional(&text, args![]).await?;
                if some.is_some() && !table.contains("counter") {
                    return Err(Failure::new(format!(
                        "the database of {} is not empty (its table {table} has rows)",
                        component.name
                    )));
                }
            }
            snapshot.commit().await?;
        }
        Ok(())
    }

    /// Empties a table and fills it.
    async fn fill(
        &self,
        db: &Db,
        table: &Table,
        packs: &Packs,
        progress: &Progress,
    ) -> Result<(), Failure> {
        table.piece.check(self.generation)?;
        db.execute(&format!("DELETE FROM {}", table.name), args![])
            .await?;
        let mut columns = table.columns()?;
        let bodies = if table.name == DATA.0 {
            columns.push(Column {
                name: DATA.1.to_owned(),
                kind: ColumnKind::Blob,
            });
            let config = &self.store.blobs;
            Some((
                blob::Blobs::open_writer(config, &self.store.store_dir())?,
                config.inline_max,
                config.zstd_level,
            ))
        } else {
            None
        };
        let mut reader =
            rows::Reader::open(self.generation, &table.piece.file, table.columns.len())?;
        while let Some(rows) = reader.next()? {
            let mut values: Vec<Value> = Vec::new();
            let mut weight = 0;
            let mut count = 0;
            for mut row in rows {
                if let Some((blobs, inline_max, level)) = &bodies {
                    let data = place(&row, packs, blobs, *inline_max, *level).await?;
                    row.push(data);
                }
                weight += row.iter().map(Value::weight).sum::<usize>();
                count += 1;
                values.extend(row);
                if weight > BATCH || count >= ROWS {
                    dump::write(db, &table.name, &columns, std::mem::take(&mut values)).await?;
                    progress.add(count as u64);
                    (weight, count) = (0, 0);
                }
            }
            if !values.is_empty() {
                dump::write(db, &table.name, &columns, values).await?;
                progress.add(count as u64);
            }
        }
        Ok(())
    }

    /// keyd's files, for it alone.
    fn keys(&self) -> Result<(), Failure> {
        for piece in &self.manifest.keys {
            piece.check(self.generation)?;
            let Some(name) = piece.file.strip_prefix("keys/") else {
                return Err(Failure::check(format!("{} is no key", piece.file)));
            };
            let target = self.store.keys_dir().join(name);
            if let Some(parent) = target.parent() {
                super::manifest::make_folder(parent)?;
            }
            let source = self.generation.join(&piece.file);
            let content = std::fs::read(&source).map_err(|error| failed(&source, error))?;
            write_whole(&target, &content)?;
        }
        Ok(())
    }

    /// All rows and all bodies, as they are now, with the backup. How many bodies were read.
    async fn compare(
        &self,
        parts: &[(&Component, &'static [Migration], Db)],
    ) -> Result<u64, Failure> {
        let blobs = self.store.bodies()?;
        let damaged: BTreeSet<&String> = self.manifest.damaged.iter().collect();
        let progress = Progress::new(self.json, "bodies compared", self.manifest.bodies);
        let mut compared = 0;
        for (component, _, db) in parts {
            for table in &component.tables {
                let mut snapshot = db.snapshot().await?;
                let found = digest(&mut snapshot, table).await?;
                snapshot.commit().await?;
                if !table.is(&found) {
                    return Err(Failure::check(format!(
                        "{}.{} has {} rows that are not those of the backup ({})",
                        component.name, table.name, found.rows, table.rows
                    )));
                }
            }
            if component.name != store::COMPONENT {
                continue;
            }
            let mut after = i64::MIN;
            loop {
                let text = "SELECT id, hash, data FROM body WHERE id > ? ORDER BY id LIMIT 200";
                let rows = db.fetch_all(text, args![after]).await?;
                let Some(last) = rows.last() else { break };
                after = last.int(0)?;
                for row in &rows {
                    let hash = BlobId(
                        row.blob(1)?
                            .try_into()
                            .map_err(|_| Failure::check("a body's hash has another length"))?,
                    );
                    let sound = match row.blob_opt(2)? {
                        Some(data) => blob::decode(data, usize::MAX >> 1)
                            .is_ok_and(|octets| blob::id_of(&octets) == hash),
                        None => blobs.verify(hash).await.is_ok(),
                    };
                    if !sound && !damaged.contains(&hash.to_string()) {
                        return Err(Failure::check(format!("the body {hash} is not as it was")));
                    }
                    compared += 1;
                }
                progress.add(rows.len() as u64);
            }
        }
        progress.end();
        Ok(compared)
    }
}

/// Puts a body where the configuration wants it; gives what stands in its row.
async fn place(
    row: &[Value],
    packs: &Packs,
    blobs: &blob::Blobs,
    inline_max: usize,
    level: i32,
) -> Result<Value, Failure> {
    let hash = hash_of(row)?;
    // One that could not be read when the backup was made is as missing as it was.
    let Some(octets) = packs.get(&hash)? else {
        return Ok(Value::Null);
    };
    if octets.len() <= inline_max {
        return Ok(Value::Blob(blob::encode(&octets, level)));
    }
    blobs.put(&octets).await?;
    Ok(Value::Null)
}

/// Gives what root has made to the accounts of the daemons, where they have such.
pub(crate) fn give_to_daemons(store: &MailStore, users: runtime::UsersMode) -> Result<(), Failure> {
    if users == runtime::UsersMode::Single || !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    for role in [Role::Stored, Role::Authd, Role::Keyd] {
        let Some(daemon) = ipc::topology::daemon(role) else {
            continue;
        };
        let ids = passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            (fields.next()? == daemon.user).then_some(())?;
            let uid = fields.nth(1)?.parse().ok()?;
            Some((uid, fields.next()?.parse().ok()?))
        });
        let Some((uid, gid)) = ids else {
            if users == runtime::UsersMode::Auto {
                return Ok(());
            }
            let text = format!("there is no account {} in /etc/passwd", daemon.user);
            return Err(Failure::new(text));
        };
        let mut left = vec![store.state_dir.join(&daemon.state)];
        while let Some(path) = left.pop() {
            std::os::unix::fs::lchown(&path, Some(uid), Some(gid))
                .map_err(|error| failed(&path, error))?;
            if path.is_dir() {
                for entry in std::fs::read_dir(&path).map_err(|error| failed(&path, error))? {
                    left.push(entry.map_err(|error| failed(&path, error))?.path());
                }
            }
        }
    }
    Ok(())
}
