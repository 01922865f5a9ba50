//! Marks rows by what was found of them.

use std::fmt::{Display, Write};

use serde_json::Value;

use super::found::Found;
use super::keys::numbers;
use super::settings::{Settings, Unit};
use super::{repeats, substring};
use crate::dedupe::{Asked, AttributeFiles, Counts, Marked, Marking};
use crate::document::{parse_row, FIELDS};
use crate::error::Result;
use crate::run::BatchRow;

/// For the files of a run.
pub struct NearMarking<'a> {
    pub settings: &'a Settings,
    pub found: Found,
    /// As JSON.
    pub keys: Vec<String>,
    pub files: AttributeFiles<'a>,
}

impl NearMarking<'_> {
    /// Appends the attributes of a row.
    fn attributes(&self, text: &str, found: &[u8], line: &mut String, counts: &mut Counts) {
        let Settings { min_words, min_length, .. } = *self.settings;
        match &self.settings.unit {
            Unit::Minhash { .. } => self.cluster(text.len(), found, line, counts),
            Unit::Repeats(repeats) => {
                let marked: Vec<(u32, u32)> = numbers(found).map(|both| (both as u32, (both >> 32) as u32)).collect();
                let spans = repeats::spans(text, repeats, min_words, min_length, &marked);
                self.spans(spans.into_iter(), line, counts);
            }
            Unit::Substring { length_bytes } => {
                let starts: Vec<u64> = numbers(found).collect();
                let spans = substring::spans(text, *length_bytes, &starts);
                self.spans(spans.into_iter().map(|(start, end)| (start, end, 1)), line, counts);
            }
        }
    }

    fn cluster(&self, length: usize, found: &[u8], line: &mut String, counts: &mut Counts) {
        counts.compared += u64::from(!found.is_empty());
        let (kind, rest) = found.split_first().unzip();
        let member: Vec<u64> = numbers(rest.unwrap_or_default()).collect();
        match (kind, &member[..]) {
            (Some(kind), [cluster, size]) => {
                let is_duplicate = *kind == 2;
                let [mark, of_cluster, of_size] = [0, 1, 2].map(|key: usize| self.keys[key].as_str());
                if is_duplicate {
                    add(line, format_args!("{mark}:[[0,{length},1]],"));
                }
                add(line, format_args!("{of_cluster}:[[0,{length},{cluster}]],{of_size}:[[0,{length},{size}]]"));
                counts.marked += u64::from(is_duplicate);
                counts.spans += 2 + u64::from(is_duplicate);
                counts.clusters += u64::from(!is_duplicate);
            }
            (None, _) => add(line, format_args!("{}:[]", self.keys[0])),
            _ => {}
        }
    }

    fn spans(&self, spans: impl Iterator<Item = (usize, usize, u32)>, line: &mut String, counts: &mut Counts) {
        line.push_str(&self.keys[0]);
        line.push_str(":[");
        for (index, (start, end, score)) in spans.enumerate() {
            let comma = if index == 0 { "" } else { "," };
            add(line, format_args!("{comma}[{start},{end},{score}]"));
            counts.spans += 1;
            counts.marked += 1;
        }
        line.push(']');
    }
}

/// Writing to a string cannot fail.
fn add(line: &mut String, text: impl Display) {
    let _ = write!(line, "{text}");
}

impl Marking for NearMarking<'_> {
    fn fields(&self) -> Option<Vec<&str>> {
        Some(FIELDS.to_vec())
    }

    fn ask(&self, file: usize, row: BatchRow<'_>, name: &str, asked: &mut Asked) -> Result<()> {
        let parsed = parse_row(row.document(), &row.place(name))?;
        let found = self.found.of(file, row.number())?;
        let Marked { lines, ends, counts } = &mut asked.marked;
        counts.documents += 1;
        lines.push_str("{\"attributes\":{");
        self.attributes(&parsed.text, &found, lines, counts);
        add(lines, format_args!("}},\"id\":{}}}\n", Value::from(parsed.id)));
        ends.push(lines.len());
        Ok(())
    }

    fn mark(&self, asked: &mut Asked) -> Marked {
        std::mem::take(&mut asked.marked)
    }

    fn files(&self) -> &AttributeFiles<'_> {
        &self.files
    }

    fn close(&self, file: usize) {
        self.found.close(file);
    }
}
