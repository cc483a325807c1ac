//! Writes libtorch's folder into the binaries, so that they run without `LD_LIBRARY_PATH`.

use std::{env, path::PathBuf, process::Command};

fn main() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    println!("cargo:rerun-if-changed=build.rs");
    let libtorch = env::var_os("LIBTORCH").map(PathBuf::from).unwrap_or_default();
    let libraries = libtorch.join("lib");
    if !libraries.join("libtorch_cpu.so").exists() {
        println!(
            "cargo:warning=no libtorch in {}: run `make setup` (or tools/libtorch.py)",
            libraries.display()
        );
    }
    let libraries = libraries.canonicalize().unwrap_or(libraries);
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", libraries.display());
    // The program itself uses nothing of libtorch (src/cli/library.rs says what does). Templates of
    // its C++ headers must not be exported from there, or they would keep it linked.
    println!("cargo:rustc-link-arg-bin=gauntlet=-Wl,--exclude-libs,ALL");
    println!("cargo:rustc-env=GAUNTLET_LIBTORCH={}", libraries.display());
    println!("cargo:rustc-env=GAUNTLET_COMMIT={}", commit().unwrap_or_default());
}

/// The short hash of the checked-out commit, where this is a checkout.
fn commit() -> Option<String> {
    println!("cargo:rerun-if-changed=.git/logs/HEAD");
    let output = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
