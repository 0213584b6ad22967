//! queued as a program of its own. See the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    runtime::main(types::Role::Queued, queued::needs, queued::run)
}
