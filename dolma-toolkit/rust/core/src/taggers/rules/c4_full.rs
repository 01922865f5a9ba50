//! All rules of C4 (Raffel et al. 2020, section 2.2) but the duplicate spans of three sentences, which are a matter of `dolma dedupe`. The paper
//! leaves details to its code in TensorFlow Datasets (`c4_utils.py`): endings, citations, policy lines, long words.

use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, AhoCorasickKind};
use regex::Regex;
use unicode_segmentation::UnicodeSegmentation;

use super::c4::has_naughty_word;
use crate::error::Result;
use crate::taggers::text::words;
use crate::taggers::{Paragraph, Span, Tagger, Text};
use crate::unicode::strip;

/// `_MIN_WORDS_PER_LINE`; a line of fewer is dropped.
const MIN_WORDS_PER_LINE: usize = 3;

/// `_MAX_WORD_LENGTH`; a line with a longer word is dropped.
const MAX_WORD_CHARS: usize = 1000;

/// `_END_MARKS`.
const END_MARKS: [char; 5] = ['.', '?', '!', '"', '\''];

/// "javascript" and `_POLICY_SUBSTRINGS`.
const SUBSTRINGS: [&str; 7] =
    ["javascript", "terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies"];

static SUBSTRING_SEARCH: LazyLock<Option<AhoCorasick>> = LazyLock::new(|| {
    let kind = Some(AhoCorasickKind::DFA);
    AhoCorasick::builder().ascii_case_insensitive(true).kind(kind).build(SUBSTRINGS).ok()
});

/// `_CITATION_REGEX`.
static CITATION: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"\[[0-9]*\]|\[edit\]|\[citation needed\]").ok());

/// `c4_full_v1`. A line has every kind that fits.
pub struct C4Full;

impl Tagger for C4Full {
    fn tag(&self, text: &Text<'_>, spans: &mut Vec<Span>) -> Result<()> {
        let string = text.as_str();
        let lower = memchr::memmem::find(&string.as_bytes().to_ascii_lowercase(), b"lorem ipsum");
        let flags = [
            ("has_curly_brace", memchr::memchr(b'{', string.as_bytes()).is_some()),
            ("has_lorem_ipsum", lower.is_some()),
            ("has_naughty_word", has_naughty_word(string)),
        ];
        spans.extend(flags.iter().filter(|flag| flag.1).map(|&(kind, _)| text.whole(kind, 1.0)));
        let mut num_sentences = 0;
        let mut num_sentences_of_any_ending = 0;
        for paragraph in text.filled_paragraphs() {
            let mut kinds = Kinds { spans: &mut *spans, paragraph, is_dropped: false };
            let citations_end = citations(text, paragraph, kinds.spans);
            let line = strip(paragraph.text);
            let mut num_words = 0;
            let mut has_long_word = false;
            for word in words(line) {
                num_words += 1;
                has_long_word =
                    has_long_word || (word.len() > MAX_WORD_CHARS && text.count_chars(word) > MAX_WORD_CHARS);
            }
            kinds.push_if(has_long_word, "line_with_long_word");
            kinds.push_if(num_words < MIN_WORDS_PER_LINE, "line_with_too_few_words");
            let mut has_javascript = false;
            let mut has_policy = false;
            for found in SUBSTRING_SEARCH.iter().flat_map(|search| search.find_iter(line)) {
                has_javascript = has_javascript || found.pattern().as_usize() == 0;
                has_policy = has_policy || found.pattern().as_usize() > 0;
            }
            kinds.push_if(has_javascript, "line_with_javascript");
            kinds.push_if(has_policy, "line_with_policy");
            let is_dropped = kinds.is_dropped;
            let content = strip(&line[..citations_end.min(line.len())]);
            kinds.push_if(!content.ends_with(END_MARKS) || content.ends_with("..."), "line_without_end_mark");
            if !is_dropped {
                let num = line.unicode_sentences().count();
                num_sentences_of_any_ending += num;
                num_sentences += if kinds.is_dropped { 0 } else { num };
            }
        }
        spans.push(text.whole("sentence_count", num_sentences as f64));
        spans.push(text.whole("sentence_count_of_any_ending", num_sentences_of_any_ending as f64));
        Ok(())
    }
}

struct Kinds<'a, 'b> {
    spans: &'a mut Vec<Span>,
    paragraph: &'a Paragraph<'b>,
    is_dropped: bool,
}

impl Kinds<'_, '_> {
    fn push_if(&mut self, fits: bool, kind: &'static str) {
        if fits {
            self.spans.push(self.paragraph.span(kind, 1.0));
            self.is_dropped = true;
        }
    }
}

/// Marks citations; where the stripped line ends without those at its end, in bytes of the stripped line.
fn citations(text: &Text<'_>, paragraph: &Paragraph<'_>, spans: &mut Vec<Span>) -> usize {
    let line = strip(paragraph.text);
    let offset = line.as_ptr() as usize - paragraph.text.as_ptr() as usize;
    let mut found = Vec::new();
    if memchr::memchr(b'[', line.as_bytes()).is_some() {
        found.extend(CITATION.iter().flat_map(|citation| citation.find_iter(line)).map(|at| at.range()));
    }
    for range in &found {
        let start = paragraph.start_byte + offset;
        spans.push(text.span(start + range.start, start + range.end, "citation", 1.0));
    }
    let mut end = line.len();
    for range in found.iter().rev() {
        if !strip(&line[range.end..end]).is_empty() {
            break;
        }
        end = range.start;
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<(String, usize, usize, f64)> {
        let mut spans = Vec::new();
        C4Full.tag(&Text::new(text), &mut spans).unwrap();
        spans.into_iter().map(|span| (span.kind.into_owned(), span.start, span.end, span.score)).collect()
    }

    fn kinds(text: &str) -> Vec<String> {
        found(text).into_iter().map(|span| span.0).filter(|kind| !kind.starts_with("sentence")).collect()
    }

    #[test]
    fn each_rule_of_lines() {
        let long = "x".repeat(1001);
        for (text, expected) in [
            ("One two three.", ""),
            ("One two three", "line_without_end_mark"),
            ("One two three...", "line_without_end_mark"),
            ("He said 'yes.'", ""),
            ("One two.", "line_with_too_few_words"),
            ("Please enable JavaScript now.", "line_with_javascript"),
            ("Read our Privacy Policy here.", "line_with_policy"),
            (&format!("It is {long}."), "line_with_long_word"),
            ("A { is here.", "has_curly_brace"),
            ("It is Lorem Ipsum again.", "has_lorem_ipsum"),
        ] {
            assert_eq!(kinds(text).join(" "), expected, "{text}");
        }
    }

    #[test]
    fn citations_are_marked_and_not_looked_at() {
        let spans = found("Ünder the tree [edit] it is so.[12][citation needed]\n");
        assert_eq!(spans[0], ("citation".to_owned(), 15, 21, 1.0));
        assert_eq!(spans[1], ("citation".to_owned(), 31, 35, 1.0));
        assert_eq!(spans[2], ("citation".to_owned(), 35, 52, 1.0));
        assert_eq!(spans[3].0, "sentence_count");
        assert!(kinds("One two three[a].").is_empty());
    }

    #[test]
    fn sentences_of_kept_lines_are_counted() {
        let spans = found("One two three. Four five six!\nNo end here. It goes on\nUse cookies. Or not.\n");
        let count = |kind: &str| spans.iter().find(|span| span.0 == kind).unwrap().3;
        assert_eq!((count("sentence_count"), count("sentence_count_of_any_ending")), (2.0, 4.0));
    }
}
