//! Leaving a mailing list by a link (RFC 8058). A mail program posts one word; people who follow the link see a button that does. To
//! look at a link does nothing: those who check mail do so.

use crate::answer::Answer;
use crate::autoconfig::QUESTION_MAX;
use crate::service::{Caller, Front};
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{Method, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use ipc::api::authd::{ListLeft, ListUnsubscribe};
use types::xml::escape;

/// RFC 8058 3.2
const NAME: &str = "List-Unsubscribe";
const VALUE: &str = "One-Click";

impl Front {
    pub(crate) async fn unsubscribed(
        &self,
        caller: Caller,
        parts: &Parts,
        token: &str,
        body: Incoming,
    ) -> Answer {
        let leave = match parts.method {
            Method::POST => true,
            Method::GET | Method::HEAD => false,
            _ => return Answer::read_or_post(),
        };
        let Ok(body) = Limited::new(body, QUESTION_MAX).collect().await else {
            return Answer::status(StatusCode::PAYLOAD_TOO_LARGE);
        };
        let kind = parts.headers.get(CONTENT_TYPE);
        let kind = kind.map_or("", |value| value.to_str().unwrap_or_default());
        if leave && !is_one_click(kind, &body.to_bytes()) {
            return Answer::status(StatusCode::BAD_REQUEST);
        }
        let question = ListUnsubscribe {
            token: token.to_owned(),
            leave,
        };
        match self.authd.call(caller.trace, &question).await {
            Ok(Some(left)) => Answer::page(page(&left, leave)),
            Ok(None) => Answer::status(StatusCode::NOT_FOUND),
            Err(error) => {
                tracing::warn!(trace = %caller.trace, %error, "authd does not answer for a link");
                Answer::status(StatusCode::SERVICE_UNAVAILABLE)
            }
        }
    }
}

/// What people see.
fn page(left: &ListLeft, done: bool) -> String {
    let text = match (&left.list, done) {
        (None, _) => "<p>You are no member of this list.</p>".to_owned(),
        (Some(list), true) => format!("<p>You get no more posts of {}.</p>", escape(list)),
        (Some(list), false) => format!(
            "<p>Do you want no more posts of {}?</p>\n<form method=\"post\">\
             <input type=\"hidden\" name=\"{NAME}\" value=\"{VALUE}\"><button>Leave the list</button></form>",
            escape(list)
        ),
    };
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"robots\" content=\"noindex\">\
         <title>Mailing list</title></head><body>\n{text}\n</body></html>\n"
    )
}

/// Whether a body says what RFC 8058 3.2 wants said, in one of its two forms.
fn is_one_click(kind: &str, body: &[u8]) -> bool {
    let text = String::from_utf8_lossy(body);
    let (kind, parameters) = kind.split_once(';').unwrap_or((kind, ""));
    match kind.trim().to_ascii_lowercase().as_str() {
        "" | "application/x-www-form-urlencoded" => text
            .trim()
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .any(|(name, value)| plain(name) == NAME && plain(value) == VALUE),
        // RFC 7578 4
        "multipart/form-data" => boundary(parameters).is_some_and(|boundary| {
            let line = format!("--{boundary}");
            text.split(&line).skip(1).any(is_one_click_part)
        }),
        _ => false,
    }
}

/// The octets of `%2D` (WHATWG URL 5.1) are letters here, or it is not the word.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        let code = after.get(..2);
        let octet = code.and_then(|code| u8::from_str_radix(code, 16).ok());
        out.push(octet.map_or('%', char::from));
        rest = match octet {
            Some(_) => after.get(2..).unwrap_or_default(),
            None => after,
        };
    }
    out.push_str(rest);
    out
}

fn boundary(parameters: &str) -> Option<&str> {
    let value = parameters.split(';').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim()
            .eq_ignore_ascii_case("boundary")
            .then_some(value)
    })?;
    let value = value.trim().trim_matches('"');
    (1..=70).contains(&value.len()).then_some(value)
}

fn is_one_click_part(part: &str) -> bool {
    let Some((header, content)) = part
        .split_once("\r\n\r\n")
        .or_else(|| part.split_once("\n\n"))
    else {
        return false;
    };
    let named = header.lines().any(|line| {
        let lower = line.to_ascii_lowercase();
        lower.starts_with("content-disposition:")
            && line.split(';').any(|parameter| {
                let (key, value) = parameter.split_once('=').unwrap_or_default();
                key.trim().eq_ignore_ascii_case("name") && value.trim().trim_matches('"') == NAME
            })
    });
    named && content.trim() == VALUE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        let form = "application/x-www-form-urlencoded";
        for (kind, body, wanted) in [
            (form, "List-Unsubscribe=One-Click", true),
            (
                "Application/X-WWW-Form-URLEncoded; charset=utf-8",
                "a=b&List%2dUnsubscribe=One%2DClick\r\n",
                true,
            ),
            ("", "List-Unsubscribe=One-Click", true),
            (form, "List-Unsubscribe=No", false),
            (form, "List-Unsubscribe", false),
            (form, "", false),
            (form, "List-Unsubscribe=One-Click%", false),
            ("text/plain", "List-Unsubscribe=One-Click", false),
            (
                "multipart/form-data; boundary=\"b b\"",
                "--b b\r\nContent-Disposition: form-data; name=\"List-Unsubscribe\"\r\n\r\nOne-Click\r\n--b b--\r\n",
                true,
            ),
            (
                "multipart/form-data; boundary=b",
                "--b\r\nContent-Disposition: form-data; name=x\r\n\r\ny\r\n--b\r\ncontent-disposition: form-data; name=List-Unsubscribe\r\n\
                 Content-Type: text/plain\r\n\r\nOne-Click\r\n--b--",
                true,
            ),
            (
                "multipart/form-data; boundary=b",
                "--b\r\nContent-Disposition: form-data; name=\"x\"\r\n\r\nOne-Click\r\n--b--\r\n",
                false,
            ),
            (
                "multipart/form-data",
                "--\r\nContent-Disposition: form-data; name=List-Unsubscribe\r\n\r\nOne-Click\r\n--",
                false,
            ),
        ] {
            assert_eq!(is_one_click(kind, body.as_bytes()), wanted, "{kind} {body}");
        }
    }

    #[test]
    fn a_page_shows_a_button_and_no_markup_of_others() {
        let list = Some("a'<b>&\"c\"@x.example".to_owned());
        let shown = page(&ListLeft { list: list.clone() }, false);
        assert!(shown.contains("a&apos;&lt;b&gt;&amp;&quot;c&quot;@x.example"));
        assert!(shown.contains("<form method=\"post\">") && !shown.contains("<script"));
        assert!(!page(&ListLeft { list }, true).contains("<form"));
        assert!(!page(&ListLeft { list: None }, false).contains("<form"));
    }
}
