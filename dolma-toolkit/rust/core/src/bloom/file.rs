//! Filters in files: docs/formats/filter.md. Written whole or not at all, and checked when read.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;

use xxhash_rust::xxh3::Xxh3;

use super::blocked::{Blocked, Sizing, MAX_BLOCKS_PER_KEY, MAX_POSITIONS};
use super::scattered::{Scattered, MAX_HASHES};
use super::{Filter, Layout, LegacyFilter, Record};
use crate::error::{Code, Error, Result};

/// "Filter" in the first four bytes, as dolma 1.x has it, little-endian.
const MAGIC: u32 = 0x81F0_F117;
const LEGACY_VERSION: u32 = 1;
const SCATTERED_VERSION: u32 = 2;
const BLOCKED_VERSION: u32 = 3;
/// Words that are read or written at a time.
const CHUNK_WORDS: usize = 1 << 16;
/// A record is text about the inputs; one of this size is damage.
const MAX_RECORD_BYTES: u64 = 1 << 30;

/// A filter of any version.
#[derive(Debug)]
pub enum AnyFilter {
    /// ours: version 2 or 3
    Current(Filter),
    /// of dolma 1.x: version 1, which can only be read
    Legacy(LegacyFilter),
}

impl AnyFilter {
    /// Expected share of new keys that are reported as seen.
    pub fn false_positive_rate(&self) -> f64 {
        match self {
            Self::Current(filter) => filter.false_positive_rate(),
            Self::Legacy(filter) => filter.false_positive_rate(),
        }
    }
}

/// Reads the filter at `path`.
///
/// Errors: `truncated`, `checksum_mismatch`, `unknown_format` (no filter), `unsupported_version`, `invalid_value`.
pub fn read(path: &Path) -> Result<AnyFilter> {
    let file = File::open(path).map_err(|source| Error::io(path, source))?;
    let size_bytes = file.metadata().map_err(|source| Error::io(path, source))?.len();
    let mut reader =
        Reader { path, inner: BufReader::with_capacity(1 << 20, file), hash: Xxh3::new(), left: size_bytes };
    let magic = reader.u32()?;
    if magic != MAGIC {
        let message = format!("the file begins with {magic:#010x}; expected {MAGIC:#010x}, a Bloom filter");
        return Err(reader.error(Code::UnknownFormat, message));
    }
    match reader.u32()? {
        version @ (SCATTERED_VERSION | BLOCKED_VERSION) => read_current(reader, version).map(AnyFilter::Current),
        LEGACY_VERSION => read_legacy(reader).map(AnyFilter::Legacy),
        version => {
            let message =
                format!("the filter's version is {version}; expected 1 to 3, the versions that this release reads");
            Err(reader.error(Code::UnsupportedVersion, message))
        }
    }
}

fn read_current(mut reader: Reader<'_>, version: u32) -> Result<Filter> {
    let positions = reader.u32()?;
    let blocks_per_key = reader.u32()?;
    let words = reader.u64()?;
    let keys = reader.u64()?;
    let record_bytes = reader.u64()?;
    let is_blocked = version == BLOCKED_VERSION;
    let most = if is_blocked { MAX_POSITIONS } else { MAX_HASHES };
    if positions == 0 || positions > most || words == 0 {
        let message =
            format!("the filter has {positions} hashes and {words} words; expected 1 to {most}, and at least 1");
        return Err(reader.error(Code::InvalidValue, message));
    }
    if is_blocked && (blocks_per_key == 0 || blocks_per_key > MAX_BLOCKS_PER_KEY || words % 8 != 0) {
        let message = format!(
            "the filter has {blocks_per_key} blocks per key and {words} words; expected 1 to {MAX_BLOCKS_PER_KEY}, and a multiple of 8"
        );
        return Err(reader.error(Code::InvalidValue, message));
    }
    reader.need(words.saturating_mul(8).saturating_add(record_bytes).saturating_add(16))?;
    if record_bytes > MAX_RECORD_BYTES {
        return Err(reader.error(Code::InvalidValue, format!("the record has {record_bytes} bytes; expected less")));
    }
    let mut record = vec![0; record_bytes as usize];
    reader.fill(&mut record)?;
    let layout = match is_blocked {
        true => Layout::Blocked(Blocked::new(Sizing { blocks: words / 8, blocks_per_key, positions })),
        false => Layout::Scattered(Scattered::new(words, positions)),
    };
    let filter = Filter::with(layout, keys, Record::default());
    let mut chunk = vec![0; CHUNK_WORDS * 8];
    for words in filter.words().chunks(CHUNK_WORDS) {
        let chunk = &mut chunk[..words.len() * 8];
        reader.fill(chunk)?;
        for (word, bytes) in words.iter().zip(chunk.chunks_exact(8)) {
            word.store(bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)), Relaxed);
        }
    }
    let computed = reader.hash.digest128();
    let stored = reader.u128()?;
    if computed != stored || reader.left != 0 {
        return Err(reader.error(
            Code::ChecksumMismatch,
            "the bytes are not those that were written; expected the checksum at the end to match",
        ));
    }
    let record = serde_json::from_slice(&record)
        .map_err(|error| reader.error(Code::InvalidValue, format!("the record is unusable: {error}")))?;
    Ok(Filter { record, ..filter })
}

fn read_legacy(mut reader: Reader<'_>) -> Result<LegacyFilter> {
    if let Some(reason) = LegacyFilter::refusal() {
        return Err(
            reader.error(Code::UnsupportedVersion, format!("the filter {reason}; expected a filter of version 2 or 3"))
        );
    }
    let hashes = reader.u32()?;
    reader.need(u64::from(hashes) * 32 + 8)?;
    let mut seeds = Vec::with_capacity(hashes as usize);
    for _ in 0..hashes {
        seeds.push([reader.u64()?, reader.u64()?, reader.u64()?, reader.u64()?]);
    }
    let words = reader.u64()?;
    reader.need(words.saturating_mul(4))?;
    if hashes == 0 || words == 0 {
        return Err(reader
            .error(Code::InvalidValue, format!("the filter has {hashes} hashes and {words} words; expected some")));
    }
    let mut bits = Vec::with_capacity(words as usize);
    for _ in 0..words {
        bits.push(reader.u32()?);
    }
    Ok(LegacyFilter::new(&seeds, bits))
}

struct Reader<'p> {
    path: &'p Path,
    inner: BufReader<File>,
    hash: Xxh3,
    left: u64,
}

impl Reader<'_> {
    fn error(&self, code: Code, message: impl Into<String>) -> Error {
        Error::format(self.path.display().to_string(), None, None, code, message)
    }

    /// Fails unless `bytes` more are there: before memory is taken for them.
    fn need(&self, bytes: u64) -> Result<()> {
        if bytes <= self.left {
            return Ok(());
        }
        let message = format!("the filter ends early: {} bytes are left; expected {bytes}", self.left);
        Err(self.error(Code::Truncated, message))
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<()> {
        self.need(bytes.len() as u64)?;
        self.inner.read_exact(bytes).map_err(|source| Error::io(self.path, source))?;
        self.left -= bytes.len() as u64;
        self.hash.update(bytes);
        Ok(())
    }

    fn u32(&mut self) -> Result<u32> {
        let mut bytes = [0; 4];
        self.fill(&mut bytes).map(|()| u32::from_le_bytes(bytes))
    }

    fn u64(&mut self) -> Result<u64> {
        let mut bytes = [0; 8];
        self.fill(&mut bytes).map(|()| u64::from_le_bytes(bytes))
    }

    fn u128(&mut self) -> Result<u128> {
        let mut bytes = [0; 16];
        self.fill(&mut bytes).map(|()| u128::from_le_bytes(bytes))
    }
}

/// Writes `filter` to `path`: to a temporary name next to it, synced, then renamed.
pub fn write(filter: &Filter, path: &Path) -> Result<()> {
    let directory = path.parent().unwrap_or(Path::new(""));
    std::fs::create_dir_all(directory).map_err(|source| Error::io(directory, source))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = directory.join(format!(".{name}.partial"));
    let result = write_to(filter, &temporary)
        .and_then(|()| std::fs::rename(&temporary, path))
        .map_err(|source| Error::io(path, source));
    if result.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    result
}

fn write_to(filter: &Filter, path: &Path) -> std::io::Result<()> {
    let mut writer = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let mut hash = Xxh3::new();
    let record = serde_json::to_vec(&filter.record)?;
    let mut head = Vec::with_capacity(40 + record.len());
    let (version, positions, blocks_per_key) = match &filter.layout {
        Layout::Scattered(bits) => (SCATTERED_VERSION, bits.hashes(), 0),
        Layout::Blocked(bits) => (BLOCKED_VERSION, bits.sizing().positions, bits.sizing().blocks_per_key),
    };
    for number in [MAGIC, version, positions, blocks_per_key] {
        head.extend(number.to_le_bytes());
    }
    for number in [filter.words().len() as u64, filter.keys(), record.len() as u64] {
        head.extend(number.to_le_bytes());
    }
    head.extend(record);
    hash.update(&head);
    writer.write_all(&head)?;
    let mut chunk = Vec::with_capacity(CHUNK_WORDS * 8);
    for words in filter.words().chunks(CHUNK_WORDS) {
        chunk.clear();
        chunk.extend(words.iter().flat_map(|word| word.load(Relaxed).to_le_bytes()));
        hash.update(&chunk);
        writer.write_all(&chunk)?;
    }
    writer.write_all(&hash.digest128().to_le_bytes())?;
    writer.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()
}
