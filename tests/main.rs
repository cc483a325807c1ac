//! The one integration-test binary.

mod architecture;
mod networks;
mod setup;
mod report;
