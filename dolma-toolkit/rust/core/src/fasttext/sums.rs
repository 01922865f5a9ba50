//! The sums of the input rows of words: frequent words come again and again, and fastText's parts never cross a word.

use super::dictionary::{hash, Dictionary, Kind, Scratch, Tokens, END_OF_LINE};
use super::matrix::Matrix;
use super::Case;

/// Bytes of a key. Longer words are rare, and are summed each time.
const LONGEST: usize = 24;

/// Words that share a slot replace each other, so the memory is fixed.
const BYTES: usize = 8 << 20;

/// What a word adds to a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word {
    kind: Kind,
    num_rows: u32,
    /// As runs of words need it.
    hash: u32,
}

/// The sums of words that came lately. A sum has one order, whether it is remembered or not, so it has one value.
pub struct WordSums {
    num_columns: usize,
    slots: Vec<Slot>,
    /// Of each slot, and of the last word that has none.
    sums: Vec<f32>,
    /// Place of the first in `sums`, at the start of a cache line.
    first_sum: usize,
    shift: u32,
    rows: Vec<u32>,
    token: Vec<u8>,
    scratch: Scratch,
}

/// Half a cache line.
#[derive(Clone, Copy)]
#[repr(align(32))]
struct Slot {
    key: Key,
    num_rows: u16,
    kind: Kind,
    hash: u32,
}

/// The bytes of a word, filled up with zeros, which separate words and so are in none.
type Key = [u64; LONGEST / 8];

const EMPTY: Slot = Slot { key: [0; LONGEST / 8], num_rows: 0, kind: Kind::Label, hash: 0 };

/// Words whose slots are asked for before the first of them is needed, since most of the time would be spent waiting for them.
const BLOCK: usize = 64;

#[derive(Clone, Copy)]
struct Found {
    start: usize,
    end: usize,
    key: Key,
    place: usize,
}

impl WordSums {
    /// Without any word yet. The memory is about 8 MiB, unless a row is longer than a kibibyte.
    pub fn new(num_columns: usize) -> WordSums {
        let fit = BYTES / (size_of::<Slot>() + num_columns * size_of::<f32>());
        WordSums::with_slots(num_columns, fit.max(1024).ilog2())
    }

    fn with_slots(num_columns: usize, bits: u32) -> WordSums {
        const LINE: usize = 64;
        let num_slots = 1 << bits;
        let sums = vec![0.0; (num_slots + 1) * num_columns + LINE / size_of::<f32>()];
        WordSums {
            num_columns,
            slots: vec![EMPTY; num_slots],
            first_sum: sums.as_ptr().align_offset(LINE).min(LINE / size_of::<f32>()),
            sums,
            shift: u64::BITS - bits,
            rows: Vec::new(),
            token: Vec::new(),
            scratch: Scratch::default(),
        }
    }

    /// Adds the rows of the words of a line, each summed by itself first, and of its end to `total`. Returns how many there are, and puts
    /// the hashes of the words to `hashes`, if somebody wants them.
    pub fn add_line(
        &mut self,
        line: &str,
        case: Case,
        model: (&Dictionary, &Matrix),
        total: &mut [f32],
        mut hashes: Option<&mut Vec<i32>>,
    ) -> usize {
        let mut num_rows = 0;
        let mut tokens = Tokens::of(line);
        let mut block = [Found { start: 0, end: 0, key: [0; LONGEST / 8], place: 0 }; BLOCK];
        loop {
            let mut num_found = 0;
            for (found, (start, end)) in block.iter_mut().zip(&mut tokens) {
                let key = key(line.as_bytes(), start, end);
                let place = key.map_or(self.slots.len(), |key| self.slot_of(key));
                *found = Found { start, end, key: key.unwrap_or_default(), place };
                num_found += 1;
            }
            let block = &block[..num_found];
            let touched = block.iter().fold(0, |touched, found| {
                let sum = self.sums[self.first_sum + found.place * self.num_columns];
                touched ^ self.slots.get(found.place).map_or(0, |slot| slot.hash) ^ sum.to_bits()
            });
            std::hint::black_box(touched);
            for found in block {
                let word = self.add(line, found, case, model, total);
                num_rows += word.num_rows as usize;
                if let Some(hashes) = hashes.as_mut().filter(|_| word.kind != Kind::Label) {
                    hashes.push(word.hash as i32);
                }
                if word.kind == Kind::EndOfLine {
                    return num_rows;
                }
            }
            if num_found < BLOCK {
                break;
            }
        }
        num_rows + self.add_line(END_OF_LINE, case, model, total, hashes)
    }

    #[inline]
    fn add(&mut self, line: &str, found: &Found, case: Case, model: (&Dictionary, &Matrix), total: &mut [f32]) -> Word {
        let remembered = self.slots.get(found.place).filter(|slot| slot.key == found.key);
        let word = match remembered {
            Some(slot) => Word { kind: slot.kind, num_rows: u32::from(slot.num_rows), hash: slot.hash },
            None => self.sum(&line[found.start..found.end], case, model, found),
        };
        let start = self.first_sum + found.place * self.num_columns;
        add(total, &self.sums[start..start + self.num_columns]);
        word
    }

    /// Sums the rows of a word in the order in which fastText has them.
    #[inline(never)]
    fn sum(&mut self, token: &str, case: Case, (dictionary, input): (&Dictionary, &Matrix), found: &Found) -> Word {
        self.token.clear();
        self.token.extend_from_slice(token.as_bytes());
        if case == Case::Lower {
            if token.is_ascii() {
                self.token.make_ascii_lowercase();
            } else {
                self.token = token.to_lowercase().into_bytes();
            }
        }
        self.rows.clear();
        let kind = dictionary.push_rows_of_token(&self.token, &mut self.scratch, &mut self.rows);
        let start = self.first_sum + found.place * self.num_columns;
        let sum = &mut self.sums[start..start + self.num_columns];
        sum.fill(0.0);
        for &row in &self.rows {
            input.add_row(row as usize, sum);
        }
        let word = Word { kind, num_rows: self.rows.len() as u32, hash: hash(&self.token) };
        if let Some(slot) = self.slots.get_mut(found.place) {
            *slot = match u16::try_from(word.num_rows) {
                Ok(num_rows) => Slot { key: found.key, num_rows, kind, hash: word.hash },
                Err(_) => EMPTY,
            };
        }
        word
    }

    #[inline]
    fn slot_of(&self, key: Key) -> usize {
        // multiplication by an odd constant, as in rustc-hash; the high bits are used
        const FACTOR: u64 = 0xf135_7aea_2e62_a9c5;
        let mixed = key.iter().fold(0_u64, |mixed, part| (mixed.rotate_left(26) ^ part).wrapping_mul(FACTOR));
        (mixed >> self.shift) as usize
    }
}

/// The bits of a key that a word of each length has.
const MASKS: [Key; LONGEST + 1] = {
    let mut masks = [[0; LONGEST / 8]; LONGEST + 1];
    let mut length = 1;
    while length <= LONGEST {
        masks[length] = masks[length - 1];
        masks[length][(length - 1) / 8] |= 0xff << (8 * ((length - 1) % 8));
        length += 1;
    }
    masks
};

/// The key of the word between two bytes; none for a long one.
#[inline]
fn key(bytes: &[u8], start: usize, end: usize) -> Option<Key> {
    let length = end - start;
    if length > LONGEST {
        return None;
    }
    let mut padded = [0; LONGEST];
    let around: &[u8; LONGEST] = match bytes.get(start..start + LONGEST).and_then(|around| around.try_into().ok()) {
        Some(around) => around,
        None => {
            padded[..length].copy_from_slice(&bytes[start..end]);
            &padded
        }
    };
    let mut key = MASKS[length];
    for (part, eight) in key.iter_mut().zip(around.chunks_exact(8)) {
        *part &= u64::from_le_bytes([eight[0], eight[1], eight[2], eight[3], eight[4], eight[5], eight[6], eight[7]]);
    }
    Some(key)
}

#[inline]
fn add(total: &mut [f32], sum: &[f32]) {
    // the width of the published language models; read before it is written, so that it is added at once
    const WIDTH: usize = 16;
    if let (Ok(total), Ok(sum)) = (<&mut [f32; WIDTH]>::try_from(&mut *total), <&[f32; WIDTH]>::try_from(sum)) {
        *total = std::array::from_fn(|at| total[at] + sum[at]);
    } else {
        total.iter_mut().zip(sum).for_each(|(total, value)| *total += value);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rustc_hash::FxHashMap;

    use super::super::dictionary::Parts;
    use super::*;

    fn model() -> (Dictionary, Matrix) {
        let parts = Parts { min_chars: 2, max_chars: 3, max_words: 1, num_buckets: 50 };
        let mut dictionary = Dictionary {
            ids: FxHashMap::default(),
            num_words: 2,
            labels: Vec::new(),
            kept_buckets: None,
            parts,
            rows_of_words: Vec::new(),
            first_row_of_word: vec![0],
        };
        for (id, word) in [b"</s>".as_slice(), b"known"].into_iter().enumerate() {
            dictionary.ids.insert(word.into(), id as u32);
            let mut rows = std::mem::take(&mut dictionary.rows_of_words);
            dictionary.push_rows_of_known_word(id as u32, word, &mut rows);
            dictionary.first_row_of_word.push(rows.len());
            dictionary.rows_of_words = rows;
        }
        dictionary.ids.insert(b"__label__a".as_slice().into(), 2);
        let values = (0..52 * 3).map(|value| (value as f32 * 0.37).sin()).collect();
        (dictionary, Matrix::Dense { num_columns: 3, values })
    }

    proptest! {
        #[test]
        fn a_sum_has_one_value_remembered_or_not(
            words in prop::collection::vec("known|KNOWN|[a-cA-C]{1,3}|[ab]{7,9}|__label__[ab]|é[a-z]{0,40}|Σ|ΑΣ|</s>", 0..120)
        ) {
            let (dictionary, input) = model();
            let model = (&dictionary, &input);
            for case in [Case::AsIs, Case::Lower] {
                let mut kept = WordSums::new(3);
                let mut crowded = WordSums::with_slots(3, 1);
                // the same text again, and word by word, each as a text of its own
                let mut results = Vec::new();
                for sums in [&mut kept, &mut crowded] {
                    for _ in 0..2 {
                        let (mut total, mut hashes) = ([0.0_f32; 3], Vec::new());
                        let num_rows = sums.add_line(&words.join(" "), case, model, &mut total, Some(&mut hashes));
                        results.push((num_rows, total.map(f32::to_bits), hashes));
                    }
                }
                let (mut total, mut hashes, mut num_rows) = ([0.0_f32; 3], Vec::new(), 0);
                let text = words.iter().take_while(|word| *word != "</s>").map(String::as_str).chain([END_OF_LINE]);
                for word in text {
                    let mut sums = WordSums::with_slots(3, 1);
                    let folded = if case == Case::Lower { word.to_lowercase() } else { word.to_owned() };
                    let found = Found { start: 0, end: folded.len(), key: [1; 3], place: 2 };
                    let word = sums.add(&folded, &found, Case::AsIs, model, &mut total);
                    let is_label = folded.starts_with("__label__");
                    prop_assert_eq!(word.kind == Kind::Label, is_label);
                    num_rows += word.num_rows as usize;
                    hashes.extend((!is_label).then_some(hash(folded.as_bytes()) as i32));
                }
                let expected = (num_rows, total.map(f32::to_bits), hashes);
                for result in results {
                    prop_assert_eq!(&result, &expected);
                }
            }
        }
    }
}
