//! Log lines: for people on a terminal, JSON otherwise. Always on standard error; the supervisor or journald keeps them.
//! journald is told the priority of each line, as sd-daemon(3) says.

use crate::Failure;
use crate::config::{LogFormat, Suite};
use std::io::{IsTerminal, Write};
use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Starts logging. A second call changes nothing.
pub(crate) fn start(suite: &Suite) -> Result<(), Failure> {
    let level = std::env::var("POSTHOUSE_LOG").unwrap_or_else(|_| suite.log_level.clone());
    let filter = EnvFilter::try_new(&level).map_err(|error| {
        Failure::new(format!("suite.log_level = {level:?} is no filter: {error}"))
    })?;
    let human = match suite.log_format {
        LogFormat::Human => true,
        LogFormat::Json => false,
        LogFormat::Auto => {
            std::io::stderr().is_terminal() || std::env::var_os("POSTHOUSE_SUPERVISOR").is_some()
        }
    };
    let journal = std::env::var_os("JOURNAL_STREAM").is_some() && !std::io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(Lines { journal });
    let _ = if human {
        lines.with_ansi(std::io::stderr().is_terminal()).try_init()
    } else {
        lines
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .try_init()
    };
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        tracing::error!(
            place,
            "a defect: {}",
            panic.payload_as_str().unwrap_or("panic")
        );
    }));
    Ok(())
}

/// Standard error, a line at a time.
struct Lines {
    journal: bool,
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line(None)
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Line {
        Line(self.journal.then(|| priority(*meta.level())))
    }
}

/// syslog(3) priorities.
fn priority(level: Level) -> &'static [u8] {
    match level {
        Level::ERROR => b"<3>",
        Level::WARN => b"<4>",
        Level::INFO => b"<6>",
        Level::DEBUG | Level::TRACE => b"<7>",
    }
}

/// One line, with the priority before it if it is for the journal.
struct Line(Option<&'static [u8]>);

impl Write for Line {
    fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
        let mut out = std::io::stderr().lock();
        // In one call, so that lines of several threads do not mix.
        match self.0.take() {
            Some(priority) => out.write_all(&[priority, octets].concat())?,
            None => out.write_all(octets)?,
        }
        Ok(octets.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
