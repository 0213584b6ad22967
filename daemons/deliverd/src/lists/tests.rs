#![allow(clippy::unwrap_used)]

use super::bounce::failed;
use super::footer::Letter;

fn with_footer(message: &str, footer: &str) -> String {
    let mut letter = Letter::of(message.as_bytes());
    letter.append(footer, "mark");
    String::from_utf8(letter.into_octets()).unwrap()
}

#[test]
fn footers_in_texts() {
    for (header, body, wanted) in [
        ("", "a", "a\r\n-- f\r\n"),
        (
            "Content-Type: text/plain; charset=\"ISO-8859-1\"\r\n",
            "a\r\n",
            "a\r\n-- f\r\n",
        ),
        (
            "Content-Transfer-Encoding: quoted-printable\r\n",
            "a=\r\nb=3D\r\n",
            "a=\r\nb=3D\r\n-- f\r\n",
        ),
        (
            "Content-Transfer-Encoding: BASE64\r\n",
            "YQo=\r\n",
            "YQotLSBmDQo=\r\n",
        ),
    ] {
        let message = format!("Subject: x\r\n{header}\r\n{body}");
        assert_eq!(
            with_footer(&message, "-- f\n"),
            format!("Subject: x\r\n{header}\r\n{wanted}")
        );
    }
    let eight =
        "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nä";
    assert!(with_footer(eight, "grüße").ends_with("\r\n\r\nä\r\ngrüße\r\n"));
    let quoted = "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n=C3=A4";
    assert!(with_footer(quoted, "grün = ja").ends_with("=C3=A4\r\ngr=C3=BCn =3D ja\r\n"));
}

#[test]
fn footers_as_parts() {
    let html = "MIME-Version: 1.0\r\nContent-Type: text/html\r\nSubject: x\r\n\r\n<p>";
    assert_eq!(
        with_footer(html, "f"),
        "MIME-Version: 1.0\r\nSubject: x\r\nContent-Type: multipart/mixed; boundary=\"=_list-mark\"\r\n\r\n\
         --=_list-mark\r\nContent-Type: text/html\r\n\r\n<p>\r\n--=_list-mark\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Content-Disposition: inline\r\nContent-Transfer-Encoding: 7bit\r\n\r\nf\r\n--=_list-mark--\r\n"
    );
    let mixed = "Content-Type: multipart/mixed;\r\n charset=x; boundary=\"a b\"\r\n\r\n--a b\r\n\r\none\r\n--a b-- \r\nepilogue\r\n";
    assert_eq!(
        with_footer(mixed, "ü"),
        "Content-Type: multipart/mixed;\r\n charset=x; boundary=\"a b\"\r\n\r\n--a b\r\n\r\none\r\n--a b\r\n\
         Content-Type: text/plain; charset=utf-8\r\nContent-Disposition: inline\r\nContent-Transfer-Encoding: base64\r\n\r\nw7wNCg==\r\n--a b-- \r\nepilogue\r\n"
    );
    // Its charset is not that of the footer.
    let latin = "Content-Type: text/plain; charset=iso-8859-1\r\n\r\na\r\n";
    assert!(with_footer(latin, "ü").contains("charset=iso-8859-1\r\n\r\na\r\n--=_list-mark\r\n"));
    let wide = "Content-Type: text/plain; charset=utf-16\r\nContent-Transfer-Encoding: base64\r\n\r\nYQA=\r\n";
    assert!(
        with_footer(wide, "f")
            .contains("Content-Transfer-Encoding: base64\r\n\r\nYQA=\r\n--=_list-mark\r\n")
    );
}

#[test]
fn what_is_signed_or_broken_stays() {
    for kind in [
        "multipart/signed; boundary=x",
        "Multipart/Encrypted; boundary=x",
        "application/pkcs7-mime; smime-type=signed-data",
        "multipart/mixed; boundary=never-closed",
    ] {
        let message = format!("Content-Type: {kind}\r\n\r\n--x\r\n\r\na\r\n--x--\r\n");
        assert_eq!(with_footer(&message, "f"), message);
    }
    let odd = "Content-Transfer-Encoding: rot13\r\n\r\na";
    assert_eq!(with_footer(odd, "f"), odd);
}

#[test]
fn members_in_reports() {
    let report = "Content-Type: multipart/report; boundary=x\r\n\r\n--x\r\n\r\nAction: failed\r\n--x\r\n\
        Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; a\r\n\r\n\
        Original-Recipient: rfc822;one@a.example\r\nFinal-Recipient: rfc822; uno@b.example\r\nAction: failed\r\nStatus: 5.1.1\r\n\r\n\
        Final-Recipient: rfc822;two@a.example\r\nAction: delayed\r\nStatus: 4.4.1\r\n\r\n\
        Final-Recipient: RFC822; <three@a.example>\r\naction: Failed\r\n--x\r\n\r\nFinal-Recipient: rfc822;four@a.example\r\nAction: failed\r\n--x--\r\n";
    let names: Vec<String> = failed(report.as_bytes())
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(names, ["one@a.example", "uno@b.example", "three@a.example"]);
    assert!(failed(b"Action: failed\r\nFinal-Recipient: rfc822;x@a.example\r\n").is_empty());
}
