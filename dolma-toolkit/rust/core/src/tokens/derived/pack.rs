//! Sequences of one length: docs/formats/packed.md.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::source::{item, Items, Surveyed};
use super::{Output, Plan};
use crate::error::{Error, Result};
use crate::formats::table::{Row, TableReader};
use crate::jsonl::AtomicWriter;
use crate::progress::Progress;

const PARTS_BETWEEN_CHECKS: usize = 1024;

/// How sequences are filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Packing {
    /// Documents one after the other, cut where a sequence ends; the last sequence of a shard alone is filled up.
    Concatenate,
    /// A document that fits is never cut. Longer ones give whole sequences and a rest; rests and documents go, longest first,
    /// to the sequence with the least room that takes them (best-fit decreasing, as Ding et al. 2024, arXiv:2404.10830, pack).
    BestFit,
}

/// Of the sequences.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub length: u64,
    pub packing: Packing,
    pub pad: u32,
}

/// Tokens of one row of the source, within one sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    row: usize,
    start: u64,
    end: u64,
}

/// Writes the sequences of one source.
pub fn write(
    plan: &Plan,
    name: &str,
    number: usize,
    surveyed: &[Surveyed],
    shape: Shape,
    progress: &Progress,
) -> Result<Output> {
    let source = &plan.sources[number];
    let mut table = TableReader::open(&source.csv, surveyed[number].tokens)?;
    let mut rows: Vec<Row> = Vec::new();
    while let Some(row) = table.next_row()? {
        rows.push(row);
    }
    let bounds: Vec<(u64, u64)> = rows.iter().map(|row| (row.start, row.end)).collect();
    let sequences = match shape.packing {
        Packing::Concatenate => concatenate(&bounds, shape.length),
        Packing::BestFit => best_fit(&bounds, shape.length),
    };
    let file = |extension: &str| AtomicWriter::create(&plan.destination.join(format!("{name}.{extension}")));
    let (mut npy, mut csv) = (file("npy")?, file("csv.gz")?);
    let mut items = Items::open(&source.npy, plan.details.dtype)?;
    let mut pad = Vec::new();
    item(shape.pad, plan.details.dtype, &mut pad).map_err(|error| Error::io(&source.npy, error))?;
    let (mut parts, mut tokens) = (0usize, 0);
    let mut parts_of_row = vec![0u32; rows.len()];
    for (index, sequence) in sequences.iter().enumerate() {
        let mut at = index as u64 * shape.length;
        for part in sequence {
            parts += 1;
            if parts % PARTS_BETWEEN_CHECKS == 0 {
                progress.check()?;
            }
            items.copy(part.start, part.end, |bytes| npy.put(bytes))?;
            let row = &rows[part.row];
            let end = at + part.end - part.start;
            let row = Row { start: at, end, id: row.id.clone(), src: row.src.clone(), loc: row.loc };
            csv.put(row.text().as_bytes())?;
            parts_of_row[part.row] += 1;
            tokens += end - at;
            at = end;
        }
        npy.put(&pad.repeat(((index as u64 + 1) * shape.length - at) as usize))?;
    }
    let counts = [
        ("documents", parts_of_row.iter().filter(|parts| **parts > 0).count() as u64),
        ("documents_cut", parts_of_row.iter().filter(|parts| **parts > 1).count() as u64),
        ("padding", sequences.len() as u64 * shape.length - tokens),
        ("parts", parts as u64),
        ("sequences", sequences.len() as u64),
        ("tokens", tokens),
    ];
    Ok(Output {
        counts: counts.into_iter().map(|(name, count)| (name.to_owned(), count)).collect(),
        files: BTreeMap::from([(format!("{name}.csv.gz"), csv.finish()?), (format!("{name}.npy"), npy.finish()?)]),
    })
}

fn concatenate(bounds: &[(u64, u64)], length: u64) -> Vec<Vec<Part>> {
    let mut sequences: Vec<Vec<Part>> = Vec::new();
    let mut room = 0;
    for (row, &(start, end)) in bounds.iter().enumerate() {
        let mut at = start;
        while at < end {
            if room == 0 {
                sequences.push(Vec::new());
                room = length;
            }
            let taken = room.min(end - at);
            if let Some(sequence) = sequences.last_mut() {
                sequence.push(Part { row, start: at, end: at + taken });
            }
            at += taken;
            room -= taken;
        }
    }
    sequences
}

/// Sequences stand in the order of the last document that each holds, and documents in their order within one: only what
/// is together is decided by lengths. By the last, so that the rest of a cut document comes after its whole sequences.
fn best_fit(bounds: &[(u64, u64)], length: u64) -> Vec<Vec<Part>> {
    let mut sequences: Vec<Vec<Part>> = Vec::new();
    let mut rests = Vec::new();
    for (row, &(start, end)) in bounds.iter().enumerate() {
        let mut at = start;
        while end - at >= length {
            sequences.push(vec![Part { row, start: at, end: at + length }]);
            at += length;
        }
        if at < end {
            rests.push(Part { row, start: at, end });
        }
    }
    rests.sort_by_key(|part| (std::cmp::Reverse(part.end - part.start), part.row));
    // (room, sequence); the least room that suffices, and of equal ones the first
    let mut open: BTreeSet<(u64, usize)> = BTreeSet::new();
    for part in rests {
        let needed = part.end - part.start;
        let fitting = open.range((needed, 0)..).next().copied();
        let (room, sequence) = match fitting {
            Some(found) => {
                open.remove(&found);
                found
            }
            None => {
                sequences.push(Vec::new());
                (length, sequences.len() - 1)
            }
        };
        sequences[sequence].push(part);
        if room > needed {
            open.insert((room - needed, sequence));
        }
    }
    for sequence in &mut sequences {
        sequence.sort_by_key(|part| part.start);
    }
    sequences.sort_by_key(|sequence| sequence.last().map(|part| part.start));
    sequences
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bounds(lengths: &[u64]) -> Vec<(u64, u64)> {
        let mut end = 0;
        lengths
            .iter()
            .map(|length| {
                end += length;
                (end - length, end)
            })
            .collect()
    }

    fn lengths(sequences: &[Vec<Part>]) -> Vec<Vec<(usize, u64)>> {
        sequences.iter().map(|parts| parts.iter().map(|part| (part.row, part.end - part.start)).collect()).collect()
    }

    #[test]
    fn documents_that_fit_are_not_cut() {
        let found = best_fit(&bounds(&[5, 3, 12, 2, 4]), 8);
        assert_eq!(lengths(&found), [vec![(0, 5), (1, 3)], vec![(2, 8)], vec![(3, 2)], vec![(2, 4), (4, 4)]]);
    }

    #[test]
    fn concatenation_cuts_at_every_length() {
        let found = concatenate(&bounds(&[5, 3, 12, 2]), 8);
        assert_eq!(lengths(&found), [vec![(0, 5), (1, 3)], vec![(2, 8)], vec![(2, 4), (3, 2)]]);
    }

    proptest! {
        #[test]
        fn every_token_is_packed_once_and_in_its_order(lengths in prop::collection::vec(0u64..40, 0..60), length in 1u64..20) {
            let bounds = bounds(&lengths);
            for (sequences, whole) in [(best_fit(&bounds, length), true), (concatenate(&bounds, length), false)] {
                let mut seen: BTreeMap<usize, Vec<(u64, u64)>> = BTreeMap::new();
                for sequence in &sequences {
                    let filled: u64 = sequence.iter().map(|part| part.end - part.start).sum();
                    prop_assert!(filled > 0 && filled <= length);
                    for part in sequence {
                        seen.entry(part.row).or_default().push((part.start, part.end));
                    }
                }
                for (row, &(start, end)) in bounds.iter().enumerate().filter(|(_, (start, end))| start < end) {
                    let parts = seen.remove(&row).unwrap_or_default();
                    prop_assert!(!whole || end - start > length || parts.len() == 1);
                    prop_assert_eq!(parts.first().map(|part| part.0), Some(start));
                    prop_assert_eq!(parts.last().map(|part| part.1), Some(end));
                    prop_assert!(parts.windows(2).all(|pair| pair[0].1 == pair[1].0));
                }
                prop_assert!(seen.is_empty());
            }
        }
    }
}
