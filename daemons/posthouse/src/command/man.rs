//! `posthouse man` and `posthouse completions`: made from the command line's own definition.

use crate::cli::Cli;
use crate::failure::Failure;
use crate::output;
use clap::CommandFactory;
use std::path::Path;

/// Writes posthouse.1 and a page for each command.
pub(crate) fn pages(out: &Path) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::new(format!("{}: {error}", out.display()));
    std::fs::create_dir_all(out).map_err(failed)?;
    clap_mangen::generate_to(Cli::command(), out).map_err(failed)?;
    let count = std::fs::read_dir(out).map_err(failed)?.count();
    output::say(&format!("Wrote {count} pages to {}.", out.display()));
    Ok(())
}

/// Prints the completions for a shell.
pub(crate) fn completions(shell: clap_complete::Shell) {
    clap_complete::generate(
        shell,
        &mut Cli::command(),
        "posthouse",
        &mut std::io::stdout(),
    );
}
