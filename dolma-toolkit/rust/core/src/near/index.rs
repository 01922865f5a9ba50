//! The index: which document files have keys in it, in the order of the runs that brought them.

use std::fs;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::settings::Settings;
use crate::bloom::FileState;
use crate::error::{Code, Error, Result};
use crate::manifest::{sha256_bytes, write_file};

const FORMAT: &str = "near-duplicates";
const VERSION: u64 = 1;
const NAME: &str = "index.json";

/// `index.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Index {
    format: String,
    version: u64,
    parameters: Value,
    /// in order
    pub runs: Vec<Run>,
}

/// A run that added documents.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// the index before, if there was one
    pub before: Option<FileState>,
    /// in order
    pub files: Vec<IndexedFile>,
}

/// A document file whose keys are in the index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IndexedFile {
    /// `<name of the root>/documents/<relative>`
    pub name: String,
    /// of the stored bytes
    pub sha256: String,
    /// rows
    pub documents: u64,
}

/// Of the keys of a document file.
pub fn keys_name(name: &str) -> String {
    format!("{}.keys", &sha256_bytes(name.as_bytes())[..32])
}

impl Index {
    /// The index and the state of its file; an empty one if there is none. Fails if its parameters are others.
    pub fn read(settings: &Settings) -> Result<(Index, Option<FileState>)> {
        let path = path(settings);
        let parameters = settings.parameters();
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let (format, version) = (FORMAT.to_owned(), VERSION);
                return Ok((Index { format, version, parameters, runs: Vec::new() }, None));
            }
            Err(error) => return Err(Error::io(&path, error)),
        };
        let fail = |code, message| Error::format(path.display().to_string(), None, None, code, message);
        let index: Index =
            serde_json::from_slice(&bytes).map_err(|error| fail(Code::NotJson, format!("is not an index: {error}")))?;
        if (index.format.as_str(), index.version) != (FORMAT, VERSION) {
            let message =
                format!("is {} of version {}; expected {FORMAT} of version {VERSION}", index.format, index.version);
            return Err(fail(Code::InvalidValue, message));
        }
        let mut differences = Vec::new();
        differ("", &index.parameters, &parameters, &mut differences);
        if !differences.is_empty() {
            let message = format!(
                "is \"{}\", which was made with other parameters: {}",
                settings.index.display(),
                differences.join(", ")
            );
            return Err(
                Error::config("index", message).with_hint("set them as in the index, or name another directory")
            );
        }
        let state = FileState { sha256: sha256_bytes(&bytes), size_bytes: bytes.len() as u64 };
        Ok((index, Some(state)))
    }

    /// All files, in the order in which their documents are counted.
    pub fn files(&self) -> impl Iterator<Item = &IndexedFile> {
        self.runs.iter().flat_map(|run| &run.files)
    }

    /// Writes it, whole or not at all.
    pub fn write(&self, settings: &Settings) -> Result<()> {
        let path = path(settings);
        let bytes = serde_json::to_vec_pretty(self).map_err(|error| Error::io(&path, error.into()))?;
        write_file(&path, &[bytes, b"\n".to_vec()].concat()).map(drop)
    }
}

/// The file of an index.
pub fn path(settings: &Settings) -> PathBuf {
    settings.index.join(NAME)
}

/// Names what differs: `rows 8 (here 10)`.
fn differ(name: &str, found: &Value, expected: &Value, differences: &mut Vec<String>) {
    match (found, expected) {
        (Value::Object(found), Value::Object(expected)) => {
            let names: std::collections::BTreeSet<&String> = found.keys().chain(expected.keys()).collect();
            for name in names {
                let of = |values: &serde_json::Map<String, Value>| values.get(name).cloned().unwrap_or_default();
                differ(name, &of(found), &of(expected), differences);
            }
        }
        _ if found != expected => differences.push(format!("{name} {found} (here {expected})")),
        _ => {}
    }
}
