//! `dolma tokens`: documents in, token shards out (docs/formats/tokens.md, version 1).
//!
//! Every row is read and checked before the first is encoded. The order of the documents is a function of the seed, the
//! names of the files and the lines in them; threads and interruptions do not change a byte.

mod ahead;
pub(crate) mod bpe;
pub mod derived;
mod encode;
mod fields;
mod order;
mod plan;
mod shards;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use serde_json::{json, Value};

use crate::error::{Error, Result};
use crate::jsonl::{Skipped, Written};
use crate::manifest::{
    canonical_bytes, hashed_inputs, sha256_bytes, sha256_file, tokenizer_input, write_file, Input, Manifest,
};
use crate::progress::Progress;
use crate::run::{pass, threads, Files, Journal, Made, Source, Stage};

pub use crate::formats::tokens::Dtype;
pub use ahead::{EncodedBatch, EncodedWriter, Encoding};
pub use encode::{decode, Encoder, TokenizerPlan};
pub use fields::Fields;
pub use plan::{Oversize, Plan, TextFile};

use encode::Encoded;
use order::{Body, Document, Stream};
use plan::Checked;
use shards::{Group, ShardWriter, Shards};

/// Documents that a thread encodes at once.
const CHUNK_DOCUMENTS: usize = 64;
const TOKENIZER_FILE: &str = "tokenizer.json";

/// What a run did, and what the artifact holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
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
    #[serde(rename = "documents_empty")]
    pub empty: u64,
    /// Skipped rows, with the names of their files.
    pub skipped: Vec<Skipped>,
}

/// Writes the missing shards, then the manifest.
pub fn run(plan: &Plan, files: &Files, progress: &Progress) -> Result<Summary> {
    let encoder = Encoder::load(&plan.tokenizer)?;
    let checked = plan::check_files(plan, files, threads_for(plan), progress)?;
    let inputs = inputs(plan, &checked)?;
    let origin = Origin { inputs, ..Origin::default() };
    write(plan, &encoder, &checked, &origin, None, files, progress)
}

/// Documents that were never written have no size, and count as many.
fn threads_for(plan: &Plan) -> usize {
    let sizes = plan.files.iter().map(|file| file.path.metadata().map_or(u64::MAX, |file| file.len()));
    threads::useful(plan.threads, threads::pieces(sizes.fold(0, u64::saturating_add)))
}

/// What a manifest says the documents come from.
#[derive(Default)]
pub struct Origin {
    /// The documents; or what a pipeline made them from, if they were never written.
    pub inputs: Vec<Input>,
    /// The pipeline.
    pub details: Option<Value>,
    /// What stands for the inputs where they are not hashed yet.
    pub run: Option<String>,
    /// Of a finished artifact that was made of equal files.
    pub fingerprint: Option<String>,
}

/// As [`run`], of documents that were encoded as they were made. `inputs` are the manifest's, but for the tokenizer.
pub fn run_encoded(
    plan: &Plan,
    encoding: &Encoding<'_>,
    origin: Origin,
    files: &Files,
    progress: &Progress,
) -> Result<Summary> {
    let checked = |file: usize| {
        let counts = encoding.finished(file).map(|file| file.counts).unwrap_or_default();
        Checked { written: None, text_bytes: counts.text_bytes, empty: counts.empty, skipped: Vec::new() }
    };
    let checked: Vec<Checked> = (0..plan.files.len()).map(checked).collect();
    encoding.release();
    let mut summary = write(plan, &encoding.encoder, &checked, &origin, Some(encoding), files, progress)?;
    summary.respelt = (0..plan.files.len()).filter_map(|file| Some(encoding.finished(file)?.counts.respelt)).sum();
    encoding.tidy()?;
    Ok(summary)
}

/// Whether [`run_encoded`] has nothing left to do. If only the hashes of the `inputs` can say so, they are taken.
pub fn is_complete(
    plan: &Plan,
    encoder: &Encoder,
    origin: &mut Origin,
    inputs: &dyn Fn() -> Result<Vec<Input>>,
) -> Result<bool> {
    let config = plan.manifest_config(plan.dtype_for(encoder.vocab_size())?, encoder);
    let fingerprint = fingerprint(&config, origin, plan);
    let journal: Journal<shards::Shard> = Journal::read(&Files::default(), &plan.destination, "tokens", fingerprint)?;
    let Some(manifest) = Manifest::read(&plan.destination)? else { return Ok(false) };
    if manifest.verify(&plan.destination, false).is_err() {
        return Ok(false);
    }
    if !journal.ours().is_empty() && journal.others().is_empty() {
        return Ok(true);
    }
    // the same content with other times
    let is_same = json!(manifest.config) == config
        && manifest.details.get("pipeline") == origin.details.as_ref()
        && journal.run_of_others().is_some()
        && manifest.inputs == inputs()?;
    if is_same {
        origin.fingerprint = journal.run_of_others();
    }
    Ok(is_same)
}

fn fingerprint(config: &Value, origin: &Origin, plan: &Plan) -> String {
    if let Some(fingerprint) = &origin.fingerprint {
        return fingerprint.clone();
    }
    let inputs = origin.run.as_ref().map_or_else(|| json!(origin.inputs), |run| json!(run));
    let mut value = json!({"config": config, "inputs": inputs, "names": plan.names()});
    if let Some(details) = &origin.details {
        value["pipeline"] = details.clone();
    }
    sha256_bytes(&canonical_bytes(&value))
}

fn write(
    plan: &Plan,
    encoder: &Encoder,
    checked: &[Checked],
    origin: &Origin,
    encoding: Option<&Encoding<'_>>,
    files: &Files,
    progress: &Progress,
) -> Result<Summary> {
    let threads = threads_for(plan);
    let dtype = plan.dtype_for(encoder.vocab_size())?;
    let config = plan.manifest_config(dtype, encoder);
    let mut shards = Shards::open(files, &plan.destination, fingerprint(&config, origin, plan))?;
    let mut summary = Summary { shards_discarded: shards.discarded, ..Summary::default() };
    if !shards.complete {
        let before = progress.snapshot();
        let text_bytes: u64 = checked.iter().map(|file| file.text_bytes).sum();
        progress.expect(before.files + checked.len() as u64, before.bytes + text_bytes);
        let groups = order::groups(plan);
        let digits = shards::digits(groups.len());
        for (index, group_files) in groups.into_iter().enumerate() {
            let path = |file: &usize| match encoding {
                Some(encoding) => encoding.path(*file),
                None => plan.files[*file].path.clone(),
            };
            let paths: Vec<PathBuf> = group_files.iter().map(path).collect();
            files.expect(paths.iter().map(PathBuf::as_path))?;
            let group = Group {
                index,
                digits,
                dtype,
                max_tokens: plan.max_size_bytes / dtype.size_bytes(),
                oversize: plan.oversize,
                bos: plan.tokenizer.bos_token_id,
                eos: plan.tokenizer.eos_token_id,
            };
            let stream = Stream::new(plan, encoding, files, group_files, progress);
            let done = shards.documents_of(group.index);
            let documents = Documents { stream, window: Vec::new().into_iter(), done, error: None };
            let start = Mutex::new(Some((documents, shards.writer(group))));
            let writing = Writing { plan, encoder, start };
            summary.respelt += pass(&writing, 1, threads, progress)?.iter().sum::<u64>();
        }
        for (file, checked) in plan.files.iter().zip(checked) {
            let Some(before) = &checked.written else { continue };
            let now = std::fs::metadata(&file.path).map_err(|source| Error::io(&file.path, source))?.len();
            if now != before.size_bytes {
                return Err(crate::jsonl::changed(&file.name, before.size_bytes, now));
            }
        }
        write_manifest(plan, encoder, dtype, config, origin, &shards, checked)?;
    }
    for (_, shard) in shards.all() {
        summary.documents += shard.documents;
        summary.tokens += shard.tokens;
        summary.text_bytes += shard.text_bytes;
        summary.shards += 1;
    }
    summary.shards_kept = shards.kept;
    for (file, checked) in plan.files.iter().zip(checked) {
        summary.empty += checked.empty;
        let rows = checked.skipped.iter().map(|row| Skipped { file: file.name.clone(), row: row.clone() });
        summary.skipped.extend(rows);
    }
    Ok(summary)
}

/// The series is a group of files that share shards. Reading, encoding and writing overlap; their order does not change.
struct Writing<'a> {
    plan: &'a Plan,
    encoder: &'a Encoder,
    /// what the only series begins with
    start: Mutex<Option<(Documents<'a>, ShardWriter<'a>)>>,
}

/// The documents of a group, in their final order.
struct Documents<'a> {
    stream: Stream<'a>,
    window: std::vec::IntoIter<Document>,
    /// documents that finished shards hold; they are not encoded again
    done: u64,
    /// of reading ahead
    error: Option<Error>,
}

impl Source for Documents<'_> {
    type Batch = Vec<Document>;

    fn read(&mut self, progress: &Progress) -> Result<Option<Vec<Document>>> {
        loop {
            if let Some(error) = self.error.take() {
                return Err(error);
            }
            if self.window.len() == 0 {
                self.window = self.stream.next_window()?.into_iter();
            }
            let mut chunk: Vec<Document> = self.window.by_ref().take(CHUNK_DOCUMENTS).collect();
            // the next window grows as this one shrinks, so that nobody waits for a whole one
            self.error = self.stream.gather(chunk.len()).err();
            progress.add_documents(chunk.len() as u64);
            progress.add_bytes(chunk.iter().map(|document| document.text_bytes).sum());
            let done = self.done.min(chunk.len() as u64);
            self.done -= done;
            if done == 0 || chunk.len() as u64 > done {
                chunk.drain(..done as usize);
                return Ok(Some(chunk).filter(|chunk| !chunk.is_empty()));
            }
        }
    }
}

impl<'a> Stage for Writing<'a> {
    type Source = Documents<'a>;
    type Asked = Vec<Document>;
    type Made = Vec<(Document, Encoded)>;
    type Output = (ShardWriter<'a>, u64);
    /// documents whose text spelt a special token
    type Done = u64;

    fn open(&self, _series: usize) -> Result<(Documents<'a>, Self::Output)> {
        let start = self.start.lock().unwrap_or_else(PoisonError::into_inner).take();
        start.map(|(documents, writer)| (documents, (writer, 0))).ok_or(Error::Cancelled)
    }

    fn ask(&self, _series: usize, chunk: Vec<Document>) -> Result<Vec<Document>> {
        Ok(chunk)
    }

    fn make(&self, _series: usize, chunk: Vec<Document>) -> Result<Self::Made> {
        let encode = |mut document: Document| {
            let encoded = match std::mem::replace(&mut document.body, Body::Text(String::new())) {
                Body::Text(text) => self.encoder.encode(&text, &self.plan.place(&document))?,
                Body::Encoded(encoded) => encoded,
            };
            Ok((document, encoded))
        };
        chunk.into_iter().map(encode).collect()
    }

    fn keep(&self, _series: usize, (writer, respelt): &mut Self::Output, made: Self::Made) -> Result<()> {
        for (document, encoded) in &made {
            *respelt += u64::from(encoded.respelt);
            let name = self.plan.files[document.file].name.as_str();
            writer.write(document, name, &encoded.ids, &self.plan.place(document))?;
        }
        Ok(())
    }

    fn finish(&self, _series: usize, _documents: Documents<'a>, (writer, respelt): Self::Output) -> Result<u64> {
        writer.finish().map(|()| respelt)
    }
}

fn inputs(plan: &Plan, checked: &[Checked]) -> Result<Vec<Input>> {
    let mut local = std::collections::BTreeMap::new();
    let mut inputs = Vec::new();
    for (file, checked) in plan.files.iter().zip(checked) {
        if file.remote {
            inputs.extend(checked.written.iter().map(|written| Input::file("documents", &file.name, written)));
        } else {
            local.insert(file.path.clone(), checked.written.clone());
        }
    }
    let paths: Vec<PathBuf> = local.keys().cloned().collect();
    let hash = |path: &Path| match local.get(path) {
        Some(Some(written)) => Ok(Written::clone(written)),
        _ => sha256_file(path),
    };
    inputs.extend(hashed_inputs("documents", "document", &paths, &plan.destination, &hash)?);
    sorted_with_tokenizer(plan, inputs)
}

/// The inputs of a manifest whose documents are written, by now.
pub fn written_inputs(plan: &Plan, files: &Files) -> Result<Vec<Input>> {
    let paths: Vec<PathBuf> = plan.files.iter().map(|file| file.path.clone()).collect();
    sorted_with_tokenizer(plan, files.inputs("documents", "document", &paths, &plan.destination)?)
}

/// All inputs of a manifest.
pub fn sorted_with_tokenizer(plan: &Plan, mut inputs: Vec<Input>) -> Result<Vec<Input>> {
    inputs.push(tokenizer_input(&plan.tokenizer.path, &plan.destination)?);
    inputs.sort_by(|a, b| (&a.role, &a.path).cmp(&(&b.role, &b.path)));
    Ok(inputs)
}

fn write_manifest(
    plan: &Plan,
    encoder: &Encoder,
    dtype: Dtype,
    config: Value,
    origin: &Origin,
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
    for (name, shard) in shards.all() {
        manifest.add_count("documents", shard.documents);
        manifest.add_count("tokens", shard.tokens);
        manifest.add_count("text_bytes", shard.text_bytes);
        shard.files(name).iter().for_each(|(file, written)| manifest.add_file(file, written));
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
    if let Some(details) = &origin.details {
        manifest.details.insert("pipeline".to_owned(), details.clone());
    }
    manifest.inputs.clone_from(&origin.inputs);
    manifest.write(Path::new(&plan.destination)).map(drop)
}
