//! The words of a text, with a short way for parts in ASCII, where few of the rules of Unicode Standard Annex 29 matter.

use unicode_segmentation::{UWordBounds, UnicodeSegmentation};

/// The words of a text: the pieces between word boundaries (Unicode Standard Annex 29) that are not white space.
pub fn words(text: &str) -> Words<'_> {
    let ascii_end = if text.is_ascii() { text.len() } else { 0 };
    Words { text, position: 0, ascii_end, unicode: None }
}

/// What [`words`] gives.
pub struct Words<'t> {
    text: &'t str,
    position: usize,
    /// there is only ASCII up to here, and a boundary here
    ascii_end: usize,
    /// pieces before `position` that are left
    unicode: Option<UWordBounds<'t>>,
}

impl<'t> Iterator for Words<'t> {
    type Item = &'t str;

    #[inline]
    fn next(&mut self) -> Option<&'t str> {
        loop {
            let bytes = &self.text.as_bytes()[..self.ascii_end];
            while let Some(first) = bytes.get(self.position) {
                let start = self.position;
                self.position += 1;
                if class(*first) & JOINS != 0 {
                    self.position = end_of_word(bytes, start);
                    return self.text.get(start..self.position);
                }
                if class(*first) & SPACE == 0 {
                    return self.text.get(start..self.position);
                }
            }
            if self.position == self.text.len() && self.unicode.is_none() {
                return None;
            }
            if let Some(word) = self.next_after_ascii() {
                return Some(word);
            }
        }
    }
}

impl<'t> Words<'t> {
    /// What comes next: ASCII up to some spaces, or the part from spaces to spaces that has other characters. There is a
    /// boundary before a run of spaces, whatever is around it.
    #[inline(never)]
    fn next_after_ascii(&mut self) -> Option<&'t str> {
        if let Some(pieces) = &mut self.unicode {
            if let Some(word) = pieces.find(|piece| !piece.trim().is_empty()) {
                return Some(word);
            }
            self.unicode = None;
        }
        let rest = &self.text.as_bytes()[self.position..];
        let Some(other) = rest.iter().position(|byte| !byte.is_ascii()) else {
            self.ascii_end = self.text.len();
            return None;
        };
        let last_space = memchr::memrchr(b' ', &rest[..other]).unwrap_or_default();
        let spaces = rest[..last_space].iter().rev().take_while(|byte| **byte == b' ').count();
        if last_space > spaces {
            self.ascii_end = self.position + last_space - spaces;
            return None;
        }
        let follows_space = |end: &usize| {
            let before = self.text.get(..self.position + end).and_then(|text| text.chars().next_back());
            before.is_some_and(char::is_whitespace)
        };
        let spaces = memchr::memchr_iter(b' ', &rest[other..]).map(|length| other + length);
        let end = spaces.into_iter().find(|end| !follows_space(end)).unwrap_or(rest.len());
        self.unicode = self.text.get(self.position..self.position + end).map(UnicodeSegmentation::split_word_bounds);
        self.position += end;
        None
    }
}

/// Classes of the bytes of ASCII.
const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 128 {
        classes[byte] = match byte as u8 {
            b' ' | b'\t'..=b'\r' => SPACE,
            b'a'..=b'z' | b'A'..=b'Z' => JOINS | LETTER,
            b'0'..=b'9' => JOINS | DIGIT,
            b'_' => JOINS,
            b'\'' | b'.' => BETWEEN_LETTERS | BETWEEN_DIGITS, // WB6, WB7, WB11, WB12
            b':' => BETWEEN_LETTERS,                          // WB6, WB7
            b',' | b';' => BETWEEN_DIGITS,                    // WB11, WB12
            _ => 0,
        };
        byte += 1;
    }
    classes
};
/// As `str::trim` takes it.
const SPACE: u8 = 1;
/// ALetter, Numeric or ExtendNumLet: those never part (WB5, WB8 to WB10, WB13a, WB13b).
const JOINS: u8 = 2;
const BETWEEN_LETTERS: u8 = 4;
const BETWEEN_DIGITS: u8 = 8;
/// Shifted to what joins them.
const LETTER: u8 = BETWEEN_LETTERS << 2;
const DIGIT: u8 = BETWEEN_DIGITS << 2;

fn class(byte: u8) -> u8 {
    CLASSES[usize::from(byte)]
}

/// Where the word that begins at `start` with a letter, digit or underscore ends.
#[inline]
fn end_of_word(bytes: &[u8], start: usize) -> usize {
    let mut end = start + 1;
    loop {
        while bytes.get(end).is_some_and(|byte| class(*byte) & JOINS != 0) {
            end += 1;
        }
        let (Some(&middle), Some(&after)) = (bytes.get(end), bytes.get(end + 1)) else { return end };
        if class(middle) & (class(bytes[end - 1]) & class(after)) >> 2 == 0 {
            return end;
        }
        end += 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]
        #[test]
        fn ascii_words_are_unicode_words(text in "[ab7_'.:,; \t\r\n\\x0b\\x0c\\x00\\x1f\"/-]{0,24}") {
            let expected: Vec<&str> = text.split_word_bounds().filter(|word| !word.trim().is_empty()).collect();
            prop_assert_eq!(words(&text).collect::<Vec<_>>(), expected);
        }

        #[test]
        fn parts_in_ascii_change_nothing(text in "[ab7_'.,: \n\u{301}\u{200d}\u{a0}é中\u{1f1e9}\u{1f600}\u{5d0}\"\u{3000}]{0,24}") {
            let expected: Vec<&str> = text.split_word_bounds().filter(|word| !word.trim().is_empty()).collect();
            prop_assert_eq!(words(&text).collect::<Vec<_>>(), expected);
        }

        #[test]
        fn any_text_has_its_unicode_words(text in "(\\PC| ){0,40}") {
            let expected: Vec<&str> = text.split_word_bounds().filter(|word| !word.trim().is_empty()).collect();
            prop_assert_eq!(words(&text).collect::<Vec<_>>(), expected);
        }

        #[test]
        fn any_ascii_text_has_its_unicode_words(text in "[\\x00-\\x7f]{0,40}") {
            let expected: Vec<&str> = text.split_word_bounds().filter(|word| !word.trim().is_empty()).collect();
            prop_assert_eq!(words(&text).collect::<Vec<_>>(), expected);
        }
    }
}
