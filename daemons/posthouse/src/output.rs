//! What is printed: tables for people, JSON for programs.

use serde_json::Value;
use std::io::Write;

/// Prints a list as a table with these columns, or as a JSON array.
///
/// Each row is an object; a column names a key and its heading. Missing and null values are shown as `-`.
pub(crate) fn list(json: bool, columns: &[(&str, &str)], rows: &[Value]) {
    if json {
        return print(&Value::Array(rows.to_vec()));
    }
    if rows.is_empty() {
        say("none");
        return;
    }
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| columns.iter().map(|(key, _)| cell(row.get(*key))).collect())
        .collect();
    let width = |at: usize| {
        let heading = columns
            .get(at)
            .map_or(0, |(_, heading)| heading.chars().count());
        let widest = cells
            .iter()
            .filter_map(|row| row.get(at))
            .map(|c| c.chars().count())
            .max();
        widest.unwrap_or(0).max(heading)
    };
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let line = |words: &mut dyn Iterator<Item = &str>| {
        let mut text = String::new();
        for (word, width) in words.zip(&widths) {
            text.push_str(word);
            text.extend(std::iter::repeat_n(
                ' ',
                width.saturating_sub(word.chars().count()) + 2,
            ));
        }
        say(text.trim_end());
    };
    line(&mut columns.iter().map(|(_, heading)| *heading));
    for row in &cells {
        line(&mut row.iter().map(String::as_str));
    }
}

/// Prints one thing as `key  value` lines, or as a JSON object.
pub(crate) fn one(json: bool, columns: &[(&str, &str)], row: &Value) {
    if json {
        return print(row);
    }
    let width = columns
        .iter()
        .map(|(_, heading)| heading.chars().count())
        .max()
        .unwrap_or(0);
    for (key, heading) in columns {
        say(&format!("{heading:width$}  {}", cell(row.get(*key))));
    }
}

/// Prints JSON, indented.
pub(crate) fn print(value: &Value) {
    say(&serde_json::to_string_pretty(value).unwrap_or_default());
}

/// Prints a line; a closed pipe is no error.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// What was done, for people; nothing for programs but the object.
pub(crate) fn done(json: bool, text: &str, value: &Value) {
    if json { print(value) } else { say(text) }
}

fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) if text.is_empty() => "-".to_owned(),
        // Control characters of foreign origin must not reach a terminal.
        Some(Value::String(text)) => text
            .chars()
            .map(|c| if c.is_control() { '?' } else { c })
            .collect(),
        Some(Value::Bool(true)) => "yes".to_owned(),
        Some(Value::Bool(false)) => "no".to_owned(),
        Some(Value::Array(values)) => values
            .iter()
            .map(|v| cell(Some(v)))
            .collect::<Vec<_>>()
            .join(", "),
        Some(other) => other.to_string(),
    }
}

/// `1.5 GiB`; `unlimited` for 0 where that is what it means.
pub(crate) fn bytes(count: u64, zero: &str) -> String {
    if count == 0 {
        return zero.to_owned();
    }
    let mut value = count as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "B" {
                format!("{count} B")
            } else {
                format!("{value:.1} {unit}")
            };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

/// `3d 4h`, `12m 5s`.
pub(crate) fn span(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, m) => format!("{m}m {}s", seconds % 60),
        (0, h, m) => format!("{h}h {m}m"),
        (d, h, _) => format!("{d}d {h}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_readable() {
        assert_eq!(bytes(0, "unlimited"), "unlimited");
        assert_eq!(bytes(1000, "-"), "1000 B");
        assert_eq!(bytes(1536, "-"), "1.5 KiB");
        assert_eq!(bytes(10 << 30, "-"), "10.0 GiB");
        assert_eq!(span(59), "59s");
        assert_eq!(span(3661), "1h 1m");
        assert_eq!(span(90_000), "1d 1h");
    }

    #[test]
    fn foreign_text_cannot_steer_the_terminal() {
        assert_eq!(
            cell(Some(&Value::String("a\u{1b}[2Jb".to_owned()))),
            "a?[2Jb"
        );
    }
}
