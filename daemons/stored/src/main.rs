//! The daemon as a program of its own; its manual is the library's documentation.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    runtime::main(types::Role::Stored, stored::needs, stored::run)
}
