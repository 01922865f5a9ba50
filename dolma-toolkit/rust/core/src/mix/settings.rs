//! What `dolma mix` is asked to do, with every path worked out and inputs packed into shards.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// All of it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// in the order of the configuration
    pub streams: Vec<Stream>,
    /// how many threads work
    pub threads: usize,
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
    /// where documents go that are dropped, if they are kept
    pub dropped_directory: Option<PathBuf>,
    /// how inputs are packed, where their names do not say it: `gz`, `zst`, `bz2`, `xz` or nothing
    pub compression: Option<String>,
    /// which settings decide the bytes of the output
    pub rules: RuleSettings,
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

/// One document file and the attribute files beside it.
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
    /// `{}` stands for what was there; text that begins with `$.` is a jq selection of the document
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
