//! Documents in an order that is as good as random, without holding them all in memory.
//!
//! Every document has a place, a hash of the seed and of what it is; the output is in the order of places. First each
//! input is read into a file of rows, in runs that are sorted by place; then each output file is put together from its range
//! of places, a bucket at a time: the rows of the bucket are picked from all runs and sorted. So the order depends on the
//! seed and the documents alone.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::funnel::StreamFunnel;
use super::output::{Destination, Sink};
use super::settings::Stream;
use crate::error::{Code, Error, Result};
use crate::jsonl::{AtomicWriter, Compression};
use crate::manifest::{canonical_bytes, write_file};

/// Bytes of rows that are sorted at once, in each thread.
const RUN_BYTES: usize = 32 << 20;
/// Bytes of rows that a bucket is meant to have.
const BUCKET_BYTES: u64 = 64 << 20;
/// How much larger rows are than their compressed file, at most, for nearly all text.
const EXPANSION: u64 = 8;
/// Of a row: place, destination, bytes of its text, bytes of the line.
const HEADER_BYTES: usize = 32;

/// How the places of a stream are divided.
#[derive(Debug, Clone, Copy)]
pub struct Buckets {
    shards: u64,
    per_shard: u64,
}

impl Buckets {
    /// For rows that are about as many bytes as the stream's inputs have.
    pub fn of(stream: &Stream) -> Self {
        let inputs = stream.shards.iter().flat_map(|shard| &shard.inputs);
        let stored: u64 = inputs.map(|input| input.path.metadata().map_or(0, |metadata| metadata.len())).sum();
        let rate = stream.rules.sample.as_ref().map_or(1.0, |sample| sample.rate).max(1.0);
        let shards = stream.shards.len().max(1) as u64;
        let bytes = (stored.saturating_mul(EXPANSION) as f64 * rate) as u64;
        Self { shards, per_shard: (bytes / shards / BUCKET_BYTES).max(1) }
    }

    /// Positions of the buckets of a shard.
    pub fn of_shard(&self, shard: u64) -> std::ops::Range<u64> {
        shard * self.per_shard..(shard + 1) * self.per_shard
    }

    fn of_place(&self, place: u64) -> u64 {
        ((u128::from(place) * u128::from(self.shards * self.per_shard)) >> 64) as u64
    }
}

/// A piece of a file of rows.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Slice {
    bucket: u64,
    start: u64,
    end: u64,
}

/// A finished file of rows.
#[derive(Debug, Serialize, Deserialize)]
pub struct Rows {
    /// of the input that it was made from
    pub funnel: StreamFunnel,
    path: PathBuf,
    slices: Vec<Slice>,
}

impl Rows {
    /// What an earlier run left at `path`; nothing if it was stopped before it was whole.
    pub fn read(path: &Path) -> Option<Self> {
        let bytes = fs::read(index_path(path)).ok()?;
        serde_json::from_slice::<Self>(&bytes).ok().filter(|rows| rows.path == path && path.exists())
    }
}

fn index_path(path: &Path) -> PathBuf {
    path.with_extension("index.json")
}

/// Writes a file of rows.
pub struct RowWriter {
    path: PathBuf,
    writer: AtomicWriter,
    buckets: Buckets,
    rows: Vec<u8>,
    /// place and where the row begins
    order: Vec<(u64, usize)>,
    written_bytes: u64,
    slices: Vec<Slice>,
}

impl RowWriter {
    /// Begins a file.
    pub fn create(path: &Path, buckets: Buckets) -> Result<Self> {
        Ok(Self {
            path: path.to_path_buf(),
            writer: AtomicWriter::create_as(path, Compression::None)?,
            buckets,
            rows: Vec::new(),
            order: Vec::new(),
            written_bytes: 0,
            slices: Vec::new(),
        })
    }

    /// Ends it, and notes next to it that it is whole.
    pub fn finish(mut self, funnel: StreamFunnel) -> Result<Rows> {
        self.end_run()?;
        self.writer.finish()?;
        let rows = Rows { funnel, path: self.path, slices: self.slices };
        write_file(&index_path(&rows.path), &canonical_bytes(&json!(rows)))?;
        Ok(rows)
    }

    fn end_run(&mut self) -> Result<()> {
        self.order.sort_unstable();
        for (place, start) in self.order.drain(..) {
            let length = Header::read(&self.rows[start..]).map_or(0, |header| header.row_bytes());
            self.writer.put(&self.rows[start..start + length])?;
            let bucket = self.buckets.of_place(place);
            let (start, end) = (self.written_bytes, self.written_bytes + length as u64);
            self.written_bytes = end;
            match self.slices.last_mut() {
                Some(slice) if slice.bucket == bucket && slice.end == start => slice.end = end,
                _ => self.slices.push(Slice { bucket, start, end }),
            }
        }
        self.rows.clear();
        Ok(())
    }
}

impl Sink for RowWriter {
    fn put(&mut self, destination: Destination, place: u64, line: &[u8], text_bytes: u64) -> Result<()> {
        self.order.push((place, self.rows.len()));
        let destination = match destination {
            Destination::Dropped => 0,
            Destination::Part(part) => part as u64 + 1,
        };
        for number in [place, destination, text_bytes, line.len() as u64] {
            self.rows.extend_from_slice(&number.to_le_bytes());
        }
        self.rows.extend_from_slice(line);
        if self.rows.len() >= RUN_BYTES {
            self.end_run()?;
        }
        Ok(())
    }
}

struct Header {
    place: u64,
    destination: Destination,
    text_bytes: u64,
    line_bytes: usize,
}

impl Header {
    fn read(bytes: &[u8]) -> Option<Self> {
        let mut numbers = bytes.get(..HEADER_BYTES)?.chunks_exact(8).map(|chunk| {
            let mut number = [0; 8];
            number.copy_from_slice(chunk);
            u64::from_le_bytes(number)
        });
        let mut next = || numbers.next();
        let (place, destination, text_bytes, line_bytes) = (next()?, next()?, next()?, next()? as usize);
        let destination =
            destination.checked_sub(1).map_or(Destination::Dropped, |part| Destination::Part(part as usize));
        let header = Self { place, destination, text_bytes, line_bytes };
        (bytes.len() - HEADER_BYTES >= line_bytes).then_some(header)
    }

    fn row_bytes(&self) -> usize {
        HEADER_BYTES + self.line_bytes
    }
}

/// Puts the rows of a bucket into `sink`, in order. `inputs` are in the order of the stream.
pub fn put_bucket(bucket: u64, inputs: &[Rows], sink: &mut dyn Sink) -> Result<()> {
    let mut bytes = Vec::new();
    for input in inputs {
        let fail = |source| Error::io(&input.path, source);
        let slices: Vec<&Slice> = input.slices.iter().filter(|slice| slice.bucket == bucket).collect();
        if slices.is_empty() {
            continue;
        }
        let mut file = File::open(&input.path).map_err(fail)?;
        for slice in slices {
            let start = bytes.len();
            bytes.resize(start + (slice.end - slice.start) as usize, 0);
            file.seek(SeekFrom::Start(slice.start)).map_err(fail)?;
            file.read_exact(&mut bytes[start..]).map_err(fail)?;
        }
    }
    let (mut rows, mut start) = (Vec::new(), 0);
    while start < bytes.len() {
        let Some(header) = Header::read(&bytes[start..]) else {
            let path = inputs.first().map(|rows| rows.path.display().to_string()).unwrap_or_default();
            let message = "rows to be shuffled end early; expected what was written there";
            return Err(Error::format(path, None, None, Code::Truncated, message));
        };
        let end = start + header.row_bytes();
        rows.push((header, start + HEADER_BYTES..end));
        start = end;
    }
    // stable, so that of equal places the first of the input stays first
    rows.sort_by_key(|(header, _)| header.place);
    rows.into_iter()
        .try_for_each(|(header, line)| sink.put(header.destination, header.place, &bytes[line], header.text_bytes))
}
