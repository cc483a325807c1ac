//! Diffusion models: training a denoiser, sampling it, the generated sets and their quality.

pub mod ablation;
mod adam;
pub mod augment;
mod checkpoint;
pub mod features;
pub mod fid;
pub mod fit;
mod fit_check;
#[cfg(test)]
mod gaussian;
pub mod generate;
#[cfg(test)]
mod golden;
pub mod neighbours;
pub mod sampler;
mod set;
pub mod spec;
