//! See the library.
fn main() -> std::process::ExitCode {
    posthouse::main()
}
