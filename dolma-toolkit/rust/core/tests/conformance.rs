//! Every contract vector of the formats that this crate reads: valid ones dump as expected, invalid ones fail as expected.

#![allow(clippy::unwrap_used, clippy::panic)] // a test may

use std::fs;
use std::path::{Path, PathBuf};

use dolma_core::formats::artifact::{read_attributes, read_documents, Counts};
use dolma_core::formats::tokens::{read_tokens, Arguments};
use dolma_core::manifest::Manifest;
use dolma_core::tokens::Dtype;
use dolma_core::{Code, Error, Result};
use serde_json::{json, Value};

fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../docs/formats/vectors")
}

fn cases(format: &str, kind: &str) -> Vec<PathBuf> {
    let folder = vectors().join(format).join("v1").join(kind);
    let mut cases: Vec<PathBuf> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(!cases.is_empty(), "{}", folder.display());
    cases
}

fn argument(case: &Path, flag: &str) -> Option<String> {
    let arguments: Vec<String> = match fs::read(case.join("arguments.json")) {
        Ok(bytes) => serde_json::from_slice(&bytes).unwrap(),
        Err(_) => return None,
    };
    let position = arguments.iter().position(|argument| argument == flag)?;
    arguments.get(position + 1).cloned()
}

/// Head line and rows, as `dump` prints them.
fn dump(format: &str, case: &Path) -> Result<Vec<Value>> {
    let data = case.join("data");
    let mut rows = Vec::new();
    let counts: Counts = match format {
        "document" => read_documents(&data, |row| rows.push(row))?,
        "attributes" => {
            let documents = argument(case, "--documents").map(|name| case.join(name));
            read_attributes(&data, documents.as_deref(), |row| rows.push(row))?
        }
        "tokens" => {
            let arguments = Arguments {
                dtype: argument(case, "--dtype").map(|name| Dtype::named(&name).unwrap()),
                eos_token_id: argument(case, "--eos-token-id").map(|id| id.parse().unwrap()),
            };
            read_tokens(&data, arguments, |row| rows.push(row))?
        }
        "manifest" => {
            let path = data.join("manifest.json").display().to_string();
            let manifest = Manifest::read(&data)?
                .ok_or_else(|| Error::format(path, None, None, Code::MissingFile, "there is no manifest"))?;
            manifest.verify(&data, true)?;
            let head = json!({"details": manifest.details, "files": manifest.files, "inputs": manifest.inputs});
            let mut whole = json!({"format": manifest.format, "version": manifest.version, "counts": manifest.counts});
            whole.as_object_mut().unwrap().extend(head.as_object().unwrap().clone());
            return Ok(vec![whole]);
        }
        other => panic!("{other}"),
    };
    rows.insert(0, json!({"format": format, "version": 1, "counts": counts}));
    Ok(rows)
}

fn check_valid(format: &str) {
    for case in cases(format, "valid") {
        let rows = dump(format, &case).unwrap_or_else(|error| panic!("{}: {error}", case.display()));
        let text = fs::read_to_string(case.join("dump.jsonl")).unwrap();
        let expected: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(rows, expected, "{}", case.display());
    }
}

fn check_invalid(format: &str) {
    for case in cases(format, "invalid") {
        let expected: Value = serde_json::from_slice(&fs::read(case.join("expect.json")).unwrap()).unwrap();
        let Err(Error::Format(error)) = dump(format, &case) else { panic!("{} is accepted", case.display()) };
        let data = case.join("data").display().to_string();
        let path = error.path.strip_prefix(&data).unwrap_or(&error.path).trim_start_matches('/');
        let found = json!({"code": error.code.as_str(), "path": path, "line": error.line, "field": error.field});
        assert_eq!(found, expected, "{}: {error}", case.display());
    }
}

#[test]
fn manifests_that_are_valid() {
    check_valid("manifest");
}

#[test]
fn manifests_that_are_invalid() {
    check_invalid("manifest");
}

#[test]
fn documents_that_are_valid() {
    check_valid("document");
}

#[test]
fn documents_that_are_invalid() {
    check_invalid("document");
}

#[test]
fn attributes_that_are_valid() {
    check_valid("attributes");
}

#[test]
fn attributes_that_are_invalid() {
    check_invalid("attributes");
}

#[test]
fn tokens_that_are_valid() {
    check_valid("tokens");
}

#[test]
fn tokens_that_are_invalid() {
    check_invalid("tokens");
}

#[test]
fn a_valid_manifest_is_in_canonical_bytes() {
    for case in cases("manifest", "valid") {
        let bytes = fs::read(case.join("data/manifest.json")).unwrap();
        let manifest = Manifest::parse(&bytes, "manifest.json").unwrap();
        assert_eq!(manifest.bytes().unwrap(), bytes, "{}", case.display());
    }
}
