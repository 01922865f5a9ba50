//! One row: parse, tag, write the attribute lines.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use super::line::{Attributes, KeySet, Names};
use super::plan::{OutputPlan, Plan};
use crate::attributes::{self, key};
use crate::document::{parse_row, Place, Row};
use crate::error::{Code, Error, Result};
use crate::jsonl::{Compression, LineReader};
use crate::taggers::{Span, Tagger, Text};

const BATCH_ROWS: usize = 1024;
const BATCH_BYTES: usize = 8 << 20;

/// Spans of the taggers that are not native: a line a document, `[[[type, start, end, score], …], …]`, one list a tagger.
pub struct Spool {
    reader: LineReader,
}

type SpooledSpans = Vec<Vec<(String, usize, usize, f64)>>;

impl Spool {
    pub fn open(path: &Path) -> Result<Spool> {
        Ok(Spool { reader: LineReader::open_as(path, &path.display().to_string(), Compression::None)? })
    }

    fn next(&mut self) -> Result<SpooledSpans> {
        let spans = match self.reader.next_line()? {
            Some(line) => serde_json::from_slice(line).map_err(|error| error.to_string()),
            None => Err("it ends before the documents".to_owned()),
        };
        spans.map_err(|reason| {
            self.reader.place().error(None, Code::Misaligned, format!("the spool is unusable: {reason}"))
        })
    }
}

/// Lines of a file, read ahead.
#[derive(Default)]
pub struct Batch {
    pub rows: Vec<RawRow>,
    bytes: Vec<u8>,
}

/// One line and where it stands.
pub struct RawRow {
    line: u64,
    /// within the bytes of the batch
    range: Range<usize>,
    spooled: SpooledSpans,
}

impl Batch {
    /// The next lines in place of those that it holds; none at the end of the file.
    pub fn read(&mut self, reader: &mut LineReader, mut spool: Option<&mut Spool>) -> Result<()> {
        self.rows.clear();
        self.bytes.clear();
        while self.rows.len() < BATCH_ROWS && self.bytes.len() < BATCH_BYTES {
            let start = self.bytes.len();
            let Some(bytes) = reader.next_line()? else {
                break;
            };
            self.bytes.extend_from_slice(bytes);
            let spooled = match spool.as_mut() {
                Some(spool) => spool.next()?,
                None => Vec::new(),
            };
            self.rows.push(RawRow { line: reader.line(), range: start..self.bytes.len(), spooled });
        }
        Ok(())
    }
}

/// One attribute line, and what it holds.
pub struct Line {
    pub bytes: Vec<u8>,
    spans: u64,
    names: Names,
    types: Vec<(String, String)>,
}

/// The attribute lines of one document, one for each output.
pub struct TaggedRow {
    /// Of the document file.
    pub line: u64,
    pub lines: Vec<Line>,
}

/// Sums over the lines of one attribute file.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    pub documents: u64,
    pub spans: u64,
    pub keys: KeySet,
    /// The span type of each key of a Python tagger.
    pub types: BTreeMap<String, String>,
}

impl Totals {
    /// Adds a line. Fails at `place` if a key had another span type before.
    pub fn add(&mut self, line: &Line, place: &Place<'_>) -> Result<()> {
        self.documents += 1;
        self.spans += line.spans;
        self.keys.add(&line.names);
        for (key, kind) in &line.types {
            match self.types.get(key) {
                Some(known) if known == kind => {}
                Some(known) => return Err(place.error(None, Code::InvalidValue, shared_key(key, known, kind))),
                None => drop(self.types.insert(key.clone(), kind.clone())),
            }
        }
        Ok(())
    }
}

/// The message for two span types that would be the same attribute.
pub fn shared_key(key: &str, one: &str, other: &str) -> String {
    format!("the span types \"{one}\" and \"{other}\" both have the key \"{key}\"; expected types that differ in letters, digits or \"_\"")
}

/// Tags rows for a set of outputs; shared between threads.
pub struct RowTagger<'a> {
    plan: &'a Plan,
    /// Taggers of each output.
    outputs: Vec<&'a [usize]>,
    taggers: &'a [Option<Box<dyn Tagger>>],
    /// Position of a tagger in the spool.
    columns: Vec<usize>,
    /// What the keys of a tagger begin with.
    prefixes: Vec<String>,
}

impl<'a> RowTagger<'a> {
    pub fn new(plan: &'a Plan, outputs: &[&OutputPlan], taggers: &'a [Option<Box<dyn Tagger>>]) -> RowTagger<'a> {
        let mut column = 0;
        let columns = plan
            .taggers
            .iter()
            .map(|tagger| {
                let mine = column;
                column += usize::from(!tagger.native);
                mine
            })
            .collect();
        let outputs = outputs.iter().map(|output| plan.artifacts[output.artifact].taggers.as_slice()).collect();
        let prefixes = plan.taggers.iter().map(|tagger| key(&tagger.experiment, &tagger.name, "")).collect();
        RowTagger { plan, outputs, taggers, columns, prefixes }
    }

    /// The attribute lines of one document, with their line ends.
    pub fn tag(&self, batch: &Batch, raw: &RawRow, path: &str) -> Result<TaggedRow> {
        let place = Place { path, line: raw.line };
        let row = parse_row(&batch.bytes[raw.range.clone()], &place)?;
        let text = Text::with_metadata(&row.text, row.metadata.as_deref());
        let length = text.length_chars();
        let lines = self.outputs.iter().map(|taggers| self.line(taggers, raw, &row, &text, length, &place));
        Ok(TaggedRow { line: raw.line, lines: lines.collect::<Result<Vec<_>>>()? })
    }

    fn line(
        &self,
        taggers: &[usize],
        raw: &RawRow,
        row: &Row<'_>,
        text: &Text<'_>,
        length: usize,
        place: &Place<'_>,
    ) -> Result<Line> {
        let mut attributes = Attributes::default();
        let mut types = Vec::new();
        // the tagger of each key
        let mut owners: Vec<usize> = Vec::with_capacity(32);
        for &index in taggers {
            let plan = &self.plan.taggers[index];
            let prefix = &self.prefixes[index];
            // a kind and its key; two kinds may differ in characters that no key can hold
            let mut kinds: Vec<(Cow<'_, str>, usize)> = Vec::with_capacity(32);
            let mut key_of = |attributes: &mut Attributes, kinds: &[(Cow<'_, str>, usize)], kind: &str| {
                let key = attributes.key(prefix, kind);
                let is_new = key == owners.len();
                if is_new {
                    owners.push(index);
                }
                let name = || attributes::key(&plan.experiment, &plan.name, kind);
                let other = kinds.iter().find(|(_, known)| *known == key);
                let message = match other {
                    _ if owners[key] != index => {
                        let other = &self.plan.taggers[owners[key]].name;
                        format!(
                            "the taggers \"{other}\" and \"{}\" both wrote the key \"{}\"; expected different keys",
                            plan.name,
                            name()
                        )
                    }
                    Some((other, _)) if !plan.native && *other != kind => shared_key(&name(), other, kind),
                    _ => {
                        if !plan.native && is_new {
                            types.push((name(), kind.to_owned()));
                        }
                        return Ok(key);
                    }
                };
                Err(place.error(None, Code::InvalidValue, format!("document \"{}\": {message}", row.id)))
            };
            for kind in &plan.defaults {
                let key = key_of(&mut attributes, &kinds, kind)?;
                kinds.push((Cow::Borrowed(kind), key));
            }
            for span in self.spans(index, raw, text, place)? {
                if span.start > span.end || span.end > length || !span.score.is_finite() {
                    let message = format!(
                        "tagger \"{}\" returned the span [{}, {}, {}] of document \"{}\", a text of {length} code points; expected 0 ≤ start ≤ end ≤ {length} and a finite score",
                        plan.name, span.start, span.end, span.score, row.id
                    );
                    return Err(place.error(None, Code::OutOfRange, message));
                }
                // the kind of the span before is likely the kind of this one
                let key = match kinds.iter().rev().find(|(kind, _)| *kind == span.kind) {
                    Some((_, key)) => *key,
                    None => {
                        let key = key_of(&mut attributes, &kinds, &span.kind)?;
                        kinds.push((span.kind, key));
                        key
                    }
                };
                attributes.push(key, span.start, span.end, span.score);
            }
        }
        let bytes = attributes.json(&row.id, &row.source);
        Ok(Line { bytes, spans: attributes.num_spans(), names: attributes.into_names(), types })
    }

    fn spans(&self, index: usize, raw: &RawRow, text: &Text<'_>, place: &Place<'_>) -> Result<Vec<Span>> {
        let mut spans = Vec::new();
        match &self.taggers[index] {
            Some(tagger) => tagger.tag(text, &mut spans).map_err(|error| match error {
                // a tagger knows neither file nor line
                Error::Config { message, hint, .. } => {
                    let hint = hint.map_or(String::new(), |hint| format!("; {hint}"));
                    place.error(None, Code::InvalidValue, format!("tagger {message}{hint}"))
                }
                other => other,
            })?,
            None => {
                let name = &self.plan.taggers[index].name;
                let column = raw.spooled.get(self.columns[index]);
                let column = column.ok_or_else(|| {
                    Error::config(
                        "taggers",
                        format!("\"{name}\" has no spans for a document; expected them in the spool"),
                    )
                })?;
                spans.extend(column.iter().map(|(kind, start, end, score)| Span {
                    start: *start,
                    end: *end,
                    kind: Cow::Owned(kind.clone()),
                    score: *score,
                }));
            }
        }
        Ok(spans)
    }
}
