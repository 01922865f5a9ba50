//! The table of native taggers.

use pyo3::prelude::*;

/// Names and one-line descriptions, sorted by name.
#[pyfunction]
pub fn taggers() -> Vec<(&'static str, &'static str)> {
    dolma_core::taggers::names().to_vec()
}
