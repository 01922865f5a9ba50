//! Prediction with supervised fastText models, `.bin` and quantized `.ftz` (Joulin et al. 2016, "Bag of Tricks for Efficient Text
//! Classification" and "FastText.zip"). The rows of each word are summed by themselves first, so that the sums of frequent words can be
//! remembered; otherwise the arithmetic has the order and the precision of fastText 0.9.2, whose numbers come out to about 1e-6.

mod dictionary;
mod load;
mod matrix;
mod sums;

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use crate::error::Result;
use dictionary::Dictionary;
use matrix::Matrix;
use sums::WordSums;

/// A classifier.
pub struct Model {
    dictionary: Dictionary,
    input: Matrix,
    output: Matrix,
    loss: Loss,
    /// By `Case`, one for each thread that predicts at the same time.
    sums: [Mutex<Vec<WordSums>>; 2],
}

/// How words are looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// As they are in the text.
    AsIs,
    /// In lower case. No rule of lower case looks beyond a separator, so words fold as the whole text does.
    Lower,
}

/// How output rows become probabilities.
enum Loss {
    HierarchicalSoftmax(Tree),
    Softmax,
    /// One sigmoid a label: negative sampling and one-versus-all.
    Sigmoid,
}

impl Model {
    /// Reads a model file.
    ///
    /// `Error::Io` where it cannot be read; `Error::Format` if it is not a supervised fastText model or is cut short.
    pub fn load(path: &Path) -> Result<Model> {
        load::load(path)
    }

    /// Number of labels.
    pub fn num_labels(&self) -> usize {
        self.dictionary.labels.len()
    }

    /// The label of that number, with its prefix.
    pub fn label(&self, number: usize) -> &str {
        &self.dictionary.labels[number].name
    }

    /// All labels with a probability worth naming (with hierarchical softmax from 1e-5, as in fastText), the most probable first.
    ///
    /// `line` is one example; a newline in it separates words, as a blank does.
    pub fn predict(&self, line: &str) -> Vec<(usize, f32)> {
        self.predict_above(0.0, line, Case::AsIs)
    }

    /// As `predict`, but labels below the probability `least` may be missing, which takes less time.
    pub fn predict_above(&self, least: f32, line: &str, case: Case) -> Vec<(usize, f32)> {
        let Some(hidden) = self.hidden(line, case) else { return Vec::new() };
        let mut scores = match &self.loss {
            Loss::HierarchicalSoftmax(tree) => tree.log_probabilities(&self.output, &hidden, least),
            Loss::Softmax => self.softmax(&hidden).into_iter().map(log).enumerate().collect(),
            Loss::Sigmoid => (0..self.output.num_rows())
                .map(|row| (row, log(tabulated_sigmoid(self.output.dot_row(row, &hidden)))))
                .collect(),
        };
        sort(&mut scores);
        scores.iter_mut().for_each(|(_, score)| *score = score.exp());
        scores
    }

    /// The probability of one label, if `predict` would name it.
    pub fn probability(&self, label: usize, line: &str, case: Case) -> Option<f32> {
        let Loss::HierarchicalSoftmax(tree) = &self.loss else {
            return self
                .predict_above(0.0, line, case)
                .into_iter()
                .find(|scored| scored.0 == label)
                .map(|scored| scored.1);
        };
        tree.log_probability(label, &self.output, &self.hidden(line, case)?).map(f32::exp)
    }

    /// The mean of the rows of a line: word by word, then those of its runs of words. `None` without rows.
    fn hidden(&self, line: &str, case: Case) -> Option<Vec<f32>> {
        let mut hidden = vec![0.0_f32; self.input.num_columns()];
        let free = &self.sums[case as usize];
        let kept = free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut sums = kept.unwrap_or_else(|| WordSums::new(hidden.len()));
        let mut hashes = Vec::new();
        let wanted = (self.dictionary.parts.max_words > 1).then_some(&mut hashes);
        let mut num_rows = sums.add_line(line, case, (&self.dictionary, &self.input), &mut hidden, wanted);
        free.lock().unwrap_or_else(PoisonError::into_inner).push(sums);
        let mut rows = Vec::new();
        self.dictionary.push_runs_of_words(&hashes, &mut rows);
        for &row in &rows {
            self.input.add_row(row as usize, &mut hidden);
        }
        num_rows += rows.len();
        let scale = (1.0 / num_rows as f64) as f32;
        hidden.iter_mut().for_each(|value| *value *= scale);
        (num_rows > 0).then_some(hidden)
    }

    fn softmax(&self, hidden: &[f32]) -> Vec<f32> {
        let mut values: Vec<f32> = (0..self.output.num_rows()).map(|row| self.output.dot_row(row, hidden)).collect();
        let largest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mut sum = 0.0_f32;
        for value in &mut values {
            *value = (*value - largest).exp();
            sum += *value;
        }
        values.iter().map(|value| value / sum).collect()
    }
}

/// The highest score first; of equal ones, that which came first.
fn sort(scores: &mut Vec<(usize, f32)>) {
    let descending = |score: f32| {
        let bits = score.to_bits() as i32;
        !((bits ^ ((bits >> 31) as u32 >> 1) as i32) as u32 ^ 1 << 31)
    };
    let mut order: Vec<u64> =
        (0_u64..).zip(scores.iter()).map(|(at, scored)| u64::from(descending(scored.1)) << 32 | at).collect();
    order.sort_unstable();
    *scores = order.into_iter().map(|key| scores[key as u32 as usize]).collect();
}

/// The logarithm of fastText: never of zero.
fn log(value: f32) -> f32 {
    (f64::from(value) + 1e-5).ln() as f32
}

/// The sigmoid of fastText's table of 512 steps from -8 to 8.
fn tabulated_sigmoid(value: f32) -> f32 {
    const STEPS: f32 = 512.0;
    const LARGEST: f32 = 8.0;
    if value.is_nan() {
        return value;
    }
    if value < -LARGEST {
        return 0.0;
    }
    if value > LARGEST {
        return 1.0;
    }
    let step = ((value + LARGEST) * STEPS / LARGEST / 2.0) as i64;
    let at = (step * 2 * LARGEST as i64) as f32 / STEPS - LARGEST;
    (1.0 / (1.0 + f64::from((-at).exp()))) as f32
}

/// The Huffman tree over the labels that hierarchical softmax walks.
struct Tree {
    num_leaves: usize,
    /// Children of the inner nodes; the node i of them has the number `num_leaves + i`, the last is the root.
    children: Vec<(usize, usize)>,
    /// The inner node above each node but the root.
    parents: Vec<usize>,
    /// The leaves from the left to the right.
    leaves: Vec<usize>,
}

impl Tree {
    /// Builds it from the counts of the labels, which fall.
    fn new(counts: &[i64]) -> Tree {
        let num_leaves = counts.len();
        let mut totals = counts.to_vec();
        let mut children = Vec::new();
        let mut parents = vec![0; (2 * num_leaves).saturating_sub(2)];
        // leaves from the rarest on, and inner nodes in the order of their making
        let (mut leaves_left, mut next_inner) = (num_leaves, num_leaves);
        while totals.len() + 1 < 2 * num_leaves {
            let mut take_smallest = || {
                let inner = totals.get(next_inner).copied().unwrap_or(i64::MAX);
                if leaves_left > 0 && totals[leaves_left - 1] < inner {
                    leaves_left -= 1;
                    leaves_left
                } else {
                    next_inner += 1;
                    next_inner - 1
                }
            };
            let pair = (take_smallest(), take_smallest());
            (parents[pair.0], parents[pair.1]) = (totals.len(), totals.len());
            totals.push(totals[pair.0].saturating_add(totals[pair.1]));
            children.push(pair);
        }
        let mut leaves = Vec::with_capacity(num_leaves);
        let mut open = vec![totals.len() - 1];
        while let Some(node) = open.pop() {
            match children.get(node.wrapping_sub(num_leaves)) {
                Some(&(left, right)) => open.extend([right, left]),
                None => leaves.push(node),
            }
        }
        Tree { num_leaves, children, parents, leaves }
    }

    /// The leaves above 1e-5 from the left to the right, and perhaps not those below the probability `least`.
    fn log_probabilities(&self, output: &Matrix, hidden: &[f32], least: f32) -> Vec<(usize, f32)> {
        // a share is added 1e-5 on each step down, so a node may be a little less probable than a leaf below it
        let lowest = log(0.0).max((least * 0.9).ln());
        let values = output.dot_rows(self.children.len(), hidden);
        // one loop each, so that several nodes are computed at once
        let right_shares: Vec<f32> = values.iter().map(|&value| right_share(value)).collect();
        let left_steps: Vec<f32> = right_shares.iter().map(|share| step(1.0 - share)).collect();
        let right_steps: Vec<f32> = right_shares.iter().map(|&share| step(share)).collect();
        let mut scores = vec![0.0_f32; self.num_leaves + self.children.len()];
        let inner = self.children.iter().zip(left_steps.into_iter().zip(right_steps)).enumerate();
        // a parent has a higher number than its children
        for (at, (&(left, right), (left_step, right_step))) in inner.rev() {
            let score = scores[self.num_leaves + at];
            let score = if score < lowest { f32::NEG_INFINITY } else { score };
            scores[left] = score + left_step;
            scores[right] = score + right_step;
        }
        let leaves = self.leaves.iter().map(|&leaf| (leaf, scores[leaf]));
        leaves.filter(|(_, score)| *score >= lowest || score.is_nan()).collect()
    }

    /// The same for one node; `None` where it or a node above it is too improbable.
    fn log_probability(&self, node: usize, output: &Matrix, hidden: &[f32]) -> Option<f32> {
        let Some(&parent) = self.parents.get(node) else { return Some(0.0) };
        let above = self.log_probability(parent, output, hidden)?;
        let inner = parent - self.num_leaves;
        let right = right_share(output.dot_row(inner, hidden));
        let score = above + step(if self.children[inner].1 == node { right } else { 1.0 - right });
        (score >= log(0.0) || score.is_nan()).then_some(score)
    }
}

/// The sigmoid: the probability of going to the right at an inner node, from its value.
#[inline]
fn right_share(value: f32) -> f32 {
    1.0 / (1.0 + exponential(-value))
}

/// What a step adds to the logarithm of a probability; as fastText has it, never the logarithm of zero.
#[inline]
fn step(share: f32) -> f32 {
    logarithm(share + 1e-5)
}

/// `exp` without a branch or a call, so that it is computed for several values at once (Moshier's Cephes); to about 1e-7.
#[inline]
fn exponential(value: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: a sum with it has no fraction
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    const LARGEST: f32 = 87.0;
    let value = if value > LARGEST { LARGEST } else { value };
    let value = if value < -LARGEST { -LARGEST } else { value };
    let shifted = value * std::f32::consts::LOG2_E + ROUND;
    let power = shifted - ROUND;
    let rest = value - power * LN_2_HIGH - power * LN_2_LOW;
    let series = ((((1.987_569_1e-4 * rest + 1.398_2e-3) * rest + 8.333_452e-3) * rest + 4.166_579_6e-2) * rest
        + 0.166_666_65)
        * rest
        + 0.5;
    let mantissa = series * rest * rest + rest + 1.0;
    // the lowest bits of the shifted number are the power of two
    f32::from_bits((mantissa.to_bits()).wrapping_add(shifted.to_bits() << 23))
}

/// `ln` of a positive number that is not tiny, in the same way.
#[inline]
fn logarithm(value: f32) -> f32 {
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    const SQRT_HALF: u32 = 0x3f35_04f3;
    // the mantissa between the roots of 1/2 and 2
    let above = value.to_bits().wrapping_sub(SQRT_HALF);
    let power = (above as i32 >> 23) as f32;
    let rest = f32::from_bits((above & 0x007f_ffff) + SQRT_HALF) - 1.0;
    let square = rest * rest;
    let series = (((((((7.037_683_6e-2 * rest - 0.115_146_1) * rest + 0.116_769_98) * rest - 0.124_201_41) * rest
        + 0.142_493_23)
        * rest
        - 0.166_680_57)
        * rest
        + 0.200_007_15)
        * rest
        - 0.249_999_94)
        * rest
        + 0.333_333_3;
    let tail = series * rest * square + power * LN_2_LOW - 0.5 * square;
    let logarithm = rest + tail + power * LN_2_HIGH;
    if value.is_nan() {
        value
    } else {
        logarithm
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_joins_the_rarest_first() {
        let tree = Tree::new(&[10, 5, 3, 1]);
        assert_eq!(tree.children, [(3, 2), (4, 1), (5, 0)]);
        assert_eq!((tree.parents, tree.leaves), (vec![6, 5, 4, 4, 5, 6], vec![3, 2, 1, 0]));
        assert_eq!(Tree::new(&[4]).children, []);
        assert_eq!(Tree::new(&[2, 2]).children, [(1, 0)]);
    }

    #[test]
    fn scores_fall_and_equal_ones_keep_their_order() {
        let mut state = 5_u64;
        for _ in 0..200 {
            let mut scores: Vec<(usize, f32)> = (0..100)
                .map(|label| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    let values = [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0];
                    let number = (state >> 33) as usize;
                    (label, values.get(number % 20).copied().unwrap_or((number % 30) as f32 - 15.0))
                })
                .collect();
            let mut expected = scores.clone();
            expected.sort_by(|left, right| right.1.total_cmp(&left.1));
            sort(&mut scores);
            let bits = |scores: &[(usize, f32)]| {
                scores.iter().map(|(label, score)| (*label, score.to_bits())).collect::<Vec<_>>()
            };
            assert_eq!(bits(&scores), bits(&expected));
        }
    }

    #[test]
    fn steps_are_logarithms_of_sigmoids() {
        for value in (-9_500..=9_500).map(|hundredths| hundredths as f32 / 100.0) {
            let right = 1.0 / (1.0 + (-f64::from(value)).exp());
            let expected = [(1.0 - right + 1e-5).ln(), (right + 1e-5).ln()];
            let share = right_share(value);
            let found = [1.0 - share, share].map(|share| f64::from(step(share)));
            for side in 0..2 {
                // a probability is their exponential: what counts is their absolute error
                let error = (found[side] - expected[side]).abs();
                assert!(error < 3e-7 + 1e-7 / expected[side].exp(), "{value}: {found:?}, {expected:?}");
            }
        }
        assert!(step(right_share(f32::NAN)).is_nan());
    }

    #[test]
    fn the_sigmoid_is_flat_outside_its_table() {
        assert_eq!(tabulated_sigmoid(-9.0), 0.0);
        assert_eq!(tabulated_sigmoid(9.0), 1.0);
        assert_eq!(tabulated_sigmoid(0.0), 0.5);
        assert!(tabulated_sigmoid(f32::NAN).is_nan());
        assert!((tabulated_sigmoid(2.0) - 0.880_797).abs() < 1e-3);
    }
}
