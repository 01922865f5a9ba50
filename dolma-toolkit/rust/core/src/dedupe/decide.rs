//! Who is first: the part of the work that goes through the rows in order.
//!
//! Rows are decided one after the other, in the order of the files and lines, whatever the number of threads. So the
//! copy that stays is always the first.

use std::fmt::Write;

use super::keys::{KeyedRow, Ngrams, Paragraph, Probe, Probes, RowKeys};
use crate::bloom::Filter;

/// Counts of what was decided.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// rows
    pub documents: u64,
    /// documents or paragraphs that were compared
    pub compared: u64,
    /// documents or paragraphs that were marked
    pub marked: u64,
    /// spans written, marked or not
    pub spans: u64,
    /// paragraph separators found
    pub separators: u64,
}

impl Counts {
    /// Adds another's.
    pub fn add(&mut self, other: &Self) {
        self.documents += other.documents;
        self.compared += other.compared;
        self.marked += other.marked;
        self.spans += other.spans;
        self.separators += other.separators;
    }
}

/// Decides rows and writes their attributes as JSON lines.
pub struct Decider<'f> {
    filter: Option<&'f mut Filter>,
    /// as JSON
    attribute: String,
    threshold: f64,
    /// n-grams of one paragraph that are new
    unseen: Vec<u128>,
    /// what was decided so far
    pub counts: Counts,
}

impl<'f> Decider<'f> {
    /// `filter` is what is asked and changed; without one, every probe carries its answer.
    pub fn new(filter: Option<&'f mut Filter>, attribute_name: &str, threshold: f64) -> Self {
        let attribute = serde_json::Value::from(attribute_name).to_string();
        Self { filter, attribute, threshold, unseen: Vec::new(), counts: Counts::default() }
    }

    /// Whether the filter is so full that it marks more than this share of new keys as seen.
    pub fn is_beyond(&self, rate: f64) -> bool {
        self.filter.as_ref().is_some_and(|filter| filter.false_positive_rate() > rate)
    }

    /// Appends the row of attributes to `line`.
    pub fn row(&mut self, row: &KeyedRow, line: &mut String) {
        self.counts.documents += 1;
        self.counts.separators += row.separators;
        line.push_str("{\"attributes\":{");
        match &row.keys {
            RowKeys::Document { probe, length_bytes } => self.document(*probe, *length_bytes, line),
            RowKeys::Paragraphs(None) => {}
            RowKeys::Paragraphs(Some(paragraphs)) => {
                line.push_str(&self.attribute);
                line.push_str(":[");
                let mut first = true;
                for paragraph in paragraphs {
                    self.paragraph(paragraph, &mut first, line);
                }
                line.push(']');
            }
        }
        line.push_str("},\"id\":");
        line.push_str(&row.id);
        line.push_str("}\n");
    }

    /// A document that was not compared has an empty list, one that is the first of its kind no attribute at all.
    fn document(&mut self, probe: Option<Probe>, length_bytes: usize, line: &mut String) {
        match probe {
            None | Some(Probe::Foreign) => {
                line.push_str(&self.attribute);
                line.push_str(":[]");
            }
            Some(probe) => {
                self.counts.compared += 1;
                if self.seen_and_insert(probe) {
                    self.counts.marked += 1;
                    self.counts.spans += 1;
                    line.push_str(&self.attribute);
                    // writing to a string cannot fail
                    let _ = write!(line, ":[[0,{length_bytes},1]]");
                }
            }
        }
    }

    fn paragraph(&mut self, paragraph: &Paragraph, first: &mut bool, line: &mut String) {
        let span = |score: &str, first: &mut bool, line: &mut String| {
            let comma = if *first { "" } else { "," };
            *first = false;
            let _ = write!(line, "{comma}[{},{},{score}]", paragraph.start, paragraph.end);
        };
        match &paragraph.probes {
            Probes::Whole(Probe::Foreign) => {}
            Probes::Whole(probe) => {
                self.counts.compared += 1;
                if self.seen_and_insert(*probe) {
                    self.counts.marked += 1;
                    self.counts.spans += 1;
                    span("1", first, line);
                }
            }
            Probes::Ngrams { ngrams, whole } => {
                let Some(score) = self.overlap(ngrams, *whole) else {
                    return;
                };
                self.counts.compared += 1;
                if score >= self.threshold {
                    self.counts.marked += u64::from(score > 0.0);
                    self.counts.spans += 1;
                    span(&serde_json::Value::from(score).to_string(), first, line);
                }
            }
        }
    }

    /// The share of n-grams that stood in earlier paragraphs. All are asked before any is inserted, so that a
    /// paragraph is never its own duplicate.
    fn overlap(&mut self, ngrams: &Ngrams, whole: Option<Probe>) -> Option<f64> {
        let mut seen = ngrams.seen;
        if let Some(filter) = &mut self.filter {
            self.unseen.clear();
            self.unseen.extend(ngrams.keys.iter().filter(|key| !filter.contains_whole(**key)));
            seen += ngrams.keys.len() - self.unseen.len();
            for key in &self.unseen {
                filter.insert(*key);
            }
        }
        match whole {
            Some(Probe::Foreign) => None,
            Some(probe) => Some(f64::from(u8::from(self.seen_and_insert(probe)))),
            None if ngrams.total == 0 => None,
            None => Some(seen as f64 / ngrams.total as f64),
        }
    }

    fn seen_and_insert(&mut self, probe: Probe) -> bool {
        match (probe, &mut self.filter) {
            (Probe::Answer(seen), _) => seen,
            (Probe::Key(key), Some(filter)) => filter.insert(key),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bloom::{Record, Sizing};
    use xxhash_rust::xxh3::xxh3_128;

    fn lines(rows: &[RowKeys], threshold: f64) -> Vec<String> {
        let mut filter = Filter::new(Sizing::for_keys(100, 1e-9), Record::default());
        let mut decider = Decider::new(Some(&mut filter), "k", threshold);
        let mut found = Vec::new();
        for keys in rows {
            let mut line = String::new();
            decider.row(&KeyedRow { id: "\"1\"".into(), separators: 0, keys: keys.clone() }, &mut line);
            found.push(line);
        }
        found
    }

    fn document(probe: Option<Probe>) -> RowKeys {
        RowKeys::Document { probe, length_bytes: 5 }
    }

    #[test]
    fn the_first_document_has_no_mark_and_the_next_has() {
        let rows = [
            document(Some(Probe::Key(7))),
            document(Some(Probe::Key(7))),
            document(None),
            document(Some(Probe::Foreign)),
        ];
        assert_eq!(
            lines(&rows, 1.0),
            [
                "{\"attributes\":{},\"id\":\"1\"}\n",
                "{\"attributes\":{\"k\":[[0,5,1]]},\"id\":\"1\"}\n",
                "{\"attributes\":{\"k\":[]},\"id\":\"1\"}\n",
                "{\"attributes\":{\"k\":[]},\"id\":\"1\"}\n",
            ]
        );
    }

    #[test]
    fn a_paragraph_is_not_its_own_duplicate() {
        let ngrams = |keys: &[u128]| {
            let keys: Vec<u128> = keys.iter().map(|key| xxh3_128(&key.to_le_bytes())).collect();
            Probes::Ngrams { ngrams: Ngrams { total: keys.len(), seen: 0, keys }, whole: None }
        };
        let paragraph = |start, keys: &[u128]| Paragraph { start, end: start + 1, probes: ngrams(keys) };
        let rows = [RowKeys::Paragraphs(Some(vec![
            paragraph(0, &[1, 1, 1, 2]),
            paragraph(1, &[1, 2, 3, 4]),
            paragraph(2, &[3, 4, 3, 4]),
        ]))];
        let expected = "{\"attributes\":{\"k\":[[0,1,0.0],[1,2,0.5],[2,3,1.0]]},\"id\":\"1\"}\n";
        assert_eq!(lines(&rows, 0.0), [expected]);
        let expected = "{\"attributes\":{\"k\":[[1,2,0.5],[2,3,1.0]]},\"id\":\"1\"}\n";
        assert_eq!(lines(&rows, 0.5), [expected]);
    }

    #[test]
    fn a_row_without_text_has_no_attribute() {
        assert_eq!(lines(&[RowKeys::Paragraphs(None)], 1.0), ["{\"attributes\":{},\"id\":\"1\"}\n"]);
        assert_eq!(lines(&[RowKeys::Paragraphs(Some(vec![]))], 1.0), ["{\"attributes\":{\"k\":[]},\"id\":\"1\"}\n"]);
    }
}
