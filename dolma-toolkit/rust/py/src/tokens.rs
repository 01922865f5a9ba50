//! Token shards: their text, and files made of them.

use std::path::PathBuf;

use dolma_core::tokens::{decode, derived};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::detach::run;

/// The text of token ids, special tokens spelt out.
#[pyfunction]
pub fn decode_tokens(py: Python<'_>, tokenizer_json: PathBuf, ids: Vec<u32>) -> PyResult<String> {
    run(py, None, move |_| decode(&tokenizer_json, &ids))
}

/// Makes other files of token shards by a plan (JSON, see `dolma_core::tokens::derived::Plan`) and gives what it did as JSON.
#[pyfunction]
#[pyo3(signature = (plan, report=None))]
pub fn derive_tokens(py: Python<'_>, plan: &str, report: Option<&Bound<'_, PyAny>>) -> PyResult<String> {
    let plan: derived::Plan =
        serde_json::from_str(plan).map_err(|error| PyValueError::new_err(format!("the plan is unusable: {error}")))?;
    let summary = run(py, report, move |progress| derived::run(&plan, progress))?;
    let json = serde_json::json!({
        "counts": summary.counts,
        "outputs": summary.outputs,
        "kept": summary.kept,
        "discarded": summary.discarded,
    });
    Ok(json.to_string())
}
