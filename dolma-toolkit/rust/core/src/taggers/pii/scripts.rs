//! Which letters form a word. An address in Latin letters ends where Chinese, Thai, Korean or Arabic letters begin, even
//! without a space between them.

use unicode_script::{Script, UnicodeScript};

use crate::unicode::{Classes, WORD};

/// A group of letters that words are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Letters {
    /// Latin letters, and ASCII digits, since addresses mix the two.
    Latin,
    /// Letters of a script that separates words by spaces.
    Spaced(Script),
    /// Letters of a script that does not, so that word boundaries cannot be seen.
    Unspaced(Script),
    /// A mark or joiner, which belongs to the letter before it.
    Mark,
}

/// The group of the character; `None` if it separates words.
pub fn letters(character: char) -> Option<Letters> {
    if character.is_ascii() {
        return character.is_ascii_alphanumeric().then_some(Letters::Latin);
    }
    if !Classes::get().has(character, WORD) {
        return None;
    }
    Some(match character.script() {
        Script::Latin => Letters::Latin,
        Script::Han | Script::Hiragana | Script::Katakana | Script::Bopomofo => Letters::Unspaced(Script::Han),
        // the long vowel mark
        Script::Common if character == 'ー' => Letters::Unspaced(Script::Han),
        Script::Inherited => Letters::Mark,
        script
        @ (Script::Thai | Script::Lao | Script::Khmer | Script::Myanmar | Script::Tibetan | Script::Javanese) => {
            Letters::Unspaced(script)
        }
        script => Letters::Spaced(script),
    })
}

/// Whether the character, next to a number or address, makes it part of something longer.
pub fn is_word(character: char) -> bool {
    character == '_' || letters(character) == Some(Letters::Latin)
}

/// [`is_word`] for the last character before `at`.
pub fn is_word_before(text: &str, at: usize) -> bool {
    text[..at].chars().next_back().is_some_and(is_word)
}

/// [`is_word`] for the character at `at`.
pub fn is_word_after(text: &str, at: usize) -> bool {
    text[at..].chars().next().is_some_and(is_word)
}

/// Whether `start..end` is not part of a longer word.
pub fn is_apart(text: &str, start: usize, end: usize) -> bool {
    !is_word_before(text, start) && !is_word_after(text, end)
}

/// Characters that cannot be seen, such as those that allow or forbid a line break.
pub fn is_invisible(character: char) -> bool {
    matches!(character, '\u{AD}' | '\u{200B}'..='\u{200D}' | '\u{2060}' | '\u{FEFF}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_latin_letters_lengthen_a_number() {
        for character in "aZ0_éßơ".chars() {
            assert!(is_word(character), "{character}");
        }
        for character in "日のー한ไ្ကيשдλअ。，-．\u{200B}²".chars() {
            assert!(!is_word(character), "{character}");
        }
        assert_eq!(letters('の'), letters('本'));
        assert_eq!(letters('ー'), letters('本'));
        assert_eq!(letters('\u{301}'), Some(Letters::Mark));
        // the stroke that stretches Arabic words
        assert_eq!(letters('ـ'), Some(Letters::Spaced(Script::Common)));
        assert_eq!(letters('。'), None);
    }
}
