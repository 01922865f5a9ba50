//! Text that documents share with evaluation items: a second look at the documents that were marked.

use std::path::PathBuf;

use dolma_core::taggers::overlap::Index;
use dolma_core::taggers::Text;
use pyo3::prelude::*;

use crate::error::raise;

/// An index of `dolma decontaminate`.
#[pyclass(frozen)]
pub struct EvaluationIndex {
    index: Index,
}

#[pymethods]
impl EvaluationIndex {
    #[new]
    fn new(path: PathBuf) -> PyResult<EvaluationIndex> {
        let index = Index::load(&path, &path.display().to_string()).map_err(|error| raise(&error))?;
        Ok(EvaluationIndex { index })
    }

    /// Id, units and patterns of each item, in the order of the file.
    #[getter]
    fn items(&self) -> Vec<(&str, usize, usize)> {
        self.index.items.iter().map(|item| (item.id.as_str(), item.num_units(), item.num_patterns)).collect()
    }

    /// Longest matches: the item's position, its first unit, how many units, and the code points of the text.
    fn matches(&self, text: &str) -> Vec<(usize, usize, usize, usize, usize)> {
        let text = Text::new(text);
        let (units, found) = self.index.matches(&text);
        let places = |start, length| {
            let (from, to) = units.bytes(start, start + length);
            (text.code_point(from), text.code_point(to))
        };
        let row = |one: &dolma_core::taggers::overlap::Match| {
            let (start, end) = places(one.start, one.length);
            (one.item, one.item_start, one.length, start, end)
        };
        found.iter().map(row).collect()
    }
}
