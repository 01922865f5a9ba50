//! Random numbers to sample documents by.

use super::{Span, Tagger, Text};
use crate::error::Result;

/// `random_number_v1`: a number in [0, 1) that depends only on the text, so that a sample is the same on every machine.
pub struct RandomNumber;

impl Tagger for RandomNumber {
    fn tag(&self, text: &Text<'_>, spans: &mut Vec<Span>) -> Result<()> {
        // the upper 53 bits are the mantissa of a double
        let bits = xxhash_rust::xxh3::xxh3_64(text.as_str().as_bytes()) >> 11;
        spans.push(text.whole("random", bits as f64 / (1_u64 << 53) as f64));
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
    fn random_numbers_depend_on_the_text_alone() {
        let of = |text: &str| scores(&RandomNumber, text)[0].2;
        assert_eq!(of("a"), of("a"));
        assert_ne!(of("a"), of("b"));
        let mean = (0..10_000).map(|number: i32| of(&number.to_string())).sum::<f64>() / 1e4;
        assert!((mean - 0.5).abs() < 0.02, "{mean}");
    }
}
