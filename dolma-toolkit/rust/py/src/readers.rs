//! The readers that code written in Python uses.

use std::path::PathBuf;

use dolma_core::jsonl::{Compression, LineReader};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::error::raise;

/// Why a line is not JSON, as every command reports it; None if it is JSON.
#[pyfunction]
pub fn why_not_json(line: &[u8]) -> Option<String> {
    dolma_core::document::why_not_json(line)
}

/// The decompressed lines of a file of rows, as bytes without line ends. A row of Parquet is a JSON line, with only the columns
/// `fields` if given.
#[pyclass(unsendable)]
pub struct Lines {
    reader: LineReader,
}

#[pymethods]
impl Lines {
    #[new]
    #[pyo3(signature = (path, fields=None))]
    fn new(path: PathBuf, fields: Option<Vec<String>>) -> PyResult<Lines> {
        let name = path.display().to_string();
        let reader = match fields {
            Some(fields) => {
                let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
                LineReader::open_fields(&path, &name, Compression::of(&path), &fields)
            }
            None => LineReader::open(&path),
        };
        reader.map(|reader| Lines { reader }).map_err(|error| raise(&error))
    }

    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__<'py>(&mut self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let line = self.reader.next_line().map_err(|error| raise(&error))?;
        Ok(line.map(|line| PyBytes::new(py, line)))
    }
}
