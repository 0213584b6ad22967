//! Log lines: for people on a terminal, JSON otherwise. Always on standard error; the supervisor or journald keeps them.

use crate::Failure;
use crate::config::{LogFormat, Suite};
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

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
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
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
