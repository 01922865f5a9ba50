//! What was found of the rows of document files, on the disk until the rows are marked.
//!
//! A file is a number (u64) for each row, and one more, of where in the rest of the file what is found of it begins.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::jsonl::{AtomicWriter, Compression, Written};
use crate::run::Made;

/// A finished file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FoundFile {
    output: Written,
    /// rows
    pub documents: u64,
}

impl Made for FoundFile {
    fn files(&self, name: &str) -> Vec<(String, &Written)> {
        vec![(name.to_owned(), &self.output)]
    }
}

/// Collects what is found of the rows of a file, in order.
#[derive(Default)]
pub struct Finding {
    /// of each row
    ends: Vec<u64>,
    bytes: Vec<u8>,
}

impl Finding {
    /// Adds a row.
    pub fn add(&mut self, found: &[u8]) {
        self.bytes.extend_from_slice(found);
        self.ends.push(self.bytes.len() as u64);
    }

    /// Writes it all.
    pub fn write(&self, path: &Path) -> Result<FoundFile> {
        let mut writer = AtomicWriter::create_as(path, Compression::None)?;
        writer.put(&[0; 8])?;
        self.ends.iter().try_for_each(|end| writer.put(&end.to_le_bytes()))?;
        writer.put(&self.bytes)?;
        Ok(FoundFile { output: writer.finish()?, documents: self.ends.len() as u64 })
    }
}

/// The files, for rows in any order and threads.
pub struct Found {
    /// of each document file: where it is, and its rows
    files: Vec<(PathBuf, u64)>,
    open: Mutex<BTreeMap<usize, Arc<File>>>,
}

impl Found {
    /// Of files with so many rows.
    pub fn new(files: Vec<(PathBuf, u64)>) -> Self {
        Self { files, open: Mutex::default() }
    }

    /// What was found of a row of a file, by their positions.
    pub fn of(&self, file: usize, row: u64) -> Result<Vec<u8>> {
        let (path, documents) = &self.files[file];
        let fail = |source| Error::io(path, source);
        let opened = self.opened(file, path)?;
        let mut ends = [0; 16];
        opened.read_exact_at(&mut ends, row * 8).map_err(fail)?;
        let (mut start, mut end) = ([0; 8], [0; 8]);
        start.copy_from_slice(&ends[..8]);
        end.copy_from_slice(&ends[8..]);
        let (start, end) = (u64::from_le_bytes(start), u64::from_le_bytes(end));
        let mut found = vec![0; (end - start) as usize];
        opened.read_exact_at(&mut found, (documents + 1) * 8 + start).map_err(fail)?;
        Ok(found)
    }

    fn opened(&self, file: usize, path: &Path) -> Result<Arc<File>> {
        if let Some(file) = self.lock().get(&file) {
            return Ok(file.clone());
        }
        let opened = Arc::new(File::open(path).map_err(|source| Error::io(path, source))?);
        Ok(self.lock().entry(file).or_insert(opened).clone())
    }

    /// All rows of a file were asked for.
    pub fn close(&self, file: usize) {
        self.lock().remove(&file);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<usize, Arc<File>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
