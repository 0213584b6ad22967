//! What is said to a request.

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Method, Response, StatusCode};
use http_body_util::Full;

/// A body that is there in whole.
pub(crate) type Body = Full<Bytes>;

/// On each answer: nothing of ours runs scripts, is framed or is guessed at.
const ALWAYS: [(HeaderName, &str); 4] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    ),
    (header::REFERRER_POLICY, "no-referrer"),
    // RFC 8461 3.3: senders do not go by HTTP's caching, and others need not.
    (header::CACHE_CONTROL, "no-cache"),
];

/// Instead, on a page with a form.
const FORM_POLICY: &str =
    "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'";

/// The methods of nearly everything.
const READ: &str = "GET, HEAD";

/// An answer before it is dressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    kind: &'static str,
    text: String,
    location: Option<String>,
    allow: &'static str,
    has_form: bool,
}

impl Answer {
    /// 200 with text.
    pub(crate) fn text(kind: &'static str, text: String) -> Self {
        Self {
            status: StatusCode::OK,
            kind,
            text,
            location: None,
            allow: READ,
            has_form: false,
        }
    }

    /// A page for people, with a form that posts to where it is.
    pub(crate) fn page(text: String) -> Self {
        Self {
            has_form: true,
            ..Self::text("text/html; charset=utf-8", text)
        }
    }

    /// 405 where both is possible, to look and to do.
    pub(crate) fn read_or_post() -> Self {
        Self {
            allow: "GET, HEAD, POST",
            ..Self::status(StatusCode::METHOD_NOT_ALLOWED)
        }
    }

    /// 405 where questions are posted.
    pub(crate) fn post_only() -> Self {
        Self {
            allow: "POST",
            ..Self::status(StatusCode::METHOD_NOT_ALLOWED)
        }
    }

    /// A status with its words as text.
    pub(crate) fn status(status: StatusCode) -> Self {
        let words = status.canonical_reason().unwrap_or_default();
        Self {
            status,
            kind: "text/plain; charset=utf-8",
            text: format!("{words}\n"),
            location: None,
            allow: READ,
            has_form: false,
        }
    }

    /// The same at another place, with the same method (RFC 9110 15.4.9).
    pub(crate) fn elsewhere(location: String) -> Self {
        Self {
            location: Some(location),
            ..Self::status(StatusCode::PERMANENT_REDIRECT)
        }
    }

    /// As it goes out. `hsts` is the time of RFC 6797 6.1.1, for answers by HTTPS.
    pub(crate) fn dressed(self, method: &Method, hsts: Option<u32>) -> Response<Body> {
        let length = self.text.len();
        let body = match *method {
            Method::HEAD => Bytes::new(),
            _ => self.text.into(),
        };
        let mut response = Response::new(Full::new(body));
        *response.status_mut() = self.status;
        let fields = response.headers_mut();
        for (name, value) in ALWAYS {
            fields.insert(name, HeaderValue::from_static(value));
        }
        if self.has_form {
            let policy = HeaderValue::from_static(FORM_POLICY);
            fields.insert(header::CONTENT_SECURITY_POLICY, policy);
        }
        fields.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.kind));
        fields.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        if self.status == StatusCode::METHOD_NOT_ALLOWED {
            fields.insert(header::ALLOW, HeaderValue::from_static(self.allow));
        }
        let location = self.location.as_deref().map(HeaderValue::from_str);
        if let Some(Ok(location)) = location {
            fields.insert(header::LOCATION, location);
        }
        let hsts = hsts.map(|seconds| HeaderValue::from_str(&format!("max-age={seconds}")));
        if let Some(Ok(hsts)) = hsts {
            fields.insert(header::STRICT_TRANSPORT_SECURITY, hsts);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use http_body_util::BodyExt as _;

    #[tokio::test]
    async fn head_has_the_fields_of_get_and_no_body() {
        let answer = || Answer::text("text/plain", "a\r\n".to_owned());
        let get = answer().dressed(&Method::GET, Some(60));
        let head = answer().dressed(&Method::HEAD, Some(60));
        assert_eq!(get.headers(), head.headers());
        assert_eq!(get.headers()[header::CONTENT_LENGTH], "3");
        assert_eq!(
            get.headers()[header::STRICT_TRANSPORT_SECURITY],
            "max-age=60"
        );
        assert_eq!(get.into_body().collect().await.unwrap().to_bytes(), "a\r\n");
        assert!(
            head.into_body()
                .collect()
                .await
                .unwrap()
                .to_bytes()
                .is_empty()
        );
    }

    #[test]
    fn refusals_say_what_would_do() {
        let no = Answer::status(StatusCode::METHOD_NOT_ALLOWED).dressed(&Method::POST, None);
        assert_eq!(no.headers()[header::ALLOW], "GET, HEAD");
        assert!(!no.headers().contains_key(header::STRICT_TRANSPORT_SECURITY));
        let there = Answer::elsewhere("https://a/b".to_owned()).dressed(&Method::GET, None);
        assert_eq!(there.status(), 308);
        assert_eq!(there.headers()[header::LOCATION], "https://a/b");
    }
}
