//! `tools/libtorch.py`: each way it can fail has its message and its mend, and a second call does
//! nothing. Each test works on a copy of the script in a project folder of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

struct Project {
    folder: tempfile::TempDir,
}

impl Project {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("tools")).unwrap();
        fs::copy("tools/libtorch.py", folder.path().join("tools/libtorch.py")).unwrap();
        Self { folder }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The script under `python`, with no package index within reach.
    fn run_with(&self, python: &Path, arguments: &[&str]) -> Output {
        Command::new(python)
            .arg(self.path().join("tools/libtorch.py"))
            .args(arguments)
            .env("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
            .env("PIP_FIND_LINKS", "")
            .env("PIP_RETRIES", "0")
            .env("PIP_TIMEOUT", "2")
            .env("PIP_NO_CACHE_DIR", "1")
            .output()
            .unwrap()
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.run_with(Path::new("python3"), arguments)
    }

    /// A folder that looks like an installed PyTorch of `version`.
    fn fake_torch(&self, version: &str) -> PathBuf {
        let torch = self.path().join("site-packages/torch");
        fs::create_dir_all(torch.join("lib")).unwrap();
        fs::create_dir_all(torch.join("include")).unwrap();
        fs::write(torch.join("lib/libtorch_cpu.so"), "").unwrap();
        fs::write(torch.join("version.py"), format!("__version__ = '{version}'\n")).unwrap();
        torch
    }

    fn is_untouched(&self) -> bool {
        let names = fs::read_dir(self.path()).unwrap().map(|entry| entry.unwrap().file_name());
        names.into_iter().all(|name| !name.to_string_lossy().starts_with(".libtorch"))
    }
}

fn message(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn an_installed_pytorch_is_linked_once() {
    let project = Project::new();
    let torch = project.fake_torch("2.11.0+cu130");
    let first = project.run(&["--from", torch.to_str().unwrap()]);
    assert!(first.status.success(), "{}", message(&first));
    assert!(project.path().join(".libtorch/torch/lib/libtorch_cpu.so").exists());
    let second = project.run(&[]);
    assert!(second.status.success() && second.stdout.is_empty(), "{}", message(&second));
    assert!(project.run(&["--check"]).status.success());
}

#[test]
fn a_wrong_version_is_named() {
    let project = Project::new();
    let torch = project.fake_torch("2.10.1");
    let output = project.run(&["--from", torch.to_str().unwrap()]);
    assert!(!output.status.success());
    assert!(message(&output).contains("is PyTorch 2.10.1, gauntlet needs 2.11.0"));
    assert!(message(&output).contains("mend:") && project.is_untouched());
}

#[test]
fn a_folder_without_libtorch_is_refused() {
    let project = Project::new();
    let output = project.run(&["--from", project.path().to_str().unwrap()]);
    assert!(message(&output).contains("holds no lib/libtorch_cpu.so"), "{}", message(&output));
}

#[test]
fn no_network_leaves_nothing_and_says_so() {
    let project = Project::new();
    let output = project.run(&["--download"]);
    assert!(!output.status.success());
    assert!(message(&output).contains("pip could not fetch libtorch"), "{}", message(&output));
    assert!(message(&output).contains("mend: check the network"));
    assert!(project.is_untouched());
    assert!(message(&project.run(&["--check"])).contains("no complete libtorch"));
}

#[test]
fn no_pip_says_how_to_get_it() {
    let project = Project::new();
    let venv = project.path().join("venv");
    let made =
        Command::new("python3").args(["-m", "venv", "--without-pip"]).arg(&venv).output().unwrap();
    assert!(made.status.success(), "{}", message(&made));
    let output = project.run_with(&venv.join("bin/python3"), &["--download"]);
    assert!(message(&output).contains("has no pip"), "{}", message(&output));
    assert!(message(&output).contains("apt-get install python3-pip") && project.is_untouched());
}

#[test]
fn too_little_disk_is_seen_before_the_download() {
    let output = Command::new("python3")
        .args(["-c", "import libtorch; libtorch.check_room(1e18)"])
        .current_dir("tools")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(message(&output).contains("too little disk"), "{}", message(&output));
}
