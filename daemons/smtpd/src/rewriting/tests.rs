#![allow(clippy::unwrap_used)]

use super::*;
use types::{Notify, Route};

fn rules(text: &str) -> Result<Option<Rewriting>, Failure> {
    let config: Config = toml::from_str(text).unwrap();
    Rewriting::new(&config)
}

fn one(from: &str, to: &str) -> Result<Option<Rewriting>, Failure> {
    rules(&format!("[[rewrite]]\nfrom = '{from}'\nto = '{to}'\n"))
}

const STRANGER: Circumstances<'_> = Circumstances {
    listener: "mx",
    login: false,
};
const USER: Circumstances<'_> = Circumstances {
    listener: "submission",
    login: true,
};

fn becomes(rewriting: &Rewriting, address: &str) -> String {
    let new = rewriting.rewrite(&address.parse().unwrap(), Place::Recipient, STRANGER);
    new.map_or_else(|| "-".to_owned(), |new| new.to_string())
}

#[test]
fn patterns_and_what_they_become() {
    for (from, to, given, wanted) in [
        (
            "jane@a.example",
            "j@b.example",
            "JANE@A.example",
            "j@b.example",
        ),
        ("jane@a.example", "j@b.example", "janet@a.example", "-"),
        (
            "@a.example",
            "@b.example",
            "Jane+x@a.example",
            "Jane+x@b.example",
        ),
        (
            "@a.example",
            "$1-old@b.example",
            "jane@a.example",
            "jane-old@b.example",
        ),
        ("@a.example", "@b.example", "jane@x.a.example", "-"),
        (
            ".a.example",
            "@a.example",
            "jane@x.y.a.example",
            "jane@a.example",
        ),
        (
            ".a.example",
            "$1@$2.b.example",
            "jane@x.y.a.example",
            "jane@x.y.b.example",
        ),
        (".a.example", "@a.example", "jane@a.example", "-"),
        (".a.example", "@a.example", "jane@xa.example", "-"),
        (
            r"/(.+)\.(.+)@a\.example/",
            "$2.$1@a.example",
            "Jane.Doe@a.example",
            "Doe.Jane@a.example",
        ),
        (
            r"/(.+)@a\.example/",
            "$1@b.example",
            "x@a.example.evil.example",
            "-",
        ),
        (r"/a|b/", "x@b.example", "ab@a.example", "-"),
        (
            r"/(.+)%(.+)@a\.example/",
            "$1@$2",
            "jane%b.example@a.example",
            "jane@b.example",
        ),
        (
            r"/list-(.*)@.*/",
            "$$$1@a.example",
            "list-x@a.example",
            "$x@a.example",
        ),
        // What comes out is no address.
        (r"/(.*)x@(.*)/", "$1@$2", "x@a.example", "-"),
        (r"/(.*)@(.*)/", "$1", "x@a.example", "-"),
        ("@a.example", "@a.example", "x@a.example", "-"),
    ] {
        let rewriting = one(from, to).unwrap().unwrap();
        assert_eq!(becomes(&rewriting, given), wanted, "{from} {to} {given}");
    }
    let quoted = one("@a.example", "@b.example").unwrap().unwrap();
    assert_eq!(becomes(&quoted, r#""a b"@a.example"#), r#""a b"@b.example"#);
}

#[test]
fn what_makes_no_sense_is_refused() {
    for (from, to) in [
        ("jane", "a@b.example"),
        ("@", "a@b.example"),
        ("/(/", "a@b.example"),
        ("/a)(b/", "a@b.example"),
        ("/a", "a@b.example"),
        ("@a.example", "nobody"),
        ("@a.example", "$2@b.example"),
        ("a@a.example", "$1@b.example"),
        ("@a.example", "$x@b.example"),
        ("@a.example", "jürgen@b.example"),
        ("/(a{1000}){1000}/", "a@b.example"),
    ] {
        let error = one(from, to).err().unwrap().to_string();
        assert!(error.starts_with("smtpd.rewrite, number 1: "), "{error}");
    }
    let long = format!("/{}/", "a".repeat(513));
    assert!(one(&long, "a@b.example").is_err());
    for text in [
        "[[bcc]]\nto = ['a@b.example']",
        "[[bcc]]\nsenders = ['*']\nto = []",
        "[[bcc]]\nsenders = ['*']\nto = ['a']",
        "[[bcc]]\nsenders = ['*']\nto = ['a@b.example']\nlisteners = ['nowhere']",
        "[[rewrite]]\nfrom = '@a.example'\nto = '@b.example'\nheader = true",
    ] {
        assert!(rules(text).is_err(), "{text}");
    }
    assert!(rules("").unwrap().is_none());
}

#[test]
fn the_first_rule_wins_and_there_is_one_pass() {
    let rewriting = rules(
        "[[rewrite]]\nfrom = 'a@x.example'\nto = 'b@x.example'\n\
         [[rewrite]]\nfrom = 'b@x.example'\nto = 'a@x.example'\n\
         [[rewrite]]\nfrom = '@x.example'\nto = '@y.example'\nlisteners = ['submission']\n\
         [[rewrite]]\nwhich = 'sender'\nfrom = '@z.example'\nto = '@y.example'\nlogin = true\n",
    );
    let rewriting = rewriting.unwrap().unwrap();
    assert_eq!(becomes(&rewriting, "a@x.example"), "b@x.example");
    assert_eq!(becomes(&rewriting, "b@x.example"), "a@x.example");
    assert_eq!(becomes(&rewriting, "c@x.example"), "-");
    let show = |address: &str, place, session| {
        let new = rewriting.rewrite(&address.parse().unwrap(), place, session);
        new.map_or_else(String::new, |new| new.to_string())
    };
    assert_eq!(show("c@x.example", Place::Recipient, USER), "c@y.example");
    assert_eq!(show("c@z.example", Place::Recipient, USER), "");
    assert_eq!(show("c@z.example", Place::Sender, USER), "c@y.example");
    assert_eq!(show("c@z.example", Place::Sender, STRANGER), "");
    assert_eq!(show("c@z.example", Place::Header, USER), "");
}

#[test]
fn fields_of_submissions() {
    let rewriting = rules(
        "[[rewrite]]\nwhich = 'both'\nfrom = '.in.example'\nto = '@in.example'\nheader = true\n",
    );
    let rewriting = rewriting.unwrap().unwrap();
    let message = "From: \"x@pc.in.example\" (not y@pc.in.example) <jane@pc.in.example>,\r\n bob@pc2.in.example\r\n\
                   To: jane@pc.in.example\r\nreply-to: Team: a@pc.in.example, \"b\\\"@\" <B@pc.in.example>;\r\n\
                   Sender: =?utf-8?q?J=C3=BCrgen?= <j@in.example>\r\n\r\nFrom: a@pc.in.example\r\n";
    let wanted = "From: \"x@pc.in.example\" (not y@pc.in.example) <jane@in.example>,\r\n bob@in.example\r\n\
                  To: jane@pc.in.example\r\nreply-to: Team: a@in.example, \"b\\\"@\" <B@in.example>;\r\n\
                  Sender: =?utf-8?q?J=C3=BCrgen?= <j@in.example>\r\n\r\nFrom: a@pc.in.example\r\n";
    let new = rewriting.header(message.as_bytes(), USER).unwrap();
    assert_eq!(String::from_utf8(new).unwrap(), wanted);
    assert!(rewriting.header(message.as_bytes(), STRANGER).is_none());
    assert!(rewriting.has_header_rules(USER) && !rewriting.has_header_rules(STRANGER));
    assert!(
        rewriting
            .header(b"From: (a@pc.in.example\r\n\r\n", USER)
            .is_none()
    );
}

#[test]
fn copies_are_for_those_who_do_not_get_it_anyway() {
    let rewriting = rules(
        "[[bcc]]\nrecipients = ['@a.example']\nto = ['archive@a.example', 'boss@a.example']\n\
         [[bcc]]\nsenders = ['jane@a.example']\nrecipients = ['@out.example']\nto = ['archive@a.example', 'j@a.example']\n\
         [[bcc]]\nsenders = ['<>']\nto = ['bounces@a.example']\nlisteners = ['mx']\n\
         [[bcc]]\nsenders = ['*']\nto = ['all@a.example']\nlisteners = ['submission']\n",
    );
    let rewriting = rewriting.unwrap().unwrap();
    let copies = |sender: &str, to: &[&str], session| {
        let recipient = |text: &&str| Recipient {
            address: text.parse().unwrap(),
            orcpt: None,
            notify: Notify::default(),
            route: Route::Local,
        };
        let recipients: Vec<Recipient> = to.iter().map(recipient).collect();
        let sender = sender.parse().ok();
        let added = rewriting.copies(sender.as_ref(), &recipients, session);
        let local = |address: &Address| address.local().to_owned();
        added.iter().map(local).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(
        copies("x@b.example", &["q@a.example"], STRANGER),
        "archive boss"
    );
    assert_eq!(
        copies("x@b.example", &["BOSS@a.example", "q@a.example"], STRANGER),
        "archive"
    );
    assert_eq!(copies("x@b.example", &["q@b.example"], STRANGER), "");
    assert_eq!(copies("", &["q@b.example"], STRANGER), "bounces");
    let both = &["q@a.example", "q@out.example"];
    assert_eq!(copies("jane@a.example", both, USER), "archive boss j all");
}
