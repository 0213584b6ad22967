//! What the checks of its arrival make of a message, on its way to delivery: a trace field in the prefix, where nobody but the
//! suite can write.

use std::fmt::Write as _;

/// What is done with a suspicious message that is taken all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Treatment {
    /// It says so, and is filed as ever.
    Tag,
    /// It is filed in Junk.
    Junk,
}

/// The field X-Posthouse-Suspect: `junk; checks=dmarc; recipients=0-3,7`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspicion {
    /// What is done.
    pub treatment: Treatment,
    /// The checks that failed: `dmarc`, `spf`, or both with a comma.
    pub checks: String,
    /// The recipients that it is done for, by their index in the envelope, ascending; `None` is all of them.
    pub recipients: Option<Vec<u16>>,
}

impl Suspicion {
    /// The field's name.
    pub const FIELD: &str = "X-Posthouse-Suspect";

    /// Appends the field with its CRLF.
    pub fn write(&self, out: &mut String) {
        let treatment = match self.treatment {
            Treatment::Tag => "tag",
            Treatment::Junk => "junk",
        };
        let _ = write!(out, "{}: {treatment}; checks={}", Self::FIELD, self.checks);
        if let Some(recipients) = &self.recipients {
            out.push_str(";\r\n\trecipients=");
            for (at, (first, last)) in runs(recipients).into_iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                if at % 12 == 11 {
                    out.push_str("\r\n\t");
                }
                let _ = write!(out, "{first}");
                if last > first {
                    let _ = write!(out, "-{last}");
                }
            }
        }
        out.push_str("\r\n");
    }

    /// Reads the field's value; `None` if it is not of this form.
    pub fn read(value: &str) -> Option<Self> {
        let mut parts = value.split(';').map(str::trim);
        let treatment = match parts.next()? {
            "tag" => Treatment::Tag,
            "junk" => Treatment::Junk,
            _ => return None,
        };
        let checks = parts.next()?.strip_prefix("checks=")?.to_owned();
        let recipients = match parts.next() {
            Some(part) => Some(numbers(part.strip_prefix("recipients=")?)?),
            None => None,
        };
        Some(Self {
            treatment,
            checks,
            recipients,
        })
    }

    /// Whether it is about the recipient of that index.
    pub fn concerns(&self, index: u16) -> bool {
        self.recipients
            .as_ref()
            .is_none_or(|recipients| recipients.contains(&index))
    }
}

/// Neighbours as one: first and last.
fn runs(numbers: &[u16]) -> Vec<(u16, u16)> {
    let mut runs: Vec<(u16, u16)> = Vec::new();
    for number in numbers {
        match runs.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(*number) => *last = *number,
            _ => runs.push((*number, *number)),
        }
    }
    runs
}

fn numbers(text: &str) -> Option<Vec<u16>> {
    let mut all = Vec::new();
    for run in text.split(',') {
        let (first, last) = run.split_once('-').unwrap_or((run, run));
        let (first, last): (u16, u16) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        all.extend(first..=last);
        // A number at most once each.
        if all.len() > usize::from(u16::MAX) {
            return None;
        }
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn text(one: &Suspicion) -> String {
        let mut out = String::new();
        one.write(&mut out);
        out
    }

    #[test]
    fn it_is_read_as_it_was_written() {
        for recipients in [
            None,
            Some(vec![0]),
            Some(vec![0, 1, 2, 3, 7]),
            Some((0..300).map(|number| number * 2).collect()),
            Some(vec![65_535]),
        ] {
            let one = Suspicion {
                treatment: Treatment::Junk,
                checks: "dmarc,spf".to_owned(),
                recipients,
            };
            let field = text(&one);
            assert!(field.split("\r\n").all(|line| line.len() < 200));
            let value = field.strip_prefix("X-Posthouse-Suspect: ").unwrap();
            assert_eq!(Suspicion::read(value).unwrap(), one);
        }
    }

    #[test]
    fn the_form() {
        let mut one = Suspicion {
            treatment: Treatment::Tag,
            checks: "spf".to_owned(),
            recipients: None,
        };
        assert_eq!(text(&one), "X-Posthouse-Suspect: tag; checks=spf\r\n");
        one.recipients = Some(vec![0, 1, 2, 5]);
        assert_eq!(
            text(&one),
            "X-Posthouse-Suspect: tag; checks=spf;\r\n\trecipients=0-2,5\r\n"
        );
        assert!(one.concerns(5) && !one.concerns(3));
        for wrong in [
            "",
            "junk",
            "lost; checks=spf",
            "junk; checks=spf; recipients=x",
            "junk; spf",
        ] {
            assert_eq!(Suspicion::read(wrong), None, "{wrong}");
        }
    }
}
