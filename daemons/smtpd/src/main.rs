//! smtpd on its own; the library has the manual.
fn main() -> std::process::ExitCode {
    runtime::main(types::Role::Smtpd, smtpd::needs, smtpd::run)
}
