//! What is asked of a deduplication that needs all documents, with every path worked out.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{json, Map, Value};

use crate::dedupe::DocumentFile;
use crate::error::{Error, Result};
use crate::jsonpath::Path as JsonPath;

/// All of it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// in the order in which documents get their numbers
    pub files: Vec<DocumentFile>,
    /// for each of them, files of attributes that the score may be in
    #[serde(default)]
    pub attributes: Vec<Vec<PathBuf>>,
    /// directory of what is known of documents
    pub index: PathBuf,
    /// key of the attribute that is written
    pub attribute_name: String,
    /// ones with fewer words are never duplicates
    pub min_words: u64,
    /// shorter ones, in bytes, are never duplicates
    pub min_length: u64,
    /// what is compared
    pub unit: Unit,
}

/// What is compared.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Unit {
    /// Documents that share many n-grams of words.
    Minhash {
        /// words of an n-gram
        ngram_length: usize,
        /// keys of a document
        bands: usize,
        /// values of a sketch that make a key
        rows: usize,
        /// which document of a cluster stays
        keep: Keep,
        /// JSONPath of the score, in the document with its attributes
        score: Option<String>,
    },
    /// Lines or sentences that stand in many documents.
    Repeats(Repeats),
    /// Stretches of text that stand somewhere earlier.
    Substring {
        /// of UTF-8, at least
        length_bytes: usize,
    },
}

/// Which pieces of text are counted.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Repeats {
    /// what a text is divided into
    pub piece: Piece,
    /// how many pieces in a row are compared together
    pub window: usize,
    /// how often they are found before they are marked
    pub least: u64,
    /// leave the first alone
    pub keep_first: bool,
}

/// A piece of text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Piece {
    /// up to a line feed
    Line,
    /// by Unicode Standard Annex 29
    Sentence,
}

/// Which document of a cluster stays; among equals, the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Keep {
    /// the first
    First,
    /// the one with the longest text
    Longest,
    /// the one with the highest score
    Highest,
}

impl Settings {
    /// What keys depend on: the same for all documents of an index.
    pub fn parameters(&self) -> Value {
        json!({"unit": self.unit, "min_words": self.min_words, "min_length": self.min_length})
    }

    /// The settings that the output depends on, as manifests keep them.
    pub fn recorded(&self) -> Map<String, Value> {
        let mut dedupe = self.parameters();
        dedupe["attribute_name"] = Value::from(self.attribute_name.as_str());
        Map::from_iter([("dedupe".to_owned(), dedupe)])
    }

    /// The keys of all attributes.
    pub fn keys(&self) -> Vec<String> {
        let suffixes: &[&str] = match self.unit {
            Unit::Minhash { .. } => &["", "__cluster", "__size"],
            Unit::Repeats(_) | Unit::Substring { .. } => &[""],
        };
        suffixes.iter().map(|suffix| format!("{}{suffix}", self.attribute_name)).collect()
    }

    /// The path of the score, if it decides.
    pub fn score(&self) -> Result<Option<JsonPath>> {
        let Unit::Minhash { keep: Keep::Highest, score: Some(score), .. } = &self.unit else { return Ok(None) };
        let path = JsonPath::new(score).map_err(|error| {
            let message = format!("is `{score}`, which is not a JSONPath: {error}");
            Error::config("dedupe.minhash.score", message).with_hint(
                "`$.metadata.quality` is a field of the document, `$.attributes.quality[0][2]` a tagger's score",
            )
        })?;
        Ok(Some(path))
    }
}
