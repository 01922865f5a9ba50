//! Numbers about all documents of a stream, in files of 32 bytes a document, and what is worked out from them: where a
//! budget ends, at which scores percentiles lie. Memory does not grow with the number of documents.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::PathBuf;

use super::choice::{Choice, Weighed};
use crate::error::{Error, Result};

const RECORD_BYTES: usize = 32;

impl Weighed {
    /// As it is written in a file.
    pub fn to_bytes(self) -> [u8; RECORD_BYTES] {
        let mut bytes = [0; RECORD_BYTES];
        for (chunk, number) in bytes.chunks_exact_mut(8).zip([self.turn, self.cost, self.score.to_bits(), self.weight])
        {
            chunk.copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    fn from_bytes(bytes: &[u8; RECORD_BYTES]) -> Self {
        let number = |index: usize| {
            let mut number = [0; 8];
            number.copy_from_slice(&bytes[8 * index..8 * index + 8]);
            u64::from_le_bytes(number)
        };
        Self { turn: number(0), cost: number(1), score: f64::from_bits(number(2)), weight: number(3) }
    }
}

/// Completes a choice from the files of a survey.
pub fn complete(choice: &mut Choice, files: &[PathBuf]) -> Result<()> {
    if let Some(budget) = choice.budget() {
        let limit = u128::from(budget.limit);
        choice.budget_end = select(files, limit, |one| Some((one.turn, one.cost)))?;
    }
    let Some(percentiles) = choice.percentiles().map(<[f64]>::to_vec) else { return Ok(()) };
    let end = choice.budget_end;
    let taken = |one: &Weighed| end.is_none_or(|end| one.turn < end);
    let mut total = 0u128;
    each(files, |one| total += u128::from(if taken(one) { one.weight } else { 0 }))?;
    choice.edges.clear();
    for percentile in percentiles {
        let below = (total as f64 * percentile / 100.0) as u128;
        let edge = select(files, below, |one| taken(one).then(|| (ordered(one.score), one.weight)))?;
        // without documents any edge is as good
        choice.edges.push(edge.map_or(f64::MAX, score));
    }
    Ok(())
}

/// The smallest key such that the documents up to it weigh more than `limit`, and those before it do not; `None` if all
/// together do not. Sixteen bits of the key are settled by each pass over the files.
fn select(files: &[PathBuf], limit: u128, measure: impl Fn(&Weighed) -> Option<(u64, u64)>) -> Result<Option<u64>> {
    const DIGIT_BITS: u32 = 16;
    let (mut prefix, mut left) = (0u64, limit);
    for shift in [48, 32, 16, 0] {
        let mut weights = vec![0u128; 1 << DIGIT_BITS];
        each(files, |one| {
            if let Some((key, weight)) = measure(one) {
                // a shift by all 64 bits is none
                if key.checked_shr(shift + DIGIT_BITS).unwrap_or(0) == prefix {
                    weights[(key >> shift) as usize & 0xffff] += u128::from(weight);
                }
            }
        })?;
        let mut before = 0u128;
        let digit = weights.iter().position(|weight| {
            let exceeds = before + weight > left;
            before += if exceeds { 0 } else { *weight };
            exceeds
        });
        let Some(digit) = digit else { return Ok(None) };
        left -= before;
        prefix = prefix << DIGIT_BITS | digit as u64;
    }
    Ok(Some(prefix))
}

fn each(files: &[PathBuf], mut look: impl FnMut(&Weighed)) -> Result<()> {
    for path in files {
        let fail = |source| Error::io(path, source);
        let file = File::open(path).map_err(fail)?;
        let count = file.metadata().map_err(fail)?.len() / RECORD_BYTES as u64;
        let mut reader = BufReader::with_capacity(1 << 17, file);
        let mut bytes = [0; RECORD_BYTES];
        for _ in 0..count {
            reader.read_exact(&mut bytes).map_err(fail)?;
            look(&Weighed::from_bytes(&bytes));
        }
    }
    Ok(())
}

/// Bits that are ordered as the numbers are.
fn ordered(score: f64) -> u64 {
    let bits = score.to_bits();
    if bits >> 63 == 1 {
        !bits
    } else {
        bits | 1 << 63
    }
}

fn score(ordered: u64) -> f64 {
    f64::from_bits(if ordered >> 63 == 1 { ordered & !(1 << 63) } else { !ordered })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file_of(entries: &[Weighed]) -> (tempfile::TempDir, Vec<PathBuf>) {
        let folder = tempfile::tempdir().unwrap();
        let halves = entries.split_at(entries.len() / 2);
        let paths = [(halves.0, "a"), (halves.1, "b")].map(|(half, name)| {
            let path = folder.path().join(name);
            std::fs::write(&path, half.iter().flat_map(|one| one.to_bytes()).collect::<Vec<u8>>()).unwrap();
            path
        });
        (folder, paths.to_vec())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn selection_is_that_of_a_sorted_list(
            entries in prop::collection::vec((prop_oneof![any::<u64>(), 0u64..9], 0u64..20), 0..40),
            limit in 0u128..300,
        ) {
            let entries: Vec<Weighed> =
                entries.into_iter().map(|(turn, cost)| Weighed { turn, cost, ..Weighed::default() }).collect();
            let mut sorted: Vec<(u64, u64)> = entries.iter().map(|one| (one.turn, one.cost)).collect();
            sorted.sort_unstable();
            let mut sum = 0u128;
            let expected = sorted.iter().find_map(|(turn, cost)| {
                sum += u128::from(*cost);
                (sum > limit).then_some(*turn)
            });
            let (_folder, files) = file_of(&entries);
            prop_assert_eq!(select(&files, limit, |one| Some((one.turn, one.cost))).unwrap(), expected);
        }

        #[test]
        fn scores_keep_their_order(one in any::<f64>(), other in any::<f64>()) {
            prop_assume!(!one.is_nan() && !other.is_nan() && one != other);
            prop_assert_eq!(ordered(one) < ordered(other), one < other);
            prop_assert_eq!(score(ordered(one)), one);
        }
    }
}
