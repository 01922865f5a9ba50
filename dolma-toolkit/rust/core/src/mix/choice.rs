//! Which documents of a stream are taken, how often, and into which part of the output: sample, budget, split.
//!
//! All of it is decided by hashes of a seed and of a document's place and id, never by the order in
//! which threads come to it.

use xxhash_rust::xxh3::Xxh3;

use super::row::{Attribute, Row};
use super::settings::{BudgetSettings, BudgetUnit, RuleSettings, SampleSettings, SplitSettings};
use crate::document::Place;
use crate::error::{Code, Result};

/// What tells a document from all others of its stream: file below `documents`, line, id.
#[derive(Debug, Clone, Copy)]
pub struct Identity<'a> {
    /// path below the last directory `documents`
    pub file: &'a str,
    /// 1-based
    pub line: u64,
    /// of the document
    pub id: &'a str,
}

/// What a hash is for: two uses of one seed must not agree.
#[derive(Debug, Clone, Copy)]
pub enum Use {
    /// is it in the sample
    Sample = 1,
    /// its turn to be taken into the budget
    Budget = 2,
    /// its place in a shuffled output
    Shuffle = 3,
}

impl Identity<'_> {
    /// A number that is evenly distributed over the documents of a stream.
    pub fn hash(&self, seed: u64, usage: Use, copy: u32) -> u64 {
        let mut hash = Xxh3::with_seed(seed);
        hash.update(&[usage as u8]);
        hash.update(&copy.to_le_bytes());
        hash.update(&self.line.to_le_bytes());
        hash.update(&(self.file.len() as u64).to_le_bytes());
        hash.update(self.file.as_bytes());
        hash.update(self.id.as_bytes());
        hash.digest()
    }
}

/// What becomes of a document that the rules keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fate {
    /// how often it is written
    pub copies: u32,
    /// which part of a split it belongs to
    pub part: usize,
}

/// Sample, budget and split of a stream, with what a survey of all its documents found.
#[derive(Debug, Clone, Default)]
pub struct Choice {
    sample: Option<SampleSettings>,
    budget: Option<BudgetSettings>,
    split: Option<SplitSettings>,
    /// documents whose turn is at this hash or later are over the budget
    pub budget_end: Option<u64>,
    /// scores at which parts begin, but for the first
    pub edges: Vec<f64>,
}

/// What a survey notes of a document.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Weighed {
    /// when its turn comes
    pub turn: u64,
    /// of the budget, all copies together
    pub cost: u64,
    /// by which the stream is split
    pub score: f64,
    /// in percentiles, all copies together
    pub weight: u64,
}

impl Choice {
    /// Before any survey.
    pub fn new(settings: &RuleSettings) -> Self {
        let edges = settings.split.as_ref().map(|split| split.ranges.clone()).unwrap_or_default();
        Self {
            sample: settings.sample.clone(),
            budget: settings.budget.clone(),
            split: settings.split.clone(),
            budget_end: None,
            edges,
        }
    }

    /// The budget.
    pub fn budget(&self) -> Option<&BudgetSettings> {
        self.budget.as_ref()
    }

    /// Whether all documents have to be looked at before the first can be written.
    pub fn needs_survey(&self) -> bool {
        self.budget.is_some() || self.percentiles().is_some()
    }

    /// Percentiles that are asked for.
    pub fn percentiles(&self) -> Option<&[f64]> {
        self.split.as_ref().map(|split| split.percentiles.as_slice()).filter(|percentiles| !percentiles.is_empty())
    }

    /// Whether copies have to be distinguished.
    pub fn repeats(&self) -> bool {
        self.sample.as_ref().is_some_and(|sample| sample.rate > 1.0)
    }

    /// How often a document is in the sample; `None` where none is drawn.
    pub fn copies(&self, document: &Identity<'_>) -> Option<u32> {
        let sample = self.sample.as_ref()?;
        // 53 bits are what a float holds
        let position = (document.hash(sample.seed, Use::Sample, 0) >> 11) as f64 / (1u64 << 53) as f64;
        let (whole, part) = (sample.rate.trunc(), sample.rate.fract());
        Some(whole as u32 + u32::from(position < part))
    }

    /// Whether a document is within the budget; `None` where there is no budget.
    pub fn is_affordable(&self, document: &Identity<'_>) -> Option<bool> {
        let budget = self.budget.as_ref()?;
        let turn = document.hash(budget.seed, Use::Budget, 0);
        Some(self.budget_end.is_none_or(|end| turn < end))
    }

    /// The part of the output that a document belongs to.
    pub fn part(&self, row: &Row<'_>, place: &Place<'_>) -> Result<usize> {
        let Some(score) = self.score(row, place)? else { return Ok(0) };
        Ok(self.edges.partition_point(|edge| *edge <= score))
    }

    /// What a survey notes.
    pub fn weigh(
        &self,
        document: &Identity<'_>,
        row: &Row<'_>,
        place: &Place<'_>,
        text: &str,
        copies: u32,
    ) -> Result<Weighed> {
        let mut weighed = Weighed { score: self.score(row, place)?.unwrap_or_default(), ..Weighed::default() };
        let copies = u64::from(copies);
        if let Some(budget) = &self.budget {
            weighed.turn = document.hash(budget.seed, Use::Budget, 0);
            weighed.cost = copies
                * match (budget.unit, &budget.attribute) {
                    (BudgetUnit::Documents, _) => 1,
                    (BudgetUnit::Tokens, Some(key)) => length(row, place, key)?,
                    _ => text.len() as u64,
                };
        }
        let weight = self.split.as_ref().and_then(|split| split.weight.as_ref());
        weighed.weight = copies * weight.map_or(Ok(1), |key| length(row, place, key))?;
        Ok(weighed)
    }

    fn score(&self, row: &Row<'_>, place: &Place<'_>) -> Result<Option<f64>> {
        let Some(split) = &self.split else { return Ok(None) };
        let first = match row.attribute(&split.attribute) {
            Some(Attribute::Number(score)) => Some(score),
            _ => row.spans(&split.attribute, place)?.first().map(|span| span.score),
        };
        match first.or(split.missing) {
            // -0 and 0 are one score
            Some(score) => Ok(Some(score + 0.0)),
            None => {
                let message =
                    format!("has no span of \"{}\"; expected one, whose score says which part it belongs to (or split.missing, a score for those without)", split.attribute);
                Err(place.error(Some("attributes"), Code::MissingField, message))
            }
        }
    }
}

/// The length that an attribute holds: the sum of its scores, which for one span over the whole is its score.
fn length(row: &Row<'_>, place: &Place<'_>, key: &str) -> Result<u64> {
    let sum: f64 = match row.attribute(key) {
        None => {
            let message = format!("has no \"{key}\"; expected the document's length there");
            return Err(place.error(Some("attributes"), Code::MissingField, message));
        }
        Some(Attribute::Number(number)) => number,
        Some(_) => row.spans(key, place)?.iter().map(|span| span.score).sum(),
    };
    if sum >= 0.0 {
        return Ok(sum.round() as u64);
    }
    let message = format!("\"{key}\" is {sum}; expected a length, which is not negative");
    Err(place.error(Some("attributes"), Code::OutOfRange, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(rate: f64, seed: u64) -> Choice {
        Choice { sample: Some(SampleSettings { rate, seed }), ..Choice::default() }
    }

    fn copies(choice: &Choice, count: u64) -> Vec<u32> {
        (0..count).map(|line| choice.copies(&Identity { file: "a.jsonl", line, id: "x" }).unwrap()).collect()
    }

    #[test]
    fn a_sample_has_about_its_rate_and_smaller_ones_lie_within() {
        let small = copies(&choice(0.2, 7), 20_000);
        let large = copies(&choice(0.5, 7), 20_000);
        let more = copies(&choice(2.25, 7), 20_000);
        for (drawn, rate) in [(&small, 0.2), (&large, 0.5), (&more, 2.25)] {
            let mean = f64::from(drawn.iter().sum::<u32>()) / 20_000.0;
            // four standard deviations of a mean of 20000 draws
            assert!((mean - rate).abs() < 4.0 * 0.5 / 20_000f64.sqrt(), "{mean} {rate}");
        }
        assert!(small.iter().zip(&large).all(|(small, large)| small <= large));
        assert!(more.iter().all(|copies| [2, 3].contains(copies)));
        assert_ne!(small, copies(&choice(0.2, 8), 20_000));
        assert!(copies(&choice(0.0, 7), 100).iter().all(|copies| *copies == 0));
        assert!(copies(&choice(1.0, 7), 100).iter().all(|copies| *copies == 1));
    }

    #[test]
    fn uses_of_one_seed_do_not_agree() {
        let document = Identity { file: "a", line: 1, id: "1" };
        let hashes = [
            document.hash(1, Use::Sample, 0),
            document.hash(1, Use::Budget, 0),
            document.hash(1, Use::Shuffle, 0),
            document.hash(1, Use::Shuffle, 1),
            document.hash(2, Use::Sample, 0),
            Identity { file: "a1", line: 1, id: "" }.hash(1, Use::Sample, 0),
            Identity { file: "b", ..document }.hash(1, Use::Sample, 0),
        ];
        let different: std::collections::BTreeSet<u64> = hashes.into_iter().collect();
        assert_eq!(different.len(), hashes.len());
    }
}
