//! The quality and repetition rules of Gopher (Rae et al. 2021, section A.1.1 and table A1) as dolma 1.2.1 computes them.

use std::borrow::Cow;

use rustc_hash::FxHashMap;

use super::ngrams::{self, NgramCounts};
use crate::error::Result;
use crate::taggers::{Span, Tagger, Text};
use crate::unicode::{Classes, LETTER};

/// The words of which a text must have two, without "with" in some copies of the paper; compared with case.
pub(super) const REQUIRED_WORDS: [&str; 8] = ["the", "be", "to", "of", "and", "that", "have", "with"];

pub(super) const TOP_NGRAM_KINDS: [&str; 3] = [
    "fraction_of_characters_in_most_common_2grams",
    "fraction_of_characters_in_most_common_3grams",
    "fraction_of_characters_in_most_common_4grams",
];
pub(super) const DUPLICATE_NGRAM_KINDS: [&str; 6] = [
    "fraction_of_characters_in_duplicate_5grams",
    "fraction_of_characters_in_duplicate_6grams",
    "fraction_of_characters_in_duplicate_7grams",
    "fraction_of_characters_in_duplicate_8grams",
    "fraction_of_characters_in_duplicate_9grams",
    "fraction_of_characters_in_duplicate_10grams",
];

/// `gopher_v1`, and `gopher_v2` which takes several newlines for one.
pub struct Gopher {
    /// Whether lines are what is between runs of newlines.
    pub skip_empty_lines: bool,
}

impl Tagger for Gopher {
    fn tag(&self, text: &Text<'_>, spans: &mut Vec<Span>) -> Result<()> {
        let words = WordStatistics::of(text);
        let lines = LineStatistics::of(text, self.skip_empty_lines);
        let word_chars = words.chars.max(1) as f64;
        let end = text.length_chars();
        let mut push = |kind, score| spans.push(Span { start: 0, end, kind: Cow::Borrowed(kind), score });
        for level in &words.ngrams {
            match level.n {
                2..=4 => push(TOP_NGRAM_KINDS[level.n - 2], (level.top_count * level.top_chars) as f64 / word_chars),
                _ => push(
                    DUPLICATE_NGRAM_KINDS[level.n - 5],
                    level.repeated_chars as f64 / level.all_chars.max(1) as f64,
                ),
            }
        }
        let num_words = words.num_words.max(1) as f64;
        let num_lines = lines.num_lines.max(1) as f64;
        push("character_count", end as f64);
        push("word_count", words.num_words as f64);
        push("median_word_length", median(&words.lengths));
        push("symbol_to_word_ratio", words.num_with_symbol as f64 / num_words);
        push("fraction_of_words_with_alpha_character", words.num_with_letter as f64 / num_words);
        push("required_word_count", words.num_required as f64);
        push("fraction_of_lines_starting_with_bullet_point", lines.num_bullets as f64 / num_lines);
        push("fraction_of_lines_ending_with_ellipsis", lines.num_ellipses as f64 / num_lines);
        push("fraction_of_duplicate_lines", lines.num_duplicates as f64 / num_lines);
        push("fraction_of_characters_in_duplicate_lines", lines.duplicate_chars as f64 / word_chars);
        Ok(())
    }
}

#[derive(Default)]
struct WordStatistics {
    num_words: usize,
    /// The lengths of the words in code points, and how many have each; rising.
    lengths: Vec<(u32, usize)>,
    /// Code points of all words.
    chars: u64,
    num_with_symbol: usize,
    num_with_letter: usize,
    num_required: usize,
    ngrams: Vec<NgramCounts>,
}

impl WordStatistics {
    fn of(text: &Text<'_>) -> WordStatistics {
        let classes = Classes::get();
        let vocabulary = text.vocabulary();
        let mut statistics = WordStatistics { num_words: vocabulary.ids.len(), ..WordStatistics::default() };
        let text_has_symbol = has_symbol(text.as_str());
        let is_letter = |word: &str| {
            word.bytes().any(|byte| byte.is_ascii_alphabetic())
                || word.chars().any(|character| classes.has(character, LETTER))
        };
        let mut lengths: Vec<u32> = Vec::with_capacity(vocabulary.entries.len());
        let mut histogram = Histogram::default();
        for entry in &vocabulary.entries {
            let (word, count) = (entry.word, entry.count as usize);
            let length = text.count_chars(word) as u32;
            lengths.push(length);
            histogram.add(length, count);
            statistics.num_with_symbol += if text_has_symbol && has_symbol(word) { count } else { 0 };
            let has_letter = entry.first_bytes()[0].is_ascii_alphabetic() || is_letter(word);
            statistics.num_with_letter += if has_letter { count } else { 0 };
            statistics.num_required += if is_required(word) { count } else { 0 };
        }
        let mut chars_before = Vec::with_capacity(vocabulary.ids.len() + 1);
        chars_before.push(0);
        for &id in &vocabulary.ids {
            statistics.chars += u64::from(lengths[id as usize]);
            chars_before.push(statistics.chars);
        }
        statistics.ngrams = ngrams::count(&vocabulary.ids, vocabulary.entries.len(), &chars_before);
        statistics.lengths = histogram.rising();
        statistics
    }
}

/// How many words have each length.
struct Histogram {
    short: [usize; 64],
    long: Vec<(u32, usize)>,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { short: [0; 64], long: Vec::new() }
    }
}

impl Histogram {
    fn add(&mut self, length: u32, count: usize) {
        match self.short.get_mut(length as usize) {
            Some(total) => *total += count,
            None => self.long.push((length, count)),
        }
    }

    fn rising(mut self) -> Vec<(u32, usize)> {
        self.long.sort_unstable();
        let short = (0..).zip(self.short).filter(|(_, count)| *count > 0);
        short.chain(self.long).collect()
    }
}

fn has_symbol(text: &str) -> bool {
    let bytes = text.as_bytes();
    memchr::memchr(b'#', bytes).is_some() || memchr::memmem::find(bytes, "\u{2026}".as_bytes()).is_some()
}

fn is_required(word: &str) -> bool {
    (2..=4).contains(&word.len()) && REQUIRED_WORDS.contains(&word)
}

#[derive(Default)]
struct LineStatistics {
    num_lines: usize,
    num_bullets: usize,
    num_ellipses: usize,
    /// Lines that occur more than once, each copy counted.
    num_duplicates: usize,
    /// Code points of those.
    duplicate_chars: usize,
}

impl LineStatistics {
    fn of(text: &Text<'_>, skip_empty: bool) -> LineStatistics {
        let mut statistics = LineStatistics::default();
        let string = text.as_str();
        if string.is_empty() {
            return statistics;
        }
        let mut seen: FxHashMap<&str, bool> = FxHashMap::default();
        seen.reserve(string.len() / 128);
        let mut start = 0;
        loop {
            let end = memchr::memchr(b'\n', &string.as_bytes()[start..]).map_or(string.len(), |length| start + length);
            let line = &string[start..end];
            statistics.num_lines += 1;
            statistics.num_bullets += usize::from(line.starts_with(['*', '-']));
            statistics.num_ellipses += usize::from(line.ends_with('\u{2026}'));
            let copies = seen.entry(line).and_modify(|is_counted| {
                // the first copy counts as soon as there is a second
                let newly = if *is_counted { 1 } else { 2 };
                statistics.num_duplicates += newly;
                statistics.duplicate_chars += newly * text.count_chars(line);
                *is_counted = true;
            });
            copies.or_insert(false);
            if end == string.len() {
                return statistics;
            }
            start = end + 1;
            while skip_empty && string.as_bytes().get(start) == Some(&b'\n') {
                start += 1;
            }
        }
    }
}

/// The middle of values that rise, each with how often it comes, or the mean of the two middle ones; 0 of nothing.
fn median(values: &[(u32, usize)]) -> f64 {
    let total: usize = values.iter().map(|(_, count)| count).sum();
    let at = |place: usize| {
        let mut before = 0;
        let found = values.iter().find(|(_, count)| {
            before += count;
            before > place
        });
        found.map_or(0.0, |(value, _)| f64::from(*value))
    };
    (at(total.saturating_sub(1) / 2) + at(total / 2)) / 2.0
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn scores(text: &str, skip_empty_lines: bool) -> HashMap<String, f64> {
        let mut spans = Vec::new();
        Gopher { skip_empty_lines }.tag(&Text::new(text), &mut spans).unwrap();
        let length = text.chars().count();
        assert!(spans.iter().all(|span| (span.start, span.end) == (0, length)));
        spans.into_iter().map(|span| (span.kind.into_owned(), span.score)).collect()
    }

    #[test]
    fn an_empty_text_scores_zero_without_ngrams() {
        let scores = scores("", true);
        assert_eq!(scores.len(), 10);
        assert!(scores.values().all(|&score| score == 0.0));
    }

    #[test]
    fn repeated_pairs_count_as_often_as_they_occur() {
        let scores = scores("to be or not to be", true);
        assert_eq!(scores["fraction_of_characters_in_most_common_2grams"], 8.0 / 13.0);
        assert_eq!(scores["fraction_of_characters_in_duplicate_5grams"], 0.0);
        assert_eq!(scores["required_word_count"], 4.0);
        assert_eq!(scores["median_word_length"], 2.0);
        assert!(!scores.contains_key("fraction_of_characters_in_duplicate_7grams"));
    }

    #[test]
    fn versions_differ_in_empty_lines() {
        let text = "* a\n\n\n- b\u{2026}\n* a\n";
        let (v1, v2) = (scores(text, false), scores(text, true));
        assert_eq!(v1["fraction_of_lines_starting_with_bullet_point"], 3.0 / 6.0);
        assert_eq!(v2["fraction_of_lines_starting_with_bullet_point"], 3.0 / 4.0);
        assert_eq!(v1["fraction_of_duplicate_lines"], 5.0 / 6.0);
        assert_eq!(v2["fraction_of_duplicate_lines"], 2.0 / 4.0);
        assert_eq!(v2["fraction_of_characters_in_duplicate_lines"], 6.0 / 7.0);
        assert_eq!(v2["fraction_of_lines_ending_with_ellipsis"], 1.0 / 4.0);
    }

    #[test]
    fn letters_and_symbols_are_those_of_unicode() {
        let scores = scores("Ⓐ 1# ñ x\u{2026}y", true);
        assert_eq!(scores["symbol_to_word_ratio"], 0.5);
        assert_eq!(scores["fraction_of_words_with_alpha_character"], 0.5);
        assert_eq!(scores["median_word_length"], 1.5);
    }

    #[test]
    fn medians() {
        assert_eq!(median(&[]), 0.0);
        assert_eq!(median(&[(1, 1), (2, 1), (3, 1)]), 2.0);
        assert_eq!(median(&[(1, 1), (2, 1), (4, 1), (9, 1)]), 3.0);
        assert_eq!(median(&[(1, 1), (2, 1), (2, 1), (9, 3)]), 5.5);
    }
}
