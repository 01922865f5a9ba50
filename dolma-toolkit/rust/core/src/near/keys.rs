//! The files of keys: one for each document file, with the rows in order.
//!
//! A row is its rank (f64; of the copies, the one with the highest stays), the size of its keys (u32), and the keys as
//! numbers (u64), all little-endian. What the keys are depends on what is compared: a number for each band, two for each
//! line or sentence, hash and position of each fingerprint, or, of a stretch of text, two numbers and where it begins.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::found::Found;
use super::settings::{Keep, Settings, Unit};
use super::sketch::Sketcher;
use super::{repeats, substring};
use crate::dedupe::{words, Open};
use crate::document::{kind, parse_object, parse_row, Place, FIELDS};
use crate::error::{Code, Error, Result};
use crate::jsonl::{AtomicWriter, Compression, Written};
use crate::jsonpath::Path as JsonPath;
use crate::run::{Batch, BatchRow, Journal, Made, Rows, Stage, Stamp};

/// A finished file of keys.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KeysFile {
    output: Written,
    /// rows
    pub documents: u64,
    /// what of the document file it was made of
    pub input: Stamp,
}

impl Made for KeysFile {
    fn files(&self, name: &str) -> Vec<(String, &Written)> {
        vec![(name.to_owned(), &self.output)]
    }
}

/// Writes keys of document files. A series is a file.
pub struct KeyWriting<'a> {
    /// of the run
    pub settings: &'a Settings,
    /// the path of the score
    pub score: Option<JsonPath>,
    /// of each series, the position of its document file, and the name of its keys
    pub files: Vec<(usize, String)>,
    /// opens a document file
    pub open: Open<'a>,
    /// of the directory of the files
    pub journal: &'a Journal<KeysFile>,
    /// for each document file, fingerprints that are found twice: stretches around them are the keys
    pub candidates: Option<&'a Found>,
}

impl KeyWriting<'_> {
    fn row(&self, row: BatchRow<'_>, file: usize, memory: &mut Memory, bytes: &mut Vec<u8>) -> Result<()> {
        let document = &self.settings.files[file];
        let name = document.path.display().to_string();
        let place = row.place(&name);
        let parsed = parse_row(row.document(), &place)?;
        let rank = match (&self.settings.unit, &self.score) {
            (Unit::Minhash { keep: Keep::Longest, .. }, _) => parsed.text.len() as f64,
            (Unit::Minhash { keep: Keep::Highest, .. }, Some(path)) => self.score(path, row, file, &place)?,
            _ => 0.0,
        };
        memory.keys.clear();
        self.keys(&parsed.text, row.number(), file, memory)?;
        bytes.extend(rank.to_le_bytes());
        bytes.extend((memory.keys.len() as u32).to_le_bytes());
        bytes.extend(memory.keys.iter().flat_map(|key| key.to_le_bytes()));
        Ok(())
    }

    fn keys(&self, text: &str, row: u64, file: usize, memory: &mut Memory) -> Result<()> {
        let Settings { min_words, min_length, .. } = *self.settings;
        let Memory { keys, sketcher } = memory;
        match (&self.settings.unit, sketcher) {
            (Unit::Minhash { .. }, Some(sketcher)) => {
                let has_words = || words(text).take(min_words as usize).count() as u64 == min_words;
                if text.len() as u64 >= min_length && has_words() {
                    sketcher.keys(text, |key| keys.push(key));
                }
            }
            (Unit::Minhash { .. }, None) => {}
            (Unit::Repeats(repeats), _) => repeats::keys(text, repeats, min_words, min_length, keys),
            (Unit::Substring { length_bytes }, _) => match self.candidates {
                None => substring::fingerprints(text.as_bytes(), *length_bytes, keys),
                Some(candidates) => {
                    let positions: Vec<u64> = numbers(&candidates.of(file, row)?).collect();
                    substring::stretches(text.as_bytes(), *length_bytes, &positions, keys);
                }
            },
        }
        Ok(())
    }

    /// The score of a document with its attributes.
    fn score(&self, path: &JsonPath, row: BatchRow<'_>, file: usize, place: &Place<'_>) -> Result<f64> {
        let mut document = parse_object(row.document(), place)?;
        for (index, companion) in self.settings.attributes.get(file).into_iter().flatten().enumerate() {
            let name = companion.display().to_string();
            let mut line = parse_object(row.companion(index), &row.companion_place(&name))?;
            let Some(Value::Object(attributes)) = line.remove("attributes") else { continue };
            let all = document.entry("attributes").or_insert_with(|| Value::Object(serde_json::Map::new()));
            all.as_object_mut().into_iter().for_each(|all| all.extend(attributes.clone()));
        }
        let document = Value::Object(document);
        let found = path.first(&document);
        match found.and_then(Value::as_f64) {
            Some(score) => Ok(score),
            None => {
                let is = found.map_or("missing", kind);
                let code = if found.is_none() { Code::MissingField } else { Code::WrongType };
                let message = format!("the score {} is {is}; expected a number", path.text());
                Err(place.error(Some(path.text()), code, message))
            }
        }
    }
}

/// Of a thread, for one batch.
struct Memory {
    keys: Vec<u64>,
    sketcher: Option<Sketcher>,
}

/// Numbers of eight bytes.
pub fn numbers(bytes: &[u8]) -> impl Iterator<Item = u64> + '_ {
    bytes.chunks_exact(8).map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap_or_default()))
}

impl Stage for KeyWriting<'_> {
    type Source = Rows;
    type Asked = Batch;
    type Made = (Vec<u8>, u64);
    type Output = (AtomicWriter, u64, Stamp);
    type Done = ();

    fn open(&self, series: usize) -> Result<(Rows, Self::Output)> {
        let (file, name) = &self.files[series];
        let stamp = Stamp::of(&self.settings.files[*file].path)?;
        let fields = self.score.is_none().then_some(&FIELDS[..]);
        let rows = (self.open)(*file, fields)?;
        let writer = AtomicWriter::create_as(&self.journal.directory().join(name), Compression::None)?;
        Ok((rows, (writer, 0, stamp)))
    }

    fn ask(&self, _series: usize, batch: Batch) -> Result<Batch> {
        Ok(batch)
    }

    fn make(&self, series: usize, batch: Batch) -> Result<Self::Made> {
        let sketcher = match self.settings.unit {
            Unit::Minhash { ngram_length, bands, rows, .. } => Some(Sketcher::new(ngram_length, bands, rows)),
            _ => None,
        };
        let mut memory = Memory { keys: Vec::new(), sketcher };
        let mut bytes = Vec::new();
        let count = batch.rows().len() as u64;
        for row in batch.rows() {
            self.row(row, self.files[series].0, &mut memory, &mut bytes)?;
        }
        batch.error.map_or(Ok((bytes, count)), Err)
    }

    fn keep(&self, _series: usize, (writer, documents, _): &mut Self::Output, made: Self::Made) -> Result<()> {
        *documents += made.1;
        writer.put(&made.0)
    }

    fn finish(&self, series: usize, _rows: Rows, (writer, documents, input): Self::Output) -> Result<()> {
        self.journal.add(&self.files[series].1, KeysFile { output: writer.finish()?, documents, input })
    }
}

/// Reads a file of keys.
pub struct KeyReader {
    path: PathBuf,
    file: BufReader<File>,
    bytes: Vec<u8>,
}

impl KeyReader {
    /// From the first row on.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|source| Error::io(path, source))?;
        Ok(Self { path: path.to_owned(), file: BufReader::with_capacity(1 << 20, file), bytes: Vec::new() })
    }

    /// The rank of the next row, and its keys.
    pub fn next(&mut self, keys: &mut Vec<u64>) -> Result<f64> {
        let fail = |source| Error::io(&self.path, source);
        let mut head = [0; 12];
        self.file.read_exact(&mut head).map_err(fail)?;
        let (mut rank, mut count) = ([0; 8], [0; 4]);
        rank.copy_from_slice(&head[..8]);
        count.copy_from_slice(&head[8..]);
        self.bytes.resize(u32::from_le_bytes(count) as usize * 8, 0);
        self.file.read_exact(&mut self.bytes).map_err(fail)?;
        keys.clear();
        keys.extend(numbers(&self.bytes));
        Ok(f64::from_le_bytes(rank))
    }
}
