//! The work of a run, in the steps that its streams need: survey, then documents straight into the output, or into rows
//! and from there, shuffled, into the output. Every step goes on where a stopped run left it.

use std::fs;
use std::path::PathBuf;

use rayon::prelude::*;

use super::choice::Choice;
use super::funnel::StreamFunnel;
use super::output::{Output, Outputs};
use super::rules::Rules;
use super::settings::{Settings, Shard, ShardInput, Stream};
use super::shard::{fill, Pass};
use super::shuffle::{put_bucket, Buckets, RowWriter, Rows};
use super::survey;
use super::target::{Holds, Target};
use crate::error::{Error, Result};
use crate::jsonl::{AtomicWriter, Compression, RowSieve};
use crate::progress::Progress;

/// A stream and where its documents go.
struct Work<'a> {
    stream: &'a Stream,
    rules: &'a Rules,
    /// one for each part
    kept: Vec<&'a Target<'a>>,
    dropped: Option<&'a Target<'a>>,
    choice: Choice,
    /// for the writing pass, and for the one before it: each reads every row
    sieve: RowSieve,
    survey_sieve: RowSieve,
    unfinished: Vec<(usize, &'a Shard)>,
}

/// Does all that is not done.
pub fn run(settings: &Settings, rules: &[Rules], targets: &[Target<'_>], progress: &Progress) -> Result<()> {
    let mut works = Vec::new();
    let sieves = [RowSieve::new(&settings.rows, 0), RowSieve::new(&settings.rows, 0)];
    for (index, (stream, rules)) in settings.streams.iter().zip(rules).enumerate() {
        let of = |holds| targets.iter().find(move |target| target.is_of(index, holds));
        let kept: Vec<_> = (0..stream.kept_directories().len()).filter_map(|part| of(Holds::Part(part))).collect();
        let choice = Choice::new(&stream.rules);
        let [sieve, survey_sieve] = sieves.clone();
        let dropped = of(Holds::Dropped);
        let mut work = Work { stream, rules, kept, dropped, choice, sieve, survey_sieve, unfinished: Vec::new() };
        for (index, shard) in stream.shards.iter().enumerate() {
            if !work.is_finished(shard)? {
                work.unfinished.push((index, shard));
            }
        }
        if !work.unfinished.is_empty() {
            works.push(work);
        }
    }
    works.iter().for_each(|work| work.expect_in(progress));
    for work in works.iter_mut().filter(|work| work.choice.needs_survey()) {
        work.survey(progress)?;
    }
    // all shards of all streams at once; only a shuffled stream has to be read whole before its first is written
    let (shuffled, straight): (Vec<_>, Vec<_>) =
        works.iter().partition(|work| work.stream.rules.shuffle_documents.is_some());
    let jobs: Vec<(&Work<'_>, &Shard)> =
        straight.iter().flat_map(|work| work.unfinished.iter().map(move |(_, shard)| (*work, *shard))).collect();
    all(jobs.par_iter().map(|(work, shard)| work.mix(shard, progress)).collect())?;
    shuffled.iter().try_for_each(|work| work.shuffle(progress))
}

fn all<T>(results: Vec<Result<T>>) -> Result<Vec<T>> {
    let (mut good, mut errors) = (Vec::with_capacity(results.len()), Vec::new());
    for result in results {
        match result {
            Ok(value) => good.push(value),
            Err(error) => errors.push(error),
        }
    }
    Error::many(errors).map_or(Ok(good), Err)
}

impl Work<'_> {
    fn is_finished(&self, shard: &Shard) -> Result<bool> {
        for target in self.kept.iter().chain(&self.dropped) {
            if target.finished(shard)?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Every input of the stream, in order.
    fn inputs(&self) -> Vec<&ShardInput> {
        self.stream.shards.iter().flat_map(|shard| &shard.inputs).collect()
    }

    fn expect_in(&self, progress: &Progress) {
        let size_bytes = |input: &&ShardInput| fs::metadata(&input.path).map_or(0, |metadata| metadata.len());
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
            bytes += inputs.iter().map(size_bytes).sum::<u64>();
        }
        progress.expect(files, bytes);
    }

    /// A file of work in progress.
    fn working_file(&self, index: usize, extension: &str) -> PathBuf {
        let directory = self.kept.first().map(|target| target.working_directory()).unwrap_or_default();
        directory.join(format!("{}-{index:06}.{extension}", self.stream.name))
    }

    fn survey(&mut self, progress: &Progress) -> Result<()> {
        let inputs = self.inputs();
        let files: Vec<PathBuf> = (0..inputs.len()).map(|index| self.working_file(index, "survey")).collect();
        let note = |(input, path): (&&ShardInput, &PathBuf)| {
            if path.exists() {
                return Ok(());
            }
            let mut notes = AtomicWriter::create_as(path, Compression::None)?;
            let pass = Pass::Survey(&mut notes);
            fill(
                self.stream,
                std::slice::from_ref(*input),
                self.rules,
                &self.choice,
                pass,
                &self.survey_sieve,
                progress,
            )?;
            notes.finish().map(drop)
        };
        all(inputs.par_iter().zip(&files).map(note).collect())?;
        survey::complete(&mut self.choice, &files)
    }

    fn outputs(&self, shard: &Shard) -> Result<Outputs> {
        let create = |target: &Target<'_>| AtomicWriter::create(&target.directory.join(&shard.name)).map(Output::new);
        Ok(Outputs {
            kept: self.kept.iter().map(|target| create(target)).collect::<Result<_>>()?,
            dropped: self.dropped.map(create).transpose()?,
        })
    }

    fn note(&self, shard: &Shard, outputs: Outputs, funnel: &StreamFunnel) -> Result<()> {
        let targets = self.kept.iter().copied().chain(self.dropped);
        targets.zip(outputs.kept.into_iter().chain(outputs.dropped)).try_for_each(|(target, output)| {
            let written = output.writer.finish()?;
            target.note(shard, funnel, written, output.counts)
        })
    }

    fn mix(&self, shard: &Shard, progress: &Progress) -> Result<()> {
        let mut outputs = self.outputs(shard)?;
        let pass = Pass::Write(&mut outputs);
        let funnel = fill(self.stream, &shard.inputs, self.rules, &self.choice, pass, &self.sieve, progress)?;
        self.note(shard, outputs, &funnel)
    }

    fn shuffle(&self, progress: &Progress) -> Result<()> {
        let buckets = Buckets::of(self.stream);
        let inputs = self.inputs();
        let rows = |(index, input): (usize, &&ShardInput)| {
            let path = self.working_file(index, "rows");
            if let Some(rows) = Rows::read(&path) {
                return Ok(rows);
            }
            let mut writer = RowWriter::create(&path, buckets, self.dropped.is_some())?;
            let pass = Pass::Write(&mut writer);
            let input = std::slice::from_ref(*input);
            let funnel = fill(self.stream, input, self.rules, &self.choice, pass, &self.sieve, progress)?;
            writer.finish(funnel)
        };
        let rows = all(inputs.par_iter().enumerate().map(rows).collect())?;
        let nothing = StreamFunnel::new(&self.stream.name, self.rules).with_parts(&self.choice.edges);
        let mut funnel = nothing.clone();
        rows.iter().for_each(|rows| funnel.add(&rows.funnel));
        let write = |(index, shard): &(usize, &Shard)| {
            let mut outputs = self.outputs(shard)?;
            for bucket in buckets.of_shard(*index as u64) {
                progress.check()?;
                put_bucket(bucket, &rows, &mut outputs)?;
            }
            // documents of one input go to all shards; what became of them is told once
            self.note(shard, outputs, if *index == 0 { &funnel } else { &nothing })
        };
        all(self.unfinished.par_iter().map(write).collect()).map(drop)
    }
}
