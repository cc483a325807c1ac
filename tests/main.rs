//! The one integration-test binary.

mod architecture;
mod browser;
mod cluster;
mod compare;
mod diffusion;
mod evaluate;
mod generated;
mod line;
mod networks;
mod report;
mod setup;
mod slurm;
mod suites;
mod train;
