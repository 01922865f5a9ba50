//! Lengths of documents and paragraphs in bytes, code points and words of several kinds.

use super::text::word_break;
use super::{Span, Tagger, Text};
use crate::error::Result;
use crate::unicode::{strip, Classes, WHITE_SPACE, WORD};

/// One number for the whole document.
pub struct DocumentLength {
    /// Span type.
    pub kind: &'static str,
    /// Measures the text.
    pub length: fn(&Text<'_>) -> usize,
}

impl Tagger for DocumentLength {
    fn tag(&self, text: &Text<'_>, spans: &mut Vec<Span>) -> Result<()> {
        spans.push(text.whole(self.kind, (self.length)(text) as f64));
        Ok(())
    }
}

/// One number for each paragraph that is not blank, and their sum.
pub struct ParagraphLengths {
    /// Measures a paragraph, newline and all.
    pub length: fn(&str) -> usize,
    /// Measures the document; without it, the sum of the paragraphs.
    pub document_length: Option<fn(&Text<'_>) -> usize>,
}

impl Tagger for ParagraphLengths {
    fn tag(&self, text: &Text<'_>, spans: &mut Vec<Span>) -> Result<()> {
        let mut sum = 0;
        for paragraph in text.filled_paragraphs() {
            let length = (self.length)(paragraph.text);
            sum += length;
            spans.push(paragraph.span("paragraph", length as f64));
        }
        let length = self.document_length.map_or(sum, |measure| measure(text));
        spans.push(text.whole("document", length as f64));
        Ok(())
    }
}

/// `uniseg_length_paragraphs_v1` and its kin: words by Unicode rules, also negated because old mixers only knew "at least".
pub struct WordsOfParagraphs {
    /// Whether blank paragraphs are measured too.
    pub with_empty: bool,
    /// Whether the document gets the sum.
    pub with_document: bool,
}

impl Tagger for WordsOfParagraphs {
    fn tag(&self, text: &Text<'_>, spans: &mut Vec<Span>) -> Result<()> {
        let mut sum = 0;
        for paragraph in text.paragraphs().iter().filter(|paragraph| self.with_empty || !paragraph.content.is_empty()) {
            let length = num_filled_unicode_words(paragraph.text);
            sum += length;
            spans.push(paragraph.span("paragraph", length as f64));
            spans.push(paragraph.span("negative_paragraph", 0.0 - length as f64));
        }
        if self.with_document {
            spans.push(text.whole("document", sum as f64));
            spans.push(text.whole("negative_document", 0.0 - sum as f64));
        }
        Ok(())
    }
}

/// Code points without the white space around the text.
pub fn stripped_chars(text: &Text<'_>) -> usize {
    text.count_chars(strip(text.as_str()))
}

/// Runs of word characters and runs of other characters, and one more: dolma 1.2.1 counts the pieces between them.
pub fn num_word_runs_and_one(text: &str) -> usize {
    let classes = Classes::get();
    let mut count = 1;
    let mut last = WHITE_SPACE;
    for character in text.chars() {
        let class = classes.of(character) & (WORD | WHITE_SPACE);
        count += usize::from(class != last && class != WHITE_SPACE);
        last = class;
    }
    count
}

/// Words by UAX 29, white space between them too, of the stripped text.
pub fn num_unicode_words(text: &str) -> usize {
    word_break::count(strip(text)).all
}

/// Words by UAX 29 that are not white space.
pub fn num_filled_unicode_words(text: &str) -> usize {
    word_break::count(strip(text)).filled
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores(tagger: &dyn Tagger, text: &str) -> Vec<(usize, usize, f64)> {
        let mut spans = Vec::new();
        tagger.tag(&Text::new(text), &mut spans).unwrap();
        spans.iter().map(|span| (span.start, span.end, span.score)).collect()
    }

    #[test]
    fn word_runs_are_one_too_many() {
        assert_eq!(num_word_runs_and_one(""), 1);
        assert_eq!(num_word_runs_and_one(" \n"), 1);
        assert_eq!(num_word_runs_and_one("don't: ok"), 6);
        assert_eq!(num_word_runs_and_one("a\u{1c}b"), 4);
    }

    #[test]
    fn unicode_words_leave_out_white_space() {
        assert_eq!(num_unicode_words(" The quick (“brown”) fox can’t jump 32.3 feet, right? "), 23);
        assert_eq!(num_filled_unicode_words(" The quick (“brown”) fox can’t jump 32.3 feet, right? "), 15);
        assert_eq!(num_unicode_words(" \n"), 0);
    }

    #[test]
    fn empty_paragraphs_are_zero_not_minus_zero() {
        let spans = scores(&WordsOfParagraphs { with_empty: true, with_document: true }, "a b\n\n");
        assert_eq!(spans, [(0, 4, 2.0), (0, 4, -2.0), (4, 5, 0.0), (4, 5, 0.0), (0, 5, 2.0), (0, 5, -2.0)]);
        assert!(spans.iter().all(|span| span.2 != 0.0 || span.2.is_sign_positive()));
    }
}
