//! What letters belong together. An address in Latin letters ends where Chinese, Thai, Korean or Arabic ones begin, blank or none.

use unicode_script::{Script, UnicodeScript};

use crate::taggers::text::unicode::{Classes, WORD};

/// A group of letters that words are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Letters {
    /// With the digits of ASCII, which addresses mix with them.
    Latin,
    /// Of a script that parts words by blanks.
    Spaced(Script),
    /// Of one that does not: where a word begins cannot be seen.
    Unspaced(Script),
    /// A mark or joiner, which goes with what it stands on.
    Mark,
}

/// What the character is part of; `None` of what parts words.
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
        // the mark of long vowels
        Script::Common if character == 'ー' => Letters::Unspaced(Script::Han),
        Script::Inherited => Letters::Mark,
        script
        @ (Script::Thai | Script::Lao | Script::Khmer | Script::Myanmar | Script::Tibetan | Script::Javanese) => {
            Letters::Unspaced(script)
        }
        script => Letters::Spaced(script),
    })
}

/// Whether the character before or after a number or address makes it a part of something longer.
pub fn is_word(character: char) -> bool {
    character == '_' || letters(character) == Some(Letters::Latin)
}

/// The same of the last character before `at`.
pub fn is_word_before(text: &str, at: usize) -> bool {
    text[..at].chars().next_back().is_some_and(is_word)
}

/// The same of the first character from `at` on.
pub fn is_word_after(text: &str, at: usize) -> bool {
    text[at..].chars().next().is_some_and(is_word)
}

/// Characters that cannot be seen, as those that allow or forbid a line to break.
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
        // the stroke that lengthens Arabic words
        assert_eq!(letters('ـ'), Some(Letters::Spaced(Script::Common)));
        assert_eq!(letters('。'), None);
    }
}
