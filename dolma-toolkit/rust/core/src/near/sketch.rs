//! From a text to the keys of its bands: texts that share a key are near-duplicates.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::bloom::fold;
use crate::dedupe::words;

/// Odd numbers without pattern, from Steele and Vigna, "Computationally Easy, Spectrally Good Multipliers for
/// Congruential Pseudorandom Number Generators", 2022.
const MULTIPLIER: u64 = 0xD134_2543_DE82_EF95;
const STEP: u64 = 0xF7C2_EBC0_8F67_F2B5;

/// Nothing was hashed to this place.
const EMPTY: u64 = u64::MAX;

/// Makes keys, in the memory of earlier ones.
pub struct Sketcher {
    ngram_length: usize,
    rows: usize,
    /// bands times rows
    sketch: Vec<u64>,
    words: Vec<u64>,
    ngrams: Vec<u64>,
    lower: String,
    band: Vec<u8>,
}

impl Sketcher {
    /// All at least 1.
    pub fn new(ngram_length: usize, bands: usize, rows: usize) -> Self {
        let sketch = vec![EMPTY; bands * rows];
        let (words, ngrams, lower, band) = (Vec::new(), Vec::new(), String::new(), Vec::new());
        Self { ngram_length, rows, sketch, words, ngrams, lower, band }
    }

    /// Gives a key for each band; none for a text without words.
    pub fn keys(&mut self, text: &str, mut each: impl FnMut(u64)) {
        self.read(text);
        if self.ngrams.is_empty() {
            return;
        }
        self.sketch();
        for (band, values) in self.sketch.chunks_exact(self.rows).enumerate() {
            self.band.clear();
            values.iter().for_each(|value| self.band.extend_from_slice(&value.to_le_bytes()));
            each(xxh3_64_with_seed(&self.band, band as u64));
        }
    }

    /// The n-grams of the words in lower case; a shorter text is one n-gram.
    fn read(&mut self, text: &str) {
        self.words.clear();
        self.ngrams.clear();
        for word in words(text) {
            if word.is_ascii() {
                if word.bytes().any(|byte| byte.is_ascii_alphanumeric()) {
                    self.lower.clear();
                    self.lower.push_str(word);
                    self.lower.make_ascii_lowercase();
                    self.words.push(xxh3_64(self.lower.as_bytes()));
                }
            } else if word.chars().any(char::is_alphanumeric) {
                self.words.push(xxh3_64(word.to_lowercase().as_bytes()));
            }
        }
        let length = self.ngram_length.min(self.words.len());
        if length == 0 {
            return;
        }
        // a polynomial of the words' hashes
        let weight = MULTIPLIER.wrapping_pow(length as u32 + 1);
        let mut sum = 0_u64;
        for (index, word) in self.words.iter().enumerate() {
            sum = sum.wrapping_add(*word).wrapping_mul(MULTIPLIER);
            if let Some(before) = index.checked_sub(length) {
                sum = sum.wrapping_sub(self.words[before].wrapping_mul(weight));
            }
            if index + 1 >= length {
                self.ngrams.push(fold(sum));
            }
        }
    }

    /// Dahlgaard, Knudsen and Thorup, "Fast Similarity Sketching", FOCS 2017: in each round every element goes to a random
    /// place, or, when as many rounds have passed as there are places, to the next one. The least value of the first round
    /// that reaches a place stays there.
    fn sketch(&mut self) {
        let places = self.sketch.len() as u64;
        self.sketch.fill(EMPTY);
        let mut empty = places;
        for round in 0..2 * places {
            let seed = (round + 1).wrapping_mul(STEP);
            for ngram in &self.ngrams {
                let hash = fold(ngram ^ seed);
                let place = if round < places { ((hash >> 32) * places) >> 32 } else { round - places };
                let value = round << 32 | hash & 0xFFFF_FFFF;
                let least = &mut self.sketch[place as usize];
                empty -= u64::from(*least == EMPTY);
                *least = value.min(*least);
            }
            if empty == 0 {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn sketch_of(places: usize, ngrams: impl Iterator<Item = u64>) -> Vec<u64> {
        let mut sketcher = Sketcher::new(1, places, 1);
        sketcher.ngrams = ngrams.map(|number| fold(number.wrapping_mul(STEP))).collect();
        sketcher.sketch();
        sketcher.sketch
    }

    #[test]
    fn values_agree_as_often_as_sets_do() {
        // sets smaller and larger than a sketch
        for (size, shared) in [(20_u64, 18_u64), (20, 10), (400, 360), (3000, 1500)] {
            let jaccard = shared as f64 / (2 * size - shared) as f64;
            let mut agree = 0;
            for trial in 0..40 {
                let start = trial * 1_000_000;
                let one = sketch_of(200, start..start + size);
                let other = sketch_of(200, start + size - shared..start + 2 * size - shared);
                agree += one.iter().zip(&other).filter(|(one, other)| one == other).count();
            }
            let share = agree as f64 / (40.0 * 200.0);
            // of 40 sketches, each no worse than 200 draws without replacement
            let deviation = (jaccard * (1.0 - jaccard) / (40.0 * size.min(200) as f64)).sqrt();
            assert!((share - jaccard).abs() < 4.0 * deviation, "{size} {shared}: {share} for {jaccard}");
        }
    }

    #[test]
    fn case_and_punctuation_are_not_compared() {
        let keys = |text: &str| {
            let mut found = HashSet::new();
            Sketcher::new(3, 4, 2).keys(text, |key| {
                found.insert(key);
            });
            found
        };
        assert_eq!(keys("Über die Brücke; gehen wir!"), keys("über die\nbrücke gehen wir"));
        assert_ne!(keys("a b c d"), keys("a b c e"));
        assert_ne!(keys("a b"), keys("b a"));
        // n-grams of words far from the beginning are those of their words
        let ngrams = |text: &str| {
            let mut sketcher = Sketcher::new(3, 4, 2);
            sketcher.read(text);
            sketcher.ngrams
        };
        assert_eq!(ngrams("x y a b c z")[2], ngrams("a b c")[0]);
        assert_eq!(keys("a").len(), 4);
        assert!(keys(" — … ").is_empty());
    }
}
