//! A run: one command, or several whose data goes from one to the next in memory.
//!
//! Stages are connected by paths: an attribute file or a document file that a stage reads, and an earlier stage would write,
//! is not read from the disk. Whether it is written too is up to the stage's `keep`; what is written is the same either way.

mod flow;
mod series;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{json, Map, Value};

use crate::dedupe::{self, Dedupe, Deduping, DocumentFile, Marking};
use crate::document::FIELDS;
use crate::error::{Error, Result};
use crate::extract::{self, Extraction};
use crate::jsonl::{Compression, LineReader, RowRules, RowSieve};
use crate::manifest::{canonical_bytes, sha256_bytes, Input};
use crate::mix::{self, Mix, Work};
use crate::near::{self, Near};
use crate::progress::Progress;
use crate::run::{pass, threads, Files, Rows, Share, Stamp};
use crate::tag::{self, Tagging};
use crate::tokens::{self, Encoding};
use flow::{Done, Flow, Series};
use series::{Deciding, Source, Wiring};

/// What to do.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// How many threads work.
    pub threads: usize,
    /// What to do with rows that are not valid documents.
    #[serde(default)]
    pub rows: RowRules,
    /// All document files, in order.
    pub documents: Vec<Document>,
    /// Documents that cheap rules drop are not tagged by dear taggers.
    #[serde(default)]
    pub lazy: bool,
    /// The part of the work to do, if other processes do the rest. It publishes nothing.
    #[serde(default)]
    pub share: Option<Share>,
    /// Publishes what so many shares made, and makes nothing.
    #[serde(default)]
    pub merge: Option<usize>,
    /// The stage that makes documents of archives. It is alone in its plan.
    #[serde(default)]
    pub extract: Option<extract::Plan>,
    /// Stages that make attributes.
    #[serde(default)]
    pub tag: Vec<Kept<tag::Plan>>,
    /// More of them.
    #[serde(default)]
    pub dedupe: Vec<Kept<DedupeSettings>>,
    /// The stage that makes documents.
    #[serde(default)]
    pub mix: Option<Kept<mix::Settings>>,
    /// The stage that makes shards of the mix's documents.
    #[serde(default)]
    pub tokens: Option<tokens::Plan>,
}

/// Settings of a stage that dedupes.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DedupeSettings {
    /// By a filter: by what came before.
    Filter(dedupe::Settings),
    /// By an index: by what all documents have in common.
    Near(near::Settings),
}

impl DedupeSettings {
    fn files(&self) -> &[DocumentFile] {
        match self {
            DedupeSettings::Filter(settings) => &settings.files,
            DedupeSettings::Near(settings) => &settings.files,
        }
    }

    /// Files with a row for each document of a file, by its position, that are read before rows are marked.
    fn companions(&self, file: usize) -> &[PathBuf] {
        match self {
            DedupeSettings::Filter(_) => &[],
            DedupeSettings::Near(settings) => settings.attributes.get(file).map_or(&[], Vec::as_slice),
        }
    }

    fn recorded(&self) -> Map<String, Value> {
        match self {
            DedupeSettings::Filter(settings) => settings.recorded(),
            DedupeSettings::Near(settings) => settings.recorded(),
        }
    }

    fn survey(&self, keep: bool, is_divided: bool, files: &Files) -> Result<Box<dyn Deduping + '_>> {
        Ok(match self {
            DedupeSettings::Filter(settings) => Box::new(Dedupe::survey(settings, keep, is_divided, files)?),
            DedupeSettings::Near(settings) => Box::new(Near::survey(settings, keep, files)?),
        })
    }
}

/// A stage, and whether what it makes is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept<S> {
    /// Its settings.
    pub stage: S,
    /// Or only handed on.
    pub keep: bool,
}

/// A document file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// Where it can be opened.
    pub path: PathBuf,
    /// As the user named it; a URL where `path` is a copy.
    pub name: String,
    /// Packing, as an extension, where the name does not tell it.
    pub compression: Option<String>,
}

impl Document {
    fn compression(&self) -> Compression {
        self.compression_of(Path::new(&self.name))
    }

    /// How a file with a row for each document is packed: like the documents, if its name does not tell it.
    fn compression_of(&self, path: &Path) -> Compression {
        self.compression.as_deref().and_then(Compression::named).unwrap_or_else(|| Compression::of(path))
    }
}

impl Plan {
    /// Directories of what is written.
    fn directories(&self) -> Vec<&Path> {
        let tags = self.tag.iter().filter(|tag| tag.keep).flat_map(|tag| &tag.stage.artifacts);
        let marks = self.dedupe.iter().filter(|dedupe| dedupe.keep).flat_map(|dedupe| dedupe.stage.files());
        let mixes = self.mix.iter().filter(|mix| mix.keep).flat_map(|mix| &mix.stage.streams);
        let mut found: Vec<&Path> = tags.map(|artifact| artifact.directory.as_path()).collect();
        found.extend(marks.map(|file| file.attributes_directory.as_path()));
        found.extend(mixes.flat_map(mix::Stream::kept_directories).map(PathBuf::as_path));
        found.extend(self.tokens.iter().map(|tokens| tokens.destination.as_path()));
        found
    }
}

/// What a run did, stage by stage.
#[derive(Debug, Default, Serialize)]
pub struct Summary {
    /// Of archives.
    pub extract: Option<extract::Summary>,
    /// In the order of the plan.
    pub tag: Vec<tag::Summary>,
    /// In the order of the plan.
    pub dedupe: Vec<dedupe::Summary>,
    /// Of the mix.
    pub mix: Option<mix::Summary>,
    /// Of the shards.
    pub tokens: Option<tokens::Summary>,
    /// Of a share.
    pub state: State,
    /// What other shares have to finish first.
    pub waits_for: Option<&'static str>,
}

/// Where a run is after a share has done what it could.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// This share has nothing left to do.
    #[default]
    Done,
    /// The next step needs what other shares make.
    Waiting,
    /// There was nothing left to do for any share.
    Finished,
}

/// For each tagging stage, the positions of the files that it still has to read.
pub fn pending(plan: &Plan, files: &Files) -> Result<Vec<Vec<usize>>> {
    let survey = Survey::new(plan, files)?;
    let is_ours = |tagging: &Tagging<'_>, file: &usize| {
        let document = plan.documents.iter().position(|document| document.path == tagging.files()[*file].path);
        document.is_none_or(|document| survey.has(document))
    };
    let of_stage = |tagging: &Tagging<'_>| tagging.wanted_files().filter(|file| is_ours(tagging, file)).collect();
    Ok(survey.tags.iter().map(of_stage).collect())
}

/// Does what is not done.
pub fn run(plan: &Plan, files: &Files, progress: &Progress) -> Result<Summary> {
    if let Some(extract) = &plan.extract {
        return run_extract(plan, extract, files, progress);
    }
    // ---- survey: what is there, what is missing, what is in the way
    let mut survey = Survey::new(plan, files)?;
    let mut summary = Summary::default();
    if let (Some(mix), true) = (&survey.mix, survey.is_mix_done) {
        summary.mix = Some(mix.finished()?);
    }
    if plan.share.is_some() && survey.is_finished()? {
        return Ok(Summary { state: State::Finished, ..summary });
    }
    survey.begin()?;

    // ---- pass: read the documents once and write what is missing
    let done = match survey.pass(progress)? {
        Ok(done) => done,
        Err(step) => return Ok(Summary { state: State::Waiting, waits_for: Some(step), ..summary }),
    };
    if plan.share.is_some() {
        return Ok(summary);
    }

    // ---- publish: manifests last
    survey.publish(done, summary, progress)
}

/// Makes documents that are missing.
fn run_extract(plan: &Plan, extract: &extract::Plan, files: &Files, progress: &Progress) -> Result<Summary> {
    let mut extraction = Extraction::survey(extract, files)?;
    if plan.share.is_some() && extraction.todo().is_empty() {
        return Ok(Summary { state: State::Finished, ..Summary::default() });
    }
    expect_none(plan, "rows", extraction.todo().iter().copied())?;
    extraction.begin(plan.share)?;
    extraction.pass(plan.share, plan.threads, progress)?;
    if plan.share.is_some() {
        return Ok(Summary::default());
    }
    Ok(Summary { extract: Some(extraction.publish()?), ..Summary::default() })
}

/// Fails if a run that makes nothing would have to make something.
fn expect_none(plan: &Plan, step: &str, numbers: impl Iterator<Item = usize>) -> Result<()> {
    let Some(count) = plan.merge else { return Ok(()) };
    let shares: BTreeSet<usize> = numbers.map(|number| number % count).collect();
    let Some(first) = shares.first() else { return Ok(()) };
    let (plural, have) = if shares.len() > 1 { ("s", "have") } else { ("", "has") };
    let names = shares.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
    let message =
        format!("shard{plural} {names} of {count} {have} not finished \"{step}\"; expected all shards to be done");
    Err(Error::config("merge", message).with_hint(format!("run --shard {first}/{count} until it says that it is done")))
}

/// What is left to do.
struct Survey<'p> {
    plan: &'p Plan,
    files: &'p Files,
    tags: Vec<Tagging<'p>>,
    /// those whose attributes are all there are `Done`
    dedupes: Vec<Marks<'p>>,
    /// where the attributes are that stages make: by path
    made: BTreeMap<PathBuf, Source>,
    mix: Option<Mix<'p>>,
    encoding: Option<Encoding<'p>>,
    origin: mix::Origin,
    tokens_origin: Option<tokens::Origin>,
    /// the mix, or the shards where its documents are not written
    is_mix_done: bool,
    replaced: Vec<u64>,
    replaced_by_mix: u64,
    numbers: Option<Vec<usize>>,
}

/// How a pass ended.
enum Passed {
    Done(Done),
    /// A filter was too small: it is larger now.
    Overfull,
    /// Other shares of the run have to finish this step first.
    Waits(&'static str),
}

enum Marks<'p> {
    ToDo(Box<dyn Deduping + 'p>),
    Done(dedupe::Summary),
}

impl<'p> Survey<'p> {
    fn new(plan: &'p Plan, files: &'p Files) -> Result<Survey<'p>> {
        if let Some(directory) = plan.directories().first() {
            files.note_in(directory);
        }
        let mut survey = Survey {
            plan,
            tags: Vec::new(),
            dedupes: Vec::new(),
            made: BTreeMap::new(),
            mix: None,
            encoding: None,
            origin: mix::Origin::default(),
            tokens_origin: None,
            is_mix_done: plan.mix.is_none(),
            replaced: Vec::new(),
            replaced_by_mix: 0,
            numbers: series::numbers(plan),
            files,
        };
        let origin = survey.attributes()?;
        if let Some(mix) = &plan.mix {
            survey.documents(mix, origin)?;
        }
        survey.want();
        Ok(survey)
    }

    /// Surveys the stages that make attributes; gives what these depend on.
    fn attributes(&mut self) -> Result<Value> {
        let (mut configs, mut settings) = (Vec::new(), Vec::new());
        for (stage, Kept { stage: plan, keep }) in self.plan.tag.iter().enumerate() {
            let tagging = Tagging::survey(plan, *keep, self.files)?;
            for (path, at) in tagging.place_of() {
                if tagging.is_finished(at) {
                    // its artifact is an input of the mix, and has no name before its manifest
                    if !tagging.is_published(at) {
                        self.origin.missing.insert(path);
                    }
                    continue;
                }
                (if *keep { &mut self.origin.missing } else { &mut self.origin.unwritten }).insert(path.clone());
                self.made.insert(path, Source::Tag(stage, at));
            }
            configs.extend(plan.artifacts.iter().map(|artifact| artifact.config.clone()));
            self.tags.push(tagging);
        }
        for (stage, Kept { stage: plan, keep }) in self.plan.dedupe.iter().enumerate() {
            let dedupe = plan.survey(*keep, self.plan.share.is_some(), self.files)?;
            settings.push(json!({"settings": plan.recorded(), "filter_before": dedupe.before()}));
            if *keep && dedupe.is_done(true)? {
                self.dedupes.push(Marks::Done(dedupe.publish_again()?));
                continue;
            }
            for file in plan.files() {
                (if *keep { &mut self.origin.missing } else { &mut self.origin.unwritten }).insert(file.output());
                self.made.insert(file.output(), Source::Mark(stage));
            }
            self.dedupes.push(Marks::ToDo(dedupe));
        }
        Ok(json!({"tag": configs, "dedupe": settings}))
    }

    /// Surveys the stages that make documents and shards.
    fn documents(&mut self, mix: &'p Kept<mix::Settings>, mut origin: Value) -> Result<()> {
        if self.plan.tag.is_empty() && self.plan.dedupe.is_empty() && self.plan.tokens.is_none() {
            let surveyed = Mix::survey(&mix.stage, &self.origin, self.files)?;
            self.is_mix_done = surveyed.is_done()?;
            self.mix = Some(surveyed);
            return Ok(());
        }
        let input = |document: &Document| Ok(json!([document.name, Stamp::of(&document.path)?]));
        let inputs = self.plan.documents.iter().map(input).collect::<Result<Vec<Value>>>()?;
        let run = sha256_bytes(&canonical_bytes(&json!({"stages": origin, "inputs": inputs})));
        self.origin.run = Some(run.clone());
        self.origin.details = Some(origin.clone());
        self.origin.is_passed_on = !mix.keep;
        let surveyed = Mix::survey(&mix.stage, &self.origin, self.files)?;
        self.is_mix_done = mix.keep && surveyed.is_done()?;
        if let Some(tokens) = &self.plan.tokens {
            let rules: Vec<Value> = mix.stage.streams.iter().map(|stream| json!(stream.rules)).collect();
            origin["mix"] = json!(rules);
            let run = sha256_bytes(&canonical_bytes(&json!({"attributes": run, "mix": rules})));
            let is_shuffled = mix.stage.streams.iter().any(|stream| stream.rules.shuffle_documents.is_some());
            let encoding = Encoding::survey(tokens, &run, self.files)?;
            if !mix.keep {
                let mut origin = tokens::Origin { details: Some(origin), run: Some(run), ..tokens::Origin::default() };
                let inputs = || self.inputs_of(tokens);
                self.is_mix_done = tokens::is_complete(tokens, &encoding.encoder, &mut origin, &inputs)?;
                self.tokens_origin = Some(origin);
            }
            // shuffled documents have no place in a shard until all are there; what is there is read from there
            let is_read = is_shuffled || (mix.keep && self.is_mix_done);
            self.encoding = Some(encoding).filter(|_| !is_read);
        }
        self.mix = Some(surveyed);
        Ok(())
    }

    /// What a manifest says of shards whose documents were never written.
    fn inputs_of(&self, tokens: &tokens::Plan) -> Result<Vec<Input>> {
        let paths: Vec<PathBuf> = self.plan.documents.iter().map(|document| document.path.clone()).collect();
        let inputs = self.files.inputs("documents", "document", &paths, &tokens.destination)?;
        tokens::sorted_with_tokenizer(tokens, inputs)
    }

    /// Whether a document belongs to this share.
    fn has(&self, document: usize) -> bool {
        let number = self.numbers.as_ref().and_then(|numbers| numbers.get(document));
        self.plan.share.zip(number).is_none_or(|(share, number)| share.has(*number))
    }

    /// What decides which share a series belongs to.
    fn number(&self, series: &Series<'_>) -> usize {
        match (&self.numbers, series.files.first(), series.goals.first()) {
            (Some(numbers), Some(file), _) => numbers[file.document],
            (_, _, goal) => goal.map_or(0, |goal| goal.goal.number),
        }
    }

    /// The series of this share. Fails if shares should have made them all.
    fn ours<'a>(&self, step: &str, mut series: Vec<Series<'a>>) -> Result<Vec<Series<'a>>> {
        expect_none(self.plan, step, series.iter().map(|series| self.number(series)))?;
        if let Some(share) = self.plan.share {
            series.retain(|series| share.has(self.number(series)));
        }
        Ok(series)
    }

    /// Whether all is made, and only manifests may be missing.
    fn is_finished(&self) -> Result<bool> {
        for marks in &self.dedupes {
            if matches!(marks, Marks::ToDo(dedupe) if !dedupe.all_written()?) {
                return Ok(false);
            }
        }
        let is_tagged = self.tags.iter().all(|tagging| tagging.wanted_files().next().is_none());
        Ok(is_tagged && self.works().is_empty())
    }

    /// The streams with something left to do.
    fn works(&self) -> Vec<Work<'_>> {
        let Some(mix) = self.mix.as_ref().filter(|_| !self.is_mix_done) else { return Vec::new() };
        let working_directory = self.encoding.as_ref().map_or(Path::new(""), Encoding::directory);
        mix.works(working_directory, &|stream, shard| {
            let Some(encoding) = &self.encoding else { return true };
            let files = stream.kept_directories().iter().map(|directory| directory.join(&shard.name));
            files.filter_map(|path| encoding.position(&path)).all(|file| encoding.finished(file).is_some())
        })
    }

    /// Asks for the attributes that later stages need.
    fn want(&mut self) {
        let needed: Vec<PathBuf> = {
            let works = self.works();
            let goals = works.iter().flat_map(Work::goals);
            goals.flat_map(|goal| goal.inputs).flat_map(|input| input.attributes.clone()).collect()
        };
        for path in needed {
            if let Some(Source::Tag(stage, at)) = self.made.get(&path) {
                self.tags[*stage].want(*at);
            }
        }
    }

    /// Readies all directories.
    fn begin(&mut self) -> Result<()> {
        let share = self.plan.share;
        let is_complete = self.works().iter().all(|work| work.goals().is_empty());
        self.tags.iter_mut().try_for_each(|tagging| tagging.begin(share))?;
        for (marks, plan) in self.dedupes.iter_mut().zip(&self.plan.dedupe) {
            let Marks::ToDo(dedupe) = marks else {
                self.replaced.push(0);
                continue;
            };
            self.replaced.push(dedupe.begin(share)?);
            if !plan.keep && dedupe.is_done(is_complete)? {
                *marks = Marks::Done(dedupe.already_done()?);
            }
        }
        if let Some(mix) = self.mix.as_ref().filter(|_| !self.is_mix_done) {
            self.replaced_by_mix = mix.begin(share)?;
            self.encoding.iter().try_for_each(|encoding| encoding.begin(share))?;
        }
        Ok(())
    }

    /// Reads the documents and writes what is missing, again if a filter turns out too small. Or else gives the step that
    /// other shares have to finish first.
    fn pass(&mut self, progress: &Progress) -> Result<std::result::Result<Done, &'static str>> {
        let mut dedupes = std::mem::take(&mut self.dedupes);
        let done = loop {
            match self.try_pass(&mut dedupes, progress)? {
                Passed::Done(done) => break Ok(done),
                Passed::Waits(step) => break Err(step),
                Passed::Overfull => {}
            }
        };
        self.dedupes = dedupes;
        Ok(done)
    }

    fn try_pass(&self, dedupes: &mut [Marks<'p>], progress: &Progress) -> Result<Passed> {
        if let Some(count) = self.plan.merge {
            for marks in &*dedupes {
                let Marks::ToDo(dedupe) = marks else { continue };
                if let Some((step, shares)) = dedupe.missing(count)? {
                    expect_none(self.plan, step, shares.into_iter())?;
                }
            }
        }
        let mut waits_for = None;
        let sieve = RowSieve::new(&self.plan.rows, 0);
        for (marks, plan) in dedupes.iter_mut().zip(&self.plan.dedupe) {
            let Marks::ToDo(dedupe) = marks else { continue };
            let files = plan.stage.files();
            let open = |file: usize, fields: Option<&[&str]>| {
                self.rows(&files[file], plan.stage.companions(file), fields, &sieve)
            };
            waits_for = waits_for.or(dedupe.prepare(self.plan.share, &open, self.plan.threads, progress)?);
        }
        if let Some(step) = waits_for {
            return Ok(Passed::Waits(step));
        }
        let mut works = self.works();
        // budgets and percentiles: all documents are looked at before the first is written
        if works.iter().any(Work::needs_survey) {
            let wiring = Wiring::new(&self.plan.documents, &self.made, &[], &[], None);
            let series = wiring.series(works.iter().flat_map(Work::surveys).collect())?;
            self.flow(self.ours("survey", series)?, &[], Vec::new(), progress)?;
            if works.iter().any(|work| !work.surveys().is_empty()) {
                return Ok(Passed::Waits("survey"));
            }
        }
        works.iter_mut().try_for_each(Work::complete)?;

        let mut marks = Vec::new();
        let mut files = Vec::new();
        for (stage, (dedupe, plan)) in dedupes.iter().zip(&self.plan.dedupe).enumerate() {
            if let Marks::ToDo(dedupe) = dedupe {
                files.push(Deciding { stage, files: plan.stage.files(), unmarked: dedupe.unmarked() });
                marks.push(dedupe.marking()?);
            }
        }
        let wiring = Wiring::new(&self.plan.documents, &self.made, &self.tags, &files, self.encoding.as_ref());
        let series = wiring.series(works.iter().flat_map(Work::goals).collect())?;
        let (is_overfull, done) = self.flow(self.ours("rows", series)?, &self.tags, marks, progress)?;
        if let Some(done) = done {
            if works.iter().any(Work::waits_for_rows) {
                return Ok(Passed::Waits("rows"));
            }
            expect_none(self.plan, "shuffle", works.iter().flat_map(Work::unshuffled))?;
            works.iter().try_for_each(|work| work.shuffle(self.plan.share, self.plan.threads, progress))?;
            return Ok(Passed::Done(done));
        }
        let to_do = dedupes.iter_mut().filter_map(|dedupe| match dedupe {
            Marks::ToDo(dedupe) => Some(dedupe),
            Marks::Done(_) => None,
        });
        to_do.zip(is_overfull).try_for_each(|(dedupe, is_overfull)| dedupe.restart(is_overfull))?;
        self.mix.iter().try_for_each(Mix::restart)?;
        self.encoding.iter().try_for_each(Encoding::restart)?;
        Ok(Passed::Overfull)
    }

    /// The rows of a document file, the same as a pass reads, with those of other files.
    fn rows(
        &self,
        file: &DocumentFile,
        companions: &[PathBuf],
        fields: Option<&[&str]>,
        sieve: &RowSieve,
    ) -> Result<Rows> {
        let mut documents = self.plan.documents.iter();
        let found = documents.find(|document| document.path == file.path);
        let document = found.ok_or_else(|| Error::io(&file.path, std::io::ErrorKind::NotFound.into()))?;
        // a mix reads whole rows, and skips those that are bad anywhere
        let fields = fields.filter(|_| self.plan.mix.is_none());
        let reader = self.files.open(&document.path, &document.name, document.compression(), fields)?;
        let open = |path: &PathBuf| self.companion(document, path);
        Ok(Rows::new(reader.sieved(sieve), companions.iter().map(open).collect::<Result<_>>()?))
    }

    fn companion(&self, document: &Document, path: &Path) -> Result<LineReader> {
        self.files.open(path, &path.display().to_string(), document.compression_of(path), None)
    }

    /// One pass. Says which filters were too small; then nothing is done.
    fn flow(
        &self,
        series: Vec<Series<'_>>,
        tags: &[Tagging<'_>],
        marks: Vec<Box<dyn Marking + '_>>,
        progress: &Progress,
    ) -> Result<(Vec<bool>, Option<Done>)> {
        let documents = &self.plan.documents;
        let paths = series
            .iter()
            .flat_map(|series| &series.files)
            .flat_map(|file| std::iter::once(&documents[file.document].path).chain(&file.companions));
        self.files.expect(paths.map(PathBuf::as_path))?;
        let files = series.iter().flat_map(|series| &series.files);
        let sizes: Vec<u64> = files.map(|file| stored_bytes(&documents[file.document].path)).collect();
        let bytes = sizes.iter().sum::<u64>();
        let before = progress.snapshot();
        progress.expect(before.files + sizes.len() as u64, before.bytes + bytes);
        let threads = threads::useful(self.plan.threads, threads::pieces(bytes).max(series.len()));
        let skipped = match (&self.plan.tag[..], &self.plan.mix) {
            // rows that an earlier run skipped count too
            ([_], None) => tags.iter().map(Tagging::skipped_before).sum(),
            _ => 0,
        };
        let fields = fields(&series, tags, &marks);
        let sieve = RowSieve::new(&self.plan.rows, skipped);
        let (encoding, is_lazy) = (self.encoding.as_ref(), self.plan.lazy);
        let flow = Flow { documents, files: self.files, sieve, series, tags, marks, encoding, fields, is_lazy };
        let done = pass(&&flow, flow.series.len(), threads, progress);
        let is_overfull: Vec<bool> = flow.marks.iter().map(|mark| mark.is_overfull()).collect();
        if is_overfull.contains(&true) {
            return progress.check().map(|()| (is_overfull, None));
        }
        Ok((is_overfull, Some(Done::of(done?))))
    }

    /// Writes filters and manifests.
    fn publish(mut self, done: Done, mut summary: Summary, progress: &Progress) -> Result<Summary> {
        let mut tokens_origin = self.tokens_origin.take();
        if let (Some(tokens), Some(origin), false) = (&self.plan.tokens, &mut tokens_origin, self.is_mix_done) {
            origin.inputs = self.inputs_of(tokens)?;
        }
        let Survey { plan, files, is_mix_done, tags, dedupes, mix, encoding, replaced, replaced_by_mix, .. } = self;
        for (stage, tagging) in tags.iter().enumerate() {
            summary.tag.push(tagging.publish(done.tagged.get(stage).copied().unwrap_or_default())?);
        }
        let mut marked = done.marked.into_iter();
        for (dedupe, replaced) in dedupes.into_iter().zip(replaced) {
            summary.dedupe.push(match dedupe {
                Marks::Done(summary) => summary,
                Marks::ToDo(dedupe) => {
                    dedupe.publish(marked.next().unwrap_or_default(), replaced, done.skipped.clone())?
                }
            });
        }
        if let Some(mix) = mix.filter(|_| !is_mix_done) {
            let streams = mix.funnels(&|stream, shard| {
                let path = stream.kept_directories().first()?.join(&shard.name);
                let encoding = encoding.as_ref()?;
                serde_json::from_value(encoding.finished(encoding.position(&path)?)?.note).ok()
            });
            summary.mix = Some(mix.publish(streams, replaced_by_mix, plan.rows.skip_bad_rows)?);
        }
        if let Some(tokens) = &plan.tokens {
            summary.tokens = Some(match (encoding, tokens_origin) {
                (Some(encoding), Some(origin)) => tokens::run_encoded(tokens, &encoding, origin, files, progress)?,
                (Some(encoding), None) => {
                    let inputs = tokens::written_inputs(tokens, files)?;
                    let origin = tokens::Origin { inputs, ..tokens::Origin::default() };
                    tokens::run_encoded(tokens, &encoding, origin, files, progress)?
                }
                (None, _) => tokens::run(tokens, files, progress)?,
            });
        }
        Ok(summary)
    }
}

/// What of a Parquet row is read; `None` for all.
fn fields(series: &[Series<'_>], tags: &[Tagging<'_>], marks: &[Box<dyn Marking + '_>]) -> Option<Vec<String>> {
    if series.iter().any(|series| !series.goals.is_empty()) {
        return None;
    }
    let mut fields: BTreeSet<String> = BTreeSet::new();
    if !tags.is_empty() {
        fields.extend(FIELDS.iter().map(|field| (*field).to_owned()));
    }
    for mark in marks {
        fields.extend(mark.fields()?.into_iter().map(str::to_owned));
    }
    Some(fields.into_iter().collect())
}

fn stored_bytes(path: &Path) -> u64 {
    path.metadata().map_or(0, |metadata| metadata.len())
}
