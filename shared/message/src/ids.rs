//! Message identifiers (RFC 5322 3.6.4), the keys of threading (RFC 5256).

use std::collections::HashSet;

/// Octets of an identifier at most; longer ones are no identifiers.
const ID_MAX: usize = 998;

/// The identifiers in a value, without angle brackets, quotes and white space, each once, in their order. Of more than
/// `limit` the first and the last ones are kept: the thread's root and the nearest ancestors.
pub(crate) fn message_ids(value: &[u8], limit: usize) -> Vec<String> {
    let mut ids = Vec::new();
    let mut seen = HashSet::new();
    let mut rest = value;
    while let Some(start) = memchr::memchr(b'<', rest) {
        let inner = rest.get(start + 1..).unwrap_or_default();
        let Some(end) = memchr::memchr2(b'>', b'<', inner) else {
            break;
        };
        let id = inner.get(..end).unwrap_or_default();
        rest = inner.get(end..).unwrap_or_default();
        if !rest.starts_with(b">") || id.len() > ID_MAX {
            continue;
        }
        if let Some(id) = normalised(id)
            && seen.insert(id.clone())
        {
            ids.push(id);
        }
    }
    if ids.len() > limit {
        let from = ids.len() - limit.saturating_sub(1);
        ids.drain(1.min(limit)..from.min(ids.len()));
    }
    ids
}

/// RFC 5256 3: quoting and folds make no difference. An identifier has an `@`, but many senders leave it out.
fn normalised(id: &[u8]) -> Option<String> {
    let text: Vec<u8> = id
        .iter()
        .copied()
        .filter(|b| *b > b' ' && *b != 0x7f && *b != b'"' && *b != b'\\')
        .collect();
    (!text.is_empty()).then(|| String::from_utf8_lossy(&text).into_owned())
}

/// The first identifier of a value.
pub(crate) fn message_id(value: &[u8]) -> Option<String> {
    let first = message_ids(value.get(..4096).unwrap_or(value), usize::MAX);
    first.into_iter().next()
}

#[cfg(test)]
mod tests {
    use super::message_ids;

    #[test]
    fn identifiers_are_normalised_and_bounded() {
        let ids = |text: &str, limit| message_ids(text.as_bytes(), limit);
        assert_eq!(ids("<a@b> (x) <\"c d\"@e>\r\n\t<a@b>", 9), ["a@b", "cd@e"]);
        assert_eq!(ids("<a@b <c@d> <>", 9), ["c@d"]);
        assert_eq!(ids("no brackets", 9), Vec::<String>::new());
        assert_eq!(ids("<1@x><2@x><3@x><4@x>", 3), ["1@x", "3@x", "4@x"]);
        assert_eq!(ids("<1@x><2@x>", 1), ["1@x"]);
    }
}
