//! What `train` and `fit` share: one job, described by arguments instead of a suite.

use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;

use crate::{
    device,
    error::Result,
    plan::{self, Files, Job, Surveyor},
    suite::Suite,
};

/// Arguments of a command that carries out one training.
#[derive(Debug, ClapArgs)]
pub struct Single {
    /// Data set: cifar10, cifar100, svhn, tiny-imagenet, synthetic, a folder of class folders, or
    /// an .npz file.
    #[arg(long, value_name = "NAME")]
    pub data: String,
    /// Folder with its files [default: as `gauntlet run` searches].
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Overrides a field of the recipe: `--set train.epochs=2`, `--set denoiser.batch=64`.
    /// Repeatable.
    #[arg(long = "set", value_name = "PATH=VALUE")]
    pub overrides: Vec<String>,
    /// Threads of libtorch [default: all cores].
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Folder of the results.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

impl Single {
    /// Makes libtorch ready: CUDA where there is one, the threads asked for.
    pub fn prepare(&self) {
        device::load_cuda();
        device::set_threads(self.threads.unwrap_or_else(device::cores));
    }

    /// Where data are searched.
    pub fn roots(&self) -> Vec<PathBuf> {
        Files::roots(self.data_dir.as_deref())
    }

    /// The jobs of a suite with one cell in which `given` holds, `--set` over all else.
    ///
    /// # Errors
    /// What is wrong with the arguments, or with the data that they name.
    pub fn jobs(&self, name: &str, given: &[String], surveyor: &dyn Surveyor) -> Result<Vec<Job>> {
        let data = format!("data.name={}", self.data);
        let given: Vec<String> =
            std::iter::once(&data).chain(given).chain(&self.overrides).cloned().collect();
        let suite = Suite::parse(&format!("suite: {name}\n"), "arguments", Path::new(""), &given)?;
        Ok(plan::resolve(&suite, &self.roots(), surveyor)?.jobs)
    }
}
