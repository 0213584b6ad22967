//! The TXT record at `_mta-sts`: that there is a policy, and which (RFC 8461 3.1).

/// The id in the only record there is; `None` if there is none, or more than one, or one that makes no sense.
pub(crate) fn id<'a>(records: impl IntoIterator<Item = &'a [u8]>) -> Option<String> {
    let mut ours = records.into_iter().filter(|record| is_ours(record));
    let record = ours.next()?;
    // RFC 8461 3.1: more than one is as good as none.
    if ours.next().is_some() {
        return None;
    }
    parse(record)
}

fn is_ours(record: &[u8]) -> bool {
    record
        .strip_prefix(b"v=STSv1")
        .is_some_and(|rest| rest.trim_ascii_start().starts_with(b";"))
}

/// `v=STSv1; id=20160831085700Z;`
fn parse(record: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(record).ok()?;
    let mut fields = text.split(';').map(|field| field.trim_matches([' ', '\t']));
    if fields.next() != Some("v=STSv1") {
        return None;
    }
    let mut found = None;
    let mut rest = fields.peekable();
    while let Some(field) = rest.next() {
        if field.is_empty() && rest.peek().is_none() {
            break;
        }
        let (name, value) = field.split_once('=')?;
        if name == "id" {
            let sound =
                (1..=32).contains(&value.len()) && value.bytes().all(|c| c.is_ascii_alphanumeric());
            if !sound || found.is_some() {
                return None;
            }
            found = Some(value.to_owned());
        } else if !extension(name, value) {
            return None;
        }
    }
    found
}

/// A field of a later version: known to be none of ours, and well formed.
fn extension(name: &str, value: &str) -> bool {
    let mut letters = name.bytes();
    (1..=32).contains(&name.len())
        && letters.next().is_some_and(|c| c.is_ascii_alphanumeric())
        && letters.all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-' | b'.'))
        && !value.is_empty()
        && value
            .bytes()
            .all(|c| c.is_ascii_graphic() && !matches!(c, b'=' | b';'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(record: &str) -> Option<String> {
        id([record.as_bytes()])
    }

    #[test]
    fn the_example_of_the_rfc() {
        // RFC 8461 3.1
        assert_eq!(
            one("v=STSv1; id=20160831085700Z;").as_deref(),
            Some("20160831085700Z")
        );
    }

    #[test]
    fn fields() {
        for good in [
            "v=STSv1;id=a",
            "v=STSv1 ; id=a ;",
            "v=STSv1;\tid=a",
            "v=STSv1; id=a; x-new.field=1",
            "v=STSv1; first=1; id=a",
        ] {
            assert_eq!(one(good).as_deref(), Some("a"), "{good}");
        }
        let long = format!("v=STSv1; id={};", "a".repeat(33));
        for bad in [
            "",
            "v=STSv1",
            "v=STSv1;",
            "v=STSv2; id=a",
            "V=STSv1; id=a",
            "v=STSv10; id=a",
            "v=STSv1; id=",
            "v=STSv1; id=a-b",
            "v=STSv1; ID=a",
            "v=STSv1; id=a; id=b",
            "v=STSv1; id=a; =1",
            "v=STSv1;; id=a",
            "v=STSv1; id",
            "id=a; v=STSv1",
            long.as_str(),
        ] {
            assert_eq!(one(bad), None, "{bad}");
        }
    }

    #[test]
    fn other_records_do_not_disturb_and_two_are_none() {
        let other: &[u8] = b"v=spf1 -all";
        assert_eq!(id([other, b"v=STSv1; id=a"]).as_deref(), Some("a"));
        let two: [&[u8]; 2] = [b"v=STSv1; id=a", b"v=STSv1; id=b"];
        assert_eq!(id(two), None);
        assert_eq!(id(std::iter::empty()), None);
    }
}
