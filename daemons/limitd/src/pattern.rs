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
