//! Results for people: one HTML file, tables for papers and terminals, plots, data files.
//!
//! Pure renderers: an [`Input`] of plain values in, files out. The same input gives the same
//! bytes, so reports can be committed and compared.

pub mod canvas;
pub mod compare;
pub mod demo;
pub mod figures;
pub mod html;
pub mod input;
pub mod latex;
pub mod pgfplots;
pub mod picture;
pub mod pivot;
pub mod plot;
pub mod table;
pub mod write;

pub use input::{Curve, Grid, GridImage, Input, Provenance};
pub use write::{Written, write};
