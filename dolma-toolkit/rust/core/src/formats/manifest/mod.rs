//! `manifest.json`: docs/formats/manifest.md, version 1. Written last; its sha256 is the identity of the artifact.

mod canonical;
mod hash;
mod inputs;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::document::kind;
use crate::error::{Code, Error, Result};
use crate::jsonl::{AtomicWriter, Compression, Written};

pub use canonical::{canonical_bytes, python_float};
pub use hash::{sha256_bytes, sha256_file};
pub use inputs::{artifact_input, document_inputs, file_input, hashed_inputs, relative_path, tokenizer_input};

/// The name of the file.
pub const FILE_NAME: &str = "manifest.json";

/// One file of the artifact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Relative to the artifact directory, with `/`.
    pub path: String,
    /// As stored.
    pub size_bytes: u64,
    /// Of the stored bytes.
    pub sha256: String,
}

/// What the artifact was made from: another artifact (by `manifest_sha256`) or a file (by `sha256` and `size_bytes`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// What it was used as.
    pub role: String,
    /// Relative to the artifact directory, or a URL; a hint.
    pub path: String,
    /// Of an artifact.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manifest_sha256: Option<String>,
    /// Of a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Of a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
}

impl Input {
    /// A file of no artifact.
    pub fn file(role: &str, path: impl Into<String>, file: &Written) -> Input {
        Input {
            role: role.to_owned(),
            path: path.into(),
            manifest_sha256: None,
            sha256: Some(file.sha256.clone()),
            size_bytes: Some(file.size_bytes),
        }
    }
}

/// Who wrote an artifact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Writer {
    /// Distribution.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// The whole manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// A page of docs/formats.
    pub format: String,
    /// Of that format.
    pub version: u64,
    /// Who wrote it.
    pub writer: Writer,
    /// The settings that the bytes depend on.
    pub config: Map<String, Value>,
    /// What it holds.
    pub counts: BTreeMap<String, u64>,
    /// What the format's page asks for.
    pub details: Map<String, Value>,
    /// Sorted by path.
    pub files: Vec<Entry>,
    /// Sorted by role and path.
    pub inputs: Vec<Input>,
}

impl Manifest {
    /// An empty manifest of this package for version 1 of a format.
    pub fn new(format: &str, config: Map<String, Value>) -> Manifest {
        Manifest {
            format: format.to_owned(),
            version: 1,
            writer: Writer { name: "dolma-toolkit".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() },
            config,
            counts: BTreeMap::new(),
            details: Map::new(),
            files: Vec::new(),
            inputs: Vec::new(),
        }
    }

    /// Adds to a count.
    pub fn add_count(&mut self, name: &str, count: u64) {
        *self.counts.entry(name.to_owned()).or_default() += count;
    }

    /// Lists a finished file; `path` is relative to the artifact directory, with `/`.
    pub fn add_file(&mut self, path: &str, written: &Written) {
        self.files.push(Entry {
            path: path.to_owned(),
            size_bytes: written.size_bytes,
            sha256: written.sha256.clone(),
        });
    }

    /// The bytes that `write` writes: files and inputs sorted, JSON canonical.
    pub fn bytes(&self) -> Result<Vec<u8>> {
        let mut sorted = self.clone();
        sorted.files.sort_by(|a, b| a.path.cmp(&b.path));
        sorted.inputs.sort_by(|a, b| (&a.role, &a.path).cmp(&(&b.role, &b.path)));
        sorted.inputs.dedup();
        let value = serde_json::to_value(&sorted)
            .map_err(|error| Error::format(FILE_NAME, None, None, Code::InvalidValue, error.to_string()))?;
        Ok(canonical_bytes(&value))
    }

    /// Writes it into `directory`, atomically, and gives its sha256: the identity of the artifact.
    pub fn write(&self, directory: &Path) -> Result<String> {
        let mut writer = AtomicWriter::create_as(&directory.join(FILE_NAME), Compression::None)?;
        writer.put(&self.bytes()?)?;
        Ok(writer.finish()?.sha256)
    }

    /// Reads and checks `directory/manifest.json`; `None` where there is none.
    pub fn read(directory: &Path) -> Result<Option<Manifest>> {
        let path = directory.join(FILE_NAME);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(Error::io(&path, source)),
        };
        Manifest::parse(&bytes, &path.display().to_string()).map(Some)
    }

    /// Reads a manifest; `path` names it in messages.
    pub fn parse(bytes: &[u8], path: &str) -> Result<Manifest> {
        let fail = |field: Option<&str>, code, message: String| Error::format(path, None, field, code, message);
        let value: Value = serde_json::from_slice(bytes).map_err(|error| {
            fail(None, Code::NotJson, format!("the manifest is not JSON ({error}); expected a JSON object"))
        })?;
        let Value::Object(object) = &value else {
            return Err(fail(
                None,
                Code::NotObject,
                format!("the manifest is {}; expected a JSON object", kind(&value)),
            ));
        };
        check_fields(object, path)?;
        serde_json::from_value(value.clone())
            .map_err(|error| fail(None, Code::InvalidValue, format!("the manifest is unusable: {error}")))
    }

    /// `unknown_format` unless it is a manifest of `format`.
    pub fn expect(&self, format: &str, path: &str) -> Result<()> {
        if self.format == format {
            return Ok(());
        }
        let message = format!("\"format\" is \"{}\"; expected \"{format}\"", self.format);
        Err(Error::format(path, None, Some("format"), Code::UnknownFormat, message))
    }

    /// Checks that every listed file is there with its size, and with its sha256 where `checksums` asks.
    pub fn verify(&self, directory: &Path, checksums: bool) -> Result<()> {
        for entry in &self.files {
            let path = directory.join(&entry.path);
            let name = path.display().to_string();
            let fail = |code, message: String| Error::format(&name, None, None, code, message);
            let size_bytes = match fs::metadata(&path) {
                Ok(metadata) if metadata.is_file() => metadata.len(),
                _ => {
                    return Err(fail(
                        Code::MissingFile,
                        "file not found; expected it because the manifest lists it".to_owned(),
                    ))
                }
            };
            if size_bytes != entry.size_bytes {
                let message =
                    format!("the file has {size_bytes} bytes; expected {}, as the manifest says", entry.size_bytes);
                return Err(fail(Code::WrongSize, message));
            }
            if checksums {
                let found = sha256_file(&path)?.sha256;
                if found != entry.sha256 {
                    let message = format!(
                        "the sha256 is {}…; expected {}…, as the manifest says",
                        &found[..12],
                        &entry.sha256[..12]
                    );
                    return Err(fail(Code::ChecksumMismatch, message));
                }
            }
        }
        Ok(())
    }
}

/// Directory for an artifact's runs: their records, metrics and settings. It is hidden, and no pattern for data matches a
/// name in it.
pub const SIDE_NAME: &str = ".dolma";

/// Path of a side file of an artifact. If an earlier release left it next to the data, as `older`, it is moved.
pub fn side_file(directory: &Path, name: &str, older: &str) -> PathBuf {
    let path = directory.join(SIDE_NAME).join(name);
    let before = directory.join(older);
    if before.is_file() && !path.exists() {
        // a file that cannot be moved is left unused
        let _ = std::fs::create_dir_all(directory.join(SIDE_NAME)).and_then(|()| std::fs::rename(before, &path));
    }
    path
}

/// Writes bytes to a file, atomically and unpacked.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<Written> {
    let mut writer = AtomicWriter::create_as(path, Compression::None)?;
    writer.write_all(bytes).map_err(|source| Error::io(path, source))?;
    writer.finish()
}

const FIELDS: [&str; 8] = ["config", "counts", "details", "files", "format", "inputs", "version", "writer"];

/// Formats that a manifest may name.
pub const FORMATS: [&str; 14] = [
    "attributes",
    "chat",
    "checkpoint",
    "document",
    "filter",
    "manifest",
    "megatron",
    "packed",
    "preference",
    "report",
    "results",
    "table",
    "tokenizer",
    "tokens",
];

fn check_fields(object: &Map<String, Value>, path: &str) -> Result<()> {
    let check = Fields { path };
    let format = check.string(object, "", "format")?;
    if !FORMATS.contains(&format) {
        let message = format!("\"format\" is \"{format}\"; expected one of {}", FORMATS.join(", "));
        return check.fail("format", Code::UnknownFormat, message);
    }
    check.integer(object, "", "version", 1)?;
    if object["version"].as_u64() > Some(1) {
        let message = format!("\"version\" is {}; expected 1, the newest that this release reads", object["version"]);
        return check.fail("version", Code::UnsupportedVersion, message);
    }
    for field in ["writer", "config", "counts", "details", "files", "inputs"] {
        check.present(object, "", field)?;
    }
    if let Some(unknown) = object.keys().find(|key| !FIELDS.contains(&key.as_str())) {
        return check.fail(
            unknown,
            Code::InvalidValue,
            format!("\"{unknown}\" is not a field of a manifest; expected one of {}", FIELDS.join(", ")),
        );
    }
    let writer = check.object(object, "", "writer")?;
    check.string(writer, "writer.", "name")?;
    check.string(writer, "writer.", "version")?;
    check.object(object, "", "config")?;
    let counts = check.object(object, "", "counts")?;
    for name in counts.keys() {
        check.integer(counts, "counts.", name, 0)?;
    }
    check.object(object, "", "details")?;
    let mut last: Option<&str> = None;
    for (prefix, entry) in check.objects(object, "files")? {
        let path = check.string(entry, &prefix, "path")?;
        check.safe_path(entry, &prefix)?;
        if let Some(last) = last.filter(|last| *last >= path) {
            let message =
                format!("\"{prefix}path\" is \"{path}\" after \"{last}\"; expected files sorted by path, each once");
            return check.fail(&format!("{prefix}path"), Code::InvalidValue, message);
        }
        last = Some(path);
        check.integer(entry, &prefix, "size_bytes", 0)?;
        check.hash(entry, &prefix, "sha256")?;
    }
    for (prefix, entry) in check.objects(object, "inputs")? {
        check.string(entry, &prefix, "role")?;
        check.string(entry, &prefix, "path")?;
        if entry.contains_key("manifest_sha256") {
            check.hash(entry, &prefix, "manifest_sha256")?;
        } else if entry.contains_key("sha256") {
            check.hash(entry, &prefix, "sha256")?;
            check.integer(entry, &prefix, "size_bytes", 0)?;
        } else {
            check.present(entry, &prefix, "manifest_sha256")?;
        }
    }
    Ok(())
}

struct Fields<'a> {
    path: &'a str,
}

impl Fields<'_> {
    fn fail<T>(&self, field: &str, code: Code, message: String) -> Result<T> {
        Err(Error::format(self.path, None, Some(field), code, message))
    }

    fn present<'v>(&self, object: &'v Map<String, Value>, prefix: &str, name: &str) -> Result<&'v Value> {
        match object.get(name) {
            Some(value) => Ok(value),
            None => self.fail(
                &format!("{prefix}{name}"),
                Code::MissingField,
                format!("\"{prefix}{name}\" is missing; expected it in every manifest"),
            ),
        }
    }

    fn wrong<T>(&self, prefix: &str, name: &str, value: &Value, expected: &str) -> Result<T> {
        self.fail(
            &format!("{prefix}{name}"),
            Code::WrongType,
            format!("\"{prefix}{name}\" is {}; expected {expected}", kind(value)),
        )
    }

    fn string<'v>(&self, object: &'v Map<String, Value>, prefix: &str, name: &str) -> Result<&'v str> {
        match self.present(object, prefix, name)? {
            Value::String(text) => Ok(text),
            other => self.wrong(prefix, name, other, "a string"),
        }
    }

    fn integer(&self, object: &Map<String, Value>, prefix: &str, name: &str, least: u64) -> Result<()> {
        let value = self.present(object, prefix, name)?;
        match value.as_u64() {
            Some(number) if number >= least => Ok(()),
            None if !(value.is_i64() || value.is_u64()) => self.wrong(prefix, name, value, "an integer"),
            _ => self.fail(
                &format!("{prefix}{name}"),
                Code::InvalidValue,
                format!("\"{prefix}{name}\" is {value}; expected at least {least}"),
            ),
        }
    }

    fn object<'v>(&self, object: &'v Map<String, Value>, prefix: &str, name: &str) -> Result<&'v Map<String, Value>> {
        match self.present(object, prefix, name)? {
            Value::Object(inner) => Ok(inner),
            other => self.wrong(prefix, name, other, "an object"),
        }
    }

    fn objects<'v>(&self, object: &'v Map<String, Value>, name: &str) -> Result<Vec<(String, &'v Map<String, Value>)>> {
        let value = self.present(object, "", name)?;
        let Value::Array(items) = value else {
            return self.wrong("", name, value, "an array of objects");
        };
        let entry = |(index, item): (usize, &'v Value)| match item {
            Value::Object(inner) => Ok((format!("{name}.{index}."), inner)),
            other => self.wrong("", &format!("{name}.{index}"), other, "an object"),
        };
        items.iter().enumerate().map(entry).collect()
    }

    fn hash(&self, object: &Map<String, Value>, prefix: &str, name: &str) -> Result<()> {
        let text = self.string(object, prefix, name)?;
        if text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Ok(());
        }
        self.fail(
            &format!("{prefix}{name}"),
            Code::InvalidValue,
            format!("\"{prefix}{name}\" is \"{text}\"; expected 64 lower-case hexadecimal digits"),
        )
    }

    fn safe_path(&self, object: &Map<String, Value>, prefix: &str) -> Result<()> {
        let text = self.string(object, prefix, "path")?;
        let parts = text.split('/');
        if text.is_empty() || text.starts_with('/') || text.contains('\\') || parts.into_iter().any(|part| part == "..")
        {
            let message = format!("\"{prefix}path\" is \"{text}\"; expected a path below the artifact");
            return self.fail(&format!("{prefix}path"), Code::UnsafePath, message);
        }
        Ok(())
    }
}
