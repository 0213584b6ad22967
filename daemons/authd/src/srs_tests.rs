#![allow(clippy::unwrap_used)]
use super::*;

#[test]
fn addresses_are_taken_apart_as_the_scheme_has_it() {
    assert_eq!(
        parse("SRS0=HHHH=TT=example.net=a=b"),
        Some(Form::Zero {
            hash: "HHHH",
            day: "TT",
            host: "example.net",
            user: "a=b"
        })
    );
    assert_eq!(
        parse("srs1+GGGG=one.example==HHHH=TT=example.net=a"),
        Some(Form::One {
            hash: "GGGG",
            host: "one.example",
            rest: "=HHHH=TT=example.net=a"
        })
    );
    for ordinary in [
        "srs0",
        "SRS0=a=b=c",
        "SRS1=a=b",
        "SRS2=a=b=c=d",
        "jane",
        "SRS0a=b=c=d=e",
        "äöü",
    ] {
        assert_eq!(parse(ordinary), None, "{ordinary}");
    }
}

#[test]
fn days_go_round() {
    // 1024 days are 2 years and 294 days.
    for days in [0, 1, 31, 32, 1000, 1023, 1024, 20_000] {
        let made = stamp(days * DAY + 5);
        assert_eq!(made.len(), 2);
        assert_eq!(age(&made, days * DAY), Some(0));
        assert_eq!(age(&made.to_lowercase(), (days + 21) * DAY), Some(21));
        assert_eq!(age(&made, (days + 1025) * DAY), Some(1));
    }
    assert_eq!(stamp(0), "AA");
    assert_eq!(stamp(33 * DAY), "BB");
    for none in ["", "A", "AAA", "A1", "é"] {
        assert_eq!(age(none, 0), None, "{none}");
    }
}

#[test]
fn hashes_do_not_mind_case() {
    let text = text_of(&[0xff, 0, 0, 0, 0, 9, 9]);
    assert_eq!(text, "74AAAAAA");
    assert!(same(&text, "74aaaaaa"));
    assert!(!same(&text, "74AAAAAB") && !same(&text, "74AAAAA") && !same(&text, ""));
}
