//! The different words of a text and where each of them comes again, found in one pass for all taggers that ask.

use std::hash::BuildHasher;

use rustc_hash::FxBuildHasher;

use super::words;

/// The words between white space of one text, numbered in the order in which they first come.
pub struct Vocabulary<'a> {
    /// The number of each word of the text, in order.
    pub ids: Vec<u32>,
    /// The different words, by number.
    pub entries: Vec<Entry<'a>>,
}

/// One word.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// As it is in the text.
    pub word: &'a str,
    /// How often it does.
    pub count: u32,
    key: Key,
}

impl Entry<'_> {
    /// The first two bytes; 0 where the word is shorter. For most words they come from the key, since the text may not be in the cache.
    #[inline]
    pub fn first_bytes(&self) -> [u8; 2] {
        if self.word.len() > WHOLE_BYTES {
            return [self.word.as_bytes()[0], self.word.as_bytes()[1]];
        }
        [self.key.first as u8, (self.key.first >> 8) as u8]
    }

    /// The last three bytes, the last one first; 0 where the word is shorter.
    #[inline]
    pub fn last_bytes(&self) -> [u8; 3] {
        let last = match self.word.len() {
            // the word itself, moved to the upper end
            length @ 1..8 => self.key.first << (64 - 8 * length),
            _ => self.key.last,
        };
        [(last >> 56) as u8, (last >> 48) as u8, (last >> 40) as u8]
    }
}

/// A word of at most 16 bytes is known by this and its length; a longer one is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    first: u64,
    last: u64,
}

const EMPTY: u32 = u32::MAX;
const WHOLE_BYTES: usize = 16;

impl Key {
    /// Of the word between two bytes.
    #[inline]
    fn of(bytes: &[u8], start: usize, end: usize) -> Key {
        let at =
            |start: usize| bytes.get(start..start + 8).and_then(|part| part.try_into().ok()).map(u64::from_le_bytes);
        match end - start {
            num_bytes @ 0..8 => {
                let padded = || bytes[start..end].iter().rev().fold(0, |padded, &byte| padded << 8 | u64::from(byte));
                // what follows the word is masked; near the end of the text there is too little of it
                let first = at(start).map_or_else(padded, |eight| eight & ((1 << (8 * num_bytes)) - 1));
                Key { first, last: 0 }
            }
            8..=WHOLE_BYTES => Key { first: at(start).unwrap_or(0), last: at(end - 8).unwrap_or(0) },
            // of all bytes, so that words alike at both ends do not meet
            _ => Key { first: FxBuildHasher.hash_one(&bytes[start..end]), last: at(end - 8).unwrap_or(0) },
        }
    }

    #[inline]
    fn hash(self, length: usize) -> u64 {
        // two rounds of multiplication by odd constants, as in rustc-hash; the high bits are used
        const FACTOR: u64 = 0xf135_7aea_2e62_a9c5;
        let mixed = (self.first ^ length as u64).wrapping_mul(FACTOR);
        (mixed.rotate_left(26) ^ self.last).wrapping_mul(FACTOR)
    }
}

impl<'a> Vocabulary<'a> {
    pub(super) fn of(text: &'a str) -> Vocabulary<'a> {
        let expected = text.len() / 6;
        let mut vocabulary =
            Vocabulary { ids: Vec::with_capacity(text.len() / 5), entries: Vec::with_capacity(expected / 2) };
        let mut slots = Slots::new((expected / 2).max(8));
        let mut words = words(text);
        while let Some((start, end)) = words.next_range() {
            let key = Key::of(text.as_bytes(), start, end);
            let id = vocabulary.id_of(&text[start..end], key, &mut slots);
            vocabulary.ids.push(id);
        }
        vocabulary
    }

    #[inline]
    fn id_of(&mut self, word: &'a str, key: Key, slots: &mut Slots) -> u32 {
        let mut slot = slots.first(key, word.len());
        loop {
            let id = slots.ids[slot];
            let Some(entry) = self.entries.get_mut(id as usize) else { break };
            let is_known = entry.key == key && entry.word.len() == word.len();
            if is_known && (word.len() <= WHOLE_BYTES || entry.word == word) {
                entry.count += 1;
                return id;
            }
            slot = slots.after(slot);
        }
        let id = self.entries.len() as u32;
        slots.ids[slot] = id;
        self.entries.push(Entry { word, count: 1, key });
        if 2 * self.entries.len() > slots.ids.len() {
            *slots = Slots::new(2 * self.entries.len());
            for (id, entry) in (0..).zip(&self.entries) {
                let mut slot = slots.first(entry.key, entry.word.len());
                while slots.ids[slot] != EMPTY {
                    slot = slots.after(slot);
                }
                slots.ids[slot] = id;
            }
        }
        id
    }
}

/// Open addressing, at most half full.
struct Slots {
    ids: Vec<u32>,
    shift: u32,
}

impl Slots {
    fn new(entries: usize) -> Slots {
        let bits = (2 * entries).next_power_of_two().trailing_zeros();
        Slots { ids: vec![EMPTY; 1 << bits], shift: u64::BITS - bits }
    }

    #[inline]
    fn first(&self, key: Key, length: usize) -> usize {
        (key.hash(length) >> self.shift) as usize
    }

    #[inline]
    fn after(&self, slot: usize) -> usize {
        (slot + 1) & (self.ids.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_and_counts_are_those_of_a_map(
            words in prop::collection::vec(prop_oneof!["[ab]{1,3}", "x[ab]{14,18}", "abcdefgh[ab]{0,9}hgfedcba", "é{3,9}"], 0..200),
        ) {
            let text = words.join(" ");
            let found = Vocabulary::of(&text);
            let mut expected: Vec<&str> = Vec::new();
            let mut numbers = HashMap::new();
            for (position, word) in words.iter().enumerate() {
                let number = *numbers.entry(word.as_str()).or_insert_with(|| {
                    expected.push(word);
                    expected.len() - 1
                });
                prop_assert_eq!(found.ids[position] as usize, number);
            }
            prop_assert_eq!(found.ids.len(), words.len());
            prop_assert_eq!(found.entries.iter().map(|entry| entry.word).collect::<Vec<_>>(), expected);
            for entry in &found.entries {
                let bytes = entry.word.as_bytes();
                let byte = |at: usize| bytes.get(at).copied().unwrap_or(0);
                prop_assert_eq!(entry.first_bytes(), [byte(0), byte(1)]);
                prop_assert_eq!(entry.last_bytes(), [1, 2, 3].map(|back| bytes.len().checked_sub(back).map_or(0, byte)));
                let count = words.iter().filter(|word| word.as_str() == entry.word).count();
                prop_assert_eq!(entry.count as usize, count);
            }
        }
    }
}
