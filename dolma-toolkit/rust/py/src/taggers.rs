//! Taggers written in Python: the core asks an object of Python (`dolma.tagging.workers`).

use std::sync::Arc;

use dolma_core::progress::Cancellation;
use dolma_core::tag::{UserTaggers, Users};
use dolma_core::{Error, Result};
use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;

/// The taggers that Python gives.
pub fn of(taggers: Py<PyAny>, cancellation: Cancellation) -> Users {
    Users(Arc::new(PythonTaggers { taggers, cancellation }))
}

struct PythonTaggers {
    taggers: Py<PyAny>,
    cancellation: Cancellation,
}

impl UserTaggers for PythonTaggers {
    /// `ask` is a generator: as long as there is no answer, it gives None from time to time.
    fn ask(&self, request: &[u8]) -> Result<Vec<u8>> {
        Python::attach(|py| {
            let answers = self
                .taggers
                .bind(py)
                .call_method1("ask", (PyBytes::new(py, request),))
                .and_then(|answers| answers.try_iter());
            for answer in answers.map_err(|error| of_python(py, &error))? {
                let answer = answer.and_then(|answer| Ok(answer.extract::<Option<PyBackedBytes>>()?));
                if let Some(answer) = answer.map_err(|error| of_python(py, &error))? {
                    return Ok(answer.to_vec());
                }
                self.cancellation.check()?;
            }
            Err(Error::config("taggers", "gave no answer; expected spans"))
        })
    }
}

fn of_python(py: Python<'_>, error: &PyErr) -> Error {
    match error.is_instance_of::<PyKeyboardInterrupt>(py) {
        true => Error::Cancelled,
        false => Error::config("taggers", error.value(py).to_string()),
    }
}
