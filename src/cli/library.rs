//! The half of the program that computes: `libgauntlet.so`, which stands beside `gauntlet`.
//!
//! Loading libtorch takes a third of a second. So the program itself links none of it: planning,
//! reports and help run in it as they are, and any other command is handed to the library, which
//! is the same crate linked a second time, with libtorch.

use std::{
    io::Write,
    panic::catch_unwind,
    path::{Path, PathBuf},
    process::ExitCode,
};

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW, Symbol};

use crate::error::{AtPath, Error, Result};

const LIBRARY: &str = "libgauntlet.so";

/// What a panic gives, as Rust's own `main` would.
const PANICKED: u8 = 101;

/// Runs the command of this process's arguments with libtorch; called by the program alone.
#[allow(unsafe_code)] // The name by which the program finds it.
#[unsafe(no_mangle)]
pub extern "C" fn gauntlet_compute() -> u8 {
    let code = catch_unwind(super::compute).unwrap_or(PANICKED);
    // The library has a standard output of its own, which no `main` flushes.
    let _ = std::io::stdout().flush();
    code
}

/// Hands the command over.
///
/// # Errors
/// If the library is not beside the program or does not load.
pub(super) fn hand_over() -> Result<ExitCode> {
    let path = beside(&std::env::current_exe().at(Path::new("this program"))?);
    if !path.is_file() {
        return Err(Error::in_file(
            &path,
            "is missing: it is the half of gauntlet that computes and stands beside the program \
             (`cargo build` makes both; copy them together)",
        ));
    }
    load(&path).map(ExitCode::from).map_err(|error| {
        Error::in_file(&path, format!("does not load: {error} (`make setup` provides libtorch)"))
    })
}

/// Cargo keeps the one that belongs to the program in `deps`; `cargo test` and `cargo run` copy it
/// no further.
fn beside(program: &Path) -> PathBuf {
    let built = program.with_file_name("deps").join(LIBRARY);
    if built.is_file() { built } else { program.with_file_name(LIBRARY) }
}

#[allow(unsafe_code)] // Our own library: its initialisers are libtorch's, its function is above.
fn load(path: &Path) -> std::result::Result<u8, libloading::Error> {
    unsafe {
        let library = Library::open(Some(path), RTLD_NOW | RTLD_LOCAL)?;
        let compute: Symbol<extern "C" fn() -> u8> = library.get("gauntlet_compute")?;
        let code = compute();
        // Threads of libtorch may still run its code.
        std::mem::forget(library);
        Ok(code)
    }
}
