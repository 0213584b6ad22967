//! `posthouse backup`, `verify`, `restore`: the whole store, the directory and the keys.

mod manifest;
mod pack;
mod put;
mod rows;
mod take;

use crate::cli::{Backup, Restore, Verify};
use crate::command::status::daemons;
use crate::connect::{Place, Suite};
use crate::failure::Failure;
use crate::mailstore::MailStore;
use crate::output;
use crate::progress::Progress;
use crate::time;
use manifest::{BODIES, Manifest};
use put::Restorer;
use serde_json::json;
use std::path::Path;

/// `posthouse backup DIR`
pub(crate) async fn back_up(suite: &Suite, place: &Place, options: Backup) -> Result<(), Failure> {
    let store = MailStore::of(place)?;
    let taken = take::take(
        &store,
        &options.folder,
        &suite.hostname,
        !options.no_keys,
        suite.json,
    )
    .await?;
    let manifest = &taken.manifest;
    let rows: u64 = rows_of(manifest);
    let text = format!(
        "{}: {rows} rows, {} bodies ({}), {} of them new.",
        taken.generation.display(),
        manifest.bodies,
        output::bytes(manifest.body_bytes, "0 B"),
        taken.copied,
    );
    let value = json!({
        "generation": taken.generation,
        "taken": manifest.taken,
        "rows": rows,
        "bodies": manifest.bodies,
        "body_bytes": manifest.body_bytes,
        "copied": taken.copied,
        "keys": manifest.keys.len(),
        "damaged": taken.damaged,
    });
    output::done(suite.json, &text, &value);
    for line in &taken.damaged {
        eprintln!("posthouse: body {line}");
    }
    match taken.damaged.len() {
        0 => Ok(()),
        count => Err(Failure::check(format!(
            "{count} bodies could not be read and are not in the backup; all else is (`posthouse fsck --bodies`)"
        ))),
    }
}

fn rows_of(manifest: &Manifest) -> u64 {
    let tables = manifest.components.iter().flat_map(|one| &one.tables);
    tables.map(|table| table.rows).sum()
}

/// `posthouse verify DIR`
pub(crate) async fn verify(place: &Place, json: bool, options: Verify) -> Result<(), Failure> {
    let (generation, manifest) = manifest::choose(&options.folder, options.generation.as_deref())?;
    pieces(&options.folder, &generation, &manifest, json)?;
    let bodies = bodies(&options.folder, &generation, &manifest, json)?;
    let mut restored = false;
    if let Some(scratch) = &options.scratch {
        let state_dir =
            std::path::absolute(scratch).map_err(|error| manifest::failed(scratch, error))?;
        if state_dir.exists() {
            return Err(Failure::new(format!(
                "{} exists: name a folder that can be made and removed",
                scratch.display()
            )));
        }
        manifest::make_folder(&state_dir)?;
        let store = MailStore::of(place)?.scratch(state_dir.clone());
        let restorer = Restorer {
            store: &store,
            generation: &generation,
            manifest: &manifest,
            json,
        };
        let result = restorer.run().await;
        std::fs::remove_dir_all(&state_dir).map_err(|error| manifest::failed(&state_dir, error))?;
        result?;
        restored = true;
    }
    let text = format!(
        "{} of {} is sound: {} rows, {bodies} bodies{}.",
        generation.display(),
        time::utc(manifest.taken),
        rows_of(&manifest),
        if restored {
            ", restored and compared"
        } else {
            ""
        },
    );
    let value = json!({
        "generation": generation,
        "taken": manifest.taken,
        "rows": rows_of(&manifest),
        "bodies": bodies,
        "restored": restored,
        "damaged": manifest.damaged,
    });
    output::done(json, &text, &value);
    match manifest.damaged.len() {
        0 => Ok(()),
        count => Err(Failure::check(format!(
            "{count} bodies were damaged in the store already when the backup was made"
        ))),
    }
}

/// Every file is what was written.
fn pieces(dir: &Path, generation: &Path, manifest: &Manifest, json: bool) -> Result<(), Failure> {
    let tables = manifest.components.iter().flat_map(|one| &one.tables);
    let here: Vec<_> = tables
        .map(|table| &table.piece)
        .chain(&manifest.keys)
        .collect();
    let all = here.len() + manifest.packs.len();
    let progress = Progress::new(json, "files", all as u64);
    for piece in here {
        piece.check(generation)?;
        progress.add(1);
    }
    for piece in &manifest.packs {
        piece.check(&dir.join(BODIES))?;
        progress.add(1);
    }
    progress.end();
    Ok(())
}

/// Every body that a row names is there, and is what its hash says; every table has its rows.
fn bodies(dir: &Path, generation: &Path, manifest: &Manifest, json: bool) -> Result<u64, Failure> {
    let packs = pack::Packs::open(&dir.join(BODIES))?;
    let progress = Progress::new(json, "rows", rows_of(manifest));
    let mut count = 0;
    for table in manifest.components.iter().flat_map(|one| &one.tables) {
        let mut digest = sql::dump::Digest::default();
        let file = &table.piece.file;
        let mut reader = rows::Reader::open(generation, file, table.columns.len())?;
        while let Some(rows) = reader.next()? {
            for row in &rows {
                digest.add(row);
                if table.name == take::DATA.0 {
                    let hash = take::hash_of(row)?;
                    let name = types::BlobId(hash).to_string();
                    match packs.get(&hash)? {
                        Some(_) => count += 1,
                        None if manifest.damaged.contains(&name) => {}
                        None => {
                            return Err(Failure::check(format!("the body {name} is missing")));
                        }
                    }
                }
            }
            progress.add(rows.len() as u64);
        }
        if !table.is(&digest) {
            return Err(Failure::check(format!(
                "the rows of {} are not those that were counted",
                table.name
            )));
        }
    }
    progress.end();
    Ok(count)
}

/// What writes the tables itself cannot do so beside the daemons.
pub(crate) fn refuse_running(suite: &Suite, what: &str) -> Result<(), Failure> {
    for role in daemons() {
        let path = runtime::socket_path(&suite.run_dir, role);
        if std::os::unix::net::UnixStream::connect(&path).is_ok() {
            return Err(Failure::new(format!(
                "{role} is running: stop all daemons first, {what} must be the only writer"
            )));
        }
    }
    Ok(())
}

/// `posthouse restore DIR`
pub(crate) async fn restore(place: &Place, json: bool, options: Restore) -> Result<(), Failure> {
    let dir = options
        .folder
        .canonicalize()
        .map_err(|error| manifest::failed(&options.folder, error))?;
    refuse_running(&Suite::open(place, json)?, "restore")?;
    let store = MailStore::of(place)?;
    let (generation, manifest) = manifest::choose(&dir, options.generation.as_deref())?;
    pieces(&dir, &generation, &manifest, json)?;
    let restorer = Restorer {
        store: &store,
        generation: &generation,
        manifest: &manifest,
        json,
    };
    let compared = restorer.run().await?;
    let users = place.document()?.suite().map(|suite| suite.users);
    put::give_to_daemons(&store, users.unwrap_or(runtime::UsersMode::Auto))?;
    restorer.finish()?;
    let text = format!(
        "Restored {} of {}: {} rows and {compared} bodies, compared with the backup.",
        generation.display(),
        time::utc(manifest.taken),
        rows_of(&manifest),
    );
    let value = json!({
        "generation": generation,
        "taken": manifest.taken,
        "rows": rows_of(&manifest),
        "bodies": compared,
    });
    output::done(json, &text, &value);
    Ok(())
}
