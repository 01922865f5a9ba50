//! The readers that code written in Python uses.

use std::path::PathBuf;

use dolma_core::document::{parse_row, FIELDS};
use dolma_core::jsonl::{Compression, LineReader, RowRules, RowSieve};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::error::raise;

type PythonRow = (String, String, String, Option<String>, Option<String>);

/// Rows of a document file as `(id, text, source, version, metadata as JSON)`.
///
/// A bad row raises, and the next call continues after it (with `skip_bad_rows` it is skipped). A damaged file raises and
/// then ends.
#[pyclass(unsendable)]
pub struct DocumentReader {
    reader: Option<LineReader>,
}

#[pymethods]
impl DocumentReader {
    #[new]
    #[pyo3(signature = (path, name, compression=None, generate_ids=false, skip_bad_rows=false))]
    fn new(
        path: PathBuf,
        name: &str,
        compression: Option<&str>,
        generate_ids: bool,
        skip_bad_rows: bool,
    ) -> PyResult<DocumentReader> {
        let compression =
            compression.and_then(Compression::named).unwrap_or_else(|| Compression::of(std::path::Path::new(name)));
        let reader = LineReader::open_fields(&path, name, compression, &FIELDS).map_err(|error| raise(&error))?;
        // the core enforces the limit, since it reads the rows too
        let rules = RowRules { generate_ids, skip_bad_rows: if skip_bad_rows { u64::MAX } else { 0 } };
        Ok(DocumentReader { reader: Some(reader.sieved(&RowSieve::new(&rules, 0))) })
    }

    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__(&mut self) -> PyResult<Option<PythonRow>> {
        let Some(reader) = self.reader.as_mut() else { return Ok(None) };
        let line = match reader.next_line() {
            Ok(Some(line)) => line.to_vec(),
            Ok(None) => {
                self.reader = None;
                return Ok(None);
            }
            Err(error) => {
                self.reader = None;
                return Err(raise(&error));
            }
        };
        let row = parse_row(&line, &reader.place()).map_err(|error| raise(&error))?;
        let metadata = row.metadata.map(|metadata| metadata.get().to_owned());
        let version = row.version.map(|version| version.into_owned());
        Ok(Some((row.id.into_owned(), row.text.into_owned(), row.source.into_owned(), version, metadata)))
    }

    /// Line of the row that was given last, 1-based.
    #[getter]
    fn line(&self) -> u64 {
        self.reader.as_ref().map_or(0, LineReader::line)
    }
}

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
