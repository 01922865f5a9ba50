//! Token shards made into other files: shards of other sizes, sequences of one length, Megatron's pairs.
//!
//! Every source is read once in full, hashed and held to docs/formats/tokens.md, before the first byte is written. An output
//! is a function of the plan and the sources alone, so threads share the outputs, and a stopped run makes the missing ones.

mod megatron;
mod pack;
mod reshard;
mod source;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{json, Map, Value};

use super::Dtype;
use crate::error::{Error, Result};
use crate::jsonl::Written;
use crate::manifest::{canonical_bytes, hashed_inputs, sha256_bytes, sha256_file, write_file, Input, Manifest};
use crate::progress::Progress;
use crate::run::{each, publish, Files, Journal, Made};

pub use pack::Packing;
pub use source::Source;
use source::Surveyed;

const TOKENIZER_FILE: &str = "tokenizer.json";

/// The whole request.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Shards of one item type and tokenizer.
    pub sources: Vec<Source>,
    /// Directory of the results.
    pub destination: PathBuf,
    /// Outputs that are made at once.
    pub threads: usize,
    /// Of the sources' manifests; the manifest of the results has them too.
    pub details: Details,
    /// Goes along with the results.
    pub tokenizer: Option<PathBuf>,
    /// The settings that the bytes depend on, for the manifest.
    pub config: Map<String, Value>,
    /// What to make.
    pub work: Work,
}

/// What docs/formats/tokens.md asks a manifest to say.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Details {
    pub dtype: Dtype,
    pub vocab_size: u32,
    pub eos_token_id: Option<u32>,
    pub bos_token_id: Option<u32>,
    pub pad_token_id: Option<u32>,
    pub tokenizer_sha256: String,
}

impl Details {
    fn fields(&self) -> Map<String, Value> {
        let Value::Object(fields) = json!({
            "dtype": self.dtype.name(),
            "vocab_size": self.vocab_size,
            "eos_token_id": self.eos_token_id,
            "bos_token_id": self.bos_token_id,
            "pad_token_id": self.pad_token_id,
            "tokenizer_sha256": self.tokenizer_sha256,
        }) else {
            return Map::new();
        };
        fields
    }
}

/// What to make of the sources.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case", tag = "command")]
pub enum Work {
    /// Shards that hold whole sources, one after the other.
    Reshard {
        /// Sources of each shard, by their positions in the plan.
        groups: Vec<Vec<usize>>,
        /// A larger source is a group of its own, and is cut between documents.
        max_size_bytes: Option<u64>,
    },
    /// Sequences of one length, a shard for each source.
    Pack {
        /// Tokens of a sequence.
        sequence_length: u64,
        /// How sequences are filled.
        packing: Packing,
        /// Fills what is left.
        pad_token_id: u32,
    },
    /// `.bin` and `.idx` of Megatron, a pair for each source.
    Megatron,
}

impl Work {
    fn command(&self) -> &'static str {
        match self {
            Work::Reshard { .. } => "reshard",
            Work::Pack { .. } => "tokens pack",
            Work::Megatron => "tokens export",
        }
    }
}

/// What a run did, and what the artifact holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Of the artifact, as its manifest has them.
    pub counts: BTreeMap<String, u64>,
    /// Outputs of the artifact.
    pub outputs: u64,
    /// Outputs that an earlier run had finished.
    pub kept: u64,
    /// Outputs of an unfinished run with other settings or inputs, thrown away.
    pub discarded: u64,
}

/// A finished output.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Output {
    /// What it adds to the counts of the manifest.
    counts: BTreeMap<String, u64>,
    /// Its files, by their names in the directory.
    files: BTreeMap<String, Written>,
}

impl Made for Output {
    fn files(&self, _name: &str) -> Vec<(String, &Written)> {
        self.files.iter().map(|(name, written)| (name.clone(), written)).collect()
    }
}

/// A part of a source that goes into an output.
#[derive(Clone, Copy, Debug)]
struct Piece {
    source: usize,
    start: u64,
    end: u64,
}

/// Writes the missing outputs, then the manifest.
pub fn run(plan: &Plan, progress: &Progress) -> Result<Summary> {
    let max_tokens = match &plan.work {
        Work::Reshard { max_size_bytes: Some(most), .. } => Some(most / plan.details.dtype.size_bytes()),
        _ => None,
    };
    let survey = |source: &Source| source.survey(&plan.details, max_tokens, progress);
    let surveyed = each(&plan.sources, plan.threads, survey)?;
    let outputs: Vec<Vec<Piece>> = match &plan.work {
        Work::Reshard { groups, .. } => reshard::outputs(groups, &surveyed),
        Work::Pack { .. } | Work::Megatron => surveyed
            .iter()
            .enumerate()
            .map(|(source, file)| vec![Piece { source, start: 0, end: file.tokens }])
            .collect(),
    };
    let inputs = inputs(plan, &surveyed)?;
    let pieces: Vec<Vec<(usize, u64, u64)>> =
        outputs.iter().map(|pieces| pieces.iter().map(|one| (one.source, one.start, one.end)).collect()).collect();
    let fingerprint = sha256_bytes(&canonical_bytes(&json!({
        "config": plan.config, "details": plan.details.fields(), "inputs": inputs, "pieces": pieces,
    })));
    let extensions = [".npy", ".csv.gz", ".bin", ".idx"];
    let publish::Exclusive { journal, complete, discarded } = publish::exclusive::<Output>(
        &Files::default(),
        &plan.destination,
        plan.work.command(),
        fingerprint,
        &extensions,
    )?;
    let kept = journal.ours().len() as u64;
    if !complete {
        let tokens = |pieces: &[Piece]| pieces.iter().map(|piece| piece.end - piece.start).sum::<u64>();
        let size = plan.details.dtype.size_bytes();
        progress.expect(outputs.len() as u64, outputs.iter().map(|pieces| tokens(pieces) * size).sum());
        let make = |&(number, pieces): &(usize, &Vec<Piece>)| -> Result<()> {
            progress.check()?;
            let name = format!("{number:06}");
            if journal.get(&name).is_none() {
                let output = match &plan.work {
                    Work::Reshard { .. } => reshard::write(plan, &name, pieces, &surveyed, progress)?,
                    Work::Pack { sequence_length, packing, pad_token_id } => {
                        let shape = pack::Shape { length: *sequence_length, packing: *packing, pad: *pad_token_id };
                        pack::write(plan, &name, number, &surveyed, shape, progress)?
                    }
                    Work::Megatron => megatron::write(plan, &name, number, &surveyed, progress)?,
                };
                progress.add_documents(output.counts.get("documents").copied().unwrap_or(0));
                journal.add(&name, output)?;
            }
            progress.add_bytes(tokens(pieces) * size);
            progress.add_file();
            Ok(())
        };
        each(&outputs.iter().enumerate().collect::<Vec<_>>(), plan.threads, make)?;
        write_manifest(plan, inputs, &journal)?;
    }
    Ok(Summary { counts: counts(&journal), outputs: outputs.len() as u64, kept, discarded })
}

/// Sums over the outputs.
fn counts(journal: &Journal<Output>) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::from([("documents".to_owned(), 0), ("tokens".to_owned(), 0)]);
    for (name, count) in journal.ours().into_iter().flat_map(|(_, output)| output.counts) {
        *counts.entry(name).or_default() += count;
    }
    counts
}

fn inputs(plan: &Plan, surveyed: &[Surveyed]) -> Result<Vec<Input>> {
    let mut files = BTreeMap::new();
    for (source, surveyed) in plan.sources.iter().zip(surveyed) {
        files.insert(source.npy.as_path(), &surveyed.npy);
        files.insert(source.csv.as_path(), &surveyed.csv);
    }
    let paths: Vec<PathBuf> = files.keys().map(|path| path.to_path_buf()).collect();
    hashed_inputs("tokens", "tokens", &paths, &plan.destination, &|path| {
        files.get(path).map_or_else(|| sha256_file(path), |written| Ok((*written).clone()))
    })
}

fn write_manifest(plan: &Plan, inputs: Vec<Input>, journal: &Journal<Output>) -> Result<()> {
    let format = match &plan.work {
        Work::Reshard { .. } => "tokens",
        Work::Pack { .. } => "packed",
        Work::Megatron => "megatron",
    };
    let mut manifest = Manifest::new(format, plan.config.clone());
    manifest.counts = counts(journal);
    manifest.details = plan.details.fields();
    match &plan.work {
        Work::Reshard { .. } => {}
        Work::Pack { sequence_length, packing, pad_token_id } => {
            manifest.details.insert("sequence_length".to_owned(), json!(sequence_length));
            manifest.details.insert("packing".to_owned(), json!(packing));
            manifest.details.insert("pad_token_id".to_owned(), json!(pad_token_id));
        }
        Work::Megatron => {
            manifest.details.insert("dtype".to_owned(), json!(megatron::item(plan.details.dtype).0));
        }
    }
    for (name, written) in journal.ours().iter().flat_map(|(_, output)| &output.files) {
        manifest.add_file(name, written);
    }
    if let Some(tokenizer) = &plan.tokenizer {
        let bytes = std::fs::read(tokenizer).map_err(|error| Error::io(tokenizer, error))?;
        manifest.add_file(TOKENIZER_FILE, &write_file(&plan.destination.join(TOKENIZER_FILE), &bytes)?);
    }
    manifest.inputs = inputs;
    manifest.write(&plan.destination).map(drop)
}
