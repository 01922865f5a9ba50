//! `dolma mix`: settings in as JSON, warnings and a summary out.

use dolma_core::mix::{check, run, Settings};
use pyo3::prelude::*;

use crate::dedupe::{parse, render};
use crate::detach;

/// Checks what can be checked before the work; gives warnings. `settings` is JSON of `dolma_core::mix::Settings`.
#[pyfunction]
pub fn mix_check(py: Python<'_>, settings: &str) -> PyResult<Vec<String>> {
    let settings: Settings = parse(settings)?;
    detach::run(py, None, |_| check(&settings))
}

/// Mixes; the result is JSON of `dolma_core::mix::Summary`.
#[pyfunction]
#[pyo3(signature = (settings, report=None))]
pub fn mix(py: Python<'_>, settings: &str, report: Option<&Bound<'_, PyAny>>) -> PyResult<String> {
    let settings: Settings = parse(settings)?;
    let summary = detach::run(py, report, |progress| run(&settings, progress))?;
    render(&summary)
}
