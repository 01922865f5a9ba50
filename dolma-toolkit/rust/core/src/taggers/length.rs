//! Lengths of documents and their parts.

use std::borrow::Cow;

use super::{Span, Tagger, Text};
use crate::error::Result;

/// The length of the document in code points, as one span.
pub struct CharLength;

impl Tagger for CharLength {
    fn tag(&self, text: &Text<'_>, spans: &mut Vec<Span>) -> Result<()> {
        let length = text.length_chars();
        spans.push(Span { start: 0, end: length, kind: Cow::Borrowed("length"), score: length as f64 });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_counts_code_points() {
        let mut spans = Vec::new();
        CharLength.tag(&Text::new("né\u{1F600}"), &mut spans).unwrap();
        assert_eq!(spans, [Span { start: 0, end: 3, kind: "length".into(), score: 3.0 }]);
    }
}
