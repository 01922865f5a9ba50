//! From a line to the rows of the input matrix of its words and their parts.

use rustc_hash::FxHashMap;

/// Ends every line; a word of its own in the dictionary.
pub const END_OF_LINE: &str = "</s>";

/// A word that begins so is a label and no part of the text.
const LABEL_PREFIX: &[u8] = b"__label__";

/// A label and how often the training data had it.
pub struct Label {
    pub name: String,
    pub count: i64,
}

/// Words, labels, and the rule for the parts of words.
pub struct Dictionary {
    /// Number of a word, which is its row; labels come after the words.
    pub ids: FxHashMap<Box<[u8]>, u32>,
    pub num_words: u32,
    pub labels: Vec<Label>,
    /// Without it every bucket has its row.
    pub kept_buckets: Option<KeptBuckets>,
    pub parts: Parts,
    /// The rows of every word: its own and those of its parts, one list after the other.
    pub rows_of_words: Vec<u32>,
    /// Where the list of a word begins; one entry more than there are words.
    pub first_row_of_word: Vec<usize>,
}

/// Which parts of a text are hashed to rows.
#[derive(Clone, Copy)]
pub struct Parts {
    /// Shortest and longest run of characters in a word; no runs where the longest is 0.
    pub min_chars: usize,
    pub max_chars: usize,
    /// Longest run of words.
    pub max_words: usize,
    pub num_buckets: u32,
}

/// The buckets of hashed parts that a small model has kept, and their rows.
pub struct KeptBuckets {
    rows: FxHashMap<u32, u32>,
    /// A bit for the lowest bits of each bucket: most parts of a text were not kept, and this says so from a few cache lines.
    filter: Vec<u64>,
}

impl KeptBuckets {
    /// From buckets and their rows.
    pub fn new(rows: FxHashMap<u32, u32>) -> KeptBuckets {
        const BITS_PER_BUCKET: usize = 16;
        let num_bits = (rows.len() * BITS_PER_BUCKET).next_power_of_two().max(64);
        let mut filter = vec![0; num_bits / 64];
        for &bucket in rows.keys() {
            let bit = bucket as usize & (num_bits - 1);
            filter[bit / 64] |= 1 << (bit % 64);
        }
        KeptBuckets { rows, filter }
    }

    fn row(&self, bucket: u32) -> Option<u32> {
        if self.is_likely(bucket) {
            self.rows.get(&bucket).copied()
        } else {
            None
        }
    }

    #[inline]
    fn is_likely(&self, bucket: u32) -> bool {
        let word = self.filter[(bucket as usize / 64) & (self.filter.len() - 1)];
        (word >> (bucket % 64)) & 1 != 0
    }

    /// The highest row.
    pub fn max_row(&self) -> Option<u32> {
        self.rows.values().max().copied()
    }
}

/// Remainders of 32-bit numbers without a division (Lemire, Kaser and Kurz 2019, "Faster remainder by direct computation").
#[derive(Clone, Copy)]
struct Divisor {
    number: u32,
    inverse: u64,
}

impl Divisor {
    fn new(number: u32) -> Divisor {
        Divisor { number, inverse: (u64::MAX / u64::from(number.max(1))).wrapping_add(1) }
    }

    #[inline]
    fn remainder(self, of: u32) -> u32 {
        let fraction = self.inverse.wrapping_mul(u64::from(of));
        ((u128::from(fraction) * u128::from(self.number)) >> 64) as u32
    }
}

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Word,
    /// Not part of the text.
    Label,
    /// Nothing after it is looked at.
    EndOfLine,
}

impl Dictionary {
    /// Appends the rows of a token: its own and those of its parts.
    pub fn push_rows_of_token(&self, token: &[u8], scratch: &mut Scratch, rows: &mut Vec<u32>) -> Kind {
        match self.ids.get(token) {
            Some(&id) if id >= self.num_words => return Kind::Label,
            Some(&id) => rows.extend_from_slice(self.rows_of_word(id as usize)),
            None if token.starts_with(LABEL_PREFIX) => return Kind::Label,
            None if token == END_OF_LINE.as_bytes() => {}
            None => self.push_parts_of_word(token, scratch, rows),
        }
        if token == END_OF_LINE.as_bytes() {
            Kind::EndOfLine
        } else {
            Kind::Word
        }
    }

    fn rows_of_word(&self, word: usize) -> &[u32] {
        &self.rows_of_words[self.first_row_of_word[word]..self.first_row_of_word[word + 1]]
    }

    /// The list of a word of the dictionary, for `rows_of_words`.
    pub fn push_rows_of_known_word(&self, id: u32, word: &[u8], rows: &mut Vec<u32>) {
        rows.push(id);
        if word != END_OF_LINE.as_bytes() {
            self.push_parts_of_word(word, &mut Scratch::default(), rows);
        }
    }

    /// All runs of `min_chars` to `max_chars` characters of the word between angle brackets, but for the brackets themselves: first the
    /// shortest, each from left to right, so that a processor works on several hashes at once.
    fn push_parts_of_word(&self, word: &[u8], scratch: &mut Scratch, rows: &mut Vec<u32>) {
        if self.parts.max_chars == 0 {
            return;
        }
        let divisor = Divisor::new(self.parts.num_buckets);
        let num_chars = scratch.bracket(word);
        let Scratch { bytes, char_ends, hashes, buckets } = scratch;
        hashes.clear();
        hashes.resize(num_chars, HASH_START);
        buckets.clear();
        // as many as there can be, so that none is appended
        buckets.resize(num_chars * self.parts.max_chars.min(num_chars), 0);
        let mut num_likely = 0;
        for length in 1..=self.parts.max_chars.min(num_chars) {
            hashes.truncate(num_chars - length + 1);
            if bytes.len() == num_chars {
                for (hash, &byte) in hashes.iter_mut().zip(&bytes[length - 1..]) {
                    *hash = hash_byte(*hash, byte);
                }
            } else {
                for (hash, ends) in hashes.iter_mut().zip(char_ends[length - 1..].windows(2)) {
                    *hash = bytes[ends[0] as usize..ends[1] as usize].iter().copied().fold(*hash, hash_byte);
                }
            }
            if length < self.parts.min_chars {
                continue;
            }
            let wanted = if length == 1 { &hashes[1..num_chars - 1] } else { hashes.as_slice() };
            match &self.kept_buckets {
                None => rows.extend(wanted.iter().map(|&hash| self.num_words + divisor.remainder(hash))),
                Some(kept) => {
                    // no branch, since which of them are kept cannot be foreseen
                    for &hash in wanted {
                        let bucket = divisor.remainder(hash);
                        buckets[num_likely] = bucket;
                        num_likely += usize::from(kept.is_likely(bucket));
                    }
                }
            }
        }
        if let Some(kept) = &self.kept_buckets {
            for bucket in &buckets[..num_likely] {
                if let Some(row) = kept.rows.get(bucket) {
                    rows.push(self.num_words + row);
                }
            }
        }
    }

    /// All runs of two words to `max_words`; the hashes are signed in fastText, and so spread their sign.
    pub fn push_runs_of_words(&self, hashes: &[i32], rows: &mut Vec<u32>) {
        for (start, &first) in hashes.iter().enumerate() {
            let mut run = first as u64;
            for &next in hashes[start + 1..].iter().take(self.parts.max_words.saturating_sub(1)) {
                run = run.wrapping_mul(116_049_371).wrapping_add(next as u64);
                let bucket = (run % u64::from(self.parts.num_buckets)) as u32;
                match &self.kept_buckets {
                    None => rows.push(self.num_words + bucket),
                    Some(kept) => rows.extend(kept.row(bucket).map(|row| self.num_words + row)),
                }
            }
        }
    }
}

/// Buffers for the parts of words.
#[derive(Default)]
pub struct Scratch {
    /// A word in brackets.
    bytes: Vec<u8>,
    /// 0, and where its characters end.
    char_ends: Vec<u32>,
    /// Of the run that begins at each character.
    hashes: Vec<u32>,
    buckets: Vec<u32>,
}

impl Scratch {
    /// Gives the number of characters.
    fn bracket(&mut self, word: &[u8]) -> usize {
        self.bytes.clear();
        self.bytes.push(b'<');
        self.bytes.extend_from_slice(word);
        self.bytes.push(b'>');
        if self.bytes.is_ascii() {
            return self.bytes.len();
        }
        let end = self.bytes.len() as u32;
        self.char_ends.clear();
        self.char_ends.extend((0..end).filter(|&at| self.bytes[at as usize] & 0xc0 != 0x80).chain([end]));
        self.char_ends.len() - 1
    }
}

/// The tokens of a text, as the bytes from which and to which each goes. A newline is a separator as a blank is: callers give one example.
pub struct Tokens<'a> {
    pub bytes: &'a [u8],
    at: usize,
}

impl<'a> Tokens<'a> {
    pub fn of(text: &'a str) -> Tokens<'a> {
        Tokens { bytes: text.as_bytes(), at: 0 }
    }

    fn is_separator(byte: u8) -> bool {
        matches!(byte, b'\t'..=b'\r' | b' ' | 0)
    }
}

impl Iterator for Tokens<'_> {
    type Item = (usize, usize);

    #[inline]
    fn next(&mut self) -> Option<(usize, usize)> {
        const ONES: u64 = 0x0101_0101_0101_0101;
        let bytes = self.bytes;
        let mut start = self.at;
        while Tokens::is_separator(*bytes.get(start)?) {
            start += 1;
        }
        let mut end = start;
        self.at = loop {
            if let Some(Ok(eight)) = bytes.get(end..end + 8).map(<[u8; 8]>::try_from) {
                // the highest bit of each byte below `!`; the lowest of them is right
                let eight = u64::from_le_bytes(eight);
                let low = eight.wrapping_sub(ONES * 0x21) & !eight & (ONES << 7);
                if low == 0 {
                    end += 8;
                    continue;
                }
                end += low.trailing_zeros() as usize / 8;
            }
            if bytes.get(end).is_none_or(|&byte| Tokens::is_separator(byte)) {
                break end;
            }
            end += 1;
        };
        Some((start, end))
    }
}

/// FNV-1a of 32 bits; each byte is extended as a signed one, as fastText does.
pub fn hash(bytes: &[u8]) -> u32 {
    bytes.iter().copied().fold(HASH_START, hash_byte)
}

const HASH_START: u32 = 2_166_136_261;

fn hash_byte(hash: u32, byte: u8) -> u32 {
    (hash ^ (byte as i8 as u32)).wrapping_mul(16_777_619)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_fnv_with_signed_bytes() {
        assert_eq!(hash(b"a"), 0xe40c_292c);
        assert_eq!(hash("é".as_bytes()), hash_byte(hash_byte(HASH_START, 0xc3), 0xa9));
        assert_ne!(
            hash("é".as_bytes()),
            "é".bytes().fold(HASH_START, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(16_777_619))
        );
    }

    #[test]
    fn tokens_are_what_is_between_separators() {
        let separators = [' ', '\n', '\r', '\t', '\u{b}', '\u{c}', '\0'];
        for text in [
            "",
            " ",
            "a",
            "a b",
            "\u{1}\u{1f}\u{e}\0long long-er\tlongest-of-all\u{3000}é\n\n b\r",
            "12345678 1234567 ",
        ] {
            let found: Vec<&str> = Tokens::of(text).map(|(start, end)| &text[start..end]).collect();
            let expected: Vec<&str> = text.split(separators).filter(|token| !token.is_empty()).collect();
            assert_eq!(found, expected, "{text:?}");
        }
    }

    #[test]
    fn remainders_are_those_of_a_division() {
        for number in [1, 2, 3, 7, 1 << 20, 2_000_000, u32::MAX - 1, u32::MAX] {
            for of in [0, 1, number - 1, number, 12_345_678, 0x8000_0000, u32::MAX - 1, u32::MAX] {
                assert_eq!(Divisor::new(number).remainder(of), of % number, "{of} % {number}");
            }
        }
    }

    #[test]
    fn kept_buckets_are_likely_and_most_others_are_not() {
        let kept = KeptBuckets::new((0..1000_u32).map(|number| (number.wrapping_mul(0x9e37_79b9), number)).collect());
        assert!(kept.rows.keys().all(|&bucket| kept.is_likely(bucket)));
        assert!((0..1000_u32).filter(|&bucket| kept.is_likely(bucket)).count() < 100);
        assert_eq!(kept.max_row(), Some(999));
        assert!(!KeptBuckets::new(FxHashMap::default()).is_likely(7));
    }

    #[test]
    fn parts_leave_out_lone_brackets_and_known_words_keep_their_row() {
        let parts = Parts { min_chars: 1, max_chars: 2, max_words: 2, num_buckets: 1 << 20 };
        let mut dictionary = Dictionary {
            ids: FxHashMap::default(),
            num_words: 2,
            labels: Vec::new(),
            kept_buckets: None,
            parts,
            rows_of_words: vec![0, 1],
            first_row_of_word: vec![0, 1, 2],
        };
        dictionary.ids.insert(END_OF_LINE.as_bytes().into(), 0);
        dictionary.ids.insert(b"known".as_slice().into(), 1);
        let text = "é\tknown\n__label__x </s> more";
        let (mut rows, mut hashes) = (Vec::new(), Vec::new());
        for (start, end) in Tokens::of(text) {
            let token = &text.as_bytes()[start..end];
            match dictionary.push_rows_of_token(token, &mut Scratch::default(), &mut rows) {
                Kind::Label => continue,
                Kind::Word => hashes.push(hash(token) as i32),
                Kind::EndOfLine => {
                    hashes.push(hash(token) as i32);
                    break;
                }
            }
        }
        dictionary.push_runs_of_words(&hashes, &mut rows);
        let bucket = |part: &[u8]| 2 + hash(part) % parts.num_buckets;
        let run = |left: &[u8], right: &[u8]| {
            let (left, right) = (hash(left) as i32 as u64, hash(right) as i32 as u64);
            2 + (left.wrapping_mul(116_049_371).wrapping_add(right) % u64::from(parts.num_buckets)) as u32
        };
        let expected = [
            bucket(b"\xc3\xa9"),
            bucket(b"<\xc3\xa9"),
            bucket(b"\xc3\xa9>"),
            1,
            0,
            run(b"\xc3\xa9", b"known"),
            run(b"known", b"</s>"),
        ];
        assert_eq!(rows, expected);
    }
}
