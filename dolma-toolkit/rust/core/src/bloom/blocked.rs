//! Version 3: all bits of a key are in one block of 512 bits, a cache line, so that a key costs one memory access.
//!
//! Blocks fill unevenly, and a full block answers wrongly far more often than an empty one. So this filter needs more
//! bits than one without blocks, and its rate has another formula: [`Rates`].

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::OnceLock;

use super::Bits;

/// A cache line of x86 and most ARM processors, as in Putze, Sanders and Singler, "Cache-, Hash- and Space-Efficient
/// Bloom Filters", 2007.
const BLOCK_BITS: usize = 512;
pub const BLOCK_WORDS: usize = BLOCK_BITS / 64;
/// So many positions in a block fit into 64 bits of hash: 7 × 9.
const POSITIONS_PER_HASH: usize = 7;
/// Two hashes. More positions would need more memory at every rate that a key in one block is for.
pub const MAX_POSITIONS: u32 = 2 * POSITIONS_PER_HASH as u32;
/// A rate of 10⁻²⁰.
pub const MAX_BLOCKS_PER_KEY: u32 = 4;
/// The lowest rate of one block. At lower ones a key takes more memory than in two blocks: 42 bits instead of 34 at 10⁻⁶.
const LOWEST_RATE: f64 = 1e-5;
/// An odd number without pattern, from Steele and Vigna, "Computationally Easy, Spectrally Good Multipliers for
/// Congruential Pseudorandom Number Generators", 2022.
const MULTIPLIER: u64 = 0xAF25_1AF3_B0F0_25B5;

/// Size and shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizing {
    /// of 512 bits
    pub blocks: u64,
    /// blocks in which a key has bits
    pub blocks_per_key: u32,
    /// bit positions in each
    pub positions: u32,
}

impl Sizing {
    /// The smallest filter that answers wrongly at most at `rate` once it holds `keys` keys.
    pub fn for_keys(keys: u64, rate: f64) -> Self {
        let (blocks_per_key, positions) = shape(rate);
        let load = Rates::of(positions).load(rate.powf(1.0 / f64::from(blocks_per_key)));
        let blocks = (keys.max(1) as f64 * f64::from(blocks_per_key) / load).ceil() as u64;
        Self { blocks: blocks.max(1), blocks_per_key, positions }
    }

    /// A filter of `size_bytes`, of the shape that suits `keys` keys, or else `rate`, or else some 10⁻⁴.
    pub fn for_size(size_bytes: u64, keys: u64, rate: f64) -> Self {
        /// Bits that a key takes in a block at [`LOWEST_RATE`].
        const MOST_BITS: f64 = 31.3;
        /// Bits for a position, at all rates nearly.
        const BITS_PER_POSITION: f64 = 3.3;
        let blocks = (size_bytes / 64).max(1);
        let bits = (blocks as usize * BLOCK_BITS) as f64 / keys as f64;
        let blocks_per_key = (bits / MOST_BITS).ceil().clamp(1.0, f64::from(MAX_BLOCKS_PER_KEY));
        let positions = (bits / blocks_per_key / BITS_PER_POSITION + 1.0).round().clamp(1.0, 10.0);
        let (blocks_per_key, positions) = match (keys, rate) {
            (0, 0.0) => (1, 8),
            (0, rate) => shape(rate),
            _ => (blocks_per_key as u32, positions as u32),
        };
        Self { blocks, blocks_per_key, positions }
    }

    /// Expected share of keys that were never inserted and are called seen, once `keys` were inserted.
    pub fn false_positive_rate(&self, keys: u64) -> f64 {
        self.rate_with(Rates::of(self.positions), keys)
    }

    fn rate_with(&self, rates: &Rates, keys: u64) -> f64 {
        let load = keys as f64 * f64::from(self.blocks_per_key) / self.blocks as f64;
        rates.at_load(load).powf(f64::from(self.blocks_per_key))
    }

    /// How many keys may be inserted until more than a share of `rate` new keys is called seen.
    pub fn max_keys(&self, rate: f64) -> u64 {
        let rates = Rates::of(self.positions);
        let (mut fits, mut exceeds) = (0, 1);
        while self.rate_with(rates, exceeds) <= rate && exceeds < u64::MAX / 2 {
            (fits, exceeds) = (exceeds, exceeds * 2);
        }
        while exceeds - fits > 1 {
            let middle = fits + (exceeds - fits) / 2;
            match self.rate_with(rates, middle) <= rate {
                true => fits = middle,
                false => exceeds = middle,
            }
        }
        fits
    }

    /// Memory and disk that the bits take.
    pub fn size_bytes(&self) -> u64 {
        self.blocks.saturating_mul(64)
    }
}

/// Blocks per key and positions in each for a rate. With ⌈½ log₂(1/p)⌉ + 1 positions a filter is at most a tenth larger than
/// with the best number, which is half as large again; the time is that of the positions.
fn shape(rate: f64) -> (u32, u32) {
    let blocks = (rate.log2() / LOWEST_RATE.log2() - 1e-9).ceil().clamp(1.0, f64::from(MAX_BLOCKS_PER_KEY));
    let positions = (-rate.log2() / blocks / 2.0).ceil() + 1.0;
    (blocks as u32, positions.clamp(2.0, f64::from(MAX_POSITIONS)) as u32)
}

/// The rate of wrong answers of a block, by the number of keys in it.
///
/// With `i` keys of k positions each, the number of set bits is that of the occupied among 512 places after k·i
/// throws, and a new key finds its k positions set with probability (set / 512)^k. Both are computed exactly here. The keys of a
/// block are Poisson-distributed.
struct Rates {
    /// up to nearly 1
    by_keys: Vec<f64>,
}

impl Rates {
    /// Of blocks in which a key has so many positions.
    fn of(positions: u32) -> &'static Self {
        static RATES: [OnceLock<Rates>; MAX_POSITIONS as usize + 1] =
            [const { OnceLock::new() }; MAX_POSITIONS as usize + 1];
        RATES[positions as usize].get_or_init(|| Self::new(positions))
    }

    fn new(positions: u32) -> Self {
        const NEARLY_ONE: f64 = 0.99;
        let share = |set: usize| set as f64 / BLOCK_BITS as f64;
        let powers: Vec<f64> = (0..=BLOCK_BITS).map(|set| share(set).powi(positions as i32)).collect();
        // the probability of each number of set bits
        let mut chances = vec![0.0; BLOCK_BITS + 1];
        chances[0] = 1.0;
        let mut by_keys = vec![0.0];
        while by_keys.last().is_some_and(|rate| *rate < NEARLY_ONE) {
            for _ in 0..positions {
                let mut fewer = 0.0;
                for (set, chance) in chances.iter_mut().enumerate() {
                    let stays = *chance * share(set);
                    let grows = *chance - stays;
                    *chance = stays + fewer;
                    fewer = grows;
                }
            }
            by_keys.push(chances.iter().zip(&powers).map(|(chance, power)| chance * power).sum());
        }
        Self { by_keys }
    }

    /// Of blocks with `load` keys on average.
    fn at_load(&self, load: f64) -> f64 {
        if load <= 0.0 {
            return 0.0;
        }
        let (mut rate, mut whole, mut log_chance) = (0.0, 0.0, -load);
        for (keys, rate_of_keys) in self.by_keys.iter().enumerate() {
            if keys > 0 {
                log_chance += (load / keys as f64).ln();
            }
            let chance = log_chance.exp();
            whole += chance;
            rate += chance * rate_of_keys;
        }
        (rate + (1.0 - whole).max(0.0)).min(1.0)
    }

    /// The highest load with at most this rate.
    fn load(&self, rate: f64) -> f64 {
        let (mut fits, mut exceeds) = (0.0, self.by_keys.len() as f64);
        for _ in 0..60 {
            let middle = (fits + exceeds) / 2.0;
            match self.at_load(middle) <= rate {
                true => fits = middle,
                false => exceeds = middle,
            }
        }
        fits
    }
}

/// The bits. Any thread may ask; one at a time may insert.
#[derive(Debug)]
pub struct Blocked {
    sizing: Sizing,
    /// with a few words before the first block, which begins at a multiple of 64 bytes
    words: Vec<AtomicU64>,
    first: usize,
}

impl Blocked {
    /// No bit is set.
    pub fn new(sizing: Sizing) -> Self {
        let mut words: Vec<AtomicU64> = Vec::with_capacity((sizing.blocks as usize + 1) * BLOCK_WORDS);
        let first = (64 - words.as_ptr() as usize % 64) % 64 / 8;
        words.extend((0..first + sizing.blocks as usize * BLOCK_WORDS).map(|_| AtomicU64::new(0)));
        Self { sizing, words, first }
    }

    /// Without memory for its bits.
    pub fn hollow(sizing: Sizing) -> Self {
        Self { sizing, words: Vec::new(), first: 0 }
    }

    /// Its size.
    pub fn sizing(&self) -> Sizing {
        self.sizing
    }

    /// All bits.
    pub fn words(&self) -> &[AtomicU64] {
        &self.words[self.first..]
    }
}

impl Bits for Blocked {
    #[inline]
    fn fetch(&self, keys: &[u128]) {
        let mut sum = 0;
        for key in keys {
            self.blocks(*key).for_each(|(start, _)| sum ^= self.words[start].load(Relaxed));
        }
        black_box(sum);
    }

    #[inline]
    fn contains(&self, key: u128) -> bool {
        self.blocks(key).fold(0, |missing, (start, hash)| missing | self.missing(start, hash)) == 0
    }

    #[inline]
    fn insert(&self, key: u128) -> bool {
        let mut missing = 0;
        for (start, hash) in self.blocks(key) {
            let block = &self.words[start..start + BLOCK_WORDS];
            for (word, bit) in positions(hash, self.sizing.positions) {
                let before = block[word].load(Relaxed);
                missing |= !before & bit;
                block[word].store(before | bit, Relaxed);
            }
        }
        missing == 0
    }
}

impl Blocked {
    /// Where in `words` the block of a hash begins.
    #[inline]
    fn start(&self, hash: u64) -> usize {
        // The high half of a 64 × 64-bit product maps a hash onto 0..blocks without a division.
        let block = (u128::from(hash) * u128::from(self.sizing.blocks)) >> 64;
        self.first + block as usize * BLOCK_WORDS
    }

    /// Where the blocks of a key begin, and the hash that gives the positions in each.
    #[inline]
    fn blocks(&self, key: u128) -> impl Iterator<Item = (usize, u64)> + use<'_> {
        let (mut block_hash, mut bits_hash) = (key as u64, (key >> 64) as u64);
        (0..self.sizing.blocks_per_key).map(move |index| {
            if index > 0 {
                block_hash = fold(block_hash);
                bits_hash = fold(fold(bits_hash));
            }
            (self.start(block_hash), bits_hash)
        })
    }

    /// The bits of a hash that are not set.
    #[inline]
    fn missing(&self, start: usize, hash: u64) -> u64 {
        let block = &self.words[start..start + BLOCK_WORDS];
        positions(hash, self.sizing.positions)
            .fold(0, |missing, (word, bit)| missing | (!block[word].load(Relaxed) & bit))
    }
}

/// Word and bit of each position in a block: nine bits of the hash each, and for the eighth on those of another.
#[inline]
pub fn positions(hash: u64, count: u32) -> impl Iterator<Item = (usize, u64)> {
    let mut left = hash;
    (0..count as usize).map(move |index| {
        if index == POSITIONS_PER_HASH {
            left = fold(hash);
        }
        let (word, bit) = ((left >> 6) as usize % BLOCK_WORDS, 1 << (left % 64));
        left >>= 9;
        (word, bit)
    })
}

/// Another hash: both halves of a 128-bit product.
#[inline]
pub fn fold(hash: u64) -> u64 {
    let product = u128::from(hash) * u128::from(MULTIPLIER);
    product as u64 ^ (product >> 64) as u64
}
