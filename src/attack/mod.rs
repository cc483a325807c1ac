//! Attacks on classifiers.
