//! The table of native taggers.

use pyo3::prelude::*;

/// Names and one-line descriptions, sorted by name.
#[pyfunction]
pub fn taggers() -> Vec<(&'static str, &'static str)> {
    dolma_core::taggers::names().to_vec()
}

/// Old names of taggers, and the names that replaced them.
#[pyfunction]
pub fn renamed_taggers() -> Vec<(&'static str, &'static str)> {
    dolma_core::taggers::RENAMED.to_vec()
}

/// What each tagger that cannot work without a file of the user's needs: name, kind of file, URLs of dolma 1.2.1.
#[pyfunction]
pub fn tagger_needs() -> Vec<(&'static str, &'static str, Vec<&'static str>)> {
    let need = |name| dolma_core::taggers::needs(name).map(|need| (name, need.what, need.urls.to_vec()));
    dolma_core::taggers::names().iter().filter_map(|&(name, _)| need(name)).collect()
}
