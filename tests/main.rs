//! The one integration-test binary.

mod architecture;
mod networks;
mod report;
mod setup;
mod train;
