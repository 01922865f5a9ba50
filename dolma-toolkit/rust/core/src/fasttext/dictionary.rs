//! From a line to the rows of the input matrix of its words and their parts.

use rustc_hash::FxHashMap;

/// Ends every line; a word of its own in the dictionary.
const END_OF_LINE: &[u8] = b"</s>";

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
    /// Rows kept for hashed parts, by their bucket; without it every bucket has its row.
    pub kept_buckets: Option<FxHashMap<u32, u32>>,
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

impl Dictionary {
    /// The rows of a line in fastText's order; a row may come several times.
    pub fn rows_of_line(&self, line: &[u8]) -> Vec<u32> {
        let line = &line[..memchr::memchr(b'\n', line).unwrap_or(line.len())];
        let mut rows = Vec::with_capacity(line.len());
        let mut hashes = Vec::new();
        let mut scratch = Vec::new();
        let is_separator = |byte: &u8| matches!(byte, b' ' | b'\r' | b'\t' | 0x0b | 0x0c | 0);
        let tokens = line.split(is_separator).filter(|token| !token.is_empty());
        for token in tokens.chain([END_OF_LINE]) {
            let id = self.ids.get(token).copied();
            let is_word = id.map_or_else(|| !token.starts_with(LABEL_PREFIX), |id| id < self.num_words);
            if is_word {
                match id {
                    Some(id) => rows.extend_from_slice(self.rows_of_word(id as usize)),
                    None if token == END_OF_LINE => {}
                    None => self.push_parts_of_word(token, &mut scratch, &mut rows),
                }
                if self.parts.max_words > 1 {
                    hashes.push(hash(token) as i32);
                }
            }
            if token == END_OF_LINE {
                break;
            }
        }
        self.push_runs_of_words(&hashes, &mut rows);
        rows
    }

    fn rows_of_word(&self, word: usize) -> &[u32] {
        &self.rows_of_words[self.first_row_of_word[word]..self.first_row_of_word[word + 1]]
    }

    /// The list of a word of the dictionary, for `rows_of_words`.
    pub fn push_rows_of_known_word(&self, id: u32, word: &[u8], rows: &mut Vec<u32>) {
        rows.push(id);
        if word != END_OF_LINE {
            self.push_parts_of_word(word, &mut Vec::new(), rows);
        }
    }

    /// All runs of `min_chars` to `max_chars` characters of the word between angle brackets, but for the brackets themselves.
    fn push_parts_of_word(&self, word: &[u8], scratch: &mut Vec<u8>, rows: &mut Vec<u32>) {
        if self.parts.max_chars == 0 {
            return;
        }
        scratch.clear();
        scratch.push(b'<');
        scratch.extend_from_slice(word);
        scratch.push(b'>');
        let is_inside_char = |byte: u8| byte & 0xc0 == 0x80;
        for start in 0..scratch.len() {
            if is_inside_char(scratch[start]) {
                continue;
            }
            let mut hash = HASH_START;
            let mut end = start;
            for num_chars in 1..=self.parts.max_chars {
                if end == scratch.len() {
                    break;
                }
                hash = hash_byte(hash, scratch[end]);
                end += 1;
                while end < scratch.len() && is_inside_char(scratch[end]) {
                    hash = hash_byte(hash, scratch[end]);
                    end += 1;
                }
                let is_bracket = num_chars == 1 && (start == 0 || end == scratch.len());
                if num_chars >= self.parts.min_chars && !is_bracket {
                    self.push_bucket(hash % self.parts.num_buckets, rows);
                }
            }
        }
    }

    /// All runs of two words to `max_words`; the hashes are signed in fastText, and so spread their sign.
    fn push_runs_of_words(&self, hashes: &[i32], rows: &mut Vec<u32>) {
        for (start, &first) in hashes.iter().enumerate() {
            let mut run = first as u64;
            for &next in hashes[start + 1..].iter().take(self.parts.max_words.saturating_sub(1)) {
                run = run.wrapping_mul(116_049_371).wrapping_add(next as u64);
                self.push_bucket((run % u64::from(self.parts.num_buckets)) as u32, rows);
            }
        }
    }

    fn push_bucket(&self, bucket: u32, rows: &mut Vec<u32>) {
        match &self.kept_buckets {
            None => rows.push(self.num_words + bucket),
            Some(kept) => rows.extend(kept.get(&bucket).map(|row| self.num_words + row)),
        }
    }
}

/// FNV-1a of 32 bits; each byte is extended as a signed one, as fastText does.
fn hash(bytes: &[u8]) -> u32 {
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
        dictionary.ids.insert(END_OF_LINE.into(), 0);
        dictionary.ids.insert(b"known".as_slice().into(), 1);
        let bucket = |part: &[u8]| 2 + hash(part) % parts.num_buckets;
        let run = |left: &[u8], right: &[u8]| {
            let (left, right) = (hash(left) as i32 as u64, hash(right) as i32 as u64);
            2 + (left.wrapping_mul(116_049_371).wrapping_add(right) % u64::from(parts.num_buckets)) as u32
        };
        let expected = [
            bucket(b"<\xc3\xa9"),
            bucket(b"\xc3\xa9"),
            bucket(b"\xc3\xa9>"),
            1,
            0,
            run(b"\xc3\xa9", b"known"),
            run(b"known", b"</s>"),
        ];
        assert_eq!(dictionary.rows_of_line("é\tknown __label__x\nmore".as_bytes()), expected);
    }
}
