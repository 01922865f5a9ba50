//! Some of the blocks of a filter, for machines that share it.
//!
//! Whatever the answer, the bits of a key are set when it is decided. So what a block answers depends on the keys that have
//! bits in it, and on nothing in other blocks: the answer of a filter is what all its blocks say, wherever they are.

use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

use super::blocked::{fold, positions, BLOCK_WORDS};
use super::{Filter, Layout, Sizing};

/// Some blocks of a filter.
pub struct Part {
    sizing: Sizing,
    blocks: Range<u64>,
    words: Vec<u64>,
}

/// What the blocks of a part say of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Said {
    /// They had its bits before its group.
    pub before_group: bool,
    /// They had its bits when it was inserted.
    pub before: bool,
}

impl Part {
    /// Part `index` of `count` of a filter as it is.
    pub fn of(filter: &Filter, index: u64, count: u64) -> Option<Part> {
        let Layout::Blocked(bits) = &filter.layout else { return None };
        let sizing = bits.sizing();
        let start = |index: u64| (u128::from(sizing.blocks) * u128::from(index) / u128::from(count)) as u64;
        let blocks = start(index)..start(index + 1);
        let range = blocks.start as usize * BLOCK_WORDS..blocks.end as usize * BLOCK_WORDS;
        // a filter without keys may have no memory
        let words = match bits.words().get(range.clone()) {
            Some(words) => words.iter().map(|word| word.load(Relaxed)).collect(),
            None => vec![0; range.len()],
        };
        Some(Part { sizing, blocks, words })
    }

    /// Decides a group of keys.
    pub fn decide(&mut self, group: &[u128], said: &mut Vec<Said>) {
        let first = said.len();
        for key in group {
            let before_group = self.bits(*key, false);
            said.push(Said { before_group, before: false });
        }
        for (key, said) in group.iter().zip(&mut said[first..]) {
            said.before = self.bits(*key, true);
        }
    }

    /// Whether the blocks that are here have the bits of a key; sets them, if asked to.
    fn bits(&mut self, key: u128, set: bool) -> bool {
        let (mut block_hash, mut bits_hash) = (key as u64, (key >> 64) as u64);
        let mut missing = 0;
        for index in 0..self.sizing.blocks_per_key {
            if index > 0 {
                block_hash = fold(block_hash);
                bits_hash = fold(fold(bits_hash));
            }
            let block = ((u128::from(block_hash) * u128::from(self.sizing.blocks)) >> 64) as u64;
            if !self.blocks.contains(&block) {
                continue;
            }
            let start = (block - self.blocks.start) as usize * BLOCK_WORDS;
            for (word, bit) in positions(bits_hash, self.sizing.positions) {
                let word = &mut self.words[start + word];
                missing |= !*word & bit;
                if set {
                    *word |= bit;
                }
            }
        }
        missing == 0
    }

    /// The bits, little-endian.
    pub fn bytes(&self) -> impl Iterator<Item = u8> + '_ {
        self.words.iter().flat_map(|word| word.to_le_bytes())
    }
}

impl Filter {
    /// An empty filter of which only the size is needed.
    pub fn hollow(sizing: Sizing, record: super::Record) -> Filter {
        Filter::with(Layout::Blocked(super::blocked::Blocked::hollow(sizing)), 0, record)
    }

    /// Its size, if it has blocks.
    pub fn sizing(&self) -> Option<Sizing> {
        match &self.layout {
            Layout::Blocked(bits) => Some(bits.sizing()),
            Layout::Scattered(_) => None,
        }
    }

    /// Takes the bits of all parts, in order, and the number of keys that were new.
    pub fn take(&self, bytes: impl Iterator<Item = [u8; 8]>, new_keys: u64) {
        for (word, bytes) in self.words().iter().zip(bytes) {
            word.store(u64::from_le_bytes(bytes), Relaxed);
        }
        self.keys.fetch_add(new_keys, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bloom::{Questions, Record};
    use proptest::prelude::*;
    use xxhash_rust::xxh3::xxh3_128;

    proptest! {
        #[test]
        fn parts_say_together_what_a_filter_says(
            groups in prop::collection::vec(prop::collection::vec(0u32..200, 0..6), 0..120),
            count in 1u64..6,
            rate in prop_oneof![Just(0.2), Just(1e-3), Just(1e-13)],
        ) {
            let groups: Vec<Vec<u128>> =
                groups.iter().map(|keys| keys.iter().map(|key| xxh3_128(&key.to_le_bytes())).collect()).collect();
            let whole = Filter::new(Sizing::for_keys(40, rate), Record::default());
            let mut questions = Questions::default();
            for group in &groups {
                group.iter().for_each(|key| questions.push(*key));
                questions.end_group();
            }
            let mut expected = vec![false; questions.len()];
            whole.decide(&questions, &mut expected);

            let empty = Filter::hollow(Sizing::for_keys(40, rate), Record::default());
            let (mut seen, mut known) = (vec![true; questions.len()], vec![true; questions.len()]);
            let mut bytes = Vec::new();
            for index in 0..count {
                let mut part = Part::of(&empty, index, count).unwrap();
                let mut said = Vec::new();
                groups.iter().for_each(|group| part.decide(group, &mut said));
                for (at, said) in said.into_iter().enumerate() {
                    seen[at] &= said.before_group;
                    known[at] &= said.before;
                }
                bytes.extend(part.bytes());
            }
            prop_assert_eq!(&seen, &expected);
            let joined = Filter::new(Sizing::for_keys(40, rate), Record::default());
            let words = bytes.chunks_exact(8).map(|word| <[u8; 8]>::try_from(word).unwrap());
            joined.take(words, known.iter().filter(|known| !**known).count() as u64);
            prop_assert_eq!(joined.keys(), whole.keys());
            let words = |filter: &Filter| filter.words().iter().map(|word| word.load(Relaxed)).collect::<Vec<_>>();
            prop_assert_eq!(words(&joined), words(&whole));
        }
    }
}
