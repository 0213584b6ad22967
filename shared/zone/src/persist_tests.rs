#![allow(clippy::unwrap_used)]
use super::*;
use crate::record::Data;

const NOW: u64 = 1_800_000_000;
const ACCOUNT: &str = "https://ca.example/acct/123";

fn needed(wildcard: bool) -> Persistent {
    Persistent {
        domain: "example.org".to_owned(),
        issuers: vec!["authority.example".to_owned(), "ca.example.net".to_owned()],
        accounts: vec![ACCOUNT.to_owned()],
        wildcard,
        until: 0,
    }
}

fn one(text: &str, wildcard: bool) -> Result<Option<u64>, String> {
    needed(wildcard).granted([text], NOW)
}

#[test]
fn what_is_written_is_taken() {
    for wildcard in [false, true] {
        for until in [0, NOW, NOW + 1] {
            let mut persistent = needed(wildcard);
            persistent.until = until;
            let text = persistent.text();
            let expected = Some(until).filter(|until| *until > 0);
            assert_eq!(persistent.granted([text.as_str()], NOW), Ok(expected));
        }
    }
    let mut persistent = needed(true);
    persistent.until = 1_721_952_000;
    assert_eq!(persistent.name(), "_validation-persist.example.org");
    assert_eq!(
        persistent.text(),
        "authority.example; accounturi=https://ca.example/acct/123; policy=wildcard; persistUntil=1721952000"
    );
}

#[test]
fn forms_that_say_the_same_do() {
    for text in [
        "authority.example;accounturi=https://ca.example/acct/123",
        " \tauthority.example \t;\t accounturi \t=\t https://ca.example/acct/123 \t",
        "AUTHORITY.example; AccountURI=https://ca.example/acct/123",
        "ca.example.net; accounturi=https://ca.example/acct/123",
        "authority.example; later=x; accounturi=https://ca.example/acct/123; e-x-t=a=b,c\"",
        "authority.example; empty=; accounturi=https://ca.example/acct/123",
        "authority.example; accounturi=https://ca.example/acct/123; policy=other",
        "authority.example; accounturi=https://ca.example/acct/123; policy=",
        "authority.example; accounturi=https://ca.example/acct/123; policy=wildcard",
    ] {
        assert_eq!(one(text, false), Ok(None), "{text}");
    }
    for text in ["Policy=WildCard", "POLICY = wildcard\t"] {
        let text = format!("authority.example; {text}; accounturi={ACCOUNT}");
        assert_eq!(one(&text, true), Ok(None), "{text}");
    }
    for number in ["1800000000", "001800000000", "18446744073709551615"] {
        let text = format!("authority.example; accounturi={ACCOUNT}; PERSISTuntil={number}");
        assert!(one(&text, false).unwrap().is_some(), "{text}");
    }
}

#[test]
fn what_does_not_do_says_why() {
    let uri = format!("accounturi={ACCOUNT}");
    for (rest, wildcard, why) in [
        ("", false, "no `accounturi`"),
        (";", false, "no `accounturi`"),
        ("; policy=wildcard", false, "no `accounturi`"),
        ("; accounturi=", false, "no `accounturi`"),
        (
            "; accounturi=https://ca.example/acct/1234",
            false,
            "another account",
        ),
        (
            "; accounturi=https://ca.example/acct/12",
            false,
            "another account",
        ),
        (
            "; accounturi=https://CA.example/acct/123",
            false,
            "another account",
        ),
        (
            "; accounturi=https://ca.example/acct/%3123",
            false,
            "another account",
        ),
        ("; URI", true, "no `policy=wildcard`"),
        ("; URI; policy=wildcards", true, "no `policy=wildcard`"),
        ("; URI; policy=", true, "no `policy=wildcard`"),
        ("; URI; persistUntil=1799999999", false, "is over"),
        ("; URI; persistUntil=0", false, "is over"),
        ("; URI; persistUntil=", false, "no number"),
        ("; URI; persistUntil=-1", false, "no number"),
        ("; URI; persistUntil=+1900000000", false, "no number"),
        ("; URI; persistUntil=0x7fffffff", false, "no number"),
        ("; URI; persistUntil=2027-01-01", false, "no number"),
        (
            "; URI; persistUntil=18446744073709551616",
            false,
            "no number",
        ),
        ("; URI; persistUntil=19 00000000", false, "no `tag=value`"),
        ("; URI;", false, "no `tag=value`"),
        ("; ; URI", false, "no `tag=value`"),
        ("; URI; policy", false, "no `tag=value`"),
        ("; =x; URI", false, "no `tag=value`"),
        ("; -a=x; URI", false, "no `tag=value`"),
        ("; a_b=x; URI", false, "no `tag=value`"),
        ("; a b=x; URI", false, "no `tag=value`"),
        ("; a=é; URI", false, "no `tag=value`"),
        ("; a=\u{7f}; URI", false, "no `tag=value`"),
        (
            "; accounturi=https://ca.example/acct 123",
            false,
            "no `tag=value`",
        ),
        ("; URI; URI", false, "twice"),
        ("; URI; AccountUri=x", false, "twice"),
        ("; x=1; URI; X=2", false, "twice"),
        (".; URI", false, "no domain name"),
    ] {
        let text = format!(
            "authority.example{}",
            rest.replace("URI", &uri)
                .replace(&format!("Account{uri}"), "AccountUri")
        );
        let reason = one(&text, wildcard).unwrap_err();
        assert!(reason.contains(why), "{text}: {reason}");
    }
}

#[test]
fn what_others_need_is_not_looked_at() {
    for text in [
        "",
        ";",
        "; accounturi=https://ca.example/acct/123",
        "other.example; accounturi=https://ca.example/acct/123",
        "sub.authority.example; accounturi=https://ca.example/acct/123",
        "authority.example accounturi=https://ca.example/acct/123",
        "authority.example, ca.example.net; accounturi=https://ca.example/acct/123",
        "v=spf1 -all",
        "\u{fffd}\0;;;===",
    ] {
        assert_eq!(
            one(text, false),
            Err("there is no such record".to_owned()),
            "{text}"
        );
    }
    let good = needed(false).text();
    let bad = "authority.example; accounturi=x";
    let texts = ["other.example; ;;", bad, "v=spf1 -all", good.as_str()];
    assert_eq!(needed(false).granted(texts, NOW), Ok(None));
    assert!(needed(false).granted([bad, ""], NOW).is_err());
    assert!(needed(false).granted([], NOW).is_err());
    // The one that holds longest counts.
    let until = |until: u64| format!("{good}; persistUntil={until}");
    let (old, soon, late) = (until(1), until(NOW + 5), until(NOW + 9));
    let texts = [late.as_str(), old.as_str(), soon.as_str()];
    assert_eq!(needed(false).granted(texts, NOW), Ok(Some(NOW + 9)));
    assert!(matches!(
        needed(false).compare([soon.as_str()], NOW),
        Likeness::Choice(_)
    ));
}

/// Each octet of a good text is taken away, doubled and replaced: nothing panics, and what is still taken names the account.
#[test]
fn damaged_texts_are_judged() {
    let mut persistent = needed(true);
    persistent.until = NOW + 77;
    let good = persistent.text();
    for at in 0..good.len() {
        for put in [
            "", ";", "=", " ", "\t", "-", ".", "\0", "é", "\"", "x", ";;", "==",
        ] {
            let mut text = good.clone();
            text.replace_range(at..=at, put);
            if persistent.granted([text.as_str()], NOW).is_ok() {
                assert!(text.contains(ACCOUNT), "{text}");
            }
            text.truncate(at);
            let cut = persistent.granted([text.as_str()], NOW);
            assert!(cut.is_err() || text.contains("policy=wildcard"), "{text}");
        }
    }
}

#[test]
fn long_ones_have_several_strings() {
    let mut persistent = needed(false);
    persistent.accounts = vec![format!("https://ca.example/{}", "a".repeat(300))];
    let text = persistent.text();
    let printed = Data::Txt(text.clone()).to_string();
    assert_eq!(printed.matches("\" \"").count(), 1);
    assert_eq!(persistent.granted([text.as_str()], NOW), Ok(None));
}
