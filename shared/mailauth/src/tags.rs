//! Tag lists (RFC 6376 3.2), read strictly: the library takes what is missing for its default and the last of two for the one.

/// Whether a field's value is a tag list that has these tags, each tag at most once.
pub(crate) fn well_formed(value: &[u8], required: &[&str]) -> bool {
    let text = String::from_utf8_lossy(value);
    let mut names: Vec<&str> = Vec::new();
    let list = text.trim_end();
    // One semicolon may stand at the end.
    for tag in list.strip_suffix(';').unwrap_or(list).split(';') {
        let Some((name, _)) = tag.split_once('=') else {
            return false;
        };
        let name = name.trim();
        let letter = name.bytes().next().is_some_and(|c| c.is_ascii_alphabetic());
        let rest = name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_');
        if !letter || !rest || names.contains(&name) {
            return false;
        }
        names.push(name);
    }
    required.iter().all(|name| names.contains(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        let fine = |text: &str| well_formed(text.as_bytes(), &["a", "b"]);
        assert!(fine(" a=x;\r\n\tb = y=;\r\n") && fine("b=;a=1"));
        for wrong in [
            "a=x",
            "a=x; b=y; a=x",
            "A=x; b=y",
            "a=x;; b=y",
            "a=x; b=y; _=z",
            "a; b=y",
            "",
            "a=x; b=y;;",
        ] {
            assert!(!fine(wrong), "{wrong}");
        }
    }
}
