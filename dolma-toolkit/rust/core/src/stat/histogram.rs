//! Distributions of numbers in bounded memory: buckets of five significant digits, merged exactly.
//!
//! The buckets and the summaries are those of dolma 1.x: a value m · 2^e with 0.5 ≤ |m| < 1 falls into bucket
//! (⌊10⁵ m⌋, e).

use std::collections::HashMap;

use serde::Serialize;

const MANTISSA_BUCKETS: f64 = 1e5;

/// Values seen so far.
#[derive(Debug, Clone, Default)]
pub struct Tracker {
    buckets: HashMap<(i64, i32), u64>,
    total: u64,
    sum: f64,
    range: Option<(f64, f64)>,
}

/// A distribution, as `summaries.jsonl.gz` has it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// `<attribute>/score` or `<attribute>/length`
    pub name: String,
    /// of values between an edge and the next
    pub counts: Vec<u64>,
    /// edges, one more than counts
    pub bins: Vec<f64>,
    /// number of values
    pub total: u64,
    /// of the values
    pub sum: f64,
}

impl Tracker {
    /// Adds a value; it is finite, since JSON has no other numbers.
    pub fn add(&mut self, value: f64) {
        let (mantissa, exponent) = split(value);
        *self.buckets.entry(((mantissa * MANTISSA_BUCKETS).floor() as i64, exponent)).or_default() += 1;
        self.total += 1;
        self.sum += value;
        self.range = Some(self.range.map_or((value, value), |(least, most)| (least.min(value), most.max(value))));
    }

    /// Whether it has no value.
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// Adds the values of another.
    pub fn merge(&mut self, other: Self) {
        for (bucket, count) in other.buckets {
            *self.buckets.entry(bucket).or_default() += count;
        }
        self.total += other.total;
        self.sum += other.sum;
        for value in other.range.iter().flat_map(|range| [range.0, range.1]) {
            self.range = Some(self.range.map_or((value, value), |(least, most)| (least.min(value), most.max(value))));
        }
    }

    /// Smallest and greatest value.
    pub fn range(&self) -> (f64, f64) {
        self.range.unwrap_or_default()
    }

    /// Buckets by their lower ends.
    fn sorted(&self) -> Vec<(f64, u64)> {
        let mut sorted: Vec<(f64, u64)> = self
            .buckets
            .iter()
            .map(|((mantissa, exponent), count)| (lower_end(*mantissa, *exponent), *count))
            .collect();
        sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
        sorted
    }

    /// At most `bins` bins: the buckets themselves where they are few, else bins of equal width.
    pub fn summary(&self, name: &str, bins: usize) -> Summary {
        let sorted = self.sorted();
        let (counts, edges) = match sorted.last() {
            None => (Vec::new(), Vec::new()),
            Some(_) if sorted.len() <= bins => {
                let upper = self.buckets.keys().map(|bucket| lower_end(bucket.0 + 1, bucket.1)).max_by(f64::total_cmp);
                let edges = sorted.iter().map(|(value, _)| *value).chain(upper);
                (sorted.iter().map(|(_, count)| *count).collect(), edges.collect())
            }
            Some(_) => equal_width(&sorted, bins),
        };
        Summary { name: name.to_string(), counts, bins: edges, total: self.total, sum: self.sum }
    }

    /// The value below or at which the share `share` of the values lies, to five digits.
    pub fn quantile(&self, share: f64) -> f64 {
        let wanted = (share * self.total as f64).ceil().max(1.0) as u64;
        let (least, most) = self.range();
        let mut seen = 0;
        for (value, count) in self.sorted() {
            seen += count;
            if seen >= wanted {
                return value.clamp(least, most);
            }
        }
        most
    }
}

/// Mantissa and exponent: value = mantissa · 2^exponent, 0.5 ≤ |mantissa| < 1; zero is (0, 0).
fn split(value: f64) -> (f64, i32) {
    if value == 0.0 {
        return (0.0, 0);
    }
    const SUBNORMAL_SHIFT: i32 = 64;
    let (scaled, shift) =
        if value.is_normal() { (value, 0) } else { (value * 2f64.powi(SUBNORMAL_SHIFT), SUBNORMAL_SHIFT) };
    let bits = scaled.to_bits();
    let exponent = ((bits >> 52) & 0x7ff) as i32 - 1022;
    let mantissa = f64::from_bits((bits & !(0x7ff << 52)) | (1022 << 52));
    (mantissa, exponent - shift)
}

fn lower_end(mantissa: i64, exponent: i32) -> f64 {
    mantissa as f64 / MANTISSA_BUCKETS * 2f64.powi(exponent)
}

/// Bins of equal width between the first and the last value, as `numpy.histogram` makes them.
fn equal_width(sorted: &[(f64, u64)], bins: usize) -> (Vec<u64>, Vec<f64>) {
    let (first, last) = (sorted[0].0, sorted[sorted.len() - 1].0);
    let step = (last - first) / bins as f64;
    let mut edges: Vec<f64> = (0..=bins).map(|index| first + index as f64 * step).collect();
    edges[bins] = last;
    let mut counts = vec![0; bins];
    for (value, count) in sorted {
        let mut index = ((value - first) / (last - first) * bins as f64) as usize;
        index = index.min(bins - 1);
        // the division rounds; the edges decide
        if *value < edges[index] {
            index -= 1;
        } else if index + 1 < bins && *value >= edges[index + 1] {
            index += 1;
        }
        counts[index] += count;
    }
    (counts, edges)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tracker(values: &[f64]) -> Tracker {
        let mut tracker = Tracker::default();
        values.iter().for_each(|value| tracker.add(*value));
        tracker
    }

    #[test]
    fn few_values_keep_their_buckets() {
        let summary = tracker(&[0.5, 3.0, 0.5, 0.0]).summary("k", 10);
        assert_eq!(summary.counts, [1, 2, 1]);
        assert_eq!(summary.bins, [0.0, 0.5, 3.0, 3.00004]);
        assert_eq!((summary.total, summary.sum), (4, 4.0));
        assert_eq!(Tracker::default().summary("k", 10).counts, [0u64; 0]);
    }

    #[test]
    fn quantiles_are_values() {
        let tracker = tracker(&(1..=1000).map(f64::from).collect::<Vec<_>>());
        for (share, expected) in [(0.0, 1.0), (0.5, 500.0), (0.99, 990.0), (1.0, 1000.0)] {
            assert!((tracker.quantile(share) - expected).abs() <= expected * 2e-5, "{share}");
        }
        assert_eq!(tracker.range(), (1.0, 1000.0));
    }

    proptest! {
        #[test]
        fn splitting_is_exact(value in any::<f64>().prop_filter("finite", |value| value.is_finite())) {
            let (mantissa, exponent) = split(value);
            prop_assert!(value == 0.0 || (0.5..1.0).contains(&mantissa.abs()));
            // in two steps, since 2^exponent by itself may be too small or too large
            prop_assert_eq!(mantissa * 2f64.powi(exponent / 2) * 2f64.powi(exponent - exponent / 2), value);
        }

        #[test]
        fn every_value_is_in_one_bin(values in prop::collection::vec(-1e3..1e3f64, 1..200), bins in 1usize..20, cut in 0usize..200) {
            let (left, right) = values.split_at(cut.min(values.len()));
            let mut merged = tracker(left);
            merged.merge(tracker(right));
            let summary = merged.summary("k", bins);
            prop_assert_eq!(summary.counts.iter().sum::<u64>(), values.len() as u64);
            prop_assert_eq!(summary.bins.len(), summary.counts.len() + 1);
            prop_assert!(summary.bins.windows(2).all(|pair| pair[0] < pair[1]));
            prop_assert_eq!(summary.counts, tracker(&values).summary("k", bins).counts);
        }
    }
}
