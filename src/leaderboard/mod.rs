//! Results as rows, frames and statistics, beside published numbers.
//!
//! polars stays in here: `frame` and `records` take and give plain structs.

pub mod aggregate;
pub mod atomic;
pub mod board;
pub mod compare;
pub mod curve;
pub mod frame;
pub mod proportions;
pub mod published;
pub mod records;
pub mod robustbench;
pub mod row;
pub mod statistics;

pub use row::Row;
