//! `dolma tokens`: documents in, token shards out (docs/formats/tokens.md, version 1).
//!
//! Every row is read and checked before the first is encoded. The order of the documents is a function of the seed, the
//! names of the files and the lines in them; threads and interruptions do not change a byte.

pub(crate) mod bpe;
pub mod derived;
mod encode;
mod fields;
mod order;
mod plan;
mod shards;

use std::path::Path;
use std::thread;

use crossbeam_channel::bounded;
use rayon::prelude::*;
use serde_json::{json, Value};

use crate::error::{Error, Result};
use crate::jsonl::{SkippedRow, Written};
use crate::manifest::{canonical_bytes, hashed_inputs, sha256_bytes, tokenizer_input, write_file, Input, Manifest};
use crate::progress::Progress;
use crate::threads;

pub use encode::{decode, Encoder, TokenizerPlan};
pub use fields::Fields;
pub use plan::{Dtype, Oversize, Plan, TextFile};

use order::Stream;
use plan::Checked;
use shards::{Group, Shards};

/// Documents that are encoded before the next look at the clock and at Ctrl-C.
const CHUNK_DOCUMENTS: usize = 256;
const TOKENIZER_FILE: &str = "tokenizer.json";

/// What a run did, and what the artifact holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Documents in the artifact.
    pub documents: u64,
    /// Tokens in the artifact.
    pub tokens: u64,
    /// UTF-8 bytes of the stripped texts in the artifact.
    pub text_bytes: u64,
    /// Shards in the artifact.
    pub shards: u64,
    /// Shards that an earlier run had finished.
    pub shards_kept: u64,
    /// Shards of an unfinished run with other settings or inputs, thrown away.
    pub shards_discarded: u64,
    /// Documents whose text spelt a token that ends or begins documents; it was encoded as text.
    pub respelt: u64,
    /// Documents without text. They are in no shard.
    pub empty: u64,
    /// Skipped rows, with the names of their files.
    pub skipped: Vec<(String, SkippedRow)>,
}

/// Writes the missing shards, then the manifest.
pub fn run(plan: &Plan, progress: &Progress) -> Result<Summary> {
    let encoder = Encoder::load(&plan.tokenizer)?;
    let dtype = plan.dtype_for(encoder.vocab_size())?;
    let stored_bytes = plan.files.iter().map(|file| file.path.metadata().map_or(0, |file| file.len())).sum();
    let pool = threads::pool(plan.threads, threads::pieces(stored_bytes))?;
    let checked = pool.install(|| plan::check_files(plan, progress))?;
    let inputs = inputs(plan, &checked)?;
    let config = plan.manifest_config(dtype, &encoder);
    let fingerprint =
        sha256_bytes(&canonical_bytes(&json!({"config": config, "inputs": inputs, "names": plan.names()})));

    let mut shards = Shards::open(&plan.destination, &fingerprint)?;
    let mut summary = Summary { shards_discarded: shards.discarded, ..Summary::default() };
    if !shards.finished {
        progress.expect(checked.len() as u64, checked.iter().map(|file| file.text_bytes).sum());
        let groups = order::groups(plan);
        let digits = shards::digits(groups.len());
        for (index, files) in groups.into_iter().enumerate() {
            let group = Group {
                index,
                digits,
                dtype,
                max_tokens: plan.max_size_bytes / dtype.size_bytes(),
                oversize: plan.oversize,
                bos: plan.tokenizer.bos_token_id,
                eos: plan.tokenizer.eos_token_id,
            };
            summary.respelt += write_group(plan, &encoder, &pool, files, group, &mut shards, progress)?;
        }
        for (file, checked) in plan.files.iter().zip(&checked) {
            let now = std::fs::metadata(&file.path).map_err(|source| Error::io(&file.path, source))?.len();
            if now != checked.written.size_bytes {
                return Err(crate::jsonl::changed(&file.name, checked.written.size_bytes, now));
            }
        }
        write_manifest(plan, &encoder, dtype, config, inputs, &shards, &checked)?;
    }
    for shard in shards.all() {
        summary.documents += shard.documents;
        summary.tokens += shard.tokens;
        summary.text_bytes += shard.text_bytes;
        summary.shards += 1;
    }
    summary.shards_kept = shards.kept;
    for (file, checked) in plan.files.iter().zip(checked) {
        summary.empty += checked.empty;
        summary.skipped.extend(checked.skipped.into_iter().map(|row| (file.name.clone(), row)));
    }
    Ok(summary)
}

/// Encodes one group of files into its shards. Reading, encoding and writing overlap; their order does not change.
fn write_group(
    plan: &Plan,
    encoder: &Encoder,
    pool: &rayon::ThreadPool,
    files: Vec<usize>,
    group: Group,
    shards: &mut Shards,
    progress: &Progress,
) -> Result<u64> {
    let mut skip = shards.documents_of(group.index);
    let mut writer = shards.writer(group);
    let mut respelt = 0;
    thread::scope(|scope| {
        let (send, windows) = bounded(1);
        scope.spawn(move || {
            let mut stream = Stream::new(plan, files, progress);
            loop {
                let window = stream.next_window();
                let last = !matches!(window, Ok(Some(_)));
                // the receiver is gone when writing failed
                if send.send(window).is_err() || last {
                    return;
                }
            }
        });
        while let Ok(window) = windows.recv() {
            let Some(window) = window? else { break };
            // what finished shards hold is not encoded again
            let skipped = skip.min(window.len() as u64);
            skip -= skipped;
            progress.add_documents(skipped);
            progress.add_bytes(text_bytes(&window[..skipped as usize]));
            for chunk in window[skipped as usize..].chunks(CHUNK_DOCUMENTS) {
                progress.check()?;
                let encoded: Vec<Result<encode::Encoded>> = pool.install(|| {
                    chunk.par_iter().map(|document| encoder.encode(&document.text, &plan.place(document))).collect()
                });
                for (document, encoded) in chunk.iter().zip(encoded) {
                    let encoded = encoded?;
                    respelt += u64::from(encoded.respelt);
                    writer.write(
                        document,
                        plan.files[document.file].name.as_str(),
                        &encoded.ids,
                        &plan.place(document),
                    )?;
                }
                progress.add_documents(chunk.len() as u64);
                progress.add_bytes(text_bytes(chunk));
            }
        }
        Ok(())
    })
    .and_then(|()| writer.finish())?;
    Ok(respelt)
}

fn text_bytes(documents: &[order::Document]) -> u64 {
    documents.iter().map(|document| document.text.len() as u64).sum()
}

fn inputs(plan: &Plan, checked: &[Checked]) -> Result<Vec<Input>> {
    let mut local = std::collections::BTreeMap::new();
    let mut inputs = Vec::new();
    for (file, checked) in plan.files.iter().zip(checked) {
        if file.remote {
            inputs.push(Input {
                role: "documents".to_owned(),
                path: file.name.clone(),
                manifest_sha256: None,
                sha256: Some(checked.written.sha256.clone()),
                size_bytes: Some(checked.written.size_bytes),
            });
        } else {
            local.insert(file.path.clone(), Some(checked.written.clone()));
        }
    }
    inputs.extend(hashed_inputs("documents", "document", &local, &plan.destination)?);
    inputs.push(tokenizer_input(&plan.tokenizer.path, &plan.destination)?);
    inputs.sort_by(|a, b| (&a.role, &a.path).cmp(&(&b.role, &b.path)));
    Ok(inputs)
}

fn write_manifest(
    plan: &Plan,
    encoder: &Encoder,
    dtype: Dtype,
    config: Value,
    inputs: Vec<Input>,
    shards: &Shards,
    checked: &[Checked],
) -> Result<()> {
    let Value::Object(config) = config else { return Ok(()) };
    let mut manifest = Manifest::new("tokens", config);
    for name in ["documents", "tokens", "text_bytes"] {
        manifest.add_count(name, 0);
    }
    let empty = checked.iter().map(|file| file.empty).sum();
    let skipped = checked.iter().map(|file| file.skipped.len() as u64).sum();
    for (name, count) in [("documents_empty", empty), ("rows_skipped", skipped)] {
        if count > 0 {
            manifest.add_count(name, count);
        }
    }
    for shard in shards.all() {
        manifest.add_count("documents", shard.documents);
        manifest.add_count("tokens", shard.tokens);
        manifest.add_count("text_bytes", shard.text_bytes);
        manifest.add_file(&format!("{}.npy", shard.name), &shard.npy);
        manifest.add_file(&format!("{}.csv.gz", shard.name), &shard.csv);
    }
    let tokenizer: Written = write_file(&plan.destination.join(TOKENIZER_FILE), encoder.bytes())?;
    manifest.add_file(TOKENIZER_FILE, &tokenizer);
    for (name, value) in [
        ("dtype", json!(dtype.name())),
        ("vocab_size", json!(encoder.vocab_size())),
        ("eos_token_id", json!(plan.tokenizer.eos_token_id)),
        ("bos_token_id", json!(plan.tokenizer.bos_token_id)),
        ("pad_token_id", json!(plan.tokenizer.pad_token_id)),
        ("tokenizer_sha256", json!(encoder.sha256())),
    ] {
        manifest.details.insert(name.to_owned(), value);
    }
    manifest.inputs = inputs;
    manifest.write(Path::new(&plan.destination)).map(drop)
}
