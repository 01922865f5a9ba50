//! One row: parse, tag, write the attribute lines.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use super::line::{Attributes, KeySet, Names};
use super::plan::{FilePlan, Plan};
use crate::attributes::{self, key};
use crate::document::{parse_row, Place, Row};
use crate::error::{Code, Error, Result};
use crate::run::BatchRow;
use crate::taggers::{cost_class, Span, Tagger, Text, COST_CLASSES};

/// Spans of the taggers that are not native, as a row of the spool has them: `[[[type, start, end, score], …], …]`, one list
/// a tagger.
type SpooledSpans = Vec<Vec<(String, usize, usize, f64)>>;

/// One attribute line, and what it holds.
pub struct Line {
    /// With the line end.
    pub bytes: Vec<u8>,
    spans: u64,
    names: Names,
    types: Vec<(String, String)>,
}

/// The attribute lines of one document, one for each output.
pub struct TaggedRow {
    /// Of the document file.
    pub line: u64,
    /// Some taggers did not run, since the document was dropped before.
    pub is_partial: bool,
    /// In the order of the outputs.
    pub lines: Vec<Line>,
}

/// Says when the attributes found so far are enough, since the document is dropped.
pub struct Early<'e> {
    /// For each class of cost, whether there is a question before its taggers run.
    pub is_asked: [bool; COST_CLASSES],
    /// Asked with the class and with the lines so far.
    pub is_enough: &'e mut dyn FnMut(usize, &[Line]) -> Result<bool>,
}

/// Sums over the lines of one attribute file.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Lines.
    pub documents: u64,
    /// Documents for which some taggers did not run.
    pub partial: u64,
    /// Of all lines.
    pub spans: u64,
    /// Of all lines.
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

/// Tags rows; shared between threads.
pub struct RowTagger<'a> {
    plan: &'a Plan,
    /// The native ones that are needed.
    pub taggers: Vec<Option<Box<dyn Tagger>>>,
    /// Position of a tagger in the spool.
    columns: Vec<usize>,
    /// What the keys of a tagger begin with.
    prefixes: Vec<String>,
}

impl<'a> RowTagger<'a> {
    /// Without taggers yet.
    pub fn new(plan: &'a Plan) -> RowTagger<'a> {
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
        let prefixes = plan.taggers.iter().map(|tagger| key(&tagger.experiment, &tagger.name, "")).collect();
        RowTagger { plan, taggers: Vec::new(), columns, prefixes }
    }

    /// The attribute lines of one document, with their line ends: one for each list of taggers.
    pub fn tag(
        &self,
        file: &FilePlan,
        artifacts: &[&[usize]],
        raw: BatchRow<'_>,
        spooled: Option<&[u8]>,
        early: Option<&mut Early<'_>>,
    ) -> Result<TaggedRow> {
        let place = raw.place(&file.name);
        let row = parse_row(raw.document(), &place)?;
        let text = Text::with_metadata(&row.text, row.metadata.as_deref());
        let length = text.length_chars();
        let spooled = match spooled {
            Some(line) => serde_json::from_slice(line).map_err(|error| {
                let spool = file.spool.as_deref().unwrap_or(Path::new("")).display().to_string();
                let message = format!("the spool is unusable: {error}");
                raw.companion_place(&spool).error(None, Code::Misaligned, message)
            })?,
            None => Vec::new(),
        };
        let lines = |spans: &mut dyn FnMut(usize) -> Result<Option<Vec<Span>>>| -> Result<Vec<Line>> {
            artifacts.iter().map(|taggers| self.line(taggers, spans, &row, length, &place)).collect()
        };
        let Some(early) = early else {
            let lines = lines(&mut |index| self.spans(index, &spooled, &text, &place).map(Some))?;
            return Ok(TaggedRow { line: place.line, is_partial: false, lines });
        };
        let mut found: Vec<Option<Vec<Span>>> = vec![None; self.plan.taggers.len()];
        for class in 0..COST_CLASSES {
            let is_left = artifacts.iter().copied().flatten().any(|index| self.class(*index) >= class);
            if is_left && early.is_asked[class] {
                let lines = lines(&mut |index| Ok(found[index].clone()))?;
                if (early.is_enough)(class, &lines)? {
                    return Ok(TaggedRow { line: place.line, is_partial: true, lines });
                }
            }
            for &index in artifacts.iter().copied().flatten().filter(|index| self.class(**index) == class) {
                found[index] = Some(self.spans(index, &spooled, &text, &place)?);
            }
        }
        let lines = lines(&mut |index| Ok(found[index].take()))?;
        Ok(TaggedRow { line: place.line, is_partial: false, lines })
    }

    /// The spans of taggers that are not native are there already.
    fn class(&self, index: usize) -> usize {
        let tagger = &self.plan.taggers[index];
        if tagger.native {
            cost_class(&tagger.name)
        } else {
            0
        }
    }

    /// What the keys begin with of the taggers that run only when those of a class have run.
    pub fn coming(&self, class: usize) -> impl Iterator<Item = &str> {
        let taggers = (0..self.prefixes.len()).filter(move |index| self.class(*index) >= class);
        taggers.map(|index| self.prefixes[index].as_str())
    }

    /// A tagger for which `spans` has nothing has not run.
    fn line(
        &self,
        taggers: &[usize],
        spans: &mut dyn FnMut(usize) -> Result<Option<Vec<Span>>>,
        row: &Row<'_>,
        length: usize,
        place: &Place<'_>,
    ) -> Result<Line> {
        let mut attributes = Attributes::default();
        let mut types = Vec::new();
        // the tagger of each key
        let mut owners: Vec<usize> = Vec::with_capacity(32);
        for &index in taggers {
            let Some(spans) = spans(index)? else { continue };
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
            for span in spans {
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

    fn spans(&self, index: usize, spooled: &SpooledSpans, text: &Text<'_>, place: &Place<'_>) -> Result<Vec<Span>> {
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
                let column = spooled.get(self.columns[index]);
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
