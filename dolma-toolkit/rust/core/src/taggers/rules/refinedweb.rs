//! Line-wise corrections of RefinedWeb (Penedo et al. 2023, section G.2): lines and phrases that are not prose, and how much of the text
//! they are. Where the paper gives no number or list, those of DCLM's replica are taken (Li et al. 2024, appendix on RefinedWeb).

use std::sync::LazyLock;

use regex::Regex;

use crate::error::Result;
use crate::taggers::text::words;
use crate::taggers::{Paragraph, Span, Tagger, Text};
use crate::unicode::strip;

/// A line with a larger share of capitals is "mainly composed of uppercase characters".
const MAX_UPPERCASE: f64 = 0.5;

/// Phrases of navigation are looked for in lines of so many words or fewer.
const MAX_WORDS_OF_SHORT_LINE: usize = 10;

/// "A counter (e.g. 3 likes)"; the nouns are DCLM's.
static COUNTER: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let nouns = "like|share|comment|retweet|repost|quote|bookmark|upvote|downvote|download|view|follower";
    Regex::new(&format!(r"(?i)^\W*\d[\d,.]*[kmb]?\s+(?:{nouns})s?\W*$")).ok()
});

/// "sign-in" at the beginning, "Read more..." at the end, "items in cart" anywhere.
static NAVIGATION: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"(?i)^sign-in\b\s?|\s?\bread more\.\.\.$|\s?\bitems in cart\b").ok());

/// `refinedweb_v1`. A line has the first kind that fits.
pub struct RefinedWeb;

impl Tagger for RefinedWeb {
    fn tag(&self, text: &Text<'_>, spans: &mut Vec<Span>) -> Result<()> {
        let mut num_removed = 0;
        for paragraph in text.filled_paragraphs() {
            let line = strip(paragraph.text);
            let num_words = words(line).count();
            if let Some(kind) = kind_of(line, num_words) {
                spans.push(paragraph.span(kind, 1.0));
                num_removed += num_words;
            } else if num_words <= MAX_WORDS_OF_SHORT_LINE {
                num_removed += phrases(text, paragraph, line, spans);
            }
        }
        let share = num_removed as f64 / text.num_words().max(1) as f64;
        spans.push(text.whole("fraction_of_words_in_removed_lines", share));
        Ok(())
    }
}

/// Why the whole line is none of the text; it is stripped and not empty.
fn kind_of(line: &str, num_words: usize) -> Option<&'static str> {
    let num_chars = line.chars().count();
    let num_capitals = line.chars().filter(|character| character.is_uppercase()).count();
    if num_capitals as f64 > MAX_UPPERCASE * num_chars as f64 {
        return Some("uppercase_line");
    }
    if line.chars().all(char::is_numeric) {
        return Some("numeric_line");
    }
    if line.len() < 100 && COUNTER.as_ref().is_some_and(|counter| counter.is_match(line)) {
        return Some("counter_line");
    }
    (num_words == 1).then_some("one_word_line")
}

/// Marks phrases of navigation in a short line; the number of their words.
fn phrases(text: &Text<'_>, paragraph: &Paragraph<'_>, line: &str, spans: &mut Vec<Span>) -> usize {
    let Some(navigation) = NAVIGATION.as_ref() else { return 0 };
    let start = paragraph.start_byte + (line.as_ptr() as usize - paragraph.text.as_ptr() as usize);
    let mut num_words = 0;
    for found in navigation.find_iter(line) {
        num_words += words(found.as_str()).count();
        spans.push(text.span(start + found.start(), start + found.end(), "navigation_phrase", 1.0));
    }
    num_words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<(String, String, f64)> {
        let mut spans = Vec::new();
        RefinedWeb.tag(&Text::new(text), &mut spans).unwrap();
        let chars: Vec<char> = text.chars().collect();
        let part = |span: &Span| chars[span.start..span.end].iter().collect();
        spans.iter().map(|span| (span.kind.to_string(), part(span), span.score)).collect()
    }

    #[test]
    fn each_kind_of_line_is_found() {
        let text = "Élan of a line.\nCLICK Here\n2024\n1,204 likes\nHome\n";
        let kinds: Vec<_> = found(text).into_iter().map(|span| (span.0, span.1)).collect();
        let expected = [
            ("uppercase_line", "CLICK Here\n"),
            ("numeric_line", "2024\n"),
            ("counter_line", "1,204 likes\n"),
            ("one_word_line", "Home\n"),
            ("fraction_of_words_in_removed_lines", text),
        ];
        assert_eq!(kinds, expected.map(|(kind, part)| (kind.to_owned(), part.to_owned())));
        assert_eq!(found(text).last().unwrap().2, 6.0 / 10.0);
    }

    #[test]
    fn phrases_leave_the_rest_of_the_line() {
        let kinds = found(" sign-in to see it\nThe news is here. Read more...\nyou have 3 items in cart now\n");
        let parts: Vec<&str> = kinds.iter().map(|span| span.1.as_str()).take(3).collect();
        assert_eq!(parts, ["sign-in ", " Read more...", " items in cart"]);
        let long = "one two three four five six seven eight nine ten items in cart";
        assert_eq!(found(long).len(), 1);
        assert_eq!(found("")[0].2, 0.0);
    }
}
