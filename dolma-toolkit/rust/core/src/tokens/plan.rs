//! What to tokenize and how; every input file is read once, for its hash and for what is wrong with it.

use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{json, Value};

use super::encode::{Encoder, TokenizerPlan};
use super::fields::Fields;
use super::order::{strip, Document};
use crate::document::Place;
use crate::error::{Error, Result};
use crate::jsonl::{Compression, LineReader, RowRules, RowSieve, SkippedRow, Written};
use crate::manifest::sha256_file;
use crate::progress::Progress;

/// Rows of one file that are reported at most.
const REPORTED_ROWS: usize = 100;

/// The whole request.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// In sorted order.
    pub files: Vec<TextFile>,
    /// Directory of the shards.
    pub destination: PathBuf,
    /// The tokenizer and its special tokens.
    pub tokenizer: TokenizerPlan,
    /// Where id and text stand in a row.
    pub fields: Fields,
    /// Threads that encode.
    pub threads: usize,
    /// Files that share a series of shards; all of them where it is `None`.
    pub files_per_process: Option<usize>,
    /// Documents that are shuffled together.
    pub batch_size: usize,
    /// Files that are read in turn.
    pub ring_size: usize,
    /// Reads the files of the ring in proportion to their sizes, not in turn.
    pub sample_ring_prop: bool,
    /// Of a `.npy`.
    pub max_size_bytes: u64,
    /// What to do with a document that is larger.
    pub oversize: Oversize,
    /// Item type; the smallest of uint16 and uint32 that holds the vocabulary where it is `None`.
    pub dtype: Option<Dtype>,
    /// Of the order.
    pub seed: u64,
    /// What to do with rows that are not valid documents. `fields` says where ids come from.
    #[serde(default)]
    pub rows: RowRules,
}

/// One document file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextFile {
    /// Where it can be opened.
    pub path: PathBuf,
    /// As the user named it; this stands in the `.csv.gz`.
    pub name: String,
    /// The name below what all files have in common; the order depends on this one.
    pub relative: String,
    /// Whether `name` is a URL.
    pub remote: bool,
}

impl TextFile {
    pub(super) fn open(&self, fields: &Fields) -> Result<LineReader> {
        LineReader::open_fields(&self.path, &self.name, Compression::of(Path::new(&self.name)), &fields.names())
    }
}

/// What becomes of a document that is larger than a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Oversize {
    /// It is an error.
    Refuse,
    /// It is cut into rows that fill a shard each; each begins and ends as a document does.
    Split,
}

/// Item type of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Dtype {
    Uint8,
    Uint16,
    Uint32,
}

impl Dtype {
    /// The type of that name.
    pub fn named(name: &str) -> Option<Dtype> {
        [Dtype::Uint8, Dtype::Uint16, Dtype::Uint32].into_iter().find(|dtype| dtype.name() == name)
    }

    /// As NumPy and the manifest name it.
    pub fn name(self) -> &'static str {
        match self {
            Dtype::Uint8 => "uint8",
            Dtype::Uint16 => "uint16",
            Dtype::Uint32 => "uint32",
        }
    }

    /// Bytes of one item.
    pub fn size_bytes(self) -> u64 {
        match self {
            Dtype::Uint8 => 1,
            Dtype::Uint16 => 2,
            Dtype::Uint32 => 4,
        }
    }

    fn holds(self, vocab_size: u32) -> bool {
        u64::from(vocab_size) <= 1 << (8 * self.size_bytes())
    }
}

impl Plan {
    /// The chosen item type, checked against the vocabulary.
    pub(super) fn dtype_for(&self, vocab_size: u32) -> Result<Dtype> {
        match self.dtype {
            None if Dtype::Uint16.holds(vocab_size) => Ok(Dtype::Uint16),
            None => Ok(Dtype::Uint32),
            Some(dtype) if dtype.holds(vocab_size) => Ok(dtype),
            Some(dtype) => {
                let message = format!("is {}; expected a type that holds a vocabulary of {vocab_size}", dtype.name());
                let fitting = if Dtype::Uint16.holds(vocab_size) { "uint16" } else { "uint32" };
                Err(Error::config("dtype", message).with_hint(format!("use {fitting}, or leave it out")))
            }
        }
    }

    /// The settings that the bytes depend on.
    pub(super) fn manifest_config(&self, dtype: Dtype, encoder: &Encoder) -> Value {
        json!({
            "command": "tokens",
            "batch_size": self.batch_size,
            "dtype": dtype.name(),
            "fields": self.fields,
            "files_per_process": self.files_per_process,
            "max_size": self.max_size_bytes,
            "oversize": self.oversize,
            "ring_size": self.ring_size,
            "sample_ring_prop": self.sample_ring_prop,
            "seed": self.seed,
            "tokenizer": {
                "bos_token_id": self.tokenizer.bos_token_id,
                "encode_special_tokens": self.tokenizer.encode_special_tokens,
                "eos_token_id": self.tokenizer.eos_token_id,
                "pad_token_id": self.tokenizer.pad_token_id,
                "segment_before_tokenization": self.tokenizer.segment_before_tokenization,
                "sha256": encoder.sha256(),
            },
        })
    }

    pub(super) fn names(&self) -> Vec<(&str, &str)> {
        self.files.iter().map(|file| (file.name.as_str(), file.relative.as_str())).collect()
    }

    pub(super) fn place(&self, document: &Document) -> Place<'_> {
        Place { path: &self.files[document.file].name, line: document.line }
    }
}

/// What the first read of a file tells.
pub(super) struct Checked {
    pub written: Written,
    /// UTF-8 bytes of the stripped texts.
    pub text_bytes: u64,
    /// Documents whose stripped text is empty.
    pub empty: u64,
    /// Skipped rows.
    pub skipped: Vec<SkippedRow>,
}

/// Reads every file and every row; all that is wrong is told before any work is done.
pub(super) fn check_files(plan: &Plan, progress: &Progress) -> Result<Vec<Checked>> {
    let sieve = RowSieve::new(&plan.rows, 0);
    let check = |file: &TextFile| -> Result<Checked> {
        let compression = Compression::of(Path::new(&file.name));
        let mut reader = LineReader::open_hashing(&file.path, &file.name, compression, Some(&plan.fields.names()))?;
        let (mut errors, mut skipped) = (Vec::new(), Vec::new());
        let (mut rows, mut text_bytes, mut empty) = (0u64, 0u64, 0u64);
        while errors.len() < REPORTED_ROWS {
            let line = match reader.next_line() {
                Ok(Some(line)) => line.to_vec(),
                Ok(None) => break,
                Err(error) => {
                    errors.push(error);
                    break;
                }
            };
            rows += 1;
            if rows % 1024 == 0 {
                progress.check()?;
            }
            match plan.fields.read(&line, &reader.place()) {
                Ok((_, text)) => {
                    let length_bytes = strip(&text).len() as u64;
                    text_bytes += length_bytes;
                    empty += u64::from(length_bytes == 0);
                }
                Err(error) if sieve.skips() => match sieve.skip(error) {
                    Ok(row) => skipped.push(row),
                    Err(error) => {
                        errors.push(error);
                        break;
                    }
                },
                Err(error) => errors.push(error),
            }
        }
        match Error::many(errors) {
            Some(error) => Err(error),
            None => {
                let written = reader.written().map_or_else(|| sha256_file(&file.path), Ok)?;
                Ok(Checked { written, text_bytes, empty, skipped })
            }
        }
    };
    let results: Vec<Result<Checked>> = plan.files.par_iter().with_max_len(1).map(check).collect();
    let (mut checked, mut errors) = (Vec::new(), Vec::new());
    for result in results {
        match result {
            Ok(file) => checked.push(file),
            Err(error) => errors.push(error),
        }
    }
    match Error::many(errors) {
        Some(error) => Err(error),
        None => Ok(checked),
    }
}
