//! What a page points at is there: files, headings, and the pages that sources name.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use house::{files, root};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A page without its code, which points at nothing.
fn prose(text: &str) -> String {
    let mut code = false;
    let mut prose = String::new();
    for line in text.lines() {
        let fence = line.trim_start().starts_with("```");
        code ^= fence;
        if !code && !fence {
            // Of what a line has between backquotes, every second part is code.
            prose.extend(line.split('`').step_by(2));
            prose.push('\n');
        }
    }
    prose
}

/// The targets of its links, `[text](target)`.
fn targets(text: &str) -> Vec<String> {
    let ends = prose(text);
    let targets = ends.split("](").skip(1).filter_map(|rest| {
        let (target, _) = rest.split_once(')')?;
        Some(target.to_owned())
    });
    targets.collect()
}

/// The anchors of its headings, as forges make them: letters, digits, `-` and `_` in lower case, a hyphen for each blank, and a
/// number for each further one of the same name.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    let mut code = false;
    for line in text.lines() {
        code ^= line.trim_start().starts_with("```");
        let heading = line.trim_start_matches('#');
        if code || heading.len() == line.len() || !heading.starts_with(' ') {
            continue;
        }
        // Of a link in a heading, only the text counts.
        let mut shown = String::new();
        let mut parts = heading.trim().split("](");
        shown.push_str(parts.next().unwrap_or_default());
        for part in parts {
            shown.push_str(part.split_once(')').map_or(part, |(_, after)| after));
        }
        let letter = |c: char| match c {
            ' ' => Some('-'),
            c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
            _ => None,
        };
        let name: String = shown.to_lowercase().chars().filter_map(letter).collect();
        let mut numbered = name.clone();
        let mut count = 0;
        while !anchors.insert(numbered.clone()) {
            count += 1;
            numbered = format!("{name}-{count}");
        }
    }
    anchors
}

fn pages() -> Vec<PathBuf> {
    let is_page = |file: &PathBuf| file.extension().is_some_and(|extension| extension == "md");
    files().unwrap().into_iter().filter(is_page).collect()
}

/// Why a link of a page leads nowhere.
fn fault(page: &Path, text: &str, target: &str) -> Option<String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
    let there = match path {
        "" => None,
        path => Some(root().join(page).parent().unwrap().join(path)),
    };
    if there.as_ref().is_some_and(|there| !there.exists()) {
        return Some("there is no such file".to_owned());
    }
    if anchor.is_empty() {
        return None;
    }
    let other = there.map(|there| fs::read_to_string(there).unwrap());
    let known = anchors(other.as_deref().unwrap_or(text));
    (!known.contains(anchor)).then(|| format!("there is no such heading, only {known:?}"))
}

#[test]
fn every_link_leads_somewhere() {
    let mut seen = 0;
    for page in pages() {
        let text = fs::read_to_string(root().join(&page)).unwrap();
        for target in targets(&text) {
            let fault = fault(&page, &text, &target);
            assert!(
                fault.is_none(),
                "{}: {target}: {}",
                page.display(),
                fault.unwrap()
            );
            seen += 1;
        }
    }
    assert!(seen > 40, "{seen} links found");
}

/// `docs/hooks.md`, wherever it is named.
#[test]
fn every_page_that_is_named_is_there() {
    let mut seen = 0;
    for file in files().unwrap() {
        let Ok(text) = String::from_utf8(fs::read(root().join(&file)).unwrap()) else {
            continue;
        };
        for rest in text.split("docs/").skip(1) {
            let letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '/');
            let name: String = rest.chars().take_while(|c| letter(*c)).collect();
            let after = rest.get(name.len()..).unwrap_or_default();
            if name.is_empty() || !after.starts_with(".md") {
                continue;
            }
            let page = format!("docs/{name}.md");
            assert!(
                root().join(&page).exists(),
                "{} names {page}",
                file.display()
            );
            seen += 1;
        }
    }
    assert!(seen > 60, "{seen} names found");
}

#[test]
fn what_leads_nowhere_is_found() {
    let text = "# A `b` c!\n## [Up](x.md) and on\n## A b c\n[a](#a-b-c) [b](#a-b-c-1) [c](#up-and-on) [d](#b)\n\
                `[e](#e)`\n```\n# code\n[f](#f)\n```\n[g](README.md) [h](gone.md) [i](https://a.example/#x) [j](docs/dns.md#nowhere)\n";
    let wrong: Vec<String> = targets(text)
        .into_iter()
        .filter(|target| fault(Path::new("README.md"), text, target).is_some())
        .collect();
    assert_eq!(wrong, ["x.md", "#b", "gone.md", "docs/dns.md#nowhere"]);
}
