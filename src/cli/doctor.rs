//! `gauntlet doctor`: what was found here, what is missing, and what to do about it.

use std::{fs, path::Path, path::PathBuf};

use clap::Args as ClapArgs;

use crate::{
    device::{self, CudaSupport},
    error::Result,
};

/// Prints what this machine offers: libtorch, devices, threads, memory, data folders.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// Folder of data sets to look into, as for `run` and `evaluate`.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The store whose disk is looked at.
    #[arg(long, value_name = "DIR", default_value = ".gauntlet")]
    store: PathBuf,
}

/// One line of the diagnosis.
struct Finding {
    good: bool,
    what: &'static str,
    found: String,
    mend: Option<String>,
}

impl Finding {
    fn good(what: &'static str, found: impl Into<String>) -> Self {
        Self { good: true, what, found: found.into(), mend: None }
    }

    fn lacking(what: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { good: false, what, found: found.into(), mend: Some(mend.into()) }
    }
}

/// Runs the command. Missing things are reported, not errors: everything has a fallback.
///
/// # Errors
/// None so far; the signature is that of every command.
pub fn run(args: &Args) -> Result<()> {
    let cuda = device::load_cuda();
    let mut findings = vec![
        Finding::good(
            "gauntlet",
            format!("{} ({})", env!("CARGO_PKG_VERSION"), or_unknown(env!("GAUNTLET_COMMIT"))),
        ),
        libtorch(),
        cuda_devices(&cuda),
        Finding::good(
            "cores",
            format!("{} ({} libtorch threads)", device::cores(), tch::get_num_threads()),
        ),
        memory(),
        disk(&args.store),
    ];
    findings.extend(data(args.data.as_deref()));
    for Finding { good, what, found, mend } in &findings {
        println!("{} {what:<10} {found}", if *good { "ok " } else { "-- " });
        if let Some(mend) = mend {
            println!("               {mend}");
        }
    }
    Ok(())
}

fn or_unknown(text: &str) -> &str {
    if text.is_empty() { "commit unknown" } else { text }
}

fn libtorch() -> Finding {
    match device::libtorch_folder() {
        Some(folder) => Finding::good(
            "libtorch",
            format!("{} in {}", device::LIBTORCH_VERSION, folder.display()),
        ),
        None => Finding::lacking("libtorch", "not found in this process", "run `make setup`"),
    }
}

fn cuda_devices(support: &CudaSupport) -> Finding {
    let driver = Path::new("/proc/driver/nvidia/version").exists();
    match support {
        CudaSupport::Devices(count) if *count > 0 => {
            Finding::good("cuda", format!("{count} device(s): use --device cuda:0"))
        }
        CudaSupport::Devices(_) => Finding::lacking(
            "cuda",
            "libtorch has CUDA, no device answers",
            if driver { "see whether `nvidia-smi` works" } else { "no NVIDIA driver is loaded" },
        ),
        CudaSupport::CpuOnly if driver => Finding::lacking(
            "cuda",
            "an NVIDIA driver is here, this libtorch is the CPU part alone",
            "run `tools/libtorch.py --cuda` (about 3 GB); no rebuild is needed",
        ),
        CudaSupport::CpuOnly => Finding::good("cuda", "no NVIDIA driver: computing on the CPU"),
        CudaSupport::Failed(reason) => Finding::lacking(
            "cuda",
            format!("libtorch_cuda.so does not load: {reason}"),
            "run `tools/libtorch.py --cuda`, or set LD_LIBRARY_PATH to CUDA 13's libraries",
        ),
    }
}

fn memory() -> Finding {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse::<f64>().ok().map(|kib| kib / 1024.0 / 1024.0)
    };
    match (field("MemTotal:"), field("MemAvailable:")) {
        (Some(total), Some(free)) if free >= 2.0 => {
            Finding::good("memory", format!("{free:.1} of {total:.1} GiB available"))
        }
        (Some(total), Some(free)) => Finding::lacking(
            "memory",
            format!("{free:.1} of {total:.1} GiB available"),
            "small suites need about 2 GiB for each job: use --jobs 1",
        ),
        _ => Finding::lacking("memory", "unknown (/proc/meminfo is not readable)", ""),
    }
}

fn disk(store: &Path) -> Finding {
    let existing = store.ancestors().find(|path| path.exists() && !path.as_os_str().is_empty());
    let folder = existing.unwrap_or(Path::new("."));
    let shown = store.display();
    match free_bytes(folder) {
        Some(free) if free >= 5e9 => {
            Finding::good("store", format!("{shown}: {:.1} GB free on its disk", free / 1e9))
        }
        Some(free) => Finding::lacking(
            "store",
            format!("{shown}: only {:.1} GB free on its disk", free / 1e9),
            "generated sets take 3 kB for each 32x32 image; choose another disk with --store",
        ),
        None => Finding::lacking("store", format!("{shown}: free disk unknown"), ""),
    }
}

/// Free bytes on the disk of `folder`, as `df` tells it (the standard library does not).
fn free_bytes(folder: &Path) -> Option<f64> {
    let output = std::process::Command::new("df").arg("-Pk").arg(folder).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.lines().nth(1)?.split_whitespace().nth(3)?.parse::<f64>().ok().map(|kib| kib * 1024.0)
}

/// Every data folder that is searched, and the data sets known by the names of their folders.
fn data(given: Option<&Path>) -> Vec<Finding> {
    const LAYOUTS: [(&str, &str); 5] = [
        ("cifar-10-batches-py", "cifar10"),
        ("cifar-10-batches-bin", "cifar10 (binary)"),
        ("cifar-100-python", "cifar100"),
        ("tiny-imagenet-200", "tiny-imagenet"),
        ("train_32x32.mat", "svhn"),
    ];
    let mut findings =
        vec![Finding::good("data", "synthetic: built in, drawn by gauntlet, always there")];
    for root in crate::data::roots(given) {
        let mut folders = vec![root.clone()];
        folders.extend(fs::read_dir(&root).into_iter().flatten().flatten().map(|e| e.path()));
        let found: Vec<_> = LAYOUTS
            .iter()
            .filter(|(file, _)| folders.iter().any(|folder| folder.join(file).exists()))
            .map(|(_, name)| *name)
            .collect();
        findings.push(if found.is_empty() {
            Finding::lacking(
                "data",
                format!("{}: no known data set", root.display()),
                "give the folder of your data sets with --data DIR or GAUNTLET_DATA",
            )
        } else {
            Finding::good("data", format!("{}: {}", root.display(), found.join(", ")))
        });
    }
    findings
}
