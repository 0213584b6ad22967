//! pop3d on its own; the library has the manual.
fn main() -> std::process::ExitCode {
    runtime::main(types::Role::Pop3d, pop3d::needs, pop3d::run)
}
