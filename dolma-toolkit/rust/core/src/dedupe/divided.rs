//! A filter that shares of a run fill together, in three steps, each of which needs all of the one before:
//!
//! 1. Each share writes the keys of its files.
//! 2. Each share has some blocks of the filter, goes through all keys in order, and writes what its blocks say of them.
//! 3. Each share joins for its files what all blocks say, which is what one filter would answer.
//!
//! Then rows are marked by these answers, in any order of files.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::keys::{Asking, Keyer};
use super::settings::Settings;
use super::stage::Open;
use crate::bloom::{Filter, Part, Said};
use crate::error::{Code, Error, Result};
use crate::jsonl::{AtomicWriter, Compression, Written};
use crate::manifest::sha256_bytes;
use crate::progress::Progress;
use crate::run::{each, pass, Batch, Files, Journal, Made, Rows, Share, Stage};

const KEYS: &str = "keys";
const FILTER: &str = "filter";
const ANSWERS: &str = "answers";

/// A finished file of one of the steps.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Step {
    output: Written,
    /// keys in it
    keys: u64,
    /// those that were not in the filter
    new_keys: u64,
}

impl Made for Step {
    fn files(&self, name: &str) -> Vec<(String, &Written)> {
        vec![(name.to_owned(), &self.output)]
    }
}

/// Where the steps are, next to the filter.
pub struct Divided<'s> {
    settings: &'s Settings,
    directory: PathBuf,
    journal: Journal<Step>,
}

/// How far they are.
pub enum Progressed {
    /// Other shares have not finished this step.
    Waits(&'static str),
    /// All keys are answered.
    Answered(Answers),
}

/// The answers to all keys, for a filter of some size.
#[derive(Clone)]
pub struct Answers {
    directory: PathBuf,
    names: Vec<String>,
    parts: Vec<PathBuf>,
    /// Keys that were not in the filter.
    pub new_keys: u64,
}

impl<'s> Divided<'s> {
    /// `run` is what the keys and the filter depend on.
    pub fn new(settings: &'s Settings, run: &str, files: &Files) -> Result<Self> {
        let directory = root(settings).join(run.get(..16).unwrap_or_default());
        let journal = Journal::read(files, &directory, "dedupe", run.to_owned())?;
        Ok(Self { settings, directory, journal })
    }

    /// Removes it all.
    pub fn remove(settings: &Settings) -> Result<()> {
        let root = root(settings);
        match fs::remove_dir_all(&root) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io(&root, error)),
            _ => Ok(()),
        }
    }

    fn files(&self) -> std::ops::Range<usize> {
        0..self.settings.files.len()
    }

    /// The answers, if an earlier run or its shares have finished them.
    pub fn answers(&self, filter: &Filter) -> Option<Answers> {
        let size = size_of(filter);
        let mut counts = self
            .journal
            .ours()
            .into_iter()
            .filter_map(|(name, _)| name.strip_prefix(&format!("answers-{size}-0-of-"))?.parse::<usize>().ok());
        counts.find_map(|count| self.answers_of(size, count))
    }

    fn answers_of(&self, size_bytes: u64, count: usize) -> Option<Answers> {
        let names: Vec<String> = self.files().map(|file| seen_name(size_bytes, count, file)).collect();
        let steps = names.iter().map(|name| self.journal.get(name)).collect::<Option<Vec<Step>>>()?;
        let part = |part: usize| {
            let name = format!("filter-{size_bytes}-{part}-of-{count}");
            self.journal.get(&name).map(|_| self.directory.join(name))
        };
        let parts = (0..count).map(part).collect::<Option<_>>()?;
        let new_keys = steps.iter().map(|step| step.new_keys).sum();
        Some(Answers { directory: self.directory.clone(), names, parts, new_keys })
    }

    /// The step that these shares, of so many, have not finished.
    pub fn missing(&self, filter: &Filter, count: usize) -> (&'static str, BTreeSet<usize>) {
        let size = size_of(filter);
        let has = |name: &str| self.journal.get(name).is_some();
        let keys: BTreeSet<usize> =
            self.files().filter(|file| !has(&keys_name(*file))).map(|file| file % count).collect();
        let parts: BTreeSet<usize> =
            (0..count).filter(|part| !has(&format!("{FILTER}-{size}-{part}-of-{count}"))).collect();
        let is_answered = |file: &usize| has(&seen_name(size, count, *file));
        match (keys.is_empty(), parts.is_empty()) {
            (false, _) => (KEYS, keys),
            (_, false) => (FILTER, parts),
            _ => (ANSWERS, self.files().filter(|file| !is_answered(file)).map(|file| file % count).collect()),
        }
    }

    /// Lets shares of this run write here.
    pub fn begin(&self, share: Share) -> Result<()> {
        self.journal.enter(Some(share), || self.journal.begin())
    }

    /// Does what this share can do.
    pub fn go_on(
        &self,
        filter: &Filter,
        keyer: &Keyer<'_>,
        share: Share,
        open: Open<'_>,
        threads: usize,
        progress: &Progress,
    ) -> Result<Progressed> {
        self.write_keys(keyer, share, open, threads, progress)?;
        let Some(keys) = self.files().map(|file| self.journal.get(&keys_name(file))).collect::<Option<Vec<Step>>>()
        else {
            return Ok(Progressed::Waits(KEYS));
        };
        let Some(mut part) = Part::of(filter, share.index as u64, share.count as u64) else {
            let message = "is of version 2, which cannot be divided; expected a filter of version 3, or a new one";
            return Err(Error::config("bloom_filter.file", message).with_hint("run the command without --shard"));
        };
        let size = size_of(filter);
        let name = |kind: &str, part: usize| format!("{kind}-{size}-{part}-of-{}", share.count);
        if self.journal.get(&name("filter", share.index)).is_none() {
            self.answer(&mut part, &name("answers", share.index), progress)?;
            let name = name("filter", share.index);
            let mut writer = AtomicWriter::create_as(&self.directory.join(&name), Compression::None)?;
            let bytes: Vec<u8> = part.bytes().collect();
            writer.put(&bytes)?;
            self.journal.add(&name, Step { output: writer.finish()?, keys: 0, new_keys: 0 })?;
        }
        drop(part);
        // other shares wrote since this one began
        let journal: Journal<Step> = self.journal.again()?;
        let parts: Vec<PathBuf> = (0..share.count).map(|part| self.directory.join(name("answers", part))).collect();
        if !(0..share.count).all(|part| journal.get(&name("filter", part)).is_some()) {
            return Ok(Progressed::Waits(FILTER));
        }
        let starts: Vec<u64> = starts(&keys);
        let ours: Vec<usize> = self.files().filter(|file| share.has(*file)).collect();
        each(&ours, threads, |file| {
            let name = seen_name(size, share.count, *file);
            if journal.get(&name).is_some() {
                return Ok(());
            }
            progress.check()?;
            let (seen, new_keys) = join(&parts, starts[*file], keys[*file].keys)?;
            let mut writer = AtomicWriter::create_as(&self.directory.join(&name), Compression::None)?;
            writer.put(&seen)?;
            self.journal.add(&name, Step { output: writer.finish()?, keys: keys[*file].keys, new_keys })
        })?;
        let journal = self.journal.again()?;
        let again = Self { settings: self.settings, directory: self.directory.clone(), journal };
        Ok(again.answers_of(size, share.count).map_or(Progressed::Waits(ANSWERS), Progressed::Answered))
    }

    fn write_keys(
        &self,
        keyer: &Keyer<'_>,
        share: Share,
        open: Open<'_>,
        threads: usize,
        progress: &Progress,
    ) -> Result<()> {
        let is_missing = |file: &usize| share.has(*file) && self.journal.get(&keys_name(*file)).is_none();
        let files: Vec<usize> = self.files().filter(is_missing).collect();
        let series = files.len();
        let names = self.settings.files.iter().map(|file| file.path.display().to_string()).collect();
        let writing = KeyWriting { divided: self, keyer, files, names, open };
        pass(&writing, series, threads, progress).map(drop)
    }

    /// Asks a part of the filter all keys.
    fn answer(&self, part: &mut Part, name: &str, progress: &Progress) -> Result<()> {
        let mut writer = AtomicWriter::create_as(&self.directory.join(name), Compression::None)?;
        let (mut group, mut said) = (Vec::new(), Vec::new());
        for file in self.files() {
            progress.check()?;
            let mut keys = KeyReader::open(&self.directory.join(keys_name(file)))?;
            while keys.next_group(&mut group)? {
                part.decide(&group, &mut said);
                if said.len() >= 1 << 16 {
                    writer.put(&said.drain(..).map(to_byte).collect::<Vec<u8>>())?;
                }
            }
        }
        writer.put(&said.drain(..).map(to_byte).collect::<Vec<u8>>())?;
        self.journal.add(name, Step { output: writer.finish()?, keys: 0, new_keys: 0 })
    }
}

/// Of all its bits, wherever they are.
fn size_of(filter: &Filter) -> u64 {
    filter.sizing().map_or(0, |sizing| sizing.size_bytes())
}

fn root(settings: &Settings) -> PathBuf {
    let file = &settings.bloom_filter.file;
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    file.with_file_name(format!(".{name}.shards"))
}

fn keys_name(file: usize) -> String {
    format!("keys-{file:06}")
}

fn seen_name(size_bytes: u64, count: usize, file: usize) -> String {
    format!("seen-{size_bytes}-{count}-{file:06}")
}

/// Where the keys of each file begin.
fn starts(keys: &[Step]) -> Vec<u64> {
    let mut start = 0;
    let mut next = |step: &Step| {
        let this = start;
        start += step.keys;
        this
    };
    keys.iter().map(&mut next).collect()
}

/// A byte for each key: bit 0 says whether it was there before its group, bit 1 whether before it was inserted.
fn to_byte(said: Said) -> u8 {
    u8::from(said.before_group) | u8::from(said.before) << 1
}

/// What all parts say of some keys: whether each was seen, and how many were new.
fn join(parts: &[PathBuf], start: u64, count: u64) -> Result<(Vec<u8>, u64)> {
    let mut all = vec![u8::MAX; count as usize];
    let mut bytes = vec![0; count as usize];
    for path in parts {
        let fail = |source| Error::io(path, source);
        let mut file = File::open(path).map_err(fail)?;
        file.seek(SeekFrom::Start(start)).map_err(fail)?;
        file.read_exact(&mut bytes).map_err(fail)?;
        all.iter_mut().zip(&bytes).for_each(|(all, byte)| *all &= byte);
    }
    let new_keys = all.iter().filter(|byte| **byte & 2 == 0).count() as u64;
    all.iter_mut().for_each(|byte| *byte &= 1);
    Ok((all, new_keys))
}

/// Writes the keys of files. A series is a file.
struct KeyWriting<'a> {
    divided: &'a Divided<'a>,
    keyer: &'a Keyer<'a>,
    files: Vec<usize>,
    names: Vec<String>,
    open: Open<'a>,
}

impl Stage for KeyWriting<'_> {
    type Source = Rows;
    type Asked = Batch;
    type Made = (Vec<u8>, u64);
    type Output = (AtomicWriter, u64);
    type Done = ();

    fn open(&self, series: usize) -> Result<(Rows, Self::Output)> {
        let file = self.files[series];
        let path = self.divided.directory.join(keys_name(file));
        let rows = (self.open)(file, self.keyer.fields().as_deref())?;
        Ok((rows, (AtomicWriter::create_as(&path, Compression::None)?, 0)))
    }

    fn ask(&self, _series: usize, batch: Batch) -> Result<Batch> {
        Ok(batch)
    }

    fn make(&self, series: usize, batch: Batch) -> Result<Self::Made> {
        let mut asking = Asking::default();
        let name = &self.names[self.files[series]];
        for row in batch.rows() {
            self.keyer.row(row.document(), &row.place(name), &mut asking)?;
        }
        if let Some(error) = batch.error {
            return Err(error);
        }
        let mut bytes = Vec::with_capacity(asking.questions.len() * 20);
        for group in asking.questions.groups() {
            bytes.extend((group.len() as u32).to_le_bytes());
            bytes.extend(group.iter().flat_map(|key| key.to_le_bytes()));
        }
        Ok((bytes, asking.questions.len() as u64))
    }

    fn keep(&self, _series: usize, (writer, keys): &mut Self::Output, made: Self::Made) -> Result<()> {
        *keys += made.1;
        writer.put(&made.0)
    }

    fn finish(&self, series: usize, _rows: Rows, (writer, keys): Self::Output) -> Result<()> {
        let step = Step { output: writer.finish()?, keys, new_keys: 0 };
        self.divided.journal.add(&keys_name(self.files[series]), step)
    }
}

/// Reads a file of keys.
struct KeyReader {
    path: PathBuf,
    file: BufReader<File>,
    bytes: Vec<u8>,
}

impl KeyReader {
    fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|source| Error::io(path, source))?;
        Ok(Self { path: path.to_owned(), file: BufReader::with_capacity(1 << 20, file), bytes: Vec::new() })
    }

    /// The next group; `false` at the end.
    fn next_group(&mut self, group: &mut Vec<u128>) -> Result<bool> {
        group.clear();
        let mut length = [0; 4];
        match self.file.read_exact(&mut length) {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(false),
            read => read.map_err(|source| Error::io(&self.path, source))?,
        }
        self.bytes.resize(u32::from_le_bytes(length) as usize * 16, 0);
        self.file.read_exact(&mut self.bytes).map_err(|source| Error::io(&self.path, source))?;
        let mut key = [0; 16];
        group.extend(self.bytes.chunks_exact(16).map(|bytes| {
            key.copy_from_slice(bytes);
            u128::from_le_bytes(key)
        }));
        Ok(true)
    }
}

impl Answers {
    /// Fills a filter with what all parts have.
    pub fn fill(&self, filter: &Filter) -> Result<()> {
        let mut words = Vec::new();
        for path in &self.parts {
            words.extend(fs::read(path).map_err(|source| Error::io(path, source))?);
        }
        let words = words.chunks_exact(8).map(|bytes| {
            let mut word = [0; 8];
            word.copy_from_slice(bytes);
            word
        });
        filter.take(words, self.new_keys);
        Ok(())
    }
}

/// Answers that are given to the rows of files, each file from its first row on.
pub struct Answering {
    answers: Answers,
    /// of the files that are read: the answers, and how many were given
    open: BTreeMap<usize, (Vec<u8>, usize)>,
}

impl Answering {
    /// Nothing is read yet.
    pub fn new(answers: Answers) -> Self {
        Self { answers, open: BTreeMap::new() }
    }

    /// The next answers for a file.
    pub fn give(&mut self, file: usize, seen: &mut [bool]) -> Result<()> {
        let path = self.answers.directory.join(&self.answers.names[file]);
        let (bytes, given) = match self.open.entry(file) {
            Entry::Occupied(open) => open.into_mut(),
            Entry::Vacant(place) => place.insert((fs::read(&path).map_err(|source| Error::io(&path, source))?, 0)),
        };
        let Some(next) = bytes.get(*given..*given + seen.len()) else {
            let message = "answers end early; expected one for each key of the documents";
            return Err(Error::format(path.display().to_string(), None, None, Code::Truncated, message));
        };
        seen.iter_mut().zip(next).for_each(|(seen, byte)| *seen = *byte != 0);
        *given += seen.len();
        if *given == bytes.len() {
            // what is left of the file asks nothing
            bytes.clear();
            *given = 0;
        }
        Ok(())
    }
}

/// Of what the keys and the filter of a run depend on.
pub fn run_of(run: &str, filter_before: Option<&str>) -> String {
    sha256_bytes(format!("{run} {}", filter_before.unwrap_or_default()).as_bytes())
}
