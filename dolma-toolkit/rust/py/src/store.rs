//! Remote files: the core asks an object of Python for them (`dolma.files.store.Store`).

use std::io;
use std::path::{Path, PathBuf};

use dolma_core::run::Store;
use dolma_core::{Error, Result};
use pyo3::call::PyCallArgs;
use pyo3::exceptions::{PyKeyboardInterrupt, PyOSError};
use pyo3::prelude::*;

/// The store that Python gives, if it gives one.
pub fn of(store: Option<Py<PyAny>>) -> Option<Box<dyn Store>> {
    store.map(|store| Box::new(PythonStore(store)) as Box<dyn Store>)
}

struct PythonStore(Py<PyAny>);

impl PythonStore {
    /// Whether what a method gives is true.
    fn call(&self, method: &str, arguments: impl for<'py> PyCallArgs<'py>) -> Result<bool> {
        Python::attach(|py| {
            let found = self.0.bind(py).call_method1(method, arguments).and_then(|found| found.is_truthy());
            found.map_err(|error| of_python(py, &error))
        })
    }
}

impl Store for PythonStore {
    fn expect(&self, paths: &[&Path]) -> Result<()> {
        self.call("expect", (paths.to_vec(),)).map(drop)
    }

    fn need(&self, path: &Path) -> Result<bool> {
        self.call("need", (path,))
    }

    fn done(&self, path: &Path) {
        // it only frees space
        let _ = self.call("done", (path,));
    }

    fn written(&self, journal: &Path, line: &str, paths: &[PathBuf]) -> Result<()> {
        self.call("written", (journal, line, paths.to_vec())).map(drop)
    }
}

/// A full disk is an error of the disk, all else one of the store.
fn of_python(py: Python<'_>, error: &PyErr) -> Error {
    if error.is_instance_of::<PyKeyboardInterrupt>(py) {
        return Error::Cancelled;
    }
    let value = error.value(py);
    if error.is_instance_of::<PyOSError>(py) {
        let errno = value.getattr("errno").and_then(|errno| errno.extract::<i32>());
        if let Ok(errno) = errno {
            let path = value.getattr("filename").and_then(|name| name.extract::<PathBuf>()).unwrap_or_default();
            return Error::io(&path, io::Error::from_raw_os_error(errno));
        }
    }
    Error::Remote(value.to_string())
}
