//! sieved on its own; the library has the manual.
fn main() -> std::process::ExitCode {
    runtime::main(types::Role::Sieved, sieved::needs, sieved::run)
}
