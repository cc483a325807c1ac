//! The one integration-test binary.

mod architecture;
mod line;
mod networks;
mod report;
mod setup;
mod train;
