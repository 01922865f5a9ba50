//! What the journal of an artifact says of an attribute file, and the manifest.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{json, Value};

use super::plan::{ArtifactPlan, FilePlan};
use super::rows::{shared_key, Totals};
use crate::error::{Code, Error, Result};
use crate::jsonl::{SkippedRow, Written};
use crate::manifest::{
    canonical_bytes, hashed_inputs, relative_path, sha256_bytes, sha256_file, Input, Manifest, FILE_NAME,
};
use crate::run::{publish, Files, Journal, Made, Share, Stamp};

/// One finished attribute file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// The document file: relative to the artifact, or a URL.
    pub input_path: String,
    pub input_url: String,
    pub input: Written,
    /// Of the document file, as [`Stamp`] has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stamp: Option<u64>,
    pub output: Written,
    pub documents: u64,
    /// As in `Totals::partial`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub partial: u64,
    pub spans: u64,
    pub keys: BTreeSet<String>,
    /// Skipped rows of the document file, which have no attributes here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<SkippedRow>,
    /// As in `Totals::types`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub types: BTreeMap<String, String>,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Made for Record {
    fn files(&self, name: &str) -> Vec<(String, &Written)> {
        vec![(name.to_owned(), &self.output)]
    }
}

impl Record {
    pub fn new(
        artifact: &ArtifactPlan,
        file: &FilePlan,
        input: Written,
        written: Written,
        totals: Totals,
        skipped: &[SkippedRow],
    ) -> Result<Record> {
        let input_path = if file.remote { String::new() } else { relative_path(&file.path, &artifact.directory)? };
        Ok(Record {
            input_path,
            input_url: if file.remote { file.name.clone() } else { String::new() },
            input,
            stamp: Some(Stamp::of(&file.path)?.stamp),
            output: written,
            documents: totals.documents,
            partial: totals.partial,
            spans: totals.spans,
            keys: totals.keys.keys,
            skipped: skipped.to_vec(),
            types: totals.types,
        })
    }
}

/// What is known of one attribute file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Made from these bytes with these settings.
    Finished,
    /// To be made.
    Missing,
    /// There, and made by something else.
    Foreign,
}

/// The finished files of one artifact. More documents may join them, so a run is a set of settings.
pub type Records = Journal<Record>;

/// Reads what earlier runs left.
pub(super) fn read(artifact: &ArtifactPlan, files: &Files) -> Result<Records> {
    let settings = Value::Object(artifact.config.clone());
    Journal::read(files, &artifact.directory, "tag", sha256_bytes(&canonical_bytes(&settings)))
}

/// What is known of the attribute file at `path`, to be made from `file`. It is hashed if its size is the recorded one and
/// its time is not.
pub(super) fn state(records: &Records, path: &str, file: &Path, files: &Files) -> Result<State> {
    let found = match records.get(path) {
        Some(record) => {
            let stamp = Stamp::of(file)?;
            let is_same = stamp.size_bytes == record.input.size_bytes
                && (record.stamp == Some(stamp.stamp) || files.hash(file)? == record.input);
            // another document file under the old name is made anew
            if is_same {
                State::Finished
            } else {
                State::Missing
            }
        }
        None if records.is_of_another(path) => State::Foreign,
        None => {
            // a kill between the name of a file and its line leaves a file of ours without one
            let unfinished = records.exists() && matches!(Manifest::read(records.directory()), Ok(None));
            match records.directory().join(path).exists() && !unfinished {
                true => State::Foreign,
                false => State::Missing,
            }
        }
    };
    Ok(found)
}

/// Whether only its hash can say if the attribute file at `path` is made from `file`.
pub(super) fn is_in_doubt(records: &Records, path: &str, file: &Path) -> Result<bool> {
    let Some(record) = records.get(path) else { return Ok(false) };
    let stamp = Stamp::of(file)?;
    Ok(stamp.size_bytes == record.input.size_bytes && record.stamp != Some(stamp.stamp))
}

/// Marks the artifact as ours and unfinished: it has a journal and no manifest.
pub(super) fn begin(records: &Records, share: Option<Share>) -> Result<()> {
    fs::create_dir_all(records.directory()).map_err(|error| Error::io(records.directory(), error))?;
    records.enter(share, || {
        publish::remove(&records.directory().join(FILE_NAME))?;
        records.begin()
    })
}

/// Writes the manifest of one artifact over all its finished files, and gives the number of spans.
pub(super) fn write_manifest(artifact: &ArtifactPlan, records: &Records) -> Result<u64> {
    records.enter(None, || Ok(()))?;
    let mut manifest = Manifest::new("attributes", artifact.config.clone());
    let mut keys = BTreeSet::new();
    let mut types: BTreeMap<&str, &str> = BTreeMap::new();
    let mut documents = BTreeMap::new();
    let ours = records.ours();
    for (path, record) in &ours {
        let document = artifact.directory.join(&record.input_path);
        if record.input_url.is_empty() && !document.is_file() {
            continue; // an earlier run's, and its documents are gone
        }
        manifest.add_file(path, &record.output);
        manifest.add_count("documents", record.documents);
        manifest.add_count("spans", record.spans);
        if record.partial > 0 {
            manifest.add_count("documents_partial", record.partial);
        }
        if !record.skipped.is_empty() {
            manifest.add_count("rows_skipped", record.skipped.len() as u64);
        }
        keys.extend(record.keys.iter().cloned());
        for (key, kind) in &record.types {
            if let Some(other) = types.insert(key, kind).filter(|other| other != kind) {
                let path = artifact.directory.join(path).display().to_string();
                return Err(Error::format(path, None, None, Code::InvalidValue, shared_key(key, other, kind)));
            }
        }
        if record.input_url.is_empty() {
            documents.insert(document, record.input.clone());
        } else {
            manifest.inputs.push(Input::file("documents", &record.input_url, &record.input));
        }
    }
    let paths: Vec<PathBuf> = documents.keys().cloned().collect();
    let hash = |path: &Path| documents.get(path).map_or_else(|| sha256_file(path), |written| Ok(written.clone()));
    manifest.inputs.extend(hashed_inputs("documents", "document", &paths, &artifact.directory, &hash)?);
    manifest.details.insert("keys".to_owned(), json!(keys));
    let directory = match &artifact.documents {
        Some(directory) => relative_path(directory, &artifact.directory)?,
        None => String::new(),
    };
    manifest.details.insert("documents".to_owned(), Value::String(directory));
    manifest.write(&artifact.directory)?;
    Ok(manifest.counts.get("spans").copied().unwrap_or(0))
}
