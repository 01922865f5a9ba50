//! Substrings of at least so many bytes that stand somewhere earlier, in this document or another.
//!
//! Of every stretch of text some positions are chosen by what stands there ("winnowing": Schleimer, Wilkerson and Aiken,
//! "Winnowing: Local Algorithms for Document Fingerprinting", 2003), so that two copies have a choice in common. Where a
//! choice is found twice, all stretches around it are compared whole.

use std::collections::VecDeque;

use xxhash_rust::xxh3::xxh3_128;

use crate::bloom::fold;

/// Odd, without pattern: see `dedupe/ngrams.rs`.
const MULTIPLIER: u64 = 0xD134_2543_DE82_EF95;

/// Bytes that a fingerprint is of: the other half is for the choice.
fn gram(length: usize) -> usize {
    length.div_ceil(2)
}

/// Adds hash and position of the chosen grams of a text: at least one in each stretch of `length` bytes, and the same in equal
/// stretches.
pub fn fingerprints(text: &[u8], length: usize, found: &mut Vec<u64>) {
    let gram = gram(length);
    // grams that begin in a stretch and end in it
    let window = length - gram + 1;
    if text.len() < length {
        return;
    }
    let weight = MULTIPLIER.wrapping_pow(gram as u32 + 1);
    let mut sum = 0_u64;
    // rising hashes that may still be the least of a window
    let mut least: VecDeque<(u64, usize)> = VecDeque::new();
    let mut last = None;
    for (end, byte) in text.iter().enumerate() {
        sum = sum.wrapping_add(u64::from(*byte) + 1).wrapping_mul(MULTIPLIER);
        if let Some(before) = end.checked_sub(gram) {
            sum = sum.wrapping_sub((u64::from(text[before]) + 1).wrapping_mul(weight));
        }
        let Some(start) = (end + 1).checked_sub(gram) else { continue };
        let hash = fold(sum);
        // of equals the last is chosen: a run of one letter has few choices
        while least.back().is_some_and(|(other, _)| *other >= hash) {
            least.pop_back();
        }
        least.push_back((hash, start));
        while least.front().is_some_and(|(_, at)| at + window <= start) {
            least.pop_front();
        }
        if start + 1 < window {
            continue;
        }
        if let Some((hash, at)) = least.front().filter(|(_, at)| last != Some(*at)) {
            found.extend([*hash, *at as u64]);
            last = Some(*at);
        }
    }
}

/// Adds key (two numbers) and start of all stretches of `length` bytes around the fingerprints at these positions.
pub fn stretches(text: &[u8], length: usize, positions: &[u64], found: &mut Vec<u64>) {
    let before = length - gram(length);
    let mut next = 0;
    for position in positions {
        let position = *position as usize;
        let last = position.min(text.len().saturating_sub(length));
        for start in position.saturating_sub(before).max(next)..=last {
            let key = xxh3_128(&text[start..start + length]);
            found.extend([key as u64, (key >> 64) as u64, start as u64]);
        }
        next = next.max(last + 1);
    }
}

/// The characters of the stretches that begin at these bytes, without characters of which only a part is in them.
pub fn spans(text: &str, length: usize, starts: &[u64]) -> Vec<(usize, usize)> {
    let mut bytes: Vec<(usize, usize)> = Vec::new();
    for start in starts {
        let (start, end) = (*start as usize, *start as usize + length);
        match bytes.last_mut() {
            Some(last) if start <= last.1 => last.1 = end,
            _ => bytes.push((start, end)),
        }
    }
    let (mut counted, mut characters) = (0, 0);
    let mut character = |byte: usize| {
        characters += text[counted..byte].chars().count();
        counted = byte;
        characters
    };
    let mut spans = Vec::new();
    for (start, end) in bytes {
        let whole = |byte: &usize| text.is_char_boundary(*byte);
        let start = (start..end).find(whole).unwrap_or(end);
        let end = (start..=end).rev().find(whole).unwrap_or(start);
        if start < end {
            spans.push((character(start), character(end)));
        }
    }
    spans
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn equal_stretches_have_a_fingerprint_in_common(text in "[ab]{0,60}", other in "[ab]{0,60}", length in 4..12_usize) {
            let of = |text: &str| {
                let mut found = Vec::new();
                fingerprints(text.as_bytes(), length, &mut found);
                found
            };
            let (ours, theirs) = (of(&text), of(&other));
            for start in 0..(text.len() + 1).saturating_sub(length) {
                let stretch = &text[start..start + length];
                for (at, _) in other.match_indices(stretch) {
                    let within = |found: &[u64], start: usize| {
                        found.chunks(2).filter(|one| {
                            let at = one[1] as usize;
                            at >= start && at + gram(length) <= start + length
                        }).map(|one| (one[0], one[1] - start as u64)).collect::<Vec<_>>()
                    };
                    let mine = within(&ours, start);
                    prop_assert!(within(&theirs, at).iter().any(|one| mine.contains(one)));
                }
            }
        }

        #[test]
        fn spans_are_whole_characters(text in "[aé😀]{4,20}", starts in prop::collection::btree_set(0..40_u64, 0..6)) {
            let starts: Vec<u64> = starts.into_iter().filter(|start| *start as usize + 4 <= text.len()).collect();
            let mut expected = vec![false; text.len()];
            starts.iter().for_each(|start| expected[*start as usize..*start as usize + 4].fill(true));
            let expected: Vec<bool> = text.char_indices()
                .map(|(at, character)| expected[at..at + character.len_utf8()].iter().all(|one| *one))
                .collect();
            let mut found = vec![false; expected.len()];
            for (start, end) in spans(&text, 4, &starts) {
                found[start..end].fill(true);
            }
            prop_assert_eq!(found, expected);
        }
    }
}
