//! Names of mailboxes.

use std::borrow::Cow;
use unicode_normalization::UnicodeNormalization as _;

/// The form in which a name is kept and looked for: NFC (RFC 9051 5.1 asks for Net-Unicode, RFC 5198), INBOX in capitals.
pub fn canonical(name: &str) -> Cow<'_, str> {
    if name.eq_ignore_ascii_case("INBOX") {
        return Cow::Borrowed("INBOX");
    }
    match name.split_once('/') {
        Some((first, rest)) if first != "INBOX" && first.eq_ignore_ascii_case("INBOX") => {
            Cow::Owned(format!("INBOX/{}", canonical_rest(rest)))
        }
        _ => canonical_rest(name),
    }
}

fn canonical_rest(name: &str) -> Cow<'_, str> {
    if name.is_ascii() || unicode_normalization::is_nfc(name) {
        Cow::Borrowed(name)
    } else {
        Cow::Owned(name.nfc().collect())
    }
}

/// The special uses (RFC 6154 2, RFC 8457 3), without \All, which no mailbox of ours can have.
const SPECIAL_USES: [&str; 7] = [
    "\\Archive",
    "\\Drafts",
    "\\Flagged",
    "\\Important",
    "\\Junk",
    "\\Sent",
    "\\Trash",
];

/// A special use that a mailbox can have, in its usual case; `None` if there is no such use.
pub fn known_special_use(given: &str) -> Option<&'static str> {
    let mut known = SPECIAL_USES.into_iter();
    known.find(|known| known.eq_ignore_ascii_case(given))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_uses_are_known_in_any_case() {
        assert_eq!(known_special_use("\\IMPORTANT"), Some("\\Important"));
        assert_eq!(known_special_use("\\All"), None);
        assert_eq!(known_special_use("Sent"), None);
    }

    #[test]
    fn names_have_one_form() {
        assert_eq!(canonical("inBox"), "INBOX");
        assert_eq!(canonical("Inbox/Sub"), "INBOX/Sub");
        assert_eq!(canonical("Inboxes"), "Inboxes");
        assert_eq!(canonical("Entwu\u{308}rfe"), "Entw\u{fc}rfe");
        assert_eq!(canonical("INBOX/u\u{308}"), "INBOX/\u{fc}");
    }
}
