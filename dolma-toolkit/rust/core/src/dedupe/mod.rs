//! `dolma dedupe`: marks the documents or paragraphs that stood earlier in the input.
//!
//! Threads read rows and hash their keys; each decides its rows when those before are decided ([`decide`]).

mod decide;
mod keys;
mod resume;
mod settings;
mod url;
mod words;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

pub use decide::Counts;
pub use settings::{DocumentFile, FilterSettings, NgramSettings, Normalize, Settings, UnitSettings};
pub use words::words;

use crate::bloom::{self, AnyFilter, FileState, Filter, Record};
use crate::error::{Code, Error, Result};
use crate::jsonl::{AtomicWriter, Compression, LineReader, RowSieve, Skipped};
use crate::manifest::sha256_file;
use crate::progress::Progress;
use crate::run::{pass, threads, Batch, Journal, Rows, Stage, Turn};
use decide::Decider;
use keys::Keyer;
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

/// Runs it.
pub fn run(settings: &Settings, progress: &Progress) -> Result<Summary> {
    settings.key()?;
    let path = &settings.bloom_filter.file;
    let (mut filter, before) = open_filter(settings)?;
    let identity = Identity::of(settings)?;
    let mut already_inserted = false;
    let mut given = before.clone();
    if let (AnyFilter::Current(filter), false) = (&filter, settings.bloom_filter.read_only) {
        match filter.record.runs.iter().find(|run| run.run == identity.run) {
            Some(run) => {
                already_inserted = true;
                given = run.before.clone();
            }
            None => identity.check_not_in(&filter.record, settings)?,
        }
    }
    let targets = groups(settings)
        .into_iter()
        .map(|group| Target::new(settings, group, &identity, given.as_ref()))
        .collect::<Result<Vec<_>>>()?;
    let is_new = before.is_none();
    let may_be_done = !is_new && (already_inserted || settings.bloom_filter.read_only);
    if may_be_done && targets.iter().all(Target::is_done) {
        targets.iter().try_for_each(|target| target.journal.remove())?;
        return Ok(Summary { already_done: true, ..summary(&filter, Counts::default(), 0) });
    }
    if already_inserted {
        return finish_after_filter(settings, targets, &identity, &filter);
    }
    targets.iter().try_for_each(Target::check_place)?;
    let mut replaced_files = 0;
    for target in &targets {
        replaced_files += target.begin()? as u64;
    }
    let first_estimate = settings.bloom_filter.estimated_doc_count;
    let (counts, skipped) = loop {
        if let Some(counts) = mark_files(settings, &targets, &mut filter, progress)? {
            break counts;
        }
        filter = grown(settings, &filter, before.is_none())?;
        targets.iter().try_for_each(|target| target.journal.restart())?;
    };
    if let (AnyFilter::Current(filter), false) = (&mut filter, settings.bloom_filter.read_only) {
        filter.record.runs.push(identity.record(settings, before));
        bloom::write(filter, path)?;
    }
    for target in targets {
        target.finish()?;
    }
    let mut summary = Summary { skipped, ..summary(&filter, counts, replaced_files) };
    summary.filter_grown_from = Some(first_estimate).filter(|first| is_new && summary.filter_estimated_keys > *first);
    Ok(summary)
}

/// A larger filter in place of one that would mark too many new keys as seen. A filter with keys of earlier runs cannot
/// be rebuilt, and a filter whose size is set keeps it.
fn grown(settings: &Settings, filter: &AnyFilter, is_new: bool) -> Result<AnyFilter> {
    const FACTOR: u64 = 4;
    let record = match filter {
        AnyFilter::Current(filter) if is_new && settings.bloom_filter.size_in_bytes == 0 => &filter.record,
        _ => return Err(overfull(settings, filter)),
    };
    let estimated_keys = record.estimated_keys.max(1).saturating_mul(FACTOR);
    let record = Record { estimated_keys, ..record.clone() };
    Ok(AnyFilter::Current(Filter::new(settings.sizing(estimated_keys)?, record)))
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
fn open_filter(settings: &Settings) -> Result<(AnyFilter, Option<FileState>)> {
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
    Ok((AnyFilter::Current(Filter::new(settings.sizing(settings.bloom_filter.estimated_doc_count)?, record)), None))
}

/// The filter holds this run's keys: all there is left to do is the manifests, if the attributes are all there.
fn finish_after_filter(
    settings: &Settings,
    targets: Vec<Target<'_>>,
    identity: &Identity,
    filter: &AnyFilter,
) -> Result<Summary> {
    for target in &targets {
        if !target.all_written() {
            let message = format!(
                "\"{}\" already has the keys of {}, but attributes of that run are missing; expected a filter without them, since every row would count as its own duplicate",
                settings.bloom_filter.file.display(),
                identity.inputs.first().map(|input| input.path.as_str()).unwrap_or_default(),
            );
            return Err(Error::config("bloom_filter.file", message).with_hint("delete that file to start again"));
        }
    }
    for target in targets {
        if target.is_done() {
            target.journal.remove()?;
        } else {
            target.finish()?;
        }
    }
    Ok(Summary { already_done: true, ..summary(filter, Counts::default(), 0) })
}

/// Counts, and the skipped rows.
type Marked = (Counts, Vec<Skipped>);

/// `None` if the filter is too small.
fn mark_files(
    settings: &Settings,
    targets: &[Target<'_>],
    filter: &mut AnyFilter,
    progress: &Progress,
) -> Result<Option<Marked>> {
    let before = progress.snapshot();
    let size_bytes = |file: &DocumentFile| file.path.metadata().map_or(0, |metadata| metadata.len());
    let stored_bytes: u64 = settings.files.iter().map(size_bytes).sum();
    progress.expect(before.files + settings.files.len() as u64, before.bytes + stored_bytes);
    let accepted_rate = accepted_rate(settings, filter);
    let threshold = match &settings.unit {
        UnitSettings::Paragraphs { by_ngram: Some(by_ngram), .. } => by_ngram.overlap_threshold,
        _ => 1.0,
    };
    let (answering, changing) = match filter {
        AnyFilter::Current(filter) if !settings.bloom_filter.read_only => (None, Some(filter)),
        answering => (Some(&*answering), None),
    };
    let mut journals = vec![None; settings.files.len()];
    for target in targets {
        target.group.files.iter().for_each(|index| journals[*index] = Some(&target.journal));
    }
    let marking = Marking {
        settings,
        keyer: Keyer::new(settings, answering)?,
        decider: Mutex::new(Decider::new(changing, &settings.attribute_name(), threshold)),
        accepted_rate,
        is_overfull: AtomicBool::new(false),
        journals,
        sieve: RowSieve::new(&settings.rows, 0),
    };
    let marked = pass(
        &marking,
        settings.files.len(),
        threads::useful(settings.threads, threads::pieces(stored_bytes)),
        progress,
    );
    if marking.is_overfull.load(Ordering::Relaxed) {
        return progress.check().map(|()| None);
    }
    let (mut counts, mut skipped) = (Counts::default(), Vec::new());
    for (of_file, skipped_rows) in marked? {
        counts.add(&of_file);
        skipped.extend(skipped_rows);
    }
    Ok(Some((counts, skipped)))
}

/// A series is a document file. Rows of a file that an earlier, stopped run has finished are decided again, for the filter
/// to know them, and not written again.
struct Marking<'a> {
    settings: &'a Settings,
    keyer: Keyer<'a>,
    decider: Mutex<Decider<'a>>,
    accepted_rate: f64,
    is_overfull: AtomicBool,
    /// of each file
    journals: Vec<Option<&'a Journal<MarkedFile>>>,
    sieve: RowSieve,
}

impl Stage for Marking<'_> {
    type Source = Rows;
    type Made = (String, Counts);
    type Output = (Option<AtomicWriter>, Counts);
    type Done = Marked;

    const TAKES_TURNS: bool = true;

    fn open(&self, series: usize) -> Result<(Rows, Self::Output)> {
        let file = &self.settings.files[series];
        let name = file.path.display().to_string();
        let compression = self.settings.compression.as_deref().and_then(Compression::named);
        let compression = compression.unwrap_or(Compression::of(&file.path));
        let reader = match self.keyer.fields() {
            Some(fields) => LineReader::open_fields(&file.path, &name, compression, &fields)?,
            None => LineReader::open_as(&file.path, &name, compression)?,
        };
        let is_finished = self.journals[series].is_some_and(|journal| journal.get(&file.relative).is_some());
        let writer = if is_finished { None } else { Some(AtomicWriter::create(&file.output())?) };
        Ok((Rows::new(reader.sieved(&self.sieve), Vec::new()), (writer, Counts::default())))
    }

    fn make(&self, series: usize, batch: Batch, turn: &Turn<'_, Self>) -> Result<Self::Made> {
        let name = self.settings.files[series].path.display().to_string();
        let rows = batch.all(|row| self.keyer.row(row.document(), &row.place(&name)))?;
        turn.take(|| {
            let mut decider = self.decider.lock().unwrap_or_else(PoisonError::into_inner);
            decider.counts = Counts::default();
            let mut lines = String::new();
            rows.iter().for_each(|row| decider.row(row, &mut lines));
            if decider.is_beyond(self.accepted_rate) {
                self.is_overfull.store(true, Ordering::Relaxed);
                return Err(Error::Cancelled);
            }
            Ok((lines, decider.counts))
        })?
    }

    fn keep(&self, _series: usize, (writer, counts): &mut Self::Output, (lines, added): Self::Made) -> Result<()> {
        counts.add(&added);
        writer.as_mut().map_or(Ok(()), |writer| writer.put(lines.as_bytes()))
    }

    fn finish(&self, series: usize, rows: Rows, (writer, counts): Self::Output) -> Result<Marked> {
        let file = &self.settings.files[series];
        if let (Some(writer), Some(journal)) = (writer, self.journals[series]) {
            let output = writer.finish()?;
            let marked = MarkedFile { documents: counts.documents, spans: counts.spans, output };
            journal.add(&file.relative, marked)?;
        }
        let name = file.path.display().to_string();
        let skipped = rows.skipped().iter().map(|row| Skipped { file: name.clone(), row: row.clone() });
        Ok((counts, skipped.collect()))
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
        summary.filter_size_bytes = filter.sizing().size_bytes();
        summary.filter_false_positive_rate = filter.false_positive_rate();
    }
    summary
}
