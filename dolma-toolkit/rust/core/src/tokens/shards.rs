//! Pairs of `.npy` and `.csv.gz`, and which of them are finished.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::order::Document;
use super::plan::{Dtype, Oversize};
use crate::document::Place;
use crate::error::{Code, Error, Result};
use crate::formats::table::Row;
use crate::jsonl::{AtomicWriter, Written};
use crate::manifest::{side_file, Manifest, FILE_NAME as MANIFEST};

/// Path of the records of a shard directory.
fn records_of(directory: &Path) -> PathBuf {
    side_file(directory, "progress.ndjson", ".progress.jsonl")
}

/// One finished pair.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Shard {
    fingerprint: String,
    group: usize,
    number: usize,
    /// File name without extension.
    pub name: String,
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
    directory: PathBuf,
    fingerprint: String,
    finished_shards: BTreeMap<(usize, usize), Shard>,
    /// The manifest is there, and it is this run's.
    pub finished: bool,
    /// Found finished.
    pub kept: u64,
    /// Of an unfinished run with other settings or inputs; removed.
    pub discarded: u64,
}

impl Shards {
    /// Looks at what an earlier run left. Other people's shards are an error, as are finished ones of other settings.
    pub fn open(directory: &Path, fingerprint: &str) -> Result<Shards> {
        fs::create_dir_all(directory).map_err(|error| Error::io(directory, error))?;
        let records = read_records(directory)?;
        let ours = records.iter().all(|shard| shard.fingerprint == fingerprint);
        let manifest = Manifest::read(directory)?;
        let refuse = |message: &str| {
            let hint = "choose another destination, or remove this one";
            Err(Error::config("destination", format!("is {}, {message}; expected it empty", directory.display()))
                .with_hint(hint))
        };
        let mut shards = Shards {
            directory: directory.to_owned(),
            fingerprint: fingerprint.to_owned(),
            finished_shards: BTreeMap::new(),
            finished: manifest.is_some(),
            kept: 0,
            discarded: 0,
        };
        if manifest.is_some() && (records.is_empty() || !ours) {
            return refuse("which holds tokens made with other settings or from other documents");
        }
        if manifest.is_none() && records.is_empty() && !records_of(directory).exists() && holds_shards(directory)? {
            return refuse("which holds shards that this tool did not write");
        }
        if !ours {
            for shard in &records {
                for extension in ["npy", "csv.gz"] {
                    let _ = fs::remove_file(directory.join(format!("{}.{extension}", shard.name)));
                }
            }
            shards.discarded = records.len() as u64;
            let path = records_of(directory);
            fs::remove_file(&path).map_err(|error| Error::io(&path, error))?;
            shards.begin()?;
            return Ok(shards);
        }
        for shard in records {
            if shard.is_there(directory) {
                shards.finished_shards.insert((shard.group, shard.number), shard);
            }
        }
        shards.keep_unbroken();
        if let Some(manifest) = manifest {
            manifest.verify(directory, false)?;
        }
        shards.kept = shards.finished_shards.len() as u64;
        shards.begin()?;
        Ok(shards)
    }

    /// Marks the directory as ours: a kill may leave a shard whose record was not written yet.
    fn begin(&self) -> Result<()> {
        let path = records_of(&self.directory);
        path.parent().map_or(Ok(()), fs::create_dir_all).map_err(|error| Error::io(&path, error))?;
        OpenOptions::new().create(true).append(true).open(&path).map(drop).map_err(|error| Error::io(&path, error))
    }

    /// A shard after a missing one cannot be kept: it is not known where its documents begin.
    fn keep_unbroken(&mut self) {
        let unbroken =
            |key: &(usize, usize)| (0..key.1).all(|number| self.finished_shards.contains_key(&(key.0, number)));
        let kept: Vec<_> = self.finished_shards.keys().copied().filter(unbroken).collect();
        self.finished_shards.retain(|key, _| kept.contains(key));
    }

    /// Documents that end in the finished shards of a group.
    pub fn documents_of(&self, group: usize) -> u64 {
        self.finished_shards.values().filter(|shard| shard.group == group).map(|shard| shard.ended).sum()
    }

    /// Finished shards by group and number.
    pub fn all(&self) -> impl Iterator<Item = &Shard> {
        self.finished_shards.values()
    }

    /// Goes on behind the finished shards of a group.
    pub fn writer(&mut self, group: Group) -> ShardWriter<'_> {
        let number = self.finished_shards.keys().filter(|key| key.0 == group.index).count();
        let last = number.checked_sub(1).and_then(|last| self.finished_shards.get(&(group.index, last)));
        let begun_rows = last.map_or(0, |shard| shard.begun_rows);
        ShardWriter { shards: self, group, number, begun_rows, open: None }
    }

    fn keep(&mut self, shard: Shard) -> Result<()> {
        let path = records_of(&self.directory);
        let write = || {
            let line = serde_json::to_string(&shard)?;
            let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
            // a line feed in front, too: a kill may have cut the line before
            file.write_all(format!("\n{line}\n").as_bytes())?;
            file.sync_data()
        };
        write().map_err(|error: io::Error| Error::io(&path, error))?;
        self.finished_shards.insert((shard.group, shard.number), shard);
        Ok(())
    }
}

impl Shard {
    fn is_there(&self, directory: &Path) -> bool {
        let size = |extension: &str| {
            fs::metadata(directory.join(format!("{}.{extension}", self.name))).map(|file| file.len()).ok()
        };
        size("npy") == Some(self.npy.size_bytes) && size("csv.gz") == Some(self.csv.size_bytes)
    }
}

fn read_records(directory: &Path) -> Result<Vec<Shard>> {
    let path = records_of(directory);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(Error::io(&path, error)),
    }
}

fn holds_shards(directory: &Path) -> Result<bool> {
    let entries = fs::read_dir(directory).map_err(|error| Error::io(directory, error))?;
    Ok(entries.flatten().any(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        !name.starts_with('.') && (name.ends_with(".npy") || name.ends_with(".csv.gz") || name == MANIFEST)
    }))
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
                let path = self.shards.directory.join(self.group.name(self.number));
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
            open.text_bytes += document.text.len() as u64;
        }
        open.ended += u64::from(last);
        self.begun_rows = if last { 0 } else { self.begun_rows + 1 };
        Ok(())
    }

    fn close(&mut self) -> Result<()> {
        let Some(open) = self.open.take() else { return Ok(()) };
        let shard = Shard {
            fingerprint: self.shards.fingerprint.clone(),
            group: self.group.index,
            number: self.number,
            name: self.group.name(self.number),
            documents: open.documents,
            ended: open.ended,
            begun_rows: self.begun_rows,
            tokens: open.tokens,
            text_bytes: open.text_bytes,
            csv: open.csv.finish()?,
            npy: open.npy.finish()?,
        };
        self.number += 1;
        self.shards.keep(shard)
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
