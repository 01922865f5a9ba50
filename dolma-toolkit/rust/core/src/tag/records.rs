//! Records of finished attribute files: `.dolma/progress.ndjson` next to them, a line for each, appended once the file has its
//! name.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde::{Deserialize, Serialize};
use serde_json::{json, Map, Value};

use super::plan::{ArtifactPlan, FilePlan, OutputPlan};
use super::rows::{shared_key, Totals};
use crate::error::{Code, Error, Result};
use crate::jsonl::{SkippedRow, Written};
use crate::manifest::{canonical_bytes, hashed_inputs, relative_path, sha256_bytes, side_file, Input, Manifest};

/// Path of an artifact's records.
fn records_of(directory: &Path) -> PathBuf {
    side_file(directory, "progress.ndjson", ".progress.jsonl")
}

/// One finished attribute file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    #[serde(skip)]
    pub artifact: usize,
    /// Within the artifact.
    pub path: String,
    /// sha256 of the configuration.
    pub settings: String,
    /// The document file: relative to the artifact, or a URL.
    pub input_path: String,
    pub input_url: String,
    pub input: Written,
    pub output: Written,
    pub documents: u64,
    pub spans: u64,
    pub keys: BTreeSet<String>,
    /// Skipped rows of the document file, which have no attributes here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<SkippedRow>,
    /// As in `Totals::types`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub types: BTreeMap<String, String>,
}

impl Record {
    pub fn new(
        output: &OutputPlan,
        artifact: &ArtifactPlan,
        file: &FilePlan,
        input: &Written,
        written: Written,
        totals: Totals,
        skipped: &[SkippedRow],
    ) -> Result<Record> {
        let input_path = if file.remote { String::new() } else { relative_path(&file.path, &artifact.directory)? };
        Ok(Record {
            artifact: output.artifact,
            path: output.path.clone(),
            settings: settings_sha256(&artifact.config),
            input_path,
            input_url: if file.remote { file.name.clone() } else { String::new() },
            input: input.clone(),
            output: written,
            documents: totals.documents,
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

/// The finished files of one artifact.
pub struct Records {
    directory: PathBuf,
    settings: String,
    by_path: BTreeMap<String, Record>,
    lock: Mutex<()>,
}

fn settings_sha256(config: &Map<String, Value>) -> String {
    sha256_bytes(&canonical_bytes(&Value::Object(config.clone())))
}

impl Records {
    /// Reads what earlier runs left; a last line cut off by a kill is passed over.
    pub fn load(artifact: usize, directory: &Path, config: &Map<String, Value>) -> Result<Records> {
        let mut by_path = BTreeMap::new();
        let path = records_of(directory);
        match fs::read_to_string(&path) {
            Ok(text) => {
                for record in text.lines().filter_map(|line| serde_json::from_str::<Record>(line).ok()) {
                    by_path.insert(record.path.clone(), Record { artifact, ..record });
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io(&path, error)),
        }
        // a file whose size is not the recorded one is not the file that was finished
        by_path.retain(|path, record: &mut Record| {
            fs::metadata(directory.join(path)).is_ok_and(|file| file.len() == record.output.size_bytes)
        });
        Ok(Records {
            directory: directory.to_owned(),
            settings: settings_sha256(config),
            by_path,
            lock: Mutex::new(()),
        })
    }

    /// What is known of the attribute file at `path`, to be made from `input`.
    pub fn state(&self, path: &str, input: &Written) -> State {
        match self.by_path.get(path) {
            // another document file under the old name is made anew
            Some(record) if record.settings == self.settings => match record.input == *input {
                true => State::Finished,
                false => State::Missing,
            },
            Some(_) => State::Foreign,
            None => match self.directory.join(path).exists() && !self.killed_between() {
                true => State::Foreign,
                false => State::Missing,
            },
        }
    }

    /// A kill between the rename of a file and its record leaves a file of ours without a record. An unfinished
    /// artifact has no manifest, and its records say that it is ours.
    fn killed_between(&self) -> bool {
        let unfinished = matches!(Manifest::read(&self.directory), Ok(None));
        unfinished && records_of(&self.directory).exists()
    }

    /// Marks the artifact as ours and unfinished: its records exist, its manifest does not.
    pub fn begin(&self) -> Result<()> {
        fs::create_dir_all(&self.directory).map_err(|error| Error::io(&self.directory, error))?;
        let manifest = self.directory.join(crate::manifest::FILE_NAME);
        match fs::remove_file(&manifest) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Error::io(&manifest, error)),
            _ => {}
        }
        self.append_line("")
    }

    /// Appends the record of a finished file.
    pub fn append(&self, record: &Record) -> Result<()> {
        let line =
            serde_json::to_string(record).map_err(|error| Error::io(&self.directory, io::Error::other(error)))?;
        self.append_line(&line)
    }

    fn append_line(&self, line: &str) -> Result<()> {
        let _guard = self.lock.lock();
        let path = records_of(&self.directory);
        let write = || {
            path.parent().map_or(Ok(()), fs::create_dir_all)?;
            let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
            // a line feed in front, too: the line before may have been cut off
            file.write_all(format!("\n{line}\n").as_bytes())?;
            file.sync_data()
        };
        write().map_err(|error| Error::io(&path, error))
    }

    /// The record of the file at `path`, if it is finished.
    pub fn record(&self, path: &str) -> Option<&Record> {
        self.by_path.get(path).filter(|record| record.settings == self.settings)
    }

    /// Takes a new record in.
    pub fn keep(&mut self, record: Record) {
        self.by_path.insert(record.path.clone(), record);
    }

    /// Records of the present settings, by path.
    pub fn current(&self) -> impl Iterator<Item = &Record> {
        self.by_path.values().filter(|record| record.settings == self.settings)
    }

    /// Paths that other settings made.
    pub fn leftovers(&self) -> impl Iterator<Item = &str> {
        self.by_path.values().filter(|record| record.settings != self.settings).map(|record| record.path.as_str())
    }
}

/// Writes the manifest of one artifact over all its finished files, and gives the number of spans.
pub(super) fn write_manifest(artifact: &ArtifactPlan, records: &Records) -> Result<u64> {
    let mut manifest = Manifest::new("attributes", artifact.config.clone());
    let mut keys = BTreeSet::new();
    let mut types: BTreeMap<&str, &str> = BTreeMap::new();
    let mut documents = BTreeMap::new();
    for record in records.current() {
        let document = artifact.directory.join(&record.input_path);
        if record.input_url.is_empty() && !document.is_file() {
            continue; // an earlier run's, and its documents are gone
        }
        manifest.add_file(&record.path, &record.output);
        manifest.add_count("documents", record.documents);
        manifest.add_count("spans", record.spans);
        if !record.skipped.is_empty() {
            manifest.add_count("rows_skipped", record.skipped.len() as u64);
        }
        keys.extend(record.keys.iter().cloned());
        for (key, kind) in &record.types {
            if let Some(other) = types.insert(key, kind).filter(|other| other != kind) {
                let path = artifact.directory.join(&record.path).display().to_string();
                return Err(Error::format(path, None, None, Code::InvalidValue, shared_key(key, other, kind)));
            }
        }
        if record.input_url.is_empty() {
            documents.insert(document, Some(record.input.clone()));
        } else {
            manifest.inputs.push(Input {
                role: "documents".to_owned(),
                path: record.input_url.clone(),
                manifest_sha256: None,
                sha256: Some(record.input.sha256.clone()),
                size_bytes: Some(record.input.size_bytes),
            });
        }
    }
    manifest.inputs.extend(hashed_inputs("documents", "document", &documents, &artifact.directory)?);
    manifest.details.insert("keys".to_owned(), json!(keys));
    let directory = match &artifact.documents {
        Some(directory) => relative_path(directory, &artifact.directory)?,
        None => String::new(),
    };
    manifest.details.insert("documents".to_owned(), Value::String(directory));
    manifest.write(&artifact.directory)?;
    Ok(manifest.counts.get("spans").copied().unwrap_or(0))
}
