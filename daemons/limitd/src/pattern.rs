//! Senders and recipients as the configuration writes them.

use types::Address;

/// `jane@example.org`, `example.org`, `.example.org`, `*` or `<>`, in the form in which it is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    /// `<>`
    Null,
    /// `*`
    Any,
    /// A whole address.
    Address(String),
    /// A domain.
    Domain(String),
    /// What is below a domain; begins with a dot.
    Below(String),
}

/// Several of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Patterns(Vec<Pattern>);

fn read(text: &str) -> Result<Pattern, String> {
    let fault = |error: types::AddressError| format!("{text:?}: {error}");
    if text == "<>" {
        return Ok(Pattern::Null);
    }
    if text == "*" {
        return Ok(Pattern::Any);
    }
    if text.contains('@') && !text.starts_with('@') {
        let address: Address = text.parse().map_err(fault)?;
        return Ok(Pattern::Address(address.key()));
    }
    if let Some(domain) = text.strip_prefix('.') {
        let domain = Address::domain_of(domain).map_err(fault)?;
        return Ok(Pattern::Below(format!(".{domain}")));
    }
    let domain = text.strip_prefix('@').unwrap_or(text);
    Address::domain_of(domain)
        .map(Pattern::Domain)
        .map_err(fault)
}

impl Patterns {
    pub(crate) fn new(texts: &[String]) -> Result<Self, String> {
        let patterns: Result<_, _> = texts.iter().map(|text| read(text)).collect();
        patterns.map(Self)
    }

    /// Those that mean hosts.
    pub(crate) fn of_hosts(texts: &[String]) -> Result<Self, String> {
        let patterns = Self::new(texts)?;
        let named = |one: &Pattern| matches!(one, Pattern::Domain(_) | Pattern::Below(_));
        match patterns.0.iter().position(|one| !named(one)) {
            Some(at) => Err(format!(
                "{:?} is no name of hosts",
                texts.get(at).map_or("", String::as_str)
            )),
            None => Ok(patterns),
        }
    }

    /// Whether one of them means the host.
    pub(crate) fn mean_host(&self, name: &str) -> bool {
        let Ok(name) = Address::domain_of(name.trim_end_matches('.')) else {
            return false;
        };
        self.0.iter().any(|pattern| match pattern {
            Pattern::Domain(domain) => *domain == name,
            Pattern::Below(below) => name.ends_with(below.as_str()),
            Pattern::Null | Pattern::Any | Pattern::Address(_) => false,
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one of them means the address; `None` is the null reverse-path.
    pub(crate) fn mean(&self, address: Option<&Address>) -> bool {
        self.0.iter().any(|pattern| match (pattern, address) {
            (Pattern::Any, _) => true,
            (Pattern::Null, address) => address.is_none(),
            (_, None) => false,
            (Pattern::Address(key), Some(address)) => address.key() == *key,
            (Pattern::Domain(domain), Some(address)) => address.domain() == domain,
            (Pattern::Below(below), Some(address)) => address.domain().ends_with(below.as_str()),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn patterns_mean_hosts() {
        let hosts = Patterns::of_hosts(&[".out.example".to_owned(), "mx.example".to_owned()]);
        let hosts = hosts.unwrap();
        assert!(hosts.mean_host("MX.example.") && hosts.mean_host("a.b.out.example"));
        for other in ["out.example", "not-out.example", "a.mx.example", "", "-"] {
            assert!(!hosts.mean_host(other), "{other}");
        }
        for wrong in ["*", "<>", "a@mx.example"] {
            assert!(Patterns::of_hosts(&[wrong.to_owned()]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn patterns_mean_addresses() {
        let mean = |pattern: &str, address: &str| {
            let address: Option<Address> = (address != "<>").then(|| address.parse().unwrap());
            Patterns::new(&[pattern.to_owned()])
                .unwrap()
                .mean(address.as_ref())
        };
        assert!(mean("jane@example.org", "Jane@EXAMPLE.org"));
        assert!(!mean("jane@example.org", "john@example.org"));
        assert!(mean("example.org", "x@example.org") && mean("@example.org", "x@example.org"));
        assert!(!mean("example.org", "x@sub.example.org"));
        assert!(
            mean(".example.org", "x@sub.example.org") && !mean(".example.org", "x@example.org")
        );
        assert!(mean("*", "<>") && mean("<>", "<>") && !mean("<>", "x@example.org"));
        assert!(!mean("example.org", "<>"));
        assert!(Patterns::new(&["a b".to_owned()]).is_err());
    }
}
