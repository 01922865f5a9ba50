//! `dolma tokens`.

use std::path::PathBuf;

use dolma_core::tokens::{decode, derived, run as write_shards, Plan};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::detach::run;
use crate::tag::{rows, SkippedRow};

/// Writes the shards of a plan (JSON, see `dolma_core::tokens::Plan`) and returns its counts and the skipped rows.
#[pyfunction]
#[pyo3(signature = (plan, report=None))]
pub fn tokens<'py>(
    py: Python<'py>,
    plan: &str,
    report: Option<&Bound<'py, PyAny>>,
) -> PyResult<(Bound<'py, PyDict>, Vec<SkippedRow>)> {
    let plan: Plan =
        serde_json::from_str(plan).map_err(|error| PyValueError::new_err(format!("the plan is unusable: {error}")))?;
    let summary = run(py, report, move |progress| write_shards(&plan, progress))?;
    let counts = PyDict::new(py);
    for (name, count) in [
        ("documents", summary.documents),
        ("tokens", summary.tokens),
        ("text_bytes", summary.text_bytes),
        ("shards", summary.shards),
        ("shards_kept", summary.shards_kept),
        ("shards_discarded", summary.shards_discarded),
        ("respelt", summary.respelt),
        ("documents_empty", summary.empty),
    ] {
        counts.set_item(name, count)?;
    }
    Ok((counts, rows(summary.skipped)))
}

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
