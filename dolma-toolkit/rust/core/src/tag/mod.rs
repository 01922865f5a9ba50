//! `dolma tag`: documents in, attribute files out. One read of a file serves all its taggers.
//!
//! Finished files are recorded and not made again; the manifest comes last. Neither threads nor kills change a byte.

mod line;
mod plan;
mod records;
mod rows;

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::document::{self, Place};
use crate::error::Result;
use crate::jsonl::{AtomicWriter, Compression, LineReader, RowSieve, SkippedRow};
use crate::progress::Progress;
use crate::run::{pass, threads, Batch, Rows, Stage, Turn};
use crate::taggers::{self, Tagger};

use plan::Work;
pub use plan::{ArtifactPlan, FilePlan, OutputPlan, Plan, TaggerPlan};
use records::{Record, Records};
use rows::{RowTagger, TaggedRow};

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
/// `Error::Config` where other settings, or another tool, made an attribute file.
pub fn pending(plan: &Plan, progress: &Progress) -> Result<Vec<usize>> {
    let records = read_records(plan)?;
    let work = plan::pending(plan, &records, progress)?;
    Ok(work.iter().map(|work| work.file).collect())
}

/// Writes the missing attribute files, then the manifests.
pub fn run(plan: &Plan, progress: &Progress) -> Result<Summary> {
    let records = read_records(plan)?;
    let work = plan::pending(plan, &records, progress)?;
    let taggers = build_taggers(plan, &work)?;
    let total_bytes = work.iter().map(|work| work.input.size_bytes).sum();
    progress.expect(work.len() as u64, total_bytes);
    let unfinished: BTreeSet<usize> =
        work.iter().flat_map(|work| work.outputs(plan)).map(|output| output.artifact).collect();
    for &artifact in &unfinished {
        records::begin(&records[artifact])?;
    }

    // rows that an earlier run skipped count too
    let left: BTreeSet<usize> = work.iter().map(|work| work.file).collect();
    let sieve = RowSieve::new(&plan.rows, skipped(plan, &records, |file| !left.contains(&file)).len() as u64);
    let row_taggers =
        work.iter().map(|work| RowTagger::new(plan, &plan.files[work.file], &work.outputs(plan), &taggers));
    let row_taggers = row_taggers.collect();
    let tagging = Tagging { plan, work: &work, row_taggers, records: &records, sieve };
    let threads = threads::useful(plan.threads, threads::pieces(total_bytes).max(work.len()));
    let documents = pass(&tagging, work.len(), threads, progress)?;
    let mut summary = Summary {
        documents: documents.iter().sum(),
        files: work.len() as u64,
        files_kept: (plan.files.len() - work.len()) as u64,
        ..Summary::default()
    };
    for (artifact, records) in plan.artifacts.iter().zip(&records) {
        summary.spans += records::write_manifest(artifact, records)?;
    }
    summary.skipped = skipped(plan, &records, |_| true);
    Ok(summary)
}

fn read_records(plan: &Plan) -> Result<Vec<Records>> {
    plan.artifacts.iter().map(records::read).collect()
}

/// The native taggers that some file needs, in the order of the plan; `None` for the others.
fn build_taggers(plan: &Plan, work: &[Work]) -> Result<Vec<Option<Box<dyn Tagger>>>> {
    let needed: BTreeSet<usize> = work
        .iter()
        .flat_map(|work| work.outputs(plan))
        .flat_map(|output| &plan.artifacts[output.artifact].taggers)
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

/// The skipped rows of the files that are finished, with the names of the files.
fn skipped(plan: &Plan, records: &[Records], is_finished: impl Fn(usize) -> bool) -> Vec<(String, SkippedRow)> {
    let files = plan.files.iter().enumerate().filter(|(index, _)| is_finished(*index)).map(|(_, file)| file);
    let of = |file: &FilePlan| {
        let output = file.outputs.first()?;
        Some(records[output.artifact].get(&output.path)?.skipped)
    };
    files.flat_map(|file| of(file).unwrap_or_default().into_iter().map(|row| (file.name.clone(), row))).collect()
}

/// A series is a document file.
struct Tagging<'a> {
    plan: &'a Plan,
    work: &'a [Work],
    /// for each file
    row_taggers: Vec<RowTagger<'a>>,
    records: &'a [Records],
    sieve: RowSieve,
}

impl Stage for Tagging<'_> {
    type Source = Rows;
    type Made = Vec<TaggedRow>;
    type Output = Vec<(AtomicWriter, rows::Totals)>;
    /// documents
    type Done = u64;

    const LISTS_ERRORS: bool = true;

    fn open(&self, series: usize) -> Result<(Rows, Self::Output)> {
        let work = &self.work[series];
        let file = &self.plan.files[work.file];
        let reader = LineReader::open_fields(&file.path, &file.name, file.compression(), &document::FIELDS)?
            .of_size(work.input.size_bytes)?
            .sieved(&self.sieve);
        let spool = |path: &PathBuf| LineReader::open_as(path, &path.display().to_string(), Compression::None);
        let spools = file.spool.iter().map(spool).collect::<Result<_>>()?;
        let writer = |output: &OutputPlan| {
            let directory = &self.plan.artifacts[output.artifact].directory;
            Ok((AtomicWriter::create(&directory.join(&output.path))?, rows::Totals::default()))
        };
        let outputs = work.outputs(self.plan).into_iter().map(writer).collect::<Result<_>>()?;
        Ok((Rows::new(reader, spools), outputs))
    }

    fn make(&self, series: usize, batch: Batch, _turn: &Turn<'_, Self>) -> Result<Vec<TaggedRow>> {
        batch.all(|row| self.row_taggers[series].tag(row))
    }

    fn keep(&self, series: usize, outputs: &mut Self::Output, rows: Vec<TaggedRow>) -> Result<()> {
        let path = self.plan.files[self.work[series].file].name.as_str();
        for row in rows {
            for ((writer, totals), line) in outputs.iter_mut().zip(&row.lines) {
                totals.add(line, &Place { path, line: row.line })?;
                writer.put(&line.bytes)?;
            }
        }
        Ok(())
    }

    fn finish(&self, series: usize, rows: Rows, outputs: Self::Output) -> Result<u64> {
        let work = &self.work[series];
        let file = &self.plan.files[work.file];
        let documents = outputs.first().map_or(0, |(_, totals)| totals.documents);
        for (output, (writer, totals)) in work.outputs(self.plan).into_iter().zip(outputs) {
            let artifact = &self.plan.artifacts[output.artifact];
            let record = Record::new(artifact, file, &work.input, writer.finish()?, totals, rows.skipped())?;
            self.records[output.artifact].add(&output.path, record)?;
        }
        Ok(documents)
    }
}
