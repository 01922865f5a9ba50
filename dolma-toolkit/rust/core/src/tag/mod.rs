//! `dolma tag`: documents in, attribute files out. One read of a file serves all its taggers.
//!
//! Finished files are recorded and not made again; the manifest comes last. Neither threads nor kills change a byte.

mod line;
mod plan;
mod records;
mod rows;

use std::collections::BTreeSet;

use rayon::prelude::*;

use crate::document::{self, Place};
use crate::error::{Error, Result};
use crate::jsonl::{AtomicWriter, LineReader, RowSieve, SkippedRow};
use crate::progress::Progress;
use crate::taggers::{self, Tagger};
use crate::threads;

use plan::Work;
pub use plan::{ArtifactPlan, FilePlan, OutputPlan, Plan, TaggerPlan};
use records::{Record, Records};
use rows::{Batch, RowTagger, Spool};

/// Rows of one file that are reported at most; the rest of the file is not read.
const REPORTED_ROWS: usize = 100;

/// What a run did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Rows tagged now.
    pub documents: u64,
    /// Files tagged now.
    pub files: u64,
    /// Files that an earlier run had finished.
    pub files_kept: u64,
    /// Spans in all attribute files of the artifacts.
    pub spans: u64,
    /// Skipped rows of the request's files, with the names of the files.
    pub skipped: Vec<(String, SkippedRow)>,
}

/// Which files still have an attribute file to make, as indices of `plan.files`.
///
/// `Error::Config` where an attribute file stands that other settings, or another tool, made.
pub fn pending(plan: &Plan, progress: &Progress) -> Result<Vec<usize>> {
    let records = load_records(plan)?;
    let work = plan::pending(plan, &records, progress)?;
    Ok(work.iter().map(|work| work.file).collect())
}

/// Writes the missing attribute files, then the manifests.
pub fn run(plan: &Plan, progress: &Progress) -> Result<Summary> {
    let mut records = load_records(plan)?;
    let work = plan::pending(plan, &records, progress)?;
    let taggers = build_taggers(plan, &work)?;
    let total_bytes = work.iter().map(|work| work.input.size_bytes).sum();
    progress.expect(work.len() as u64, total_bytes);
    let unfinished: BTreeSet<usize> = work
        .iter()
        .flat_map(|work| &work.outputs)
        .map(|output| plan.files[output.file].outputs[output.output].artifact)
        .collect();
    for &artifact in &unfinished {
        records[artifact].begin()?;
    }

    let file_threads = threads::useful(plan.threads, work.len());
    let row_threads = plan.threads / file_threads;
    let pool = threads::pool(file_threads, file_threads)?;
    // rows that an earlier run skipped count too
    let sieve = RowSieve::new(&plan.rows, skipped(plan, &finished(plan, &work), &records).len() as u64);
    let results: Vec<Result<Vec<Record>>> = pool.install(|| {
        work.par_iter()
            .with_max_len(1)
            .map(|work| tag_file(plan, work, &taggers, &records, &sieve, row_threads, progress))
            .collect()
    });

    let mut summary = Summary { files_kept: (plan.files.len() - work.len()) as u64, ..Summary::default() };
    let mut errors = Vec::new();
    for result in results {
        match result {
            Ok(made) => {
                summary.files += 1;
                summary.documents += made.first().map_or(0, |record| record.documents);
                for record in made {
                    records[record.artifact].keep(record);
                }
            }
            Err(error) => errors.push(error),
        }
    }
    if let Some(error) = Error::many(errors) {
        return Err(error);
    }
    for (artifact, records) in plan.artifacts.iter().zip(&records) {
        summary.spans += records::write_manifest(artifact, records)?;
    }
    summary.skipped = skipped(plan, &finished(plan, &[]), &records);
    Ok(summary)
}

fn load_records(plan: &Plan) -> Result<Vec<Records>> {
    plan.artifacts
        .iter()
        .enumerate()
        .map(|(index, artifact)| Records::load(index, &artifact.directory, &artifact.config))
        .collect()
}

/// The native taggers that some file needs, in the order of the plan; `None` for the others.
fn build_taggers(plan: &Plan, work: &[Work]) -> Result<Vec<Option<Box<dyn Tagger>>>> {
    let needed: BTreeSet<usize> = work
        .iter()
        .flat_map(|work| &work.outputs)
        .flat_map(|output| &plan.artifacts[plan.files[output.file].outputs[output.output].artifact].taggers)
        .copied()
        .collect();
    plan.taggers
        .iter()
        .enumerate()
        .map(|(index, tagger)| match tagger.native && needed.contains(&index) {
            true => {
                let options = taggers::TaggerOptions {
                    language_model: plan.language_model.clone(),
                    resources: tagger.resources.clone(),
                };
                taggers::build(&tagger.name, &options).map(Some)
            }
            false => Ok(None),
        })
        .collect()
}

/// The files of the request that are finished.
fn finished(plan: &Plan, work: &[Work]) -> Vec<usize> {
    let left: BTreeSet<usize> = work.iter().map(|work| work.file).collect();
    (0..plan.files.len()).filter(|file| !left.contains(file)).collect()
}

/// The skipped rows of files.
fn skipped(plan: &Plan, files: &[usize], records: &[Records]) -> Vec<(String, SkippedRow)> {
    let of = |file: &FilePlan| {
        let output = file.outputs.first()?;
        Some(records[output.artifact].record(&output.path)?.skipped.clone())
    };
    let named = |file: &FilePlan| {
        let rows = of(file).unwrap_or_default();
        rows.into_iter().map(|row| (file.name.clone(), row)).collect::<Vec<_>>()
    };
    files.iter().flat_map(|file| named(&plan.files[*file])).collect()
}

fn tag_file(
    plan: &Plan,
    work: &Work,
    taggers: &[Option<Box<dyn Tagger>>],
    records: &[Records],
    sieve: &RowSieve,
    row_threads: usize,
    progress: &Progress,
) -> Result<Vec<Record>> {
    let file = &plan.files[work.file];
    let outputs: Vec<&OutputPlan> = work.outputs.iter().map(|output| &file.outputs[output.output]).collect();
    let row_tagger = RowTagger::new(plan, &outputs, taggers);
    let mut reader = LineReader::open_fields(&file.path, &file.name, file.compression(), &document::FIELDS)?
        .of_size(work.input.size_bytes)?
        .sieved(sieve);
    let mut spool = file.spool.as_deref().map(Spool::open).transpose()?;
    let mut writers = outputs
        .iter()
        .map(|output| AtomicWriter::create(&plan.artifacts[output.artifact].directory.join(&output.path)))
        .collect::<Result<Vec<_>>>()?;
    let row_threads = threads::useful(row_threads, threads::pieces(work.input.size_bytes));
    let pool = if row_threads > 1 { Some(threads::pool(row_threads, row_threads)?) } else { None };

    let mut totals = vec![rows::Totals::default(); outputs.len()];
    let mut errors = Vec::new();
    let mut stored_bytes = 0;
    let mut batch = Batch::default();
    loop {
        progress.check()?;
        match batch.read(&mut reader, spool.as_mut()) {
            Ok(()) if batch.rows.is_empty() => break,
            Ok(()) => {}
            // a damaged stream ends the file; what was wrong before it is told as well
            Err(error) => {
                errors.push(error);
                break;
            }
        }
        let tag = |row| row_tagger.tag(&batch, row, &file.name);
        let mut keep = |row: Result<rows::TaggedRow>| match row {
            Ok(row) if errors.is_empty() => {
                let place = Place { path: &file.name, line: row.line };
                let added = row.lines.iter().zip(&mut totals).try_for_each(|(line, total)| total.add(line, &place));
                if let Err(error) = added {
                    errors.push(error);
                    return Ok(());
                }
                writers.iter_mut().zip(&row.lines).try_for_each(|(writer, line)| writer.put(&line.bytes))
            }
            Ok(_) => Ok(()),
            Err(error) => {
                errors.push(error);
                Ok(())
            }
        };
        match &pool {
            Some(pool) => {
                let tagged: Vec<Result<rows::TaggedRow>> = pool.install(|| batch.rows.par_iter().map(tag).collect());
                tagged.into_iter().try_for_each(&mut keep)?;
            }
            None => batch.rows.iter().map(tag).try_for_each(&mut keep)?,
        }
        progress.add_documents(batch.rows.len() as u64);
        progress.add_bytes(reader.stored_bytes() - stored_bytes);
        stored_bytes = reader.stored_bytes();
        if errors.len() >= REPORTED_ROWS {
            errors.truncate(REPORTED_ROWS);
            break;
        }
    }
    if let Some(error) = Error::many(errors) {
        return Err(error);
    }
    let made = outputs
        .iter()
        .zip(writers)
        .zip(totals)
        .map(|((output, writer), totals)| {
            let written = writer.finish()?;
            let artifact = &plan.artifacts[output.artifact];
            let record = Record::new(output, artifact, file, &work.input, written, totals, reader.skipped())?;
            records[output.artifact].append(&record)?;
            Ok(record)
        })
        .collect::<Result<Vec<_>>>()?;
    progress.add_file();
    Ok(made)
}
