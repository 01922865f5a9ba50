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
mod stage;
mod url;
mod words;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use serde_json::Value;

pub use decide::Counts;
pub use keys::split_paragraphs;
pub use resume::{Before, Identity, Making, MarkedFile, Target, Targets};
pub use settings::{DocumentFile, FilterSettings, NgramSettings, Normalize, Settings, UnitSettings};
pub use stage::{Asked, AttributeFiles, Deduping, Marked, Marking, Open, Output};
pub use url::normalized as normalized_url;
pub use words::words;

use crate::bloom::{self, AnyFilter, FileState, Filter, Record};
use crate::error::{Code, Error, Result};
use crate::jsonl::Skipped;
use crate::manifest::sha256_file;
use crate::progress::Progress;
use crate::run::{BatchRow, Files, Share};
use decide::Marker;
use divided::{run_of, Answering, Answers, Divided, Progressed};
use keys::Keyer;

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
    /// documents in an index
    pub index_documents: u64,
    /// clusters whose document that stays is in this run
    pub clusters: u64,
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
    targets: Targets<'s>,
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
        let identity = Identity::of(&settings.recorded(), &settings.files)?;
        let mut already_inserted = false;
        let mut given = before.clone();
        if let (AnyFilter::Current(filter), false) = (&filter, settings.bloom_filter.read_only) {
            if let Some(run) = identity.find_in(&filter.record, settings, files)? {
                already_inserted = true;
                given = run.before.clone();
            }
        }
        let making = Making {
            documents: &settings.files,
            recorded: settings.recorded(),
            keys: vec![settings.attribute_name()],
            are_in_bytes: settings.key()?.is_some(),
            run: identity.run.clone(),
            before: given.clone().map(|state| Before {
                role: "filter",
                path: settings.bloom_filter.file.clone(),
                is_changed: !settings.bloom_filter.read_only,
                state,
            }),
        };
        let targets = Targets::new(&making, keep, files)?;
        let files = files.clone();
        let answers = None;
        Ok(Dedupe { settings, files, filter, before, given, identity, targets, already_inserted, answers, is_divided })
    }

    /// Takes the filter and the answers that shares of the run left, if all are there.
    fn find_answers(&mut self) -> Result<()> {
        if self.settings.bloom_filter.read_only || self.already_inserted {
            return Ok(());
        }
        let divided = self.divided()?;
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

    fn divided(&self) -> Result<Divided<'s>> {
        Divided::new(self.settings, &run_of(&self.identity.run, self.before()), &self.files)
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
}

impl Deduping for Dedupe<'_> {
    fn is_done(&self, is_complete: bool) -> Result<bool> {
        let may_be_done = self.before.is_some() && (self.already_inserted || self.settings.bloom_filter.read_only);
        if self.already_inserted && !(is_complete && self.all_written()?) {
            let message = format!(
                "\"{}\" already has the keys of {}, but attributes of that run are missing; expected a filter without them, since every row would count as its own duplicate",
                self.settings.bloom_filter.file.display(),
                self.identity.names.first().map(String::as_str).unwrap_or_default(),
            );
            return Err(Error::config("bloom_filter.file", message).with_hint("delete that file to start again"));
        }
        Ok(may_be_done && is_complete && (self.already_inserted || self.targets.are_done()?))
    }

    fn all_written(&self) -> Result<bool> {
        self.targets.all_written()
    }

    fn begin(&mut self, share: Option<Share>) -> Result<u64> {
        let replaced = self.targets.begin(share)?;
        if share.is_none() {
            self.find_answers()?;
        }
        Ok(replaced)
    }

    fn prepare(
        &mut self,
        share: Option<Share>,
        open: Open<'_>,
        threads: usize,
        progress: &Progress,
    ) -> Result<Option<&'static str>> {
        let Some(share) = share.filter(|_| !self.settings.bloom_filter.read_only && self.answers.is_none()) else {
            return Ok(None);
        };
        let divided = self.divided()?;
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

    fn missing(&self, count: usize) -> Result<Option<(&'static str, BTreeSet<usize>)>> {
        let AnyFilter::Current(filter) = &self.filter else { return Ok(None) };
        if self.settings.bloom_filter.read_only || self.answers.is_some() {
            return Ok(None);
        }
        let divided = self.divided()?;
        Ok(Some(divided.missing(filter, count)))
    }

    fn unmarked(&self) -> Option<BTreeSet<usize>> {
        self.answers.as_ref().map(|_| self.targets.unwritten())
    }

    fn marking(&self) -> Result<Box<dyn Marking + '_>> {
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
        Ok(Box::new(FilterMarking {
            settings,
            keyer: Keyer::new(settings, &self.filter)?,
            filter: &self.filter,
            answering: self.answers.clone().map(|answers| Mutex::new(Answering::new(answers))),
            max_keys,
            attribute: Value::from(settings.attribute_name()).to_string(),
            threshold,
            is_overfull: AtomicBool::new(false),
            files: self.targets.files(&settings.files),
        }))
    }

    fn restart(&mut self, is_overfull: bool) -> Result<()> {
        self.filter = match is_overfull {
            true => grown(self.settings, &self.filter, self.before.is_none(), self.is_divided)?,
            false => open_filter(self.settings, self.is_divided)?.0,
        };
        self.targets.restart()
    }

    fn before(&self) -> Option<&str> {
        self.given.as_ref().map(|file| file.sha256.as_str())
    }

    fn already_done(&self) -> Result<Summary> {
        Divided::remove(self.settings)?;
        Ok(Summary { already_done: true, ..summary(&self.filter, Counts::default(), 0) })
    }

    fn publish(mut self: Box<Self>, counts: Counts, replaced_files: u64, skipped: Vec<Skipped>) -> Result<Summary> {
        if let (AnyFilter::Current(filter), false) = (&mut self.filter, self.settings.bloom_filter.read_only) {
            filter.record.runs.push(self.identity.record(self.settings, self.before.clone(), &self.files)?);
            bloom::write(filter, &self.settings.bloom_filter.file)?;
        }
        let first_estimate = self.settings.bloom_filter.estimated_doc_count;
        let mut summary = Summary { skipped, ..summary(&self.filter, counts, replaced_files) };
        let has_grown = self.before.is_none() && summary.filter_estimated_keys > first_estimate;
        summary.filter_grown_from = has_grown.then_some(first_estimate);
        self.targets.finish()?;
        Divided::remove(self.settings).map(|()| summary)
    }

    fn publish_again(self: Box<Self>) -> Result<Summary> {
        let summary = self.already_done()?;
        self.targets.finish_again()?;
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

/// Decides which rows of a pass are duplicates, by a filter.
struct FilterMarking<'a> {
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
    files: AttributeFiles<'a>,
}

impl Marking for FilterMarking<'_> {
    fn takes_turns(&self) -> bool {
        !self.settings.bloom_filter.read_only
    }

    fn is_overfull(&self) -> bool {
        self.is_overfull.load(Ordering::Relaxed)
    }

    fn fields(&self) -> Option<Vec<&str>> {
        self.keyer.fields()
    }

    fn ask(&self, _file: usize, row: BatchRow<'_>, name: &str, asked: &mut Asked) -> Result<()> {
        let keyed = self.keyer.row(row.document(), &row.place(name), &mut asked.asking)?;
        asked.rows.push(keyed);
        Ok(())
    }

    fn decide(&self, file: usize, asked: &mut Asked) -> Result<()> {
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

    fn mark(&self, asked: &mut Asked) -> Marked {
        let mut marked = Marked::default();
        let mut marker = Marker::new(&self.attribute, self.threshold, &asked.seen);
        for row in &asked.rows {
            marker.row(row, &mut marked.lines);
            marked.ends.push(marked.lines.len());
        }
        marked.counts = marker.counts;
        marked
    }

    fn files(&self) -> &AttributeFiles<'_> {
        &self.files
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
