//! Prediction with fastText models, for evaluation and for taggers written in Python.

use std::path::PathBuf;

use dolma_core::fasttext::Model;
use dolma_core::taggers::{self, Text};
use pyo3::prelude::*;

use crate::error::raise;

/// A supervised fastText model, `.bin` or `.ftz`.
#[pyclass(frozen)]
pub struct FastText {
    model: Model,
}

#[pymethods]
impl FastText {
    #[new]
    fn new(path: PathBuf) -> PyResult<FastText> {
        Ok(FastText { model: Model::load(&path).map_err(|error| raise(&error))? })
    }

    /// All labels with their prefix, in the order of the model.
    #[getter]
    fn labels(&self) -> Vec<&str> {
        (0..self.model.num_labels()).map(|number| self.model.label(number)).collect()
    }

    /// Labels and their probabilities, the most probable first; what is behind a newline is not looked at.
    fn predict(&self, line: &str) -> Vec<(&str, f32)> {
        let line = line.split('\n').next().unwrap_or(line);
        let scored = self.model.predict(line).into_iter();
        scored.map(|(label, score)| (self.model.label(label), score)).collect()
    }
}

/// A native tagger for single texts. `tag` tags files.
#[pyclass(frozen)]
pub struct Tagger {
    tagger: Box<dyn taggers::Tagger>,
}

#[pymethods]
impl Tagger {
    /// `resources` are the paths of the files that the tagger needs, in order.
    #[new]
    #[pyo3(signature = (name, language_model=None, resources=Vec::new()))]
    fn new(name: &str, language_model: Option<PathBuf>, resources: Vec<PathBuf>) -> PyResult<Tagger> {
        let named = |path: PathBuf| taggers::Resource { name: path.display().to_string(), path };
        let resources = resources.into_iter().map(named).collect();
        let options = taggers::TaggerOptions { language_model, resources };
        Ok(Tagger { tagger: taggers::build(name, &options).map_err(|error| raise(&error))? })
    }

    /// Kind, start, end and score of each span, in the order found. `metadata` is a JSON object.
    #[pyo3(signature = (text, metadata=None))]
    fn tag(&self, text: &str, metadata: Option<&str>) -> PyResult<Vec<(String, usize, usize, f64)>> {
        let metadata = metadata.and_then(|metadata| serde_json::from_str(metadata).ok());
        let mut spans = Vec::new();
        let text = Text::with_metadata(text, metadata);
        self.tagger.tag(&text, &mut spans).map_err(|error| raise(&error))?;
        Ok(spans.into_iter().map(|span| (span.kind.into_owned(), span.start, span.end, span.score)).collect())
    }
}

/// Words of a text by UAX 29, white space too: where each begins, in code points.
#[pyfunction]
pub fn word_starts(text: &str) -> Vec<usize> {
    let places = Text::new(text);
    taggers::word_starts(text).into_iter().map(|at| places.code_point(at)).collect()
}

/// Sentences of a text: first code point and the one behind the last.
#[pyfunction]
pub fn sentences(text: &str) -> Vec<(usize, usize)> {
    let places = Text::new(text);
    let found = taggers::sentences(text).into_iter();
    found.map(|(start, end)| (places.code_point(start), places.code_point(end))).collect()
}
