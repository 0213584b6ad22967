//! How many messages one command may work on (RFC 9738): `[imapd] message_limit` and `save_limit`. Of more, the last ones are
//! done and the client is told up to where; copies are done as a whole or not at all.

use crate::config::Config;
use crate::session::{Done, Refused, Session, done};
use imap::SearchKey;
use imap::put::{self, Condition};
use tokio::io::{AsyncRead, AsyncWrite};

/// What there is to do, and what is said when it is less than was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Within {
    /// Positions, ascending.
    pub(super) positions: Vec<usize>,
    /// The response code.
    code: Option<String>,
}

/// The capability that tells the limit, if there is one (RFC 9738 3).
pub(crate) fn capability(config: &Config) -> Option<String> {
    match (config.message_limit, config.save_limit) {
        (0, 0) => None,
        (0, limit) => Some(format!("SAVELIMIT={limit}")),
        (limit, _) => Some(format!("MESSAGELIMIT={limit}")),
    }
}

/// The limit, and how many of the first are too many.
fn excess(limit: u32, count: usize) -> Option<usize> {
    let limit = usize::try_from(limit).ok().filter(|limit| *limit > 0)?;
    count.checked_sub(limit).filter(|more| *more > 0)
}

fn too_many(limit: u32) -> Refused {
    let text = "Too many messages in one command, try a smaller set";
    Refused::Limit(format!("MESSAGELIMIT {limit}"), text.to_owned())
}

impl Within {
    /// The answer of a command that did this.
    pub(super) fn done(self, text: &'static str) -> Done {
        match self.code {
            None => done(text),
            Some(code) => Ok((code, "completed for the last messages")),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + Sync> Session<S> {
    /// The messages of these that one command may work on: the last ones, down to a UID that is told (RFC 9738 3.1).
    pub(super) fn within_limit(&self, mut positions: Vec<usize>) -> Result<Within, Refused> {
        let limit = self.service.config.message_limit;
        let Some(more) = excess(limit, positions.len()) else {
            return Ok(Within {
                positions,
                code: None,
            });
        };
        let positions = positions.split_off(more);
        let rows = &self.chosen()?.shown.rows;
        let lowest = positions.first().and_then(|at| rows.get(*at));
        let code = lowest.map(|row| format!("MESSAGELIMIT {limit} {}", row.uid));
        Ok(Within { positions, code })
    }

    /// Where a search looks: at what all the sets have that it names; `None` is everywhere.
    fn ground(&self, key: &SearchKey) -> Result<Option<Vec<usize>>, Refused> {
        let selected = self.chosen()?;
        Ok(match key {
            SearchKey::Uid(set) => Some(selected.positions(set, true)?),
            // A number that is too large is the search's own to tell of.
            SearchKey::Sequence(set) => selected.positions(set, false).ok(),
            SearchKey::And(keys) => {
                let mut all: Option<Vec<usize>> = None;
                for key in keys {
                    let Some(some) = self.ground(key)? else {
                        continue;
                    };
                    all = Some(match all {
                        None => some,
                        Some(mut all) => {
                            all.retain(|at| some.binary_search(at).is_ok());
                            all
                        }
                    });
                }
                all
            }
            _ => None,
        })
    }

    /// Where a search may look, if it would look at more messages than one command may (RFC 9738 3.1: those searched count, not
    /// those found).
    pub(super) fn searched_within(&self, key: &SearchKey) -> Result<Option<Within>, Refused> {
        if self.service.config.message_limit == 0 {
            return Ok(None);
        }
        let all = self.chosen()?.shown.rows.len();
        let positions = self.ground(key)?.unwrap_or_else(|| (0..all).collect());
        let within = self.within_limit(positions)?;
        Ok(within.code.is_some().then_some(within))
    }

    /// Refuses what makes no sense for a part of the messages: SORT and THREAD (RFC 9738 3.3), and searches whose changes are told.
    pub(super) fn may_search_all(&self, key: &SearchKey) -> Result<(), Refused> {
        match self.searched_within(key)? {
            None => Ok(()),
            Some(_) => Err(too_many(self.service.config.message_limit)),
        }
    }

    /// A code that stands in the tagged response already leaves this one an untagged one.
    pub(super) fn put_limit(&mut self, within: &Within) {
        if let Some(code) = &within.code {
            let text = "Only the last messages were looked at";
            put::status(&mut self.out, "*", Condition::Ok, code, text);
        }
    }

    /// The OK of a command that expunged, as far as the limit let it. That it is not done with all stands in the tagged response,
    /// and HIGHESTMODSEQ (RFC 7162 3.2.7) before it.
    pub(super) fn expunged_within(&mut self, within: Within) -> Done {
        if within.code.is_none() {
            return self.expunged("completed");
        }
        if self.condstore {
            self.put_highest_modseq();
        }
        within.done("completed")
    }

    /// Refuses to copy or append more messages than one command may (RFC 9738 3.1).
    pub(super) fn may_save(&self, count: usize) -> Result<(), Refused> {
        let config = &self.service.config;
        let limit = match config.message_limit {
            0 => config.save_limit,
            limit => limit,
        };
        match excess(limit, count) {
            None => Ok(()),
            Some(_) => Err(too_many(limit)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_no_limit() {
        assert_eq!(excess(0, 1_000_000), None);
        assert_eq!(excess(1000, 1000), None);
        assert_eq!(excess(1000, 1001), Some(1));
    }

    #[test]
    fn one_limit_is_announced() {
        let told = |message_limit, save_limit| {
            capability(&Config {
                message_limit,
                save_limit,
                ..Config::default()
            })
        };
        assert_eq!(told(0, 0), None);
        assert_eq!(told(0, 2000).as_deref(), Some("SAVELIMIT=2000"));
        assert_eq!(told(1000, 2000).as_deref(), Some("MESSAGELIMIT=1000"));
    }
}
