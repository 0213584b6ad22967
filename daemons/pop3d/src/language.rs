//! LANG (RFC 6856 3): the languages of the texts behind +OK and -ERR.
//!
//! All texts are English in ASCII, which is what `i-default` asks for (RFC 2277 4.5), too: no session has to remember its choice.

/// Tags, and what the language calls itself.
const LANGUAGES: [(&str, &str); 2] = [("en", "English"), ("i-default", "English, for everybody")];

/// One listing a language.
pub(crate) fn listing() -> impl Iterator<Item = String> {
    LANGUAGES
        .iter()
        .map(|(tag, described)| format!("{tag} {described}"))
}

/// The tag for a language range: the longest that is the range or begins it (RFC 4647 3.4, lookup). `*` is what the server
/// prefers.
pub(crate) fn tag(range: &str) -> Option<&'static str> {
    if range == "*" {
        return LANGUAGES.first().map(|(tag, _)| *tag);
    }
    let mut range = range;
    loop {
        let known = LANGUAGES
            .iter()
            .find(|(tag, _)| tag.eq_ignore_ascii_case(range));
        if let Some((tag, _)) = known {
            return Some(tag);
        }
        range = range.rsplit_once('-')?.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_find_their_language() {
        for (range, expected) in [
            ("*", Some("en")),
            ("EN", Some("en")),
            ("en-GB-oxendict", Some("en")),
            ("i-default", Some("i-default")),
            ("I-DEFAULT", Some("i-default")),
            ("i-klingon", None),
            ("e", None),
            ("uga", None),
        ] {
            assert_eq!(tag(range), expected, "{range}");
        }
    }
}
