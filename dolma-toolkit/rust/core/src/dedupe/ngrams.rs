//! The keys of n-grams of words: docs/formats/filter.md.

use xxhash_rust::xxh3::{xxh3_128_with_seed, xxh3_64};

use super::words::words;
use crate::bloom::fold;

/// Odd numbers without pattern, from Steele and Vigna, "Computationally Easy, Spectrally Good Multipliers for
/// Congruential Pseudorandom Number Generators", 2022.
const MULTIPLIERS: [u64; 2] = [0xD134_2543_DE82_EF95, 0xF7C2_EBC0_8F67_F2B5];

/// Makes keys in the memory of earlier ones.
#[derive(Debug, Default)]
pub struct NgramKeys {
    hashes: Vec<u64>,
    bytes: Vec<u8>,
}

impl NgramKeys {
    /// Of a filter of version 3: a polynomial over the words' hashes, so that the next key costs the same for any length.
    pub fn rolled(&mut self, text: &str, length: usize, stride: usize, mut each: impl FnMut(u128)) {
        self.hashes.clear();
        self.hashes.extend(words(text).map(|word| xxh3_64(word.as_bytes())));
        if length == 0 || self.hashes.len() < length {
            return;
        }
        let mut sums = [0_u64; 2];
        let push = |sums: &mut [u64; 2], added: u64| {
            for (sum, multiplier) in sums.iter_mut().zip(MULTIPLIERS) {
                *sum = sum.wrapping_add(added).wrapping_mul(multiplier);
            }
        };
        let (first, rest) = self.hashes.split_at(length);
        first.iter().for_each(|hash| push(&mut sums, *hash));
        let key = |[block, bits]: [u64; 2]| u128::from(fold(block)) | u128::from(fold(bits)) << 64;
        each(key(sums));
        let weights = MULTIPLIERS.map(|multiplier| multiplier.wrapping_pow(length as u32));
        let mut skipped = 0;
        for (added, removed) in rest.iter().zip(&self.hashes) {
            for ((sum, multiplier), weight) in sums.iter_mut().zip(MULTIPLIERS).zip(weights) {
                let kept = sum.wrapping_sub(removed.wrapping_mul(weight));
                *sum = kept.wrapping_add(*added).wrapping_mul(multiplier);
            }
            skipped += 1;
            if skipped == stride {
                skipped = 0;
                each(key(sums));
            }
        }
    }

    /// Of a filter of version 2: a hash of the words' hashes.
    pub fn hashed(&mut self, text: &str, length: usize, stride: usize, mut each: impl FnMut(u128)) {
        self.bytes.clear();
        words(text).for_each(|word| self.bytes.extend_from_slice(&xxh3_64(word.as_bytes()).to_le_bytes()));
        let windows = (self.bytes.len() / 8 + 1).saturating_sub(length);
        for start in (0..windows).step_by(stride) {
            each(xxh3_128_with_seed(&self.bytes[start * 8..(start + length) * 8], length as u64));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// As docs/formats/filter.md defines it.
    fn rolled_by_definition(words: &[&str]) -> u128 {
        let half = |multiplier: u64| {
            let sum = words.iter().rev().enumerate().fold(0_u64, |sum, (power, word)| {
                let weight = multiplier.wrapping_pow(power as u32 + 1);
                sum.wrapping_add(xxh3_64(word.as_bytes()).wrapping_mul(weight))
            });
            u128::from(fold(sum))
        };
        half(MULTIPLIERS[0]) | half(MULTIPLIERS[1]) << 64
    }

    fn rolled(text: &str, length: usize, stride: usize) -> Vec<u128> {
        let mut found = Vec::new();
        NgramKeys::default().rolled(text, length, stride, |key| found.push(key));
        found
    }

    proptest! {
        #[test]
        fn keys_are_rolled_to_what_they_are_defined_as(text in "([abc] ?){0,30}", length in 1usize..6, stride in 1usize..4) {
            let words: Vec<&str> = words(&text).collect();
            let expected: Vec<u128> = words.windows(length).step_by(stride).map(rolled_by_definition).collect();
            prop_assert_eq!(rolled(&text, length, stride), expected);
        }
    }

    #[test]
    fn the_order_of_words_counts() {
        let keys = ["a b c", "a c b", "b a c", "b c a", "c a b", "c b a", "a a b", "a b b", "a a a"]
            .map(|text| rolled(text, 3, 1)[0]);
        assert!(keys.iter().enumerate().all(|(index, key)| !keys[..index].contains(key)));
    }

    #[test]
    fn the_key_of_an_ngram_is_fixed() {
        // computed with Python's integers and the `xxhash` package
        assert_eq!(rolled("the quick brown fox", 4, 1), [0x7802_344d_4ee1_1d35_132d_cd1e_417f_e8b7]);
    }
}
