//! The rules of a stream: compiled once, asked about every document.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use regex::Regex;

use super::row::Span;
use super::settings::{BudgetUnit, RuleSettings, SpanSettings, Syntax};
use super::spans::{replace_measured, Replacement};
use super::view::View;
use crate::error::{Code, Error, Result};
use crate::jq::Program;
use crate::jsonpath::{Needs, Path, Read};

/// What a rule is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// keeps what it matches
    Include,
    /// drops what it matches
    Exclude,
    /// drops texts that are too short in the end
    MinTextLength,
    /// drops what is not drawn
    Sample,
    /// drops what does not fit
    Budget,
}

/// Why documents are dropped, in the order in which rules are asked.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RuleName {
    /// as it is written; several that include are one rule, with ` or ` between them
    pub rule: String,
    /// what it is there for
    pub kind: Kind,
}

/// All rules of a stream.
#[derive(Debug)]
pub struct Rules {
    include: Vec<Selector>,
    exclude: Vec<Selector>,
    replacers: Vec<Replacer>,
    min_text_length: u64,
    /// of JSONPath and simple jq
    pub(super) needs: Needs,
    /// of jq
    pub(super) jq_needs: Needs,
    names: Vec<RuleName>,
    /// keys of attributes that sample, budget and split read, with their places in the configuration
    chosen_by: Vec<(&'static str, String)>,
    /// fields that filters read without checking that they exist
    pub(super) watched: Vec<Watched>,
    /// top-level fields that are left out
    pub discard_fields: Vec<String>,
}

/// A field that a filter reads. If it is missing, jq compares `null`, and JSONPath finds nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Watched {
    /// position in [`Rules::names`]
    pub rule: usize,
    /// path from the document
    pub names: Vec<String>,
    /// `null` is less than every number, so documents without the field may be dropped for it
    pub drops_without: bool,
}

#[derive(Debug)]
pub(super) enum Selector {
    JsonPath(Path),
    Jq(Program),
}

#[derive(Debug)]
pub(super) struct Replacer {
    /// of the selection
    text: String,
    pub(super) selector: SpanSelector,
    min_score: f64,
    max_score: f64,
    replacement: ReplacementText,
}

#[derive(Debug)]
pub(super) enum SpanSelector {
    /// `$.attributes.<key>`, what nearly all are
    Attribute(String),
    Other(Selector),
}

#[derive(Debug)]
enum ReplacementText {
    Literal(String),
    Selected(Program),
}

/// A text after its spans were replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replaced {
    /// the new one
    pub text: String,
    /// what each replacement replaced, in the order of the configuration
    pub counts: Vec<SpanCount>,
}

/// What one replacement replaced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpanCount {
    /// how many spans
    pub spans: u64,
    /// bytes of text within them
    pub bytes: u64,
}

impl Selector {
    fn new(text: &str, syntax: Syntax, key: &str) -> Result<Self> {
        let refuse = |what: &str, reason: String| {
            let error = Error::config(key, format!("is `{text}`, which is not a {what}: {reason}"));
            let (other, is_other) = match syntax {
                Syntax::JsonPath => ("jq", !text.trim_start().starts_with('$') && Program::new(text).is_ok()),
                Syntax::Jq => ("jsonpath", Path::new(text).is_ok()),
            };
            if is_other {
                return error.with_hint(format!("it is valid {other}: set `syntax: {other}` next to it"));
            }
            error
        };
        match syntax {
            Syntax::JsonPath => {
                Path::new(text).map(Self::JsonPath).map_err(|error| refuse("JSONPath", error.to_string()))
            }
            Syntax::Jq => Program::new(text).map(Self::Jq).map_err(|error| refuse("jq expression", error)),
        }
    }

    pub(super) fn text(&self) -> &str {
        match self {
            Self::JsonPath(path) => path.text(),
            Self::Jq(program) => program.text(),
        }
    }

    /// The fields that it reads by name.
    fn reads(&self) -> Cow<'_, [Read]> {
        match self {
            Self::JsonPath(path) => Cow::Owned(path.reads()),
            Self::Jq(program) => Cow::Borrowed(program.reads()),
        }
    }

    fn needs(&self) -> Cow<'_, Needs> {
        match self {
            Self::JsonPath(path) => {
                let mut needs = Needs::default();
                needs.add(path);
                Cow::Owned(needs)
            }
            Self::Jq(program) => Cow::Borrowed(program.needs()),
        }
    }

    /// Keys of `attributes` that it names, and whether it first checks that the document has them.
    fn attribute_keys(&self) -> BTreeMap<String, bool> {
        let keys: BTreeSet<String> = match self {
            Self::JsonPath(_) => self.needs().keys("attributes").map(str::to_string).collect(),
            Self::Jq(program) => jq_attribute_keys(program.text()),
        };
        let reads = self.reads();
        let is_guarded = |key: &String| {
            let names = ["attributes", key];
            reads.iter().any(|read| read.is_guarded && names.iter().take(2).eq(read.names.iter()))
        };
        keys.into_iter().map(|key| (key.clone(), is_guarded(&key))).collect()
    }
}

/// Keys that stand behind `.attributes` in a jq expression. One that is put together at run time is not found.
fn jq_attribute_keys(text: &str) -> BTreeSet<String> {
    let pattern =
        r#"\.attributes\s*\??\s*(?:\.\s*([A-Za-z_][A-Za-z0-9_]*)|\.?\s*\[\s*"([^"\\]+)"\s*\]|\.\s*"([^"\\]+)")"#;
    let Ok(regex) = Regex::new(pattern) else { return BTreeSet::new() };
    regex
        .captures_iter(text)
        .filter_map(|found| found.iter().skip(1).flatten().next().map(|key| key.as_str().to_string()))
        .collect()
}

impl Rules {
    /// Compiles them; `key` is their place in the configuration. All problems are reported together.
    pub fn new(settings: &RuleSettings, key: &str) -> Result<Self> {
        let mut errors = Vec::new();
        let (mut include, mut exclude, mut replacers) = (Vec::new(), Vec::new(), Vec::new());
        if let Some(filter) = &settings.filter {
            for (name, texts, selectors) in
                [("include", &filter.include, &mut include), ("exclude", &filter.exclude, &mut exclude)]
            {
                for (index, text) in texts.iter().enumerate() {
                    match Selector::new(text, filter.syntax, &format!("{key}.filter.{name}.{index}")) {
                        Ok(selector) => selectors.push(selector),
                        Err(error) => errors.push(error),
                    }
                }
            }
        }
        for (index, span) in settings.span_replacement.iter().enumerate() {
            match Replacer::new(span, &format!("{key}.span_replacement.{index}")) {
                Ok(replacer) => replacers.push(replacer),
                Err(error) => errors.push(error),
            }
        }
        if let Some(error) = Error::many(errors) {
            return Err(error);
        }
        let (mut needs, mut jq_needs) = (Needs::default(), Needs::default());
        let selected = replacers.iter().filter_map(|replacer| match &replacer.selector {
            SpanSelector::Other(selector) => Some(selector),
            SpanSelector::Attribute(_) => None,
        });
        for selector in include.iter().chain(&exclude).chain(selected) {
            match selector {
                Selector::JsonPath(path) => needs.add(path),
                Selector::Jq(program) => {
                    jq_needs.extend(program.needs());
                    if program.is_simple() {
                        needs.extend(program.needs());
                    }
                }
            }
        }
        for replacer in &replacers {
            if let ReplacementText::Selected(program) = &replacer.replacement {
                jq_needs.extend(program.needs());
            }
        }
        let watched = watched(&include, &exclude);
        for watched in &watched {
            match &watched.names[..] {
                [field] => needs.add_field(field),
                [field, key, ..] => needs.add_key(field, key),
                [] => {}
            }
        }
        let names = rule_names(&include, &exclude, settings);
        let budget = settings.budget.as_ref().and_then(|budget| budget.attribute.clone());
        let split = settings.split.as_ref();
        let chosen_by = [
            ("budget.attribute", budget),
            ("split.attribute", split.map(|split| split.attribute.clone())),
            ("split.weight", split.and_then(|split| split.weight.clone())),
        ];
        let chosen_by = chosen_by.into_iter().filter_map(|(place, key)| Some((place, key?))).collect();
        Ok(Self {
            include,
            exclude,
            replacers,
            min_text_length: settings.min_text_length,
            needs,
            jq_needs,
            names,
            chosen_by,
            watched,
            discard_fields: settings.discard_fields.clone(),
        })
    }

    /// In the order in which they are asked.
    pub fn names(&self) -> &[RuleName] {
        &self.names
    }

    /// The span selections, as they are written.
    pub fn span_names(&self) -> impl Iterator<Item = &str> {
        self.replacers.iter().map(|replacer| replacer.text.as_str())
    }

    /// Keys of `attributes` that rules name.
    pub fn attribute_keys(&self, key: &str) -> Vec<NamedKey> {
        let mut found = Vec::new();
        for (name, selectors) in [("include", &self.include), ("exclude", &self.exclude)] {
            for (index, selector) in selectors.iter().enumerate() {
                let place = format!("{key}.filter.{name}.{index}");
                let keys = selector.attribute_keys().into_iter();
                found.extend(keys.map(|(key, is_guarded)| NamedKey { place: place.clone(), key, is_guarded }));
            }
        }
        for (index, replacer) in self.replacers.iter().enumerate() {
            let place = format!("{key}.span_replacement.{index}.span");
            let keys = match &replacer.selector {
                SpanSelector::Attribute(named) => BTreeMap::from([(named.clone(), false)]),
                SpanSelector::Other(selector) => selector.attribute_keys(),
            };
            let keys = keys.into_iter();
            found.extend(keys.map(|(key, is_guarded)| NamedKey { place: place.clone(), key, is_guarded }));
        }
        found.extend(self.chosen_by.iter().map(|(place, named)| NamedKey {
            place: format!("{key}.{place}"),
            key: named.clone(),
            is_guarded: false,
        }));
        found
    }

    /// Asks every filter about a document: which would drop it.
    pub fn filter(&self, view: &View<'_, '_>) -> Result<Vec<bool>> {
        let mut drops = Vec::with_capacity(self.names.len());
        if !self.include.is_empty() {
            let mut keep = false;
            for selector in &self.include {
                keep = keep || view.includes(selector)?;
            }
            drops.push(!keep);
        }
        for selector in &self.exclude {
            drops.push(view.excludes(selector)?);
        }
        Ok(drops)
    }

    /// For each filter, whether it reads none of the attributes that are still to come.
    pub fn decidable(&self, is_coming: &dyn Fn(&str) -> bool) -> Vec<bool> {
        let is_decidable = |selector: &Selector| {
            let needs = selector.needs();
            let named = needs.fields.get("attributes").is_none_or(Option::is_some);
            named && !needs.everything && !needs.keys("attributes").any(is_coming)
        };
        let include = (!self.include.is_empty()).then(|| self.include.iter().all(is_decidable));
        include.into_iter().chain(self.exclude.iter().map(is_decidable)).collect()
    }

    /// As [`Rules::filter`], for the filters that are `decidable`; the others drop nothing.
    pub fn filter_early(&self, view: &View<'_, '_>, decidable: &[bool]) -> Result<Vec<bool>> {
        let mut drops = vec![false; self.names.len()];
        let filters = (!self.include.is_empty()).then_some(None).into_iter().chain(self.exclude.iter().map(Some));
        for ((selector, drop), _) in filters.zip(&mut drops).zip(decidable).filter(|(_, decidable)| **decidable) {
            *drop = match selector {
                Some(selector) => view.excludes(selector)?,
                None => {
                    let mut keep = false;
                    for selector in &self.include {
                        keep = keep || view.includes(selector)?;
                    }
                    !keep
                }
            };
        }
        Ok(drops)
    }

    /// Whether a final text is too short; `None` where no length is asked for.
    pub fn is_too_short(&self, text: &str) -> Option<bool> {
        (self.min_text_length > 0).then(|| (text.trim().len() as u64) < self.min_text_length)
    }

    /// What the text becomes; `None` where nothing is to be replaced.
    pub fn replaced(&self, view: &View<'_, '_>) -> Result<Option<Replaced>> {
        let mut spans: Vec<(usize, Span)> = Vec::new();
        for (index, replacer) in self.replacers.iter().enumerate() {
            let chosen = view.spans(replacer)?.into_iter();
            let chosen = chosen.filter(|span| span.score >= replacer.min_score && span.score < replacer.max_score);
            spans.extend(chosen.map(|span| (index, span)));
        }
        if spans.is_empty() {
            return Ok(None);
        }
        let texts = self
            .replacers
            .iter()
            .enumerate()
            .map(|(index, replacer)| match &replacer.replacement {
                ReplacementText::Literal(text) => Ok(text.clone()),
                ReplacementText::Selected(program) if spans.iter().any(|(used, _)| *used == index) => {
                    view.selected_text(program)
                }
                ReplacementText::Selected(_) => Ok(String::new()),
            })
            .collect::<Result<Vec<String>>>()?;
        let replacements: Vec<Replacement<'_>> = spans
            .iter()
            .map(|(index, span)| Replacement {
                start: span.start as usize,
                end: span.end as usize,
                text: &texts[*index],
            })
            .collect();
        let (text, covered) = replace_measured(&view.row.text, &replacements).ok_or_else(|| {
            let message = "more than 100 spans to replace lie within one another; expected fewer";
            view.place.error(Some("attributes"), Code::InvalidValue, message)
        })?;
        let mut counts = vec![SpanCount::default(); self.replacers.len()];
        for ((index, _), covered) in spans.iter().zip(covered) {
            counts[*index].spans += 1;
            counts[*index].bytes += covered;
        }
        Ok(Some(Replaced { text, counts }))
    }
}

/// A key of `attributes` that a rule names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedKey {
    /// its place in the configuration
    pub place: String,
    /// the key
    pub key: String,
    /// whether the rule first checks for it, so that all documents may lack it
    pub is_guarded: bool,
}

fn watched(include: &[Selector], exclude: &[Selector]) -> Vec<Watched> {
    let mut found: Vec<Watched> = Vec::new();
    let first_exclude = usize::from(!include.is_empty());
    let excludes = exclude.iter().enumerate().map(|(index, selector)| (first_exclude + index, selector, true));
    for (rule, selector, is_exclude) in include.iter().map(|selector| (0, selector, false)).chain(excludes) {
        let is_jq = matches!(selector, Selector::Jq(_));
        for read in Read::unguarded(&selector.reads()) {
            let names = read.names.clone();
            // every document has these; attributes are checked before the work starts
            let is_known = match names.first().map(String::as_str) {
                None | Some("id" | "text") => true,
                Some("attributes") => names.len() == 1 || !is_jq,
                Some(_) => false,
            };
            let watched = Watched { rule, names, drops_without: is_jq && is_exclude };
            if !is_known && !found.contains(&watched) {
                found.push(watched);
            }
        }
    }
    found
}

fn rule_names(include: &[Selector], exclude: &[Selector], settings: &RuleSettings) -> Vec<RuleName> {
    let mut names = Vec::new();
    if !include.is_empty() {
        let rule = include.iter().map(Selector::text).collect::<Vec<_>>().join(" or ");
        names.push(RuleName { rule, kind: Kind::Include });
    }
    names.extend(exclude.iter().map(|selector| RuleName { rule: selector.text().to_string(), kind: Kind::Exclude }));
    if settings.min_text_length > 0 {
        let rule = format!("text shorter than {} bytes", settings.min_text_length);
        names.push(RuleName { rule, kind: Kind::MinTextLength });
    }
    if let Some(sample) = &settings.sample {
        names.push(RuleName { rule: format!("rate {}", sample.rate), kind: Kind::Sample });
    }
    if let Some(budget) = &settings.budget {
        let unit = match budget.unit {
            BudgetUnit::Documents => "documents",
            BudgetUnit::Bytes => "bytes",
            BudgetUnit::Tokens => "tokens",
        };
        names.push(RuleName { rule: format!("{} {unit}", budget.limit), kind: Kind::Budget });
    }
    names
}

impl Replacer {
    fn new(settings: &SpanSettings, key: &str) -> Result<Self> {
        let selector = Selector::new(&settings.span, settings.syntax, &format!("{key}.span"))?;
        let attribute = Regex::new(r"^\$@?\.attributes\.([A-Za-z0-9_]+)$")
            .ok()
            .and_then(|regex| regex.captures(settings.span.trim()).map(|found| found[1].to_string()));
        let selector = match (attribute, settings.syntax) {
            (Some(key), Syntax::JsonPath) => SpanSelector::Attribute(key),
            _ => SpanSelector::Other(selector),
        };
        let replacement = match settings.replacement.strip_prefix('$') {
            Some(program) if program.starts_with('.') => {
                let program = Program::new(program).map_err(|reason| {
                    let message = format!("is `{}`, which is not a jq selection: {reason}", settings.replacement);
                    Error::config(format!("{key}.replacement"), message)
                })?;
                ReplacementText::Selected(program)
            }
            _ => ReplacementText::Literal(settings.replacement.clone()),
        };
        Ok(Self {
            text: settings.span.clone(),
            selector,
            min_score: settings.min_score.unwrap_or(f64::NEG_INFINITY),
            max_score: settings.max_score.unwrap_or(f64::INFINITY),
            replacement,
        })
    }
}
