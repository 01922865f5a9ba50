//! Where documents go: straight into the output files, or first into rows that are shuffled later.

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::jsonl::AtomicWriter;

/// One of the files that a document can go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// it is dropped
    Dropped,
    /// it is kept, in this part of the output
    Part(usize),
}

/// Documents and bytes of text in a finished file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileCounts {
    /// rows
    pub documents: u64,
    /// of their texts
    pub text_bytes: u64,
}

/// Takes documents as lines.
pub trait Sink: Send {
    /// Takes a line; `place` is its place in a shuffled output.
    fn put(&mut self, destination: Destination, place: u64, line: &[u8], text_bytes: u64) -> Result<()>;
}

/// A file and what is in it so far.
pub struct Output {
    /// not yet finished
    pub writer: AtomicWriter,
    /// of what was written
    pub counts: FileCounts,
}

/// The files of a shard.
pub struct Outputs {
    /// one for each part; one, where nothing is split
    pub kept: Vec<Output>,
    /// those that are dropped, if anybody wants them
    pub dropped: Option<Output>,
}

impl Sink for Outputs {
    fn put(&mut self, destination: Destination, _place: u64, line: &[u8], text_bytes: u64) -> Result<()> {
        let output = match destination {
            Destination::Dropped => self.dropped.as_mut(),
            Destination::Part(part) => self.kept.get_mut(part),
        };
        let Some(output) = output else { return Ok(()) };
        output.counts.documents += 1;
        output.counts.text_bytes += text_bytes;
        output.writer.put(line)
    }
}

/// Notes for a survey are in the order of the input.
impl Sink for AtomicWriter {
    fn put(&mut self, _destination: Destination, _place: u64, note: &[u8], _text_bytes: u64) -> Result<()> {
        AtomicWriter::put(self, note)
    }
}
