//! Adversarial training of classifiers.

pub mod spec;
