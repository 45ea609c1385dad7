//! The `plib` command.

fn main() -> std::process::ExitCode {
    plib_init::run(std::env::args_os())
}
