//! `posthouse fsck`: every account's rows and bodies, one after the other, and then bodies that belong to nobody.

use crate::cli::Fsck;
use crate::connect::Suite;
use crate::failure::Failure;
use crate::output;
use crate::progress::Progress;
use ipc::api::stored::{Examine, ExamineObjects, Examined, Finding, StoreStatus};
use serde_json::{Value, json};
use std::time::Duration;
use types::{AccountId, Role::Stored};

/// One account with all its bodies.
const PATIENCE: Duration = Duration::from_secs(3600);

/// One of 256 directories of the storage.
const LISTING: Duration = Duration::from_secs(1800);

/// What was found in all accounts that were looked at.
#[derive(Default)]
struct Tally {
    accounts: u64,
    messages: u64,
    /// Bodies in the storage, and those that no row names.
    objects: u64,
    orphans: u64,
    rows: Vec<Value>,
    open: u64,
}

impl Tally {
    fn take(&mut self, examined: &Examined, repair: bool) {
        self.accounts += u64::from(examined.account.is_some());
        self.messages += examined.messages;
        for finding in &examined.findings {
            self.find(examined.account, finding, repair);
        }
    }

    fn find(&mut self, account: Option<AccountId>, finding: &Finding, repair: bool) {
        let state = match (finding.mendable, repair) {
            (true, true) => "mended",
            (true, false) => "mendable",
            (false, _) => "open",
        };
        self.open += u64::from(state != "mended");
        self.rows.push(json!({
            "account": account,
            "state": state,
            "finding": finding.text,
        }));
    }
}

pub(crate) async fn run(suite: &Suite, options: Fsck) -> Result<(), Failure> {
    let only = match &options.account {
        Some(name) => Some(crate::command::owner(suite, name).await?),
        None => None,
    };
    let all = match only {
        Some(_) => 1,
        None => suite.call(Stored, &StoreStatus).await?.accounts,
    };
    let progress = Progress::new(suite.json, "accounts", all);
    let mut tally = Tally::default();
    let mut from = only.unwrap_or(AccountId(0));
    loop {
        let request = Examine {
            from,
            repair: options.repair,
            bodies: options.bodies,
        };
        let examined = suite.call_within(Stored, &request, PATIENCE).await?;
        // The next account behind a wanted one without rows is not what was asked for.
        if only.is_some() && examined.account != only {
            break;
        }
        tally.take(&examined, options.repair);
        progress.add(1);
        match (examined.account, only) {
            (Some(account), None) => from = AccountId(account.0.saturating_add(1)),
            _ => break,
        }
    }
    progress.end();
    if only.is_none() {
        objects(suite, options.repair, &mut tally).await?;
    }
    report(suite, &options, &tally)
}

/// Bodies in the storage that no row names. They are looked at in all before any is removed: where most belong to nobody, it is
/// rather the database that is not the right one.
async fn objects(suite: &Suite, repair: bool, tally: &mut Tally) -> Result<(), Failure> {
    let progress = Progress::new(suite.json, "directories of bodies", 256);
    let mut found = Vec::new();
    for first in 0..=u8::MAX {
        let request = ExamineObjects {
            first,
            repair: false,
        };
        let examined = suite.call_within(Stored, &request, LISTING).await?;
        tally.objects += examined.objects;
        tally.orphans += examined.orphans;
        if examined.orphans > 0 || !examined.findings.is_empty() {
            found.push((first, examined));
        }
        progress.add(1);
    }
    progress.end();
    let most = most_are_orphans(tally);
    for (first, mut examined) in found {
        if repair && !most && examined.orphans > 0 {
            let request = ExamineObjects { first, repair };
            examined = suite.call_within(Stored, &request, LISTING).await?;
        }
        for mut finding in examined.findings {
            finding.mendable &= !most;
            tally.find(None, &finding, repair);
        }
    }
    if most {
        let text = format!(
            "{} of {} bodies in the storage are named by no row: is it the right database? Nothing is removed there",
            tally.orphans, tally.objects
        );
        let finding = Finding {
            text,
            mendable: false,
        };
        tally.find(None, &finding, repair);
    }
    Ok(())
}

fn most_are_orphans(tally: &Tally) -> bool {
    tally.orphans.saturating_mul(2) > tally.objects
}

fn report(suite: &Suite, options: &Fsck, tally: &Tally) -> Result<(), Failure> {
    if suite.json {
        output::print(&json!({
            "accounts": tally.accounts,
            "messages": tally.messages,
            "bodies": options.bodies,
            "objects": tally.objects,
            "orphans": tally.orphans,
            "repair": options.repair,
            "findings": tally.rows,
        }));
    } else {
        if !tally.rows.is_empty() {
            let columns = &[
                ("account", "ACCOUNT"),
                ("state", "STATE"),
                ("finding", "FINDING"),
            ];
            output::list(false, columns, &tally.rows);
        }
        output::say(&format!(
            "{} accounts, {} messages{}: {} findings.",
            tally.accounts,
            tally.messages,
            if options.bodies {
                ", all bodies read"
            } else {
                ""
            },
            tally.rows.len(),
        ));
    }
    match tally.open {
        0 => Ok(()),
        open if options.repair => Err(Failure::check(format!("{open} findings are not mended"))),
        open => Err(Failure::check(format!(
            "{open} findings; `posthouse fsck --repair` mends those that are mendable"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipc::api::stored::Finding;

    #[test]
    fn a_wrong_database_is_suspected_when_most_bodies_are_nobodys() {
        let of = |orphans, objects| {
            most_are_orphans(&Tally {
                orphans,
                objects,
                ..Tally::default()
            })
        };
        assert!(!of(0, 0) && !of(1, 2) && !of(5, 100));
        assert!(of(1, 1) && of(51, 100));
    }

    #[test]
    fn what_was_mended_is_not_open() {
        let finding = |mendable| Finding {
            text: "a counter".to_owned(),
            mendable,
        };
        let examined = Examined {
            account: Some(AccountId(7)),
            messages: 3,
            findings: vec![finding(true), finding(false)],
        };
        let mut tally = Tally::default();
        tally.take(&examined, true);
        assert_eq!((tally.accounts, tally.messages, tally.open), (1, 3, 1));
        tally.take(&examined, false);
        assert_eq!(tally.open, 3);
    }
}
