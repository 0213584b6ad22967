//! Macros (RFC 7208 7).

/// A text with macros in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MacroString(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Macro(Macro),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Macro {
    letter: char,
    /// Rightmost parts that are kept; 0 is all.
    keep: usize,
    reverse: bool,
    delimiters: String,
    escape: bool,
}

/// What macros stand for, by their letter in lower case.
pub(super) trait Values {
    fn value(&self, letter: char) -> String;
}

impl MacroString {
    /// `None` is a syntax error. In an explanation there are blanks, and the letters c, r and t.
    pub(super) fn parse(text: &str, explanation: bool) -> Option<Self> {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            rest = rest.get(first.len_utf8()..)?;
            if first != '%' {
                if !(first.is_ascii_graphic() || explanation && first == ' ') {
                    return None;
                }
                plain.push(first);
                continue;
            }
            let kind = rest.chars().next()?;
            rest = rest.get(kind.len_utf8()..)?;
            match kind {
                '%' => plain.push('%'),
                '_' => plain.push(' '),
                '-' => plain.push_str("%20"),
                '{' => {
                    let (inner, behind) = rest.split_once('}')?;
                    if !plain.is_empty() {
                        pieces.push(Piece::Text(std::mem::take(&mut plain)));
                    }
                    pieces.push(Piece::Macro(Macro::parse(inner, explanation)?));
                    rest = behind;
                }
                _ => return None,
            }
        }
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        Some(Self(pieces))
    }

    pub(super) fn ends_with_macro(&self) -> bool {
        matches!(self.0.last(), Some(Piece::Macro(_)))
    }

    /// Whether the client's validated name is asked for, which costs lookups.
    pub(super) fn wants_name(&self) -> bool {
        self.0
            .iter()
            .any(|piece| matches!(piece, Piece::Macro(one) if one.letter == 'p'))
    }

    pub(super) fn expand(&self, values: &impl Values) -> String {
        let mut out = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Macro(one) => one.expand(&values.value(one.letter), &mut out),
            }
        }
        out
    }

    /// As a domain: of one that is too long, labels are left out at the left (RFC 7208 7.3).
    pub(super) fn domain(&self, values: &impl Values) -> String {
        let mut domain = self.expand(values);
        while domain.trim_end_matches('.').len() > 253 {
            match domain.split_once('.') {
                Some((_, rest)) => domain = rest.to_owned(),
                None => break,
            }
        }
        domain
    }
}

impl Macro {
    fn parse(text: &str, explanation: bool) -> Option<Self> {
        let first = text.chars().next()?;
        let letter = first.to_ascii_lowercase();
        if !("slodiphv".contains(letter) || explanation && "crt".contains(letter)) {
            return None;
        }
        let rest = text.get(1..)?;
        let end = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        let (digits, rest) = rest.split_at_checked(end)?;
        let keep = match digits {
            "" => 0,
            // RFC 7208 7.3: a number of parts is at least one; nobody has more than 128 labels.
            digits => digits.parse::<usize>().unwrap_or(usize::MAX),
        };
        if keep == 0 && !digits.is_empty() {
            return None;
        }
        let (reverse, delimiters) = match rest.strip_prefix(['r', 'R']) {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        delimiters
            .chars()
            .all(|c| ".-+,/_=".contains(c))
            .then(|| Self {
                letter,
                keep,
                reverse,
                delimiters: delimiters.to_owned(),
                escape: first.is_ascii_uppercase(),
            })
    }

    fn expand(&self, value: &str, out: &mut String) {
        let delimiters = match self.delimiters.as_str() {
            "" => ".",
            own => own,
        };
        let mut parts: Vec<&str> = value.split(|c: char| delimiters.contains(c)).collect();
        if self.reverse {
            parts.reverse();
        }
        if self.keep > 0 {
            let left_out = parts.len().saturating_sub(self.keep);
            parts.drain(..left_out);
        }
        let text = if self.keep == 0 && !self.reverse && self.delimiters.is_empty() {
            value.to_owned()
        } else {
            parts.join(".")
        };
        if !self.escape {
            out.push_str(&text);
            return;
        }
        for octet in text.bytes() {
            // RFC 3986 2.3
            if octet.is_ascii_alphanumeric() || b"-._~".contains(&octet) {
                out.push(char::from(octet));
            } else {
                out.push_str(&format!("%{octet:02X}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    struct Example;

    /// RFC 7208 7.4
    impl Values for Example {
        fn value(&self, letter: char) -> String {
            match letter {
                's' => "strong-bad@email.example.com",
                'l' => "strong-bad",
                'o' | 'd' => "email.example.com",
                'i' => "192.0.2.3",
                'v' => "in-addr",
                _ => "",
            }
            .to_owned()
        }
    }

    #[test]
    fn the_examples_of_the_rfc() {
        for (text, expected) in [
            ("%{s}", "strong-bad@email.example.com"),
            ("%{d4}", "email.example.com"),
            ("%{d2}", "example.com"),
            ("%{d1}", "com"),
            ("%{dr}", "com.example.email"),
            ("%{d2r}", "example.email"),
            ("%{l-}", "strong.bad"),
            ("%{lr-}", "bad.strong"),
            ("%{l1r-}", "strong"),
            (
                "%{ir}.%{v}._spf.%{d2}",
                "3.2.0.192.in-addr._spf.example.com",
            ),
            (
                "%{lr-}.lp.%{ir}.%{v}._spf.%{d2}",
                "bad.strong.lp.3.2.0.192.in-addr._spf.example.com",
            ),
            ("%{S}%%%_%-", "strong-bad%40email.example.com% %20"),
        ] {
            let parsed = MacroString::parse(text, false).unwrap();
            assert_eq!(parsed.expand(&Example), expected, "{text}");
        }
        for wrong in [
            "%", "%x", "%{", "%{}", "%{x}", "%{d0}", "%{d2x}", "a b", "%{c}", "\u{e9}",
        ] {
            assert!(MacroString::parse(wrong, false).is_none(), "{wrong}");
        }
        assert!(MacroString::parse("%{c} is %{t}", true).is_some());
    }

    #[test]
    fn long_domains_lose_labels() {
        let text = format!("{}.example.com", ["a".repeat(50).as_str(); 6].join("."));
        let domain = MacroString::parse(&text, false).unwrap().domain(&Example);
        assert!(domain.len() <= 253 && domain.ends_with(".example.com"));
    }
}
