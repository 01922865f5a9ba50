//! Lines in batches, so that many threads can read them while one decides.

use crate::document::Place;
use crate::error::Result;
use crate::jsonl::LineReader;

/// The keys of many n-grams take several times as much, and what is asked soon should still be in the cache.
const BATCH_BYTES: usize = 1 << 20;
const BATCH_LINES: usize = 1 << 14;

/// Some consecutive lines of a file.
pub struct Batch {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    /// line numbers; some lines may have been skipped
    numbers: Vec<u64>,
}

impl Batch {
    /// The next lines of `reader`; an empty batch at its end.
    pub fn read(reader: &mut LineReader) -> Result<Self> {
        let (mut bytes, mut ends, mut numbers) = (Vec::new(), Vec::new(), Vec::new());
        while bytes.len() < BATCH_BYTES && ends.len() < BATCH_LINES {
            let Some(line) = reader.next_line()? else {
                break;
            };
            bytes.extend_from_slice(line);
            ends.push(bytes.len());
            numbers.push(reader.line());
        }
        Ok(Self { bytes, ends, numbers })
    }

    /// Number of lines.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether the file has ended.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// A line and where it stands.
    pub fn line<'a>(&'a self, index: usize, path: &'a str) -> (&'a [u8], Place<'a>) {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        (&self.bytes[start..self.ends[index]], Place { path, line: self.numbers[index] })
    }
}
