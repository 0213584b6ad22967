//! The section `[relayd.signing]`: what a DKIM signature covers, and whose it is.

use mail_auth::dkim::Canonicalization;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Fields that are signed where they are there.
const SIGNED: &[&str] = &[
    "Sender",
    "Content-ID",
    "Content-Description",
    "List-Id",
    "List-Unsubscribe",
    "List-Unsubscribe-Post",
    "List-Post",
    "List-Help",
    "List-Archive",
    "Resent-From",
    "Resent-To",
    "Resent-Date",
    "Resent-Message-ID",
];

/// Fields that are signed once more than they are there: one that is added on the way breaks the signature (RFC 6376 8.15).
const OVERSIGNED: &[&str] = &[
    "From",
    "To",
    "Cc",
    "Subject",
    "Date",
    "Reply-To",
    "Message-ID",
    "In-Reply-To",
    "References",
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
];

/// How header and body are made alike before they are hashed (RFC 6376 3.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Form {
    /// White space may change on the way.
    #[default]
    #[serde(rename = "relaxed/relaxed")]
    Relaxed,
    /// White space of the header may change.
    #[serde(rename = "relaxed/simple")]
    RelaxedSimple,
    /// White space of the body may change.
    #[serde(rename = "simple/relaxed")]
    SimpleRelaxed,
    /// Nothing may change.
    #[serde(rename = "simple/simple")]
    Simple,
}

impl Form {
    /// For the header, and for the body.
    pub(crate) fn both(self) -> (Canonicalization, Canonicalization) {
        use Canonicalization::{Relaxed, Simple};
        match self {
            Self::Relaxed => (Relaxed, Relaxed),
            Self::RelaxedSimple => (Relaxed, Simple),
            Self::SimpleRelaxed => (Simple, Relaxed),
            Self::Simple => (Simple, Simple),
        }
    }
}

/// The section `[relayd.signing]`. A signature always covers the whole body: there is no `l=`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Signing {
    /// Fields that are signed where they are there.
    pub headers: Vec<String>,
    /// Fields that are signed once more than they are there, so that none can be added (RFC 6376 8.15). From always is.
    pub oversigned: Vec<String>,
    /// `relaxed/relaxed` (default), `relaxed/simple`, `simple/relaxed` or `simple/simple`: header and body.
    pub canonicalization: Form,
    /// Seconds after which a signature no longer counts (`x=`); 0: it always does. Longer than mail may wait in queues.
    pub expiry_seconds: u64,
    /// Whether a domain without keys is signed with those of the domain above it. true.
    pub parents: bool,
    /// The domain whose keys sign mail of our users that neither From's domain nor the sender's has keys for; empty: it goes
    /// unsigned.
    pub default_domain: String,
    /// What is different for mail From a domain, as `[relayd.signing.domain."example.org"]`.
    pub domain: BTreeMap<String, DomainSigning>,
}

impl Default for Signing {
    fn default() -> Self {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Self {
            headers: list(SIGNED),
            oversigned: list(OVERSIGNED),
            canonicalization: Form::default(),
            expiry_seconds: 0,
            parents: true,
            default_domain: String::new(),
            domain: BTreeMap::new(),
        }
    }
}

/// `[relayd.signing.domain."example.org"]`: each setting counts instead of the one in `[relayd.signing]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DomainSigning {
    /// Whether its mail is signed at all.
    pub enabled: Option<bool>,
    /// The domain whose keys sign it (`d=`), instead of its own.
    pub with: Option<String>,
    /// [`Signing::headers`].
    pub headers: Option<Vec<String>>,
    /// [`Signing::oversigned`].
    pub oversigned: Option<Vec<String>>,
    /// [`Signing::canonicalization`].
    pub canonicalization: Option<Form>,
    /// [`Signing::expiry_seconds`].
    pub expiry_seconds: Option<u64>,
}

/// What holds for mail of one domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) headers: Vec<String>,
    pub(crate) oversigned: Vec<String>,
    pub(crate) form: Form,
    pub(crate) expiry: u64,
}

impl Signing {
    /// What makes no sense.
    ///
    /// # Errors
    /// A text that names the setting.
    pub(crate) fn validate(&self) -> Result<(), String> {
        let own = self
            .domain
            .values()
            .flat_map(|own| [&own.headers, &own.oversigned]);
        let lists = [&self.headers, &self.oversigned]
            .into_iter()
            .chain(own.flatten());
        for name in lists.flatten() {
            let fine = !name.is_empty()
                && name.len() <= 64
                && name
                    .bytes()
                    .all(|b| b.is_ascii_graphic() && b != b':' && b != b';');
            if !fine {
                return Err(format!(
                    "relayd.signing: {name:?} is no name of a header field"
                ));
            }
            // RFC 6376 5.4: what is put on top on the way is not ours to promise.
            if ["received", "return-path", "dkim-signature"]
                .iter()
                .any(|never| name.eq_ignore_ascii_case(never))
            {
                return Err(format!(
                    "relayd.signing: {name} changes on the way and is not signed (RFC 6376 5.4.1)"
                ));
            }
        }
        Ok(())
    }

    fn of(&self, domain: Option<&str>) -> Option<&DomainSigning> {
        let domain = domain?;
        self.domain
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(domain))
            .map(|(_, own)| own)
    }

    /// How mail From this domain is signed.
    pub(crate) fn plan(&self, from: Option<&str>) -> Plan {
        let own = self.of(from).cloned().unwrap_or_default();
        Plan {
            headers: own.headers.unwrap_or_else(|| self.headers.clone()),
            oversigned: own.oversigned.unwrap_or_else(|| self.oversigned.clone()),
            form: own.canonicalization.unwrap_or(self.canonicalization),
            expiry: own.expiry_seconds.unwrap_or(self.expiry_seconds),
        }
    }

    /// The domains whose keys may sign a mail, best first: From's, those above it, the sender's, the default one (RFC 7489
    /// 3.1.1: a signature counts for From's domain only if it is of that domain).
    pub fn signers(&self, from: Option<&str>, sender: Option<&str>) -> Vec<String> {
        let own = self.of(from);
        if own.and_then(|own| own.enabled) == Some(false) {
            return Vec::new();
        }
        if let Some(with) = own.and_then(|own| own.with.as_ref()) {
            return vec![with.to_ascii_lowercase()];
        }
        let mut list: Vec<String> = Vec::new();
        for domain in [from, sender].into_iter().flatten() {
            let mut domain = domain.to_ascii_lowercase();
            // A name of one label is nobody's mail domain, save where it is all there is.
            loop {
                let parent = domain
                    .split_once('.')
                    .map(|(_, parent)| parent.to_owned())
                    .filter(|parent| self.parents && parent.contains('.'));
                if !list.contains(&domain) {
                    list.push(domain);
                }
                match parent {
                    Some(parent) => domain = parent,
                    None => break,
                }
            }
        }
        let default = self.default_domain.to_ascii_lowercase();
        if !default.is_empty() && !list.contains(&default) {
            list.push(default);
        }
        list
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn who_signs() {
        let mut signing = Signing {
            default_domain: "Us.example".into(),
            ..Signing::default()
        };
        assert_eq!(
            signing.signers(Some("A.b.example.org"), Some("list.example.net")),
            [
                "a.b.example.org",
                "b.example.org",
                "example.org",
                "list.example.net",
                "example.net",
                "us.example"
            ]
        );
        signing.parents = false;
        assert_eq!(
            signing.signers(Some("a.example"), Some("a.example")),
            ["a.example", "us.example"]
        );
        let own = DomainSigning {
            with: Some("Parent.example".into()),
            expiry_seconds: Some(60),
            ..DomainSigning::default()
        };
        signing.domain.insert("child.example".into(), own);
        assert_eq!(
            signing.signers(Some("CHILD.example"), None),
            ["parent.example"]
        );
        assert_eq!(signing.plan(Some("child.example")).expiry, 60);
        assert_eq!(signing.plan(Some("other.example")).expiry, 0);
        let none = DomainSigning {
            enabled: Some(false),
            ..DomainSigning::default()
        };
        signing.domain.insert("quiet.example".into(), none);
        assert!(
            signing
                .signers(Some("quiet.example"), Some("a.example"))
                .is_empty()
        );
    }

    #[test]
    fn what_changes_on_the_way_is_not_signed() {
        let mut signing = Signing::default();
        signing.validate().unwrap();
        for name in ["Received", "a b", "", "x:y"] {
            signing.headers = vec![name.to_owned()];
            assert!(signing.validate().is_err(), "{name}");
        }
    }
}
