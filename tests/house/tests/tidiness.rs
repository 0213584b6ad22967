//! Small rooms, and nothing in the tree that belongs elsewhere.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use house::{files, root};
use std::fs;
use std::path::Path;

/// Lines that a source file may have.
const LONGEST: usize = 800;

/// The page of all settings: no code, one file because operators copy it, and held to the defaults by a test of posthouse.
const SETTINGS: &str = "daemons/posthouse/src/example.toml";

fn is_source(path: &Path) -> bool {
    path.extension().is_some_and(|extension| {
        ["rs", "py", "sh", "toml", "sql"]
            .iter()
            .any(|known| extension == *known)
    })
}

#[test]
fn source_files_are_not_too_long() {
    let mut seen = 0;
    let rooms = |file: &&std::path::PathBuf| is_source(file) && !file.ends_with(SETTINGS);
    for file in files().unwrap().iter().filter(rooms) {
        let lines = fs::read_to_string(root().join(file))
            .unwrap()
            .lines()
            .count();
        assert!(lines <= LONGEST, "{} has {lines} lines", file.display());
        seen += 1;
    }
    assert!(seen > 50, "{seen} source files found");
}

#[test]
fn names_are_the_fields_own() {
    for file in files().unwrap() {
        let stem = file
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        for name in [
            "utils", "util", "common", "helpers", "helper", "misc", "manager", "stuff",
        ] {
            assert_ne!(stem, name, "{}", file.display());
        }
    }
}

#[test]
fn nothing_in_the_tree_speaks_of_one_machine() {
    // Written in two halves, so that this file does not hold them.
    let foreign = [
        ["/wo", "rk/"],
        ["/ro", "ot/"],
        ["/ho", "me/"],
        ["127.0.0.1:31", "28"],
        ["PIP_FIND", "_LINKS"],
        ["<<<<", "<<<"],
        [">>>>", ">>> "],
    ]
    .map(|halves| halves.concat());
    for file in files().unwrap() {
        // The licence's text is not ours, and Cargo.lock is cargo's.
        if ["LICENSE", "Cargo.lock"]
            .iter()
            .any(|name| file.ends_with(name))
        {
            continue;
        }
        let Ok(text) = String::from_utf8(fs::read(root().join(&file)).unwrap()) else {
            continue;
        };
        for word in &foreign {
            assert!(
                !text.contains(word.as_str()),
                "{} holds {word}",
                file.display()
            );
        }
        if is_source(&file) && file.extension().is_some_and(|extension| extension == "rs") {
            for word in [["todo", "!("], ["unimplemented", "!("], ["dbg", "!("]]
                .map(|halves| halves.concat())
            {
                assert!(!text.contains(&word), "{} holds {word}", file.display());
            }
        }
    }
}

#[test]
fn unsafe_is_forbidden_where_it_has_no_business() {
    for file in files().unwrap() {
        let shown = file.display().to_string();
        let library = shown.ends_with("/src/lib.rs")
            && (shown.starts_with("daemons/")
                || shown.starts_with("shared/")
                || shown.starts_with("ipc/"));
        if library && !shown.starts_with("shared/runtime/") {
            let text = fs::read_to_string(root().join(&file)).unwrap();
            assert!(text.contains("#![forbid(unsafe_code)]"), "{shown}");
        }
    }
}
