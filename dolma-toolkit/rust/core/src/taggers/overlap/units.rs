//! What a text is made of when it is compared.

use serde::Deserialize;
use xxhash_rust::xxh3::xxh3_64;

use super::super::Text;
use super::BASE;
use crate::dedupe::words;

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Runs of letters and digits, in lower case.
    Words,
    /// Letters and digits.
    Characters,
    /// Lines without the white space around them, if they have letters or digits and enough words.
    Paragraphs,
}

/// The units of a text: their hashes, and the bytes from which and to which they go.
pub struct Units {
    pub(super) hashes: Vec<u64>,
    ranges: Vec<(u32, u32)>,
}

impl Units {
    pub(super) fn of(text: &Text<'_>, unit: Unit, min_words: usize) -> Units {
        let mut units = Units { hashes: Vec::new(), ranges: Vec::new() };
        match unit {
            Unit::Words => words_of(text.as_str(), |hash, start, end| units.push(hash, start, end)),
            Unit::Characters => {
                for (at, character) in text.as_str().char_indices().filter(|(_, one)| one.is_alphanumeric()) {
                    units.push(finished(u64::from(character)), at, at + character.len_utf8());
                }
            }
            Unit::Paragraphs => {
                for paragraph in text.filled_paragraphs() {
                    let content = paragraph.content;
                    if words(content).nth(min_words.saturating_sub(1)).is_some()
                        && content.chars().any(char::is_alphanumeric)
                    {
                        let start = content.as_ptr() as usize - text.as_str().as_ptr() as usize;
                        units.push(xxh3_64(content.as_bytes()), start, start + content.len());
                    }
                }
            }
        }
        units
    }

    #[inline]
    fn push(&mut self, hash: u64, start: usize, end: usize) {
        self.hashes.push(hash);
        self.ranges.push((start as u32, end as u32));
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// The bytes from which and to which units go.
    pub fn bytes(&self, start: usize, end: usize) -> (usize, usize) {
        (self.ranges[start].0 as usize, self.ranges[end - 1].1 as usize)
    }

    pub(super) fn text<'t>(&self, unit: usize, text: &'t str) -> &'t str {
        &text[self.ranges[unit].0 as usize..self.ranges[unit].1 as usize]
    }

    /// The hash of a run.
    pub(super) fn hash(&self, start: usize, length: usize) -> u64 {
        let run = &self.hashes[start..start + length];
        run.iter().fold(0u64, |hash, unit| hash.wrapping_mul(BASE).wrapping_add(*unit))
    }
}

/// Whether two units are the same.
pub(super) fn equal(one: &str, other: &str, unit: Unit) -> bool {
    let lower = |text: &'_ str| text.chars().flat_map(char::to_lowercase).collect::<String>();
    one == other || unit == Unit::Words && (one.eq_ignore_ascii_case(other) || lower(one) == lower(other))
}

const FNV: u64 = 0x0100_0000_01b3;

#[inline]
fn finished(hash: u64) -> u64 {
    let hash = (hash ^ hash >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (hash ^ hash >> 27).wrapping_mul(0x94d0_49bb_1331_11eb)
}

/// Calls `found` with hash, first byte and end of each word.
#[inline]
fn words_of(text: &str, mut found: impl FnMut(u64, usize, usize)) {
    // what a byte of ASCII counts: its lower case, or 0 outside words
    const LOWER: [u8; 128] = {
        let mut table = [0; 128];
        let mut byte = 0;
        while byte < 128 {
            if (byte as u8).is_ascii_alphanumeric() {
                table[byte] = (byte as u8).to_ascii_lowercase();
            }
            byte += 1;
        }
        table
    };
    let bytes = text.as_bytes();
    let (mut at, mut start, mut hash) = (0, 0, 0u64);
    while at < bytes.len() {
        let byte = bytes[at];
        let length = if byte < 128 {
            match LOWER[usize::from(byte)] {
                0 => 0,
                lower => {
                    hash = (hash ^ u64::from(lower)).wrapping_mul(FNV);
                    1
                }
            }
        } else {
            let character = text[at..].chars().next().unwrap_or_default();
            if character.is_alphanumeric() {
                for byte in character.to_lowercase().collect::<String>().bytes() {
                    hash = (hash ^ u64::from(byte)).wrapping_mul(FNV);
                }
                character.len_utf8()
            } else {
                if start < at {
                    found(finished(hash), start, at);
                }
                hash = 0;
                at += character.len_utf8();
                start = at;
                continue;
            }
        };
        if length == 0 {
            if start < at {
                found(finished(hash), start, at);
            }
            hash = 0;
            start = at + 1;
        }
        at += length.max(1);
    }
    if start < at {
        found(finished(hash), start, at);
    }
}
