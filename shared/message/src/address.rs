//! Address lists (RFC 5322 3.4), as ENVELOPE shows them (RFC 9051 7.5.2).

use crate::tokens::{Step, Tokens};
use crate::wire;

/// One element of an envelope's address list. A group begins with one that has only a mailbox (its name) and ends with one
/// that has nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct EnvelopeAddress {
    pub(crate) name: Option<Vec<u8>>,
    pub(crate) route: Option<Vec<u8>>,
    pub(crate) mailbox: Option<Vec<u8>>,
    pub(crate) domain: Option<Vec<u8>>,
}

impl EnvelopeAddress {
    /// Whether it is the beginning or the end of a group.
    pub(crate) fn is_group_mark(&self) -> bool {
        self.domain.is_none()
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.push(b'(');
        wire::nstring_readable(out, self.name.as_deref());
        out.push(b' ');
        wire::nstring(out, self.route.as_deref());
        out.push(b' ');
        wire::nstring(out, self.mailbox.as_deref());
        out.push(b' ');
        wire::nstring(out, self.domain.as_deref());
        out.push(b')');
    }
}

/// Appends the addresses of one header field's value to `list`, up to `limit` in all. What cannot be read as an address
/// shows up with the placeholders that users of IMAP servers know: MISSING_MAILBOX, MISSING_DOMAIN, SYNTAX_ERROR.
pub(crate) fn parse_list(value: &[u8], list: &mut Vec<EnvelopeAddress>, limit: usize) {
    let mut parser = ListParser {
        tokens: Tokens::new(value),
        list,
    };
    if parser.tokens.skip_space() != Step::More {
        return;
    }
    while parser.list.len() < limit {
        if parser.address() == Step::End || !parser.tokens.at(b',') {
            return;
        }
        parser.tokens.bump();
        match parser.tokens.skip_space() {
            Step::More => {}
            Step::End => return,
            Step::Bad => {
                parser.finish(EnvelopeAddress::default());
                return;
            }
        }
    }
}

/// The domain of the first address in the value of a field such as From, if it has one.
pub fn first_domain(value: &[u8]) -> Option<String> {
    let mut list = Vec::new();
    parse_list(value, &mut list, 8);
    let address = list.iter().find(|address| !address.is_group_mark())?;
    let domain = std::str::from_utf8(address.domain.as_deref()?).ok()?;
    let placeholder = matches!(domain, "MISSING_DOMAIN" | "SYNTAX_ERROR");
    (!placeholder).then(|| domain.to_ascii_lowercase())
}

struct ListParser<'a, 'l> {
    tokens: Tokens<'a>,
    list: &'l mut Vec<EnvelopeAddress>,
}

impl ListParser<'_, '_> {
    /// `address = mailbox / group`
    fn address(&mut self) -> Step {
        let start = self.tokens.position();
        let mut name = Vec::new();
        if self.tokens.phrase(&mut name) == Step::More && self.tokens.at(b':') {
            return self.group(name);
        }
        self.tokens.rewind(start);
        self.mailbox()
    }

    /// `group = display-name ":" [group-list] ";"`, the position being at the colon.
    fn group(&mut self, name: Vec<u8>) -> Step {
        self.tokens.bump();
        let mut step = self.tokens.skip_space();
        self.list.push(EnvelopeAddress {
            mailbox: Some(name),
            ..EnvelopeAddress::default()
        });
        if step == Step::More && !self.tokens.at(b';') {
            loop {
                self.mailbox();
                if !self.tokens.at(b',') {
                    break;
                }
                self.tokens.bump();
                if self.tokens.skip_space() != Step::More {
                    step = Step::Bad;
                    break;
                }
            }
        }
        if step != Step::Bad && self.tokens.at(b';') {
            self.tokens.bump();
            step = self.tokens.skip_space();
        } else {
            step = Step::Bad;
        }
        self.list.push(EnvelopeAddress::default());
        if step == Step::End {
            Step::End
        } else {
            Step::More
        }
    }

    /// `mailbox = name-addr / addr-spec`
    fn mailbox(&mut self) -> Step {
        let start = self.tokens.position();
        let mut address = EnvelopeAddress::default();
        let mut name = Vec::new();
        let is_quoted = self.tokens.at(b'"');
        let phrase = self.tokens.phrase(&mut name);
        if phrase == Step::More && self.tokens.at(b'<') {
            // An address without a display name has none, not an empty one.
            address.name = (!name.is_empty()).then_some(name);
            if self.angle(&mut address) == Step::Bad {
                address.domain = Some(b"SYNTAX_ERROR".to_vec());
            }
            self.finish(address);
            return if self.tokens.is_done() {
                Step::End
            } else {
                Step::More
            };
        }
        let behind_phrase = self.tokens.position();
        self.tokens.rewind(start);
        let mut step = self.spec(&mut address);
        let words = is_quoted || self.tokens.position() < behind_phrase;
        if address.domain.is_none() && phrase != Step::Bad && words {
            // Words without an address are rather a name than a mailbox.
            self.tokens.rewind(behind_phrase);
            step = phrase;
            address.name = Some(name);
            address.mailbox = None;
        }
        self.finish(address);
        step
    }

    /// `addr-spec`, with the name taken from a comment behind it.
    fn spec(&mut self, address: &mut EnvelopeAddress) -> Step {
        self.tokens.comment.clear();
        let mut local = Vec::new();
        let mut step = self.local_part(&mut local);
        if step != Step::Bad {
            address.mailbox = Some(local);
        }
        if step != Step::End && self.tokens.at(b'@') {
            let mut domain = Vec::new();
            let after = self.tokens.domain(&mut domain);
            if after != Step::Bad {
                address.domain = Some(domain);
            }
            if after != Step::More {
                step = after;
            }
        }
        if !self.tokens.comment.is_empty() {
            address.name = Some(std::mem::take(&mut self.tokens.comment));
        }
        step
    }

    fn local_part(&mut self, out: &mut Vec<u8>) -> Step {
        if self.tokens.at(b'"') {
            self.tokens.quoted(out)
        } else {
            self.tokens.loose_dot_atom(out)
        }
    }

    /// `"<" [route ":"] addr-spec ">"`
    fn angle(&mut self, address: &mut EnvelopeAddress) -> Step {
        self.tokens.bump();
        if self.tokens.skip_space() != Step::More {
            return Step::Bad;
        }
        if self.tokens.at(b'@') && self.route(address) == Step::Bad {
            return Step::Bad;
        }
        if !self.tokens.at(b'>') {
            let mut local = Vec::new();
            let step = self.local_part(&mut local);
            if step != Step::Bad {
                address.mailbox = Some(local);
            }
            if step != Step::More {
                return Step::Bad;
            }
            if self.tokens.at(b'@') {
                let mut domain = Vec::new();
                let step = self.tokens.domain(&mut domain);
                if step != Step::Bad {
                    address.domain = Some(domain);
                }
                if step != Step::More {
                    return Step::Bad;
                }
            }
        }
        if !self.tokens.at(b'>') {
            return Step::Bad;
        }
        self.tokens.bump();
        self.tokens.skip_space()
    }

    /// The obsolete source route: `@one,@two:` (RFC 5322 4.4).
    fn route(&mut self, address: &mut EnvelopeAddress) -> Step {
        let mut route = Vec::new();
        let mut good = true;
        while self.tokens.at(b'@') {
            if !route.is_empty() {
                route.push(b',');
            }
            route.push(b'@');
            if self.tokens.domain(&mut route) != Step::More {
                good = false;
                break;
            }
            while self.tokens.at(b',') {
                self.tokens.bump();
                if self.tokens.skip_space() != Step::More {
                    break;
                }
            }
        }
        if good && self.tokens.at(b':') {
            address.route = Some(route);
            self.tokens.bump();
        } else {
            address.route = Some(b"INVALID_ROUTE".to_vec());
            if self.tokens.is_done() {
                return Step::Bad;
            }
        }
        if self.tokens.skip_space() == Step::More {
            Step::More
        } else {
            Step::Bad
        }
    }

    /// Completes an address: in an envelope only the marks of groups may lack their parts.
    fn finish(&mut self, mut address: EnvelopeAddress) {
        if address.mailbox.is_none() {
            address.mailbox = Some(b"MISSING_MAILBOX".to_vec());
        }
        if address.domain.as_ref().is_none_or(Vec::is_empty) {
            address.domain = Some(b"MISSING_DOMAIN".to_vec());
        }
        self.list.push(address);
    }
}
