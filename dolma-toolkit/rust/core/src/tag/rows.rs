//! One row: parse, tag, write the attribute lines.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::iter;

use super::line::{Attributes, KeySet, Names};
use super::plan::Plan;
use super::user::Found;
use crate::attributes::{self, key};
use crate::document::{parse_row, Place, Row};
use crate::error::{Code, Error, Result};
use crate::run::BatchRow;
use crate::taggers::{cost_class, Span, Tagger, Text, COST_CLASSES};

/// Of taggers that users write: nothing is dearer.
const USER_CLASS: usize = COST_CLASSES - 1;

/// One attribute line, and what it holds.
pub struct Line {
    /// With the line end.
    pub bytes: Vec<u8>,
    /// How many.
    pub spans: u64,
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
    /// What the keys of a tagger begin with.
    prefixes: Vec<String>,
}

impl<'a> RowTagger<'a> {
    /// Without taggers yet.
    pub fn new(plan: &'a Plan) -> RowTagger<'a> {
        let prefixes = plan.taggers.iter().map(|tagger| key(&tagger.experiment, &tagger.name, "")).collect();
        RowTagger { plan, taggers: Vec::new(), prefixes }
    }

    /// The position of a user's tagger among those of users.
    fn of_users(&self, index: usize) -> usize {
        self.plan.taggers[..index].iter().filter(|tagger| !tagger.native).count()
    }

    /// What the taggers of users find in rows of a file; `None` if no list has one of them.
    pub fn ask<'b>(
        &self,
        path: &str,
        artifacts: &[&[usize]],
        rows: impl Iterator<Item = BatchRow<'b>>,
    ) -> Result<Option<Found>> {
        let asked: BTreeSet<usize> = artifacts.iter().copied().flatten().copied().collect();
        let asked = asked.into_iter().filter(|index| !self.plan.taggers[*index].native);
        let asked: Vec<usize> = asked.map(|index| self.of_users(index)).collect();
        let rows: Vec<BatchRow<'_>> = rows.collect();
        let (Some(users), [first, ..], [_, ..]) = (&self.plan.users, &rows[..], &asked[..]) else { return Ok(None) };
        let last = rows.last().unwrap_or(first).place(path).line;
        let lines = first.place(path).line;
        // what is no document gets its error when it is tagged
        let rows: Vec<_> = rows.iter().map(|row| parse_row(row.document(), &row.place(path)).ok()).collect();
        let fail = |error| match error {
            Error::Config { message, .. } => {
                let message = format!("{message} for each document of lines {lines} to {last}");
                Error::format(path, None, None, Code::InvalidValue, message)
            }
            other => other,
        };
        users.ask(asked, &rows).map(Some).map_err(fail)
    }

    /// The attribute lines of one document, with their line ends: one for each list of taggers. `found` is what the taggers
    /// of users found in its batch, and its position there; with `early`, they are asked when it is their turn.
    pub fn tag(
        &self,
        path: &str,
        artifacts: &[&[usize]],
        raw: BatchRow<'_>,
        found: Option<(&Found, usize)>,
        early: Option<&mut Early<'_>>,
    ) -> Result<TaggedRow> {
        let place = raw.place(path);
        let row = parse_row(raw.document(), &place)?;
        let text = Text::with_metadata(&row.text, row.metadata.as_deref());
        let length = text.length_chars();
        check(found, &place)?;
        let lines = |spans: &mut dyn FnMut(usize) -> Result<Option<Vec<Span>>>| -> Result<Vec<Line>> {
            artifacts.iter().map(|taggers| self.line(taggers, spans, &row, length, &place)).collect()
        };
        let Some(early) = early else {
            let lines = lines(&mut |index| self.spans(index, found, &text, &place).map(Some))?;
            return Ok(TaggedRow { line: place.line, is_partial: false, lines });
        };
        let mut spans: Vec<Option<Vec<Span>>> = vec![None; self.plan.taggers.len()];
        for class in 0..COST_CLASSES {
            let is_left = artifacts.iter().copied().flatten().any(|index| self.class(*index) >= class);
            if is_left && early.is_asked[class] {
                let lines = lines(&mut |index| Ok(spans[index].clone()))?;
                if (early.is_enough)(class, &lines)? {
                    return Ok(TaggedRow { line: place.line, is_partial: true, lines });
                }
            }
            let asked = if class == USER_CLASS { self.ask(path, artifacts, iter::once(raw))? } else { None };
            let found = asked.as_ref().map(|found| (found, 0));
            check(found, &place)?;
            for &index in artifacts.iter().copied().flatten().filter(|index| self.class(**index) == class) {
                spans[index] = Some(self.spans(index, found, &text, &place)?);
            }
        }
        let lines = lines(&mut |index| Ok(spans[index].take()))?;
        Ok(TaggedRow { line: place.line, is_partial: false, lines })
    }

    fn class(&self, index: usize) -> usize {
        let tagger = &self.plan.taggers[index];
        if tagger.native {
            cost_class(&tagger.name)
        } else {
            USER_CLASS
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

    fn spans(
        &self,
        index: usize,
        found: Option<(&Found, usize)>,
        text: &Text<'_>,
        place: &Place<'_>,
    ) -> Result<Vec<Span>> {
        let Some(tagger) = &self.taggers[index] else {
            let spans = found.and_then(|(found, row)| found.spans(self.of_users(index), row));
            let missing = || format!("\"{}\" was not asked; expected its spans", self.plan.taggers[index].name);
            return spans.ok_or_else(|| Error::config("taggers", missing()));
        };
        let mut spans = Vec::new();
        tagger.tag(text, &mut spans).map_err(|error| match error {
            // a tagger knows neither file nor line
            Error::Config { message, hint, .. } => {
                let hint = hint.map_or(String::new(), |hint| format!("; {hint}"));
                place.error(None, Code::InvalidValue, format!("tagger {message}{hint}"))
            }
            other => other,
        })?;
        Ok(spans)
    }
}

/// Fails if a tagger of users failed on a row.
fn check(found: Option<(&Found, usize)>, place: &Place<'_>) -> Result<()> {
    let failures = found.into_iter().flat_map(|(found, row)| found.failures(row));
    Error::many(failures.map(|why| place.error(None, Code::InvalidValue, why)).collect()).map_or(Ok(()), Err)
}
