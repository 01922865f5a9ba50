//! The one pass of a run: every row is read once, and goes through taggers, deduplication, mix and tokenizer in memory.
//!
//! Attributes go from stage to stage as the lines that a file would have. So a mix reads the same bytes, and rounds the same
//! scores, whether the attributes are in a file or not.

use std::cell::RefCell;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::json;

use super::Document;
use crate::dedupe::{self, Asked, Counts, Marked, Marking};
use crate::document::Place;
use crate::error::{Error, Result};
use crate::jsonl::{RowSieve, Skipped};
use crate::mix::{self, Given, Goal, Mixed};
use crate::progress::Progress;
use crate::run::{all, Batch, BatchRow, Files, Rows, Source, Stage};
use crate::tag::{self, Early, Line, TaggedRow, Tagging};
use crate::taggers::COST_CLASSES;
use crate::tokens::{EncodedBatch, EncodedWriter, Encoding};

/// What a pass does with the documents.
pub struct Flow<'a, 'm> {
    pub documents: &'a [Document],
    pub files: &'a Files,
    pub sieve: RowSieve,
    pub series: Vec<Series<'a>>,
    pub tags: &'a [Tagging<'a>],
    pub marks: Vec<Box<dyn Marking + 'm>>,
    pub encoding: Option<&'a Encoding<'a>>,
    /// What of a Parquet row is read; `None` for all.
    pub fields: Option<Vec<String>>,
    /// Documents that are dropped already are not tagged any further.
    pub is_lazy: bool,
}

/// Documents in order, and what is made of them.
pub struct Series<'a> {
    pub files: Vec<FileFlow>,
    pub goals: Vec<GoalFlow<'a>>,
}

/// What is made of a document file.
pub struct FileFlow {
    /// Position in the documents.
    pub document: usize,
    /// Files with a row for each document: attributes that are there already.
    pub companions: Vec<PathBuf>,
    /// For each stage that tags this file: its position, and the file's position in it.
    pub tags: Vec<(usize, usize)>,
    /// For each stage that dedupes: the file's position in it, if it has it.
    pub marks: Vec<Option<usize>>,
    /// For each goal of the series that takes this file: its position, and where the attributes are.
    pub goals: Vec<(usize, Vec<Attributes>)>,
}

/// A set of attributes of a document file.
pub struct Attributes {
    /// The file that it is in, or would be in.
    pub path: String,
    pub from: From,
}

/// Where the rows of a set of attributes come from.
#[derive(Clone, Copy, Debug)]
pub enum From {
    /// The companion.
    File(usize),
    /// The tagging stage's position in [`FileFlow::tags`], and the output's among those that are made.
    Tag(usize, usize),
    /// The deduplicating stage.
    Mark(usize),
}

/// A goal of the mix, and where its documents go besides.
pub struct GoalFlow<'a> {
    pub goal: Goal<'a>,
    /// First and last of its files, by their positions in the series.
    pub ends: (usize, usize),
    /// For each part: the tokenizer's file.
    pub encoded: Vec<Option<usize>>,
    /// For each tagging stage and class of cost: the filters that can be asked before its taggers run.
    pub decidable: Vec<Vec<Vec<bool>>>,
}

/// Reads the documents of a series, one file after the other.
pub struct Reading<'f, 'a, 'm> {
    flow: &'f Flow<'a, 'm>,
    series: usize,
    next: usize,
    rows: Option<Rows>,
}

impl Source for Reading<'_, '_, '_> {
    /// Position of the file in the series, and rows of it.
    type Batch = (usize, Batch);

    fn read(&mut self, progress: &Progress) -> Result<Option<Self::Batch>> {
        loop {
            if let Some(rows) = &mut self.rows {
                if let Some(batch) = rows.read(progress)? {
                    return Ok(Some((self.next - 1, batch)));
                }
            }
            let Some(file) = self.flow.series[self.series].files.get(self.next) else { return Ok(None) };
            self.next += 1;
            self.rows = Some(self.flow.rows(file)?);
        }
    }
}

/// A batch whose keys are not decided yet.
pub struct Undecided {
    at: usize,
    batch: Batch,
    /// As [`FileFlow::tags`].
    tagged: Vec<Vec<TaggedRow>>,
    asked: Vec<Option<Asked>>,
    error: Option<Error>,
}

/// What was made of a batch.
pub struct Made {
    at: usize,
    /// As [`FileFlow::tags`].
    tagged: Vec<Vec<TaggedRow>>,
    marked: Vec<Option<Marked>>,
    /// As [`FileFlow::goals`].
    mixed: Vec<(Mixed, Vec<EncodedBatch>)>,
    documents: u64,
    end: Option<Vec<Skipped>>,
}

/// Where the results of a series go.
#[derive(Default)]
pub struct Outputs {
    /// The file in work, by its position.
    at: Option<usize>,
    tags: Vec<tag::Output>,
    marks: Vec<Option<dedupe::Output>>,
    goals: BTreeMap<usize, Writing>,
    done: Done,
}

/// A goal in work.
struct Writing {
    mix: mix::Writing,
    encoded: Vec<Option<EncodedWriter>>,
    skipped: Vec<Skipped>,
}

/// What is known of a finished series.
#[derive(Default)]
pub struct Done {
    /// Rows that each tagging stage tagged.
    pub tagged: Vec<u64>,
    /// Of each deduplicating stage.
    pub marked: Vec<Counts>,
    pub skipped: Vec<Skipped>,
}

impl Done {
    fn add(&mut self, other: Done) {
        add_each(&mut self.tagged, other.tagged, |sum, count| *sum += count);
        add_each(&mut self.marked, other.marked, |sum, counts| sum.add(&counts));
        self.skipped.extend(other.skipped);
    }

    /// Of all series together.
    pub fn of(all: Vec<Done>) -> Done {
        let mut sum = Done::default();
        all.into_iter().for_each(|one| sum.add(one));
        sum
    }
}

fn add_each<T: Default>(sums: &mut Vec<T>, values: Vec<T>, add: impl Fn(&mut T, T)) {
    sums.resize_with(sums.len().max(values.len()), T::default);
    sums.iter_mut().zip(values).for_each(|(sum, value)| add(sum, value));
}

impl Flow<'_, '_> {
    fn rows(&self, file: &FileFlow) -> Result<Rows> {
        let document = &self.documents[file.document];
        let compression = document.compression();
        let fields: Option<Vec<&str>> = self.fields.as_ref().map(|fields| fields.iter().map(String::as_str).collect());
        let reader = self.files.open(&document.path, &document.name, compression, fields.as_deref())?;
        let companion =
            |path: &PathBuf| self.files.open(path, &path.display().to_string(), document.compression_of(path), None);
        let companions = file.companions.iter().map(companion).collect::<Result<_>>()?;
        Ok(Rows::new(reader.sieved(&self.sieve), companions))
    }

    /// Mixes a batch into a goal. `drops` has the rows that are dropped already.
    fn mix(
        &self,
        position: usize,
        goal: &GoalFlow<'_>,
        known: &Known<'_>,
        drops: &mut Drops,
    ) -> Result<(Mixed, Vec<EncodedBatch>)> {
        let given = (0..known.batch.rows().len()).map(|row| {
            let drops = drops.get_mut(row).and_then(|drops| drops.get_mut(position)).and_then(Option::take);
            Given { drops, ..known.given(row, position) }
        });
        let mixed = goal.goal.mix(given)?;
        let mut encoded: Vec<EncodedBatch> = goal.encoded.iter().map(|_| EncodedBatch::default()).collect();
        if let Some(encoding) = self.encoding {
            for (part, line, document) in mixed.kept() {
                if goal.encoded.get(part).is_some_and(Option::is_some) {
                    encoding.encode(document, &Place { path: known.name, line }, &mut encoded[part])?;
                }
            }
        }
        Ok((mixed, encoded))
    }

    /// Whether the rows of a file are tagged only as far as a goal needs it.
    fn tags_lazily(&self, file: &FileFlow) -> bool {
        self.is_lazy && !file.goals.is_empty()
    }

    /// Tags a batch row by row, and stops at a row when all goals drop it.
    fn tag_lazily(&self, goals: &[GoalFlow<'_>], known: &mut Known<'_>) -> Result<Drops> {
        let mut drops = Drops::new();
        known.tagged.resize_with(known.file.tags.len(), Vec::new);
        for (index, row) in known.batch.rows().enumerate() {
            let mut of_row: Vec<Option<Vec<bool>>> = vec![None; known.file.goals.len()];
            for (stage, (tagging, of_stage)) in known.file.tags.iter().enumerate() {
                let decidable = |goal: usize, class: usize| &goals[known.file.goals[goal].0].decidable[*tagging][class];
                let is_dropped = of_row.iter().all(Option::is_some);
                let mut is_asked = [is_dropped; COST_CLASSES];
                for (class, is_asked) in is_asked.iter_mut().enumerate() {
                    *is_asked |= (0..known.file.goals.len()).any(|goal| match class.checked_sub(1) {
                        Some(before) => decidable(goal, class) != decidable(goal, before),
                        None => decidable(goal, 0).contains(&true) || goals[known.file.goals[goal].0].goal.is_sampled(),
                    });
                }
                let mut is_enough = |class: usize, lines: &[Line]| {
                    for (position, dropped) in of_row.iter_mut().enumerate().filter(|(_, dropped)| dropped.is_none()) {
                        let given = known.given_early(index, position, stage, lines);
                        let goal = &goals[known.file.goals[position].0].goal;
                        *dropped = goal.early_drops(&given, decidable(position, class))?;
                        if dropped.is_none() {
                            return Ok(false);
                        }
                    }
                    Ok(true)
                };
                let mut early = Early { is_asked, is_enough: &mut is_enough };
                let tagged = self.tags[*tagging].tag(*of_stage, row, None, Some(&mut early))?;
                known.tagged[stage].push(tagged);
            }
            // with all attributes, all rules are asked
            let is_dropped = known.tagged.iter().any(|rows| rows[index].is_partial);
            drops.push(if is_dropped { of_row } else { Vec::new() });
        }
        Ok(drops)
    }

    /// Begins what a file of the series begins.
    fn open_file(&self, series: usize, at: usize, outputs: &mut Outputs) -> Result<()> {
        let Series { files, goals } = &self.series[series];
        let file = &files[at];
        outputs.at = Some(at);
        outputs.tags = file.tags.iter().map(|(stage, file)| self.tags[*stage].open(*file)).collect::<Result<_>>()?;
        let marks = self.marks.iter().zip(&file.marks);
        outputs.marks =
            marks.map(|(mark, file)| file.map(|file| mark.files().open(file)).transpose()).collect::<Result<_>>()?;
        for (position, _) in &file.goals {
            let goal = &goals[*position];
            if goal.ends.0 == at {
                let writer = |file: &Option<usize>| match (file, self.encoding) {
                    (Some(file), Some(encoding)) => encoding.writer(*file).map(Some),
                    _ => Ok(None),
                };
                let encoded = goal.encoded.iter().map(writer).collect::<Result<_>>()?;
                let writing = Writing { mix: goal.goal.open()?, encoded, skipped: Vec::new() };
                outputs.goals.insert(*position, writing);
            }
        }
        Ok(())
    }

    /// Ends what a file of the series ends.
    fn finish_file(&self, series: usize, outputs: &mut Outputs, skipped: Vec<Skipped>) -> Result<()> {
        let Some(at) = outputs.at.take() else { return Ok(()) };
        let Series { files, goals } = &self.series[series];
        let file = &files[at];
        let rows: Vec<_> = skipped.iter().map(|skipped| skipped.row.clone()).collect();
        for ((stage, file), output) in file.tags.iter().zip(outputs.tags.drain(..)) {
            self.tags[*stage].finish(*file, output, &rows)?;
        }
        let marks = self.marks.iter().zip(&file.marks).zip(outputs.marks.drain(..));
        let counts = marks.map(|((mark, file), output)| match (file, output) {
            (Some(file), Some(output)) => {
                mark.close(*file);
                mark.files().finish(*file, output)
            }
            _ => Ok(Counts::default()),
        });
        let counts = counts.collect::<Result<Vec<Counts>>>()?;
        add_each(&mut outputs.done.marked, counts, |sum, counts| sum.add(&counts));
        for (position, _) in &file.goals {
            let Some(writing) = outputs.goals.get_mut(position) else { continue };
            writing.skipped.extend(skipped.iter().cloned());
            if goals[*position].ends.1 == at {
                outputs
                    .goals
                    .remove(position)
                    .map_or(Ok(()), |writing| self.finish_goal(&goals[*position], writing))?;
            }
        }
        outputs.done.skipped.extend(skipped);
        Ok(())
    }

    fn finish_goal(&self, goal: &GoalFlow<'_>, writing: Writing) -> Result<()> {
        let Writing { mix, encoded, skipped } = writing;
        let mut funnel = mix.funnel.clone();
        funnel.skipped.clone_from(&skipped);
        goal.goal.finish(mix, skipped)?;
        let Some(encoding) = self.encoding else { return Ok(()) };
        let files = goal.encoded.iter().zip(encoded).filter_map(|(file, writer)| Some(((*file)?, writer?)));
        // the ids are there only when the shard is: a stop between the two makes both again
        files.into_iter().try_for_each(|(file, writer)| encoding.finish(file, writer, json!(funnel)))
    }
}

impl<'f, 'a, 'm> Stage for &'f Flow<'a, 'm> {
    type Source = Reading<'f, 'a, 'm>;
    type Asked = Undecided;
    type Made = Made;
    type Output = Outputs;
    type Done = Done;

    fn lists_errors(&self) -> bool {
        self.marks.is_empty() && self.series.iter().all(|series| series.goals.is_empty())
    }

    fn takes_turns(&self) -> bool {
        self.marks.iter().any(|mark| mark.takes_turns())
    }

    fn open(&self, series: usize) -> Result<(Self::Source, Outputs)> {
        Ok((Reading { flow: self, series, next: 0, rows: None }, Outputs::default()))
    }

    fn ask(&self, series: usize, (at, mut batch): (usize, Batch)) -> Result<Undecided> {
        let file = &self.series[series].files[at];
        let name = self.documents[file.document].name.as_str();
        let mut error = batch.error.take();
        let tag = |(stage, of_stage): &(usize, usize)| {
            let tagging = &self.tags[*stage];
            let found = tagging.ask(*of_stage, &batch)?;
            let found = |row: BatchRow<'_>| found.as_ref().map(|found| (found, row.index()));
            all_rows(&batch, &mut error, |row| tagging.tag(*of_stage, row, found(row), None))
        };
        let tags = if self.tags_lazily(file) { &[] } else { &file.tags[..] };
        let tagged = tags.iter().map(tag).collect::<Result<Vec<_>>>()?;
        let mut asked: Vec<Option<Asked>> = Vec::with_capacity(self.marks.len());
        for (mark, of_stage) in self.marks.iter().zip(&file.marks) {
            let of_batch = RefCell::new(Asked::default());
            let mut ask =
                |file| all_rows(&batch, &mut error, |row| mark.ask(file, row, name, &mut of_batch.borrow_mut()));
            let rows = of_stage.map(&mut ask).transpose()?;
            asked.push(rows.map(|_| of_batch.into_inner()));
        }
        Ok(Undecided { at, batch, tagged, asked, error })
    }

    fn decide(&self, series: usize, undecided: &mut Undecided) -> Result<()> {
        let file = &self.series[series].files[undecided.at];
        let mut rows = self.marks.iter().zip(&file.marks).zip(&mut undecided.asked);
        rows.try_for_each(|((mark, file), asked)| match (file, asked) {
            (Some(file), Some(asked)) => mark.decide(*file, asked),
            _ => Ok(()),
        })
    }

    fn make(&self, series: usize, undecided: Undecided) -> Result<Made> {
        let Undecided { at, mut batch, tagged, mut asked, error } = undecided;
        let Series { files, goals } = &self.series[series];
        let file = &files[at];
        let name = self.documents[file.document].name.as_str();
        let marks = self.marks.iter().zip(&mut asked);
        let marked: Vec<_> = marks.map(|(mark, asked)| asked.as_mut().map(|asked| mark.mark(asked))).collect();
        let mut known = Known { file, name, batch: &batch, tagged, marked };
        let mut drops = if self.tags_lazily(file) { self.tag_lazily(goals, &mut known)? } else { Drops::new() };
        let mut mixed = Vec::with_capacity(file.goals.len());
        for (position, (goal, _)) in file.goals.iter().enumerate() {
            mixed.push(self.mix(position, &goals[*goal], &known, &mut drops)?);
        }
        let Known { tagged, marked, .. } = known;
        if let Some(error) = error {
            return Err(error);
        }
        let named = |row| Skipped { file: name.to_owned(), row };
        let end = batch.end.take().map(|rows| rows.into_iter().map(named).collect());
        let documents = batch.rows().len() as u64;
        Ok(Made { at, tagged, marked, mixed, documents, end })
    }

    fn keep(&self, series: usize, outputs: &mut Outputs, made: Made) -> Result<()> {
        if outputs.at.is_none() {
            self.open_file(series, made.at, outputs)?;
        }
        let file = &self.series[series].files[made.at];
        outputs.done.tagged.resize(self.tags.len(), 0);
        for (((stage, of_stage), output), rows) in file.tags.iter().zip(&mut outputs.tags).zip(&made.tagged) {
            self.tags[*stage].keep(*of_stage, output, rows)?;
            outputs.done.tagged[*stage] += made.documents;
        }
        for ((mark, output), marked) in self.marks.iter().zip(&mut outputs.marks).zip(&made.marked) {
            if let (Some(output), Some(marked)) = (output, marked) {
                mark.files().keep(output, marked)?;
            }
        }
        for ((position, _), (mixed, encoded)) in file.goals.iter().zip(&made.mixed) {
            let Some(writing) = outputs.goals.get_mut(position) else { continue };
            self.series[series].goals[*position].goal.keep(&mut writing.mix, mixed)?;
            for (writer, batch) in writing.encoded.iter_mut().zip(encoded) {
                writer.as_mut().map_or(Ok(()), |writer| writer.put(batch))?;
            }
        }
        made.end.map_or(Ok(()), |skipped| self.finish_file(series, outputs, skipped))
    }

    fn finish(&self, _series: usize, _source: Self::Source, outputs: Outputs) -> Result<Done> {
        Ok(outputs.done)
    }
}

/// For each row, if it was dropped before all its attributes were there: for each goal, the filters that drop it.
type Drops = Vec<Vec<Option<Vec<bool>>>>;

/// A batch, and what is known of its rows.
struct Known<'b> {
    file: &'b FileFlow,
    name: &'b str,
    batch: &'b Batch,
    /// As [`FileFlow::tags`].
    tagged: Vec<Vec<TaggedRow>>,
    marked: Vec<Option<Marked>>,
}

impl Known<'_> {
    /// A row and its attributes, for a goal of the file.
    fn given(&self, index: usize, goal: usize) -> Given<'_> {
        self.given_with(index, goal, |stage, output| Some(&self.tagged[stage][index].lines[output]))
    }

    /// As [`Known::given`], while a stage is at work, which has these `lines` so far.
    fn given_early<'k>(&'k self, index: usize, goal: usize, at: usize, lines: &'k [Line]) -> Given<'k> {
        self.given_with(index, goal, |stage, output| match stage.cmp(&at) {
            Ordering::Less => Some(&self.tagged[stage][index].lines[output]),
            Ordering::Equal => lines.get(output),
            Ordering::Greater => None,
        })
    }

    fn given_with<'k>(
        &'k self,
        index: usize,
        goal: usize,
        line_of: impl Fn(usize, usize) -> Option<&'k Line>,
    ) -> Given<'k> {
        let row = self.batch.row(index);
        let attributes = self.file.goals[goal].1.iter().filter_map(|set| {
            let line: &[u8] = match set.from {
                From::File(companion) => row.companion(companion),
                From::Tag(stage, output) => &line_of(stage, output)?.bytes,
                From::Mark(stage) => self.marked[stage].as_ref()?.line(index).as_bytes(),
            };
            Some((line, row.companion_place(&set.path)))
        });
        Given { document: row.document(), place: row.place(self.name), attributes: attributes.collect(), drops: None }
    }
}

/// What `make` gives for all rows of a batch; or all that is wrong with them, and with the file behind them.
fn all_rows<T>(batch: &Batch, error: &mut Option<Error>, make: impl Fn(BatchRow<'_>) -> Result<T>) -> Result<Vec<T>> {
    all(batch.rows().map(make).chain(error.take().map(Err)).collect())
}
