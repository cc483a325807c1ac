//! Devices: loading CUDA where it is, naming and choosing a device, threads.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tch::{Cuda, Device, Tensor};

use crate::error::{Error, Result};

/// The libtorch version that tch 0.24 speaks with.
pub const LIBTORCH_VERSION: &str = "2.11.0";

/// What the attempt to load CUDA found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CudaSupport {
    /// libtorch's CUDA library is loaded and this many devices answer.
    Devices(i64),
    /// This libtorch is the CPU part alone.
    CpuOnly,
    /// The library is there and did not load; the reason.
    Failed(String),
}

/// Keeps the memory of tensors that are gone for those that come: by glibc's defaults every large
/// tensor is mapped from the system and given back, and clearing its pages takes a sixth of the
/// time of a small network. Whoever sets up glibc's allocator by `GLIBC_TUNABLES` is left alone.
pub fn keep_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        #[allow(unsafe_code)] // Two settings of the allocator; no pointer is involved.
        unsafe extern "C" {
            safe fn mallopt(setting: i32, value: i32) -> i32;
        }
        if std::env::var_os("GLIBC_TUNABLES").is_some() {
            return;
        }
        const TRIM_THRESHOLD: i32 = -1;
        const MMAP_THRESHOLD: i32 = -3;
        // 32 MiB is the most that glibc allows.
        mallopt(MMAP_THRESHOLD, 32 << 20);
        mallopt(TRIM_THRESHOLD, 512 << 20);
    }
}

/// The folder of the `libtorch_cpu.so` that this process runs on.
pub fn libtorch_folder() -> Option<PathBuf> {
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    let path = maps.lines().find_map(|line| {
        let path = &line[line.find('/')?..];
        path.ends_with("libtorch_cpu.so").then(|| PathBuf::from(path))
    })?;
    path.parent().map(Path::to_owned)
}

/// Gives a binary that was linked against the CPU part of libtorch the CUDA devices of the
/// libtorch it runs on: opens `libtorch_cuda.so` beside the loaded `libtorch_cpu.so`.
///
/// Must run before the first tensor is made, since libtorch registers its kernels then.
pub fn load_cuda() -> CudaSupport {
    let Some(library) = libtorch_folder().map(|folder| folder.join("libtorch_cuda.so")) else {
        return CudaSupport::CpuOnly;
    };
    if !library.exists() {
        return CudaSupport::CpuOnly;
    }
    match open_globally(&library) {
        Ok(()) => CudaSupport::Devices(if Cuda::is_available() { Cuda::device_count() } else { 0 }),
        Err(reason) => CudaSupport::Failed(reason),
    }
}

#[allow(unsafe_code)] // Loading a library runs its initialisers; this one is libtorch's own.
fn open_globally(library: &Path) -> std::result::Result<(), String> {
    use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
    let opened = unsafe { Library::open(Some(library), RTLD_NOW | RTLD_GLOBAL) };
    // Never closed: the kernels it registered stay in use.
    opened.map(std::mem::forget).map_err(|error| error.to_string())
}

/// The device called `name`: `cpu`, `cuda`, `cuda:N`, or `auto` (the first GPU, else the CPU).
///
/// # Errors
/// If the name is none of these, or no such device answers; the message says what there is.
pub fn choose(name: &str) -> Result<Device> {
    let count = if Cuda::is_available() { Cuda::device_count() } else { 0 };
    let device = match name {
        "cpu" => return Ok(Device::Cpu),
        "auto" if count == 0 => return Ok(Device::Cpu),
        "auto" | "cuda" => Device::Cuda(0),
        other => match other.strip_prefix("cuda:").and_then(|index| index.parse().ok()) {
            Some(index) => Device::Cuda(index),
            None => {
                return Err(Error::input(format!(
                    "device `{other}` is unknown: expected cpu, cuda, cuda:N or auto"
                )));
            }
        },
    };
    match device {
        Device::Cuda(index) if (index as i64) < count => Ok(device),
        _ => Err(Error::input(format!(
            "device `{name}` does not answer: {count} CUDA devices are usable here \
             (`gauntlet doctor` says what was found)"
        ))),
    }
}

/// `tensor`, made on the CPU, on `device`. A GPU fetches it from pinned memory when it comes to it,
/// and nobody waits for that; libtorch keeps the memory until then.
pub fn upload(tensor: &Tensor, device: Device) -> Tensor {
    if !device.is_cuda() {
        return tensor.to_device(device);
    }
    match tensor.f_internal_pin_memory(device) {
        Ok(pinned) => pinned.to_device_(device, tensor.kind(), true, false),
        // No memory left that can be pinned: the slow way is a way.
        Err(_) => tensor.to_device(device),
    }
}

/// Bytes that this process has had in memory at most, its libraries included (Linux).
pub fn peak_memory() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1024)
}

/// Cores that this process may run on.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Makes libtorch compute with `threads` threads.
pub fn set_threads(threads: usize) {
    tch::set_num_threads(i32::try_from(threads.max(1)).unwrap_or(i32::MAX));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_named_or_refused() {
        assert_eq!(choose("cpu").unwrap(), Device::Cpu);
        assert!(choose("auto").is_ok());
        assert!(choose("gpu").unwrap_err().to_string().contains("expected cpu"));
        assert!(choose("cuda:99").unwrap_err().to_string().contains("does not answer"));
    }

    #[test]
    fn memory_at_its_peak_holds_what_was_held() {
        let before = peak_memory().unwrap();
        let held = Tensor::ones([64 << 20], (tch::Kind::Uint8, Device::Cpu));
        assert!(peak_memory().unwrap() >= (64 << 20).max(before));
        assert_eq!(upload(&held, Device::Cpu), held);
    }

    #[test]
    fn the_running_libtorch_is_found() {
        let folder = libtorch_folder().expect("this test runs on libtorch");
        assert!(folder.join("libtorch_cpu.so").exists());
    }
}
