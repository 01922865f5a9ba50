//! What happened to the documents, rule by rule: `.dolma/funnel.ndjson` in the output, a line for each stream.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::choice::Fate;
use super::rules::{Kind, Rules, Watched};
use super::view::View;
use crate::jsonl::Skipped;

/// Documents and bytes of text (UTF-8).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// read
    pub documents_in: u64,
    /// written
    pub documents_out: u64,
    /// of the texts read
    pub bytes_in: u64,
    /// of the texts written
    pub bytes_out: u64,
}

/// A field that a rule reads without checking that it exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingFlow {
    /// dotted
    pub field: String,
    /// whether any document has it
    pub is_found: bool,
    /// documents without it that the rule drops, if the missing field may be the reason
    pub documents_dropped: u64,
}

/// What a rule drops.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleFlow {
    /// as it is written
    pub rule: String,
    /// what it is there for
    pub kind: Kind,
    /// what it would drop if it were the only rule
    pub documents_alone: u64,
    /// of the texts of these
    pub bytes_alone: u64,
    /// what it drops of what the rules before it leave
    pub documents_in_order: u64,
    /// of the texts of these
    pub bytes_in_order: u64,
    /// fields that are missing in some documents
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reads: Vec<MissingFlow>,
}

/// What a span replacement replaces, in the documents that are written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpanFlow {
    /// the selection
    pub span: String,
    /// how many, overlapping ones counted each
    pub spans: u64,
    /// of text within them
    pub bytes: u64,
}

/// One part of a stream that is split by score.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PartFlow {
    /// lowest score; `None` for the first part
    pub from: Option<f64>,
    /// the score at which the next part begins; `None` for the last
    pub to: Option<f64>,
    /// written
    pub documents_out: u64,
    /// of the texts written
    pub bytes_out: u64,
}

/// One stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StreamFunnel {
    /// of the stream
    pub name: String,
    /// all of it
    #[serde(flatten)]
    pub flow: Flow,
    /// in the order in which they are asked
    pub rules: Vec<RuleFlow>,
    /// in the order of the configuration
    pub span_replacements: Vec<SpanFlow>,
    /// by the documents' `source`
    pub sources: BTreeMap<String, Flow>,
    /// by rising score; none where the stream is not split
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<PartFlow>,
    /// skipped rows; no other count includes them
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<Skipped>,
}

impl StreamFunnel {
    /// Nothing yet.
    pub fn new(name: &str, rules: &Rules) -> Self {
        let reads = |rule: usize| {
            let watched = rules.watched.iter().filter(move |watched| watched.rule == rule);
            let flow = |watched: &Watched| MissingFlow {
                field: watched.names.join("."),
                is_found: false,
                documents_dropped: 0,
            };
            watched.map(flow).collect()
        };
        let rule_flows = rules.names().iter().enumerate().map(|(index, name)| RuleFlow {
            rule: name.rule.clone(),
            kind: name.kind,
            documents_alone: 0,
            bytes_alone: 0,
            documents_in_order: 0,
            bytes_in_order: 0,
            reads: reads(index),
        });
        let spans = rules.span_names().map(|span| SpanFlow { span: span.to_string(), spans: 0, bytes: 0 });
        Self {
            name: name.to_string(),
            flow: Flow::default(),
            rules: rule_flows.collect(),
            span_replacements: spans.collect(),
            sources: BTreeMap::new(),
            parts: Vec::new(),
            skipped: Vec::new(),
        }
    }

    /// With parts that begin at `edges`.
    pub fn with_parts(mut self, edges: &[f64]) -> Self {
        let bounds: Vec<Option<f64>> =
            [None].into_iter().chain(edges.iter().map(|edge| Some(*edge))).chain([None]).collect();
        let part = |bounds: &[Option<f64>]| PartFlow { from: bounds[0], to: bounds[1], documents_out: 0, bytes_out: 0 };
        self.parts = if edges.is_empty() { Vec::new() } else { bounds.windows(2).map(part).collect() };
        self
    }

    /// Counts a document of `bytes_in` that becomes `fate.copies` of `bytes_out`, or is dropped by the rules in `drops`.
    /// Gives the position of the first of these.
    pub fn count(&mut self, source: &str, bytes_in: u64, bytes_out: u64, drops: &[bool], fate: Fate) -> Option<usize> {
        for (flow, _) in self.rules.iter_mut().zip(drops).filter(|(_, drops)| **drops) {
            flow.documents_alone += 1;
            flow.bytes_alone += bytes_in;
        }
        let first = drops.iter().position(|drops| *drops);
        if let Some(first) = first {
            self.rules[first].documents_in_order += 1;
            self.rules[first].bytes_in_order += bytes_in;
        }
        if !self.sources.contains_key(source) {
            self.sources.insert(source.to_string(), Flow::default());
        }
        for flow in self.sources.get_mut(source).into_iter().chain([&mut self.flow]) {
            flow.documents_in += 1;
            flow.bytes_in += bytes_in;
            if first.is_none() {
                flow.documents_out += u64::from(fate.copies);
                flow.bytes_out += u64::from(fate.copies) * bytes_out;
            }
        }
        if let (None, Some(part)) = (first, self.parts.get_mut(fate.part)) {
            part.documents_out += u64::from(fate.copies);
            part.bytes_out += u64::from(fate.copies) * bytes_out;
        }
        first
    }

    /// Counts the fields that rules read and the document lacks. `drops` are the verdicts of the filters.
    pub fn watch(&mut self, rules: &Rules, view: &View<'_, '_>, drops: &[bool]) {
        // the flows of each rule are in the order of `watched`
        let mut place = 0;
        for (index, watched) in rules.watched.iter().enumerate() {
            let is_next = index > 0 && rules.watched[index - 1].rule == watched.rule;
            place = if is_next { place + 1 } else { 0 };
            let dropped = watched.drops_without && drops.get(watched.rule).copied().unwrap_or_default();
            let Some(flow) = self.rules.get_mut(watched.rule).and_then(|rule| rule.reads.get_mut(place)) else {
                continue;
            };
            if flow.is_found && !dropped {
                continue;
            }
            if view.has(&watched.names) {
                flow.is_found = true;
            } else if dropped {
                flow.documents_dropped += 1;
            }
        }
    }

    /// Adds the counts of another part of the same stream.
    pub fn add(&mut self, other: &Self) {
        self.flow.add(&other.flow);
        self.skipped.extend(other.skipped.iter().cloned());
        for (flow, other) in self.rules.iter_mut().zip(&other.rules) {
            flow.documents_alone += other.documents_alone;
            flow.bytes_alone += other.bytes_alone;
            flow.documents_in_order += other.documents_in_order;
            flow.bytes_in_order += other.bytes_in_order;
            for (read, other) in flow.reads.iter_mut().zip(&other.reads) {
                read.is_found |= other.is_found;
                read.documents_dropped += other.documents_dropped;
            }
        }
        for (flow, other) in self.span_replacements.iter_mut().zip(&other.span_replacements) {
            flow.spans += other.spans;
            flow.bytes += other.bytes;
        }
        if self.parts.is_empty() {
            self.parts.clone_from(&other.parts);
        } else {
            for (part, other) in self.parts.iter_mut().zip(&other.parts) {
                part.documents_out += other.documents_out;
                part.bytes_out += other.bytes_out;
            }
        }
        for (source, flow) in &other.sources {
            self.sources.entry(source.clone()).or_default().add(flow);
        }
    }
}

impl Flow {
    fn add(&mut self, other: &Self) {
        self.documents_in += other.documents_in;
        self.documents_out += other.documents_out;
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
    }
}
