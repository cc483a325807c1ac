//! Writes the made-up report of `report::demo` into a folder: for looking at the layout.
//!
//! `cargo run --example report -- out/example-report`

use std::{path::PathBuf, process::ExitCode};

fn main() -> ExitCode {
    let out = std::env::args_os().nth(1).map_or_else(|| PathBuf::from("out/report"), PathBuf::from);
    let input = gauntlet::report::demo::input();
    match gauntlet::report::write(&input, &out) {
        Ok(written) => {
            println!("{}", gauntlet::report::table::terminal(&input.rows, 80));
            println!("{}", written.html.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
