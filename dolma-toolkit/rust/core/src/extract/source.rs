//! What is in an input file: an archive, JSON lines with HTML, or one page.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use super::members::Members;
use super::reason::{Problem, Reason};
use super::records::{Headers, Kind, Next, Record, Records};
use crate::error::{Code, Error, Result};
use crate::jsonl::{Compression, LineReader};
use crate::progress::Progress;
use crate::run::{Files, Lease, Source};

/// So much that a process has work for a while, and so little that every process has some.
const BATCH_ITEMS: usize = 16;
const BATCH_BYTES: usize = 1 << 20;

/// What the `warcinfo` record before a record says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Info {
    pub id: String,
    pub date: String,
}

/// A part of an input that may become a document.
#[derive(Debug)]
pub enum Item {
    Record(Record, Arc<Info>),
    /// A line of JSON.
    Row(u64, Vec<u8>),
    /// A file that is one page.
    Page(Vec<u8>),
    Skipped(Reason),
    Bad(Problem),
}

enum Content {
    Records(Box<Records>, Arc<Info>),
    Rows(Box<LineReader>),
    Page(Option<Vec<u8>>),
    Bad(Option<Problem>),
}

/// Reads an input file.
pub struct Items {
    path: String,
    content: Content,
    max_bytes: u64,
    stored_bytes: u64,
    ended: bool,
    _lease: Lease,
}

impl Items {
    /// Opens a file. Its first bytes tell what it is.
    pub fn open(files: &Files, path: &Path, name: &str, max_bytes: u64) -> Result<Items> {
        let lease = files.need(path)?;
        let content = content(path, name, max_bytes)?;
        Ok(Items { path: name.to_owned(), content, max_bytes, stored_bytes: 0, ended: false, _lease: lease })
    }

    fn next(&mut self) -> Result<Option<Item>> {
        match &mut self.content {
            Content::Records(records, info) => {
                let next = records.next().map_err(|error| Error::io(Path::new(&self.path), error))?;
                Ok(match next {
                    Next::End => None,
                    Next::Bad(problem) => Some(Item::Bad(problem)),
                    Next::Passed => Some(Item::Skipped(Reason::RecordType)),
                    Next::Record(record) if record.is("warcinfo") => {
                        *info = Arc::new(info_of(&record.headers));
                        return self.next();
                    }
                    Next::Record(record) => Some(Item::Record(record, info.clone())),
                })
            }
            Content::Rows(reader) => {
                let next = reader.line() + 1;
                match reader.next_numbered() {
                    Ok(None) => Ok(None),
                    Ok(Some((line, row))) if row.len() as u64 > self.max_bytes => {
                        Ok(Some(Item::Bad(too_large(line, row.len() as u64, self.max_bytes))))
                    }
                    Ok(Some((line, row))) => Ok(Some(Item::Row(line, row.to_vec()))),
                    Err(Error::Format(error)) if error.code != Code::WrongSize => {
                        self.content = Content::Bad(None);
                        let reason = if error.code == Code::Truncated { Reason::Truncated } else { Reason::Damaged };
                        Ok(Some(Item::Bad(Problem { offset: next, reason, message: error.message })))
                    }
                    Err(error) => Err(error),
                }
            }
            Content::Page(page) => Ok(page.take().map(Item::Page)),
            Content::Bad(problem) => Ok(problem.take().map(Item::Bad)),
        }
    }

    fn taken(&self) -> u64 {
        match &self.content {
            Content::Records(records, _) => records.stored_bytes(),
            Content::Rows(reader) => reader.stored_bytes(),
            Content::Page(_) | Content::Bad(_) => 0,
        }
    }
}

impl Source for Items {
    type Batch = Vec<Item>;

    fn read(&mut self, progress: &Progress) -> Result<Option<Vec<Item>>> {
        if self.ended {
            return Ok(None);
        }
        let (mut batch, mut bytes) = (Vec::with_capacity(BATCH_ITEMS), 0);
        while batch.len() < BATCH_ITEMS && bytes < BATCH_BYTES {
            let Some(item) = self.next()? else {
                self.ended = true;
                progress.add_file();
                break;
            };
            bytes += match &item {
                Item::Record(record, _) => record.block.len(),
                Item::Row(_, bytes) | Item::Page(bytes) => bytes.len(),
                Item::Skipped(_) | Item::Bad(_) => 0,
            };
            batch.push(item);
        }
        let taken = self.taken().max(self.stored_bytes);
        progress.add_documents(batch.len() as u64);
        progress.add_bytes(taken - self.stored_bytes);
        self.stored_bytes = taken;
        Ok(Some(batch))
    }
}

fn info_of(headers: &Headers) -> Info {
    let text = |name: &str| headers.get(name).unwrap_or_default().to_owned();
    Info { id: text("WARC-Record-ID"), date: text("WARC-Date") }
}

fn too_large(offset: u64, size: u64, limit: u64) -> Problem {
    let message = format!("it has {size} bytes; expected at most {limit} (max_record_bytes)");
    Problem { offset, reason: Reason::TooLarge, message }
}

/// Looks at the first bytes that are no white space.
fn content(path: &Path, name: &str, max_bytes: u64) -> Result<Content> {
    let fail = |error| Error::io(path, error);
    let is_empty = File::open(path).and_then(|file| file.metadata()).map_err(fail)?.len() == 0;
    if is_empty {
        let message = "the file has no bytes; expected records, rows or a page".to_owned();
        return Ok(Content::Bad(Some(Problem { offset: 0, reason: Reason::Truncated, message })));
    }
    let first = match first_bytes(path) {
        Ok(first) => first,
        // the records behind the damage are searched for
        Err(error) if is_damage(&error) => b"WARC/".to_vec(),
        Err(error) => return Err(fail(error)),
    };
    let start = first.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&first).trim_ascii_start();
    let kind = match () {
        () if start.starts_with(b"WARC/") => Kind::Warc,
        () if start.starts_with(b"filedesc:") => Kind::Arc,
        () if start.starts_with(b"{") => {
            let reader = LineReader::open_as(path, name, packing(path).map_err(fail)?)?;
            return Ok(Content::Rows(Box::new(reader)));
        }
        () if start.starts_with(b"<") || is_page(name) => {
            let mut page = Vec::new();
            let members = Members::open(path).map_err(fail)?;
            let read = All(members).take(max_bytes + 1).read_to_end(&mut page);
            return Ok(match read {
                Ok(_) if page.len() as u64 > max_bytes => {
                    Content::Bad(Some(too_large(0, page.len() as u64, max_bytes)))
                }
                Ok(_) => Content::Page(Some(page)),
                Err(error) if is_damage(&error) => {
                    let message = format!("the packed page is damaged ({error}); expected gzip or zstd");
                    Content::Bad(Some(Problem { offset: 0, reason: Reason::Damaged, message }))
                }
                Err(error) => return Err(fail(error)),
            });
        }
        () => {
            let shown = String::from_utf8_lossy(&start[..start.len().min(24)]).into_owned();
            let message = format!("the file begins with {shown:?}; expected WARC, ARC, HTML or JSON lines with HTML");
            return Ok(Content::Bad(Some(Problem { offset: 0, reason: Reason::UnknownFormat, message })));
        }
    };
    let records = Records::open(path, kind, max_bytes).map_err(fail)?;
    Ok(Content::Records(Box::new(records), Arc::default()))
}

fn is_damage(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, InvalidInput, Other, UnexpectedEof};
    matches!(error.kind(), InvalidData | InvalidInput | Other | UnexpectedEof)
}

fn is_page(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let bare = [".gz", ".zst", ".bz2", ".xz"].iter().find_map(|packing| name.strip_suffix(packing)).unwrap_or(&name);
    [".html", ".htm", ".xhtml"].iter().any(|extension| bare.ends_with(extension))
}

fn first_bytes(path: &Path) -> io::Result<Vec<u8>> {
    let mut first = Vec::new();
    Members::open(path)?.take(1 << 10).read_to_end(&mut first)?;
    Ok(first)
}

/// By the first bytes, since the first bytes decided the rest.
fn packing(path: &Path) -> io::Result<Compression> {
    let mut first = Vec::new();
    File::open(path)?.take(4).read_to_end(&mut first)?;
    Ok(match first[..] {
        [0x1f, 0x8b, ..] => Compression::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd] => Compression::Zstandard,
        [b'B', b'Z', b'h', ..] => Compression::Bzip2,
        [0xfd, b'7', ..] => Compression::Xz,
        _ => Compression::None,
    })
}

/// All members of a file, one after the other.
struct All(Members);

impl Read for All {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.0.read(buffer)?;
            if read > 0 || !self.0.next()? {
                return Ok(read);
            }
        }
    }
}
