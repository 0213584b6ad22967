//! The record by which an authority sees for good that a domain is ours: DNS-PERSIST-01 (draft-ietf-acme-dns-persist-01).
//!
//! One record an authority, all of them at one name. Its text is an issue-value as in CAA (RFC 8659 4.2).

use crate::policy::Likeness;

/// Stands before the domain.
const LABEL: &str = "_validation-persist";
/// What ends within so many seconds is said beforehand.
const SOON: u64 = 30 * 86_400;

/// The record that is needed for a domain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Persistent {
    /// The domain: A-label, lower case.
    pub domain: String,
    /// The authority's issuer domain names, any of which does; the first is written.
    pub issuers: Vec<String>,
    /// The URIs of our account, any of which does; the first is written.
    pub accounts: Vec<String>,
    /// Whether `policy=wildcard` is needed.
    pub wildcard: bool,
    /// Seconds since 1970 after which what is written counts no more; 0: it counts always.
    pub until: u64,
}

/// What a record of one of our issuers says.
#[derive(Debug, Default)]
struct Grant<'a> {
    account: Option<&'a str>,
    wildcard: bool,
    until: Option<u64>,
}

impl Persistent {
    /// Where the record is.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{LABEL}.{}", self.domain)
    }

    /// What it says.
    #[must_use]
    pub fn text(&self) -> String {
        let first = |list: &[String]| list.first().cloned().unwrap_or_default();
        let (issuer, account) = (first(&self.issuers), first(&self.accounts));
        let mut text = format!("{issuer}; accounturi={account}");
        if self.wildcard {
            text.push_str("; policy=wildcard");
        }
        if self.until > 0 {
            text.push_str(&format!("; persistUntil={}", self.until));
        }
        text
    }

    /// Whether one of the texts at the name does; until when, if it says so.
    ///
    /// # Errors
    /// Why none does.
    pub fn granted<'a>(
        &self,
        texts: impl IntoIterator<Item = &'a str>,
        now: u64,
    ) -> Result<Option<u64>, String> {
        let mut reasons = Vec::new();
        let mut best = None;
        // Records of other issuers are theirs (4.3.2).
        for text in texts.into_iter().filter(|text| self.is_ours(text)) {
            match self.judge(text, now) {
                Ok(None) => return Ok(None),
                Ok(until) => best = best.max(until),
                Err(reason) => reasons.push(reason),
            }
        }
        match (best, reasons.is_empty()) {
            (Some(_), _) => Ok(best),
            (None, true) => Err("there is no such record".to_owned()),
            (None, false) => Err(reasons.join("; ")),
        }
    }

    /// Whether a text is of one of the issuers, be it in order or not.
    #[must_use]
    pub fn is_ours(&self, text: &str) -> bool {
        let issuer = text.split(';').next().unwrap_or_default();
        let issuer = issuer.trim_matches(BLANK).trim_end_matches('.');
        self.issuers
            .iter()
            .any(|own| own.eq_ignore_ascii_case(issuer))
    }

    fn judge(&self, text: &str, now: u64) -> Result<Option<u64>, String> {
        let grant = Grant::parse(text)?;
        let account = grant.account.ok_or("it has no `accounturi`")?;
        // RFC 3986 6.2.1: octet by octet.
        if !self.accounts.iter().any(|own| own == account) {
            return Err(format!("its `accounturi` is another account: {account}"));
        }
        if self.wildcard && !grant.wildcard {
            return Err("it has no `policy=wildcard`".to_owned());
        }
        match grant.until {
            Some(until) if now > until => Err(format!("its `persistUntil` is over: {until}")),
            until => Ok(until),
        }
    }

    /// For `dns check`.
    pub(crate) fn compare<'a>(
        &self,
        texts: impl IntoIterator<Item = &'a str>,
        now: u64,
    ) -> Likeness {
        match self.granted(texts, now) {
            Err(reason) => Likeness::Fault(reason),
            Ok(Some(until)) if until < now.saturating_add(SOON) => Likeness::Choice(format!(
                "it counts until {until} (seconds since 1970), which is soon"
            )),
            Ok(_) => Likeness::Same,
        }
    }
}

/// WSP of RFC 5234.
const BLANK: [char; 2] = [' ', '\t'];

impl<'a> Grant<'a> {
    /// RFC 8659 4.2. Tags are compared without case, those that are not known say nothing (4.1.1).
    fn parse(text: &'a str) -> Result<Self, String> {
        let (issuer, rest) = match text.split_once(';') {
            Some((issuer, rest)) => (issuer, rest.trim_matches(BLANK)),
            None => (text, ""),
        };
        let issuer = issuer.trim_matches(BLANK);
        if !issuer.split('.').all(is_word) {
            return Err(format!("its issuer is no domain name: {issuer:?}"));
        }
        let mut grant = Self::default();
        let mut seen: Vec<String> = Vec::new();
        let parameters = rest.split(';').filter(|_| !rest.is_empty());
        for parameter in parameters.map(|one| one.trim_matches(BLANK)) {
            let (tag, value) = parameter
                .split_once('=')
                .ok_or_else(|| format!("{parameter:?} in it is no `tag=value`"))?;
            let (tag, value) = (tag.trim_matches(BLANK), value.trim_matches(BLANK));
            if !is_word(tag) || !value.bytes().all(|octet| octet.is_ascii_graphic()) {
                return Err(format!("{parameter:?} in it is no `tag=value`"));
            }
            let tag = tag.to_ascii_lowercase();
            if seen.contains(&tag) {
                return Err(format!("`{tag}` is twice in it"));
            }
            match tag.as_str() {
                "accounturi" => grant.account = Some(value).filter(|value| !value.is_empty()),
                // 4.1.4: other values are as none.
                "policy" => grant.wildcard = value.eq_ignore_ascii_case("wildcard"),
                "persistuntil" => grant.until = Some(seconds(value)?),
                _ => {}
            }
            seen.push(tag);
        }
        Ok(grant)
    }
}

/// 4.1.5: digits only.
fn seconds(value: &str) -> Result<u64, String> {
    let digits = value.bytes().all(|octet| octet.is_ascii_digit());
    let number = value.parse().ok().filter(|_| digits);
    number.ok_or_else(|| format!("its `persistUntil` is no number of seconds: {value:?}"))
}

/// A label or a tag: letters and digits, hyphens between them.
fn is_word(word: &str) -> bool {
    !word.is_empty()
        && !word.starts_with('-')
        && !word.ends_with('-')
        && word
            .bytes()
            .all(|octet| octet.is_ascii_alphanumeric() || octet == b'-')
}

#[cfg(test)]
#[path = "persist_tests.rs"]
mod tests;
