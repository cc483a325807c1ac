//! Robust accuracy by a cascade of attacks: AutoAttack's protocol, with a record for each example.

pub mod aim;
mod batch;
pub mod cascade;
pub mod checks;
mod clean;
pub mod journal;
mod pace;
pub mod place;
pub mod probe;
pub mod range;
pub mod result;
pub mod size;
pub mod spec;
pub mod verify;
mod workers;

#[cfg(test)]
mod protocol_tests;
#[cfg(test)]
mod tests;

pub use aim::Aim;
pub use cascade::{run, run_in};
pub use place::{Place, Protocol};
pub use result::{AttackCost, Evaluation, Level, Record};
pub use verify::verify;
pub use workers::how_many;
