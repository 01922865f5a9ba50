//! The shape of source code.

mod copyright;

use std::borrow::Cow;

use super::length::num_word_runs_and_one;
use super::{Span, Tagger, Text};
use crate::error::Result;
use crate::unicode::{Classes, LETTER, NUMBER};
pub use copyright::CopyrightComments;

/// `code_redpajama_taggers_v1`: lengths of lines and share of letters (Together Computer 2023, RedPajama-Data, GitHub filters).
pub struct CodeShape;

impl Tagger for CodeShape {
    fn tag(&self, text: &Text<'_>, spans: &mut Vec<Span>) -> Result<()> {
        let classes = Classes::get();
        let lengths: Vec<usize> = lines_of_python(text.as_str()).map(|line| text.count_chars(line)).collect();
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let mean = lengths.iter().sum::<usize>() as f64 / lengths.len().max(1) as f64;
        let (mut num_alphanumeric, mut num_letters) = (0_usize, 0_usize);
        for character in text.as_str().chars() {
            let class = classes.of(character);
            num_alphanumeric += usize::from(class & (LETTER | NUMBER) != 0);
            num_letters += usize::from(class & LETTER != 0);
        }
        let end = text.length_chars();
        let mut push = |kind, score| spans.push(Span { start: 0, end, kind: Cow::Borrowed(kind), score });
        push("max_line_length_doc", longest as f64);
        push("avg_line_length_doc", mean);
        push("alnum_prop_doc", num_alphanumeric as f64 / end.max(1) as f64);
        push("alpha_token_prop_doc", num_letters as f64 / num_word_runs_and_one(text.as_str()) as f64);
        Ok(())
    }
}

/// `str.splitlines` of Python.
pub(super) fn lines_of_python(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let is_end =
            |character| matches!(character, '\n'..='\r' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}');
        let Some((at, end)) = rest.char_indices().find(|&(_, character)| is_end(character)) else {
            return Some(std::mem::take(&mut rest));
        };
        let line = &rest[..at];
        let is_pair = end == '\r' && rest[at + 1..].starts_with('\n');
        rest = &rest[at + end.len_utf8() + usize::from(is_pair)..];
        Some(line)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_where_python_ends_them() {
        assert_eq!(lines_of_python("a\r\nb\rc\u{85}d\n\n").collect::<Vec<_>>(), ["a", "b", "c", "d", ""]);
        assert_eq!(lines_of_python("").count(), 0);
        assert_eq!(lines_of_python("x").collect::<Vec<_>>(), ["x"]);
    }
}
