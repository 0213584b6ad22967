//! The order of the house: what the tests of this crate read the tree with.
//!
//! They need no daemon and no network; they hold the dependency law, and the agreement between `ipc/topology.toml`, the
//! API files, the daemons' manual pages, the systemd units and the compose file.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Why the tree could not be read; tests unwrap it.
pub type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// The workspace.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A section of topology.toml.
#[derive(Debug)]
pub struct Daemon {
    /// The system account.
    pub user: String,
    /// none, listen, connect, both or sql.
    pub network: String,
    /// Its directory below the state directory; empty if it writes nothing.
    pub state: String,
    /// The state directories of others that it reads.
    pub group_reads: Vec<String>,
    /// Callers, and what they may call.
    pub serves: BTreeMap<String, BTreeSet<String>>,
}

/// Reads topology.toml.
pub fn topology() -> Outcome<BTreeMap<String, Daemon>> {
    let table: toml::Table = fs::read_to_string(root().join("ipc/topology.toml"))?.parse()?;
    let mut daemons = BTreeMap::new();
    for (name, section) in table {
        let text = |key: &str| -> Outcome<String> {
            let value = section.get(key).and_then(toml::Value::as_str);
            Ok(value
                .ok_or_else(|| format!("[{name}] has no {key}"))?
                .to_owned())
        };
        let mut serves = BTreeMap::new();
        for (caller, operations) in section
            .get("serves")
            .and_then(toml::Value::as_table)
            .into_iter()
            .flatten()
        {
            serves.insert(caller.clone(), strings(operations).into_iter().collect());
        }
        let group_reads = section.get("group_reads").map(strings).unwrap_or_default();
        let daemon = Daemon {
            user: text("user")?,
            network: text("network")?,
            state: text("state")?,
            group_reads,
            serves,
        };
        daemons.insert(name.clone(), daemon);
    }
    Ok(daemons)
}

fn strings(value: &toml::Value) -> Vec<String> {
    let items = value.as_array().into_iter().flatten();
    items
        .filter_map(|item| item.as_str().map(str::to_owned))
        .collect()
}

/// A crate of the workspace and what it names in its manifest.
#[derive(Debug)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its folder, from the root: `daemons/smtpd`.
    pub folder: String,
    /// The crates it depends on, build dependencies included, with the features it asks for.
    pub dependencies: BTreeMap<String, Vec<String>>,
    /// The same for its tests.
    pub dev_dependencies: BTreeMap<String, Vec<String>>,
}

/// Asks cargo for the crates of the workspace.
pub fn packages() -> Outcome<Vec<Package>> {
    let json: serde_json::Value = serde_json::from_slice(&cargo(&[
        "metadata",
        "--format-version=1",
        "--no-deps",
        "--offline",
    ])?)?;
    let base = fs::canonicalize(root())?;
    let mut packages = Vec::new();
    for package in json["packages"].as_array().into_iter().flatten() {
        let manifest = Path::new(package["manifest_path"].as_str().unwrap_or_default());
        let folder = manifest.parent().unwrap_or(manifest).strip_prefix(&base)?;
        let mut all = [BTreeMap::new(), BTreeMap::new()];
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let features = dependency["features"].as_array().into_iter().flatten();
            let features = features
                .filter_map(|feature| feature.as_str().map(str::to_owned))
                .collect();
            let name = dependency["name"].as_str().unwrap_or_default().to_owned();
            let [normal, dev] = &mut all;
            let side = if dependency["kind"] == "dev" {
                dev
            } else {
                normal
            };
            side.insert(name, features);
        }
        let [dependencies, dev_dependencies] = all;
        packages.push(Package {
            name: package["name"].as_str().unwrap_or_default().to_owned(),
            folder: folder.display().to_string(),
            dependencies,
            dev_dependencies,
        });
    }
    Ok(packages)
}

/// The names of all crates that one stands on, with the features it gets when it is built alone.
pub fn stands_on(package: &str) -> Outcome<BTreeSet<String>> {
    let arguments = [
        "tree",
        "--offline",
        "-p",
        package,
        "-e",
        "normal,build",
        "--prefix=none",
        "-f={p}",
    ];
    let text = String::from_utf8(cargo(&arguments)?)?;
    Ok(text
        .lines()
        .filter_map(|line| line.split(' ').next().map(str::to_owned))
        .collect())
}

fn cargo(arguments: &[&str]) -> Outcome<Vec<u8>> {
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .current_dir(root())
        .output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    Ok(output.stdout)
}

/// All files of the tree that belong to it, as paths from the root: what git knows or would take in.
pub fn files() -> Outcome<Vec<PathBuf>> {
    let base = root();
    let git = Command::new("git")
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .current_dir(&base)
        .output();
    let mut files = Vec::new();
    if let Ok(output) = git
        && output.status.success()
    {
        for name in output
            .stdout
            .split(|&octet| octet == 0)
            .filter(|name| !name.is_empty())
        {
            let path = PathBuf::from(std::str::from_utf8(name)?);
            // What is deleted and not yet committed is still listed.
            if base.join(&path).is_file() {
                files.push(path);
            }
        }
        return Ok(files);
    }
    // Unpacked from an archive, without git.
    walk(&base, Path::new(""), &mut files)?;
    Ok(files)
}

fn walk(base: &Path, below: &Path, files: &mut Vec<PathBuf>) -> Outcome<()> {
    for entry in fs::read_dir(base.join(below))? {
        let entry = entry?;
        let path = below.join(entry.file_name());
        if ["target", "var", ".git", "__pycache__"]
            .iter()
            .any(|skip| path.ends_with(skip))
        {
            continue;
        }
        if entry.file_type()?.is_dir() {
            walk(base, &path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

/// A unit file or the like: `section.key` with all values that are given for it, blank-separated lists taken apart.
pub fn ini(path: &Path) -> Outcome<BTreeMap<String, Vec<String>>> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut section = String::new();
    let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            section = name.to_owned();
        } else if let Some((key, value)) = line.split_once('=') {
            let entry = values
                .entry(format!("{section}.{}", key.trim()))
                .or_default();
            entry.extend(value.split_whitespace().map(str::to_owned));
        }
    }
    Ok(values)
}
