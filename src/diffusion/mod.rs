//! Diffusion models: training a denoiser, sampling it, the generated sets and their quality.

pub mod ablation;
mod adam;
pub mod ancestral;
pub mod augment;
mod checkpoint;
pub mod duplicates;
pub mod features;
pub mod fid;
pub mod fit;
mod fit_check;
#[cfg(test)]
mod fit_tests;
#[cfg(test)]
mod gaussian;
pub mod generate;
#[cfg(test)]
mod generate_tests;
#[cfg(test)]
mod golden;
pub mod label;
pub mod live;
pub mod neighbours;
mod policy;
pub mod quality;
pub mod sampler;
pub mod sampler_check;
mod sampler_spec;
mod set;
pub mod snapshot;
pub mod spec;
