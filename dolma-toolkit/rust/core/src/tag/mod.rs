//! `dolma tag`: documents in, attribute files out. One read of a file serves all its taggers.
//!
//! Finished files are recorded and not made again; the manifest comes last. Neither threads nor kills change a byte.

mod inline;
mod line;
mod plan;
mod records;
mod rows;
mod user;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::Serialize;

use crate::document::Place;
use crate::error::Result;
use crate::jsonl::{AtomicWriter, Skipped, SkippedRow};
use crate::manifest::FILE_NAME;
use crate::run::{Batch, BatchRow, Files, Share};
use crate::taggers::{self, Tagger};

pub use inline::{Attributes, Inline};
pub use plan::{ArtifactPlan, FilePlan, OutputPlan, Plan, TaggerPlan};
use records::{Record, Records};
use rows::RowTagger;
pub use rows::{Early, Line, TaggedRow, Totals};
pub use user::{Found, UserTaggers, Users};

/// What a run did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
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
    pub skipped: Vec<Skipped>,
}

/// The taggers of a run.
pub struct Tagging<'p> {
    plan: &'p Plan,
    /// Of each artifact; none where attributes are not kept.
    records: Vec<Records>,
    documents: Files,
    /// Of each file: positions of the attribute files to make, in order.
    wanted: Vec<BTreeSet<usize>>,
    rows: RowTagger<'p>,
}

/// The attribute files of a document file while they are made.
pub type Output = Vec<(Option<AtomicWriter>, Totals)>;

impl<'p> Tagging<'p> {
    /// Finds out which attribute files are missing. `keep`: they are written; else only what [`Tagging::want`] asks for is
    /// made, in memory.
    ///
    /// `Error::Config` where other settings, or another tool, made an attribute file.
    pub fn survey(plan: &'p Plan, keep: bool, files: &Files) -> Result<Tagging<'p>> {
        let (mut records, mut wanted) = (Vec::new(), vec![BTreeSet::new(); plan.files.len()]);
        if keep {
            records = plan.artifacts.iter().map(|artifact| records::read(artifact, files)).collect::<Result<_>>()?;
            wanted = plan::missing(plan, &records, files)?;
        }
        Ok(Tagging { plan, records, documents: files.clone(), wanted, rows: RowTagger::new(plan) })
    }

    /// The file and the output that a path would have.
    pub fn place_of(&self) -> BTreeMap<PathBuf, (usize, usize)> {
        let outputs = |(index, file): (usize, &'p FilePlan)| {
            file.outputs.iter().enumerate().map(move |(number, output)| (output, (index, number)))
        };
        let places = self.plan.files.iter().enumerate().flat_map(outputs);
        places.map(|(output, at)| (self.plan.artifacts[output.artifact].directory.join(&output.path), at)).collect()
    }

    /// Whether the attribute file is finished and can be read.
    pub fn is_finished(&self, (file, output): (usize, usize)) -> bool {
        !self.records.is_empty() && !self.wanted[file].contains(&output)
    }

    /// Whether the artifact of an attribute file has its manifest.
    pub fn is_published(&self, (file, output): (usize, usize)) -> bool {
        let artifact = self.plan.files[file].outputs[output].artifact;
        self.plan.artifacts[artifact].directory.join(FILE_NAME).exists()
    }

    /// Asks for an attribute file that a later stage reads.
    pub fn want(&mut self, (file, output): (usize, usize)) {
        self.wanted[file].insert(output);
    }

    /// Files with something to make.
    pub fn wanted_files(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.plan.files.len()).filter(|file| !self.wanted[*file].is_empty())
    }

    /// The document files, in order.
    pub fn files(&self) -> &'p [FilePlan] {
        &self.plan.files
    }

    /// Position of an output among those that are made of a file.
    pub fn position(&self, (file, output): (usize, usize)) -> Option<usize> {
        self.wanted[file].iter().position(|wanted| *wanted == output)
    }

    /// Rows that earlier runs skipped in the files that are finished.
    pub fn skipped_before(&self) -> u64 {
        self.skipped(|file| self.wanted[file].is_empty()).len() as u64
    }

    /// Loads the taggers that are needed, and marks the artifacts as unfinished.
    pub fn begin(&mut self, share: Option<Share>) -> Result<()> {
        let outputs = self.wanted_files().flat_map(|file| self.outputs(file));
        let artifacts: BTreeSet<usize> = outputs.map(|output| output.artifact).collect();
        let needed = artifacts.iter().flat_map(|artifact| &self.plan.artifacts[*artifact].taggers).copied().collect();
        self.rows.taggers = build_taggers(self.plan, &needed)?;
        artifacts
            .iter()
            .filter_map(|artifact| self.records.get(*artifact))
            .try_for_each(|records| records::begin(records, share))
    }

    fn outputs(&self, file: usize) -> impl Iterator<Item = &'p OutputPlan> + '_ {
        let outputs = &self.plan.files[file].outputs;
        self.wanted[file].iter().map(move |output| &outputs[*output])
    }

    /// Begins the attribute files of a document file.
    pub fn open(&self, file: usize) -> Result<Output> {
        let writer = |output: &OutputPlan| {
            let path = self.plan.artifacts[output.artifact].directory.join(&output.path);
            let writer = (!self.records.is_empty()).then(|| AtomicWriter::create(&path)).transpose()?;
            Ok((writer, Totals::default()))
        };
        self.outputs(file).map(writer).collect()
    }

    /// What the taggers of users find in the rows of a batch, if they are needed.
    pub fn ask(&self, file: usize, batch: &Batch) -> Result<Option<Found>> {
        self.rows.ask(&self.plan.files[file].name, &self.taggers(file), batch.rows())
    }

    /// The attribute lines of a row, one for each output; see [`RowTagger::tag`].
    pub fn tag(
        &self,
        file: usize,
        row: BatchRow<'_>,
        found: Option<(&Found, usize)>,
        early: Option<&mut Early<'_>>,
    ) -> Result<TaggedRow> {
        self.rows.tag(&self.plan.files[file].name, &self.taggers(file), row, found, early)
    }

    /// Of each output of a file.
    fn taggers(&self, file: usize) -> Vec<&'p [usize]> {
        self.outputs(file).map(|output| self.plan.artifacts[output.artifact].taggers.as_slice()).collect()
    }

    /// Whether an attribute is written only by taggers of this class of cost or a higher one.
    pub fn is_coming(&self, class: usize, key: &str) -> bool {
        self.rows.coming(class).any(|prefix| key.starts_with(prefix))
    }

    /// Takes the rows of a batch, in order.
    pub fn keep(&self, file: usize, outputs: &mut Output, rows: &[TaggedRow]) -> Result<()> {
        let path = self.plan.files[file].name.as_str();
        for row in rows {
            for ((writer, totals), line) in outputs.iter_mut().zip(&row.lines) {
                totals.add(line, &Place { path, line: row.line })?;
                totals.partial += u64::from(row.is_partial);
                writer.as_mut().map_or(Ok(()), |writer| writer.put(&line.bytes))?;
            }
        }
        Ok(())
    }

    /// Ends the attribute files of a document file.
    pub fn finish(&self, file: usize, outputs: Output, skipped: &[SkippedRow]) -> Result<()> {
        let plan = &self.plan.files[file];
        for (output, (writer, totals)) in self.outputs(file).zip(outputs) {
            let Some(writer) = writer else { continue };
            let artifact = &self.plan.artifacts[output.artifact];
            let record =
                Record::new(artifact, plan, self.documents.hash(&plan.path)?, writer.finish()?, totals, skipped)?;
            self.records[output.artifact].add(&output.path, record)?;
        }
        Ok(())
    }

    /// Writes the manifests.
    pub fn publish(&self, documents: u64) -> Result<Summary> {
        let files = self.wanted_files().count() as u64;
        let files_kept = self.plan.files.len() as u64 - files;
        let mut summary = Summary { documents, files, files_kept, ..Summary::default() };
        for (artifact, records) in self.plan.artifacts.iter().zip(&self.records) {
            summary.spans += records::write_manifest(artifact, records)?;
        }
        summary.skipped = self.skipped(|_| true);
        Ok(summary)
    }

    /// The skipped rows of the files that are finished.
    fn skipped(&self, is_finished: impl Fn(usize) -> bool) -> Vec<Skipped> {
        let of = |file: &FilePlan| {
            let output = file.outputs.first()?;
            Some(self.records.get(output.artifact)?.get(&output.path)?.skipped)
        };
        let files = self.plan.files.iter().enumerate().filter(|(index, _)| is_finished(*index));
        let rows = files.flat_map(|(_, file)| of(file).unwrap_or_default().into_iter().map(|row| (&file.name, row)));
        rows.map(|(file, row)| Skipped { file: file.clone(), row }).collect()
    }
}

/// The native taggers that some file needs, in the order of the plan; `None` for the others.
fn build_taggers(plan: &Plan, needed: &BTreeSet<usize>) -> Result<Vec<Option<Box<dyn Tagger>>>> {
    let build = |(index, tagger): (usize, &TaggerPlan)| match tagger.native && needed.contains(&index) {
        true => {
            let language_model = plan.language_model.clone();
            let options = taggers::TaggerOptions { language_model, resources: tagger.resources.clone() };
            taggers::build(&tagger.name, &options).map(Some)
        }
        false => Ok(None),
    };
    plan.taggers.iter().enumerate().map(build).collect()
}
