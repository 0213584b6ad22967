//! What smtpd found out about the author of a message. It stands in the prefix, where nobody else can write.

/// The results that matter to a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Findings {
    /// Whether there are any.
    pub(super) checked: bool,
    spf: String,
    dmarc: String,
    policy: String,
    /// The domains whose signatures held.
    signers: Vec<String>,
}

impl Findings {
    /// Reads them from the prefix of a message.
    pub(super) fn of(prefix: &[u8]) -> Self {
        let mut found = Self::default();
        // The newest stands first; what stands below was found about an earlier way.
        let field = message::Fields::new(prefix)
            .find(|field| field.name.eq_ignore_ascii_case(b"authentication-results"));
        let Some(field) = field else { return found };
        found.checked = true;
        let value = uncommented(&String::from_utf8_lossy(field.value));
        for part in value.split(';').skip(1) {
            let mut words = part.split_ascii_whitespace();
            let Some((method, result)) = words.next().and_then(|word| word.split_once('=')) else {
                continue;
            };
            let property = |name: &str| {
                let mut pairs = part
                    .split_ascii_whitespace()
                    .filter_map(|w| w.split_once('='));
                pairs
                    .find(|(key, _)| *key == name)
                    .map(|(_, value)| value.to_owned())
            };
            match method {
                "spf" if property("smtp.mailfrom").is_some() => result.clone_into(&mut found.spf),
                "dkim" if result == "pass" => found.signers.extend(property("header.d")),
                "dmarc" => {
                    result.clone_into(&mut found.dmarc);
                    found.policy = property("policy.dmarc").unwrap_or_default();
                }
                _ => {}
            }
        }
        found
    }

    /// Whether the author is who From says, as far as one can know.
    pub(super) fn is_author(&self) -> bool {
        match self.dmarc.as_str() {
            "pass" => true,
            "fail" => false,
            // The domain publishes no policy, or DNS did not answer: the envelope must not be known to be forged.
            _ => self.spf != "fail",
        }
    }

    /// Whether DMARC says so: enough for those who claim to be one of us.
    pub(super) fn is_proven(&self) -> bool {
        self.dmarc == "pass"
    }

    /// Whether the reverse-path is known to be forged: then nobody is answered.
    pub(super) fn forged_sender(&self) -> bool {
        self.dmarc == "fail" || matches!(self.spf.as_str(), "fail" | "softfail")
    }

    /// Whether receivers will refuse the author's mail, or put it aside, when it comes from us. What is not known counts as yes.
    pub(super) fn needs_our_name(&self, author: &str, unchanged: bool) -> bool {
        let strict = match self.dmarc.as_str() {
            "pass" | "fail" => matches!(self.policy.as_str(), "quarantine" | "reject"),
            "none" => false,
            _ => true,
        };
        // RFC 7489 3.1.1: a signature of the author's domain that still holds is enough.
        let survives = unchanged && self.signers.iter().any(|signer| aligned(signer, author));
        strict && !survives
    }
}

/// Whether one of them is the other, or below it.
fn aligned(signer: &str, author: &str) -> bool {
    let below = |a: &str, b: &str| {
        let rest = a.len().checked_sub(b.len()).and_then(|at| a.get(..at));
        a.to_ascii_lowercase().ends_with(&b.to_ascii_lowercase())
            && rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    below(signer, author) || (below(author, signer) && signer.contains('.'))
}

/// Without comments; our field has them unnested.
fn uncommented(value: &str) -> String {
    let mut depth = 0_u32;
    let mut out = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            c if depth == 0 => out.push(c),
            _ => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(results: &str) -> Findings {
        let prefix =
            format!("Received: x\r\nAuthentication-Results: mx.us.example;\r\n\t{results}\r\n");
        Findings::of(prefix.as_bytes())
    }

    #[test]
    fn who_is_believed() {
        let good = found(
            "spf=fail smtp.mailfrom=x@a.example; dmarc=pass header.from=a.example policy.dmarc=reject",
        );
        assert!(good.is_author() && good.is_proven() && good.checked);
        let none =
            found("spf=pass smtp.mailfrom=x@a.example;\r\n\tdmarc=none header.from=a.example");
        assert!(none.is_author() && !none.is_proven());
        assert!(!found("spf=fail smtp.mailfrom=x@a.example; dmarc=none").is_author());
        assert!(
            !found("spf=pass smtp.mailfrom=x@b.example; dmarc=fail policy.dmarc=none").is_author()
        );
        assert!(
            Findings::of(b"Received: x\r\n\r\nAuthentication-Results: x; dmarc=pass\r\n")
                == Findings::default()
        );
    }

    #[test]
    fn whose_name_stands_in_from() {
        let strict = found(
            "dkim=pass (x; dkim=fail) header.d=mail.a.example; dmarc=pass policy.dmarc=quarantine",
        );
        assert!(strict.needs_our_name("a.example", false));
        assert!(!strict.needs_our_name("a.example", true));
        assert!(strict.needs_our_name("b.example", true));
        assert!(strict.needs_our_name("xa.example", true));
        assert!(!found("dmarc=pass policy.dmarc=none").needs_our_name("a.example", false));
        assert!(!found("dmarc=none").needs_our_name("a.example", false));
        assert!(found("dmarc=temperror").needs_our_name("a.example", false));
        assert!(Findings::default().needs_our_name("a.example", false));
    }
}
