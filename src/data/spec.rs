//! Which images a job uses.

use serde::{Deserialize, Serialize};

/// Which half of a published set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Split {
    /// Training images.
    Train,
    /// Test images (TinyImageNet: its labelled validation images).
    Test,
}

/// A run of images of one split, in file order. Part of job ids, hence the fingerprint; where the
/// files lie is not part of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// `cifar10`, `cifar100`, `svhn`, `tiny-imagenet`, `synthetic`, ...
    pub name: String,
    /// Which half.
    pub split: Split,
    /// How many images are passed over at the start.
    pub skip: u64,
    /// How many images are used; `None` is all that follow.
    pub count: Option<u64>,
    /// Edge length of the images: free for `synthetic`, else the set's own (32 or 64).
    pub resolution: u64,
    /// [`crate::data::Dataset::fingerprint`] of exactly these images; empty until resolved.
    pub fingerprint: String,
}
