//! One document's text, and what several taggers need of it: computed once, when first asked for.

pub mod pretokenizer;
pub mod sentences;
pub mod vocabulary;
pub mod word_break;

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::BTreeMap;

use serde_json::value::RawValue;
use serde_json::Value;

use super::Span;
use crate::unicode::{count_bytes, count_chars, is_ascii_space, space_length, strip};
use vocabulary::Vocabulary;

/// Bytes between two remembered counts of code points.
const MARK_BYTES: usize = 256;

/// The text of one document.
pub struct Text<'a> {
    text: &'a str,
    is_ascii: OnceCell<bool>,
    length_chars: OnceCell<usize>,
    chars_before_mark: OnceCell<Vec<usize>>,
    paragraphs: OnceCell<Vec<Paragraph<'a>>>,
    num_words: OnceCell<usize>,
    vocabulary: OnceCell<Vocabulary<'a>>,
    metadata: Option<&'a RawValue>,
    fields: OnceCell<BTreeMap<String, &'a RawValue>>,
}

/// A line with its newline; the last one may have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paragraph<'a> {
    /// With the newline.
    pub text: &'a str,
    /// Byte at which it begins.
    pub start_byte: usize,
    /// Code point at which it begins.
    pub start: usize,
    /// Code point at which it ends, exclusive.
    pub end: usize,
    /// Without white space at its ends.
    pub content: &'a str,
}

impl Paragraph<'_> {
    /// A span over the whole paragraph.
    pub fn span(&self, kind: &'static str, score: f64) -> Span {
        Span { start: self.start, end: self.end, kind: Cow::Borrowed(kind), score }
    }
}

impl<'a> Text<'a> {
    /// Takes the text of a document without metadata; costs nothing yet.
    pub fn new(text: &'a str) -> Text<'a> {
        Text::with_metadata(text, None)
    }

    /// Takes the text of one document, and its metadata as they are in the row.
    pub fn with_metadata(text: &'a str, metadata: Option<&'a RawValue>) -> Text<'a> {
        Text {
            text,
            is_ascii: OnceCell::new(),
            length_chars: OnceCell::new(),
            chars_before_mark: OnceCell::new(),
            paragraphs: OnceCell::new(),
            num_words: OnceCell::new(),
            vocabulary: OnceCell::new(),
            metadata,
            fields: OnceCell::new(),
        }
    }

    /// The metadata of the row, a JSON object; parsed only by `field`.
    pub fn metadata(&self) -> Option<&'a RawValue> {
        self.metadata
    }

    /// A field of the metadata; `None` where it is absent.
    pub fn field(&self, name: &str) -> Option<Value> {
        let fields = self
            .fields
            .get_or_init(|| self.metadata.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default());
        fields.get(name).and_then(|raw| serde_json::from_str(raw.get()).ok())
    }

    /// A field of the metadata that holds text; `None` where it is absent or holds something else.
    pub fn text_field(&self, name: &str) -> Option<String> {
        match self.field(name) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    /// The text itself.
    pub fn as_str(&self) -> &'a str {
        self.text
    }

    /// Whether every character is ASCII, so that bytes and code points are the same.
    pub fn is_ascii(&self) -> bool {
        *self.is_ascii.get_or_init(|| self.text.is_ascii())
    }

    /// Length in code points.
    pub fn length_chars(&self) -> usize {
        *self.length_chars.get_or_init(|| if self.is_ascii() { self.text.len() } else { count_chars(self.text) })
    }

    /// Length in code points of a part of this text.
    pub fn count_chars(&self, part: &str) -> usize {
        if self.is_ascii() {
            part.len()
        } else {
            count_chars(part)
        }
    }

    /// The number of code points before the byte `at`, which is on a character boundary.
    pub fn code_point(&self, at: usize) -> usize {
        if self.is_ascii() {
            return at;
        }
        let marks = self.chars_before_mark.get_or_init(|| {
            let mut chars = 0;
            let before = |chunk| {
                let so_far = chars;
                chars += count_bytes(chunk, |byte| (byte as i8) >= -0x40);
                so_far
            };
            self.text.as_bytes().chunks(MARK_BYTES).map(before).chain([0]).collect()
        });
        let mark = at / MARK_BYTES;
        let (from, chars) = if mark * MARK_BYTES < self.text.len() {
            (mark * MARK_BYTES, marks[mark])
        } else {
            (at, self.length_chars())
        };
        chars + count_bytes(&self.text.as_bytes()[from..at], |byte| (byte as i8) >= -0x40)
    }

    /// A span over the whole document.
    pub fn whole(&self, kind: &'static str, score: f64) -> Span {
        Span { start: 0, end: self.length_chars(), kind: Cow::Borrowed(kind), score }
    }

    /// A span between two bytes, which are on character boundaries.
    pub fn span(&self, start_byte: usize, end_byte: usize, kind: &'static str, score: f64) -> Span {
        Span { start: self.code_point(start_byte), end: self.code_point(end_byte), kind: Cow::Borrowed(kind), score }
    }

    /// All paragraphs, blank ones too; together they are the text.
    pub fn paragraphs(&self) -> &[Paragraph<'a>] {
        self.paragraphs.get_or_init(|| {
            let mut start_byte = 0;
            let mut start = 0;
            let mut next = |line: &'a str| {
                let paragraph = Paragraph {
                    text: line,
                    start_byte,
                    start,
                    end: start + self.count_chars(line),
                    content: strip(line),
                };
                start_byte += line.len();
                start = paragraph.end;
                paragraph
            };
            let mut end = 0;
            let newlines = memchr::memchr_iter(b'\n', self.text.as_bytes()).map(|at| at + 1);
            let ends = newlines.chain((!self.text.ends_with('\n')).then_some(self.text.len()));
            ends.filter(|end| *end > 0).map(|to| next(&self.text[std::mem::replace(&mut end, to)..to])).collect()
        })
    }

    /// The paragraphs that hold more than white space.
    pub fn filled_paragraphs(&self) -> impl Iterator<Item = &Paragraph<'a>> {
        self.paragraphs().iter().filter(|paragraph| !paragraph.content.is_empty())
    }

    /// The number of words between white space.
    pub fn num_words(&self) -> usize {
        let count = || self.vocabulary.get().map_or_else(|| words(self.text).count(), |known| known.ids.len());
        *self.num_words.get_or_init(count)
    }

    /// The different words between white space, if somebody has asked for them before.
    pub fn known_vocabulary(&self) -> Option<&Vocabulary<'a>> {
        self.vocabulary.get()
    }

    /// The different words between white space.
    pub fn vocabulary(&self) -> &Vocabulary<'a> {
        self.vocabulary.get_or_init(|| Vocabulary::of(self.text))
    }
}

/// The words between white space, as `str.split` of Python gives them.
pub fn words(text: &str) -> Words<'_> {
    Words { text, at: 0 }
}

/// How many of the first of eight bytes are ASCII and neither white space nor a control character.
#[inline]
pub fn num_plain(eight: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let Ok(eight) = <[u8; 8]>::try_from(eight) else { return 0 };
    // the highest bit of each byte that is below `!` or above 127; the lowest of them is right
    let eight = u64::from_le_bytes(eight);
    let others = (eight.wrapping_sub(ONES * 0x21) & !eight | eight) & (ONES << 7);
    others.trailing_zeros() as usize / 8
}

/// Where the word that begins at `start` ends.
#[inline]
pub fn end_of_word(bytes: &[u8], start: usize) -> usize {
    let mut at = start;
    loop {
        if let Some(eight) = bytes.get(at..at + 8) {
            let num_plain = num_plain(eight);
            at += num_plain;
            if num_plain == 8 {
                continue;
            }
        }
        let Some(&byte) = bytes.get(at) else { return at };
        if if byte < 0x80 { is_ascii_space(byte) } else { byte >= 0xc2 && space_length(bytes, at) > 0 } {
            return at;
        }
        at += 1;
    }
}

/// Iterator of `words`.
pub struct Words<'a> {
    text: &'a str,
    at: usize,
}

impl Words<'_> {
    /// The bytes from which and to which the next word goes.
    #[inline]
    pub fn next_range(&mut self) -> Option<(usize, usize)> {
        let bytes = self.text.as_bytes();
        let mut start = self.at;
        loop {
            match space_length(bytes, start) {
                0 => break,
                length => start += length,
            }
        }
        self.at = end_of_word(bytes, start);
        (start < bytes.len()).then_some((start, self.at))
    }
}

impl<'a> Iterator for Words<'a> {
    type Item = &'a str;

    #[inline]
    fn next(&mut self) -> Option<&'a str> {
        self.next_range().map(|(start, end)| &self.text[start..end])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::unicode::is_space;

    #[test]
    fn code_points_count_characters_before_a_byte() {
        let string = "aé\u{1F600}\n".repeat(200);
        let text = Text::new(&string);
        for (chars, (at, _)) in string.char_indices().enumerate() {
            assert_eq!(text.code_point(at), chars);
        }
        assert_eq!(text.code_point(string.len()), 800);
        assert_eq!(text.length_chars(), 800);
        let exact = "é".repeat(MARK_BYTES / 2);
        assert_eq!(Text::new(&exact).code_point(MARK_BYTES), MARK_BYTES / 2);
        assert_eq!(Text::new("").code_point(0), 0);
    }

    #[test]
    fn paragraphs_keep_their_newlines() {
        let text = Text::new("é\n \nb");
        let seen: Vec<_> = text.paragraphs().iter().map(|p| (p.text, p.start, p.end, p.content)).collect();
        assert_eq!(seen, [("é\n", 0, 2, "é"), (" \n", 2, 4, ""), ("b", 4, 5, "b")]);
        assert_eq!(text.filled_paragraphs().count(), 2);
        assert!(Text::new("").paragraphs().is_empty());
    }

    #[test]
    fn words_are_those_of_python() {
        let split = |text| words(text).collect::<Vec<_>>();
        assert_eq!(split(" a\u{1f}b\u{3000}日本\u{a0}c\u{200b}d\n"), ["a", "b", "日本", "c\u{200b}d"]);
        assert_eq!(split("é"), ["é"]);
        assert!(split(" \n").is_empty());
        assert!(split("").is_empty());
    }

    proptest! {
        #[test]
        fn paragraphs_and_words_are_those_of_the_definition(
            text in "[ \t\r\n\n\u{1c}\u{85}\u{a0}\u{2028}\u{3000}a-d#\u{7f}éü\u{301}日\u{1F600}]{0,80}",
        ) {
            let parts = Text::new(&text);
            let mut start = 0;
            for (paragraph, line) in parts.paragraphs().iter().zip(text.split_inclusive('\n')) {
                let end = start + line.chars().count();
                prop_assert_eq!((paragraph.text, paragraph.start, paragraph.end), (line, start, end));
                prop_assert_eq!(paragraph.content, line.trim_matches(is_space));
                start = end;
            }
            prop_assert_eq!(parts.paragraphs().len(), text.split_inclusive('\n').count());
            let expected: Vec<&str> = text.split(is_space).filter(|word| !word.is_empty()).collect();
            prop_assert_eq!(words(&text).collect::<Vec<_>>(), expected);
        }
    }
}
