//! Rows of a file in batches, each with the rows of the files that go along with it.

use super::all;
use super::pass::Source;
use crate::document::Place;
use crate::error::{Code, Error, Result};
use crate::jsonl::{LineReader, SkippedRow, Written};
use crate::progress::Progress;

/// So much that a hand-over between threads costs nothing, and so little that what is made of it is still in the cache when
/// it is kept.
const BATCH_ROWS: usize = 64;
const BATCH_BYTES: usize = 1 << 18;

/// Reads a file of documents. A companion is a file with a row for each of them, like their attributes.
pub struct Rows {
    reader: LineReader,
    companions: Vec<LineReader>,
    count: u64,
    stored_bytes: u64,
    ended: bool,
}

/// Some consecutive rows.
#[derive(Default)]
pub struct Batch {
    bytes: Vec<u8>,
    /// Line of each row: some lines may have been skipped.
    lines: Vec<u64>,
    /// Where rows end in `bytes`: each document, then its companions.
    ends: Vec<usize>,
    companions: usize,
    /// Rows of the file before these.
    before: u64,
    /// Why the file ends here.
    pub error: Option<Error>,
    /// After the last rows of a file: its skipped rows.
    pub end: Option<Vec<SkippedRow>>,
}

/// One row of a batch.
#[derive(Clone, Copy)]
pub struct BatchRow<'b> {
    batch: &'b Batch,
    index: usize,
}

impl Rows {
    /// From the first row on.
    pub fn new(reader: LineReader, companions: Vec<LineReader>) -> Rows {
        Rows { reader, companions, count: 0, stored_bytes: 0, ended: false }
    }

    fn add_row(&mut self, batch: &mut Batch) -> Result<()> {
        let row = batch.before + batch.lines.len() as u64 + 1;
        let Some(line) = self.reader.next_line()? else {
            self.ended = true;
            let documents = row - 1;
            for companion in &mut self.companions {
                if companion.next_line()?.is_some() {
                    let path = self.reader.path();
                    let message =
                        format!("there is an extra row; expected none, since {path} has {documents} documents");
                    return Err(Error::format(companion.path(), row, None, Code::Misaligned, message));
                }
            }
            return Ok(());
        };
        let start = batch.bytes.len();
        batch.bytes.extend_from_slice(line);
        let mut ends = vec![batch.bytes.len()];
        for companion in &mut self.companions {
            let Some(line) = companion.next_line()? else {
                batch.bytes.truncate(start);
                let message = format!("the file ends; expected a row for every document of {}", self.reader.path());
                return Err(Error::format(companion.path(), row, None, Code::Misaligned, message));
            };
            batch.bytes.extend_from_slice(line);
            ends.push(batch.bytes.len());
        }
        batch.lines.push(self.reader.line());
        batch.ends.extend(ends);
        Ok(())
    }

    /// Size and hash of the stored file, as [`LineReader::written`].
    pub fn written(&self) -> Option<Written> {
        self.reader.written()
    }

    /// Skipped rows so far.
    pub fn skipped(&self) -> &[SkippedRow] {
        self.reader.skipped()
    }
}

impl Source for Rows {
    type Batch = Batch;

    /// What is wrong with the file comes after the rows before it.
    fn read(&mut self, progress: &Progress) -> Result<Option<Batch>> {
        if self.ended {
            return Ok(None);
        }
        let mut batch = Batch { companions: self.companions.len(), before: self.count, ..Batch::default() };
        while batch.lines.len() < BATCH_ROWS && batch.bytes.len() < BATCH_BYTES && !self.ended {
            if let Err(error) = self.add_row(&mut batch) {
                batch.error = Some(error);
                self.ended = true;
            }
        }
        self.count += batch.lines.len() as u64;
        progress.add_documents(batch.lines.len() as u64);
        progress.add_bytes(self.reader.stored_bytes() - self.stored_bytes);
        self.stored_bytes = self.reader.stored_bytes();
        if self.ended {
            progress.add_file();
            batch.end = Some(self.reader.skipped().to_vec());
        }
        Ok(Some(batch))
    }
}

impl Batch {
    /// Of rows that no file has: their lines, and what is in them.
    pub fn of(rows: Vec<(u64, Vec<u8>)>) -> Batch {
        let mut batch = Batch::default();
        for (line, row) in rows {
            batch.bytes.extend_from_slice(&row);
            batch.lines.push(line);
            batch.ends.push(batch.bytes.len());
        }
        batch
    }

    /// What `make` gives for every row, or all that is wrong.
    pub fn all<T>(mut self, make: impl Fn(BatchRow<'_>) -> Result<T>) -> Result<Vec<T>> {
        let error = self.error.take();
        all(self.rows().map(make).chain(error.map(Err)).collect())
    }

    /// In order.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = BatchRow<'_>> {
        (0..self.lines.len()).map(|index| self.row(index))
    }

    /// The row at a position.
    pub fn row(&self, index: usize) -> BatchRow<'_> {
        BatchRow { batch: self, index }
    }
}

impl<'b> BatchRow<'b> {
    fn piece(&self, piece: usize) -> &'b [u8] {
        let at = self.index * (self.batch.companions + 1) + piece;
        let start = at.checked_sub(1).map_or(0, |before| self.batch.ends[before]);
        &self.batch.bytes[start..self.batch.ends[at]]
    }

    /// Position in the batch.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Position in the file, without skipped rows.
    pub fn number(&self) -> u64 {
        self.batch.before + self.index as u64
    }

    /// The document.
    pub fn document(&self) -> &'b [u8] {
        self.piece(0)
    }

    /// The row of a companion.
    pub fn companion(&self, index: usize) -> &'b [u8] {
        self.piece(index + 1)
    }

    /// The place of the document.
    pub fn place<'p>(&self, path: &'p str) -> Place<'p> {
        Place { path, line: self.batch.lines[self.index] }
    }

    /// Where the rows of companions stand: skipped documents have none.
    pub fn companion_place<'p>(&self, path: &'p str) -> Place<'p> {
        Place { path, line: self.number() + 1 }
    }
}
