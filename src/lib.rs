//! Gauntlet: adversarial robustness, declared in a suite and carried out from end to end.
//!
//! ```text
//! suite.yaml ──parse──▶ Suite ──resolve──▶ Plan (jobs, content-addressed)
//!                                            │
//!         Denoiser ──▶ Generated set ──▶ Classifier ──▶ Evaluation ──▶ Leaderboard ──▶ Report
//! ```
//!
//! The blank-line groups below are floors, lowest first: imports point strictly downward, siblings
//! never import each other, and a test holds us to it. Invariants:
//!
//! - A stage is a plain function of (spec, inputs, device, output folder, progress). It knows
//!   neither YAML nor the store; the plan knows no tensor; a report gets plain rows.
//! - A `JobId` hashes the resolved spec, the identities of its inputs and the stage's revision,
//!   never YAML text.
//! - clap stays in `cli`, serde_yaml in `suite` and `plan`, polars in `leaderboard`, plotters in
//!   `report`.
//! - `suite` and `store` hold no tensor either; `formats` and the readers of `data` give bytes, so
//!   planning and fuzzing need no libtorch.

pub mod error;

pub mod digest;
pub mod progress;
pub mod rng;
pub mod units;

pub mod device;
pub mod formats;
pub mod store;
pub mod threat;

pub mod data;
pub mod net;

pub mod attack;
pub mod diffusion;

pub mod evaluate;
pub mod train;

pub mod suite;

pub mod plan;

pub mod leaderboard;

pub mod run;

pub mod report;

pub mod cli;
