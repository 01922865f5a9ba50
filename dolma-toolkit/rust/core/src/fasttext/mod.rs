//! Prediction with supervised fastText models, `.bin` and quantized `.ftz` (Joulin et al. 2016, "Bag of Tricks for Efficient Text
//! Classification" and "FastText.zip"). The arithmetic has the order and the precision of fastText 0.9.2, so its numbers come out.

mod dictionary;
mod load;
mod matrix;

use std::path::Path;

use crate::error::Result;
use dictionary::Dictionary;
use matrix::Matrix;

/// A classifier.
pub struct Model {
    dictionary: Dictionary,
    input: Matrix,
    output: Matrix,
    loss: Loss,
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
    /// `line` is one example; what is after a newline in it is not looked at.
    pub fn predict(&self, line: &str) -> Vec<(usize, f32)> {
        let rows = self.dictionary.rows_of_line(line.as_bytes());
        if rows.is_empty() {
            return Vec::new();
        }
        let mut hidden = vec![0.0_f32; self.input.num_columns()];
        for &row in &rows {
            self.input.add_row(row as usize, &mut hidden);
        }
        let scale = (1.0 / rows.len() as f64) as f32;
        hidden.iter_mut().for_each(|value| *value *= scale);
        let mut scores = match &self.loss {
            Loss::HierarchicalSoftmax(tree) => tree.log_probabilities(&self.output, &hidden),
            Loss::Softmax => self.softmax(&hidden).into_iter().map(log).enumerate().collect(),
            Loss::Sigmoid => (0..self.output.num_rows())
                .map(|row| (row, log(tabulated_sigmoid(self.output.dot_row(row, &hidden)))))
                .collect(),
        };
        scores.sort_by(|left: &(usize, f32), right| right.1.total_cmp(&left.1));
        scores.into_iter().map(|(label, score)| (label, score.exp())).collect()
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
}

impl Tree {
    /// Builds it from the counts of the labels, which fall.
    fn new(counts: &[i64]) -> Tree {
        let num_leaves = counts.len();
        let mut totals = counts.to_vec();
        let mut children = Vec::new();
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
            totals.push(totals[pair.0].saturating_add(totals[pair.1]));
            children.push(pair);
        }
        Tree { num_leaves, children }
    }

    fn log_probabilities(&self, output: &Matrix, hidden: &[f32]) -> Vec<(usize, f32)> {
        let lowest = log(0.0);
        let mut leaves = Vec::with_capacity(self.num_leaves);
        let mut open = vec![(self.num_leaves + self.children.len() - 1, 0.0_f32)];
        while let Some((node, score)) = open.pop() {
            if score < lowest {
                continue;
            }
            if node < self.num_leaves {
                leaves.push((node, score));
                continue;
            }
            let (left, right) = self.children[node - self.num_leaves];
            let value = output.dot_row(node - self.num_leaves, hidden);
            let right_share = (1.0 / f64::from(1.0 + (-value).exp())) as f32;
            open.push((right, score + log(right_share)));
            open.push((left, score + log(1.0 - right_share)));
        }
        leaves
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_joins_the_rarest_first() {
        let tree = Tree::new(&[10, 5, 3, 1]);
        assert_eq!(tree.children, [(3, 2), (4, 1), (5, 0)]);
        assert_eq!(Tree::new(&[4]).children, []);
        assert_eq!(Tree::new(&[2, 2]).children, [(1, 0)]);
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
