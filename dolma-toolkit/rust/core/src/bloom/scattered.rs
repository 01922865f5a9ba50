//! Version 2: the bits of a key are anywhere in the filter. New filters are of version 3; these are read and extended.
//!
//! A key's bit positions come from two 64-bit halves by enhanced double hashing (Dillinger and Manolios, "Bloom Filters
//! in Probabilistic Verification", 2004).

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::Bits;

/// More positions than this buy nothing: 32 give a false-positive rate of 2⁻³² at half-full, and every position
/// costs a memory access.
pub const MAX_HASHES: u32 = 32;

/// The bits. Any thread may ask; one at a time may insert.
#[derive(Debug)]
pub struct Scattered {
    words: Vec<AtomicU64>,
    hashes: u32,
}

impl Scattered {
    /// No bit is set; `words` is not zero, and a key has `hashes` positions.
    pub fn new(words: u64, hashes: u32) -> Self {
        Self { words: (0..words).map(|_| AtomicU64::new(0)).collect(), hashes }
    }

    /// All bits.
    pub fn words(&self) -> &[AtomicU64] {
        &self.words
    }

    /// Bit positions of a key.
    pub fn hashes(&self) -> u32 {
        self.hashes
    }

    /// Expected share of keys that were never inserted and are called seen, once `keys` were inserted.
    pub fn false_positive_rate(&self, keys: u64) -> f64 {
        let hashes = f64::from(self.hashes);
        let per_bit = hashes * keys as f64 / (self.words.len() as f64 * 64.0);
        (-(-per_bit).exp_m1()).powf(hashes)
    }

    /// How many keys may be inserted until more than a share of `rate` new keys is called seen.
    pub fn max_keys(&self, rate: f64) -> u64 {
        let hashes = f64::from(self.hashes);
        let keys = -(-rate.powf(1.0 / hashes)).ln_1p() * (self.words.len() as f64 * 64.0) / hashes;
        // the estimate is within a few keys of the exact number
        let mut fits = (keys as u64).saturating_sub(8);
        while self.false_positive_rate(fits + 1) <= rate {
            fits += 1;
        }
        fits
    }
}

impl Bits for Scattered {
    fn fetch(&self, _keys: &[u128]) {}

    /// Always looks at every position, so that the memory of many keys is fetched at once.
    #[inline]
    fn contains(&self, key: u128) -> bool {
        positions(key, self.words.len() as u64, self.hashes)
            .fold(0, |missing, (word, bit)| missing | (!self.words[word].load(Relaxed) & bit))
            == 0
    }

    #[inline]
    fn insert(&self, key: u128) -> bool {
        let mut missing = 0;
        for (word, bit) in positions(key, self.words.len() as u64, self.hashes) {
            let word = &self.words[word];
            let before = word.load(Relaxed);
            missing |= !before & bit;
            word.store(before | bit, Relaxed);
        }
        missing == 0
    }
}

/// Word index and bit mask of each position of `key` in a filter of `words` words.
#[inline]
pub(super) fn positions(key: u128, words: u64, hashes: u32) -> impl Iterator<Item = (usize, u64)> {
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
