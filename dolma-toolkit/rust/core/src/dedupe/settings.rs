//! What `dolma dedupe` is asked to do, with every path worked out.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{json, Map, Value};

use crate::bloom::{available_memory_bytes, Record, Sizing};
use crate::error::{Error, Result};
use crate::jsonpath::Path as JsonPath;

/// One document file and where its attributes go.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DocumentFile {
    /// where it can be read
    pub path: PathBuf,
    /// its path below `documents_directory`, with `/`
    pub relative: String,
    /// `<root>/documents`
    pub documents_directory: PathBuf,
    /// `<root>/attributes/<name>`
    pub attributes_directory: PathBuf,
}

impl DocumentFile {
    /// Where its attributes go.
    pub fn output(&self) -> PathBuf {
        self.attributes_directory.join(&self.relative)
    }
}

/// All of it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// in the order in which the first of equals is kept
    pub files: Vec<DocumentFile>,
    /// what is compared
    pub unit: UnitSettings,
    /// empty documents or paragraphs (white space alone) are never duplicates
    pub skip_empty: bool,
    /// shorter ones are never duplicates: bytes of a document's key, characters of a paragraph
    pub min_length: u64,
    /// ones with fewer words are never duplicates
    pub min_words: u64,
    /// into how many shares the keys are divided
    pub num_partitions: u64,
    /// which of them this run decides
    pub partition_index: u64,
    /// what follows the attribute's name: the partition's number where there are several
    pub attribute_suffix: String,
    /// the filter
    pub bloom_filter: FilterSettings,
}

/// What is compared.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum UnitSettings {
    /// a string of each document
    Documents {
        /// key of the attribute that is written
        attribute_name: String,
        /// JSONPath of the string
        key: String,
        /// which strings count as equal; `None`: those with equal bytes
        #[serde(default)]
        normalize: Option<Normalize>,
    },
    /// each paragraph of the text
    Paragraphs {
        /// key of the attribute that is written
        attribute_name: String,
        /// what separates paragraphs
        paragraph_separator: String,
        /// compare n-grams of words instead of whole paragraphs
        by_ngram: Option<NgramSettings>,
    },
}

/// What is done to a string before it is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Normalize {
    /// spellings of one web address become one
    Url,
}

/// How n-grams are compared.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NgramSettings {
    /// words in each
    pub ngram_length: usize,
    /// words from the start of one to the start of the next; 0 and 1 both take all
    pub stride: usize,
    /// share of seen n-grams from which a paragraph is marked
    pub overlap_threshold: f64,
    /// leave paragraphs with fewer than two n-grams alone instead of comparing them whole
    pub skip_short_paragraphs: bool,
}

/// The filter's file and size.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilterSettings {
    /// where it is, or will be
    pub file: PathBuf,
    /// only ask, insert nothing
    pub read_only: bool,
    /// size of a new filter; 0: by the next two
    pub size_in_bytes: u64,
    /// keys that a new filter is for
    pub estimated_doc_count: u64,
    /// rate at which it may then answer wrongly
    pub desired_false_positive_rate: f64,
}

impl Settings {
    /// The key of the attribute.
    pub fn attribute_name(&self) -> String {
        let (UnitSettings::Documents { attribute_name, .. } | UnitSettings::Paragraphs { attribute_name, .. }) =
            &self.unit;
        format!("{attribute_name}{}", self.attribute_suffix)
    }

    /// The share of keys that this run decides, as `index/count`.
    pub fn partition(&self) -> String {
        format!("{}/{}", self.partition_index, self.num_partitions.max(1))
    }

    /// The compiled key of document mode.
    pub fn key(&self) -> Result<Option<JsonPath>> {
        let UnitSettings::Documents { key, .. } = &self.unit else {
            return Ok(None);
        };
        let path = JsonPath::new(key).map_err(|error| {
            let message = format!("is `{key}`, which is not a JSONPath: {error}");
            Error::config("dedupe.documents.key", message)
                .with_hint("`$.text` compares texts, `$.metadata.url` addresses")
        })?;
        Ok(Some(path))
    }

    /// Size of a new filter for `keys` keys. Fails if it does not fit in memory.
    pub fn sizing(&self, keys: u64) -> Result<Sizing> {
        let sizing = self.sizing_of_all(keys);
        match available_memory_bytes() {
            Some(available) if sizing.size_bytes() > available => {
                let gib = |bytes: u64| bytes as f64 / (1u64 << 30) as f64;
                let message = format!(
                    "asks for a filter of {:.1} GiB; expected at most the {:.1} GiB of free memory",
                    gib(sizing.size_bytes()),
                    gib(available)
                );
                Err(Error::config("bloom_filter", message)
                    .with_hint("lower estimated_doc_count or raise desired_false_positive_rate"))
            }
            _ => Ok(sizing),
        }
    }

    /// As [`Settings::sizing`], wherever the memory is.
    pub fn sizing_of_all(&self, keys: u64) -> Sizing {
        let filter = &self.bloom_filter;
        match filter.size_in_bytes {
            0 => Sizing::for_keys(keys, filter.desired_false_positive_rate),
            size_bytes => Sizing::for_size(size_bytes, keys, filter.desired_false_positive_rate),
        }
    }

    /// The share of new keys that the filter may report as seen: the setting, else what it was made for, else 1 %.
    pub fn accepted_rate(&self, record: Option<&Record>) -> f64 {
        const DEFAULT_RATE: f64 = 0.01;
        let rates =
            [self.bloom_filter.desired_false_positive_rate, record.map_or(0.0, |record| record.false_positive_rate)];
        // a filter with exactly its number of keys is at its rate, except for rounding
        rates.into_iter().find(|rate| *rate > 0.0).unwrap_or(DEFAULT_RATE) * 1.000_001
    }

    /// The settings that the output depends on, as manifests keep them.
    pub fn recorded(&self) -> Map<String, Value> {
        let unit = match &self.unit {
            UnitSettings::Documents { attribute_name, key, normalize } => {
                let mut documents = json!({"attribute_name": attribute_name, "key": key});
                if let Some(normalize) = normalize {
                    documents["normalize"] = json!(normalize);
                }
                json!({"documents": documents})
            }
            UnitSettings::Paragraphs { attribute_name, paragraph_separator, by_ngram } => {
                let by_ngram = by_ngram.as_ref().map(|ngram| {
                    json!({
                        "ngram_length": ngram.ngram_length,
                        "stride": ngram.stride,
                        "overlap_threshold": ngram.overlap_threshold,
                        "skip_short_paragraphs": ngram.skip_short_paragraphs,
                    })
                });
                json!({"paragraphs": {
                    "attribute_name": attribute_name,
                    "paragraph_separator": paragraph_separator,
                    "by_ngram": by_ngram,
                }})
            }
        };
        let filter = &self.bloom_filter;
        let value = json!({
            "dedupe": {
                "unit": unit,
                "skip_empty": self.skip_empty,
                "min_length": self.min_length,
                "min_words": self.min_words,
                "num_partitions": self.num_partitions,
                "partition_index": self.partition_index,
                "attribute_suffix": self.attribute_suffix,
            },
            "bloom_filter": {
                "read_only": filter.read_only,
                "size_in_bytes": filter.size_in_bytes,
                "estimated_doc_count": filter.estimated_doc_count,
                "desired_false_positive_rate": filter.desired_false_positive_rate,
            },
        });
        match value {
            Value::Object(map) => map,
            _ => Map::new(),
        }
    }
}
