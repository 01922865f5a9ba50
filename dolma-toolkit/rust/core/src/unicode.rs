//! Classes of characters as the string methods and regular expressions of dolma 1.2.1 define them, from Unicode 16 tables.

use std::sync::LazyLock;

use regex_syntax::hir::{Class, HirKind};

/// `\p{L}`: `str.isalpha` of Python.
pub const LETTER: u16 = 1;
/// `\p{N}`.
pub const NUMBER: u16 = 1 << 1;
/// `\p{Nd}`: `\d`.
pub const DIGIT: u16 = 1 << 2;
/// `\w` of the Python package `regex`: alphabetic characters, marks, digits, connectors, joiners (UTS 18, annex C).
pub const WORD: u16 = 1 << 3;
/// `\p{White_Space}`: `\s` of `regex` and of tokenizers. `is_space` has four control characters more.
pub const WHITE_SPACE: u16 = 1 << 4;
/// `\p{P}`: `[[:punct:]]` of tokenizers.
pub const PUNCTUATION: u16 = 1 << 5;
/// `[[:punct:]]` of `regex`: punctuation and symbols that are not alphabetic.
pub const PUNCTUATION_OR_SYMBOL: u16 = 1 << 6;
/// The blocks that `not_alphanum_paragraph_v1` counts as pictures.
pub const PICTURE: u16 = 1 << 7;
/// `\p{Extended_Pictographic}`: what a joiner joins in word breaking.
pub const PICTOGRAPH: u16 = 1 << 8;
/// The bits above this one are the value of Word_Break, one of `WORD_BREAKS`.
pub const WORD_BREAK_SHIFT: u32 = 9;

const PATTERNS: [(u16, &str); 9] = [
    (LETTER, r"\p{L}"),
    (NUMBER, r"\p{N}"),
    (DIGIT, r"\p{Nd}"),
    (WORD, r"[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]"),
    (WHITE_SPACE, r"\p{White_Space}"),
    (PUNCTUATION, r"\p{P}"),
    (PUNCTUATION_OR_SYMBOL, r"[\p{P}\p{S}--\p{Alphabetic}]"),
    (PICTURE, r"[\x{2600}-\x{27BF}\x{1F300}-\x{1F64F}\x{1F680}-\x{1F6FF}]"),
    (PICTOGRAPH, r"\p{Extended_Pictographic}"),
];

/// Values of Word_Break (UAX 29, table 3) but for Other, which is 0; the first has number 1.
const WORD_BREAKS: [&str; 18] = [
    "CR",
    "LF",
    "Newline",
    "Extend",
    "Format",
    "ZWJ",
    "ALetter",
    "Hebrew_Letter",
    "Numeric",
    "Katakana",
    "ExtendNumLet",
    "Single_Quote",
    "Double_Quote",
    "MidNumLet",
    "MidLetter",
    "MidNum",
    "Regional_Indicator",
    "WSegSpace",
];

const BLOCK: usize = 256;
const NUM_CODE_POINTS: usize = 0x11_0000;

/// Two-stage table of the classes of every code point.
pub struct Classes {
    block_of: Vec<u16>,
    blocks: Vec<[u16; BLOCK]>,
}

static CLASSES: LazyLock<Classes> = LazyLock::new(Classes::compute);

impl Classes {
    /// The table; computed when first asked for (about two milliseconds).
    pub fn get() -> &'static Classes {
        &CLASSES
    }

    /// The classes of `character`, or-ed together.
    #[inline]
    pub fn of(&self, character: char) -> u16 {
        let code_point = character as usize;
        self.blocks[usize::from(self.block_of[code_point / BLOCK])][code_point % BLOCK]
    }

    /// The value of Word_Break: a place in table 3 of UAX 29 as `word_break` numbers them, 0 for Other.
    #[inline]
    pub fn word_break(&self, character: char) -> u8 {
        (self.of(character) >> WORD_BREAK_SHIFT) as u8
    }

    /// Whether `character` is in any of `classes`.
    #[inline]
    pub fn has(&self, character: char, classes: u16) -> bool {
        self.of(character) & classes != 0
    }

    fn compute() -> Classes {
        let mut flat = vec![0_u16; NUM_CODE_POINTS];
        let classes = PATTERNS.iter().map(|&(class, pattern)| (class, pattern.to_owned()));
        let word_breaks = WORD_BREAKS
            .iter()
            .zip(1_u16..)
            .map(|(value, number)| (number << WORD_BREAK_SHIFT, format!(r"\p{{Word_Break={value}}}")));
        for (class, pattern) in classes.chain(word_breaks) {
            for (first, last) in ranges(&pattern) {
                for entry in &mut flat[first as usize..=last as usize] {
                    *entry |= class;
                }
            }
        }
        let mut table = Classes { block_of: Vec::with_capacity(NUM_CODE_POINTS / BLOCK), blocks: Vec::new() };
        for chunk in flat.chunks_exact(BLOCK) {
            let known = table.blocks.iter().position(|block| block == chunk);
            let index = known.unwrap_or_else(|| {
                let mut block = [0; BLOCK];
                block.copy_from_slice(chunk);
                table.blocks.push(block);
                table.blocks.len() - 1
            });
            table.block_of.push(index as u16);
        }
        table
    }
}

/// First and last characters of the runs in a character class, given as a pattern.
pub fn ranges(pattern: &str) -> Vec<(char, char)> {
    let Ok(hir) = regex_syntax::parse(pattern) else { unreachable!("regex-syntax knows {pattern}") };
    match hir.kind() {
        HirKind::Class(Class::Unicode(class)) => {
            class.ranges().iter().map(|range| (range.start(), range.end())).collect()
        }
        // a class of one character comes as that character
        HirKind::Literal(literal) => {
            String::from_utf8_lossy(&literal.0).chars().map(|character| (character, character)).collect()
        }
        _ => unreachable!("{pattern} is one class"),
    }
}

/// What Python's `str.split`, `str.strip`, `str.isspace` and the `\s` of its `re` call white space:
/// `\p{White_Space}` and the four separators U+001C to U+001F.
#[inline]
pub fn is_space(character: char) -> bool {
    matches!(character,
        '\t'..='\r' | '\x1c'..=' ' | '\u{85}' | '\u{a0}' | '\u{1680}' | '\u{2000}'..='\u{200a}'
        | '\u{2028}' | '\u{2029}' | '\u{202f}' | '\u{205f}' | '\u{3000}')
}

/// `is_space` of one ASCII byte; false for all others.
#[inline]
pub fn is_ascii_space(byte: u8) -> bool {
    matches!(byte, b'\t'..=b'\r' | 0x1c..=b' ')
}

/// The length in bytes of the white space character that begins at `bytes[at]`; 0 where none does.
#[inline]
pub fn space_length(bytes: &[u8], at: usize) -> usize {
    let Some(&first) = bytes.get(at) else {
        return 0;
    };
    if first < 0x80 {
        return usize::from(is_ascii_space(first));
    }
    let rest = |index: usize| bytes.get(at + index).copied().unwrap_or(0);
    match first {
        0xc2 if matches!(rest(1), 0x85 | 0xa0) => 2,
        0xe1 if (rest(1), rest(2)) == (0x9a, 0x80) => 3,
        0xe2 if rest(1) == 0x80 && matches!(rest(2), 0x80..=0x8a | 0xa8 | 0xa9 | 0xaf) => 3,
        0xe2 if (rest(1), rest(2)) == (0x81, 0x9f) => 3,
        0xe3 if (rest(1), rest(2)) == (0x80, 0x80) => 3,
        _ => 0,
    }
}

/// The length in bytes of the white space character that ends before `bytes[end]`; 0 where none does.
#[inline]
pub fn space_length_before(bytes: &[u8], end: usize) -> usize {
    match end.checked_sub(1).map(|last| bytes[last]) {
        None => 0,
        Some(last) if last < 0x80 => usize::from(is_ascii_space(last)),
        Some(_) if end >= 2 && space_length(bytes, end - 2) == 2 => 2,
        Some(_) if end >= 3 && space_length(bytes, end - 3) == 3 => 3,
        Some(_) => 0,
    }
}

/// `str.strip` of Python.
pub fn strip(text: &str) -> &str {
    let bytes = text.as_bytes();
    let mut start = 0;
    loop {
        match space_length(bytes, start) {
            0 => break,
            length => start += length,
        }
    }
    let mut end = bytes.len();
    while end > start {
        match space_length_before(bytes, end) {
            0 => break,
            length => end -= length,
        }
    }
    &text[start..end]
}

/// Length in code points.
pub fn count_chars(text: &str) -> usize {
    count_bytes(text.as_bytes(), |byte| (byte as i8) >= -0x40)
}

/// How many bytes pass a test. The sums of each chunk fit in a byte, so that a processor adds many at once.
#[inline]
pub fn count_bytes(bytes: &[u8], is_counted: impl Fn(u8) -> bool) -> usize {
    let chunks = bytes.chunks(usize::from(u8::MAX));
    chunks.map(|chunk| usize::from(chunk.iter().fold(0, |sum, &byte| sum + u8::from(is_counted(byte))))).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lengths_of_spaces_agree_with_is_space_for_every_character() {
        for character in (0..=0x10_ffff).filter_map(char::from_u32) {
            let encoded = character.to_string();
            let expected = if is_space(character) { encoded.len() } else { 0 };
            assert_eq!(space_length(encoded.as_bytes(), 0), expected, "{character:?}");
            assert_eq!(space_length_before(encoded.as_bytes(), encoded.len()), expected, "{character:?}");
            let white = Classes::get().has(character, WHITE_SPACE);
            assert_eq!(is_space(character), white || ('\x1c'..='\x1f').contains(&character));
        }
    }

    #[test]
    fn classes_of_some_characters() {
        let of = |character| Classes::get().of(character) & 0xff;
        assert_eq!(of('a'), LETTER | WORD);
        assert_eq!(of('7'), NUMBER | DIGIT | WORD);
        assert_eq!(of('٣'), NUMBER | DIGIT | WORD);
        assert_eq!(of('²'), NUMBER);
        assert_eq!(of('_'), WORD | PUNCTUATION | PUNCTUATION_OR_SYMBOL);
        assert_eq!(of('$'), PUNCTUATION_OR_SYMBOL);
        assert_eq!(of('Ⓐ'), WORD);
        assert_eq!(of('\u{300}'), WORD);
        assert_eq!(of('\u{1F600}'), PUNCTUATION_OR_SYMBOL | PICTURE);
        assert_eq!(of('\u{2028}'), WHITE_SPACE);
        assert_eq!(of('\u{10ffff}'), 0);
    }

    #[test]
    fn strip_removes_what_python_removes() {
        assert_eq!(strip("\u{1c}\u{3000} a b\u{85}\n"), "a b");
        assert_eq!(strip("\u{200b}"), "\u{200b}");
        assert_eq!(strip(" \t"), "");
        assert_eq!((strip(""), strip("\u{3000}"), strip("é\u{a0}"), strip("\u{2003}é")), ("", "", "é", "é"));
    }

    #[test]
    fn long_texts_are_counted() {
        let text = "é-".repeat(1_000);
        assert_eq!((count_chars(&text), count_chars(""), count_chars(&text[..510])), (2_000, 0, 340));
        assert_eq!(count_bytes(text.as_bytes(), |byte| byte == b'-'), 1_000);
    }

    proptest! {
        #[test]
        fn strip_is_what_trimming_spaces_gives(text in "[ \t\n\u{1c}\u{1f}\u{85}\u{a0}\u{2000}\u{2028}\u{3000}\u{200b}aéà\u{301}日\u{1F600}]{0,8}") {
            prop_assert_eq!(strip(&text), text.trim_matches(is_space));
        }
    }
}
