//! The daemon reportd as a program of its own.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    runtime::main(types::Role::Reportd, reportd::needs, reportd::run)
}
