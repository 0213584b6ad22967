//! ENVELOPE and BODYSTRUCTURE of ordinary and of difficult mail.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use message::{Limits, Parsed, body_of};

fn parse(text: &str) -> Parsed {
    message::parse(
        b"",
        text.replace('\n', "\r\n").as_bytes(),
        &Limits::default(),
    )
}

fn envelope(header: &str) -> String {
    String::from_utf8(parse(&format!("{header}\n\nbody\n")).envelope).unwrap()
}

fn structure(text: &str) -> String {
    String::from_utf8(parse(text).structure).unwrap()
}

/// The From list that this From field gives.
fn from(value: &str) -> String {
    let envelope = envelope(&format!("From: {value}"));
    // Sender and Reply-To repeat it, so it is the first third of what stands between the NILs.
    let inner = envelope
        .strip_prefix("(NIL NIL ")
        .unwrap()
        .strip_suffix(" NIL NIL NIL NIL NIL)")
        .unwrap();
    inner[..(inner.len() - 2) / 3].to_owned()
}

#[test]
fn an_ordinary_envelope() {
    let header = "Date: Wed, 17 Jul 1996 02:23:25 -0700 (PDT)\nFrom: Terry Gray <gray@cac.example>\n\
        Subject: IMAP4rev2 WG mtg\n summary and minutes\nTo: imap@cac.example\n\
        cc: minutes@cnri.example, \"John K\" <klensin@mit.example>\nMessage-Id: <B27397-0100000@cac.example>\n\
        In-Reply-To: <1@x>";
    assert_eq!(
        envelope(header),
        "(\"Wed, 17 Jul 1996 02:23:25 -0700 (PDT)\" \"IMAP4rev2 WG mtg summary and minutes\" \
        ((\"Terry Gray\" NIL \"gray\" \"cac.example\")) ((\"Terry Gray\" NIL \"gray\" \"cac.example\")) \
        ((\"Terry Gray\" NIL \"gray\" \"cac.example\")) ((NIL NIL \"imap\" \"cac.example\")) \
        ((NIL NIL \"minutes\" \"cnri.example\")(\"John K\" NIL \"klensin\" \"mit.example\")) NIL \"<1@x>\" \
        \"<B27397-0100000@cac.example>\")"
    );
}

#[test]
fn addresses_of_all_kinds() {
    for (value, list) in [
        ("a@b", r#"((NIL NIL "a" "b"))"#),
        (
            "A B <a@b>, c@d",
            r#"(("A B" NIL "a" "b")(NIL NIL "c" "d"))"#,
        ),
        (r#""A, B" <a@b>"#, r#"(("A, B" NIL "a" "b"))"#),
        ("a@b (Comment)", r#"(("Comment" NIL "a" "b"))"#),
        (
            "G: a@b, C <c@d>;",
            r#"((NIL NIL "G" NIL)(NIL NIL "a" "b")("C" NIL "c" "d")(NIL NIL NIL NIL))"#,
        ),
        (
            "undisclosed-recipients:;",
            r#"((NIL NIL "undisclosed-recipients" NIL)(NIL NIL NIL NIL))"#,
        ),
        ("<@r1,@r2:a@b>", r#"((NIL "@r1,@r2" "a" "b"))"#),
        (r#""q\"x" <"l p"@b>"#, r#"(("q\"x" NIL "l p" "b"))"#),
        (
            "=?utf-8?q?a=2C_b?= <a@b>",
            r#"(("=?utf-8?q?a=2C_b?=" NIL "a" "b"))"#,
        ),
        (
            "Deal Shopper",
            r#"(("Deal Shopper" NIL "MISSING_MAILBOX" "MISSING_DOMAIN"))"#,
        ),
        ("word", r#"((NIL NIL "word" "MISSING_DOMAIN"))"#),
        ("A <a@b", r#"(("A" NIL "a" "SYNTAX_ERROR"))"#),
        ("<>", r#"((NIL NIL "MISSING_MAILBOX" "MISSING_DOMAIN"))"#),
        (
            "A.B. <a..b.@[127.0.0.1]>",
            r#"(("A.B." NIL "a..b." "[127.0.0.1]"))"#,
        ),
        ("A\n B <a@b>", r#"(("A B" NIL "a" "b"))"#),
    ] {
        assert_eq!(from(value), list, "{value:?}");
    }
}

#[test]
fn strings_are_quoted_or_literal() {
    assert_eq!(
        envelope("Subject: a \"b\" \\ c"),
        "(NIL \"a \\\"b\\\" \\\\ c\" NIL NIL NIL NIL NIL NIL NIL NIL)"
    );
    assert_eq!(
        envelope("Subject: ä"),
        "(NIL {2}\r\nä NIL NIL NIL NIL NIL NIL NIL NIL)"
    );
    assert_eq!(
        envelope("Subject: \"\"\"\"\""),
        "(NIL {5}\r\n\"\"\"\"\" NIL NIL NIL NIL NIL NIL NIL NIL)"
    );
    assert_eq!(
        envelope("Subject:\nFrom:"),
        "(NIL \"\" NIL NIL NIL NIL NIL NIL NIL NIL)"
    );
}

#[test]
fn several_fields_of_one_name_hide_nobody() {
    let both = r#"((NIL NIL "a" "b")(NIL NIL "c" "d"))"#;
    assert_eq!(
        envelope("From: a@b\nFrom: c@d"),
        format!("(NIL NIL {both} {both} {both} NIL NIL NIL NIL NIL)")
    );
}

#[test]
fn plain_text() {
    assert_eq!(
        structure("From: a@b\n\none\ntwo\n"),
        r#"("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 10 2 NIL NIL NIL NIL)"#
    );
    assert_eq!(
        structure(
            "Content-Type: Text/HTML; x=1; charset=\"utf-8\"\nContent-Transfer-Encoding: base64\nContent-ID: <i@d>\n\
            Content-Description: d\nContent-MD5: m\nContent-Language: de, en\nContent-Location: l\n\
            Content-Disposition: attachment; filename=x.html\n\nx"
        ),
        r#"("Text" "HTML" ("x" "1" "charset" "utf-8") "<i@d>" "d" "base64" 1 0 "m" ("attachment" ("filename" "x.html")) ("de" "en") "l")"#
    );
}

const NESTED: &str = "Subject: outer\nContent-Type: multipart/mixed; boundary=b\n\npreamble\n--b\n\none\n--b\n\
    Content-Type: message/rfc822\n\nSubject: inner\nFrom: x@y\nContent-Type: multipart/alternative; boundary=c\n\n\
    --c\n\ntext\n--c\nContent-Type: text/html\n\n<p>\n--c--\n\n--b--\nepilogue\n";

#[test]
fn messages_in_multiparts_and_back() {
    assert_eq!(
        structure(NESTED),
        concat!(
            r#"(("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 3 0 NIL NIL NIL NIL)"#,
            r#"("message" "rfc822" NIL NIL NIL "7bit" 135 (NIL "inner" ((NIL NIL "x" "y")) ((NIL NIL "x" "y")) "#,
            r#"((NIL NIL "x" "y")) NIL NIL NIL NIL NIL) "#,
            r#"(("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 4 0 NIL NIL NIL NIL)"#,
            r#"("text" "html" ("charset" "us-ascii") NIL NIL "7bit" 3 0 NIL NIL NIL NIL)"#,
            r#" "alternative" ("boundary" "c") NIL NIL NIL) 12 NIL NIL NIL NIL)"#,
            r#" "mixed" ("boundary" "b") NIL NIL NIL)"#
        )
    );
    let body = body_of(&parse(NESTED).structure).unwrap();
    assert_eq!(
        String::from_utf8(body).unwrap(),
        concat!(
            r#"(("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 3 0)"#,
            r#"("message" "rfc822" NIL NIL NIL "7bit" 135 (NIL "inner" ((NIL NIL "x" "y")) ((NIL NIL "x" "y")) "#,
            r#"((NIL NIL "x" "y")) NIL NIL NIL NIL NIL) "#,
            r#"(("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 4 0)"#,
            r#"("text" "html" ("charset" "us-ascii") NIL NIL "7bit" 3 0) "alternative") 12) "mixed")"#
        )
    );
}

#[test]
fn boundaries_as_they_occur() {
    let mixed = |body: &str| {
        structure(&format!(
            "Content-Type: multipart/mixed; boundary=\"b\"\n\n{body}"
        ))
    };
    let text = |size, lines| {
        format!(
            "(\"text\" \"plain\" (\"charset\" \"us-ascii\") NIL NIL \"7bit\" {size} {lines} NIL NIL NIL NIL)"
        )
    };
    let end = r#" "mixed" ("boundary" "b") NIL NIL NIL)"#;
    // Empty, unclosed, with white space behind, longer than announced, reopened after the end.
    assert_eq!(mixed("--b--\n"), format!("({}{end}", text(0, 0)));
    assert_eq!(mixed("--b\n\nx\n"), format!("({}{end}", text(3, 1)));
    assert_eq!(
        mixed("--b \n\nx\n--b-- \n"),
        format!("({}{end}", text(1, 0))
    );
    assert_eq!(mixed("--bx\n\nx\n--b--"), format!("({}{end}", text(1, 0)));
    assert_eq!(
        mixed("--b\n\nx\n--b--\n--b\n\ny\n"),
        format!("({}{end}", text(1, 0))
    );
    assert_eq!(mixed("--b\nX: y\n--b--\n"), format!("({}{end}", text(0, 0)));
    // The inner multipart is ended by the outer boundary.
    let inner = "--b\nContent-Type: multipart/mixed; boundary=bb\n\n--bb\n\n1\n--b\n\n22\n--b--\n";
    assert_eq!(
        mixed(inner),
        format!(
            "(({} \"mixed\" (\"boundary\" \"bb\") NIL NIL NIL){}{end}",
            text(1, 0),
            text(2, 0)
        )
    );
    // No boundary parameter at all.
    assert_eq!(
        structure("Content-Type: multipart/mixed\n\nx\n"),
        format!("({} \"mixed\" NIL NIL NIL NIL)", text(0, 0))
    );
}

#[test]
fn digests_hold_messages() {
    let found =
        structure("Content-Type: multipart/digest; boundary=b\n\n--b\n\nSubject: 1\n\nx\n--b--\n");
    assert!(
        found.starts_with(r#"(("message" "rfc822" NIL NIL NIL "7bit" 15 (NIL "1" NIL"#),
        "{found}"
    );
}

#[test]
fn parameters_in_pieces() {
    for (written, shown) in [
        ("name*0=a; name*1=b", r#"("name" "ab""#),
        ("name*0*=utf-8''a; name*1=b%", r#"("name*" "utf-8''ab%25""#),
        ("name*1=b; name*0=a", r#"("name" "ab""#),
        ("name*0=a; name*2=b", r#"("name*0" "a" "name*2" "b""#),
        ("name*=utf-8''a%20b", r#"("name*" "utf-8''a%20b""#),
        ("a=\"x\\\"y\"; b", r#"("a" "x\"y""#),
    ] {
        let found = structure(&format!("Content-Type: text/plain; {written}\n\nx"));
        let expected = format!(r#"("text" "plain" {shown} "charset" "us-ascii") "#);
        assert!(found.starts_with(&expected), "{written}: {found}");
    }
}
