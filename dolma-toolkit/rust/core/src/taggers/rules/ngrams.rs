//! How much of a text its repeated word n-grams make up, for n from 2 to 10.
//!
//! An n-gram is the pair of the two (n-1)-grams that overlap in it, so each level counts pairs of small integers. An n-gram that
//! holds an (n-1)-gram seen once is itself seen once: only positions whose two parts repeat are looked at, and in ordinary text
//! hardly any are left after a few levels.

/// Largest n of the Gopher rules (Rae et al. 2021, table A1).
pub const MAX_N: usize = 10;

/// No repeated n-gram begins here.
const UNIQUE: u32 = u32::MAX;

/// Counts for one n, in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NgramCounts {
    /// Number of words in an n-gram.
    pub n: usize,
    /// Times that the most frequent n-gram occurs; of several, the one that comes first.
    pub top_count: u64,
    /// Characters of one copy of it, without white space.
    pub top_chars: u64,
    /// Characters of all n-grams, each position counted.
    pub all_chars: u64,
    /// Characters of all n-grams that occur more than once, each copy counted.
    pub repeated_chars: u64,
}

/// Counts the n-grams of a text for each n from 2 to `MAX_N` that it is long enough for.
///
/// `word_ids[i]` is equal for equal words and below `num_ids`; `chars_before[i]` is the number of characters of the words before word i,
/// with one entry more than there are words.
pub fn count(word_ids: &[u32], num_ids: usize, chars_before: &[u64]) -> Vec<NgramCounts> {
    let num_words = word_ids.len();
    let mut word_counts = vec![0_u32; num_ids];
    for &id in word_ids {
        word_counts[id as usize] += 1;
    }
    // group[i]: number of the n-gram at word i, if it is repeated
    let ids = word_ids.iter().map(|&id| if word_counts[id as usize] > 1 { id } else { UNIQUE });
    let mut group: Vec<u32> = ids.chain([UNIQUE]).collect();
    let mut repeated: Vec<u32> = (0..num_words as u32).filter(|&at| group[at as usize] != UNIQUE).collect();
    let mut pairs = PairTable::default();
    let mut groups: Vec<Group> = Vec::new();
    let mut levels = Vec::with_capacity(MAX_N - 1);
    for n in 2..=MAX_N.min(num_words) {
        extend_by_one_word(&mut group, &mut repeated, &mut pairs, &mut groups);
        let chars_at = |at: usize| chars_before[at + n] - chars_before[at];
        let mut top = Group { pair: 0, count: 1, first: 0 };
        for &candidate in &groups {
            if candidate.count > top.count {
                top = candidate;
            }
        }
        levels.push(NgramCounts {
            n,
            top_count: u64::from(top.count),
            top_chars: chars_at(top.first as usize),
            all_chars: chars_before[num_words - n + 1..].iter().sum::<u64>() - chars_before[..n].iter().sum::<u64>(),
            repeated_chars: repeated.iter().map(|&at| chars_at(at as usize)).sum(),
        });
    }
    levels
}

#[derive(Clone, Copy)]
struct Group {
    /// The numbers of the two parts.
    pair: u64,
    count: u32,
    first: u32,
}

/// Turns the repeated (n-1)-grams into the repeated n-grams; `groups` are those and perhaps a few that come once, by first place.
///
/// Counts of hashes exclude most pairs that come once. This takes no branches, because a processor could not predict them.
fn extend_by_one_word(group: &mut [u32], repeated: &mut Vec<u32>, pairs: &mut PairTable, groups: &mut Vec<Group>) {
    pairs.clear(repeated.len());
    groups.clear();
    let PairTable { counts, found, shift, .. } = pairs;
    found.clear();
    found.resize(repeated.len(), (0, 0));
    let mut num_found = 0;
    for &at in repeated.iter() {
        // the number after the last word is `UNIQUE`
        let [here, next] = [group[at as usize], group[at as usize + 1]];
        group[at as usize] = UNIQUE;
        let pair = u64::from(here) << 32 | u64::from(next);
        found[num_found] = (pair, at);
        num_found += usize::from(next != UNIQUE);
        let count = &mut counts[slot(pair, *shift)];
        *count = count.saturating_add(u8::from(next != UNIQUE));
    }
    let mut num_likely = 0;
    for at in 0..num_found {
        found[num_likely] = found[at];
        num_likely += usize::from(counts[slot(found[at].0, *shift)] > 1);
    }
    repeated.clear();
    for index in 0..num_likely {
        let (pair, at) = pairs.found[index];
        group[at as usize] = pairs.add(pair, at, groups);
        repeated.push(at);
    }
    repeated.retain(|&at| {
        let here = &mut group[at as usize];
        if groups[*here as usize].count == 1 {
            *here = UNIQUE;
        }
        *here != UNIQUE
    });
}

/// Fibonacci hashing: Knuth, The Art of Computer Programming, volume 3, section 6.4.
#[inline]
fn slot(pair: u64, shift: u32) -> usize {
    (pair.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> shift) as usize
}

/// Finds the number of a pair; open addressing, at most half full. The pairs themselves are in the groups, so that the slots are small.
#[derive(Default)]
struct PairTable {
    slots: Vec<u32>,
    /// How many pairs have each slot, to 255.
    counts: Vec<u8>,
    /// Pairs and their places.
    found: Vec<(u64, u32)>,
    shift: u32,
}

impl PairTable {
    fn clear(&mut self, max_pairs: usize) {
        let bits = (2 * max_pairs).next_power_of_two().trailing_zeros().max(4);
        self.slots.clear();
        self.slots.resize(1 << bits, UNIQUE);
        self.counts.clear();
        self.counts.resize(1 << bits, 0);
        self.shift = u64::BITS - bits;
    }

    /// The group of the pair, with one n-gram more: the one at `at`.
    #[inline]
    fn add(&mut self, pair: u64, at: u32, groups: &mut Vec<Group>) -> u32 {
        let mut slot = slot(pair, self.shift);
        loop {
            let number = self.slots[slot];
            match groups.get_mut(number as usize) {
                None => {
                    let number = groups.len() as u32;
                    self.slots[slot] = number;
                    groups.push(Group { pair, count: 1, first: at });
                    return number;
                }
                Some(group) if group.pair == pair => {
                    group.count += 1;
                    return number;
                }
                Some(_) => slot = (slot + 1) & (self.slots.len() - 1),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn by_definition(words: &[&str]) -> Vec<NgramCounts> {
        let mut levels = Vec::new();
        for n in 2..=MAX_N.min(words.len()) {
            let mut counts: Vec<(&[&str], u64)> = Vec::new();
            let mut index: HashMap<&[&str], usize> = HashMap::new();
            for ngram in words.windows(n) {
                let at = *index.entry(ngram).or_insert_with(|| {
                    counts.push((ngram, 0));
                    counts.len() - 1
                });
                counts[at].1 += 1;
            }
            let chars = |ngram: &[&str]| ngram.iter().map(|word| word.len() as u64).sum::<u64>();
            let top_count = counts.iter().map(|entry| entry.1).max().unwrap();
            let top = counts.iter().find(|entry| entry.1 == top_count).unwrap();
            levels.push(NgramCounts {
                n,
                top_count,
                top_chars: chars(top.0),
                all_chars: counts.iter().map(|(ngram, count)| count * chars(ngram)).sum(),
                repeated_chars: counts
                    .iter()
                    .filter(|entry| entry.1 > 1)
                    .map(|(ngram, count)| count * chars(ngram))
                    .sum(),
            });
        }
        levels
    }

    fn counted(words: &[&str]) -> Vec<NgramCounts> {
        let mut ids = HashMap::new();
        let mut chars_before = vec![0];
        let mut word_ids = Vec::new();
        for word in words {
            let next = ids.len() as u32;
            word_ids.push(*ids.entry(*word).or_insert(next));
            chars_before.push(chars_before.last().unwrap() + word.len() as u64);
        }
        count(&word_ids, ids.len(), &chars_before)
    }

    #[test]
    fn counts_are_those_of_the_definition() {
        let mut state = 7_u64;
        let vocabulary = ["a", "bb", "ccc", "dddd", "e"];
        for num_words in 0..120 {
            for num_kinds in 1..=vocabulary.len() {
                let words: Vec<&str> = (0..num_words)
                    .map(|_| {
                        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                        vocabulary[(state >> 33) as usize % num_kinds]
                    })
                    .collect();
                assert_eq!(counted(&words), by_definition(&words), "{words:?}");
            }
        }
    }

    #[test]
    fn the_first_ngram_wins_when_all_are_seen_once() {
        assert_eq!(
            counted(&["aa", "b", "c"])[0],
            NgramCounts { n: 2, top_count: 1, top_chars: 3, all_chars: 5, repeated_chars: 0 }
        );
    }

    #[test]
    fn a_text_of_one_word_has_none() {
        assert!(counted(&["a"]).is_empty());
        assert!(counted(&[]).is_empty());
    }
}
