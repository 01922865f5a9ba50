//! From a row to the keys that are looked up: the part of the work that needs no order and runs in parallel.

use std::borrow::Cow;
use std::collections::VecDeque;

use serde_json::{Map, Value};
use xxhash_rust::xxh3::xxh3_128;

use super::ngrams::NgramKeys;
use super::settings::{NgramSettings, Normalize, Settings, UnitSettings};
use super::url;
use super::words::words;
use crate::bloom::{AnyFilter, LegacyFilter, Questions};
use crate::document::{kind, parse_row, Place, Row, FIELDS};
use crate::error::{Code, Result};
use crate::jsonpath::{Needs, Path as JsonPath};

/// Something to ask the filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// the next of the [`Questions`]
    Asked,
    /// a filter that is not written to has answered already
    Answer(bool),
    /// decided by another partition
    Foreign,
}

/// A row with all its keys.
#[derive(Debug, Clone, PartialEq)]
pub struct KeyedRow {
    /// as JSON
    pub id: String,
    /// how often the paragraph separator occurs
    pub separators: u64,
    /// what to decide
    pub keys: RowKeys,
}

/// What to decide about a row.
#[derive(Debug, Clone, PartialEq)]
pub enum RowKeys {
    /// the document as a whole, `length_bytes` long; `None`: too short, or empty
    Document { probe: Option<Probe>, length_bytes: usize },
    /// its paragraphs; `None` for a row without text
    Paragraphs(Option<Vec<Paragraph>>),
}

/// A paragraph that is long enough to be compared.
#[derive(Debug, Clone, PartialEq)]
pub struct Paragraph {
    /// in characters
    pub start: usize,
    /// in characters, with the separator after it
    pub end: usize,
    /// what to ask
    pub probes: Probes,
}

/// What to ask about a paragraph.
#[derive(Debug, Clone, PartialEq)]
pub enum Probes {
    /// the paragraph
    Whole(Probe),
    /// its n-grams, and the paragraph where they are too few
    Ngrams { ngrams: Ngrams, whole: Option<Probe> },
}

/// The n-grams of a paragraph.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Ngrams {
    /// all of them, those of other partitions too
    pub total: usize,
    /// those that a filter which is not written to has seen
    pub seen: usize,
    /// the next of the [`Questions`]
    pub asked: usize,
}

impl Ngrams {
    #[inline]
    fn add(&mut self, probe: Probe) {
        self.total += 1;
        match probe {
            Probe::Asked => self.asked += 1,
            Probe::Answer(seen) => self.seen += usize::from(seen),
            Probe::Foreign => {}
        }
    }
}

/// Makes keys of rows.
pub struct Keyer<'a> {
    settings: &'a Settings,
    key: Option<(JsonPath, Needs)>,
    filter: &'a AnyFilter,
}

/// What rows ask, and memory to make keys in.
#[derive(Debug, Default)]
pub struct Asking {
    /// in the order of the rows
    pub questions: Questions,
    ngrams: NgramKeys,
}

impl<'a> Keyer<'a> {
    /// For `filter`, whose version decides how keys are made. A filter of dolma 1.x answers at once.
    pub fn new(settings: &'a Settings, filter: &'a AnyFilter) -> Result<Self> {
        let key = settings.key()?.map(|path| {
            let mut needs = Needs::default();
            needs.add(&path);
            (path, needs)
        });
        Ok(Self { settings, key, filter })
    }

    /// The fields of a row that it reads; `None` for all.
    pub fn fields(&self) -> Option<Vec<&str>> {
        let mut fields = FIELDS.to_vec();
        if let Some((_, needs)) = &self.key {
            if needs.everything {
                return None;
            }
            fields.extend(needs.fields.keys().map(String::as_str));
        }
        Some(fields)
    }

    /// Reads one line.
    pub fn row(&self, line: &[u8], place: &Place<'_>, asking: &mut Asking) -> Result<KeyedRow> {
        let row = parse_row(line, place)?;
        let mut separators = 0;
        let keys = match &self.settings.unit {
            UnitSettings::Documents { .. } => self.document(&row, line, place, asking)?,
            UnitSettings::Paragraphs { .. } if row.text.is_empty() => RowKeys::Paragraphs(None),
            UnitSettings::Paragraphs { paragraph_separator, by_ngram, .. } => {
                let (paragraphs, pieces) = self.paragraphs(&row.text, paragraph_separator, by_ngram.as_ref(), asking);
                separators = pieces - 1;
                RowKeys::Paragraphs(Some(paragraphs))
            }
        };
        Ok(KeyedRow { id: Value::from(row.id).to_string(), separators, keys })
    }

    fn document(&self, row: &Row<'_>, line: &[u8], place: &Place<'_>, asking: &mut Asking) -> Result<RowKeys> {
        let text = match &self.key {
            Some((path, needs)) => key_text(path, needs, row, line, place)?,
            None => Cow::Borrowed(&*row.text),
        };
        let probe = (text.len() as u64 >= self.settings.min_length && self.is_compared(&text)).then(|| {
            match &self.settings.unit {
                UnitSettings::Documents { normalize: Some(Normalize::Url), .. } => {
                    self.whole(&url::normalized(&text), asking)
                }
                _ => self.whole(&text, asking),
            }
        });
        Ok(RowKeys::Document { probe, length_bytes: text.len() })
    }

    /// The paragraphs that are long enough, and the number of all.
    fn paragraphs(
        &self,
        text: &str,
        separator: &str,
        by_ngram: Option<&NgramSettings>,
        asking: &mut Asking,
    ) -> (Vec<Paragraph>, u64) {
        let (mut paragraphs, mut pieces) = (Vec::new(), 0);
        for (start, end, paragraph) in split_paragraphs(text, separator) {
            pieces += 1;
            let long_enough =
                self.settings.min_length == 0 || paragraph.chars().count() as u64 >= self.settings.min_length;
            if !long_enough || !self.is_compared(paragraph) {
                continue;
            }
            let probes = match by_ngram {
                None => Probes::Whole(self.whole(paragraph, asking)),
                Some(by_ngram) => self.ngrams(paragraph, by_ngram, asking),
            };
            paragraphs.push(Paragraph { start, end, probes });
        }
        (paragraphs, pieces)
    }

    fn is_compared(&self, text: &str) -> bool {
        let least = self.settings.min_words as usize;
        !(self.settings.skip_empty && text.trim().is_empty())
            && (least == 0 || words(text).take(least).count() == least)
    }

    fn whole(&self, text: &str, asking: &mut Asking) -> Probe {
        if let AnyFilter::Legacy(filter) = self.filter {
            return self.ask_legacy(filter, &VecDeque::from([text]));
        }
        let probe = self.ask(xxh3_128(text.as_bytes()), &mut asking.questions);
        asking.questions.end_group();
        probe
    }

    fn ngrams(&self, text: &str, by_ngram: &NgramSettings, asking: &mut Asking) -> Probes {
        let (length, stride) = (by_ngram.ngram_length, by_ngram.stride.max(1));
        let mut ngrams = Ngrams::default();
        let Asking { questions, ngrams: keys } = asking;
        match self.filter {
            AnyFilter::Legacy(filter) => {
                let words: Vec<&str> = words(text).collect();
                let starts = words.windows(length).step_by(stride);
                starts.for_each(|ngram| ngrams.add(self.ask_legacy(filter, &ngram.iter().copied().collect())));
            }
            AnyFilter::Current(filter) => {
                let each = |key| ngrams.add(self.ask(key, questions));
                match filter.has_rolled_ngrams() {
                    true => keys.rolled(text, length, stride, each),
                    false => keys.hashed(text, length, stride, each),
                }
                questions.end_group();
            }
        }
        let whole = (ngrams.total < 2 && !by_ngram.skip_short_paragraphs).then(|| self.whole(text, asking));
        Probes::Ngrams { ngrams, whole }
    }

    #[inline]
    fn ask(&self, key: u128, questions: &mut Questions) -> Probe {
        let partitions = self.settings.num_partitions.max(1);
        if partitions > 1 && key as u64 % partitions != self.settings.partition_index {
            return Probe::Foreign;
        }
        questions.push(key);
        Probe::Asked
    }

    fn ask_legacy(&self, filter: &LegacyFilter, parts: &VecDeque<&str>) -> Probe {
        let partitions = self.settings.num_partitions;
        if partitions > 1 && filter.first_hash(parts) % partitions != self.settings.partition_index {
            return Probe::Foreign;
        }
        Probe::Answer(filter.contains(parts))
    }
}

/// Paragraphs with the characters they take: every one but the last includes the separator after it, so that they
/// cover the text without gap or overlap.
pub fn split_paragraphs<'t>(text: &'t str, separator: &'t str) -> impl Iterator<Item = (usize, usize, &'t str)> {
    let ascii = text.is_ascii();
    let characters = move |part: &str| {
        if ascii {
            part.len()
        } else {
            part.chars().count()
        }
    };
    let separator_characters = separator.chars().count();
    let mut offset = 0;
    let mut left_bytes = text.len();
    pieces(text, separator).map(move |paragraph| {
        let start = offset;
        offset += characters(paragraph);
        left_bytes -= paragraph.len();
        if left_bytes > 0 {
            offset += separator_characters;
            left_bytes -= separator.len();
        }
        (start, offset, paragraph)
    })
}

/// As `str::split`, but fast for a separator of one byte.
fn pieces<'t>(text: &'t str, separator: &'t str) -> impl Iterator<Item = &'t str> {
    let mut left = Some(text);
    let mut longer = (separator.len() != 1).then(|| text.split(separator));
    std::iter::from_fn(move || {
        if let Some(split) = &mut longer {
            return split.next();
        }
        let text = left?;
        let end = memchr::memchr(separator.as_bytes()[0], text.as_bytes());
        left = end.map(|end| &text[end + 1..]);
        Some(&text[..end.unwrap_or(text.len())])
    })
}

/// The string that the key names in a row.
fn key_text<'r>(
    path: &JsonPath,
    needs: &Needs,
    row: &'r Row<'_>,
    line: &[u8],
    place: &Place<'_>,
) -> Result<Cow<'r, str>> {
    match path.single_field() {
        Some("text") => return Ok(Cow::Borrowed(&row.text)),
        Some("id") => return Ok(Cow::Borrowed(&row.id)),
        _ => {}
    }
    let parse = |json: &[u8]| {
        serde_json::from_slice::<Value>(json).map_err(|error| place.error(None, Code::NotJson, error.to_string()))
    };
    let only_metadata = !needs.everything && needs.fields.keys().eq(["metadata"]);
    let mut document = if only_metadata && row.metadata.is_some() { Value::Object(Map::new()) } else { parse(line)? };
    if let Some(metadata) = &row.metadata {
        // the row has parsed metadata that is JSON text
        document["metadata"] = parse(metadata.get().as_bytes())?;
    }
    let found = path.first(&document);
    if let Some(text) = found.and_then(comparable) {
        return Ok(Cow::Owned(text));
    }
    let (is, code) = match found {
        Some(number @ Value::Number(_)) => {
            (format!("the number {number}, which cannot be compared exactly"), Code::OutOfRange)
        }
        Some(other) => (kind(other).to_string(), Code::WrongType),
        None => ("missing".to_string(), Code::MissingField),
    };
    let message = format!("the key {} is {is}; expected a string or a number to compare", path.text());
    Err(place.error(Some(path.text()), code, message))
}

/// The text that a key is compared by. `1.0` is compared as `1`. `None` for a float too large to be exact, since different
/// numbers would be equal.
fn comparable(value: &Value) -> Option<String> {
    const MAX_EXACT: f64 = 9_007_199_254_740_992.0;
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Number(number) => match number.as_f64().filter(|_| number.is_f64()) {
            Some(float) if float.abs() >= MAX_EXACT => None,
            Some(float) if float.fract() == 0.0 => Some((float as i64).to_string()),
            _ => Some(number.to_string()),
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn paragraphs_tile_the_text(text in "[a-zé🎉\n|]{0,40}", separator in prop_oneof!["\n", "\n\n", "\\|", "é|"]) {
            let characters: Vec<char> = text.chars().collect();
            let mut next = 0;
            let mut whole = String::new();
            for (start, end, paragraph) in split_paragraphs(&text, &separator) {
                prop_assert_eq!(start, next);
                let span: String = characters[start..end].iter().collect();
                let with_separator = format!("{paragraph}{separator}");
                prop_assert!(span == paragraph || span == with_separator);
                whole.push_str(&span);
                next = end;
            }
            prop_assert_eq!(next, characters.len());
            prop_assert_eq!(whole, text);
        }

        #[test]
        fn words_hold_all_that_is_not_space(text in "\\PC{0,40}") {
            let kept: String = words(&text).collect();
            let bare = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
            prop_assert_eq!(bare(&kept), bare(&text));
        }
    }

    #[test]
    fn words_are_unicode_words() {
        let found: Vec<&str> = words("It's RSS 2.0 — naïve,\n\tok 中文").collect();
        assert_eq!(found, ["It's", "RSS", "2.0", "—", "naïve", ",", "ok", "中", "文"]);
    }
}
