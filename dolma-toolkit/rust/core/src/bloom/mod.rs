//! A Bloom filter over 128-bit keys: a set that may say "seen" of a key that it never saw, at a known rate, and
//! never "not seen" of one that it did.
//!
//! A key's `hashes` bit positions come from two 64-bit halves by enhanced double hashing (Dillinger and Manolios,
//! "Bloom Filters in Probabilistic Verification", 2004), so a key is hashed once whatever the number of positions.

mod file;
mod legacy;

use std::path::Path;

use serde::{Deserialize, Serialize};

pub use file::{read, write, AnyFilter};
pub use legacy::LegacyFilter;

/// More positions than this buy nothing: 32 give a false-positive rate of 2⁻³² at half-full, and every position
/// costs a memory access.
pub const MAX_HASHES: u32 = 32;

/// Number of bits and of positions a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizing {
    /// 64-bit words of the bit array
    pub words: u64,
    /// bit positions a key
    pub hashes: u32,
}

impl Sizing {
    /// The smallest filter that answers wrongly at most at `rate` once it holds `keys` keys.
    ///
    /// The rate of a filter of m bits with n keys and k positions is (1 − e^(−kn/m))^k. The fewest bits that give a rate p
    /// come with k = log2(1/p). Half as many positions take a fifth more memory and half the time, which is that of memory
    /// accesses.
    pub fn for_keys(keys: u64, rate: f64) -> Self {
        let hashes = (-rate.log2() / 2.0).ceil().clamp(1.0, f64::from(MAX_HASHES)) as u32;
        let fill = rate.powf(1.0 / f64::from(hashes));
        let bits = -f64::from(hashes) * keys.max(1) as f64 / (-fill).ln_1p();
        Self { words: ((bits / 64.0).ceil() as u64).max(1), hashes }
    }

    /// A filter of `size_bytes`, with the number of positions that suits `keys` keys, or else `rate`, or else a
    /// filter that will be half full.
    pub fn for_size(size_bytes: u64, keys: u64, rate: f64) -> Self {
        let words = (size_bytes / 8).max(1);
        let hashes = if keys > 0 {
            (words as f64 * 64.0 / keys as f64 * std::f64::consts::LN_2).round()
        } else if rate > 0.0 {
            (-rate.log2()).ceil()
        } else {
            10.0
        };
        Self { words, hashes: hashes.clamp(1.0, f64::from(MAX_HASHES)) as u32 }
    }

    /// Expected share of keys that were never inserted and are called seen, once `keys` were inserted.
    pub fn false_positive_rate(&self, keys: u64) -> f64 {
        let hashes = f64::from(self.hashes);
        let per_bit = hashes * keys as f64 / (self.words as f64 * 64.0);
        (-(-per_bit).exp_m1()).powf(hashes)
    }

    /// Memory and disk that the bits take.
    pub fn size_bytes(&self) -> u64 {
        self.words * 8
    }
}

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

/// The filter.
#[derive(Debug, Clone, PartialEq)]
pub struct Filter {
    words: Vec<u64>,
    hashes: u32,
    keys: u64,
    /// what the filter says about itself
    pub record: Record,
}

impl Filter {
    /// An empty filter.
    pub fn new(sizing: Sizing, record: Record) -> Self {
        Self { words: vec![0; sizing.words as usize], hashes: sizing.hashes, keys: 0, record }
    }

    /// Its size.
    pub fn sizing(&self) -> Sizing {
        Sizing { words: self.words.len() as u64, hashes: self.hashes }
    }

    /// Number of insertions that found the key not yet there.
    pub fn keys(&self) -> u64 {
        self.keys
    }

    /// Whether `key` was inserted, or looks as if it were.
    #[inline]
    pub fn contains(&self, key: u128) -> bool {
        self.positions(key).all(|(word, bit)| self.words[word] & bit != 0)
    }

    /// As [`Filter::contains`], but always looks at every position, so that the memory of many keys is fetched at once: the
    /// faster way for keys that are inserted soon after.
    #[inline]
    pub fn contains_whole(&self, key: u128) -> bool {
        self.positions(key).fold(0, |missing, (word, bit)| missing | (!self.words[word] & bit)) == 0
    }

    /// Inserts `key`; says whether it was there already.
    #[inline]
    pub fn insert(&mut self, key: u128) -> bool {
        let mut missing = 0;
        for (word, bit) in positions(key, self.words.len() as u64, self.hashes) {
            let word = &mut self.words[word];
            missing |= !*word & bit;
            *word |= bit;
        }
        self.keys += u64::from(missing != 0);
        missing == 0
    }

    /// Expected share of new keys that are reported as seen.
    pub fn false_positive_rate(&self) -> f64 {
        self.sizing().false_positive_rate(self.keys)
    }

    fn positions(&self, key: u128) -> impl Iterator<Item = (usize, u64)> {
        positions(key, self.words.len() as u64, self.hashes)
    }
}

/// Word index and bit mask of each position of `key` in a filter of `words` words.
#[inline]
fn positions(key: u128, words: u64, hashes: u32) -> impl Iterator<Item = (usize, u64)> {
    let bits = u128::from(words << 6);
    let mut position = key as u64;
    let mut step = (key >> 64) as u64;
    (0..u64::from(hashes)).map(move |index| {
        // The high half of a 64 × 64-bit product maps a hash onto 0..bits without a division.
        let bit = ((u128::from(position) * bits) >> 64) as u64;
        position = position.wrapping_add(step);
        step = step.wrapping_add(index + 1);
        ((bit / 64) as usize, 1 << (bit % 64))
    })
}

/// Memory that a new allocation may take, where the system says so.
pub fn available_memory_bytes() -> Option<u64> {
    let text = std::fs::read_to_string(Path::new("/proc/meminfo")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests;
