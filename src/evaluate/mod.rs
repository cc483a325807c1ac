//! Robust accuracy by a cascade of attacks.

pub mod spec;
