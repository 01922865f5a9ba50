//! The two expressions by which byte-level tokenizers cut a text into words, written out by hand.
//!
//! Every character is in one piece, and pieces are found from left to right, as a regular expression would find them.

use crate::unicode::{Classes, LETTER, NUMBER, WHITE_SPACE};

/// The expression of GPT-2, which `ByteLevel` uses.
pub const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
/// The expression of cl100k. Llama 3 has the same.
pub const CL100K: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Qwen's: each digit by itself.
pub const ONE_DIGIT: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// How a text is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    Gpt2,
    /// With the most digits of a piece.
    Cl100k(usize),
}

impl Pattern {
    /// The pattern with this spelling.
    pub fn spelt(expression: &str) -> Option<Pattern> {
        match expression {
            GPT2 => Some(Pattern::Gpt2),
            CL100K => Some(Pattern::Cl100k(3)),
            ONE_DIGIT => Some(Pattern::Cl100k(1)),
            _ => None,
        }
    }

    /// Gives the beginning and end of each piece.
    pub fn cut(self, text: &str, take: impl FnMut(usize, usize)) {
        let text = Text { text, bytes: text.as_bytes(), classes: Classes::get() };
        match self {
            Pattern::Gpt2 => gpt2(&text, take),
            Pattern::Cl100k(digits) => cl100k(&text, digits, take),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Letter,
    Number,
    Space,
    Other,
}

const ASCII: [Kind; 128] = {
    let mut kinds = [Kind::Other; 128];
    let mut byte = 0;
    while byte < 128 {
        let character = byte as u8;
        if character.is_ascii_alphabetic() {
            kinds[byte] = Kind::Letter;
        } else if character.is_ascii_digit() {
            kinds[byte] = Kind::Number;
        } else if matches!(character, b'\t'..=b'\r' | b' ') {
            kinds[byte] = Kind::Space;
        }
        byte += 1;
    }
    kinds
};

struct Text<'a> {
    text: &'a str,
    bytes: &'a [u8],
    classes: &'static Classes,
}

impl Text<'_> {
    /// Kind and length in bytes of the character at `at`, which is on a boundary; `None` at the end.
    #[inline]
    fn at(&self, at: usize) -> Option<(Kind, usize)> {
        let byte = *self.bytes.get(at)?;
        match ASCII.get(usize::from(byte)) {
            Some(kind) => Some((*kind, 1)),
            None => self.beyond_ascii(at),
        }
    }

    fn beyond_ascii(&self, at: usize) -> Option<(Kind, usize)> {
        let character = self.text.get(at..)?.chars().next()?;
        let classes = self.classes.of(character);
        let kind = match classes {
            _ if classes & LETTER != 0 => Kind::Letter,
            _ if classes & NUMBER != 0 => Kind::Number,
            _ if classes & WHITE_SPACE != 0 => Kind::Space,
            _ => Kind::Other,
        };
        Some((kind, character.len_utf8()))
    }

    /// The end of the run of one kind that continues at `at`.
    #[inline]
    fn run(&self, mut at: usize, kind: Kind) -> usize {
        while let Some((found, length)) = self.at(at) {
            if found != kind {
                break;
            }
            at += length;
        }
        at
    }

    /// The end of `\s+(?!\S)|\s+`: all white space, but for its last character where something follows two or more.
    fn spaces(&self, start: usize) -> usize {
        let (mut end, mut last) = (start, start);
        while let Some((Kind::Space, length)) = self.at(end) {
            last = end;
            end += length;
        }
        match end < self.bytes.len() && last > start {
            true => last,
            false => end,
        }
    }

    fn is(&self, at: usize, kind: Kind) -> bool {
        self.at(at).is_some_and(|(found, _)| found == kind)
    }

    /// The length of `'s|'t|'re|'ve|'m|'ll|'d` at an apostrophe.
    fn contraction(&self, at: usize, any_case: bool) -> Option<usize> {
        let letter = |offset: usize| {
            let byte = self.bytes.get(at + offset).copied().unwrap_or(0);
            if any_case {
                byte.to_ascii_lowercase()
            } else {
                byte
            }
        };
        match (letter(1), letter(2)) {
            (b's' | b't' | b'm' | b'd', _) => Some(2),
            (b'r' | b'v', b'e') | (b'l', b'l') => Some(3),
            // the long s, which is an s in any case
            (0xc5, 0xbf) if any_case => Some(3),
            _ => None,
        }
    }
}

fn gpt2(text: &Text<'_>, mut take: impl FnMut(usize, usize)) {
    let mut start = 0;
    while let Some((mut kind, mut length)) = text.at(start) {
        let mut at = start;
        let contraction = if text.bytes[start] == b'\'' { text.contraction(start, false) } else { None };
        let end = if let Some(length) = contraction {
            start + length
        } else {
            if text.bytes[start] == b' ' {
                if let Some(next) = text.at(start + 1).filter(|next| next.0 != Kind::Space) {
                    at += 1;
                    (kind, length) = next;
                }
            }
            match kind {
                Kind::Space => text.spaces(at),
                _ => text.run(at + length, kind),
            }
        };
        take(start, end);
        start = end;
    }
}

fn cl100k(text: &Text<'_>, max_digits: usize, mut take: impl FnMut(usize, usize)) {
    let mut start = 0;
    while let Some((kind, length)) = text.at(start) {
        let byte = text.bytes[start];
        let contraction = if byte == b'\'' { text.contraction(start, true) } else { None };
        let next = start + length;
        let end = if let Some(length) = contraction {
            start + length
        } else if kind == Kind::Letter
            || (kind != Kind::Number && byte != b'\r' && byte != b'\n' && text.is(next, Kind::Letter))
        {
            text.run(next, Kind::Letter)
        } else if kind == Kind::Number {
            let mut end = next;
            for _ in 1..max_digits {
                match text.at(end) {
                    Some((Kind::Number, length)) => end += length,
                    _ => break,
                }
            }
            end
        } else if kind == Kind::Other || (byte == b' ' && text.is(next, Kind::Other)) {
            let mut end = text.run(next, Kind::Other);
            while matches!(text.bytes.get(end), Some(b'\r' | b'\n')) {
                end += 1;
            }
            end
        } else {
            let run = text.run(start, Kind::Space);
            match text.bytes[start..run].iter().rposition(|byte| matches!(byte, b'\r' | b'\n')) {
                Some(position) => start + position + 1,
                None => text.spaces(start),
            }
        };
        take(start, end);
        start = end;
    }
}
