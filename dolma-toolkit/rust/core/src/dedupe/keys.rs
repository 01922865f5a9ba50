//! From a row to the keys that are looked up: the part of the work that needs no order and runs in parallel.

use std::borrow::Cow;
use std::collections::VecDeque;

use serde_json::{Map, Value};
use xxhash_rust::xxh3::{xxh3_128, xxh3_128_with_seed, xxh3_64};

use super::settings::{NgramSettings, Normalize, Settings, UnitSettings};
use super::url;
use super::words::words;
use crate::bloom::{AnyFilter, LegacyFilter};
use crate::document::{kind, parse_row, Place, Row, FIELDS};
use crate::error::{Code, Result};
use crate::jsonpath::{Needs, Path as JsonPath};

/// Something to ask the filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// ask in order, then insert
    Key(u128),
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
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ngrams {
    /// all of them, those of other partitions too
    pub total: usize,
    /// those that a filter which is not written to has seen
    pub seen: usize,
    /// those to ask in order and then to insert
    pub keys: Vec<u128>,
}

impl Ngrams {
    fn add(&mut self, probe: Probe) {
        self.total += 1;
        match probe {
            Probe::Key(key) => self.keys.push(key),
            Probe::Answer(seen) => self.seen += usize::from(seen),
            Probe::Foreign => {}
        }
    }
}

/// Makes keys of rows.
pub struct Keyer<'a> {
    settings: &'a Settings,
    key: Option<(JsonPath, Needs)>,
    reading: Reading<'a>,
}

enum Reading<'a> {
    /// the filter changes while rows are decided
    Later,
    Now(&'a AnyFilter),
}

impl<'a> Keyer<'a> {
    /// With a filter, its answers are taken at once: it must not change meanwhile.
    pub fn new(settings: &'a Settings, answering: Option<&'a AnyFilter>) -> Result<Self> {
        let key = settings.key()?.map(|path| {
            let mut needs = Needs::default();
            needs.add(&path);
            (path, needs)
        });
        Ok(Self { settings, key, reading: answering.map_or(Reading::Later, Reading::Now) })
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
    pub fn row(&self, line: &[u8], place: &Place<'_>) -> Result<KeyedRow> {
        let row = parse_row(line, place)?;
        let mut separators = 0;
        let keys = match &self.settings.unit {
            UnitSettings::Documents { .. } => self.document(&row, line, place)?,
            UnitSettings::Paragraphs { .. } if row.text.is_empty() => RowKeys::Paragraphs(None),
            UnitSettings::Paragraphs { paragraph_separator, by_ngram, .. } => {
                let (paragraphs, pieces) = self.paragraphs(&row.text, paragraph_separator, by_ngram.as_ref());
                separators = pieces - 1;
                RowKeys::Paragraphs(Some(paragraphs))
            }
        };
        Ok(KeyedRow { id: Value::from(row.id).to_string(), separators, keys })
    }

    fn document(&self, row: &Row<'_>, line: &[u8], place: &Place<'_>) -> Result<RowKeys> {
        let text = match &self.key {
            Some((path, needs)) => key_text(path, needs, row, line, place)?,
            None => Cow::Borrowed(&*row.text),
        };
        let probe = (text.len() as u64 >= self.settings.min_length && self.is_compared(&text)).then(|| {
            match &self.settings.unit {
                UnitSettings::Documents { normalize: Some(Normalize::Url), .. } => self.whole(&url::normalized(&text)),
                _ => self.whole(&text),
            }
        });
        Ok(RowKeys::Document { probe, length_bytes: text.len() })
    }

    /// The paragraphs that are long enough, and the number of all.
    fn paragraphs(&self, text: &str, separator: &str, by_ngram: Option<&NgramSettings>) -> (Vec<Paragraph>, u64) {
        let (mut paragraphs, mut hashes, mut pieces) = (Vec::new(), Vec::new(), 0);
        for (start, end, paragraph) in split_paragraphs(text, separator) {
            pieces += 1;
            let long_enough =
                self.settings.min_length == 0 || paragraph.chars().count() as u64 >= self.settings.min_length;
            if !long_enough || !self.is_compared(paragraph) {
                continue;
            }
            let probes = match by_ngram {
                None => Probes::Whole(self.whole(paragraph)),
                Some(by_ngram) => self.ngrams(paragraph, by_ngram, &mut hashes),
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

    fn whole(&self, text: &str) -> Probe {
        match self.reading {
            Reading::Now(AnyFilter::Legacy(filter)) => self.ask_legacy(filter, &VecDeque::from([text])),
            _ => self.ask(xxh3_128(text.as_bytes())),
        }
    }

    /// `hashes` is memory to work in.
    fn ngrams(&self, text: &str, by_ngram: &NgramSettings, hashes: &mut Vec<u8>) -> Probes {
        let length = by_ngram.ngram_length;
        let stride = by_ngram.stride.max(1);
        let mut ngrams = Ngrams::default();
        match self.reading {
            Reading::Now(AnyFilter::Legacy(filter)) => {
                let words: Vec<&str> = words(text).collect();
                let starts = words.windows(length).step_by(stride);
                starts.for_each(|ngram| ngrams.add(self.ask_legacy(filter, &ngram.iter().copied().collect())));
            }
            _ => {
                hashes.clear();
                words(text).for_each(|word| hashes.extend_from_slice(&xxh3_64(word.as_bytes()).to_le_bytes()));
                let windows = (hashes.len() / 8 + 1).saturating_sub(length);
                ngrams.keys.reserve_exact(windows.div_ceil(stride));
                for start in (0..windows).step_by(stride) {
                    let ngram = &hashes[start * 8..(start + length) * 8];
                    ngrams.add(self.ask(xxh3_128_with_seed(ngram, length as u64)));
                }
            }
        }
        let whole = (ngrams.total < 2 && !by_ngram.skip_short_paragraphs).then(|| self.whole(text));
        Probes::Ngrams { ngrams, whole }
    }

    fn ask(&self, key: u128) -> Probe {
        let partitions = self.settings.num_partitions.max(1);
        if partitions > 1 && key as u64 % partitions != self.settings.partition_index {
            return Probe::Foreign;
        }
        match self.reading {
            Reading::Now(AnyFilter::Current(filter)) => Probe::Answer(filter.contains(key)),
            _ => Probe::Key(key),
        }
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
    text.split(separator).map(move |paragraph| {
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
