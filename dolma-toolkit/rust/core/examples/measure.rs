//! What the bench holds the commands against: `measure floor OUTPUT FILE…` reads documents, parses them and writes the
//! same lines; `measure tagger NAME FILE…` runs one tagger over texts in memory and prints its megabytes a second;
//! `measure run PLAN` does the native part of a command, from the JSON that the front hands over, so that a
//! profiler sees nothing else.

#![allow(clippy::print_stdout, clippy::needless_update)]

use std::path::Path;
use std::time::Instant;

use dolma_core::document::parse_row;
use dolma_core::error::{Error, Result};
use dolma_core::jsonl::{AtomicWriter, LineReader};
use dolma_core::pipeline;
use dolma_core::progress::Progress;
use dolma_core::run::Files;
use dolma_core::taggers::{build, TaggerOptions, Text};

const USAGE: &str = "expected `floor OUTPUT FILE…`, `tagger NAME FILE…` or `run PLAN`";

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["floor", output, files @ ..] => floor(Path::new(output), files),
        ["tagger", name, files @ ..] => tagger(name, files),
        ["run", path] => pipeline::run(&settings(path)?, &Files::default(), &Progress::default()).map(drop),
        _ => Err(Error::config("measure", USAGE)),
    }
}

fn settings<T: serde::de::DeserializeOwned>(path: &str) -> Result<T> {
    let bytes = std::fs::read(path).map_err(|source| Error::io(Path::new(path), source))?;
    serde_json::from_slice(&bytes).map_err(|error| Error::config(path, error.to_string()))
}

fn floor(output: &Path, files: &[&str]) -> Result<()> {
    let mut writer = AtomicWriter::create(output)?;
    for file in files {
        let mut reader = LineReader::open(Path::new(file))?;
        let mut line = Vec::new();
        while let Some(read) = reader.next_line()? {
            line.clear();
            line.extend_from_slice(read);
            parse_row(&line, &reader.place())?;
            line.push(b'\n');
            writer.put(&line)?;
        }
    }
    writer.finish().map(drop)
}

fn tagger(name: &str, files: &[&str]) -> Result<()> {
    let mut texts = Vec::new();
    for file in files {
        let mut reader = LineReader::open(Path::new(file))?;
        while let Some(line) = reader.next_line()? {
            let line = line.to_vec();
            texts.push(parse_row(&line, &reader.place())?.text.into_owned());
        }
    }
    let language_model = std::env::var_os("DOLMA_LID_MODEL").map(Into::into);
    let tagger = build(name, &TaggerOptions { language_model, ..TaggerOptions::default() })?;
    let mut spans = Vec::new();
    tagger.tag(&Text::new("warm"), &mut spans)?;
    let started = Instant::now();
    for text in &texts {
        spans.clear();
        tagger.tag(&Text::new(text), &mut spans)?;
    }
    let megabytes: usize = texts.iter().map(String::len).sum();
    println!("{:.3}", megabytes as f64 / 1e6 / started.elapsed().as_secs_f64());
    Ok(())
}
