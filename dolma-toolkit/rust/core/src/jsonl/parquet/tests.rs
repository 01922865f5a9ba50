use std::fs;

use proptest::prelude::*;
use serde_json::{json, Value};

use super::super::{AtomicWriter, LineReader};
use crate::error::{Error, Result};

fn write(path: &std::path::Path, lines: &[String]) -> super::super::Written {
    let mut writer = AtomicWriter::create(path).unwrap();
    for line in lines {
        writer.put(line.as_bytes()).unwrap();
        writer.put(b"\n").unwrap();
    }
    writer.finish().unwrap()
}

fn read(path: &std::path::Path) -> Result<Vec<Value>> {
    let mut reader = LineReader::open(path)?;
    let mut rows = Vec::new();
    while let Some(line) = reader.next_line()? {
        rows.push(serde_json::from_slice(line).unwrap());
    }
    Ok(rows)
}

fn rows(count: usize) -> Vec<Value> {
    let row = |at: usize| {
        let mut row = json!({"id": format!("{at}"), "text": "é\n".repeat(at % 50), "source": "s"});
        if at.is_multiple_of(3) {
            row["metadata"] = json!({"n": at, "nested": {"list": [1, null, "x"]}});
            row["score"] = json!(0.1 * at as f64);
        }
        row
    };
    (0..count).map(row).collect()
}

fn lines(rows: &[Value]) -> Vec<String> {
    rows.iter().map(Value::to_string).collect()
}

#[test]
fn rows_come_back_and_bytes_repeat() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    let rows = rows(3000);
    let first = write(&path, &lines(&rows));
    assert_eq!(read(&path).unwrap(), rows);
    assert_eq!(first, write(&path, &lines(&rows)));
    let mut writer = AtomicWriter::create(&path).unwrap();
    writer.put((lines(&rows).join("\n") + "\n").as_bytes()).unwrap();
    assert_eq!(first, writer.finish().unwrap());
}

#[test]
fn no_rows_are_a_whole_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    write(&path, &[]);
    assert_eq!(read(&path).unwrap(), Vec::<Value>::new());
}

#[test]
fn groups_of_rows_follow_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    let rows: Vec<Value> = (0..9).map(|at| json!({"id": at.to_string(), "text": "x".repeat(9 << 20)})).collect();
    write(&path, &lines(&rows));
    assert_eq!(read(&path).unwrap(), rows);
}

#[test]
fn what_is_no_document_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    for line in ["{\"id\":\"1\"}\n", "{\"id\":1,\"text\":\"\"}\n", "[]\n", "{\n"] {
        let mut writer = AtomicWriter::create(&folder.path().join("a.parquet")).unwrap();
        assert!(matches!(writer.put(line.as_bytes()), Err(Error::Io { .. })), "{line}");
    }
    let mut writer = AtomicWriter::create(&folder.path().join("a.parquet")).unwrap();
    writer.put(b"{\"id\":\"1\",\"text\":\"\"}").unwrap();
    assert!(writer.finish().is_err());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_file_that_ends_early_is_an_error_wherever_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    write(&path, &lines(&rows(200)));
    let whole = fs::read(&path).unwrap();
    for length in (0..whole.len()).step_by(7).chain([whole.len() - 1]) {
        fs::write(&path, &whole[..length]).unwrap();
        assert!(matches!(read(&path), Err(Error::Format(_))), "at {length} of {}", whole.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn damage_never_panics(at in 0.0..1.0f64, byte: u8, from_end: bool) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        write(&path, &lines(&rows(60)));
        let mut bytes = fs::read(&path).unwrap();
        // the footer says how the rest is to be read
        let span = if from_end { bytes.len().min(900) } else { bytes.len() };
        let index = bytes.len() - 1 - (at * span as f64) as usize;
        bytes[index] = byte;
        fs::write(&path, bytes).unwrap();
        let mut reader = match LineReader::open(&path) {
            Ok(reader) => reader,
            Err(error) => {
                prop_assert!(!error.to_string().is_empty());
                return Ok(());
            }
        };
        while let Ok(Some(_)) = reader.next_line() {}
    }
}
