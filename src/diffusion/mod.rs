//! Diffusion models: training a denoiser, sampling it, the generated sets.

pub mod spec;
