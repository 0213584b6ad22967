//! `posthouse backup`: the rows as they are at one moment, and the bodies that they name.
//!
//! Bodies first, while the store goes on: that takes long, and may be killed and gone on with. Then, in one transaction that
//! only reads, the rows and the few bodies that came meanwhile.

use super::manifest::{
    BODIES, Component, FILE, FORMAT, Manifest, Piece, Table, create, failed, generations,
    make_folder, sync_folder,
};
use super::pack::Packs;
use super::rows;
use crate::failure::Failure;
use crate::mailstore::MailStore;
use crate::progress::Progress;
use crate::time;
use sql::dump::{self, Column, Digest};
use sql::{Db, Migration, Options, Tx, Value, args};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use types::BlobId;

/// Bodies that are looked at together.
const PAGE: u32 = 500;
/// How often the rows are read again because a body went away meanwhile.
const TRIES: u32 = 5;
/// Of the table of bodies: the packs have it.
pub(crate) const DATA: (&str, &str) = ("body", "data");

/// A body's row.
struct Row {
    id: i64,
    hash: [u8; 32],
    size: u64,
    inline: bool,
}

/// The bodies of a store on their way into packs.
pub(crate) struct Copier {
    blobs: Arc<blob::Blobs>,
    packs: Packs,
    /// Those that cannot be read, by their hash.
    damaged: BTreeMap<[u8; 32], String>,
    copied: u64,
}

/// What a backup did.
pub(crate) struct Taken {
    /// The new generation.
    pub(crate) generation: PathBuf,
    /// What it has.
    pub(crate) manifest: Manifest,
    /// Bodies that earlier generations did not have.
    pub(crate) copied: u64,
    /// Why bodies could not be read.
    pub(crate) damaged: Vec<String>,
}

/// Makes a generation.
pub(crate) async fn take(
    store: &MailStore,
    dir: &Path,
    hostname: &str,
    keys: bool,
    json: bool,
) -> Result<Taken, Failure> {
    make_folder(dir)?;
    for (path, complete) in generations(dir)? {
        if !complete {
            // Its rows are of a moment that is gone; its bodies stay.
            std::fs::remove_dir_all(&path).map_err(|error| failed(&path, error))?;
        }
    }
    let mail = store.tables(&Options::reader()).await?;
    sql::verify(&mail, store::COMPONENT, store::MIGRATIONS).await?;
    let directory = store.directory(&Options::reader()).await?;
    sql::verify(&directory, authd::COMPONENT, authd::MIGRATIONS).await?;
    let mut copier = Copier {
        blobs: store.bodies()?,
        packs: Packs::open_writer(&dir.join(BODIES))?,
        damaged: BTreeMap::new(),
        copied: 0,
    };
    let count = mail
        .fetch_optional("SELECT COUNT(*) FROM body", args![])
        .await?;
    let count = count.map_or(Ok(0), |row| row.u64(0))?;
    let progress = Progress::new(json, "bodies", count);
    copier.all(&mail, &progress).await?;
    copier.packs.close()?;
    progress.end();

    let mut taken = time::now();
    let mut generation = dir.join(compact(taken));
    // Names have seconds. A complete generation of this very second stays as it is.
    while generation.exists() {
        tokio::time::sleep(Duration::from_millis(100)).await;
        taken = time::now();
        generation = dir.join(compact(taken));
    }
    make_folder(&generation)?;
    let (component, bodies, body_bytes) = mail_rows(&mail, &generation, &mut copier).await?;
    // The directory afterwards: an account whose mail is not there yet is empty, mail without its account is nobody's.
    let mut snapshot = directory.snapshot().await?;
    let (of_directory, _) = tables(
        &mut snapshot,
        authd::COMPONENT,
        authd::MIGRATIONS,
        &generation,
        |_, _| Ok(()),
    )
    .await?;
    snapshot.commit().await?;
    copier.packs.close()?;
    let keys = match keys {
        true => copy_keys(&store.keys_dir(), &generation)?,
        false => Vec::new(),
    };
    let manifest = Manifest {
        format: FORMAT,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        hostname: hostname.to_owned(),
        taken,
        components: vec![component, of_directory],
        bodies,
        body_bytes,
        damaged: copier
            .damaged
            .keys()
            .map(|hash| BlobId(*hash).to_string())
            .collect(),
        packs: copier.packs.pieces()?,
        keys,
    };
    sync_folder(&generation.join(FILE)).map_err(|error| failed(&generation, error))?;
    manifest.write(&generation)?;
    sync_folder(&generation).map_err(|error| failed(&generation, error))?;
    mail.close().await;
    directory.close().await;
    Ok(Taken {
        generation,
        manifest,
        copied: copier.copied,
        damaged: copier.damaged.into_values().collect(),
    })
}

/// `20260301T120005Z`
fn compact(seconds: u64) -> String {
    time::utc(seconds)
        .chars()
        .filter_map(|c| match c {
            '-' | ':' => None,
            ' ' => Some('T'),
            c => Some(c),
        })
        .collect()
}

/// The store's rows of one moment, and with them all bodies that they name.
async fn mail_rows(
    mail: &Db,
    generation: &Path,
    copier: &mut Copier,
) -> Result<(Component, u64, u64), Failure> {
    for _ in 0..TRIES {
        let mut snapshot = mail.snapshot().await?;
        let mut missing = Vec::new();
        let (mut count, mut bytes) = (0, 0);
        let packs = &copier.packs;
        let damaged = &copier.damaged;
        let (component, _) = tables(
            &mut snapshot,
            store::COMPONENT,
            store::MIGRATIONS,
            generation,
            |table, row| {
                if table != DATA.0 {
                    return Ok(());
                }
                let body = Row::of(row)?;
                count += 1;
                bytes += body.size;
                if !packs.has(&body.hash) && !damaged.contains_key(&body.hash) {
                    missing.push(body);
                }
                Ok(())
            },
        )
        .await?;
        let mut gone = BTreeSet::new();
        for body in &missing {
            // Whether it lies outside is not known from the row's file: ask.
            let inline = snapshot
                .fetch_optional("SELECT data FROM body WHERE id = ?", args![body.id])
                .await?;
            let data = match &inline {
                Some(row) => row.blob_opt(0)?.map(<[u8]>::to_vec),
                None => None,
            };
            if !copier.copy(body, data).await? {
                gone.insert(body.hash);
            }
        }
        snapshot.commit().await?;
        // A body outside that was collected after the rows were read: read them again. One that nobody collected is lost.
        let mut collected = false;
        for body in missing.iter().filter(|body| gone.contains(&body.hash)) {
            let still = mail
                .fetch_optional("SELECT id FROM body WHERE id = ?", args![body.id])
                .await?;
            match still {
                Some(_) => {
                    let text = format!("{} is not there", BlobId(body.hash));
                    copier.damaged.insert(body.hash, text);
                }
                None => collected = true,
            }
        }
        if !collected {
            return Ok((component, count, bytes));
        }
    }
    Err(Failure::new(
        "bodies are removed faster than they can be copied: try again later",
    ))
}

/// Writes the tables of a schema.
async fn tables(
    snapshot: &mut Tx,
    name: &str,
    migrations: &[Migration],
    generation: &Path,
    mut look: impl FnMut(&str, &[Value]) -> Result<(), Failure>,
) -> Result<(Component, u64), Failure> {
    let version = snapshot
        .fetch_optional(
            "SELECT version FROM schema_version WHERE component = ?",
            args![name],
        )
        .await?;
    let schema = version.map_or(Ok(0), |row| row.u32(0))?;
    let mut written = Vec::new();
    let mut all = 0;
    for table in dump::tables(migrations) {
        let columns = kept(&table, dump::columns(snapshot, &table).await?);
        if columns.is_empty() {
            continue;
        }
        let mut writer = rows::Writer::create(generation, format!("{name}.{table}.rows"))?;
        dump::read(snapshot, &table, &columns, |row| {
            look(&table, &row)?;
            writer.put(&row)
        })
        .await?;
        let (piece, digest) = writer.finish()?;
        all += digest.rows;
        written.push(Table {
            columns: columns
                .iter()
                .map(|column| (column.name.clone(), column.kind.name().to_owned()))
                .collect(),
            rows: digest.rows,
            digest: digest.hex(),
            piece,
            name: table,
        });
    }
    let component = Component {
        name: name.to_owned(),
        schema,
        tables: written,
    };
    Ok((component, all))
}

/// A table's columns without the bodies themselves; those of the table of bodies in a known order.
fn kept(table: &str, columns: Vec<Column>) -> Vec<Column> {
    let mut kept: Vec<Column> = columns
        .into_iter()
        .filter(|column| (table, column.name.as_str()) != DATA)
        .collect();
    if table == DATA.0 {
        let rank = |name: &str| match name {
            "id" => 0,
            "hash" => 1,
            "size" => 2,
            _ => 3,
        };
        kept.sort_by_key(|column| rank(&column.name));
    }
    kept
}

/// The sum over a table as it is now.
pub(crate) async fn digest(snapshot: &mut Tx, table: &Table) -> Result<Digest, Failure> {
    let mut digest = Digest::default();
    dump::read(snapshot, &table.name, &table.columns()?, |row| {
        digest.add(&row);
        Ok::<(), Failure>(())
    })
    .await?;
    Ok(digest)
}

impl Row {
    fn of(row: &[Value]) -> Result<Self, Failure> {
        let odd = || Failure::check("the table of bodies has a row that makes no sense");
        let [Value::Int(id), Value::Blob(hash), Value::Int(size), ..] = row else {
            return Err(odd());
        };
        Ok(Self {
            id: *id,
            hash: hash.as_slice().try_into().map_err(|_| odd())?,
            size: size.cast_unsigned(),
            inline: true,
        })
    }
}

/// The hash of a row of the table of bodies.
pub(crate) fn hash_of(row: &[Value]) -> Result<[u8; 32], Failure> {
    Row::of(row).map(|row| row.hash)
}

impl Copier {
    /// All bodies of now that are in no pack.
    async fn all(&mut self, mail: &Db, progress: &Progress) -> Result<(), Failure> {
        let mut after = i64::MIN;
        loop {
            let text = format!(
                "SELECT id, hash, size, CASE WHEN data IS NULL THEN 0 ELSE 1 END FROM body WHERE id > ? ORDER BY id LIMIT {PAGE}"
            );
            let found = mail.fetch_all(&text, args![after]).await?;
            let mut page = Vec::with_capacity(found.len());
            for row in &found {
                let hash = row.blob(1)?.try_into();
                page.push(Row {
                    id: row.int(0)?,
                    hash: hash.map_err(|_| Failure::check("a body's hash has another length"))?,
                    size: row.u64(2)?,
                    inline: row.bool(3)?,
                });
            }
            let Some(last) = page.last() else {
                return Ok(());
            };
            after = last.id;
            for body in &page {
                if !self.packs.has(&body.hash) {
                    let data = match body.inline {
                        true => {
                            let row = mail
                                .fetch_optional(
                                    "SELECT data FROM body WHERE id = ?",
                                    args![body.id],
                                )
                                .await?;
                            match &row {
                                Some(row) => row.blob_opt(0)?.map(<[u8]>::to_vec),
                                // Gone meanwhile.
                                None => continue,
                            }
                        }
                        false => None,
                    };
                    self.copy(body, data).await?;
                }
                progress.add(1);
            }
        }
    }

    /// Copies one, from its row or from outside. False: it is not there.
    async fn copy(&mut self, body: &Row, data: Option<Vec<u8>>) -> Result<bool, Failure> {
        let stored = match data {
            Some(data) => {
                let sound = blob::decode(&data, usize::MAX >> 1)
                    .is_ok_and(|octets| blob::id_of(&octets).0 == body.hash);
                if !sound {
                    let text = format!("{} is damaged in its row", BlobId(body.hash));
                    self.damaged.insert(body.hash, text);
                    return Ok(true);
                }
                data
            }
            None => match self.blobs.get(BlobId(body.hash)).await {
                Ok(octets) => blob::encode(&octets, 3),
                Err(blob::BlobError::NotFound(_)) => return Ok(false),
                Err(blob::BlobError::Damaged(_, why)) => {
                    let text = format!("{}: {why}", BlobId(body.hash));
                    self.damaged.insert(body.hash, text);
                    return Ok(true);
                }
                Err(error) => return Err(error.into()),
            },
        };
        self.packs.put(body.hash, &stored)?;
        self.copied += 1;
        Ok(true)
    }
}

/// keyd's files, readable by their owner only, with their names.
fn copy_keys(from: &Path, generation: &Path) -> Result<Vec<Piece>, Failure> {
    let mut pieces = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let source = from.join(&folder);
        let target = generation.join("keys").join(&folder);
        make_folder(&target)?;
        for entry in std::fs::read_dir(&source).map_err(|error| failed(&source, error))? {
            let entry = entry.map_err(|error| failed(&source, error))?;
            let path = folder.join(entry.file_name());
            let kind = entry.file_type().map_err(|error| failed(&source, error))?;
            if kind.is_dir() {
                folders.push(path);
                continue;
            }
            // Half-written ones begin with a dot.
            if !kind.is_file() || entry.file_name().to_string_lossy().starts_with('.') {
                continue;
            }
            let content = std::fs::read(entry.path()).map_err(|error| failed(&path, error))?;
            let target = generation.join("keys").join(&path);
            let mut file = create(&target).map_err(|error| failed(&target, error))?;
            file.write_all(&content)
                .and_then(|()| file.sync_all())
                .map_err(|error| failed(&target, error))?;
            pieces.push(Piece::of(generation, &format!("keys/{}", path.display()))?);
        }
    }
    pieces.sort_by(|a, b| a.file.cmp(&b.file));
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use super::compact;

    #[test]
    fn generations_are_named_by_their_time() {
        assert_eq!(compact(1_790_000_000), "20260921T141320Z");
    }
}
