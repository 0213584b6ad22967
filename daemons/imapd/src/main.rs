//! imapd on its own; the library has the manual.
fn main() -> std::process::ExitCode {
    runtime::main(types::Role::Imapd, imapd::needs, imapd::run)
}
