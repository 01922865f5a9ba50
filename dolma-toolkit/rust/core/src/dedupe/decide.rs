//! From the filter's answers to the attributes of a row.

use std::fmt::Write;

use super::keys::{KeyedRow, Ngrams, Paragraph, Probe, Probes, RowKeys};

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
    /// documents that stay of a cluster
    pub clusters: u64,
}

impl Counts {
    /// Adds another's.
    pub fn add(&mut self, other: &Self) {
        self.documents += other.documents;
        self.compared += other.compared;
        self.marked += other.marked;
        self.spans += other.spans;
        self.separators += other.separators;
        self.clusters += other.clusters;
    }
}

/// Writes the attributes of rows as JSON lines, from the filter's answers to what they asked.
pub struct Marker<'m> {
    /// as JSON
    attribute: &'m str,
    threshold: f64,
    /// in the order of the [`crate::bloom::Questions`]
    answers: std::slice::Iter<'m, bool>,
    /// what was decided so far
    pub counts: Counts,
}

impl<'m> Marker<'m> {
    /// `attribute` is JSON.
    pub fn new(attribute: &'m str, threshold: f64, answers: &'m [bool]) -> Self {
        Self { attribute, threshold, answers: answers.iter(), counts: Counts::default() }
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
                line.push_str(self.attribute);
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
                line.push_str(self.attribute);
                line.push_str(":[]");
            }
            Some(probe) => {
                self.counts.compared += 1;
                if self.is_seen(probe) {
                    self.counts.marked += 1;
                    self.counts.spans += 1;
                    line.push_str(self.attribute);
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
                if self.is_seen(*probe) {
                    self.counts.marked += 1;
                    self.counts.spans += 1;
                    span("1", first, line);
                }
            }
            Probes::Ngrams { ngrams, whole } => {
                let Some(score) = self.overlap(*ngrams, *whole) else {
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

    /// The share of n-grams that stood in earlier paragraphs. A paragraph is never its own duplicate, since its n-grams
    /// are a group of questions.
    fn overlap(&mut self, ngrams: Ngrams, whole: Option<Probe>) -> Option<f64> {
        let asked = self.answers.by_ref().take(ngrams.asked);
        let seen = ngrams.seen + asked.filter(|seen| **seen).count();
        match whole {
            Some(Probe::Foreign) => None,
            Some(probe) => Some(f64::from(u8::from(self.is_seen(probe)))),
            None if ngrams.total == 0 => None,
            None => Some(seen as f64 / ngrams.total as f64),
        }
    }

    fn is_seen(&mut self, probe: Probe) -> bool {
        match probe {
            Probe::Asked => self.answers.next().copied().unwrap_or_default(),
            Probe::Answer(seen) => seen,
            Probe::Foreign => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bloom::{Filter, Questions, Record, Sizing};
    use xxhash_rust::xxh3::xxh3_128;

    /// What a new filter makes of groups of keys, one after the other.
    fn lines(groups: &[&[u128]], rows: &[RowKeys], threshold: f64) -> Vec<String> {
        let filter = Filter::new(Sizing::for_keys(100, 1e-9), Record::default());
        let mut questions = Questions::default();
        for group in groups {
            group.iter().for_each(|key| questions.push(xxh3_128(&key.to_le_bytes())));
            questions.end_group();
        }
        let mut seen = vec![false; questions.len()];
        filter.decide(&questions, &mut seen);
        let mut marker = Marker::new("\"k\"", threshold, &seen);
        let mut found = Vec::new();
        for keys in rows {
            let mut line = String::new();
            marker.row(&KeyedRow { id: "\"1\"".into(), separators: 0, keys: keys.clone() }, &mut line);
            found.push(line);
        }
        assert!(marker.answers.next().is_none());
        found
    }

    fn document(probe: Option<Probe>) -> RowKeys {
        RowKeys::Document { probe, length_bytes: 5 }
    }

    #[test]
    fn the_first_document_has_no_mark_and_the_next_has() {
        let rows = [
            document(Some(Probe::Asked)),
            document(Some(Probe::Asked)),
            document(None),
            document(Some(Probe::Foreign)),
        ];
        assert_eq!(
            lines(&[&[7], &[7]], &rows, 1.0),
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
        let groups: [&[u128]; 3] = [&[1, 1, 1, 2], &[1, 2, 3, 4], &[3, 4, 3, 4]];
        let probes = Probes::Ngrams { ngrams: Ngrams { total: 4, seen: 0, asked: 4 }, whole: None };
        let paragraph = |start| Paragraph { start, end: start + 1, probes: probes.clone() };
        let rows = [RowKeys::Paragraphs(Some((0..3).map(paragraph).collect()))];
        let expected = "{\"attributes\":{\"k\":[[0,1,0.0],[1,2,0.5],[2,3,1.0]]},\"id\":\"1\"}\n";
        assert_eq!(lines(&groups, &rows, 0.0), [expected]);
        let expected = "{\"attributes\":{\"k\":[[1,2,0.5],[2,3,1.0]]},\"id\":\"1\"}\n";
        assert_eq!(lines(&groups, &rows, 0.5), [expected]);
    }

    #[test]
    fn a_row_without_text_has_no_attribute() {
        assert_eq!(lines(&[], &[RowKeys::Paragraphs(None)], 1.0), ["{\"attributes\":{},\"id\":\"1\"}\n"]);
        assert_eq!(
            lines(&[], &[RowKeys::Paragraphs(Some(vec![]))], 1.0),
            ["{\"attributes\":{\"k\":[]},\"id\":\"1\"}\n"]
        );
    }
}
