//! Robust accuracy by a cascade of attacks: AutoAttack's protocol, with a record for each example.

pub mod cascade;
pub mod checks;
pub mod journal;
pub mod result;
pub mod spec;
pub mod verify;

pub use cascade::{Place, individual, run, run_in};
#[cfg(test)]
mod tests;
pub use result::{AttackCost, Evaluation, Record};
pub use verify::verify;
