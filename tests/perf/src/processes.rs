//! What a side's processes cost: processor time and memory, as the kernel counts them.

use crate::Outcome;
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::Duration;

/// All living processes below (and with) the given roots.
pub fn tree(roots: &[u32]) -> Outcome<Vec<u32>> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in std::fs::read_dir("/proc")? {
        let Some(pid) = entry?
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        if let Some(stat) = Stat::of(pid) {
            children.entry(stat.parent).or_default().push(pid);
        }
    }
    let mut found = HashSet::new();
    let mut open = roots.to_vec();
    while let Some(pid) = open.pop() {
        if found.insert(pid) {
            open.extend(children.get(&pid).into_iter().flatten());
        }
    }
    Ok(found.into_iter().collect())
}

/// The processor time that a tree has used so far: user and system, of the living and of the children they buried.
pub fn cpu(roots: &[u32]) -> Outcome<Duration> {
    let ticks: u64 = tree(roots)?
        .into_iter()
        .filter_map(Stat::of)
        .map(|stat| stat.ticks)
        .sum();
    // A tick is 10 ms on every Linux that Debian builds (USER_HZ).
    Ok(Duration::from_millis(ticks * 10))
}

/// The memory of a tree in KiB: each page divided by how many processes share it (proportional set size).
pub fn pss_kib(roots: &[u32]) -> Outcome<u64> {
    let mut sum = 0;
    for pid in tree(roots)? {
        // A process may end between the two looks.
        let Ok(text) = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")) else {
            continue;
        };
        sum += text
            .lines()
            .find_map(|line| line.strip_prefix("Pss:"))
            .and_then(|rest| rest.trim().strip_suffix(" kB"))
            .and_then(|number| number.parse::<u64>().ok())
            .unwrap_or(0);
    }
    Ok(sum)
}

/// The space that a directory takes on disk, in KiB, in whole blocks.
pub fn disk_kib(dir: &Path) -> Outcome<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut seen = HashSet::new();
    let mut blocks = 0;
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        let Ok(entries) = std::fs::read_dir(&dir) else {
            continue;
        };
        for entry in entries.flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            if meta.is_dir() {
                open.push(entry.path());
            }
            if seen.insert((meta.dev(), meta.ino())) {
                blocks += meta.blocks();
            }
        }
    }
    Ok(blocks / 2)
}

struct Stat {
    parent: u32,
    ticks: u64,
}

impl Stat {
    /// Reads `/proc/PID/stat` (proc(5)): field 4 is the parent, 14 to 17 are utime, stime, cutime, cstime.
    fn of(pid: u32) -> Option<Self> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Self::parse(&text)
    }

    fn parse(text: &str) -> Option<Self> {
        // The name in brackets may hold anything, brackets and blanks too.
        let mut fields = text.get(text.rfind(')')? + 2..)?.split(' ');
        let parent = fields.nth(1)?.parse().ok()?;
        let ticks = fields
            .skip(9)
            .take(4)
            .filter_map(|field| field.parse::<u64>().ok())
            .sum();
        Some(Self { parent, ticks })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn stat_is_read_past_odd_names() {
        let stat =
            Stat::parse("7 (a) b (c) S 3 7 7 0 -1 4194560 1 2 3 4 10 20 30 40 20 0 1 0").unwrap();
        assert_eq!((stat.parent, stat.ticks), (3, 100));
    }

    #[test]
    fn the_own_process_has_a_tree_memory_and_a_clock() {
        let own = std::process::id();
        assert!(tree(&[own]).unwrap().contains(&own));
        assert!(pss_kib(&[own]).unwrap() > 100);
        assert!(cpu(&[own]).unwrap() < Duration::from_secs(3600));
    }
}
