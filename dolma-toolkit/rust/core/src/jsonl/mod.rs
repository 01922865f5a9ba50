//! Lines of text in and out of files: compression by the last extension, places for errors, nothing half-written.
//!
//! Reading streams; a compressed file that ends early is an error (`truncated`), never a short file. Writing goes to a
//! hidden temporary name in the same directory, which is synced and renamed at the end. Parquet counts as a way to pack
//! lines: a row is a line.

mod gzip;
mod magic;
mod parquet;

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::document::{self, Place};
use crate::error::{Code, Error, FormatError, Result};
use gzip::{GzipReader, GzipWriter};
use magic::mismatch;
use parquet::{BadValue, ParquetLines, ParquetWriter};

const BUFFER_BYTES: usize = 1 << 17;

/// The UTF-8 byte-order mark. Some editors and spreadsheets put it before the first line.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// How a file is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Compression {
    None,
    Gzip,
    Zstandard,
    Bzip2,
    Xz,
    Parquet,
}

impl Compression {
    /// By the last extension of the name.
    pub fn of(path: &Path) -> Compression {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("gz") => Compression::Gzip,
            Some("zst" | "zstd") => Compression::Zstandard,
            Some("bz2") => Compression::Bzip2,
            Some("xz") => Compression::Xz,
            Some("parquet") => Compression::Parquet,
            _ => Compression::None,
        }
    }

    /// By its extension, as configurations name it: `gz`, `zst`, `bz2`, `xz`, or nothing.
    pub fn named(extension: &str) -> Option<Compression> {
        match extension {
            "" => Some(Compression::None),
            "gz" => Some(Compression::Gzip),
            "zst" | "zstd" => Some(Compression::Zstandard),
            "bz2" => Some(Compression::Bzip2),
            "xz" => Some(Compression::Xz),
            _ => None,
        }
    }
}

struct CountingFile {
    file: File,
    count: Arc<AtomicU64>,
    hash: Arc<Mutex<Option<Sha256>>>,
}

impl Read for CountingFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.count.fetch_add(read as u64, Ordering::Relaxed);
        if let Some(hash) = self.hash.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            hash.update(&buffer[..read]);
        }
        Ok(read)
    }
}

/// Tells whether a file has changed since it was opened: what was read of it then belongs to no version of it.
struct Watch {
    file: File,
    size_bytes: u64,
    modified: Option<SystemTime>,
}

impl Watch {
    fn new(file: &File) -> io::Result<Watch> {
        let metadata = file.metadata()?;
        let modified = metadata.is_file().then(|| metadata.modified().ok()).flatten();
        Ok(Watch { file: file.try_clone()?, size_bytes: metadata.len(), modified })
    }

    fn check(&self, name: &str) -> Result<()> {
        let metadata = self.file.metadata().map_err(|source| Error::io(Path::new(name), source))?;
        if !metadata.is_file() || (metadata.len() == self.size_bytes && metadata.modified().ok() == self.modified) {
            return Ok(());
        }
        Err(changed(name, self.size_bytes, metadata.len()))
    }
}

/// The error of a file that is not what it was.
pub fn changed(name: &str, before: u64, now: u64) -> Error {
    let message = format!("the file changed while it was read (from {before} to {now} bytes); expected one that stays");
    Error::format(name, None, None, Code::WrongSize, message)
}

/// What to do with rows that are not valid documents.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RowRules {
    /// Gives each row without an id one: the path of its file below `documents` (without such a directory, its name), a
    /// colon and its line number.
    pub generate_ids: bool,
    /// How many bad rows to skip, over all files of a run.
    pub skip_bad_rows: u64,
}

/// A skipped row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SkippedRow {
    /// 1-based.
    pub line: u64,
    /// Of the error.
    pub code: String,
    /// What is wrong with it.
    pub message: String,
}

/// A skipped row, and its file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Skipped {
    /// As the request names it.
    pub file: String,
    /// The line, and what is wrong.
    #[serde(flatten)]
    pub row: SkippedRow,
}

/// Says what is wrong with a row.
pub type RowCheck = dyn Fn(&[u8], &Place<'_>) -> Result<()> + Send + Sync;

/// Row rules of one run, and how many rows it has skipped.
#[derive(Clone)]
pub struct RowSieve {
    rules: RowRules,
    check: Arc<RowCheck>,
    skipped: Arc<AtomicU64>,
}

impl RowSieve {
    /// For a run whose earlier attempt skipped `before` rows.
    pub fn new(rules: &RowRules, before: u64) -> RowSieve {
        let check = Arc::new(|line: &[u8], place: &Place<'_>| document::parse_row(line, place).map(drop));
        RowSieve { rules: rules.clone(), check, skipped: Arc::new(AtomicU64::new(before)) }
    }

    /// For rows that are not documents.
    pub fn checking(self, check: impl Fn(&[u8], &Place<'_>) -> Result<()> + Send + Sync + 'static) -> RowSieve {
        RowSieve { check: Arc::new(check), ..self }
    }

    /// Skips the row with the error. Returns the error if that is one too many.
    fn skip(&self, error: Error) -> Result<SkippedRow> {
        let Error::Format(error) = error else { return Err(error) };
        let limit = self.rules.skip_bad_rows;
        if self.skipped.fetch_add(1, Ordering::Relaxed) < limit {
            let code = error.code.as_str().to_owned();
            return Ok(SkippedRow { line: error.line.unwrap_or(0), code, message: error.message });
        }
        let more =
            if limit > 0 { format!(" (more than the {limit} rows that skip_bad_rows allows)") } else { String::new() };
        Err(Error::Format(Box::new(FormatError { message: format!("{}{more}", error.message), ..*error })))
    }
}

/// The row filter of one file.
struct FileSieve {
    sieve: RowSieve,
    /// what ids begin with
    name: String,
    skipped: Vec<SkippedRow>,
}

impl FileSieve {
    /// Changes a line, or returns that it is skipped.
    fn takes(&mut self, line: &mut Vec<u8>, place: &Place<'_>) -> Result<bool> {
        if self.sieve.rules.generate_ids {
            document::put_id(line, &self.name, place.line);
        }
        if self.sieve.rules.skip_bad_rows == 0 {
            return Ok(true);
        }
        let Err(error) = (self.sieve.check)(line, place) else { return Ok(true) };
        self.skipped.push(self.sieve.skip(error)?);
        Ok(false)
    }
}

/// The path of a file below its directory `documents`, else its name. It does not depend on the working directory.
fn name_in_documents(path: &str) -> &str {
    let below = path.rsplit_once("/documents/").map(|(_, name)| name).or_else(|| path.strip_prefix("documents/"));
    below.unwrap_or_else(|| path.rsplit_once('/').map_or(path, |(_, name)| name))
}

/// Reads lines and knows where it is.
pub struct LineReader {
    path: String,
    line: u64,
    size_bytes: u64,
    stored_bytes: Arc<AtomicU64>,
    hash: Arc<Mutex<Option<Sha256>>>,
    is_parquet: bool,
    inner: Box<dyn BufRead + Send>,
    buffer: Vec<u8>,
    watch: Watch,
    sieve: Option<FileSieve>,
    at_end: Option<AtEnd>,
}

type AtEnd = Box<dyn FnOnce(Option<Written>) -> Result<()> + Send>;

impl LineReader {
    /// Opens a file; its name in messages is `path` as given.
    pub fn open(path: &Path) -> Result<LineReader> {
        LineReader::open_as(path, &path.display().to_string(), Compression::of(path))
    }

    /// Opens a file in place of `name` (a local copy of a remote one, say), packed as `compression` says.
    pub fn open_as(path: &Path, name: &str, compression: Compression) -> Result<LineReader> {
        LineReader::open_with(path, name, compression, None, None)
    }

    /// As [`LineReader::open_as`]. In a Parquet file only columns with these names are decoded, and columns whose members
    /// are fields.
    pub fn open_fields(path: &Path, name: &str, compression: Compression, fields: &[&str]) -> Result<LineReader> {
        LineReader::open_with(path, name, compression, None, Some(fields))
    }

    /// As [`LineReader::open_as`], and hashes what is read, for [`LineReader::written`].
    pub fn open_hashing(
        path: &Path,
        name: &str,
        compression: Compression,
        fields: Option<&[&str]>,
    ) -> Result<LineReader> {
        LineReader::open_with(path, name, compression, Some(Sha256::new()), fields)
    }

    /// Applies the row rules of the run: skips bad rows and adds ids.
    pub fn sieved(mut self, sieve: &RowSieve) -> LineReader {
        let name = name_in_documents(&self.path).to_owned();
        let is_needed = sieve.rules != RowRules::default();
        self.sieve = is_needed.then(|| FileSieve { sieve: sieve.clone(), name, skipped: Vec::new() });
        self
    }

    /// Gives what [`LineReader::written`] is when the last line is read. `call` is dropped if that never happens.
    pub fn at_end(mut self, call: impl FnOnce(Option<Written>) -> Result<()> + Send + 'static) -> LineReader {
        self.at_end = Some(Box::new(call));
        self
    }

    /// The skipped rows so far.
    pub fn skipped(&self) -> &[SkippedRow] {
        self.sieve.as_ref().map_or(&[], |sieve| &sieve.skipped)
    }

    /// A decoder may read as soon as it is made, so whether to hash is settled before.
    fn open_with(
        path: &Path,
        name: &str,
        compression: Compression,
        hash: Option<Sha256>,
        fields: Option<&[&str]>,
    ) -> Result<LineReader> {
        let mut file = File::open(path).map_err(|source| Error::io(path, source))?;
        if let Some(message) = mismatch(&mut file, name, compression).map_err(|source| Error::io(path, source))? {
            return Err(Error::format(name, None, None, Code::InvalidValue, message));
        }
        let watch = Watch::new(&file).map_err(|source| Error::io(path, source))?;
        let size_bytes = watch.size_bytes;
        if !matches!(compression, Compression::None | Compression::Parquet) && size_bytes == 0 {
            return Err(Error::format(
                name,
                None,
                None,
                Code::Truncated,
                "the compressed file has no bytes; expected at least a header",
            ));
        }
        let stored_bytes = Arc::new(AtomicU64::new(0));
        let hash = Arc::new(Mutex::new(hash));
        let buffer = Vec::with_capacity(BUFFER_BYTES);
        let opened = |inner, is_parquet| LineReader {
            path: name.to_owned(),
            line: 0,
            size_bytes,
            stored_bytes: stored_bytes.clone(),
            hash: hash.clone(),
            is_parquet,
            inner,
            buffer,
            watch,
            sieve: None,
            at_end: None,
        };
        if compression == Compression::Parquet {
            let rows =
                ParquetLines::open(file, size_bytes, stored_bytes.clone(), fields).map_err(|source| {
                    match source.kind() {
                        io::ErrorKind::InvalidData => parquet_error(name, &source),
                        _ => Error::io(path, source),
                    }
                })?;
            return Ok(opened(Box::new(BufReader::with_capacity(BUFFER_BYTES, rows)), true));
        }
        let file = CountingFile { file, count: stored_bytes.clone(), hash: hash.clone() };
        let file = BufReader::with_capacity(BUFFER_BYTES, file);
        let inner: Box<dyn BufRead + Send> = match compression {
            Compression::None | Compression::Parquet => Box::new(file),
            Compression::Gzip => buffered(GzipReader::new(file)),
            Compression::Zstandard => {
                buffered(zstd::stream::read::Decoder::with_buffer(file).map_err(|source| Error::io(path, source))?)
            }
            Compression::Bzip2 => buffered(bzip2::bufread::MultiBzDecoder::new(file)),
            Compression::Xz => buffered(liblzma::bufread::XzDecoder::new_multi_decoder(file)),
        };
        Ok(opened(inner, false))
    }

    /// Size and hash of the stored file, of a reader that hashes and has read all of it in turn (Parquet is not so read).
    pub fn written(&self) -> Option<Written> {
        let is_whole = !self.is_parquet && self.stored_bytes() == self.size_bytes;
        let hash = self.hash.lock().unwrap_or_else(PoisonError::into_inner).clone().filter(|_| is_whole)?;
        Some(Written { size_bytes: self.size_bytes, sha256: hex(&hash.finalize()) })
    }

    /// Fails unless the file has this size: the one that it had when it was looked at before.
    pub fn of_size(self, size_bytes: u64) -> Result<LineReader> {
        match self.watch.size_bytes == size_bytes {
            true => Ok(self),
            false => Err(changed(&self.path, size_bytes, self.watch.size_bytes)),
        }
    }

    /// The next line and its number, or `None` at the end of the file.
    pub fn next_numbered(&mut self) -> Result<Option<(u64, &[u8])>> {
        match self.next_line()?.is_some() {
            true => Ok(Some((self.line, &self.buffer))),
            false => Ok(None),
        }
    }

    /// The next line without its line end, or `None` at the end of the file.
    pub fn next_line(&mut self) -> Result<Option<&[u8]>> {
        loop {
            self.buffer.clear();
            match self.inner.read_until(b'\n', &mut self.buffer) {
                Ok(0) => {
                    self.watch.check(&self.path)?;
                    let written = self.written();
                    return self.at_end.take().map_or(Ok(()), |call| call(written)).map(|()| None);
                }
                Ok(_) => {}
                Err(source) => return Err(self.read_error(&source)),
            }
            self.line += 1;
            if self.buffer.last() == Some(&b'\n') {
                self.buffer.pop();
            }
            if self.line == 1 && self.buffer.starts_with(BYTE_ORDER_MARK) {
                self.buffer.drain(..BYTE_ORDER_MARK.len());
            }
            let Some(sieve) = &mut self.sieve else { break };
            if sieve.takes(&mut self.buffer, &Place { path: &self.path, line: self.line })? {
                break;
            }
        }
        Ok(Some(&self.buffer))
    }

    fn read_error(&self, source: &io::Error) -> Error {
        if let Some(bad) = source.get_ref().and_then(|inner| inner.downcast_ref::<BadValue>()) {
            let message = bad.to_string();
            return Error::format(&self.path, self.line + 1, Some(&bad.column), Code::InvalidValue, message);
        }
        match source.kind() {
            io::ErrorKind::InvalidData if self.is_parquet => parquet_error(&self.path, source),
            io::ErrorKind::UnexpectedEof => {
                let message = "the compressed file ends early; expected the end of its stream";
                Error::format(&self.path, None, None, Code::Truncated, message)
            }
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::Other => {
                let message = format!("the compressed file is damaged ({source}); expected what its extension says");
                Error::format(&self.path, None, None, Code::InvalidValue, message)
            }
            kind => Error::Io { path: self.path.clone(), source: io::Error::new(kind, source.to_string()) },
        }
    }

    /// Number of the line that `next_line` gave last, 1-based; 0 before the first.
    pub fn line(&self) -> u64 {
        self.line
    }

    /// Where the line that `next_line` gave last is.
    pub fn place(&self) -> Place<'_> {
        Place { path: &self.path, line: self.line }
    }

    /// The name used in messages.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Bytes taken from the file so far, as stored.
    pub fn stored_bytes(&self) -> u64 {
        self.stored_bytes.load(Ordering::Relaxed)
    }
}

fn parquet_error(name: &str, reason: &io::Error) -> Error {
    let message = format!("the Parquet file is damaged or not one ({reason}); expected rows in columns");
    Error::format(name, None, None, Code::InvalidValue, message)
}

fn buffered(reader: impl Read + Send + 'static) -> Box<dyn BufRead + Send> {
    Box::new(BufReader::with_capacity(BUFFER_BYTES, reader))
}

/// Size and sha256 of a finished file, as manifests list them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// As stored.
    pub size_bytes: u64,
    /// 64 lower-case hexadecimal digits, of the stored bytes.
    pub sha256: String,
}

/// Digits of a finished hash.
pub fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

struct HashingFile {
    file: File,
    hash: Sha256,
    size_bytes: u64,
}

impl Write for HashingFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.size_bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

enum Encoder {
    None(io::BufWriter<HashingFile>),
    Gzip(GzipWriter<HashingFile>),
    Zstandard(zstd::stream::write::Encoder<'static, HashingFile>),
    Bzip2(bzip2::write::BzEncoder<HashingFile>),
    Xz(liblzma::write::XzEncoder<HashingFile>),
    Parquet(Box<ParquetWriter<HashingFile>>),
}

/// Writes a file that appears, whole, when [`AtomicWriter::finish`] returns, and never otherwise.
///
/// The bytes depend only on what is written: gzip headers carry neither time nor name.
pub struct AtomicWriter {
    target: PathBuf,
    temporary: PathBuf,
    encoder: Option<Encoder>,
}

impl AtomicWriter {
    /// Opens `target`, packed as its last extension says; makes the directories above it.
    pub fn create(target: &Path) -> Result<AtomicWriter> {
        AtomicWriter::create_as(target, Compression::of(target))
    }

    /// Opens `target`, packed as requested.
    pub fn create_as(target: &Path, compression: Compression) -> Result<AtomicWriter> {
        let directory = target.parent().unwrap_or(Path::new(""));
        fs::create_dir_all(directory).map_err(|source| Error::io(directory, source))?;
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let temporary = directory.join(format!(".{name}.partial"));
        let fail = |source| Error::io(&temporary, source);
        let file = File::create(&temporary).map_err(fail)?;
        let file = HashingFile { file, hash: Sha256::new(), size_bytes: 0 };
        let encoder = match compression {
            Compression::None => Encoder::None(io::BufWriter::with_capacity(BUFFER_BYTES, file)),
            Compression::Gzip => Encoder::Gzip(GzipWriter::new(file).map_err(fail)?),
            Compression::Zstandard => Encoder::Zstandard(zstd::stream::write::Encoder::new(file, 3).map_err(fail)?),
            Compression::Bzip2 => Encoder::Bzip2(bzip2::write::BzEncoder::new(file, bzip2::Compression::best())),
            Compression::Xz => Encoder::Xz(liblzma::write::XzEncoder::new(file, 6)),
            Compression::Parquet => Encoder::Parquet(Box::new(ParquetWriter::new(file).map_err(fail)?)),
        };
        Ok(AtomicWriter { target: target.to_owned(), temporary, encoder: Some(encoder) })
    }

    /// Ends the stream, syncs it to disk and gives it its name.
    pub fn finish(mut self) -> Result<Written> {
        let fail = |source| Error::io(&self.temporary, source);
        let Some(encoder) = self.encoder.take() else {
            return Err(fail(io::Error::other("finished twice")));
        };
        let file = match encoder {
            Encoder::None(writer) => writer.into_inner().map_err(|error| fail(error.into_error()))?,
            Encoder::Gzip(writer) => writer.finish().map_err(fail)?,
            Encoder::Zstandard(writer) => writer.finish().map_err(fail)?,
            Encoder::Bzip2(writer) => writer.finish().map_err(fail)?,
            Encoder::Xz(writer) => writer.finish().map_err(fail)?,
            Encoder::Parquet(writer) => writer.finish().map_err(fail)?,
        };
        file.file.sync_all().map_err(fail)?;
        fs::rename(&self.temporary, &self.target).map_err(|source| Error::io(&self.target, source))?;
        Ok(Written { size_bytes: file.size_bytes, sha256: hex(&file.hash.finalize()) })
    }
}

impl Write for AtomicWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.encoder {
            Some(Encoder::None(writer)) => writer.write(bytes),
            Some(Encoder::Gzip(writer)) => writer.write(bytes),
            Some(Encoder::Zstandard(writer)) => writer.write(bytes),
            Some(Encoder::Bzip2(writer)) => writer.write(bytes),
            Some(Encoder::Xz(writer)) => writer.write(bytes),
            Some(Encoder::Parquet(writer)) => writer.write(bytes),
            None => Err(io::Error::other("finished already")),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AtomicWriter {
    /// Writes all of `bytes`; the error names the file.
    pub fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.write_all(bytes).map_err(|source| Error::io(&self.target, source))
    }
}

impl Drop for AtomicWriter {
    fn drop(&mut self) {
        // after `finish` the temporary name is gone and this does nothing
        drop(self.encoder.take());
        let _ = fs::remove_file(&self.temporary);
    }
}

#[cfg(test)]
mod tests;
