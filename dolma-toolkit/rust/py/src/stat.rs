//! `dolma stat`: settings in as JSON, distributions out as JSON.

use dolma_core::stat::{run, Settings};
use pyo3::prelude::*;

use crate::detach;
use crate::run::{parse, render};

/// Summarizes attributes; `settings` is JSON of `dolma_core::stat::Settings`, the result JSON of its `Report`.
#[pyfunction]
#[pyo3(signature = (settings, report=None))]
pub fn stat(py: Python<'_>, settings: &str, report: Option<&Bound<'_, PyAny>>) -> PyResult<String> {
    let settings: Settings = parse(settings)?;
    let found = detach::run(py, report, |progress| run(&settings, progress))?;
    render(&found)
}
