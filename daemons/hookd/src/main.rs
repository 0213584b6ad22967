//! The daemon hookd as a program of its own.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    runtime::main(types::Role::Hookd, hookd::needs, hookd::run)
}
