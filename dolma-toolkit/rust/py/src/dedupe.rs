//! `dolma dedupe`: settings in as JSON, a summary out as JSON.

use dolma_core::dedupe::{run, Settings};
use dolma_core::Error;
use pyo3::prelude::*;

use crate::detach;
use crate::error::raise;

/// Runs a deduplication; `settings` is JSON of `dolma_core::dedupe::Settings`, the result JSON of its `Summary`.
#[pyfunction]
#[pyo3(signature = (settings, report=None))]
pub fn dedupe(py: Python<'_>, settings: &str, report: Option<&Bound<'_, PyAny>>) -> PyResult<String> {
    let settings: Settings = parse(settings)?;
    let summary = detach::run(py, report, |progress| run(&settings, progress))?;
    render(&summary)
}

/// Settings of a command from JSON.
pub fn parse<T: serde::de::DeserializeOwned>(settings: &str) -> PyResult<T> {
    serde_json::from_str(settings)
        .map_err(|error| raise(&Error::config("settings", format!("cannot be used: {error}"))))
}

/// A summary as JSON.
pub fn render<T: serde::Serialize>(summary: &T) -> PyResult<String> {
    serde_json::to_string(summary)
        .map_err(|error| raise(&Error::config("summary", format!("cannot be encoded: {error}"))))
}
