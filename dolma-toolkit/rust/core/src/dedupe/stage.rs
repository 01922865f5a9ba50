//! What a run asks of a stage that dedupes, whatever it decides by.

use std::collections::BTreeSet;

use super::decide::Counts;
use super::keys::{Asking, KeyedRow};
use super::resume::{MarkedFile, Target};
use super::settings::DocumentFile;
use super::Summary;
use crate::error::Result;
use crate::jsonl::{AtomicWriter, Skipped};
use crate::progress::Progress;
use crate::run::{BatchRow, Journal, Rows, Share};

/// Opens a document file, by its position in the settings, for some fields or all.
pub type Open<'o> = &'o (dyn Fn(usize, Option<&[&str]>) -> Result<Rows> + Sync);

/// A stage that dedupes.
pub trait Deduping: Sync {
    /// Whether nothing is left to do but, perhaps, the manifests. `is_complete`: whatever else is made of the attributes
    /// is there.
    fn is_done(&self, is_complete: bool) -> Result<bool>;
    /// Whether every row has its attributes, and only the manifests may be missing.
    fn all_written(&self) -> Result<bool>;
    /// Readies the directories. Says how many files of another run were removed.
    fn begin(&mut self, share: Option<Share>) -> Result<u64>;
    /// Does what has to be done before rows are marked, or the part of it that a share has. Gives the step that other shares
    /// have not finished, if any.
    fn prepare(
        &mut self,
        share: Option<Share>,
        open: Open<'_>,
        threads: usize,
        progress: &Progress,
    ) -> Result<Option<&'static str>>;
    /// The step that these shares, of so many, have not finished before rows are marked.
    fn missing(&self, count: usize) -> Result<Option<(&'static str, BTreeSet<usize>)>>;
    /// Files whose rows have no attributes yet, where only they have to be read; `None`: all files.
    fn unmarked(&self) -> Option<BTreeSet<usize>>;
    /// What decides the rows of one pass.
    fn marking(&self) -> Result<Box<dyn Marking + '_>>;
    /// Forgets what was marked. `is_overfull`: takes a larger filter.
    fn restart(&mut self, is_overfull: bool) -> Result<()>;
    /// Hash of the filter or index as it was before this run; `None` if there was none.
    fn before(&self) -> Option<&str>;
    /// What is said of a run with nothing to do.
    fn already_done(&self) -> Result<Summary>;
    /// Writes the filter or index, and the manifests.
    fn publish(self: Box<Self>, counts: Counts, replaced_files: u64, skipped: Vec<Skipped>) -> Result<Summary>;
    /// Writes the manifests that an earlier run had no time for.
    fn publish_again(self: Box<Self>) -> Result<Summary>;
}

/// Decides which rows of a pass are duplicates.
pub trait Marking: Sync {
    /// Whether rows have to be decided in order.
    fn takes_turns(&self) -> bool {
        false
    }
    /// The filter is too small, and the pass has ended for it.
    fn is_overfull(&self) -> bool {
        false
    }
    /// The fields of a row that it reads; `None` for all.
    fn fields(&self) -> Option<Vec<&str>>;
    /// Adds a row of a file, which has this name, and its keys.
    fn ask(&self, file: usize, row: BatchRow<'_>, name: &str, asked: &mut Asked) -> Result<()>;
    /// Decides keys of a file, when those of the rows before are decided.
    fn decide(&self, _file: usize, _asked: &mut Asked) -> Result<()> {
        Ok(())
    }
    /// The attributes of rows that are decided.
    fn mark(&self, asked: &mut Asked) -> Marked;
    /// Where attributes are kept.
    fn files(&self) -> &AttributeFiles<'_>;
    /// A file is marked.
    fn close(&self, _file: usize) {}
}

/// Some rows, what they ask the filter, and its answers.
#[derive(Default)]
pub struct Asked {
    pub(super) rows: Vec<KeyedRow>,
    pub(super) asking: Asking,
    pub(super) seen: Vec<bool>,
    /// the attributes, where nothing has to be asked
    pub marked: Marked,
}

/// The attribute lines of some rows.
#[derive(Default)]
pub struct Marked {
    /// one after the other
    pub lines: String,
    /// where each ends
    pub ends: Vec<usize>,
    /// of these rows
    pub counts: Counts,
}

impl Marked {
    /// The line of a row, with its line end.
    pub fn line(&self, row: usize) -> &str {
        let start = row.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.lines[start..self.ends[row]]
    }
}

/// The attribute files of a pass, where attributes are kept.
pub struct AttributeFiles<'a> {
    documents: &'a [DocumentFile],
    journals: Vec<Option<&'a Journal<MarkedFile>>>,
}

/// The attribute file of a document file while it is made. Rows of a file that an earlier, stopped run has finished are
/// decided again, for the filter to know them, and not written again.
pub type Output = (Option<AtomicWriter>, Counts);

impl<'a> AttributeFiles<'a> {
    /// Of targets.
    pub fn new(documents: &'a [DocumentFile], targets: &'a [Target<'_>]) -> Self {
        let mut journals = vec![None; documents.len()];
        for target in targets {
            target.group.files.iter().for_each(|index| journals[*index] = Some(&target.journal));
        }
        Self { documents, journals }
    }

    /// Begins the attribute file of a document file.
    pub fn open(&self, file: usize) -> Result<Output> {
        let document = &self.documents[file];
        let is_missing = |journal: &Journal<MarkedFile>| journal.get(&document.relative).is_none();
        let is_wanted = self.journals[file].is_some_and(is_missing);
        Ok((is_wanted.then(|| AtomicWriter::create(&document.output())).transpose()?, Counts::default()))
    }

    /// Takes what was decided of a batch, in order.
    pub fn keep(&self, (writer, counts): &mut Output, marked: &Marked) -> Result<()> {
        counts.add(&marked.counts);
        writer.as_mut().map_or(Ok(()), |writer| writer.put(marked.lines.as_bytes()))
    }

    /// Ends the attribute file of a document file.
    pub fn finish(&self, file: usize, (writer, counts): Output) -> Result<Counts> {
        if let (Some(writer), Some(journal)) = (writer, self.journals[file]) {
            let output = writer.finish()?;
            let marked = MarkedFile { documents: counts.documents, spans: counts.spans, output };
            journal.add(&self.documents[file].relative, marked)?;
        }
        Ok(counts)
    }
}
