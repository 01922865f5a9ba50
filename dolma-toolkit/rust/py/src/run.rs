//! `dolma extract`, `tag`, `dedupe`, `mix`, `tokens` and `run`: a plan in as JSON, a summary out as JSON.

use dolma_core::mix::{check, Planned, Settings};
use dolma_core::pipeline::{self, Plan};
use dolma_core::run::Files;
use dolma_core::Error;
use pyo3::prelude::*;

use crate::detach;
use crate::error::raise;
use crate::{store, taggers};

/// Does a plan (JSON of `dolma_core::pipeline::Plan`) and gives what it did (JSON of `Summary`). `users`: for each tagging
/// stage, the taggers that are written in Python; `extract`: the extractors, and the taggers before and after them.
#[pyfunction]
#[pyo3(signature = (plan, report=None, store=None, users=Vec::new(), extract=None))]
pub fn run(
    py: Python<'_>,
    plan: &str,
    report: Option<&Bound<'_, PyAny>>,
    store: Option<Py<PyAny>>,
    users: Vec<Option<Py<PyAny>>>,
    extract: Option<[Option<Py<PyAny>>; 3]>,
) -> PyResult<String> {
    let mut plan: Plan = parse(plan)?;
    let summary = detach::run(py, report, |progress| {
        for (tag, users) in plan.tag.iter_mut().zip(users) {
            tag.stage.users = users.map(|users| taggers::of("taggers", users, progress.cancellation()));
        }
        if let (Some(stage), Some([extractors, pre, post])) = (&mut plan.extract, extract) {
            stage.extractors = extractors.map(|asked| taggers::of("extractors", asked, progress.cancellation()));
            for (inline, users) in [(&mut stage.pre, pre), (&mut stage.post, post)] {
                if let Some(inline) = inline {
                    inline.plan.users = users.map(|asked| taggers::of("taggers", asked, progress.cancellation()));
                }
            }
        }
        pipeline::run(&plan, &Files::new(store::of(store), plan.threads, progress), progress)
    })?;
    render(&summary)
}

/// For each tagging stage of a plan, the positions of the files that it still has to read.
#[pyfunction]
#[pyo3(signature = (plan, store=None))]
pub fn pending(py: Python<'_>, plan: &str, store: Option<Py<PyAny>>) -> PyResult<Vec<Vec<usize>>> {
    let plan: Plan = parse(plan)?;
    detach::run(py, None, |progress| pipeline::pending(&plan, &Files::new(store::of(store), plan.threads, progress)))
}

/// Checks what can be checked before a mix; gives warnings. `settings` is JSON of `dolma_core::mix::Settings`, `planned` of
/// the attributes that other stages are about to make, by directory (`Planned`).
#[pyfunction]
#[pyo3(signature = (settings, planned="{}", store=None))]
pub fn mix_check(py: Python<'_>, settings: &str, planned: &str, store: Option<Py<PyAny>>) -> PyResult<Vec<String>> {
    let (settings, planned): (Settings, Planned) = (parse(settings)?, parse(planned)?);
    detach::run(py, None, |progress| check(&settings, &planned, &Files::new(store::of(store), 1, progress)))
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
