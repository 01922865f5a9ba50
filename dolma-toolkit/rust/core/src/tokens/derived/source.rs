//! One token shard that is read: checked in full once, then taken from by ranges of tokens.

use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::Details;
use crate::error::{Code, Error, Result};
use crate::formats::table::TableReader;
use crate::jsonl::{hex, Written};
use crate::manifest::sha256_file;
use crate::progress::Progress;
use crate::tokens::Dtype;

const BUFFER_BYTES: usize = 1 << 20;
const ROWS_BETWEEN_CHECKS: u64 = 4096;

/// A `.npy` and its table.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Raw items.
    pub npy: PathBuf,
    /// The `.csv.gz`.
    pub csv: PathBuf,
    /// What a manifest says of the two.
    pub sha256: Option<(String, String)>,
}

/// What reading a source in full found.
pub struct Surveyed {
    pub tokens: u64,
    pub npy: Written,
    pub csv: Written,
    /// Where it is cut between documents so that no part has more than the tokens allowed; one part where it fits.
    pub parts: Vec<(u64, u64)>,
}

impl Source {
    /// Reads the shard: its hashes, and whether it is what docs/formats/tokens.md says.
    pub fn survey(&self, details: &Details, max_tokens: Option<u64>, progress: &Progress) -> Result<Surveyed> {
        let fail = |code, message: String| Error::format(self.npy.display().to_string(), None, None, code, message);
        let file = File::open(&self.npy).map_err(|error| Error::io(&self.npy, error))?;
        let size_bytes = file.metadata().map_err(|error| Error::io(&self.npy, error))?.len();
        let item_bytes = details.dtype.size_bytes();
        if size_bytes % item_bytes != 0 {
            let message = format!("the file has {size_bytes} bytes; expected a multiple of {item_bytes}");
            return Err(fail(Code::WrongDtype, message));
        }
        let tokens = size_bytes / item_bytes;
        let mut table = TableReader::open(&self.csv, tokens)?;
        let mut reader = BufReader::with_capacity(BUFFER_BYTES, file);
        let mut hash = Sha256::new();
        let (mut bytes, mut rows) = (Vec::new(), 0u64);
        let mut parts: Vec<(u64, u64)> = Vec::new();
        while let Some(row) = table.next_row()? {
            rows += 1;
            if rows % ROWS_BETWEEN_CHECKS == 0 {
                progress.check()?;
            }
            bytes.resize(((row.end - row.start) * item_bytes) as usize, 0);
            reader.read_exact(&mut bytes).map_err(|error| Error::io(&self.npy, error))?;
            hash.update(&bytes);
            let mut ids = items(&bytes, details.dtype);
            if let Some((at, id)) = ids.by_ref().enumerate().find(|(_, id)| *id >= details.vocab_size) {
                let at = row.start + at as u64;
                let message = format!("token {at} is {id}; expected an id below the size of the vocabulary");
                return Err(fail(Code::OutOfRange, message));
            }
            if let Some(eos) = details.eos_token_id.filter(|_| !bytes.is_empty()) {
                let found = items(&bytes, details.dtype).position(|id| id == eos).map(|at| row.start + at as u64 + 1);
                if found != Some(row.end) {
                    let message = format!("the document has token {eos} inside; expected it only at the end");
                    return Err(table.error(Some("end"), Code::BadBoundary, message));
                }
            }
            match (parts.last_mut(), max_tokens) {
                (Some(part), Some(most)) if row.end - part.0 <= most => part.1 = row.end,
                (Some(part), None) => part.1 = row.end,
                _ => parts.push((row.start, row.end)),
            }
            if let Some(most) = max_tokens.filter(|most| row.end - row.start > *most) {
                let message = format!(
                    "the document has {} tokens; expected at most {most}, as max_size_bytes allows",
                    row.end - row.start
                );
                return Err(table.error(None, Code::OutOfRange, message));
            }
        }
        let npy = Written { size_bytes, sha256: hex(&hash.finalize()) };
        let csv = sha256_file(&self.csv)?;
        if let Some((npy_sha256, csv_sha256)) = &self.sha256 {
            for (path, found, stated) in [(&self.npy, &npy, npy_sha256), (&self.csv, &csv, csv_sha256)] {
                if found.sha256 != *stated {
                    let message = "the sha256 is another; expected the one that the manifest says";
                    let path = path.display().to_string();
                    return Err(Error::format(path, None, None, Code::ChecksumMismatch, message));
                }
            }
        }
        Ok(Surveyed { tokens, npy, csv, parts })
    }
}

/// The ids of little-endian items.
pub fn items(bytes: &[u8], dtype: Dtype) -> impl Iterator<Item = u32> + '_ {
    bytes
        .chunks_exact(dtype.size_bytes() as usize)
        .map(|item| item.iter().rev().fold(0u32, |id, byte| id << 8 | u32::from(*byte)))
}

/// Copies ranges of tokens out of a shard.
pub struct Items<'a> {
    path: &'a Path,
    file: File,
    item_bytes: u64,
    buffer: Vec<u8>,
}

impl<'a> Items<'a> {
    /// Opens the `.npy`.
    pub fn open(path: &'a Path, dtype: Dtype) -> Result<Items<'a>> {
        let file = File::open(path).map_err(|error| Error::io(path, error))?;
        Ok(Items { path, file, item_bytes: dtype.size_bytes(), buffer: Vec::new() })
    }

    /// Writes tokens `start..end` to `put`, block by block.
    pub fn copy(&mut self, start: u64, end: u64, mut put: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let (mut at, end) = (start * self.item_bytes, end * self.item_bytes);
        while at < end {
            let length = (end - at).min(BUFFER_BYTES as u64);
            self.buffer.resize(length as usize, 0);
            self.file.read_exact_at(&mut self.buffer, at).map_err(|error| Error::io(self.path, error))?;
            put(&self.buffer)?;
            at += length;
        }
        Ok(())
    }
}

/// One item, little-endian.
pub fn item(id: u32, dtype: Dtype, mut writer: impl Write) -> std::io::Result<()> {
    writer.write_all(&id.to_le_bytes()[..dtype.size_bytes() as usize])
}
