//! The filters that dolma 1.x writes, for reading only.
//!
//! Their hash is not specified: it is what the `ahash` crate 0.8 computes, and that depends on how the program was
//! compiled. The published wheels use the variant without AES instructions, as this crate does unless it is compiled
//! for a processor that is known to have them; then such a filter would answer wrongly, and is refused.

use std::collections::VecDeque;

use ahash::RandomState;

/// A filter of version 1.
#[derive(Clone)]
pub struct LegacyFilter {
    hashers: Vec<RandomState>,
    words: Vec<u32>,
}

impl std::fmt::Debug for LegacyFilter {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "LegacyFilter({} hashes, {} words)", self.hashers.len(), self.words.len())
    }
}

impl LegacyFilter {
    /// Why this program cannot read such filters, if it cannot.
    pub fn refusal() -> Option<&'static str> {
        cfg!(all(target_feature = "aes", not(miri))).then_some(
            "was written by dolma 1.x with the hash variant for processors without AES, and this program is compiled with AES",
        )
    }

    /// A filter with the file's seeds and bits; `words` is not empty.
    pub(super) fn new(seeds: &[[u64; 4]], words: Vec<u32>) -> Self {
        let hashers = seeds.iter().map(|seed| RandomState::with_seeds(seed[0], seed[1], seed[2], seed[3])).collect();
        Self { hashers, words }
    }

    /// Whether the key made of `parts` was inserted: one part for a text, the words for an n-gram.
    pub fn contains(&self, parts: &VecDeque<&str>) -> bool {
        let words = self.words.len() as u64;
        self.hashers.iter().all(|hasher| {
            let hash = hasher.hash_one(parts);
            self.words[(hash / 32 % words) as usize] & (1 << (hash % 32)) != 0
        })
    }

    /// Expected share of new keys that are reported as seen: the share of set bits to the power of the number of hashes.
    pub fn false_positive_rate(&self) -> f64 {
        let set: u64 = self.words.iter().map(|word| u64::from(word.count_ones())).sum();
        (set as f64 / (self.words.len() as f64 * 32.0)).powi(self.hashers.len() as i32)
    }

    /// The first hash of a key, which dolma 1.x divides keys among partitions by.
    pub fn first_hash(&self, parts: &VecDeque<&str>) -> u64 {
        self.hashers.first().map_or(0, |hasher| hasher.hash_one(parts))
    }
}
