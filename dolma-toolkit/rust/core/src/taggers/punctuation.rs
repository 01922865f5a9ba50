//! Paragraphs without letters and digits.

use super::{Span, Tagger, Text};
use crate::error::Result;
use crate::unicode::{Classes, PICTURE, PUNCTUATION_OR_SYMBOL, WHITE_SPACE};

/// `not_alphanum_paragraph_v1`: paragraphs of only punctuation, symbols, pictures and white space.
pub struct PunctuationParagraphs;

impl Tagger for PunctuationParagraphs {
    fn tag(&self, text: &Text<'_>, spans: &mut Vec<Span>) -> Result<()> {
        let classes = Classes::get();
        let before = spans.len();
        for paragraph in text.filled_paragraphs() {
            let may_stand = |character| classes.has(character, PUNCTUATION_OR_SYMBOL | WHITE_SPACE | PICTURE);
            if paragraph.text.chars().all(may_stand) {
                spans.push(paragraph.span("all_punct", 1.0));
            }
        }
        if spans.len() == before {
            spans.push(text.whole("all_punct", 0.0));
        }
        Ok(())
    }
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
    fn punctuation_paragraphs() {
        assert_eq!(scores(&PunctuationParagraphs, "a\n* * $\u{2603}\n\u{1F600}"), [(2, 9, 1.0), (9, 10, 1.0)]);
        assert_eq!(scores(&PunctuationParagraphs, "é\n \n"), [(0, 4, 0.0)]);
    }
}
