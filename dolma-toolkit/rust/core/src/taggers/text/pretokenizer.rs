//! The number of pieces into which OLMo's first pre-tokenizer cuts a text: punctuation and each digit by itself, with a space before it,
//! and the rest by the byte-level expression of GPT-2.

use crate::unicode::{Classes, DIGIT, LETTER, NUMBER, PUNCTUATION, WHITE_SPACE};

/// What a character does to the pieces.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// A piece of its own: punctuation or a decimal digit.
    Single,
    Space,
    Letter,
    Number,
    Other,
}

/// Counts the pieces.
pub fn count(text: &str) -> usize {
    let classes = Classes::get();
    let role = |character: char| {
        let class = classes.of(character);
        if class & (PUNCTUATION | DIGIT) != 0 {
            Role::Single
        } else if class & LETTER != 0 {
            Role::Letter
        } else if class & WHITE_SPACE != 0 {
            Role::Space
        } else if class & NUMBER != 0 {
            Role::Number
        } else {
            Role::Other
        }
    };
    let mut num_pieces = 0;
    let mut last = Role::Single;
    let mut num_spaces = 0_usize;
    let mut ends_in_blank = false;
    for character in text.chars() {
        let this = role(character);
        if this == Role::Space {
            num_spaces += 1;
            ends_in_blank = character == ' ';
        } else {
            num_pieces += pieces_of_spaces(num_spaces, ends_in_blank, this == Role::Single);
            num_pieces += usize::from(this == Role::Single || this != last || num_spaces > 0);
            num_spaces = 0;
        }
        last = this;
    }
    num_pieces + usize::from(num_spaces > 0)
}

/// White space before something else: a blank joins what follows, all before it is one piece. Before a word the last character is a piece
/// of its own unless it is a blank; before punctuation it is not, as the text is cut there first.
fn pieces_of_spaces(num_spaces: usize, ends_in_blank: bool, before_single: bool) -> usize {
    match (num_spaces, ends_in_blank) {
        (0, _) => 0,
        (_, true) => usize::from(num_spaces > 1),
        (_, false) if before_single => 1,
        (_, false) => usize::from(num_spaces > 1) + 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_those_of_the_pre_tokenizer() {
        // counted with tokenizers 0.19.1: Split(" ?[[:punct:]]"), Split(" ?\\d"), ByteLevel(add_prefix_space=False)
        for (text, expected) in [
            ("", 0),
            ("Hello, world 42!", 6),
            ("a  b", 3),
            ("a \n b", 3),
            ("a\nb", 3),
            ("a\n\nb", 4),
            ("a \n.", 3),
            ("a\n .", 3),
            ("a ", 2),
            ("  ", 1),
            ("$x²ⅣⅤ", 3),
            ("don't", 3),
            ("\u{a0}\u{3000}é", 3),
        ] {
            assert_eq!(count(text), expected, "{text:?}");
        }
    }
}
