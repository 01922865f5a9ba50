//! A text with ASCII in place of full-width letters, signs and spaces, and of the digits of any script, so that one set of rules
//! finds both forms. Positions of hits are mapped back to the original text.

use std::borrow::Cow;
use std::sync::LazyLock;

use crate::unicode::ranges;

/// The folded text, and the positions in the original.
pub struct Folded<'a> {
    text: Cow<'a, str>,
    /// After each folded character: the byte in the folded text, and in the original.
    steps: Vec<(usize, usize)>,
}

impl<'a> Folded<'a> {
    /// Folds the text. A text with nothing to fold is not copied.
    pub fn new(text: &'a str) -> Folded<'a> {
        let mut folded = String::new();
        let mut steps = Vec::new();
        let (mut copied, mut from) = (0, 0);
        while let Some(at) = next_non_ascii(text.as_bytes(), from) {
            let Some(character) = text[at..].chars().next() else { break };
            from = at + character.len_utf8();
            if let Some(ascii) = ascii_of(character) {
                folded.push_str(&text[copied..at]);
                folded.push(ascii);
                copied = from;
                steps.push((folded.len(), from));
            }
        }
        if steps.is_empty() {
            return Folded { text: Cow::Borrowed(text), steps };
        }
        folded.push_str(&text[copied..]);
        Folded { text: Cow::Owned(folded), steps }
    }

    /// The folded text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The byte of the original text for the byte `at` of the folded text, which is a character boundary.
    pub fn original(&self, at: usize) -> usize {
        let passed = self.steps.partition_point(|step| step.0 <= at);
        passed.checked_sub(1).map_or(at, |last| self.steps[last].1 + at - self.steps[last].0)
    }
}

/// The first non-ASCII byte from `from` on. Most texts have few, so it checks eight bytes at a time.
fn next_non_ascii(bytes: &[u8], from: usize) -> Option<usize> {
    const HIGH_BITS: u64 = 0x8080_8080_8080_8080;
    let mut at = from;
    while let Some(eight) = bytes.get(at..at + 8) {
        let eight =
            u64::from_le_bytes([eight[0], eight[1], eight[2], eight[3], eight[4], eight[5], eight[6], eight[7]]);
        let high = eight & HIGH_BITS;
        if high != 0 {
            return Some(at + high.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    bytes[at..].iter().position(|byte| !byte.is_ascii()).map(|offset| at + offset)
}

/// Punctuation (`，`, `！`) stays: after a number it always separates it from the next one, which ASCII punctuation may not.
fn ascii_of(character: char) -> Option<char> {
    match character {
        // common letters first
        '\u{80}'..='\u{65F}' | '\u{3001}'..='\u{A61F}' | '\u{AC00}'..='\u{FE5F}' => None,
        '！' | '，' | '；' | '？' | '＂' | '＇' => None,
        '\u{FF01}'..='\u{FF5E}' => char::from_u32(character as u32 - 0xFF01 + 0x21),
        '﹫' => Some('@'),
        '\u{3000}' => Some(' '),
        _ => digit(character),
    }
}

/// The decimal digit that the character is, in any script.
fn digit(character: char) -> Option<char> {
    static DIGITS: LazyLock<Vec<(char, char)>> = LazyLock::new(|| ranges(r"\p{Nd}"));
    let index = DIGITS.partition_point(|range| range.1 < character);
    let &(zero, _) = DIGITS.get(index).filter(|range| range.0 <= character)?;
    // the digits of a script follow its zero
    char::from_digit((character as u32 - zero as u32) % 10, 10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn letters_and_digits_become_ascii() {
        assert_eq!(Folded::new("ｊｏ＠ｂ．ｃｏ、１２").as_str(), "jo@b.co、12");
        assert_eq!(Folded::new("٠١٢ ۳۴۵ ६७८ ๙๐๑ ២៣៤ ໕໖໗ ၈၉၀ 𝟏").as_str(), "012 345 678 901 234 567 890 1");
        assert_eq!(Folded::new("é日１，２").as_str(), "é日1，2");
        assert!(matches!(Folded::new("plain é 日").text, Cow::Borrowed(_)));
    }

    #[test]
    fn every_digit_of_unicode_counts_from_its_zero() {
        for (first, last) in ranges(r"\p{Nd}") {
            assert_eq!((last as u32 - first as u32) % 10, 9, "{first:?}");
            assert!(first.is_ascii() || ascii_of(first) == Some('0'), "{first:?}");
        }
    }

    proptest! {
        #[test]
        fn positions_map_back_to_the_text(text in "[a9é日１Ａ٣९\u{3000}，. ]{0,40}") {
            let folded = Folded::new(&text);
            prop_assert_eq!(folded.as_str().chars().count(), text.chars().count());
            for ((at, character), (was, original)) in folded.as_str().char_indices().zip(text.char_indices()) {
                prop_assert_eq!(folded.original(at), was);
                prop_assert!(character == original || ascii_of(original) == Some(character));
            }
            prop_assert_eq!(folded.original(folded.as_str().len()), text.len());
        }
    }
}
