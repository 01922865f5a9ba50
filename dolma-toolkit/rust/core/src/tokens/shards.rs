//! Pairs of `.npy` and `.csv.gz`, and which of them are finished.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::order::Document;
use super::plan::Oversize;
use super::Dtype;
use crate::document::Place;
use crate::error::{Code, Result};
use crate::formats::table::Row;
use crate::jsonl::{AtomicWriter, Written};
use crate::run::publish::{exclusive, Exclusive};
use crate::run::{Files, Journal, Made};

/// One finished pair.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Shard {
    group: usize,
    number: usize,
    /// Rows of its table.
    pub documents: u64,
    /// Documents whose last row is in it.
    ended: u64,
    /// Rows of the document that goes on in the next shard.
    begun_rows: u64,
    pub tokens: u64,
    pub text_bytes: u64,
    pub npy: Written,
    pub csv: Written,
}

impl Made for Shard {
    fn files(&self, name: &str) -> Vec<(String, &Written)> {
        vec![(format!("{name}.npy"), &self.npy), (format!("{name}.csv.gz"), &self.csv)]
    }
}

/// A series of shards.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    pub index: usize,
    /// Of the group's number within a name.
    pub digits: usize,
    pub dtype: Dtype,
    /// In one shard.
    pub max_tokens: u64,
    /// What to do with a document of more tokens.
    pub oversize: Oversize,
    /// Whether documents begin and end with a token of their own.
    pub bos: Option<u32>,
    pub eos: Option<u32>,
}

impl Group {
    fn name(&self, number: usize) -> String {
        format!("part-{:0digits$}-{number:05}", self.index, digits = self.digits)
    }
}

/// Digits of the group's number in names, as dolma 1.x has it: ⌈log₁₀(groups + 1)⌉.
pub fn digits(groups: usize) -> usize {
    let mut digits = 1;
    while 10usize.pow(digits) < groups + 1 {
        digits += 1;
    }
    digits as usize
}

/// The shards of a destination.
pub struct Shards {
    journal: Journal<Shard>,
    /// With their names, by group and number; no number of a group is missing before another.
    finished: BTreeMap<(usize, usize), (String, Shard)>,
    /// The manifest is there, and it is this run's.
    pub complete: bool,
    /// Found finished.
    pub kept: u64,
    /// Of an unfinished run with other settings or inputs; removed.
    pub discarded: u64,
}

impl Shards {
    /// Looks at what an earlier run left. Other people's shards are an error, as are finished ones of other settings.
    pub fn open(files: &Files, directory: &Path, fingerprint: String) -> Result<Shards> {
        let Exclusive { journal, complete, discarded } =
            exclusive(files, directory, "tokens", fingerprint, &[".npy", ".csv.gz"])?;
        let by_number = |(name, shard): (String, Shard)| ((shard.group, shard.number), (name, shard));
        let mut finished: BTreeMap<_, _> = journal.ours().into_iter().map(by_number).collect();
        // a shard after a missing one cannot be kept: it is not known where its documents begin
        let mut next: BTreeMap<usize, usize> = BTreeMap::new();
        finished.retain(|(group, number), _| {
            let next = next.entry(*group).or_default();
            let is_next = *next == *number;
            *next += usize::from(is_next);
            is_next
        });
        let kept = finished.len() as u64;
        Ok(Shards { journal, finished, complete, kept, discarded })
    }

    /// Documents that end in the finished shards of a group.
    pub fn documents_of(&self, group: usize) -> u64 {
        self.of_group(group).map(|shard| shard.ended).sum()
    }

    fn of_group(&self, group: usize) -> impl DoubleEndedIterator<Item = &Shard> {
        self.finished.range((group, 0)..(group + 1, 0)).map(|(_, (_, shard))| shard)
    }

    /// Finished shards and their names, by group and number.
    pub fn all(&self) -> impl Iterator<Item = &(String, Shard)> {
        self.finished.values()
    }

    /// Goes on behind the finished shards of a group.
    pub fn writer(&mut self, group: Group) -> ShardWriter<'_> {
        let number = self.of_group(group.index).count();
        let begun_rows = self.of_group(group.index).next_back().map_or(0, |shard| shard.begun_rows);
        ShardWriter { shards: self, group, number, begun_rows, open: None }
    }
}

struct OpenShard {
    npy: AtomicWriter,
    csv: AtomicWriter,
    documents: u64,
    ended: u64,
    tokens: u64,
    text_bytes: u64,
}

/// Writes documents into shards, a new one whenever the next document does not fit.
pub struct ShardWriter<'a> {
    shards: &'a mut Shards,
    group: Group,
    number: usize,
    /// Of the document that is being written; those that finished shards hold, at first.
    begun_rows: u64,
    open: Option<OpenShard>,
}

impl ShardWriter<'_> {
    /// Appends one document.
    pub fn write(&mut self, document: &Document, src: &str, ids: &[u32], place: &Place<'_>) -> Result<()> {
        let (length, most) = (ids.len() as u64, self.group.max_tokens);
        if length <= most {
            return self.write_row(document, src, ids, true);
        }
        let (bos, eos) = (self.group.bos, self.group.eos);
        let borders = u64::from(bos.is_some()) + u64::from(eos.is_some());
        if self.group.oversize == Oversize::Refuse || most <= borders {
            let message = format!(
                "the document has {length} tokens; expected at most {most}, as max_size allows (raise it, or set oversize: split)"
            );
            return Err(place.error(Some("text"), Code::InvalidValue, message));
        }
        let ids = ids.strip_prefix(bos.as_slice()).unwrap_or(ids);
        let ids = ids.strip_suffix(eos.as_slice()).unwrap_or(ids);
        let parts: Vec<&[u32]> = ids.chunks((most - borders) as usize).collect();
        for (index, part) in parts.iter().enumerate().skip(self.begun_rows as usize) {
            let row: Vec<u32> = bos.iter().chain(*part).chain(&eos).copied().collect();
            self.write_row(document, src, &row, index + 1 == parts.len())?;
        }
        Ok(())
    }

    fn write_row(&mut self, document: &Document, src: &str, ids: &[u32], last: bool) -> Result<()> {
        let length = ids.len() as u64;
        if self.open.as_ref().is_some_and(|open| open.tokens + length > self.group.max_tokens) {
            self.close()?;
        }
        let open = match &mut self.open {
            Some(open) => open,
            None => {
                let path = self.shards.journal.directory().join(self.group.name(self.number));
                let file =
                    |extension: &str| AtomicWriter::create(&PathBuf::from(format!("{}.{extension}", path.display())));
                self.open.insert(OpenShard {
                    npy: file("npy")?,
                    csv: file("csv.gz")?,
                    documents: 0,
                    ended: 0,
                    tokens: 0,
                    text_bytes: 0,
                })
            }
        };
        open.npy.put(&item_bytes(ids, self.group.dtype))?;
        let end = open.tokens + length;
        let row = Row { start: open.tokens, end, id: document.id.clone(), src: src.to_owned(), loc: document.line };
        open.csv.put(row.text().as_bytes())?;
        open.tokens = end;
        open.documents += 1;
        if self.begun_rows == 0 {
            open.text_bytes += document.text_bytes;
        }
        open.ended += u64::from(last);
        self.begun_rows = if last { 0 } else { self.begun_rows + 1 };
        Ok(())
    }

    fn close(&mut self) -> Result<()> {
        let Some(open) = self.open.take() else { return Ok(()) };
        let shard = Shard {
            group: self.group.index,
            number: self.number,
            documents: open.documents,
            ended: open.ended,
            begun_rows: self.begun_rows,
            tokens: open.tokens,
            text_bytes: open.text_bytes,
            csv: open.csv.finish()?,
            npy: open.npy.finish()?,
        };
        let name = self.group.name(self.number);
        self.shards.journal.add(&name, shard.clone())?;
        self.shards.finished.insert((shard.group, shard.number), (name, shard));
        self.number += 1;
        Ok(())
    }

    /// Finishes the last shard.
    pub fn finish(mut self) -> Result<()> {
        self.close()
    }
}

/// Little-endian items; ids fit, as the vocabulary does.
fn item_bytes(ids: &[u32], dtype: Dtype) -> Vec<u8> {
    match dtype {
        Dtype::Uint8 => ids.iter().map(|id| *id as u8).collect(),
        Dtype::Uint16 => ids.iter().flat_map(|id| (*id as u16).to_le_bytes()).collect(),
        Dtype::Uint32 => ids.iter().flat_map(|id| id.to_le_bytes()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_those_of_dolma() {
        // ceil(log10(groups + 1))
        assert_eq!([1, 8, 9, 10, 98, 99, 100].map(digits), [1, 1, 1, 2, 2, 2, 3]);
    }
}
