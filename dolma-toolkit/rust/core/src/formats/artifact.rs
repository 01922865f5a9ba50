//! Whole directories of documents and attributes, checked in full and read row by row.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{json, Map, Value};

use super::manifest::{Manifest, FILE_NAME};
use super::{attributes, document};
use crate::error::{Code, Error, Result};
use crate::jsonl::LineReader;

/// What the name of an attribute file has behind that of its documents, which are not JSON lines.
const ATTRIBUTES_OF_PARQUET: &str = ".jsonl.gz";

/// Counts of what was read, as manifests name them.
pub type Counts = BTreeMap<String, u64>;

/// The files of an artifact, by their paths within it.
pub struct Artifact {
    /// The directory (or the one of the single file).
    pub root: PathBuf,
    /// Where there is one; its files have been checked, checksums included.
    pub manifest: Option<Manifest>,
    /// Sorted.
    pub files: Vec<String>,
}

/// Finds the files of an artifact whose names `fits` takes; with a manifest, those of them that it lists.
pub fn open(path: &Path, format: &str, fits: fn(&str) -> bool) -> Result<Artifact> {
    if path.is_file() {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let root = path.parent().unwrap_or(Path::new("")).to_owned();
        return Ok(Artifact { root, manifest: None, files: vec![name] });
    }
    let manifest = Manifest::read(path)?;
    let files = match &manifest {
        Some(manifest) => {
            manifest.expect(format, &path.join(FILE_NAME).display().to_string())?;
            manifest.verify(path, true)?;
            manifest.files.iter().map(|entry| entry.path.clone()).filter(|name| fits(name)).collect()
        }
        None => {
            let mut found = Vec::new();
            walk(path, "", fits, &mut found)?;
            found.sort();
            found
        }
    };
    Ok(Artifact { root: path.to_owned(), manifest, files })
}

fn walk(directory: &Path, prefix: &str, fits: fn(&str) -> bool, found: &mut Vec<String>) -> Result<()> {
    let entries = std::fs::read_dir(directory).map_err(|error| Error::io(directory, error))?;
    for entry in entries {
        let entry = entry.map_err(|error| Error::io(directory, error))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = format!("{prefix}{name}");
        if name.starts_with('.') {
            continue;
        }
        if entry.path().is_dir() {
            walk(&entry.path(), &format!("{path}/"), fits, found)?;
        } else if name != FILE_NAME && fits(&name) {
            found.push(path);
        }
    }
    Ok(())
}

/// Names of files of rows: `.json` or `.jsonl`, then perhaps a compression; or `.parquet`.
pub fn holds_rows(name: &str) -> bool {
    let bare =
        [".gz", ".zst", ".zstd", ".bz2", ".xz"].iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name);
    bare.ends_with(".json") || bare.ends_with(".jsonl") || name.ends_with(".parquet")
}

/// The attribute file of a document file, by their paths below their directories.
fn attributes_name(documents: &str) -> String {
    let suffix = if documents.ends_with(".parquet") { ATTRIBUTES_OF_PARQUET } else { "" };
    format!("{documents}{suffix}")
}

/// The other way round.
fn documents_name(attributes: &str) -> &str {
    attributes.strip_suffix(ATTRIBUTES_OF_PARQUET).filter(|name| name.ends_with(".parquet")).unwrap_or(attributes)
}

impl Artifact {
    /// `invalid_value` where the manifest counts something else.
    pub fn check_counts(&self, counts: &Counts) -> Result<()> {
        let Some(manifest) = &self.manifest else { return Ok(()) };
        let path = self.root.join(FILE_NAME).display().to_string();
        for (name, found) in counts {
            let field = format!("counts.{name}");
            let fail = |code, message: String| Err(Error::format(&path, None, Some(&field), code, message));
            match manifest.counts.get(name) {
                None => return fail(Code::MissingField, format!("\"{field}\" is missing; expected {found}")),
                Some(stated) if stated != found => {
                    return fail(
                        Code::InvalidValue,
                        format!("\"{field}\" is {stated}; expected {found}, what the files hold"),
                    )
                }
                Some(_) => {}
            }
        }
        Ok(())
    }
}

/// Reads an artifact of documents; `each` gets every row as docs/formats/document.md, *Dump*, says.
pub fn read_documents(path: &Path, mut each: impl FnMut(Value)) -> Result<Counts> {
    let artifact = open(path, "document", holds_rows)?;
    let mut counts = Counts::from([("documents".to_owned(), 0), ("text_bytes".to_owned(), 0)]);
    for name in &artifact.files {
        let mut reader = LineReader::open(&artifact.root.join(name))?;
        while let Some(line) = reader.next_line()? {
            let line = line.to_vec();
            let row = document::parse_value(&line, &reader.place())?;
            let text_bytes = row["text"].as_str().map_or(0, str::len) as u64;
            for (name, count) in [("documents", 1), ("text_bytes", text_bytes)] {
                *counts.entry(name.to_owned()).or_default() += count;
            }
            each(document_dump(row));
        }
    }
    artifact.check_counts(&counts)?;
    Ok(counts)
}

fn document_dump(mut row: Map<String, Value>) -> Value {
    let mut take = |name: &str| row.remove(name).filter(|value| !value.is_null());
    let mut metadata = take("metadata").unwrap_or_else(|| json!({}));
    if let Some(subdomain) = take("subdomain") {
        metadata["subdomain"] = subdomain;
    }
    let attributes = take("attributes").unwrap_or_else(|| json!({}));
    json!({
        "id": take("id"),
        "text": take("text"),
        "source": take("source").unwrap_or_else(|| json!("")),
        "added": take("added").unwrap_or_else(|| json!("")),
        "created": take("created").unwrap_or_else(|| json!("")),
        "version": take("version"),
        "metadata": metadata,
        "attributes": attributes,
    })
}

/// Writes scores of spans as floating point: `1` becomes `1.0`.
fn float_scores(mut attributes: Value) -> Value {
    let lists = attributes.as_object_mut().into_iter().flat_map(Map::values_mut);
    for spans in lists.filter(|value| attributes::are_spans(value)) {
        for span in spans.as_array_mut().into_iter().flatten() {
            if let Some(score) = span.get_mut(2) {
                *score = json!(score.as_f64());
            }
        }
    }
    attributes
}

/// Reads an artifact of attributes; with the document directory (given, or resolved from the manifest) rows are held
/// against the documents. `each` gets every row as docs/formats/attributes.md, *Dump*, says.
pub fn read_attributes(path: &Path, documents: Option<&Path>, mut each: impl FnMut(Value)) -> Result<Counts> {
    let artifact = open(path, "attributes", holds_rows)?;
    let (mut byte_keys, mut span_keys) = (Vec::new(), Vec::new());
    let mut directory_of_documents = documents.map(Path::to_owned);
    if let Some(manifest) = &artifact.manifest {
        check_details(manifest, &artifact.root)?;
        byte_keys = strings(manifest.details.get("byte_length_keys"));
        span_keys = strings(manifest.details.get("keys"));
        let resolved = manifest.details["documents"].as_str().map(|relative| artifact.root.join(relative));
        directory_of_documents = directory_of_documents.or(resolved.filter(|directory| directory.is_dir()));
    }
    if let Some(directory) = directory_of_documents.as_ref().filter(|directory| directory.is_dir()) {
        let listed = open_names(directory)?;
        if let Some(name) = listed.iter().map(|name| attributes_name(name)).find(|name| !artifact.files.contains(name))
        {
            let path = artifact.root.join(name).display().to_string();
            let message = "file not found; expected one for each document file";
            return Err(Error::format(path, None, None, Code::MissingFile, message));
        }
    }
    let mut counts = Counts::from([("documents".to_owned(), 0), ("spans".to_owned(), 0)]);
    for name in &artifact.files {
        let mut reader = LineReader::open(&artifact.root.join(name))?;
        let document_file = match &directory_of_documents {
            Some(path) if path.is_file() => Some(path.clone()),
            Some(directory) => Some(directory.join(documents_name(name))),
            None => None,
        };
        let mut texts = document_file.map(|path| LineReader::open(&path)).transpose()?;
        while let Some(line) = reader.next_line()? {
            let line = line.to_vec();
            let row = attributes::parse_value(&line, &reader.place())?;
            for (key, value) in span_keys.iter().filter_map(|key| Some((key, row["attributes"].get(key)?))) {
                attributes::check_spans(key, value, &reader.place())?;
            }
            if let Some(texts) = texts.as_mut() {
                check_alignment(&row, texts, &reader, &byte_keys)?;
            }
            let spans: usize = row["attributes"]
                .as_object()
                .into_iter()
                .flat_map(Map::values)
                .filter(|value| attributes::are_spans(value))
                .filter_map(Value::as_array)
                .map(Vec::len)
                .sum();
            for (name, count) in [("documents", 1), ("spans", spans as u64)] {
                *counts.entry(name.to_owned()).or_default() += count;
            }
            each(json!({"id": row["id"], "attributes": float_scores(row["attributes"].clone())}));
        }
        if let Some(texts) = texts.as_mut() {
            if texts.next_line()?.is_some() {
                let message = format!("the file ends after {} rows; expected a row for each document", reader.line());
                return Err(Error::format(reader.path(), reader.line() + 1, None, Code::Misaligned, message));
            }
        }
    }
    artifact.check_counts(&counts)?;
    Ok(counts)
}

/// Names of the document files, without the checksums that `open` would take.
fn open_names(directory: &Path) -> Result<Vec<String>> {
    match Manifest::read(directory)? {
        Some(manifest) => {
            Ok(manifest.files.into_iter().map(|entry| entry.path).filter(|name| holds_rows(name)).collect())
        }
        None => {
            let mut found = Vec::new();
            walk(directory, "", holds_rows, &mut found)?;
            Ok(found)
        }
    }
}

fn check_details(manifest: &Manifest, root: &Path) -> Result<()> {
    let path = root.join(FILE_NAME).display().to_string();
    for (name, fits, expected) in [
        ("keys", Value::is_array as fn(&Value) -> bool, "an array of strings"),
        ("documents", Value::is_string as fn(&Value) -> bool, "a string"),
    ] {
        let field = format!("details.{name}");
        match manifest.details.get(name) {
            None => {
                let message = format!("\"{field}\" is missing; expected {expected}");
                return Err(Error::format(path, None, Some(&field), Code::MissingField, message));
            }
            Some(value) if !fits(value) => {
                let message = format!("\"{field}\" is {}; expected {expected}", document::kind(value));
                return Err(Error::format(path, None, Some(&field), Code::WrongType, message));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

fn strings(value: Option<&Value>) -> Vec<String> {
    value.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn check_alignment(
    row: &Map<String, Value>,
    texts: &mut LineReader,
    reader: &LineReader,
    byte_keys: &[String],
) -> Result<()> {
    let place = reader.place();
    let Some(line) = texts.next_line()? else {
        return Err(place.error(None, Code::Misaligned, "the row has no document; expected as many rows as documents"));
    };
    let line = line.to_vec();
    let document = document::parse_row(&line, &texts.place())?;
    let id = row["id"].as_str().unwrap_or_default();
    if id != document.id {
        let message = format!("\"id\" is \"{id}\"; expected \"{}\", the document's", document.id);
        return Err(place.error(Some("id"), Code::Misaligned, message));
    }
    let length_chars = document.text.chars().count() as u64;
    for (key, spans) in row["attributes"].as_object().into_iter().flatten() {
        let (length, unit) = match byte_keys.contains(key) {
            true => (document.text.len() as u64, "bytes"),
            false => (length_chars, "code points"),
        };
        for (index, span) in spans.as_array().filter(|_| attributes::are_spans(spans)).into_iter().flatten().enumerate()
        {
            if span[1].as_u64().is_some_and(|end| end > length) {
                let field = format!("attributes.{key}.{index}");
                let message =
                    format!("\"{field}\" ends at {}; expected at most {length}, the {unit} of the text", span[1]);
                return Err(place.error(Some(&field), Code::OutOfRange, message));
            }
        }
    }
    Ok(())
}
