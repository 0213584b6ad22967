//! `posthouse schema`: versions of the databases' schemas, and backup points.

use super::check::Findings;
use crate::cli::Schema;
use crate::connect::{Place, Suite};
use crate::failure::Failure;
use crate::mailstore::MailStore;
use crate::output;
use serde_json::json;
use sql::point::{self, Point};
use sql::{Db, Kind, Migration, Options, Points};
use std::cmp::Ordering;
use std::io::ErrorKind;
use std::path::Path;

/// A database with its schema.
struct Part {
    area: &'static str,
    component: &'static str,
    migrations: &'static [Migration],
    /// Where it is.
    url: String,
    /// Where its points are, if it is a server.
    points: Points,
    /// The daemon that writes it.
    writer: &'static str,
}

/// What is known of a database.
struct State {
    /// 0: there is none yet.
    found: u32,
    known: u32,
    /// Octets that a point takes (`None`: not known), and that are free.
    room: (Option<u64>, u64),
    points: Vec<Point>,
}

impl Part {
    fn all(store: &MailStore, keep: usize) -> Vec<Self> {
        let mut all = vec![
            Self {
                area: "store",
                component: store::COMPONENT,
                migrations: store::MIGRATIONS,
                url: store.tables_url(),
                points: Points {
                    folder: store.store_dir(),
                    keep,
                },
                writer: "stored",
            },
            Self {
                area: "directory",
                component: authd::COMPONENT,
                migrations: authd::MIGRATIONS,
                url: store.directory_url(),
                points: Points::new(store.state_dir.join("directory")),
                writer: "authd",
            },
        ];
        if let Some(url) = &store.limits_url {
            all.push(Self {
                area: "limits",
                component: limitd::COMPONENT,
                migrations: limitd::MIGRATIONS,
                url: url.clone(),
                // What is counted is no mail: limitd makes no points of it.
                points: Points {
                    folder: store.state_dir.join("limits"),
                    keep: 0,
                },
                writer: "limitd",
            });
        }
        all
    }

    async fn open(&self, options: &Options) -> Result<Db, Failure> {
        Ok(Db::open(&self.url, options).await?)
    }

    async fn state(&self) -> Result<State, Failure> {
        let known = self.migrations.last().map_or(0, |last| last.version);
        if let Some(file) = sql::sqlite_file(&self.url)
            && matches!(std::fs::metadata(file), Err(error) if error.kind() == ErrorKind::NotFound)
        {
            let folder = file.parent().unwrap_or(Path::new("/"));
            return Ok(State {
                found: 0,
                known,
                room: (None, 0),
                points: point::list(folder, self.component),
            });
        }
        let db = self.open(&Options::reader()).await?;
        let found = match sql::schema_version(&db, self.component).await {
            Err(error) if error.kind() == Kind::Statement => 0,
            other => other?,
        };
        let folder = self.points.folder_of(&db).await?;
        let state = State {
            found,
            known,
            room: self.points.room(&db).await?,
            points: point::list(&folder, self.component),
        };
        db.close().await;
        Ok(state)
    }

    /// What the next start does, in words.
    fn prospect(&self, state: &State) -> String {
        let Self { writer, points, .. } = self;
        let State { found, known, .. } = state;
        if *found == point::UNFINISHED {
            return format!(
                "a backup point is being put back, and that is unfinished: {writer} will not start; run `posthouse schema \
                 back` again"
            );
        }
        match found.cmp(known) {
            Ordering::Equal => "as this program needs it".to_owned(),
            Ordering::Greater => format!(
                "this program knows {known}: {writer} will not start; install the version that wrote it, or put a backup \
                 point back (`posthouse schema show`)"
            ),
            Ordering::Less if *found == 0 => {
                format!("none yet: {writer} makes version {known} when it starts")
            }
            Ordering::Less if points.keep == 0 => {
                format!("{writer} brings it to {known} when it starts, without a backup point")
            }
            Ordering::Less => {
                let takes = match state.room.0 {
                    Some(octets) => format!("about {}", output::bytes(octets, "nothing")),
                    None => "all its rows".to_owned(),
                };
                format!(
                    "{writer} makes a backup point when it starts ({takes}; {} free), and then brings it to {known}",
                    output::bytes(state.room.1, "nothing")
                )
            }
        }
    }
}

fn keep(place: &Place) -> Result<usize, Failure> {
    let stored = place.document()?.section::<stored::Config>("stored");
    stored
        .map(|config| config.backup_points)
        .map_err(|error| Failure::new(error.to_string()))
}

/// `posthouse schema`
pub(crate) async fn run(place: &Place, json: bool, command: Schema) -> Result<(), Failure> {
    let store = MailStore::of(place)?;
    match command {
        Schema::Show => show(&store, keep(place)?, json).await,
        Schema::Back { point } => {
            super::backup::refuse_running(&Suite::open(place, json)?, "putting back")?;
            back(&store, keep(place)?, json, &point).await
        }
    }
}

async fn show(store: &MailStore, keep: usize, json: bool) -> Result<(), Failure> {
    let mut rows = Vec::new();
    let mut listed = Vec::new();
    for part in Part::all(store, keep) {
        let state = part.state().await?;
        for point in &state.points {
            listed.push(json!({
                "database": part.area,
                "version": point.version,
                "made": point.made,
                "point": point.path,
            }));
        }
        rows.push(json!({
            "database": part.area,
            "version": state.found,
            "known": state.known,
            "at_start": part.prospect(&state),
        }));
    }
    if json {
        output::print(&json!({ "schemas": rows, "points": listed }));
        return Ok(());
    }
    let columns = &[
        ("database", "DATABASE"),
        ("version", "VERSION"),
        ("known", "KNOWN"),
        ("at_start", "AT THE NEXT START"),
    ];
    output::list(false, columns, &rows);
    if !listed.is_empty() {
        let columns = &[
            ("database", "DATABASE"),
            ("version", "VERSION"),
            ("made", "MADE"),
            ("point", "BACKUP POINT"),
        ];
        output::list(false, columns, &listed);
    }
    Ok(())
}

async fn back(store: &MailStore, keep: usize, json: bool, path: &Path) -> Result<(), Failure> {
    let path = path
        .canonicalize()
        .map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
    let odd = || Failure::new(format!("{} is no backup point", path.display()));
    let point = Point::of(&path).ok_or_else(odd)?;
    let part = Part::all(store, keep)
        .into_iter()
        .find(|part| part.component == point.component)
        .ok_or_else(odd)?;
    let (text, aside) = if let Some(file) = sql::sqlite_file(&part.url) {
        let aside = point::put_file_back(file, &path).await?;
        let text = match &aside {
            Some(aside) => format!("; what was there is {}", aside.display()),
            None => String::new(),
        };
        (text, aside)
    } else {
        let db = part.open(&Options::writer()).await?;
        let (_, rows) = point::put_rows_back(&db, part.component, part.migrations, &path).await?;
        db.close().await;
        (format!(": {rows} rows"), None)
    };
    let text = format!(
        "The {} is at schema {} again, as it was at {}{text}. Now start the version of Posthouse that knows it, and run \
         `posthouse fsck`.",
        part.area, point.version, point.made
    );
    let value = json!({ "database": part.area, "version": point.version, "made": point.made, "aside": aside });
    output::done(json, &text, &value);
    Ok(())
}

/// For `posthouse check`: versions, and what will happen.
pub(crate) async fn check(findings: &mut Findings, place: &Place) {
    let Ok(store) = MailStore::of(place) else {
        return;
    };
    let Ok(keep) = keep(place) else { return };
    for part in Part::all(&store, keep) {
        let state = match part.state().await {
            Ok(state) => state,
            Err(failure) => {
                findings.error(part.area, format!("its schema: {}", failure.text));
                continue;
            }
        };
        let text = format!("schema {}: {}", state.found, part.prospect(&state));
        let full = part.points.keep > 0
            && state.room.0.unwrap_or(0).saturating_add(point::RESERVE) > state.room.1;
        match state.found.cmp(&state.known) {
            Ordering::Equal => findings.fine(part.area, text),
            Ordering::Greater => findings.error(part.area, text),
            Ordering::Less if full && state.found > 0 => findings.error(
                part.area,
                format!("{text}; there is no room for that: it will not be changed"),
            ),
            Ordering::Less => findings.warn(part.area, text),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::path::PathBuf;

    fn part(keep: usize) -> Part {
        Part {
            area: "store",
            component: "mail",
            migrations: store::MIGRATIONS,
            url: "sqlite::memory:".to_owned(),
            points: Points {
                folder: PathBuf::new(),
                keep,
            },
            writer: "stored",
        }
    }

    fn state(found: u32) -> State {
        State {
            found,
            known: 2,
            room: (Some(5 << 20), 1 << 30),
            points: Vec::new(),
        }
    }

    #[test]
    fn the_prospect_says_what_will_happen() {
        assert_eq!(part(2).prospect(&state(2)), "as this program needs it");
        assert!(part(2).prospect(&state(0)).contains("makes version 2"));
        let older = part(2).prospect(&state(1));
        assert!(
            older.contains("backup point") && older.contains("5.0 MiB"),
            "{older}"
        );
        assert!(
            part(0)
                .prospect(&state(1))
                .contains("without a backup point")
        );
        assert!(part(2).prospect(&state(3)).contains("will not start"));
        let half = part(2).prospect(&state(point::UNFINISHED));
        assert!(half.contains("schema back` again"), "{half}");
    }

    #[tokio::test]
    async fn limits_are_there_if_they_are_enabled() {
        let folder = tempfile::tempdir().unwrap();
        let mut suite = MailStore {
            store: store::Config::default(),
            blobs: blob::Config::default(),
            directory: String::new(),
            limits_url: None,
            state_dir: folder.path().to_owned(),
        };
        assert_eq!(Part::all(&suite, 2).len(), 2);
        let limits = limitd::Config::default();
        suite.limits_url = Some(limits.url(folder.path()));
        let parts = Part::all(&suite, 2);
        let part = parts.last().unwrap();
        let before = part.state().await.unwrap();
        assert_eq!((part.area, before.found), ("limits", 0));
        assert!(part.prospect(&before).contains("limitd makes version"));
        let db = part.open(&Options::writer()).await.unwrap();
        sql::migrate(&db, part.component, part.migrations)
            .await
            .unwrap();
        db.close().await;
        let after = part.state().await.unwrap();
        assert!(after.found == after.known && after.known > 0);
        assert_eq!(part.prospect(&after), "as this program needs it");
    }
}
