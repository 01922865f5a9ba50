//! What the filters of FineWeb measure of lines (Penedo et al. 2024, section 3.6), as datatrove's `FineWebQualityFilter` defines it.

use rustc_hash::FxHashSet;

use crate::error::Result;
use crate::taggers::text::words;
use crate::taggers::{Span, Tagger, Text};

/// A line of so many characters or fewer is short (datatrove, `short_line_length`).
const SHORT_LINE_CHARS: usize = 30;

/// What a line ends with that is punctuated (datatrove, `stop_chars`).
const STOP_CHARS: [char; 5] = ['.', '\'', '"', '!', '?'];

/// `fineweb_v1`. Blank lines do not count; of lines that are equal, all but the first are duplicates.
pub struct FineWeb;

impl Tagger for FineWeb {
    fn tag(&self, text: &Text<'_>, spans: &mut Vec<Span>) -> Result<()> {
        let mut num_lines = 0_usize;
        let mut num_punctuated = 0_usize;
        let mut num_short = 0_usize;
        let mut duplicate_chars = 0;
        let mut seen: FxHashSet<&str> = FxHashSet::default();
        for paragraph in text.filled_paragraphs() {
            let line = paragraph.text.strip_suffix('\n').unwrap_or(paragraph.text);
            let length = text.count_chars(line);
            num_lines += 1;
            num_punctuated += usize::from(line.ends_with(STOP_CHARS));
            num_short += usize::from(length <= SHORT_LINE_CHARS);
            duplicate_chars += if seen.insert(line) { 0 } else { length };
        }
        let num_newlines = memchr::memchr_iter(b'\n', text.as_str().as_bytes()).count();
        let num_chars = text.length_chars() - num_newlines;
        let share = |part: usize, whole: usize| part as f64 / whole.max(1) as f64;
        spans.push(text.whole("line_punctuation_ratio", share(num_punctuated, num_lines)));
        spans.push(text.whole("short_line_ratio", share(num_short, num_lines)));
        spans.push(text.whole("duplicate_line_character_ratio", share(duplicate_chars, num_chars)));
        spans.push(text.whole("newline_to_word_ratio", share(num_newlines, words(text.as_str()).count())));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores(text: &str) -> Vec<f64> {
        let mut spans = Vec::new();
        FineWeb.tag(&Text::new(text), &mut spans).unwrap();
        spans.into_iter().map(|span| span.score).collect()
    }

    #[test]
    fn ratios_are_those_of_the_definition() {
        let long = "é".repeat(31);
        let text = format!("a b.\n\n{long}\nc'\n{long}");
        assert_eq!(scores(&text), [0.5, 0.5, 31.0 / 68.0, 4.0 / 5.0]);
        assert_eq!(scores(""), [0.0; 4]);
        assert_eq!(scores("\n\n"), [0.0, 0.0, 0.0, 2.0]);
        // white space after the stop does not count
        assert_eq!(scores("a. ")[0], 0.0);
    }
}
