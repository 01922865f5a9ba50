//! The work of a run, in the steps that its streams need: survey, then documents straight into the output, or into rows
//! and from there, shuffled, into the output. Every step goes on where a stopped run left it.

use std::fs;
use std::path::{Path, PathBuf};

use super::choice::Choice;
use super::funnel::StreamFunnel;
use super::output::{FileCounts, Output, Outputs};
use super::rules::Rules;
use super::settings::{Settings, Shard, ShardInput, Stream};
use super::shard::{Mixed, Mixer};
use super::shuffle::{put_bucket, Buckets, RowWriter, Rows as ShuffledRows};
use super::survey;
use super::target::{Finished, Holds, Target};
use crate::error::Result;
use crate::jsonl::{AtomicWriter, Compression, LineReader, RowSieve, Skipped};
use crate::progress::Progress;
use crate::run::{each, pass, threads, Batch, Rows, Source, Stage, Turn};

/// A stream and where its documents go.
struct Work<'a> {
    stream: &'a Stream,
    rules: &'a Rules,
    /// one for each part
    kept: Vec<&'a Target<'a>>,
    dropped: Option<&'a Target<'a>>,
    choice: Choice,
    unfinished: Vec<(usize, &'a Shard)>,
}

/// Does all that is not done.
pub fn run(settings: &Settings, rules: &[Rules], targets: &[Target<'_>], progress: &Progress) -> Result<()> {
    let mut works = Vec::new();
    for (index, (stream, rules)) in settings.streams.iter().zip(rules).enumerate() {
        let of = |holds| targets.iter().find(move |target| target.is_of(index, holds));
        let kept = (0..stream.kept_directories().len()).filter_map(|part| of(Holds::Part(part))).collect();
        let choice = Choice::new(&stream.rules);
        let mut work = Work { stream, rules, kept, dropped: of(Holds::Dropped), choice, unfinished: Vec::new() };
        let shards = stream.shards.iter().enumerate();
        work.unfinished = shards.filter(|(_, shard)| !work.is_finished(shard)).collect();
        if !work.unfinished.is_empty() {
            works.push(work);
        }
    }
    works.iter().for_each(|work| work.expect_in(progress));
    // each pass reads every row, and so skips the same ones
    let surveys = works.iter().filter(|work| work.choice.needs_survey()).flat_map(Work::surveys);
    mix(settings, surveys.filter(|series| !series.goal.path().exists()).collect(), progress)?;
    for work in works.iter_mut().filter(|work| work.choice.needs_survey()) {
        let notes: Vec<PathBuf> = (0..work.inputs().len()).map(|index| work.working_file(index, "survey")).collect();
        survey::complete(&mut work.choice, &notes)?;
    }
    // all shards of all streams at once; only a shuffled stream has to be read whole before its first is written
    let (shuffled, straight): (Vec<_>, Vec<_>) =
        works.iter().partition(|work| work.stream.rules.shuffle_documents.is_some());
    mix(settings, straight.into_iter().flat_map(Work::shards).collect(), progress)?;
    shuffled.into_iter().try_for_each(|work| work.shuffle(settings, progress))
}

impl Work<'_> {
    fn is_finished(&self, shard: &Shard) -> bool {
        self.kept.iter().chain(&self.dropped).all(|target| target.journal.get(&shard.name).is_some())
    }

    /// Every input of the stream, in order.
    fn inputs(&self) -> Vec<&ShardInput> {
        self.stream.shards.iter().flat_map(|shard| &shard.inputs).collect()
    }

    fn expect_in(&self, progress: &Progress) {
        let unfinished: Vec<&ShardInput> = self.unfinished.iter().flat_map(|(_, shard)| &shard.inputs).collect();
        let inputs = self.inputs();
        let before = progress.snapshot();
        let passes = [
            (self.choice.needs_survey(), &inputs),
            (self.stream.rules.shuffle_documents.is_some(), &inputs),
            (self.stream.rules.shuffle_documents.is_none(), &unfinished),
        ];
        let (mut files, mut bytes) = (before.total_files, before.total_bytes);
        for (_, inputs) in passes.iter().filter(|(is_needed, _)| *is_needed) {
            files += inputs.len() as u64;
            bytes += inputs.iter().map(|input| stored_bytes(input)).sum::<u64>();
        }
        progress.expect(files, bytes);
    }

    /// A file of work in progress.
    fn working_file(&self, index: usize, extension: &str) -> PathBuf {
        let directory = self.kept.first().map(|target| target.working_directory()).unwrap_or_default();
        directory.join(format!("{}-{index:06}.{extension}", self.stream.name))
    }

    fn no_documents(&self) -> StreamFunnel {
        StreamFunnel::new(&self.stream.name, self.rules).with_parts(&self.choice.edges)
    }

    fn of_inputs(&self, extension: &str, goal: impl Fn(PathBuf) -> Goal<'static>) -> Vec<Series<'_>> {
        let series = |(index, input)| Series {
            work: self,
            inputs: std::slice::from_ref(input),
            goal: goal(self.working_file(index, extension)),
        };
        self.stream.shards.iter().flat_map(|shard| &shard.inputs).enumerate().map(series).collect()
    }

    fn surveys(&self) -> Vec<Series<'_>> {
        self.of_inputs("survey", Goal::Survey)
    }

    fn shards(&self) -> Vec<Series<'_>> {
        let unfinished = self.unfinished.iter().map(|(_, shard)| *shard);
        unfinished.map(|shard| Series { work: self, inputs: &shard.inputs, goal: Goal::Shard(shard) }).collect()
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

    fn shuffle(&self, settings: &Settings, progress: &Progress) -> Result<()> {
        let buckets = Buckets::of(self.stream);
        let series = self.of_inputs("rows", |path| Goal::Rows(path, buckets));
        let paths: Vec<PathBuf> = series.iter().map(|series| series.goal.path().to_owned()).collect();
        mix(
            settings,
            series.into_iter().filter(|series| ShuffledRows::read(series.goal.path()).is_none()).collect(),
            progress,
        )?;
        let rows: Vec<ShuffledRows> = paths.iter().filter_map(|path| ShuffledRows::read(path)).collect();
        let nothing = self.no_documents();
        let mut funnel = nothing.clone();
        rows.iter().for_each(|rows| funnel.add(&rows.funnel));
        let write = |(index, shard): &(usize, &Shard)| {
            let mut outputs = self.outputs(shard)?;
            for bucket in buckets.of_shard(*index as u64) {
                progress.check()?;
                put_bucket(bucket, &rows, &mut outputs)?;
            }
            // documents of one input go to all shards; what became of them is reported once
            self.note(shard, outputs, if *index == 0 { &funnel } else { &nothing })
        };
        each(&self.unfinished, settings.threads, write).map(drop)
    }
}

fn stored_bytes(input: &ShardInput) -> u64 {
    fs::metadata(&input.path).map_or(0, |metadata| metadata.len())
}

/// Inputs whose documents go to one place.
struct Series<'a> {
    work: &'a Work<'a>,
    inputs: &'a [ShardInput],
    goal: Goal<'a>,
}

enum Goal<'a> {
    /// notes about the documents
    Survey(PathBuf),
    /// an output file
    Shard(&'a Shard),
    /// rows that are shuffled later
    Rows(PathBuf, Buckets),
}

impl Goal<'_> {
    fn path(&self) -> &Path {
        match self {
            Goal::Survey(path) | Goal::Rows(path, _) => path,
            Goal::Shard(shard) => Path::new(&shard.name),
        }
    }
}

fn mix(settings: &Settings, series: Vec<Series<'_>>, progress: &Progress) -> Result<()> {
    let bytes = series.iter().flat_map(|series| series.inputs).map(stored_bytes).sum();
    let threads = threads::useful(settings.threads, threads::pieces(bytes).max(series.len()));
    let count = series.len();
    let mixing = Mixing { series, sieve: RowSieve::new(&settings.rows, 0) };
    pass(&mixing, count, threads, progress).map(drop)
}

struct Mixing<'a> {
    series: Vec<Series<'a>>,
    sieve: RowSieve,
}

/// The inputs of a series, one after the other.
struct Inputs<'a> {
    compression: Option<&'a str>,
    sieve: RowSieve,
    waiting: std::slice::Iter<'a, ShardInput>,
    reading: Option<(&'a ShardInput, Rows)>,
    skipped: Vec<Skipped>,
}

impl<'a> Source for Inputs<'a> {
    type Batch = (&'a ShardInput, Batch);

    fn read(&mut self, progress: &Progress) -> Result<Option<Self::Batch>> {
        loop {
            if let Some((input, rows)) = &mut self.reading {
                if let Some(batch) = rows.read(progress)? {
                    return Ok(Some((input, batch)));
                }
                let file = input.path.display().to_string();
                let skipped = rows.skipped().iter().map(|row| Skipped { file: file.clone(), row: row.clone() });
                self.skipped.extend(skipped);
            }
            let Some(input) = self.waiting.next() else { return Ok(None) };
            let open = |path: &PathBuf| {
                let compression = self.compression.and_then(Compression::named).unwrap_or(Compression::of(path));
                LineReader::open_as(path, &path.display().to_string(), compression)
            };
            let attributes = input.attributes.iter().map(open).collect::<Result<_>>()?;
            self.reading = Some((input, Rows::new(open(&input.path)?.sieved(&self.sieve), attributes)));
        }
    }
}

enum Place {
    Notes(AtomicWriter),
    Files(Outputs),
    Rows(RowWriter),
}

impl<'a> Stage for Mixing<'a> {
    type Source = Inputs<'a>;
    type Made = Mixed;
    type Output = (Place, StreamFunnel);
    type Done = ();

    fn open(&self, series: usize) -> Result<(Inputs<'a>, Self::Output)> {
        let Series { work, inputs, goal } = &self.series[series];
        let place = match goal {
            Goal::Survey(path) => Place::Notes(AtomicWriter::create_as(path, Compression::None)?),
            Goal::Shard(shard) => Place::Files(work.outputs(shard)?),
            Goal::Rows(path, buckets) => Place::Rows(RowWriter::create(path, *buckets)?),
        };
        let (compression, sieve) = (work.stream.compression.as_deref(), self.sieve.clone());
        let inputs = Inputs { compression, sieve, waiting: inputs.iter(), reading: None, skipped: Vec::new() };
        Ok((inputs, (place, work.no_documents())))
    }

    fn make(&self, series: usize, (input, batch): (&ShardInput, Batch), _turn: &Turn<'_, Self>) -> Result<Mixed> {
        let Series { work, goal, .. } = &self.series[series];
        let mixer = Mixer {
            rules: work.rules,
            choice: &work.choice,
            shuffle_seed: work.stream.rules.shuffle_documents.as_ref().map(|shuffle| shuffle.seed),
            wants_dropped: work.dropped.is_some(),
            surveys: matches!(goal, Goal::Survey(_)),
        };
        mixer.mix(batch, input, work.no_documents())
    }

    fn keep(&self, _series: usize, (place, funnel): &mut Self::Output, mixed: Mixed) -> Result<()> {
        funnel.add(&mixed.funnel);
        mixed.put_into(match place {
            Place::Notes(writer) => writer,
            Place::Files(outputs) => outputs,
            Place::Rows(rows) => rows,
        })
    }

    fn finish(&self, series: usize, inputs: Inputs<'a>, (place, mut funnel): Self::Output) -> Result<()> {
        funnel.skipped = inputs.skipped;
        let Series { work, goal, .. } = &self.series[series];
        match (place, goal) {
            (Place::Files(outputs), Goal::Shard(shard)) => work.note(shard, outputs, &funnel),
            (Place::Rows(rows), _) => rows.finish(funnel).map(drop),
            (Place::Notes(writer), _) => writer.finish().map(drop),
            (Place::Files(_), _) => Ok(()),
        }
    }
}
