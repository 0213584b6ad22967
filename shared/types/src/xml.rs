//! Text in XML, for those who write a few elements without a writer of XML.

use std::borrow::Cow;

/// Text as it stands between tags and in values (XML 1.0 2.4). Control characters, most of which may not stand in it at all (2.2),
/// become blanks.
pub fn escape(text: &str) -> Cow<'_, str> {
    let plain = |c: char| !matches!(c, '<' | '>' | '&' | '"' | '\'') && !c.is_control();
    if text.chars().all(plain) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_becomes_text() {
        assert!(matches!(escape("plain é"), Cow::Borrowed("plain é")));
        assert_eq!(
            escape("<a b=\"c\">'&\0\n\u{85}"),
            "&lt;a b=&quot;c&quot;&gt;&apos;&amp;   "
        );
    }
}
