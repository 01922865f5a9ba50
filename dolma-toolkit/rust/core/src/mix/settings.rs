//! What `dolma mix` is asked to do, with every path worked out and inputs packed into shards.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// All of it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// in the order of the configuration
    pub streams: Vec<Stream>,
}

/// Documents that are treated alike.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stream {
    /// the beginning of the names of its shards
    pub name: String,
    /// what its output is made from
    pub shards: Vec<Shard>,
    /// the directories of attributes, in the order in which later ones win
    pub attribute_directories: Vec<PathBuf>,
    /// where the shards go
    pub output_directory: PathBuf,
    /// where the parts of a split go; none where nothing is split
    #[serde(default)]
    pub part_directories: Vec<PathBuf>,
    /// where documents go that are dropped, if they are kept
    pub dropped_directory: Option<PathBuf>,
    /// how inputs are packed, where their names do not say it: `gz`, `zst`, `bz2`, `xz` or nothing
    pub compression: Option<String>,
    /// which settings decide the bytes of the output
    pub rules: RuleSettings,
}

impl Stream {
    /// Where documents go that are kept: one directory for each part.
    pub fn kept_directories(&self) -> &[PathBuf] {
        if self.part_directories.is_empty() {
            std::slice::from_ref(&self.output_directory)
        } else {
            &self.part_directories
        }
    }
}

/// One output file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shard {
    /// its name below the output directory, with `/`
    pub name: String,
    /// in order
    pub inputs: Vec<ShardInput>,
}

/// One document file and its attribute files.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardInput {
    /// where it can be read
    pub path: PathBuf,
    /// one for each attribute directory that belongs to it
    pub attributes: Vec<PathBuf>,
}

/// Filters, replacements and what else is done to a document.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleSettings {
    /// `None` keeps everything
    pub filter: Option<FilterSettings>,
    /// in order
    pub span_replacement: Vec<SpanSettings>,
    /// top-level fields that are left out
    pub discard_fields: Vec<String>,
    /// bytes that a text, without white space at its ends, must have in the end
    pub min_text_length: u64,
    /// how many of the documents that are left are taken
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample: Option<SampleSettings>,
    /// how much of what is left then
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<BudgetSettings>,
    /// into which parts that is divided
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<SplitSettings>,
    /// the order in which it is written; `None`: that of the input
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shuffle_documents: Option<ShuffleSettings>,
}

/// A share of the documents, or several copies of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SampleSettings {
    /// how many of each document on average
    pub rate: f64,
    /// of the choice
    pub seed: u64,
}

/// As many documents as fit, in an order that is as good as random.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BudgetSettings {
    /// what is counted
    pub unit: BudgetUnit,
    /// how much of it there may be
    pub limit: u64,
    /// key of the attribute that holds a document's tokens
    pub attribute: Option<String>,
    /// of the order
    pub seed: u64,
}

/// What a budget counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BudgetUnit {
    /// documents
    Documents,
    /// bytes of text (UTF-8) as it is written
    Bytes,
    /// tokens, as an attribute says
    Tokens,
}

/// Parts by score, each in a directory of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitSettings {
    /// key of the attribute whose first span has the score
    pub attribute: String,
    /// scores at which parts begin, but for the first; rising
    pub ranges: Vec<f64>,
    /// or percentiles of the documents at which they do; rising
    pub percentiles: Vec<f64>,
    /// key of the attribute that holds what a document counts in percentiles; `None`: one
    pub weight: Option<String>,
    /// score of documents without the attribute
    pub missing: Option<f64>,
}

/// Another order of the documents.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShuffleSettings {
    /// of the order
    pub seed: u64,
}

/// Which documents are kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilterSettings {
    /// one has to match; none lets everything pass
    pub include: Vec<String>,
    /// none may match
    pub exclude: Vec<String>,
    /// of both
    pub syntax: Syntax,
}

/// What replaces spans.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpanSettings {
    /// selects `[[start, end, score], …]`
    pub span: String,
    /// of the selection
    pub syntax: Syntax,
    /// scores from here on
    pub min_score: Option<f64>,
    /// scores below this
    pub max_score: Option<f64>,
    /// `{}` is what was there; text that begins with `$.` is a jq selection of the document
    pub replacement: String,
}

/// A language of selections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Syntax {
    /// see [`crate::jsonpath`]
    JsonPath,
    /// see [`crate::jq`]
    Jq,
}
