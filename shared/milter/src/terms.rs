//! What a server and a filter agree on at first (OPTNEG).

/// Declares a set of flags.
macro_rules! flags {
    ($(#[$about:meta])* $name:ident { $($(#[$flag_about:meta])* $flag:ident = $value:literal,)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name(pub u32);

        impl $name {
            $($(#[$flag_about])* pub const $flag: Self = Self($value);)*

            /// Whether all of the others are in it.
            pub fn has(self, others: Self) -> bool {
                self.0 & others.0 == others.0
            }
        }

        impl std::ops::BitOr for $name {
            type Output = Self;
            fn bitor(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }
        }
    };
}

flags! {
    /// What a filter may do to a message.
    Actions {
        /// Add fields to the header.
        ADD_HEADERS = 0x1,
        /// Replace the body.
        CHANGE_BODY = 0x2,
        /// Add recipients.
        ADD_RECIPIENTS = 0x4,
        /// Remove recipients.
        DELETE_RECIPIENTS = 0x8,
        /// Change and remove fields.
        CHANGE_HEADERS = 0x10,
        /// Quarantine.
        QUARANTINE = 0x20,
        /// Change the sender.
        CHANGE_SENDER = 0x40,
        /// Add recipients with parameters.
        ADD_RECIPIENTS_WITH = 0x80,
        /// Say which macros it wants.
        SYMBOLS = 0x100,
    }
}

flags! {
    /// What is left out of a conversation, and what is possible in it.
    Steps {
        /// No connection.
        NO_CONNECT = 0x1,
        /// No HELO.
        NO_HELO = 0x2,
        /// No MAIL.
        NO_MAIL = 0x4,
        /// No RCPT.
        NO_RCPT = 0x8,
        /// No body.
        NO_BODY = 0x10,
        /// No fields.
        NO_HEADERS = 0x20,
        /// No end of the header.
        NO_EOH = 0x40,
        /// No reply to a field.
        NO_REPLY_HEADER = 0x80,
        /// No unknown commands.
        NO_UNKNOWN = 0x100,
        /// No DATA.
        NO_DATA = 0x200,
        /// The filter may skip the rest of a body.
        SKIP = 0x400,
        /// Refused recipients are told, too.
        REJECTED_RECIPIENTS = 0x800,
        /// No reply to the connection.
        NO_REPLY_CONNECT = 0x1000,
        /// No reply to HELO.
        NO_REPLY_HELO = 0x2000,
        /// No reply to MAIL.
        NO_REPLY_MAIL = 0x4000,
        /// No reply to RCPT.
        NO_REPLY_RCPT = 0x8000,
        /// No reply to DATA.
        NO_REPLY_DATA = 0x1_0000,
        /// No reply to an unknown command.
        NO_REPLY_UNKNOWN = 0x2_0000,
        /// No reply to the end of the header.
        NO_REPLY_EOH = 0x4_0000,
        /// No reply to a piece of the body.
        NO_REPLY_BODY = 0x8_0000,
        /// The blanks before a field's value are part of it.
        LEADING_SPACE = 0x10_0000,
    }
}

impl Actions {
    /// Those of a version.
    pub fn of(version: u32) -> Self {
        if version < 6 { Self(0x3f) } else { Self(0x1ff) }
    }
}

impl Steps {
    /// Those of a version. Refused recipients are not told: nothing has been resolved that a filter could say more of.
    pub fn of(version: u32) -> Self {
        match version {
            ..=2 => Self(0x7f),
            3..=5 => Self(0x3ff),
            _ => Self(0x1f_ffff & !Self::REJECTED_RECIPIENTS.0),
        }
    }
}

/// What a place in the conversation is called where a filter says which macros it wants there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The connection.
    Connect = 0,
    /// HELO.
    Hello = 1,
    /// MAIL.
    Mail = 2,
    /// RCPT.
    Rcpt = 3,
    /// DATA.
    Data = 4,
    /// The end of the message.
    End = 5,
    /// The end of the header.
    EndOfHeader = 6,
}

/// How many of them there are.
const PLACES: usize = 7;

/// What a filter answered to an offer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Its version.
    pub version: u32,
    /// What it wants to do.
    pub actions: u32,
    /// What it wants left out.
    pub steps: u32,
    /// Which macros it wants at which place, a list each.
    pub symbols: Vec<(u32, String)>,
}

/// What both sides agreed on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// The version.
    pub version: u32,
    /// What the filter may do.
    pub actions: Actions,
    /// What is left out, and what is possible.
    pub steps: Steps,
    /// By [`Place`]: the macros that the filter wants there, if it said so.
    symbols: [Option<Vec<String>>; PLACES],
}

/// Why there is no agreement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Disagreement {
    /// It speaks another version.
    #[error("it speaks version {0} of the protocol")]
    Version(u32),
    /// It wants to do what was not offered.
    #[error("it wants actions that it was not offered ({0:#x})")]
    Actions(u32),
    /// It wants steps that were not offered.
    #[error("it wants steps that it was not offered ({0:#x})")]
    Steps(u32),
}

/// The data of our OPTNEG: the version, all actions and steps that it has.
pub fn offer(version: u32) -> Vec<u8> {
    [version, Actions::of(version).0, Steps::of(version).0]
        .iter()
        .flat_map(|number| number.to_be_bytes())
        .collect()
}

impl Terms {
    /// What holds after an answer to our offer of `version`.
    ///
    /// # Errors
    /// [`Disagreement`].
    pub fn agreed(version: u32, asked: &Asked) -> Result<Self, Disagreement> {
        if asked.version < 2 || asked.version > version {
            return Err(Disagreement::Version(asked.version));
        }
        let (actions, steps) = (Actions::of(version), Steps::of(version));
        if !actions.has(Actions(asked.actions)) {
            return Err(Disagreement::Actions(asked.actions & !actions.0));
        }
        if !steps.has(Steps(asked.steps)) {
            return Err(Disagreement::Steps(asked.steps & !steps.0));
        }
        let mut symbols: [Option<Vec<String>>; PLACES] = Default::default();
        for (place, names) in &asked.symbols {
            let place = usize::try_from(*place).ok();
            if let Some(wanted) = place.and_then(|place| symbols.get_mut(place)) {
                let names = names.split([' ', ',']).filter(|name| !name.is_empty());
                *wanted = Some(names.map(|name| bare(name).to_owned()).collect());
            }
        }
        Ok(Self {
            version: asked.version,
            actions: Actions(asked.actions),
            steps: Steps(asked.steps),
            symbols,
        })
    }

    /// Whether the filter wants a macro at a place; `usual` if it did not say.
    pub fn wants(&self, place: Place, name: &str, usual: bool) -> bool {
        match self.symbols.get(place as usize) {
            Some(Some(names)) => names.iter().any(|wanted| wanted == bare(name)),
            _ => usual,
        }
    }
}

/// A macro's name without the braces that long ones have.
fn bare(name: &str) -> &str {
    name.strip_prefix('{')
        .and_then(|name| name.strip_suffix('}'))
        .unwrap_or(name)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn versions() {
        assert_eq!(offer(2), b"\0\0\0\x02\0\0\0\x3f\0\0\0\x7f");
        assert_eq!(offer(6), b"\0\0\0\x06\0\0\x01\xff\0\x1f\xf7\xff");
        let asked = |version, actions, steps| Asked {
            version,
            actions,
            steps,
            symbols: Vec::new(),
        };
        assert_eq!(Terms::agreed(6, &asked(2, 0x3f, 0)).unwrap().version, 2);
        assert_eq!(
            Terms::agreed(2, &asked(6, 0, 0)),
            Err(Disagreement::Version(6))
        );
        assert_eq!(
            Terms::agreed(2, &asked(2, 0x41, 0)),
            Err(Disagreement::Actions(0x40))
        );
        assert_eq!(
            Terms::agreed(6, &asked(6, 0, 0x800)),
            Err(Disagreement::Steps(0x800))
        );
    }

    #[test]
    fn macros_by_wish() {
        let asked = Asked {
            version: 6,
            symbols: vec![
                (0, "j {client_name}".to_owned()),
                (99, "x".to_owned()),
                (2, String::new()),
            ],
            ..Asked::default()
        };
        let terms = Terms::agreed(6, &asked).unwrap();
        assert!(terms.wants(Place::Connect, "{client_name}", false));
        assert!(!terms.wants(Place::Connect, "v", true));
        assert!(!terms.wants(Place::Mail, "i", true));
        assert!(terms.wants(Place::Rcpt, "i", true));
    }
}
