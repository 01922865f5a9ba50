//! A Bloom filter over 128-bit keys: a set that may say "seen" of a key that it never saw, at a known rate, and
//! never "not seen" of one that it did.
//!
//! A run asks it in order: [`Filter::decide`]. Each key is decided by itself, so a filter may be divided by keys.

mod blocked;
mod file;
mod legacy;
mod part;
mod scattered;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

pub use blocked::{fold, Sizing};
pub use file::{read, write, AnyFilter};
pub use legacy::LegacyFilter;
pub use part::{Part, Said};

use blocked::Blocked;
use scattered::Scattered;

/// What a filter says about itself, in its file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// keys that it was made for; 0 where only its size was given
    pub estimated_keys: u64,
    /// false-positive rate that it was made for; 0 where only its size was given
    pub false_positive_rate: f64,
    /// what was inserted, in order
    pub runs: Vec<Run>,
}

/// One run that inserted keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// identity of the run: a hash of its settings and inputs
    pub run: String,
    /// which share of the keys, as `index/count`
    pub partition: String,
    /// the file that the run began with; none if it made the filter
    pub before: Option<FileState>,
    /// the files whose keys it inserted
    pub inputs: Vec<RunInput>,
}

/// A filter's file at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileState {
    /// of its bytes
    pub sha256: String,
    /// as stored
    pub size_bytes: u64,
}

/// A file whose keys are in a filter.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RunInput {
    /// `<root>/documents/<relative>`
    pub path: String,
    /// of its bytes
    pub sha256: String,
}

/// Keys to ask and then to insert, in order. The keys of a group are all asked before any of them is inserted.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Questions {
    keys: Vec<u128>,
    /// where each group ends
    ends: Vec<usize>,
}

impl Questions {
    /// Adds a key to the group that [`Questions::end_group`] will end.
    #[inline]
    pub fn push(&mut self, key: u128) {
        self.keys.push(key);
    }

    /// What was added since the last group is one.
    pub fn end_group(&mut self) {
        self.ends.push(self.keys.len());
    }

    /// In order.
    pub fn groups(&self) -> impl Iterator<Item = &[u128]> {
        let mut start = 0;
        self.ends.iter().map(move |end| &self.keys[std::mem::replace(&mut start, *end)..*end])
    }

    /// The number of keys.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

/// The filter.
#[derive(Debug)]
pub struct Filter {
    layout: Layout,
    keys: AtomicU64,
    /// only one thread inserts
    inserting: Mutex<()>,
    /// what the filter says about itself
    pub record: Record,
}

#[derive(Debug)]
enum Layout {
    Scattered(Scattered),
    Blocked(Blocked),
}

/// The bits of a filter.
trait Bits {
    /// Loads the memory of some keys, which waits for it once instead of once per key.
    fn fetch(&self, keys: &[u128]);

    /// Whether `key` was inserted, or looks as if it were.
    fn contains(&self, key: u128) -> bool;

    /// Inserts `key`; says whether it was there already. One thread at a time.
    fn insert(&self, key: u128) -> bool;
}

impl Filter {
    /// An empty filter.
    pub fn new(sizing: Sizing, record: Record) -> Self {
        Self::with(Layout::Blocked(Blocked::new(sizing)), 0, record)
    }

    fn with(layout: Layout, keys: u64, record: Record) -> Self {
        Self { layout, keys: keys.into(), inserting: Mutex::default(), record }
    }

    /// Whether the key of an n-gram is rolled over its words (version 3) or a hash of them (version 2).
    pub fn has_rolled_ngrams(&self) -> bool {
        matches!(self.layout, Layout::Blocked(_))
    }

    /// Memory and disk that the bits take.
    pub fn size_bytes(&self) -> u64 {
        self.words().len() as u64 * 8
    }

    fn words(&self) -> &[AtomicU64] {
        match &self.layout {
            Layout::Scattered(bits) => bits.words(),
            Layout::Blocked(bits) => bits.words(),
        }
    }

    /// Number of insertions that found the key not yet there.
    pub fn keys(&self) -> u64 {
        self.keys.load(Ordering::Relaxed)
    }

    /// Whether `key` was inserted, or looks as if it were.
    pub fn contains(&self, key: u128) -> bool {
        match &self.layout {
            Layout::Scattered(bits) => bits.contains(key),
            Layout::Blocked(bits) => bits.contains(key),
        }
    }

    /// Inserts `key`; says whether it was there already.
    pub fn insert(&self, key: u128) -> bool {
        let mut seen = [false];
        self.decide(&Questions { keys: vec![key], ends: vec![1] }, &mut seen);
        seen[0]
    }

    /// Marks in `seen` what was inserted. A key that was stays seen, so that [`Filter::decide`] needs not ask again.
    pub fn ask(&self, questions: &Questions, seen: &mut [bool]) {
        match &self.layout {
            Layout::Scattered(bits) => ask(bits, questions, seen),
            Layout::Blocked(bits) => ask(bits, questions, seen),
        }
    }

    /// Marks in `seen` what was inserted before its group, and inserts all keys.
    pub fn decide(&self, questions: &Questions, seen: &mut [bool]) {
        let _alone = self.inserting.lock().unwrap_or_else(PoisonError::into_inner);
        let added = match &self.layout {
            Layout::Scattered(bits) => decide(bits, questions, seen),
            Layout::Blocked(bits) => decide(bits, questions, seen),
        };
        self.keys.fetch_add(added, Ordering::Relaxed);
    }

    /// Expected share of new keys that are reported as seen.
    pub fn false_positive_rate(&self) -> f64 {
        match &self.layout {
            Layout::Scattered(bits) => bits.false_positive_rate(self.keys()),
            Layout::Blocked(bits) => bits.sizing().false_positive_rate(self.keys()),
        }
    }

    /// How many keys it may have until more than a share of `rate` new keys is reported as seen.
    pub fn max_keys(&self, rate: f64) -> u64 {
        match &self.layout {
            Layout::Scattered(bits) => bits.max_keys(rate),
            Layout::Blocked(bits) => bits.sizing().max_keys(rate),
        }
    }
}

/// Keys whose memory is fetched at once. Loads of 64 keys halve the time of a filter beyond the caches, as does the
/// instruction to prefetch, which needs unsafe code: 62 ns for a new key either way, 108 to 230 ns without.
const FETCHED: usize = 64;

fn ask(bits: &impl Bits, questions: &Questions, seen: &mut [bool]) {
    for (keys, seen) in questions.keys.chunks(FETCHED).zip(seen.chunks_mut(FETCHED)) {
        bits.fetch(keys);
        keys.iter().zip(seen).for_each(|(key, seen)| *seen = bits.contains(*key));
    }
}

/// The number of keys that were missing.
fn decide(bits: &impl Bits, questions: &Questions, seen: &mut [bool]) -> u64 {
    let (mut added, mut start, mut fetched) = (0, 0, 0);
    for &end in &questions.ends {
        let (keys, seen) = (&questions.keys[start..end], &mut seen[start..end]);
        for (index, (key, seen)) in keys.iter().zip(&mut *seen).enumerate() {
            if start + index == fetched {
                let ahead = &questions.keys[fetched..(fetched + FETCHED).min(questions.keys.len())];
                bits.fetch(ahead);
                fetched += ahead.len();
            }
            *seen = *seen || bits.contains(*key);
        }
        let unseen = keys.iter().zip(&*seen).filter(|(_, seen)| !**seen);
        added += unseen.map(|(key, _)| u64::from(!bits.insert(*key))).sum::<u64>();
        start = end;
    }
    added
}

/// Memory that a new allocation may take, where the system says so.
pub fn available_memory_bytes() -> Option<u64> {
    let text = std::fs::read_to_string(Path::new("/proc/meminfo")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests;
