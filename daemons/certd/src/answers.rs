//! What the responders say while an order is under way.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The answers of all challenges that wait. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answers(Arc<Mutex<Waiting>>);

#[derive(Debug, Default)]
struct Waiting {
    /// HTTP-01: by token, the name that it is for and what is said.
    tokens: HashMap<String, (String, String)>,
    /// TLS-ALPN-01: by name, the digest in the certificate.
    names: HashMap<String, [u8; 32]>,
}

/// An answer that is given until this is dropped.
#[derive(Debug)]
pub(crate) struct Answer {
    answers: Answers,
    key: Key,
}

#[derive(Debug)]
enum Key {
    Token(String),
    Name(String),
}

impl Answers {
    /// HTTP-01 (RFC 8555 8.3).
    pub(crate) fn say_token(&self, token: &str, name: &str, text: String) -> Answer {
        let said = (name.to_ascii_lowercase(), text);
        self.waiting().tokens.insert(token.to_owned(), said);
        self.answer(Key::Token(token.to_owned()))
    }

    /// TLS-ALPN-01 (RFC 8737 3).
    pub(crate) fn say_name(&self, name: &str, digest: [u8; 32]) -> Answer {
        let name = name.to_ascii_lowercase();
        self.waiting().names.insert(name.clone(), digest);
        self.answer(Key::Name(name))
    }

    pub(crate) fn token(&self, token: &str) -> Option<String> {
        let waiting = self.waiting();
        waiting.tokens.get(token).map(|(_, text)| text.clone())
    }

    /// The same, if it is for this name.
    pub(crate) fn token_for(&self, token: &str, name: &str) -> Option<String> {
        let waiting = self.waiting();
        let (of, text) = waiting.tokens.get(token)?;
        of.eq_ignore_ascii_case(name).then(|| text.clone())
    }

    pub(crate) fn name(&self, name: &str) -> Option<[u8; 32]> {
        let name = name.to_ascii_lowercase();
        self.waiting().names.get(&name).copied()
    }

    fn answer(&self, key: Key) -> Answer {
        Answer {
            answers: self.clone(),
            key,
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        let mut waiting = self.answers.waiting();
        match &self.key {
            Key::Token(token) => drop(waiting.tokens.remove(token)),
            Key::Name(name) => drop(waiting.names.remove(name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_end_with_their_order() {
        let answers = Answers::default();
        let one = answers.say_token("t", "A.example", "t.thumb".to_owned());
        let two = answers.say_name("A.example", [7; 32]);
        assert_eq!(answers.token("t").as_deref(), Some("t.thumb"));
        assert_eq!(answers.token_for("t", "a.example"), answers.token("t"));
        assert_eq!(answers.token_for("t", "b.example"), None);
        assert_eq!(answers.name("a.EXAMPLE"), Some([7; 32]));
        drop(one);
        drop(two);
        assert_eq!(answers.token("t"), None);
        assert_eq!(answers.name("a.example"), None);
    }
}
