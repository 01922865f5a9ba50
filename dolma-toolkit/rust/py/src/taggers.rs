//! Taggers and extractors written in Python: the core asks an object of Python (`dolma.tagging.workers`,
//! `dolma.extracting.workers`).

use std::sync::Arc;

use dolma_core::progress::Cancellation;
use dolma_core::tag::{UserTaggers, Users};
use dolma_core::{Error, Result};
use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;

/// What Python gives; `key` is the setting that names it.
pub fn of(key: &'static str, asked: Py<PyAny>, cancellation: Cancellation) -> Users {
    Users(Arc::new(Asked { key, asked, cancellation }))
}

struct Asked {
    key: &'static str,
    asked: Py<PyAny>,
    cancellation: Cancellation,
}

impl UserTaggers for Asked {
    /// `ask` is a generator: as long as there is no answer, it gives None from time to time.
    fn ask(&self, request: &[u8]) -> Result<Vec<u8>> {
        Python::attach(|py| {
            let answers = self
                .asked
                .bind(py)
                .call_method1("ask", (PyBytes::new(py, request),))
                .and_then(|answers| answers.try_iter());
            for answer in answers.map_err(|error| of_python(py, self.key, &error))? {
                let answer = answer.and_then(|answer| Ok(answer.extract::<Option<PyBackedBytes>>()?));
                if let Some(answer) = answer.map_err(|error| of_python(py, self.key, &error))? {
                    return Ok(answer.to_vec());
                }
                self.cancellation.check()?;
            }
            Err(Error::config(self.key, "gave no answer; expected one"))
        })
    }
}

fn of_python(py: Python<'_>, key: &str, error: &PyErr) -> Error {
    match error.is_instance_of::<PyKeyboardInterrupt>(py) {
        true => Error::Cancelled,
        false => Error::config(key, error.value(py).to_string()),
    }
}
