//! Results for people: one HTML file, tables for papers and terminals, plots, data files.
//!
//! Pure renderers: an [`Input`] of plain values in, files out. The same input gives the same
//! bytes, so reports can be committed and compared.

mod beside;
pub mod board;
pub mod canvas;
mod cells;
pub mod compare;
mod curves;
pub mod demo;
mod draw;
mod epsilon;
pub mod figures;
mod frame;
pub mod html;
pub mod input;
pub mod latex;
mod overfit;
pub mod pgfplots;
pub mod picture;
pub mod pivot;
pub mod plot;
mod seeds;
mod sweeps;
pub mod table;
pub mod versus;
mod view;
pub mod write;

pub use input::{Curve, Grid, GridImage, Input, Provenance};
pub use write::{Written, write};
