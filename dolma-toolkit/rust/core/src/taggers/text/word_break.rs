//! Words by Unicode Standard Annex 29, revision 45 (Unicode 16), section 4.1.1; counted, not cut out.

use crate::unicode::{is_space, Classes, PICTOGRAPH, WORD_BREAK_SHIFT};

/// Values of Word_Break; 0 is Other.
const CR: u8 = 1;
const LF: u8 = 2;
const NEWLINE: u8 = 3;
const EXTEND: u8 = 4;
const ZWJ: u8 = 6;
const A_LETTER: u8 = 7;
const HEBREW_LETTER: u8 = 8;
const NUMERIC: u8 = 9;
const KATAKANA: u8 = 10;
const EXTEND_NUM_LET: u8 = 11;
const SINGLE_QUOTE: u8 = 12;
const DOUBLE_QUOTE: u8 = 13;
const MID_NUM_LET: u8 = 14;
const MID_LETTER: u8 = 15;
const MID_NUM: u8 = 16;
const REGIONAL_INDICATOR: u8 = 17;
const W_SEG_SPACE: u8 = 18;

/// Numbers of words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WordCounts {
    /// All pieces between boundaries.
    pub all: usize,
    /// Those that are not only white space.
    pub filled: usize,
}

/// Counts the words of a text.
pub fn count(text: &str) -> WordCounts {
    let mut counts = WordCounts::default();
    let mut context = Context::default();
    let mut is_filled = false;
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        let after = &rest[character.len_utf8()..];
        if context.breaks_before(character, after) {
            counts.filled += usize::from(is_filled);
            counts.all += 1;
            is_filled = false;
        }
        is_filled = is_filled || !is_space(character);
        context.push(character);
        rest = after;
        if context.last == A_LETTER {
            // letters, digits and underscores of ASCII never part
            let run = rest.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count();
            if run > 1 {
                rest = &rest[run - 1..];
            }
        }
    }
    counts.filled += usize::from(is_filled);
    counts
}

/// Where the words of a text begin, in bytes; each ends where the next begins.
pub fn starts(text: &str) -> Vec<usize> {
    let mut context = Context::default();
    let mut found = Vec::new();
    for (at, character) in text.char_indices() {
        if context.breaks_before(character, &text[at + character.len_utf8()..]) {
            found.push(at);
        }
        context.push(character);
    }
    found
}

/// What is before a place in the text.
#[derive(Default)]
struct Context {
    /// Nothing is before the first character.
    is_begun: bool,
    /// The character right before.
    adjacent: u8,
    /// The last and the last but one character that are neither Extend, Format nor ZWJ (rule WB4).
    last: u8,
    last_but_one: u8,
    /// Regional indicators that end with `last` and are not yet in a pair: 0 or 1.
    unpaired_indicators: u8,
}

impl Context {
    fn breaks_before(&self, character: char, after: &str) -> bool {
        let class = Classes::get().of(character);
        let this = (class >> WORD_BREAK_SHIFT) as u8;
        if !self.is_begun {
            return true;
        }
        let is_newline = |value| matches!(value, CR | LF | NEWLINE);
        if is_newline(self.adjacent) || is_newline(this) {
            return (self.adjacent, this) != (CR, LF); // WB3, WB3a, WB3b
        }
        let joins_pictograph = self.adjacent == ZWJ && class & PICTOGRAPH != 0; // WB3c
        let is_space_run = self.adjacent == W_SEG_SPACE && this == W_SEG_SPACE; // WB3d
        !(joins_pictograph || is_space_run || is_skipped(this) || self.joins(this, after))
    }

    /// Rules WB5 to WB16.
    fn joins(&self, this: u8, after: &str) -> bool {
        let next =
            || after.chars().map(|character| Classes::get().word_break(character)).find(|&value| !is_skipped(value));
        let next_is = |wanted: fn(u8) -> bool| next().is_some_and(wanted);
        match (self.last, this) {
            (A_LETTER | HEBREW_LETTER | NUMERIC, A_LETTER | HEBREW_LETTER | NUMERIC) => true, // WB5, WB8, WB9, WB10
            (HEBREW_LETTER, SINGLE_QUOTE) => true,                                            // WB7a
            (A_LETTER | HEBREW_LETTER, SINGLE_QUOTE | MID_NUM_LET | MID_LETTER) => next_is(is_letter), // WB6
            (SINGLE_QUOTE | MID_NUM_LET | MID_LETTER, A_LETTER | HEBREW_LETTER) => is_letter(self.last_but_one), // WB7
            (HEBREW_LETTER, DOUBLE_QUOTE) => next_is(|value| value == HEBREW_LETTER),         // WB7b
            (DOUBLE_QUOTE, HEBREW_LETTER) => self.last_but_one == HEBREW_LETTER,              // WB7c
            (SINGLE_QUOTE | MID_NUM_LET | MID_NUM, NUMERIC) => self.last_but_one == NUMERIC,  // WB11
            (NUMERIC, SINGLE_QUOTE | MID_NUM_LET | MID_NUM) => next_is(|value| value == NUMERIC), // WB12
            (KATAKANA, KATAKANA) => true,                                                     // WB13
            (A_LETTER | HEBREW_LETTER | NUMERIC | KATAKANA | EXTEND_NUM_LET, EXTEND_NUM_LET) => true, // WB13a
            (EXTEND_NUM_LET, A_LETTER | HEBREW_LETTER | NUMERIC | KATAKANA) => true,          // WB13b
            (REGIONAL_INDICATOR, REGIONAL_INDICATOR) => self.unpaired_indicators == 1,        // WB15, WB16
            _ => false,
        }
    }

    fn push(&mut self, character: char) {
        let this = Classes::get().word_break(character);
        self.is_begun = true;
        self.adjacent = this;
        if !is_skipped(this) {
            (self.last_but_one, self.last) = (self.last, this);
            self.unpaired_indicators = u8::from(this == REGIONAL_INDICATOR && self.unpaired_indicators == 0);
        }
    }
}

fn is_skipped(value: u8) -> bool {
    (EXTEND..=ZWJ).contains(&value)
}

fn is_letter(value: u8) -> bool {
    matches!(value, A_LETTER | HEBREW_LETTER)
}

#[cfg(test)]
mod tests {
    use unicode_segmentation::UnicodeSegmentation;

    use super::*;

    fn by_crate(text: &str) -> WordCounts {
        let is_filled = |word: &&str| !word.chars().all(is_space);
        WordCounts { all: text.split_word_bounds().count(), filled: text.split_word_bounds().filter(is_filled).count() }
    }

    #[test]
    fn counts_are_those_of_another_implementation() {
        let alphabet = [
            "a",
            "b",
            "7",
            "_",
            "'",
            "\"",
            ".",
            ":",
            ",",
            ";",
            " ",
            "  ",
            "\r",
            "\n",
            "\u{85}",
            "\u{301}",
            "\u{ad}",
            "א",
            "ア",
            "漢",
            "\u{1F1E6}",
            "\u{1F469}",
            "\u{1f}",
            "\u{3000}",
            "word",
            "£",
        ];
        let mut state = 5_u64;
        let mut next = move |bound: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % bound
        };
        for _ in 0..30_000 {
            let text: String = (0..next(12)).map(|_| alphabet[next(alphabet.len())]).collect();
            assert_eq!(count(&text), by_crate(&text), "{text:?}");
        }
    }

    #[test]
    fn joiners_join_pictographs_and_nothing_before_a_full_stop() {
        assert_eq!(count("\u{1F469}\u{200d}\u{1F4BB}"), WordCounts { all: 1, filled: 1 });
        // unicode-segmentation 1.13 gives one word; WB6 wants a letter after the full stop
        assert_eq!(count("roommates.\u{200d}\u{2640}\u{fe0f}"), WordCounts { all: 2, filled: 2 });
        assert_eq!(count("\u{1F1E6}\u{1F1E7}\u{301}\u{1F1E8}"), WordCounts { all: 2, filled: 2 });
        assert_eq!(count("a\u{200d}b \u{200d}\t"), WordCounts { all: 3, filled: 2 });
        assert_eq!(count(""), WordCounts { all: 0, filled: 0 });
    }
}
