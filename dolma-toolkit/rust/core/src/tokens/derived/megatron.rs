//! Pairs of `.bin` and `.idx` as Megatron-LM maps them into memory: docs/formats/megatron.md.

use std::collections::BTreeMap;

use super::source::{Items, Surveyed};
use super::{Output, Plan};
use crate::error::{Code, Result};
use crate::formats::table::TableReader;
use crate::jsonl::AtomicWriter;
use crate::progress::Progress;
use crate::tokens::Dtype;

const MAGIC: &[u8; 9] = b"MMIDIDX\0\0";
const VERSION: u64 = 1;

/// Name and code of the item type that holds the ids: Megatron has no uint32, so that ids below 2³¹ are its int32.
pub fn item(dtype: Dtype) -> (&'static str, u8) {
    match dtype {
        Dtype::Uint8 => ("uint8", 1),
        Dtype::Uint16 => ("uint16", 8),
        Dtype::Uint32 => ("int32", 4),
    }
}

/// Writes the pair of one source: a sequence a document.
pub fn write(plan: &Plan, name: &str, number: usize, surveyed: &[Surveyed], progress: &Progress) -> Result<Output> {
    let source = &plan.sources[number];
    let tokens = surveyed[number].tokens;
    let mut lengths: Vec<i32> = Vec::new();
    let mut table = TableReader::open(&source.csv, tokens)?;
    while let Some(row) = table.next_row()? {
        let length = i32::try_from(row.end - row.start).map_err(|_| {
            let message = format!("the document has {} tokens; expected at most {}", row.end - row.start, i32::MAX);
            table.error(Some("end"), Code::OutOfRange, message)
        })?;
        lengths.push(length);
    }
    progress.check()?;
    let file = |extension: &str| AtomicWriter::create(&plan.destination.join(format!("{name}.{extension}")));
    let (mut bin, mut idx) = (file("bin")?, file("idx")?);
    // little-endian items below 2³¹ are the same bytes in either type
    Items::open(&source.npy, plan.details.dtype)?.copy(0, tokens, |bytes| {
        progress.check()?;
        bin.put(bytes)
    })?;
    let documents = lengths.len() as u64;
    idx.put(MAGIC)?;
    idx.put(&VERSION.to_le_bytes())?;
    idx.put(&[item(plan.details.dtype).1])?;
    idx.put(&documents.to_le_bytes())?;
    idx.put(&(documents + 1).to_le_bytes())?;
    for length in &lengths {
        idx.put(&length.to_le_bytes())?;
    }
    let mut pointer = 0u64;
    for length in &lengths {
        idx.put(&pointer.to_le_bytes())?;
        pointer += length.unsigned_abs() as u64 * plan.details.dtype.size_bytes();
    }
    for document in 0..=documents {
        idx.put(&document.to_le_bytes())?;
    }
    Ok(Output {
        counts: BTreeMap::from([("documents".to_owned(), documents), ("tokens".to_owned(), tokens)]),
        files: BTreeMap::from([(format!("{name}.bin"), bin.finish()?), (format!("{name}.idx"), idx.finish()?)]),
    })
}
