//! `dolma extract`: archives and pages of the web in, documents out.
//!
//! A file is read here: records, packing, HTTP, charset. Extractors of HTML are written in Python and run in processes of
//! their own, which a page can hang or crash at the cost of that page.

mod charset;
mod http;
mod members;
mod page;
mod reason;
mod records;
mod source;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{json, Map, Value};

use crate::error::{Code, Error, Result};
use crate::jsonl::{AtomicWriter, Written};
use crate::manifest::{canonical_bytes, relative_path, sha256_bytes, Input, Manifest, FILE_NAME};
use crate::progress::Progress;
use crate::run::{pass, publish, threads, Batch, Files, Journal, Made, Share, Stage, Stamp};
use crate::tag::{self, Inline, Users};
pub use page::Settings;
use page::{NoPage, Page};
pub use reason::Reason;
use source::{Item, Items};

/// Problems of a file that are listed; the rest is counted.
const MAX_LISTED: usize = 1000;

/// The extractor of what is text already.
const PLAIN: &str = "plain";

/// The whole request.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// In order.
    pub files: Vec<File>,
    /// Of the documents.
    pub destination: PathBuf,
    /// Makes finished files again.
    pub ignore_existing: bool,
    /// What the bytes depend on, as manifests record it.
    pub config: Map<String, Value>,
    /// How pages become documents.
    pub settings: Settings,
    /// Taggers that see the HTML, before the extraction.
    #[serde(default)]
    pub pre: Option<Taggers>,
    /// Taggers that see the text.
    #[serde(default)]
    pub post: Option<Taggers>,
    /// The extractors.
    #[serde(skip)]
    pub extractors: Option<Users>,
}

/// Taggers of the documents themselves.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Taggers {
    /// Without files.
    pub plan: tag::Plan,
    /// Whether pages without a span are dropped.
    pub skip: bool,
}

/// An input file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Where it can be opened.
    pub path: PathBuf,
    /// As the user named it; a URL where `path` is a copy.
    pub name: String,
    /// Whether `name` is a URL.
    pub remote: bool,
    /// Name of its documents in the destination.
    pub output: String,
}

/// What a run did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// In all files of the destination.
    pub documents: u64,
    /// Files made now.
    pub files: u64,
    /// Files that an earlier run had finished.
    pub files_kept: u64,
    /// Records without a document, by reason.
    pub skipped: BTreeMap<&'static str, u64>,
    /// Documents with characters that took the place of bytes.
    pub documents_replaced: u64,
    /// Records that should have been documents.
    pub listed: Vec<Listed>,
}

/// A record that should have been a document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Empty in a journal, whose line is about one file.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub file: String,
    /// The byte of an archive where the record begins, the line of a row.
    pub offset: u64,
    /// Why.
    pub reason: Reason,
    /// What was found, and what was expected.
    pub message: String,
}

/// What the journal says of a finished file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Record {
    input_path: String,
    input_url: String,
    input: Written,
    stamp: u64,
    output: Written,
    #[serde(flatten)]
    totals: Totals,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Totals {
    documents: u64,
    text_bytes: u64,
    documents_replaced: u64,
    skipped: BTreeMap<Reason, u64>,
    listed: Vec<Listed>,
}

impl Made for Record {
    fn files(&self, name: &str) -> Vec<(String, &Written)> {
        vec![(name.to_owned(), &self.output)]
    }
}

/// A run that knows what is left to do.
pub struct Extraction<'p> {
    plan: &'p Plan,
    files: &'p Files,
    journal: Journal<Record>,
    /// positions of the files to make
    todo: Vec<usize>,
    /// an unfinished run with other settings was here
    is_foreign: bool,
    pre: Option<Inline<'p>>,
    post: Option<Inline<'p>>,
}

impl<'p> Extraction<'p> {
    /// Finds out which files are missing.
    ///
    /// `Error::Config` where another run finished the destination, or another tool wrote there.
    pub fn survey(plan: &'p Plan, files: &'p Files) -> Result<Extraction<'p>> {
        files.note_in(&plan.destination);
        let run = sha256_bytes(&canonical_bytes(&Value::Object(plan.config.clone())));
        let journal: Journal<Record> = Journal::read(files, &plan.destination, "extract", run)?;
        let is_finished = plan.destination.join(FILE_NAME).exists();
        let is_foreign = !journal.others().is_empty();
        if is_foreign && is_finished && !plan.ignore_existing {
            return Err(refused(plan, "which holds documents that were extracted with other settings"));
        }
        let mut todo = Vec::new();
        for (index, file) in plan.files.iter().enumerate() {
            let is_made = match journal.get(&file.output).filter(|_| !is_foreign && !plan.ignore_existing) {
                Some(record) => {
                    let stamp = Stamp::of(&file.path)?;
                    stamp.size_bytes == record.input.size_bytes
                        && (stamp.stamp == record.stamp || files.hash(&file.path)? == record.input)
                }
                None if !journal.exists() && plan.destination.join(&file.output).exists() => {
                    let message = format!("which holds {}, and no other run has noted it", file.output);
                    return Err(refused(plan, &message));
                }
                None => false,
            };
            if !is_made {
                todo.push(index);
            }
        }
        Ok(Extraction { plan, files, journal, todo, is_foreign, pre: None, post: None })
    }

    /// The numbers of the files that are left, which shares go by.
    pub fn todo(&self) -> &[usize] {
        &self.todo
    }

    /// Takes the destination, and marks it as unfinished.
    pub fn begin(&mut self, share: Option<Share>) -> Result<()> {
        let destination = &self.plan.destination;
        fs::create_dir_all(destination).map_err(|error| Error::io(destination, error))?;
        if self.todo.is_empty() {
            return Ok(());
        }
        let inline =
            |taggers: &'p Option<Taggers>| taggers.as_ref().map(|taggers| Inline::new(&taggers.plan)).transpose();
        (self.pre, self.post) = (inline(&self.plan.pre)?, inline(&self.plan.post)?);
        let (journal, is_foreign) = (&self.journal, self.is_foreign);
        journal.enter(share, || {
            publish::remove(&destination.join(FILE_NAME))?;
            if !is_foreign {
                return journal.begin();
            }
            for (name, _) in journal.ours().into_iter().chain(journal.others()) {
                publish::remove(&destination.join(name))?;
            }
            journal.restart()
        })
    }

    /// Makes the files of this share.
    pub fn pass(&self, share: Option<Share>, count: usize, progress: &Progress) -> Result<()> {
        let ours: Vec<usize> =
            self.todo.iter().copied().filter(|file| share.is_none_or(|share| share.has(*file))).collect();
        let paths = ours.iter().map(|file| self.plan.files[*file].path.as_path());
        self.files.expect(paths.clone())?;
        let bytes = paths.map(|path| path.metadata().map_or(0, |metadata| metadata.len())).sum();
        progress.expect(ours.len() as u64, bytes);
        let count = threads::useful(count, threads::pieces(bytes).max(ours.len()));
        let files = Work { extraction: self, ours };
        pass(&files, files.ours.len(), count, progress).map(drop)
    }

    /// Writes the manifest over all finished files.
    pub fn publish(&self) -> Result<Summary> {
        self.journal.enter(None, || Ok(()))?;
        let mut manifest = Manifest::new("document", self.plan.config.clone());
        let files = self.todo.len() as u64;
        let mut summary = Summary { files, files_kept: self.plan.files.len() as u64 - files, ..Summary::default() };
        let wanted: BTreeMap<&str, &str> =
            self.plan.files.iter().map(|file| (file.output.as_str(), file.name.as_str())).collect();
        for (name, record) in self.journal.ours() {
            let path = self.plan.destination.join(&record.input_path);
            if record.input_url.is_empty() && !path.is_file() {
                continue; // an earlier run's, and its input is gone
            }
            manifest.add_file(&name, &record.output);
            let input = if record.input_url.is_empty() { &record.input_path } else { &record.input_url };
            manifest.inputs.push(Input::file("archives", input, &record.input));
            let Totals { documents, text_bytes, documents_replaced, skipped, listed } = record.totals;
            manifest.add_count("documents", documents);
            manifest.add_count("text_bytes", text_bytes);
            if documents_replaced > 0 {
                manifest.add_count("documents_replaced", documents_replaced);
            }
            for (reason, count) in &skipped {
                manifest.add_count(&format!("skipped_{}", reason.name()), *count);
            }
            let Some(file) = wanted.get(name.as_str()) else { continue };
            summary.documents += documents;
            summary.documents_replaced += documents_replaced;
            for (reason, count) in skipped {
                *summary.skipped.entry(reason.name()).or_default() += count;
            }
            summary.listed.extend(listed.into_iter().map(|one| Listed { file: (*file).to_owned(), ..one }));
        }
        manifest.write(&self.plan.destination)?;
        Ok(summary)
    }
}

fn refused(plan: &Plan, message: &str) -> Error {
    let message = format!("is {}, {message}; expected it empty", plan.destination.display());
    Error::config("destination", message).with_hint("choose another destination, or remove this one")
}

/// The work on the files of a share.
struct Work<'e, 'p> {
    extraction: &'e Extraction<'p>,
    ours: Vec<usize>,
}

/// What became of an item.
enum Outcome {
    Document { line: Vec<u8>, text_bytes: u64, is_replaced: bool },
    Skipped(NoPage),
}

impl Work<'_, '_> {
    fn file(&self, series: usize) -> &File {
        &self.extraction.plan.files[self.ours[series]]
    }

    /// What extractors make of pages: a text, or why there is none.
    fn extract(&self, pages: &[Option<Page>]) -> Result<Vec<Option<Text>>> {
        let asked: Vec<(usize, &Page)> = pages
            .iter()
            .enumerate()
            .filter_map(|(at, page)| Some((at, page.as_ref()?)))
            .filter(|(_, page)| page.extractor != PLAIN)
            .collect();
        let mut texts: Vec<Option<Text>> = pages.iter().map(|_| None).collect();
        let (Some(extractors), false) = (&self.extraction.plan.extractors, asked.is_empty()) else { return Ok(texts) };
        let fail = |error: serde_json::Error| Error::config("extractors", format!("cannot be asked: {error}"));
        let request: Vec<(&str, &str)> =
            asked.iter().map(|(_, page)| (page.extractor.as_str(), page.html.as_str())).collect();
        let answer = extractors.0.ask(&serde_json::to_vec(&request).map_err(fail)?)?;
        let found: Vec<Text> = serde_json::from_slice(&answer).map_err(fail)?;
        if found.len() != asked.len() {
            let message = format!("gave {} texts; expected {}", found.len(), asked.len());
            return Err(Error::config("extractors", message));
        }
        for ((at, _), text) in asked.into_iter().zip(found) {
            texts[at] = Some(text);
        }
        Ok(texts)
    }

    /// The attributes of the pages that are left; takes those without a span away if they are to be skipped.
    fn tag(
        &self,
        file: &File,
        taggers: Option<&Inline<'_>>,
        rows: Vec<(u64, Vec<u8>)>,
    ) -> Result<Vec<tag::Attributes>> {
        let Some(taggers) = taggers.filter(|_| !rows.is_empty()) else { return Ok(Vec::new()) };
        taggers.tag(&file.name, &Batch::of(rows))
    }
}

/// The text of a page, or why there is none.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Text {
    Found(String),
    Failed(Reason, String),
}

impl Stage for Work<'_, '_> {
    type Source = Items;
    type Asked = Vec<Item>;
    type Made = Vec<Outcome>;
    type Output = (AtomicWriter, Totals);
    type Done = ();

    fn open(&self, series: usize) -> Result<(Items, (AtomicWriter, Totals))> {
        let (plan, file) = (self.extraction.plan, self.file(series));
        let items = Items::open(self.extraction.files, &file.path, &file.name, plan.settings.max_record_bytes)?;
        let writer = AtomicWriter::create(&plan.destination.join(&file.output))?;
        Ok((items, (writer, Totals::default())))
    }

    fn ask(&self, _: usize, batch: Vec<Item>) -> Result<Vec<Item>> {
        Ok(batch)
    }

    fn make(&self, series: usize, items: Vec<Item>) -> Result<Vec<Outcome>> {
        let (extraction, file) = (self.extraction, self.file(series));
        let settings = &extraction.plan.settings;
        let fail = |error: serde_json::Error| Error::format(&file.name, None, None, Code::NotJson, error.to_string());
        let mut failures: BTreeMap<usize, NoPage> = BTreeMap::new();
        let mut pages: Vec<Option<Page>> = Vec::with_capacity(items.len());
        for (at, item) in items.into_iter().enumerate() {
            pages.push(settings.page(item).map_err(|failure| failures.insert(at, failure)).ok());
        }

        // ---- taggers that see the HTML
        let has_html = extraction.pre.is_some() || settings.store_html_in_metadata;
        for page in pages.iter_mut().flatten().filter(|_| has_html) {
            page.metadata.insert("html".to_owned(), json!(page.html));
        }
        let rows = |pages: &[Option<Page>], texts: &[Option<String>]| -> Result<Vec<(u64, Vec<u8>)>> {
            let row = |(page, text): (&Page, &str)| Ok((page.offset, settings.line(page, text, None).map_err(fail)?));
            let texts = texts.iter().map(|text| text.as_deref().unwrap_or_default());
            pages.iter().zip(texts).filter_map(|(page, text)| Some((page.as_ref()?, text))).map(row).collect()
        };
        let none = vec![None; pages.len()];
        let mut attributes = vec![Vec::<tag::Attributes>::new(); pages.len()];
        let mut sift = |pages: &mut [Option<Page>], found: Vec<tag::Attributes>, taggers: &Option<Taggers>, reason| {
            let left: Vec<usize> = (0..pages.len()).filter(|at| pages[*at].is_some()).collect();
            for (at, found) in left.into_iter().zip(found) {
                if found.1 == 0 && taggers.as_ref().is_some_and(|taggers| taggers.skip) {
                    if let Some(page) = pages[at].take() {
                        failures.insert(at, (page.offset, reason, String::new()));
                    }
                } else {
                    attributes[at].push(found);
                }
            }
        };
        if extraction.pre.is_some() {
            let found = self.tag(file, extraction.pre.as_ref(), rows(&pages, &none)?)?;
            sift(&mut pages, found, &extraction.plan.pre, Reason::NoPreTagger);
        }

        // ---- extractors
        let mut texts: Vec<Option<String>> = none;
        let mut fallen: Vec<(usize, NoPage)> = Vec::new();
        for (at, text) in self.extract(&pages)?.into_iter().enumerate() {
            let Some(page) = &mut pages[at] else { continue };
            let text = match text {
                Some(Text::Found(text)) => text,
                Some(Text::Failed(reason, message)) => {
                    fallen.push((at, (page.offset, reason, message)));
                    pages[at] = None;
                    continue;
                }
                None => std::mem::take(&mut page.html),
            };
            if text.trim().is_empty() {
                fallen.push((at, (page.offset, Reason::NoText, String::new())));
                pages[at] = None;
            } else {
                texts[at] = Some(text);
            }
        }

        // ---- taggers that see the text
        if extraction.post.is_some() {
            let found = self.tag(file, extraction.post.as_ref(), rows(&pages, &texts)?)?;
            sift(&mut pages, found, &extraction.plan.post, Reason::NoPostTagger);
        }
        failures.extend(fallen);

        let mut outcomes = Vec::with_capacity(pages.len());
        for (at, (page, text)) in pages.into_iter().zip(texts).enumerate() {
            let (Some(mut page), Some(text)) = (page, text) else {
                outcomes.extend(failures.remove(&at).map(Outcome::Skipped));
                continue;
            };
            if !settings.store_html_in_metadata {
                page.metadata.remove("html");
            }
            let attributes = joined(&attributes[at]).map_err(fail)?;
            let line = settings.line(&page, &text, attributes).map_err(fail)?;
            outcomes.push(Outcome::Document { line, text_bytes: text.len() as u64, is_replaced: page.replaced > 0 });
        }
        Ok(outcomes)
    }

    fn keep(&self, _: usize, (writer, totals): &mut (AtomicWriter, Totals), made: Vec<Outcome>) -> Result<()> {
        for outcome in made {
            match outcome {
                Outcome::Document { line, text_bytes, is_replaced } => {
                    writer.put(&line)?;
                    totals.documents += 1;
                    totals.text_bytes += text_bytes;
                    totals.documents_replaced += u64::from(is_replaced);
                }
                Outcome::Skipped((offset, reason, message)) => {
                    *totals.skipped.entry(reason).or_default() += 1;
                    if reason.is_listed() && totals.listed.len() < MAX_LISTED {
                        totals.listed.push(Listed { file: String::new(), offset, reason, message });
                    }
                }
            }
        }
        Ok(())
    }

    fn finish(&self, series: usize, source: Items, (writer, totals): (AtomicWriter, Totals)) -> Result<()> {
        let Extraction { plan, files, journal, .. } = self.extraction;
        let file = self.file(series);
        let input_path = if file.remote { String::new() } else { relative_path(&file.path, &plan.destination)? };
        let input_url = if file.remote { file.name.clone() } else { String::new() };
        let (input, stamp) = (files.hash(&file.path)?, Stamp::of(&file.path)?.stamp);
        drop(source);
        let output = writer.finish()?;
        journal.add(&file.output, Record { input_path, input_url, input, stamp, output, totals })
    }
}

/// Two objects without common keys as one.
fn joined(attributes: &[tag::Attributes]) -> serde_json::Result<Option<Box<RawValue>>> {
    let inner = attributes.iter().map(|(raw, _)| raw.get().trim_start_matches('{').trim_end_matches('}'));
    let parts: Vec<&str> = inner.filter(|part| !part.is_empty()).collect();
    match attributes {
        [] => Ok(None),
        _ => RawValue::from_string(format!("{{{}}}", parts.join(","))).map(Some),
    }
}
