//! Variables of a whole script.
//!
//! RFC 5229 knows no scopes: what is set in a block counts behind it. The engine forgets it at the block's end, unless the variable was
//! set before, outside. So each variable is set to nothing, which is what it is anyway, behind the last `require`.

use crate::token::{Token, next};
use std::collections::BTreeSet;

/// Variables that are declared; the engine has a limit of its own.
const NAMES_MAX: usize = 100;

/// A script with declarations.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Declared {
    pub(crate) script: Vec<u8>,
    /// Where they stand.
    pub(crate) at: usize,
    /// How long they are.
    pub(crate) len: usize,
}

/// Adds what is missing; a script that needs nothing stays as it is.
pub(crate) fn declare(script: &[u8]) -> Declared {
    let (names, at) = wanted(script);
    let mut lines = Vec::new();
    for name in &names {
        lines.extend_from_slice(b" set \"");
        lines.extend_from_slice(name);
        lines.extend_from_slice(b"\" \"\";");
    }
    let (before, after) = script.split_at_checked(at).unwrap_or((script, b""));
    Declared {
        script: [before, &lines, after].concat(),
        at,
        len: lines.len(),
    }
}

/// The variables' names, in lower case, and where the last `require` at the beginning ends.
fn wanted(script: &[u8]) -> (BTreeSet<Vec<u8>>, usize) {
    let (mut names, mut global) = (BTreeSet::new(), BTreeSet::new());
    let (mut at, mut required, mut beginning) = (0, false, true);
    let mut command: &[u8] = b"";
    let mut rest = script;
    while let Some((token, behind)) = next(rest) {
        rest = behind;
        match token {
            Token::Word(word) if command.is_empty() => {
                command = word;
                beginning &= command.eq_ignore_ascii_case(b"require");
            }
            Token::Text(text) if command.eq_ignore_ascii_case(b"require") => {
                required |= beginning && text == b"variables";
            }
            Token::Text(text) if command.eq_ignore_ascii_case(b"global") => {
                global.insert(text.to_ascii_lowercase());
            }
            Token::Text(text) if sets(command) => {
                names.insert(text.to_ascii_lowercase());
                command = b"-";
            }
            Token::Other(b';' | b'{' | b'}') => {
                if beginning && !command.is_empty() {
                    at = script.len() - rest.len();
                }
                command = b"";
            }
            _ => {}
        }
    }
    names.retain(|name| plain(name) && !global.contains(name));
    if !required || names.len() > NAMES_MAX {
        names.clear();
    }
    (names, at)
}

/// Commands whose first string is a variable's name: RFC 5229 4, RFC 5703 7.
fn sets(command: &[u8]) -> bool {
    command.eq_ignore_ascii_case(b"set") || command.eq_ignore_ascii_case(b"extracttext")
}

/// RFC 5229 3: an identifier, without a namespace.
fn plain(name: &[u8]) -> bool {
    let letter = |octet: &u8| octet.is_ascii_alphabetic() || *octet == b'_';
    name.first().is_some_and(letter)
        && name
            .iter()
            .all(|octet| letter(octet) || octet.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared(script: &str) -> String {
        String::from_utf8_lossy(&declare(script.as_bytes()).script).into_owned()
    }

    #[test]
    fn variables_stand_behind_the_requirements() {
        let script =
            "# set \"no\"\nrequire [\"variables\"];\nif true { SET :lower \"A\" \"1\"; }\n";
        let expected = "# set \"no\"\nrequire [\"variables\"]; set \"a\" \"\";\nif true { SET :lower \"A\" \"1\"; }\n";
        assert_eq!(declared(script), expected);
    }

    #[test]
    fn what_needs_nothing_stays() {
        for script in [
            "keep;",
            "",
            "set \"a\" \"b\";",
            "require \"variables\"; global \"a\"; set \"a\" \"b\"; set \"global.x\" \"b\";",
            "require \"variables\"; /* set \"a\" \"b\"; */ keep;",
            "require \"variables\"; vacation text:\nset \"a\" \"b\";\n..\n.\n;",
            "require \"variables\"; redirect \"\\\"; set \\\"a\";",
            "require \"variables",
        ] {
            assert_eq!(declared(script), script);
        }
    }
}
