//! The rules of Gopher (Rae et al. 2021, section A.1.1 and table A1) as the paper states them: mean word length, both spellings of the
//! ellipsis, bullets, paragraphs, and of repeated n-grams only the repeats.

use std::borrow::Cow;

use rustc_hash::{FxHashMap, FxHashSet};

use super::gopher::{DUPLICATE_NGRAM_KINDS, REQUIRED_WORDS, TOP_NGRAM_KINDS};
use super::ngrams;
use crate::error::Result;
use crate::taggers::text::words;
use crate::taggers::{Span, Tagger, Text};
use crate::unicode::{strip, Classes, LETTER};

/// What begins the line of a list; the paper says "bullet point".
const BULLETS: [char; 6] = ['\u{2022}', '\u{2023}', '\u{25cf}', '\u{25e6}', '*', '-'];

/// `gopher_paper_v1`.
pub struct GopherPaper;

impl Tagger for GopherPaper {
    fn tag(&self, text: &Text<'_>, spans: &mut Vec<Span>) -> Result<()> {
        let string = text.as_str();
        let end = text.length_chars();
        let mut push = |kind, score| spans.push(Span { start: 0, end, kind: Cow::Borrowed(kind), score });
        let words = WordCounts::of(text);
        let num_words = words.num_words.max(1) as f64;
        let num_ellipses = string.matches("...").count() + string.matches('\u{2026}').count();
        push("word_count", words.num_words as f64);
        push("mean_word_length", words.num_chars as f64 / num_words);
        push("hash_to_word_ratio", string.matches('#').count() as f64 / num_words);
        push("ellipsis_to_word_ratio", num_ellipses as f64 / num_words);
        push("fraction_of_words_with_alpha_character", words.num_with_letter as f64 / num_words);
        push("required_word_count", words.num_required as f64);

        let lines: Vec<&str> = string.split('\n').map(strip).filter(|line| !line.is_empty()).collect();
        let num_lines = lines.len().max(1) as f64;
        let starts = lines.iter().filter(|line| line.starts_with(BULLETS)).count();
        let ends = lines.iter().filter(|line| line.ends_with("...") || line.ends_with('\u{2026}')).count();
        push("fraction_of_lines_starting_with_bullet_point", starts as f64 / num_lines);
        push("fraction_of_lines_ending_with_ellipsis", ends as f64 / num_lines);

        let num_chars = end.max(1) as f64;
        let (repeats, repeated_chars) = repeats_of(text, lines.into_iter());
        push("fraction_of_duplicate_lines", repeats as f64 / num_lines);
        push("fraction_of_characters_in_duplicate_lines", repeated_chars as f64 / num_chars);
        let paragraphs: Vec<&str> = string.split("\n\n").map(strip).filter(|part| !part.is_empty()).collect();
        let num_paragraphs = paragraphs.len().max(1) as f64;
        let (repeats, repeated_chars) = repeats_of(text, paragraphs.into_iter());
        push("fraction_of_duplicate_paragraphs", repeats as f64 / num_paragraphs);
        push("fraction_of_characters_in_duplicate_paragraphs", repeated_chars as f64 / num_chars);

        let word_chars = words.num_chars.max(1) as f64;
        for level in ngrams::count(&words.ids, words.num_different, &words.chars_before) {
            if level.n <= 4 {
                push(TOP_NGRAM_KINDS[level.n - 2], (level.top_count * level.top_chars) as f64 / word_chars);
            } else {
                // most texts have no repeat that needs to be looked at again
                let chars = if level.repeated_chars == 0 { 0 } else { words.chars_in_repeats(level.n) };
                push(DUPLICATE_NGRAM_KINDS[level.n - 5], chars as f64 / word_chars);
            }
        }
        Ok(())
    }
}

/// How many of the parts occurred before, and their characters.
fn repeats_of<'a>(text: &Text<'_>, parts: impl Iterator<Item = &'a str>) -> (usize, usize) {
    let mut seen: FxHashSet<&str> = FxHashSet::default();
    let lengths = parts.filter(|part| !seen.insert(part)).map(|part| text.count_chars(part));
    lengths.fold((0, 0), |(count, chars), length| (count + 1, chars + length))
}

struct WordCounts {
    num_words: usize,
    /// Code points of all words.
    num_chars: u64,
    num_with_letter: usize,
    /// Different required words, whatever punctuation touches them.
    num_required: usize,
    num_different: usize,
    ids: Vec<u32>,
    chars_before: Vec<u64>,
}

impl WordCounts {
    fn of(text: &Text<'_>) -> WordCounts {
        let classes = Classes::get();
        let mut kinds: FxHashMap<&str, (u32, u64, bool)> = FxHashMap::default();
        let mut required = [false; REQUIRED_WORDS.len()];
        let mut counts = WordCounts {
            num_words: 0,
            num_chars: 0,
            num_with_letter: 0,
            num_required: 0,
            num_different: 0,
            ids: Vec::new(),
            chars_before: vec![0],
        };
        for word in words(text.as_str()) {
            let next_id = kinds.len() as u32;
            let &mut (id, length, has_letter) = kinds.entry(word).or_insert_with(|| {
                let bare = word.trim_matches(|character: char| !character.is_alphanumeric());
                if let Some(at) = REQUIRED_WORDS.iter().position(|known| *known == bare) {
                    required[at] = true;
                }
                let has_letter = word.chars().any(|character| classes.has(character, LETTER));
                (next_id, text.count_chars(word) as u64, has_letter)
            });
            counts.num_words += 1;
            counts.num_chars += length;
            counts.num_with_letter += usize::from(has_letter);
            counts.ids.push(id);
            counts.chars_before.push(counts.num_chars);
        }
        counts.num_different = kinds.len();
        counts.num_required = required.iter().filter(|found| **found).count();
        counts
    }

    /// Characters of n-grams that occurred before, read from the left: after a repeat the next n-gram begins behind it, so that no
    /// character counts twice.
    fn chars_in_repeats(&self, n: usize) -> u64 {
        let mut seen: FxHashSet<&[u32]> = FxHashSet::default();
        let mut chars = 0;
        let mut at = 0;
        while let Some(ngram) = self.ids.get(at..at + n) {
            if seen.insert(ngram) {
                at += 1;
            } else {
                chars += self.chars_before[at + n] - self.chars_before[at];
                at += n;
            }
        }
        chars
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn scores(text: &str) -> HashMap<String, f64> {
        let mut spans = Vec::new();
        GopherPaper.tag(&Text::new(text), &mut spans).unwrap();
        spans.into_iter().map(|span| (span.kind.into_owned(), span.score)).collect()
    }

    #[test]
    fn an_empty_text_scores_zero() {
        let scores = scores("");
        assert_eq!(scores.len(), 12);
        assert!(scores.values().all(|&score| score == 0.0));
    }

    #[test]
    fn only_repeats_count_and_none_twice() {
        let scores = scores("a b c d e x a b c d e y");
        assert_eq!(scores["fraction_of_characters_in_duplicate_5grams"], 5.0 / 12.0);
        assert_eq!(scores["fraction_of_characters_in_duplicate_6grams"], 0.0);
        let scores = self::scores(&"a ".repeat(20));
        assert_eq!(scores["fraction_of_characters_in_duplicate_5grams"], 15.0 / 20.0);
    }

    #[test]
    fn lines_and_paragraphs_repeat() {
        let scores = scores("one\ntwo...\n\none\ntwo...\n\n \u{2022} the\n\n\n\u{2022} the, of\u{2026}");
        assert_eq!(scores["fraction_of_duplicate_lines"], 2.0 / 6.0);
        assert_eq!(scores["fraction_of_duplicate_paragraphs"], 1.0 / 4.0);
        assert_eq!(scores["fraction_of_lines_starting_with_bullet_point"], 2.0 / 6.0);
        assert_eq!(scores["fraction_of_lines_ending_with_ellipsis"], 3.0 / 6.0);
        assert_eq!(scores["required_word_count"], 2.0);
        assert_eq!(scores["ellipsis_to_word_ratio"], 3.0 / 9.0);
    }

    #[test]
    fn the_length_of_words_is_their_mean() {
        assert_eq!(scores("a é #bcd")["mean_word_length"], 2.0);
        assert_eq!(scores("a é #bcd")["hash_to_word_ratio"], 1.0 / 3.0);
    }
}
