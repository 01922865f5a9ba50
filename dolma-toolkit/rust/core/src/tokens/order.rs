//! The order of documents: a function of the seed, the names of the files and the lines in them.
//!
//! Files are put into a seeded order. `ring_size` of them are open at a time and give a document in turn (or in
//! proportion to their sizes); each `batch_size` documents so gathered are put into a seeded order of their own.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::ahead::{EncodedReader, Encoding};
use super::encode::Encoded;
use super::fields::Fields;
use super::plan::Plan;
use crate::error::Result;
use crate::jsonl::{LineReader, RowSieve};
use crate::progress::Progress;
use crate::run::Files;

/// Text that one window holds at most, whatever the batch size, so that books do not fill the memory.
const WINDOW_TEXT_BYTES: usize = 256 << 20;

/// One document, stripped.
pub struct Document {
    /// Index of the file.
    pub file: usize,
    /// 1-based.
    pub line: u64,
    /// As the row says.
    pub id: String,
    /// Of the text, UTF-8.
    pub text_bytes: u64,
    pub body: Body,
}

pub enum Body {
    /// Without white space at its ends.
    Text(String),
    Encoded(Encoded),
}

/// Files that share a series of shards, each series in the order in which it is read.
pub fn groups(plan: &Plan) -> Vec<Vec<usize>> {
    let mut files: Vec<usize> = (0..plan.files.len()).collect();
    files.sort_by_key(|&file| (file_key(plan, file), file));
    let size = plan.files_per_process.unwrap_or(files.len()).max(1);
    files.chunks(size).map(<[usize]>::to_vec).collect()
}

fn file_key(plan: &Plan, file: usize) -> u64 {
    xxh3_64_with_seed(plan.files[file].relative.as_bytes(), plan.seed)
}

fn document_key(file_key: u64, line: u64, seed: u64) -> u64 {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&file_key.to_le_bytes());
    bytes[8..].copy_from_slice(&line.to_le_bytes());
    xxh3_64_with_seed(&bytes, seed)
}

/// White space as Python's `str.strip` sees it: Unicode's, and the four separators of ASCII.
pub fn strip(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || ('\x1c'..='\x1f').contains(&c))
}

struct OpenFile {
    index: usize,
    key: u64,
    size_bytes: u64,
    rows: Rows,
}

enum Rows {
    Lines(LineReader),
    Encoded(EncodedReader),
}

impl Rows {
    /// The next document of the file at `file`; its text may be empty.
    fn next(&mut self, file: usize, fields: &Fields) -> Result<Option<Document>> {
        let reader = match self {
            Rows::Encoded(reader) => return reader.next(file),
            Rows::Lines(reader) => reader,
        };
        let Some(line) = reader.next_line()?.map(<[u8]>::to_vec) else { return Ok(None) };
        let (id, text) = fields.read(&line, &reader.place())?;
        let stripped = strip(&text);
        let text = if stripped.len() == text.len() { text } else { stripped.to_owned() };
        let text_bytes = text.len() as u64;
        Ok(Some(Document { file, line: reader.line(), id, text_bytes, body: Body::Text(text) }))
    }
}

/// Gives the documents of a group, window by window.
pub struct Stream<'a> {
    plan: &'a Plan,
    progress: &'a Progress,
    source: &'a Files,
    /// where documents are encoded already
    encoding: Option<&'a Encoding<'a>>,
    waiting: std::vec::IntoIter<usize>,
    ring: Vec<OpenFile>,
    turn: usize,
    draws: u64,
    /// skipped rows were counted when the files were checked
    sieve: RowSieve,
    /// what is gathered of the next window, with the places in it
    window: Vec<(u64, Document)>,
    window_text_bytes: usize,
}

impl<'a> Stream<'a> {
    /// Over files in the given order.
    pub fn new(
        plan: &'a Plan,
        encoding: Option<&'a Encoding<'a>>,
        source: &'a Files,
        files: Vec<usize>,
        progress: &'a Progress,
    ) -> Stream<'a> {
        let skipped = if plan.rows.skip_bad_rows > 0 { u64::MAX } else { 0 };
        Stream {
            plan,
            encoding,
            progress,
            source,
            sieve: plan.sieve(skipped),
            waiting: files.into_iter(),
            ring: Vec::new(),
            turn: 0,
            draws: 0,
            window: Vec::new(),
            window_text_bytes: 0,
        }
    }

    /// Reads so many documents of the next window, unless it is full before.
    pub fn gather(&mut self, documents: usize) -> Result<()> {
        let most = self.window.len().saturating_add(documents).min(self.plan.batch_size.max(1));
        while self.window.len() < most && self.window_text_bytes < WINDOW_TEXT_BYTES {
            let Some((key, document)) = self.next_document()? else { break };
            self.window_text_bytes += document.text_bytes as usize;
            self.window.push((key, document));
        }
        Ok(())
    }

    /// The next window in its final order; empty at the end.
    pub fn next_window(&mut self) -> Result<Vec<Document>> {
        self.gather(usize::MAX)?;
        self.window_text_bytes = 0;
        let mut window = std::mem::take(&mut self.window);
        window.sort_by_key(|(key, document)| (*key, document.file, document.line));
        Ok(window.into_iter().map(|(_, document)| document).collect())
    }

    fn next_document(&mut self) -> Result<Option<(u64, Document)>> {
        loop {
            self.fill_ring()?;
            if self.ring.is_empty() {
                return Ok(None);
            }
            let position = self.position();
            let open = &mut self.ring[position];
            let next = open.rows.next(open.index, &self.plan.fields)?;
            let Some(document) = next else {
                self.progress.add_file();
                self.ring.remove(position);
                // the file behind the one that ended is next
                self.turn = position;
                continue;
            };
            self.turn = position + 1;
            if document.text_bytes == 0 {
                continue;
            }
            return Ok(Some((document_key(open.key, document.line, self.plan.seed), document)));
        }
    }

    fn fill_ring(&mut self) -> Result<()> {
        while self.ring.len() < self.plan.ring_size.max(1) {
            let Some(index) = self.waiting.next() else { break };
            let file = &self.plan.files[index];
            let rows = match self.encoding {
                Some(encoding) => Rows::Encoded(encoding.reader(index)?),
                None => Rows::Lines(file.open(&self.plan.fields, self.source)?.sieved(&self.sieve)),
            };
            let size_bytes = std::fs::metadata(&file.path).map_or(1, |file| file.len().max(1));
            let key = file_key(self.plan, index);
            self.ring.push(OpenFile { index, key, size_bytes, rows });
        }
        Ok(())
    }

    fn position(&mut self) -> usize {
        if !self.plan.sample_ring_prop {
            return self.turn % self.ring.len();
        }
        let total: u64 = self.ring.iter().map(|open| open.size_bytes).sum();
        self.draws += 1;
        let mut left = xxh3_64_with_seed(&self.draws.to_le_bytes(), self.plan.seed) % total;
        for (position, open) in self.ring.iter().enumerate() {
            match left.checked_sub(open.size_bytes) {
                Some(rest) => left = rest,
                None => return position,
            }
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strip_is_pythons() {
        assert_eq!(strip("\u{1c}\u{a0} a b\u{85}\u{3000}\n"), "a b");
        // a zero-width space and a byte order mark are not white space
        assert_eq!(strip("\u{200b}a\u{feff}"), "\u{200b}a\u{feff}");
    }
}
