//! How far a long command is: a bar on a terminal, a line now and then elsewhere. On standard error, as the result goes to
//! standard output.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::cell::Cell;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Between two lines where there is no terminal.
const PAUSE: Duration = Duration::from_secs(10);

/// One bar.
pub(crate) struct Progress {
    what: &'static str,
    bar: Option<ProgressBar>,
    done: Cell<u64>,
    all: Cell<u64>,
    told: Cell<Instant>,
    silent: bool,
}

impl Progress {
    /// Of `all` things. Programs that asked for JSON get no lines.
    pub(crate) fn new(json: bool, what: &'static str, all: u64) -> Self {
        let bar = (!json && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::with_draw_target(Some(all), ProgressDrawTarget::stderr());
            let template = "{bar:30} {human_pos}/{human_len} {msg} {elapsed}, {eta} left";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar.set_message(what);
            bar
        });
        Self {
            what,
            bar,
            done: Cell::new(0),
            all: Cell::new(all),
            told: Cell::new(Instant::now()),
            silent: json,
        }
    }

    /// More of them are done.
    pub(crate) fn add(&self, count: u64) {
        self.done.set(self.done.get() + count);
        if let Some(bar) = &self.bar {
            bar.inc(count);
        } else if !self.silent && self.told.get().elapsed() > PAUSE {
            self.told.set(Instant::now());
            eprintln!("{} of {} {}", self.done.get(), self.all.get(), self.what);
        }
    }

    /// There are more than was thought.
    pub(crate) fn grow(&self, count: u64) {
        self.all.set(self.all.get() + count);
        if let Some(bar) = &self.bar {
            bar.inc_length(count);
        }
    }

    /// Prints a line beside the bar.
    pub(crate) fn tell(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{line}")),
            None => eprintln!("{line}"),
        }
    }

    /// Nothing comes any more.
    pub(crate) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
