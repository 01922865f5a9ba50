//! `dolma stat`: how the scores and lengths of attributes are distributed.

mod histogram;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use regex::Regex;
use serde::{Deserialize, Serialize};
use serde_json::{json, Map};

pub use histogram::{Summary, Tracker};

use crate::attributes;
use crate::error::{Error, Result};
use crate::jsonl::{AtomicWriter, LineReader};
use crate::manifest::{document_inputs, Manifest};
use crate::mix::{Attribute, AttributeRow, Span};
use crate::progress::Progress;
use crate::run::{each, BatchRow, Rows, Source};

/// What is asked for.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// attribute files
    pub files: Vec<PathBuf>,
    /// only attributes whose key it finds
    pub regex: Option<String>,
    /// most bins of a histogram
    pub bins: usize,
    /// directory of the report, if one is wanted
    pub report: Option<PathBuf>,
    /// how many threads work
    pub threads: usize,
}

/// One distribution for people.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// `<attribute>/score` or `<attribute>/length`
    pub name: String,
    /// number of values
    pub total: u64,
    /// of the values
    pub sum: f64,
    /// smallest value
    pub least: f64,
    /// greatest value
    pub most: f64,
    /// at the shares of [`SHARES`], to five digits
    pub quantiles: Vec<f64>,
    /// ten bins: counts, then edges
    pub histogram: (Vec<u64>, Vec<f64>),
}

/// Shares of the quantiles.
pub const SHARES: [f64; 7] = [0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99];

/// What a run found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// rows read
    pub documents: u64,
    /// sorted by name
    pub rows: Vec<Row>,
    /// attributes with values that are neither spans nor numbers, and how many; they are not counted
    pub others: BTreeMap<String, u64>,
}

type Trackers = BTreeMap<String, (Tracker, Tracker)>;

/// What a file contains.
#[derive(Default)]
struct Tracked {
    documents: u64,
    trackers: Trackers,
    others: BTreeMap<String, u64>,
}

/// Runs it; writes the report if one is wanted.
pub fn run(settings: &Settings, progress: &Progress) -> Result<Report> {
    let regex = settings.regex.as_deref().map(Regex::new).transpose().map_err(|error| {
        let reason = error.to_string().replace('\n', " ");
        Error::config("regex", format!("is not a regular expression: {reason}"))
    })?;
    let sizes = settings.files.iter().map(|file| file.metadata().map_or(0, |metadata| metadata.len()));
    progress.expect(settings.files.len() as u64, sizes.sum());
    let parts = each(&settings.files, settings.threads, |path| track_file(path, regex.as_ref(), progress))?;
    let mut whole = Tracked::default();
    // in the order of the files: sums of floating-point numbers depend on it
    for found in parts {
        whole.documents += found.documents;
        found.others.into_iter().for_each(|(key, count)| *whole.others.entry(key).or_default() += count);
        for (key, (scores, lengths)) in found.trackers {
            let tracker = whole.trackers.entry(key).or_default();
            tracker.0.merge(scores);
            tracker.1.merge(lengths);
        }
    }
    let Tracked { documents, trackers, others } = whole;
    let named = || {
        let both = trackers.iter().flat_map(|(key, (scores, lengths))| {
            [(format!("{key}/score"), scores), (format!("{key}/length"), lengths)]
        });
        // a number has no length
        both.filter(|(_, tracker)| !tracker.is_empty())
    };
    if let Some(directory) = &settings.report {
        let summaries: Vec<Summary> = named().map(|(name, tracker)| tracker.summary(&name, settings.bins)).collect();
        write_report(settings, directory, documents, &summaries)?;
    }
    Ok(Report { documents, rows: named().map(|(name, tracker)| row(name, tracker)).collect(), others })
}

fn track_file(path: &Path, regex: Option<&Regex>, progress: &Progress) -> Result<Tracked> {
    let mut rows = Rows::new(LineReader::open(path)?, Vec::new());
    let name = path.display().to_string();
    let mut found = Tracked::default();
    while let Some(batch) = rows.read(progress)? {
        progress.check()?;
        for row in batch.rows() {
            found.documents += 1;
            found.track_row(row, &name, regex)?;
        }
        batch.error.map_or(Ok(()), Err)?;
    }
    Ok(found)
}

impl Tracked {
    fn track_row(&mut self, row: BatchRow<'_>, name: &str, regex: Option<&Regex>) -> Result<()> {
        let line = row.document();
        let Some(row) = AttributeRow::read(line) else {
            return attributes::parse_value(line, &row.place(name)).map(drop);
        };
        for (key, value) in row.values().filter(|(key, _)| regex.is_none_or(|regex| regex.is_match(key))) {
            match value {
                Attribute::Spans(spans) => track(&mut self.trackers, key, &spans),
                Attribute::Number(number) => self.trackers.entry(key.to_string()).or_default().0.add(number),
                Attribute::Null => {}
                Attribute::Other => *self.others.entry(key.to_string()).or_default() += 1,
            }
        }
        Ok(())
    }
}

/// An attribute without spans counts as one span of nothing, as in dolma 1.x.
fn track(trackers: &mut Trackers, key: &str, spans: &[Span]) {
    let nothing = [Span { start: 0, end: 0, score: 0.0 }];
    let spans = if spans.is_empty() { &nothing } else { spans };
    if !trackers.contains_key(key) {
        trackers.insert(key.to_string(), (Tracker::default(), Tracker::default()));
    }
    let Some((scores, lengths)) = trackers.get_mut(key) else { return };
    for span in spans {
        // fastText's probabilities can be a little more than 1
        let score = if key.contains("__label__") { span.score.min(1.0) } else { span.score };
        scores.add(score);
        lengths.add((span.end - span.start) as f64);
    }
}

fn row(name: String, tracker: &Tracker) -> Row {
    let summary = tracker.summary(&name, 10);
    let (least, most) = tracker.range();
    Row {
        name,
        total: summary.total,
        sum: summary.sum,
        least,
        most,
        quantiles: SHARES.iter().map(|share| tracker.quantile(*share)).collect(),
        histogram: (summary.counts, summary.bins),
    }
}

fn write_report(settings: &Settings, directory: &Path, documents: u64, summaries: &[Summary]) -> Result<()> {
    const NAME: &str = "summaries.jsonl.gz";
    let mut writer = AtomicWriter::create(&directory.join(NAME))?;
    for summary in summaries {
        writer.put(format!("{}\n", json!(summary)).as_bytes())?;
    }
    let written = writer.finish()?;
    let config = json!({"bins": settings.bins, "regex": settings.regex});
    let config = config.as_object().cloned().unwrap_or_else(Map::new);
    let mut manifest = Manifest::new("table", config);
    manifest.add_file(NAME, &written);
    manifest.add_count("documents", documents);
    manifest.add_count("rows", summaries.len() as u64);
    manifest.inputs = document_inputs("attributes", "attributes", &settings.files, directory)?;
    manifest.write(directory).map(drop)
}
