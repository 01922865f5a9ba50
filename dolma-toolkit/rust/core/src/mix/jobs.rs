//! The work of a run, in the steps that its streams need: survey, then documents straight into the output, or into rows
//! and from there, shuffled, into the output. Every step goes on where a stopped run left it.

use std::path::{Path, PathBuf};

use super::choice::Choice;
use super::funnel::StreamFunnel;
use super::output::{FileCounts, Output, Outputs};
use super::rules::Rules;
use super::settings::{Shard, ShardInput, Stream};
use super::shard::{Given, Mixed, Mixer};
use super::shuffle::{put_bucket, Buckets, RowWriter, Rows as ShuffledRows};
use super::survey;
use super::target::{Finished, Target};
use crate::error::Result;
use crate::jsonl::{AtomicWriter, Compression, Skipped};
use crate::progress::Progress;
use crate::run::{each, Share};

/// A stream with shards to make, and where its documents go.
pub struct Work<'a> {
    /// as configured
    pub stream: &'a Stream,
    rules: &'a Rules,
    /// one for each part; none where documents are not kept
    kept: Vec<&'a Target<'a>>,
    dropped: Option<&'a Target<'a>>,
    /// for files of work in progress
    working_directory: PathBuf,
    choice: Choice,
    unfinished: Vec<(usize, &'a Shard)>,
}

impl<'a> Work<'a> {
    /// `is_finished` says so of what else is made of a shard. `working_directory` is used where documents are not kept.
    pub fn new(
        stream: &'a Stream,
        rules: &'a Rules,
        kept: Vec<&'a Target<'a>>,
        dropped: Option<&'a Target<'a>>,
        working_directory: &Path,
        is_finished: &dyn Fn(&Stream, &Shard) -> bool,
    ) -> Work<'a> {
        let choice = Choice::new(&stream.rules);
        let of_target = kept.first().map(|target| target.working_directory());
        let working_directory = of_target.unwrap_or_else(|| working_directory.to_owned());
        let mut work = Work { stream, rules, kept, dropped, working_directory, choice, unfinished: Vec::new() };
        let shards = stream.shards.iter().enumerate();
        work.unfinished = shards.filter(|(_, shard)| !(work.is_written(shard) && is_finished(stream, shard))).collect();
        work
    }

    /// Whether there is anything to do.
    pub fn is_needed(&self) -> bool {
        !self.unfinished.is_empty()
    }

    /// Whether all documents have to be looked at before the first can be written.
    pub fn needs_survey(&self) -> bool {
        self.choice.needs_survey()
    }

    fn is_shuffled(&self) -> bool {
        self.stream.rules.shuffle_documents.is_some()
    }

    fn is_written(&self, shard: &Shard) -> bool {
        self.kept.iter().chain(&self.dropped).all(|target| target.journal.get(&shard.name).is_some())
    }

    /// A file of work in progress.
    fn working_file(&self, index: usize, extension: &str) -> PathBuf {
        self.working_directory.join(format!("{}-{index:06}.{extension}", self.stream.name))
    }

    fn no_documents(&self) -> StreamFunnel {
        StreamFunnel::new(&self.stream.name, self.rules).with_parts(&self.choice.edges)
    }

    fn of_inputs(&'a self, extension: &str, kind: impl Fn(PathBuf) -> GoalKind<'a>) -> Vec<Goal<'a>> {
        let goal = |(index, input)| Goal {
            work: self,
            number: index,
            inputs: std::slice::from_ref(input),
            kind: kind(self.working_file(index, extension)),
        };
        self.stream.shards.iter().flat_map(|shard| &shard.inputs).enumerate().map(goal).collect()
    }

    /// What the survey still has to look at. Each pass reads every row, and so skips the same ones.
    pub fn surveys(&'a self) -> Vec<Goal<'a>> {
        let mut goals = if self.needs_survey() { self.of_inputs("survey", GoalKind::Survey) } else { Vec::new() };
        goals.retain(|goal| !goal.path().exists());
        goals
    }

    /// Takes in what the survey noted.
    pub fn complete(&mut self) -> Result<()> {
        if !self.needs_survey() {
            return Ok(());
        }
        let inputs = self.stream.shards.iter().flat_map(|shard| &shard.inputs).count();
        let notes: Vec<PathBuf> = (0..inputs).map(|index| self.working_file(index, "survey")).collect();
        survey::complete(&mut self.choice, &notes)
    }

    /// What is to be made of the documents: shards, or rows that are shuffled later.
    pub fn goals(&'a self) -> Vec<Goal<'a>> {
        if self.is_shuffled() {
            let mut goals = self.rows();
            goals.retain(|goal| ShuffledRows::read(goal.path()).is_none());
            return goals;
        }
        let goal = |(number, shard): &(usize, &'a Shard)| Goal {
            work: self,
            number: *number,
            inputs: &shard.inputs,
            kind: GoalKind::Shard(shard),
        };
        self.unfinished.iter().map(goal).collect()
    }

    /// Whether rows are missing that other shares of the run make.
    pub fn waits_for_rows(&self) -> bool {
        self.is_shuffled() && self.is_needed() && !self.goals().is_empty()
    }

    fn rows(&'a self) -> Vec<Goal<'a>> {
        let buckets = Buckets::of(self.stream);
        self.of_inputs("rows", |path| GoalKind::Rows(path, buckets))
    }

    fn outputs(&self, shard: &Shard) -> Result<Outputs> {
        let create = |target: &Target<'_>| {
            let writer = AtomicWriter::create(&target.directory.join(&shard.name))?;
            Ok(Output { writer, counts: FileCounts::default() })
        };
        Ok(Outputs {
            kept: self.kept.iter().map(|target| create(target)).collect::<Result<_>>()?,
            dropped: self.dropped.map(create).transpose()?,
        })
    }

    fn note(&self, shard: &Shard, outputs: Outputs, funnel: &StreamFunnel) -> Result<()> {
        let targets = self.kept.iter().copied().chain(self.dropped);
        targets.zip(outputs.kept.into_iter().chain(outputs.dropped)).try_for_each(|(target, output)| {
            let counts = output.counts;
            let finished = Finished { funnel: funnel.clone(), output: output.writer.finish()?, counts };
            target.journal.add(&shard.name, finished)
        })
    }

    /// Shards into which no rows are put yet.
    pub fn unshuffled(&self) -> impl Iterator<Item = usize> + '_ {
        self.unfinished.iter().filter(|_| self.is_shuffled()).map(|(index, _)| *index)
    }

    /// Puts the rows of a stream that is shuffled into its shards.
    pub fn shuffle(&'a self, share: Option<Share>, threads: usize, progress: &Progress) -> Result<()> {
        if !self.is_shuffled() {
            return Ok(());
        }
        let goals = self.rows();
        let rows: Vec<ShuffledRows> = goals.iter().filter_map(|goal| ShuffledRows::read(goal.path())).collect();
        let nothing = self.no_documents();
        let mut funnel = nothing.clone();
        rows.iter().for_each(|rows| funnel.add(&rows.funnel));
        let buckets = Buckets::of(self.stream);
        let write = |(index, shard): &(usize, &Shard)| {
            let mut outputs = self.outputs(shard)?;
            for bucket in buckets.of_shard(*index as u64) {
                progress.check()?;
                put_bucket(bucket, &rows, &mut outputs)?;
            }
            // documents of one input go to all shards; what became of them is reported once
            self.note(shard, outputs, if *index == 0 { &funnel } else { &nothing })
        };
        let ours = |(index, _): &&(usize, &Shard)| share.is_none_or(|share| share.has(*index));
        each(&self.unfinished.iter().filter(ours).collect::<Vec<_>>(), threads, |shard| write(shard)).map(drop)
    }
}

/// Documents of a stream that go to one place.
pub struct Goal<'a> {
    /// of the stream
    pub work: &'a Work<'a>,
    /// among the stream's, finished or not
    pub number: usize,
    /// in order
    pub inputs: &'a [ShardInput],
    kind: GoalKind<'a>,
}

enum GoalKind<'a> {
    /// notes about the documents
    Survey(PathBuf),
    /// an output file
    Shard(&'a Shard),
    /// rows that are shuffled later
    Rows(PathBuf, Buckets),
}

enum Place {
    Notes(AtomicWriter),
    Files(Outputs),
    Rows(RowWriter),
}

/// A place while it is filled.
pub struct Writing {
    place: Place,
    /// of what is in it
    pub funnel: StreamFunnel,
}

impl Goal<'_> {
    fn path(&self) -> &Path {
        match &self.kind {
            GoalKind::Survey(path) | GoalKind::Rows(path, _) => path,
            GoalKind::Shard(shard) => Path::new(&shard.name),
        }
    }

    /// The shard, where documents go straight into it.
    pub fn shard(&self) -> Option<&Shard> {
        match self.kind {
            GoalKind::Shard(shard) => Some(shard),
            _ => None,
        }
    }

    /// Begins to fill the place.
    pub fn open(&self) -> Result<Writing> {
        let place = match &self.kind {
            GoalKind::Survey(path) => Place::Notes(AtomicWriter::create_as(path, Compression::None)?),
            GoalKind::Shard(shard) => Place::Files(self.work.outputs(shard)?),
            GoalKind::Rows(path, buckets) => Place::Rows(RowWriter::create(path, *buckets)?),
        };
        Ok(Writing { place, funnel: self.work.no_documents() })
    }

    /// For each filter, whether it reads none of the attributes that are still to come.
    pub fn decidable(&self, is_coming: &dyn Fn(&str) -> bool) -> Vec<bool> {
        self.work.rules.decidable(is_coming)
    }

    /// Whether some documents are dropped whatever their attributes are.
    pub fn is_sampled(&self) -> bool {
        self.work.stream.rules.sample.is_some()
    }

    /// Which rules drop a document, if some do that are `decidable`.
    pub fn early_drops(&self, given: &Given<'_>, decidable: &[bool]) -> Result<Option<Vec<bool>>> {
        self.mixer().early_drops(given, decidable)
    }

    /// Mixes some documents, on any thread.
    pub fn mix<'b>(&self, rows: impl Iterator<Item = Given<'b>>) -> Result<Mixed> {
        self.mixer().mix(rows, self.work.no_documents())
    }

    fn mixer(&self) -> Mixer<'_> {
        Mixer {
            rules: self.work.rules,
            choice: &self.work.choice,
            shuffle_seed: self.work.stream.rules.shuffle_documents.as_ref().map(|shuffle| shuffle.seed),
            wants_dropped: self.work.dropped.is_some(),
            surveys: matches!(self.kind, GoalKind::Survey(_)),
        }
    }

    /// Takes what was mixed, in order.
    pub fn keep(&self, writing: &mut Writing, mixed: &Mixed) -> Result<()> {
        writing.funnel.add(&mixed.funnel);
        mixed.put_into(match &mut writing.place {
            Place::Notes(writer) => writer,
            Place::Files(outputs) => outputs,
            Place::Rows(rows) => rows,
        })
    }

    /// Ends the place.
    pub fn finish(&self, writing: Writing, skipped: Vec<Skipped>) -> Result<()> {
        let Writing { place, mut funnel } = writing;
        funnel.skipped = skipped;
        match (place, &self.kind) {
            (Place::Files(outputs), GoalKind::Shard(shard)) => self.work.note(shard, outputs, &funnel),
            (Place::Rows(rows), _) => rows.finish(funnel).map(drop),
            (Place::Notes(writer), _) => writer.finish().map(drop),
            (Place::Files(_), _) => Ok(()),
        }
    }
}
