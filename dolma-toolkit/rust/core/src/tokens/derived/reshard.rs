//! Shards of other sizes: sources after each other, or one source in parts.

use std::collections::BTreeMap;

use super::source::{Items, Surveyed};
use super::{Output, Piece, Plan};
use crate::error::Result;
use crate::formats::table::{Row, TableReader};
use crate::jsonl::AtomicWriter;
use crate::progress::Progress;

/// The pieces of every shard: a group as it is, a source that has to be cut as a shard for each part.
pub fn outputs(groups: &[Vec<usize>], surveyed: &[Surveyed]) -> Vec<Vec<Piece>> {
    let mut outputs = Vec::new();
    for group in groups {
        match group.as_slice() {
            &[source] if surveyed[source].parts.len() > 1 => {
                outputs.extend(surveyed[source].parts.iter().map(|&(start, end)| vec![Piece { source, start, end }]));
            }
            _ => outputs
                .push(group.iter().map(|&source| Piece { source, start: 0, end: surveyed[source].tokens }).collect()),
        }
    }
    outputs
}

/// Writes one shard.
pub fn write(plan: &Plan, name: &str, pieces: &[Piece], surveyed: &[Surveyed], progress: &Progress) -> Result<Output> {
    let file = |extension: &str| AtomicWriter::create(&plan.destination.join(format!("{name}.{extension}")));
    let (mut npy, mut csv) = (file("npy")?, file("csv.gz")?);
    let (mut tokens, mut documents) = (0, 0);
    for piece in pieces {
        progress.check()?;
        let source = &plan.sources[piece.source];
        Items::open(&source.npy, plan.details.dtype)?.copy(piece.start, piece.end, |bytes| npy.put(bytes))?;
        let total = surveyed[piece.source].tokens;
        let mut table = TableReader::open(&source.csv, total)?;
        while let Some(row) = table.next_row()? {
            // a row without tokens between two parts belongs to the second
            let begins_here = row.start >= piece.start && (row.start < piece.end || row.start == total);
            if begins_here && row.end <= piece.end {
                let (start, end) = (row.start - piece.start + tokens, row.end - piece.start + tokens);
                csv.put(Row { start, end, ..row }.text().as_bytes())?;
                documents += 1;
            } else if row.end > piece.end {
                break;
            }
        }
        tokens += piece.end - piece.start;
    }
    Ok(Output {
        counts: BTreeMap::from([("documents".to_owned(), documents), ("tokens".to_owned(), tokens)]),
        files: BTreeMap::from([(format!("{name}.csv.gz"), csv.finish()?), (format!("{name}.npy"), npy.finish()?)]),
    })
}
