//! What to tokenize and how; every input file is read once, for its hash and for what is wrong with it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{json, Value};

use super::encode::{Encoder, TokenizerPlan};
use super::fields::Fields;
use super::order::{strip, Document};
use super::Dtype;
use crate::document::Place;
use crate::error::{Error, Result};
use crate::jsonl::{Compression, LineReader, RowRules, RowSieve, SkippedRow, Written};
use crate::progress::Progress;
use crate::run::{pass, Batch, Files, Rows, Stage};

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
    /// As the user named it, and as it is in the `.csv.gz`.
    pub name: String,
    /// The name below what all files have in common; the order depends on this one.
    pub relative: String,
    /// Whether `name` is a URL.
    pub remote: bool,
}

impl TextFile {
    pub(super) fn open(&self, fields: &Fields, files: &Files) -> Result<LineReader> {
        files.open(&self.path, &self.name, Compression::of(Path::new(&self.name)), Some(&fields.names()))
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

    /// Skips at most so many rows from which id and text cannot be read.
    pub(super) fn sieve(&self, skip_bad_rows: u64) -> RowSieve {
        let fields = self.fields.clone();
        // `fields` says where ids come from
        let rules = RowRules { generate_ids: false, skip_bad_rows };
        RowSieve::new(&rules, 0).checking(move |line, place| fields.read(line, place).map(drop))
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
    /// `None` of a file that was never written.
    pub written: Option<Written>,
    /// UTF-8 bytes of the stripped texts.
    pub text_bytes: u64,
    /// Documents whose stripped text is empty.
    pub empty: u64,
    /// Skipped rows.
    pub skipped: Vec<SkippedRow>,
}

/// Reads every file and every row; all that is wrong is reported before any work is done.
pub(super) fn check_files(plan: &Plan, files: &Files, threads: usize, progress: &Progress) -> Result<Vec<Checked>> {
    files.expect(plan.files.iter().map(|file| file.path.as_path()))?;
    let checking = Checking { plan, files, sieve: plan.sieve(plan.rows.skip_bad_rows) };
    pass(&checking, plan.files.len(), threads, progress)
}

/// A series is a file.
struct Checking<'a> {
    plan: &'a Plan,
    files: &'a Files,
    sieve: RowSieve,
}

impl Stage for Checking<'_> {
    type Source = Rows;
    /// bytes of each text
    type Asked = Batch;
    type Made = Vec<u64>;
    /// bytes of the texts, empty ones
    type Output = (u64, u64);
    type Done = Checked;

    fn lists_errors(&self) -> bool {
        true
    }

    fn open(&self, series: usize) -> Result<(Rows, Self::Output)> {
        let file = &self.plan.files[series];
        let reader = file.open(&self.plan.fields, self.files)?;
        Ok((Rows::new(reader.sieved(&self.sieve), Vec::new()), (0, 0)))
    }

    fn ask(&self, _series: usize, batch: Batch) -> Result<Batch> {
        Ok(batch)
    }

    fn make(&self, series: usize, batch: Batch) -> Result<Vec<u64>> {
        let Plan { files, fields, .. } = self.plan;
        batch.all(|row| {
            let (_, text) = fields.read(row.document(), &row.place(&files[series].name))?;
            Ok(strip(&text).len() as u64)
        })
    }

    fn keep(&self, _series: usize, (text_bytes, empty): &mut Self::Output, lengths: Vec<u64>) -> Result<()> {
        *text_bytes += lengths.iter().sum::<u64>();
        *empty += lengths.iter().filter(|length| **length == 0).count() as u64;
        Ok(())
    }

    fn finish(&self, series: usize, rows: Rows, (text_bytes, empty): Self::Output) -> Result<Checked> {
        let written = self.files.hash(&self.plan.files[series].path)?;
        Ok(Checked { written: Some(written), text_bytes, empty, skipped: rows.skipped().to_vec() })
    }
}
