//! Documents that are encoded before their order is known, as another stage makes them.
//!
//! Their ids wait in the destination, in a file for each file of documents, until all documents are there.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::encode::{Encoded, Encoder};
use super::order::{strip, Body, Document};
use super::plan::Plan;
use crate::document::Place;
use crate::error::{Code, Error, Result};
use crate::jsonl::{AtomicWriter, Compression, Written};
use crate::manifest::sha256_bytes;
use crate::run::{Claim, Files, Journal, Lease, Made, Share};

const WORKING_NAME: &str = ".encoding";

/// A finished file of ids.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EncodedFile {
    output: Written,
    #[serde(flatten)]
    pub counts: Counts,
    /// What the stage before wants to know of it later.
    pub note: Value,
}

/// What is in a file of ids.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Counts {
    /// UTF-8 bytes of the stripped texts.
    pub text_bytes: u64,
    /// Documents without text.
    pub empty: u64,
    /// Documents whose text spelt a special token.
    pub respelt: u64,
}

impl Made for EncodedFile {
    fn files(&self, name: &str) -> Vec<(String, &Written)> {
        vec![(name.to_owned(), &self.output)]
    }
}

/// Encodes documents for a plan.
pub struct Encoding<'p> {
    plan: &'p Plan,
    /// Of the plan's tokenizer.
    pub encoder: Encoder,
    store: Files,
    directory: PathBuf,
    run: String,
    journal: Journal<EncodedFile>,
    /// Of the destination, until the shards are written.
    claim: Mutex<Option<Claim>>,
    /// The files of the plan by their paths.
    files: BTreeMap<&'p Path, usize>,
}

/// Some documents, encoded.
#[derive(Default)]
pub struct EncodedBatch {
    bytes: Vec<u8>,
    counts: Counts,
}

/// A file of ids while it is written.
pub struct EncodedWriter {
    writer: AtomicWriter,
    counts: Counts,
}

impl<'p> Encoding<'p> {
    /// Loads the tokenizer, and finds out what an earlier run left. `run` is the hash of what the documents depend on.
    pub fn survey(plan: &'p Plan, run: &str, files: &Files) -> Result<Encoding<'p>> {
        let encoder = Encoder::load(&plan.tokenizer)?;
        let run = sha256_bytes(format!("{run} {} {:?} {:?}", encoder.sha256(), plan.tokenizer, plan.fields).as_bytes());
        let working = plan.destination.join(WORKING_NAME);
        let directory = working.join(run.get(..16).unwrap_or_default());
        let journal = Journal::read(files, &directory, "encode", run.clone())?;
        let store = files.clone();
        let files = plan.files.iter().enumerate().map(|(index, file)| (file.path.as_path(), index)).collect();
        Ok(Encoding { plan, encoder, store, directory, run, journal, claim: Mutex::default(), files })
    }

    /// The position of a file of documents; `None` if the plan does not name it.
    pub fn position(&self, path: &Path) -> Option<usize> {
        self.files.get(path).copied()
    }

    /// Where files of ids wait, and what else is needed until then.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What is known of a finished file.
    pub fn finished(&self, file: usize) -> Option<EncodedFile> {
        self.journal.get(&name(file))
    }

    /// Forgets what is finished.
    pub fn restart(&self) -> Result<()> {
        self.journal.restart()
    }

    /// Encodes a document, a line of JSON, and adds it to a batch. `place` is for messages.
    pub fn encode(&self, line: &[u8], place: &Place<'_>, batch: &mut EncodedBatch) -> Result<()> {
        let (id, text) = self.plan.fields.read(line, place)?;
        let text = strip(&text);
        let encoded = match text.is_empty() {
            true => Encoded { ids: Vec::new(), respelt: false },
            false => self.encoder.encode(text, place)?,
        };
        batch.counts.text_bytes += text.len() as u64;
        batch.counts.empty += u64::from(text.is_empty());
        batch.counts.respelt += u64::from(encoded.respelt);
        for number in [text.len(), id.len(), encoded.ids.len()] {
            batch.bytes.extend((number as u64).to_le_bytes());
        }
        batch.bytes.extend(id.as_bytes());
        batch.bytes.extend(encoded.ids.iter().flat_map(|id| id.to_le_bytes()));
        Ok(())
    }

    /// Readies the place of the ids.
    pub fn begin(&self, share: Option<Share>) -> Result<()> {
        let mut claim = Claim::new(&self.plan.destination, &self.run, share)?;
        if claim.is_alone {
            let working = self.plan.destination.join(WORKING_NAME);
            let entries = fs::read_dir(&working).into_iter().flatten().flatten();
            for entry in entries.filter(|entry| entry.path() != self.directory) {
                fs::remove_dir_all(entry.path()).map_err(|source| Error::io(&entry.path(), source))?;
            }
        }
        self.journal.enter(share, || self.journal.begin())?;
        claim.admit(&self.run)?;
        *self.claim.lock().unwrap_or_else(PoisonError::into_inner) = Some(claim);
        Ok(())
    }

    /// Lets the shards be written.
    pub(super) fn release(&self) {
        *self.claim.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Begins a file of ids.
    pub fn writer(&self, file: usize) -> Result<EncodedWriter> {
        let writer = AtomicWriter::create_as(&self.directory.join(name(file)), Compression::None)?;
        Ok(EncodedWriter { writer, counts: Counts::default() })
    }

    /// Ends a file of ids.
    pub fn finish(&self, file: usize, writer: EncodedWriter, note: Value) -> Result<()> {
        let EncodedWriter { writer, counts } = writer;
        self.journal.add(&name(file), EncodedFile { output: writer.finish()?, counts, note })
    }

    /// Where the ids of a file are.
    pub(super) fn path(&self, file: usize) -> PathBuf {
        self.directory.join(name(file))
    }

    /// Reads a file of ids.
    pub(super) fn reader(&self, file: usize) -> Result<EncodedReader> {
        let path = self.path(file);
        let lease = self.store.need(&path)?;
        let opened = File::open(&path).map_err(|source| Error::io(&path, source))?;
        // such ids are made of name and line
        let prefix = self.plan.fields.id_field_name.is_none().then(|| self.plan.files[file].name.clone());
        let prefix = prefix.map(|name| sha256_bytes(name.as_bytes()));
        Ok(EncodedReader { _lease: lease, path, file: BufReader::with_capacity(1 << 18, opened), line: 0, prefix })
    }

    /// Removes the files of ids.
    pub fn tidy(&self) -> Result<()> {
        let working = self.plan.destination.join(WORKING_NAME);
        match fs::remove_dir_all(&working) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io(&working, error)),
            _ => Ok(()),
        }
    }
}

impl EncodedWriter {
    /// Adds a batch.
    pub fn put(&mut self, batch: &EncodedBatch) -> Result<()> {
        self.counts.text_bytes += batch.counts.text_bytes;
        self.counts.empty += batch.counts.empty;
        self.counts.respelt += batch.counts.respelt;
        self.writer.put(&batch.bytes)
    }
}

fn name(file: usize) -> String {
    format!("{file:08}.ids")
}

/// Gives the documents of a file of ids.
pub struct EncodedReader {
    _lease: Lease,
    path: PathBuf,
    file: BufReader<File>,
    line: u64,
    prefix: Option<String>,
}

impl EncodedReader {
    /// The next document of the file at `index`; its text may be empty.
    pub fn next(&mut self, index: usize) -> Result<Option<Document>> {
        let mut header = [0; 24];
        let read = self.file.read(&mut header[..1]).map_err(|source| Error::io(&self.path, source))?;
        if read == 0 {
            return Ok(None);
        }
        let fail = |_| {
            Error::format(
                self.path.display().to_string(),
                None,
                None,
                Code::Truncated,
                "ids end early; expected what was written there",
            )
        };
        self.file.read_exact(&mut header[1..]).map_err(fail)?;
        let number = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&header[8 * at..8 * at + 8]);
            u64::from_le_bytes(bytes)
        };
        let (text_bytes, id_bytes, num_ids) = (number(0), number(1) as usize, number(2) as usize);
        let mut bytes = vec![0; id_bytes + 4 * num_ids];
        self.file.read_exact(&mut bytes).map_err(fail)?;
        self.line += 1;
        let id = match &self.prefix {
            Some(prefix) => format!("{prefix}-{}", self.line),
            None => String::from_utf8_lossy(&bytes[..id_bytes]).into_owned(),
        };
        let ids =
            bytes[id_bytes..].chunks_exact(4).map(|id| u32::from_le_bytes([id[0], id[1], id[2], id[3]])).collect();
        let body = Body::Encoded(Encoded { ids, respelt: false });
        Ok(Some(Document { file: index, line: self.line, id, text_bytes, body }))
    }
}
