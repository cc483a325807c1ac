//! The `gauntlet` command: arguments in, exit code out.

use std::process::ExitCode;

fn main() -> ExitCode {
    gauntlet::cli::main()
}
