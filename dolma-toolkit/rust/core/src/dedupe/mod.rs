//! `dolma dedupe`: marks the documents or paragraphs that stood earlier in the input.
//!
//! Threads read rows and make their keys ([`keys`]). The filter decides the keys of a batch when it has decided those of
//! the batches before, so the copy that stays is always the first. What a row gets follows from the answers ([`decide`]).

mod decide;
mod divided;
mod keys;
mod ngrams;
mod resume;
mod settings;
mod url;
mod words;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use serde_json::Value;

pub use decide::Counts;
pub use settings::{DocumentFile, FilterSettings, NgramSettings, Normalize, Settings, UnitSettings};
pub use words::words;

use crate::bloom::{self, AnyFilter, FileState, Filter, Record};
use crate::error::{Code, Error, Result};
use crate::jsonl::{AtomicWriter, Skipped};
use crate::manifest::sha256_file;
use crate::progress::Progress;
use crate::run::{BatchRow, Files, Journal, Share};
use decide::Marker;
pub use divided::Open;
use divided::{run_of, Answering, Answers, Divided, Progressed};
use keys::{Asking, KeyedRow, Keyer};
use resume::{groups, Identity, MarkedFile, Target};

/// What a run did.
#[derive(Debug, Default, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// everything was there already
    pub already_done: bool,
    /// rows
    pub documents: u64,
    /// documents or paragraphs that were compared
    pub compared: u64,
    /// documents or paragraphs that were marked
    pub marked: u64,
    /// files of another run that stood in the way and were replaced
    pub replaced_files: u64,
    /// keys in the filter; 0 for a filter of dolma 1.x
    pub filter_keys: u64,
    /// keys that it was made for; 0 where only its size was given
    pub filter_estimated_keys: u64,
    /// its memory and disk
    pub filter_size_bytes: u64,
    /// share of new keys that it now calls seen
    pub filter_false_positive_rate: f64,
    /// the first estimate of keys, if there were more
    pub filter_grown_from: Option<u64>,
    /// paragraph separators in the texts
    pub separators: u64,
    /// skipped rows
    pub skipped: Vec<Skipped>,
}

/// The deduplication of a run: the filter, and where attributes go.
pub struct Dedupe<'s> {
    settings: &'s Settings,
    files: Files,
    filter: AnyFilter,
    /// The filter's file as it was.
    before: Option<FileState>,
    /// As it was before this run, which may have written it already.
    given: Option<FileState>,
    identity: Identity,
    /// Directories of attributes; none where they are not kept.
    targets: Vec<Target<'s>>,
    /// An earlier run stopped behind its filter, or was finished.
    already_inserted: bool,
    /// What shares of the run found, if they asked all keys.
    answers: Option<Answers>,
    /// Shares have a part of the filter each.
    is_divided: bool,
}

impl<'s> Dedupe<'s> {
    /// Opens the filter, and finds out what an earlier run left. `is_divided`: shares have a part of the filter each.
    pub fn survey(settings: &'s Settings, keep: bool, is_divided: bool, files: &Files) -> Result<Dedupe<'s>> {
        settings.key()?;
        let (filter, before) = open_filter(settings, is_divided)?;
        let identity = Identity::of(settings)?;
        let mut already_inserted = false;
        let mut given = before.clone();
        if let (AnyFilter::Current(filter), false) = (&filter, settings.bloom_filter.read_only) {
            if let Some(run) = identity.find_in(&filter.record, settings, files)? {
                already_inserted = true;
                given = run.before.clone();
            }
        }
        let groups = if keep { groups(settings) } else { Vec::new() };
        let target = |group| Target::new(settings, group, &identity, given.as_ref(), files);
        let targets = groups.into_iter().map(target).collect::<Result<_>>()?;
        let files = files.clone();
        let answers = None;
        Ok(Dedupe { settings, files, filter, before, given, identity, targets, already_inserted, answers, is_divided })
    }

    /// Whether nothing is left to do but, perhaps, the manifests. `is_complete`: whatever else is made of the attributes
    /// is there.
    pub fn is_done(&self, is_complete: bool) -> Result<bool> {
        let may_be_done = self.before.is_some() && (self.already_inserted || self.settings.bloom_filter.read_only);
        if self.already_inserted && !(is_complete && self.all_written()?) {
            let message = format!(
                "\"{}\" already has the keys of {}, but attributes of that run are missing; expected a filter without them, since every row would count as its own duplicate",
                self.settings.bloom_filter.file.display(),
                self.identity.names.first().map(String::as_str).unwrap_or_default(),
            );
            return Err(Error::config("bloom_filter.file", message).with_hint("delete that file to start again"));
        }
        let are_done = || -> Result<bool> {
            for target in &self.targets {
                if !target.is_done()? {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        Ok(may_be_done && is_complete && (self.already_inserted || are_done()?))
    }

    /// Whether every row has its attributes, and only the manifests may be missing.
    pub fn all_written(&self) -> Result<bool> {
        for target in &self.targets {
            if !target.all_written()? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Readies the directories. Says how many files of another run were removed.
    pub fn begin(&self, share: Option<Share>) -> Result<u64> {
        self.targets.iter().try_for_each(Target::check_place)?;
        self.targets.iter().try_fold(0, |removed, target| Ok(removed + target.begin(share)? as u64))
    }

    /// The document files, in order.
    pub fn files(&self) -> &'s [DocumentFile] {
        &self.settings.files
    }

    /// Does this share's part of the decisions. Gives the step that other shares have not finished, if any.
    pub fn divide(
        &mut self,
        share: Share,
        open: Open<'_>,
        threads: usize,
        progress: &Progress,
    ) -> Result<Option<&'static str>> {
        if self.settings.bloom_filter.read_only || self.answers.is_some() {
            return Ok(None);
        }
        let divided = Divided::new(self.settings, &run_of(&self.identity.run, self.filter_before()), &self.files)?;
        divided.begin(share)?;
        loop {
            let AnyFilter::Current(filter) = &self.filter else { return Ok(None) };
            let keyer = Keyer::new(self.settings, &self.filter)?;
            match divided.go_on(filter, &keyer, share, open, threads, progress)? {
                Progressed::Waits(step) => return Ok(Some(step)),
                Progressed::Answered(answers) if self.has_room(answers.new_keys) => {
                    self.answers = Some(answers);
                    return Ok(None);
                }
                Progressed::Answered(_) => self.grow()?,
            }
        }
    }

    /// Takes the filter and the answers that shares of the run left, if all are there.
    pub fn find_answers(&mut self) -> Result<()> {
        if self.settings.bloom_filter.read_only || self.already_inserted {
            return Ok(());
        }
        let divided = Divided::new(self.settings, &run_of(&self.identity.run, self.filter_before()), &self.files)?;
        loop {
            let AnyFilter::Current(filter) = &self.filter else { return Ok(()) };
            let Some(answers) = divided.answers(filter) else { return Ok(()) };
            if self.has_room(answers.new_keys) {
                answers.fill(filter)?;
                self.answers = Some(answers);
                return Ok(());
            }
            self.grow()?;
        }
    }

    /// The step that these shares, of so many, have not finished, unless all answers are there.
    pub fn missing(&self, count: usize) -> Result<Option<(&'static str, BTreeSet<usize>)>> {
        let AnyFilter::Current(filter) = &self.filter else { return Ok(None) };
        if self.settings.bloom_filter.read_only || self.answers.is_some() {
            return Ok(None);
        }
        let divided = Divided::new(self.settings, &run_of(&self.identity.run, self.filter_before()), &self.files)?;
        Ok(Some(divided.missing(filter, count)))
    }

    fn has_room(&self, new_keys: u64) -> bool {
        match &self.filter {
            AnyFilter::Current(filter) => {
                filter.keys() + new_keys <= filter.max_keys(accepted_rate(self.settings, &self.filter))
            }
            AnyFilter::Legacy(_) => true,
        }
    }

    fn grow(&mut self) -> Result<()> {
        self.filter = grown(self.settings, &self.filter, self.before.is_none(), self.is_divided)?;
        Ok(())
    }

    /// Files whose rows have no attributes yet, where attributes are kept and all answers are there; `None`: all files.
    pub fn unmarked(&self) -> Option<BTreeSet<usize>> {
        self.answers.as_ref()?;
        let mut files = BTreeSet::new();
        for target in &self.targets {
            let is_missing = |file: &&usize| target.journal.get(&self.settings.files[**file].relative).is_none();
            files.extend(target.group.files.iter().filter(is_missing));
        }
        Some(files)
    }

    /// What decides the rows of one pass.
    pub fn marking(&self) -> Result<Marking<'_>> {
        let settings = self.settings;
        let threshold = match &settings.unit {
            UnitSettings::Paragraphs { by_ngram: Some(by_ngram), .. } => by_ngram.overlap_threshold,
            _ => 1.0,
        };
        let max_keys = match &self.filter {
            AnyFilter::Current(filter) if !settings.bloom_filter.read_only && self.answers.is_none() => {
                filter.max_keys(accepted_rate(settings, &self.filter))
            }
            _ => u64::MAX,
        };
        let mut journals = vec![None; settings.files.len()];
        for target in &self.targets {
            target.group.files.iter().for_each(|index| journals[*index] = Some(&target.journal));
        }
        Ok(Marking {
            settings,
            keyer: Keyer::new(settings, &self.filter)?,
            filter: &self.filter,
            answering: self.answers.clone().map(|answers| Mutex::new(Answering::new(answers))),
            max_keys,
            attribute: Value::from(settings.attribute_name()).to_string(),
            threshold,
            is_overfull: AtomicBool::new(false),
            journals,
        })
    }

    /// Forgets what was marked, and what was inserted into a new filter; `is_overfull`: takes a larger one.
    pub fn restart(&mut self, is_overfull: bool) -> Result<()> {
        self.filter = match is_overfull {
            true => grown(self.settings, &self.filter, self.before.is_none(), self.is_divided)?,
            false => open_filter(self.settings, self.is_divided)?.0,
        };
        self.targets.iter().try_for_each(|target| target.journal.restart())
    }

    /// Hash of the filter's file as it was before this run; `None` if there was none.
    pub fn filter_before(&self) -> Option<&str> {
        self.given.as_ref().map(|file| file.sha256.as_str())
    }

    /// What is said of a run with nothing to do.
    pub fn already_done(&self) -> Result<Summary> {
        Divided::remove(self.settings)?;
        Ok(Summary { already_done: true, ..summary(&self.filter, Counts::default(), 0) })
    }

    /// Writes the filter and the manifests.
    pub fn publish(mut self, counts: Counts, replaced_files: u64, skipped: Vec<Skipped>) -> Result<Summary> {
        if let (AnyFilter::Current(filter), false) = (&mut self.filter, self.settings.bloom_filter.read_only) {
            filter.record.runs.push(self.identity.record(self.settings, self.before.clone(), &self.files)?);
            bloom::write(filter, &self.settings.bloom_filter.file)?;
        }
        let first_estimate = self.settings.bloom_filter.estimated_doc_count;
        let mut summary = Summary { skipped, ..summary(&self.filter, counts, replaced_files) };
        let has_grown = self.before.is_none() && summary.filter_estimated_keys > first_estimate;
        summary.filter_grown_from = has_grown.then_some(first_estimate);
        self.targets.into_iter().try_for_each(Target::finish)?;
        Divided::remove(self.settings).map(|()| summary)
    }

    /// Writes the manifests that an earlier run had no time for.
    pub fn publish_again(self) -> Result<Summary> {
        let summary = self.already_done()?;
        for target in self.targets {
            match target.is_done()? {
                true => target.journal.remove()?,
                false => target.finish()?,
            }
        }
        Ok(summary)
    }
}

/// A larger filter in place of one that would mark too many new keys as seen. A filter with keys of earlier runs cannot
/// be rebuilt, and a filter whose size is set keeps it.
fn grown(settings: &Settings, filter: &AnyFilter, is_new: bool, is_divided: bool) -> Result<AnyFilter> {
    const FACTOR: u64 = 4;
    let record = match filter {
        AnyFilter::Current(filter) if is_new && settings.bloom_filter.size_in_bytes == 0 => &filter.record,
        _ => return Err(overfull(settings, filter)),
    };
    let estimated_keys = record.estimated_keys.max(1).saturating_mul(FACTOR);
    let record = Record { estimated_keys, ..record.clone() };
    new_filter(settings, record, is_divided)
}

fn new_filter(settings: &Settings, record: Record, is_divided: bool) -> Result<AnyFilter> {
    let keys = record.estimated_keys;
    Ok(AnyFilter::Current(match is_divided {
        true => Filter::hollow(settings.sizing_of_all(keys), record),
        false => Filter::new(settings.sizing(keys)?, record),
    }))
}

fn overfull(settings: &Settings, filter: &AnyFilter) -> Error {
    let accepted = accepted_rate(settings, filter);
    let keys = match filter {
        AnyFilter::Current(filter) => format!("{} keys", filter.keys()),
        AnyFilter::Legacy(_) => "too many keys".to_string(),
    };
    let message = format!(
        "the filter has {keys} and marks {:.2} % of new keys as seen; expected at most {:.2} %. Build a larger filter from all documents: raise bloom_filter.estimated_doc_count or bloom_filter.size_in_bytes",
        100.0 * filter.false_positive_rate(),
        100.0 * accepted,
    );
    Error::format(settings.bloom_filter.file.display().to_string(), None, None, Code::OutOfRange, message)
}

fn accepted_rate(settings: &Settings, filter: &AnyFilter) -> f64 {
    settings.accepted_rate(match filter {
        AnyFilter::Current(filter) => Some(&filter.record),
        AnyFilter::Legacy(_) => None,
    })
}

/// The filter, and the state of its file if there was one.
fn open_filter(settings: &Settings, is_divided: bool) -> Result<(AnyFilter, Option<FileState>)> {
    let (path, read_only) = (&settings.bloom_filter.file, settings.bloom_filter.read_only);
    if path.is_dir() {
        let message = format!("is \"{}\", a directory; expected a file", path.display());
        return Err(Error::config("bloom_filter.file", message));
    }
    if path.exists() {
        let filter = bloom::read(path)?;
        if matches!(filter, AnyFilter::Legacy(_)) && !read_only {
            let message = format!("\"{}\" is a filter of dolma 1.x, which can only be asked", path.display());
            return Err(
                Error::config("bloom_filter.file", message).with_hint("set bloom_filter.read_only, or name a new file")
            );
        }
        if read_only && filter.false_positive_rate() > accepted_rate(settings, &filter) {
            return Err(overfull(settings, &filter));
        }
        let file = sha256_file(path)?;
        return Ok((filter, Some(FileState { sha256: file.sha256, size_bytes: file.size_bytes })));
    }
    if read_only {
        let message = format!("\"{}\" not found; expected an existing filter, since read_only is set", path.display());
        return Err(
            Error::config("bloom_filter.file", message).with_hint("make it with a run that has read_only: false")
        );
    }
    let record = Record {
        estimated_keys: settings.bloom_filter.estimated_doc_count,
        false_positive_rate: settings.bloom_filter.desired_false_positive_rate,
        runs: Vec::new(),
    };
    Ok((new_filter(settings, record, is_divided)?, None))
}

/// Decides which rows of a pass are duplicates.
pub struct Marking<'a> {
    settings: &'a Settings,
    keyer: Keyer<'a>,
    filter: &'a AnyFilter,
    /// In place of the filter.
    answering: Option<Mutex<Answering>>,
    /// More would be too many.
    max_keys: u64,
    /// As JSON.
    attribute: String,
    threshold: f64,
    is_overfull: AtomicBool,
    /// Of each file, where attributes are kept.
    journals: Vec<Option<&'a Journal<MarkedFile>>>,
}

/// Some rows, what they ask the filter, and its answers.
#[derive(Default)]
pub struct Asked {
    rows: Vec<KeyedRow>,
    asking: Asking,
    seen: Vec<bool>,
}

/// The attribute lines of some rows.
#[derive(Default)]
pub struct Marked {
    lines: String,
    ends: Vec<usize>,
    counts: Counts,
}

impl Marked {
    /// The line of a row, with its line end.
    pub fn line(&self, row: usize) -> &str {
        let start = row.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.lines[start..self.ends[row]]
    }
}

/// The attribute file of a document file while it is made. Rows of a file that an earlier, stopped run has finished are
/// decided again, for the filter to know them, and not written again.
pub type Output = (Option<AtomicWriter>, Counts);

impl Marking<'_> {
    /// Whether rows have to be decided in order.
    pub fn takes_turns(&self) -> bool {
        !self.settings.bloom_filter.read_only
    }

    /// The filter is too small, and the pass has ended for it.
    pub fn is_overfull(&self) -> bool {
        self.is_overfull.load(Ordering::Relaxed)
    }

    /// The fields of a row that it reads; `None` for all.
    pub fn fields(&self) -> Option<Vec<&str>> {
        self.keyer.fields()
    }

    /// Adds a row and its keys.
    pub fn ask(&self, row: BatchRow<'_>, name: &str, asked: &mut Asked) -> Result<()> {
        let keyed = self.keyer.row(row.document(), &row.place(name), &mut asked.asking)?;
        asked.rows.push(keyed);
        Ok(())
    }

    /// Decides keys of a file, when those of the rows before are decided.
    pub fn decide(&self, file: usize, asked: &mut Asked) -> Result<()> {
        let (questions, seen) = (&asked.asking.questions, &mut asked.seen);
        seen.resize(questions.len(), false);
        if let Some(answering) = &self.answering {
            return answering.lock().unwrap_or_else(PoisonError::into_inner).give(file, seen);
        }
        match self.filter {
            AnyFilter::Legacy(_) => {}
            AnyFilter::Current(filter) if self.settings.bloom_filter.read_only => filter.ask(questions, seen),
            AnyFilter::Current(filter) => {
                filter.decide(questions, seen);
                if filter.keys() > self.max_keys {
                    self.is_overfull.store(true, Ordering::Relaxed);
                    return Err(Error::Cancelled);
                }
            }
        }
        Ok(())
    }

    /// The attributes of rows whose keys are decided.
    pub fn mark(&self, asked: &Asked) -> Marked {
        let mut marked = Marked::default();
        let mut marker = Marker::new(&self.attribute, self.threshold, &asked.seen);
        for row in &asked.rows {
            marker.row(row, &mut marked.lines);
            marked.ends.push(marked.lines.len());
        }
        marked.counts = marker.counts;
        marked
    }

    /// Begins the attribute file of a document file.
    pub fn open(&self, file: usize) -> Result<Output> {
        let file_name = &self.settings.files[file];
        let is_missing = |journal: &Journal<MarkedFile>| journal.get(&file_name.relative).is_none();
        let is_wanted = self.journals[file].is_some_and(is_missing);
        Ok((is_wanted.then(|| AtomicWriter::create(&file_name.output())).transpose()?, Counts::default()))
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
            journal.add(&self.settings.files[file].relative, marked)?;
        }
        Ok(counts)
    }
}

fn summary(filter: &AnyFilter, counts: Counts, replaced_files: u64) -> Summary {
    let mut summary = Summary {
        documents: counts.documents,
        compared: counts.compared,
        marked: counts.marked,
        replaced_files,
        separators: counts.separators,
        ..Summary::default()
    };
    if let AnyFilter::Current(filter) = filter {
        summary.filter_keys = filter.keys();
        summary.filter_estimated_keys = filter.record.estimated_keys;
        summary.filter_size_bytes = filter.size_bytes();
        summary.filter_false_positive_rate = filter.false_positive_rate();
    }
    summary
}
