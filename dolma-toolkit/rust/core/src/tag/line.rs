//! One attribute line, put together as its spans are found and written as JSON without a detour.

use std::collections::{BTreeSet, HashSet};
use std::hash::BuildHasher;
use std::ops::Range;

use rustc_hash::FxBuildHasher;

use crate::attributes::{round_score, variable_name};

/// The attributes of one document, by key, in the order in which the keys were first found.
#[derive(Default)]
pub struct Attributes {
    /// all keys, with `"` after each
    names: String,
    keys: Vec<Key>,
    spans: Vec<Chained>,
}

struct Key {
    name: Range<usize>,
    hash: u64,
    /// first and last of its spans
    ends: Option<(usize, usize)>,
}

struct Chained {
    start: usize,
    end: usize,
    score: f64,
    next: Option<usize>,
}

impl Attributes {
    /// The index of the key `<prefix><kind>`, where `prefix` holds no character that a key cannot.
    pub fn key(&mut self, prefix: &str, kind: &str) -> usize {
        let start = self.names.len();
        self.names.push_str(prefix);
        if kind.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            self.names.push_str(kind);
        } else {
            self.names.push_str(&variable_name(kind));
        }
        let hash = FxBuildHasher.hash_one(&self.names[start..]);
        let same = |key: &Key| key.hash == hash && self.names[key.name.clone()] == self.names[start..];
        if let Some(known) = self.keys.iter().position(same) {
            self.names.truncate(start);
            return known;
        }
        self.keys.push(Key { name: start..self.names.len(), hash, ends: None });
        // so that two lists of keys are never one text
        self.names.push('"');
        self.keys.len() - 1
    }

    /// Appends a span to a key that `key` gave.
    pub fn push(&mut self, key: usize, start: usize, end: usize, score: f64) {
        let index = self.spans.len();
        self.spans.push(Chained { start, end, score, next: None });
        let ends = &mut self.keys[key].ends;
        *ends = match *ends {
            None => Some((index, index)),
            Some((first, last)) => {
                self.spans[last].next = Some(index);
                Some((first, index))
            }
        };
    }

    /// Number of spans.
    pub fn num_spans(&self) -> u64 {
        self.spans.len() as u64
    }

    /// The line, with its line end.
    pub fn json(&self, id: &str, source: &str) -> Vec<u8> {
        let mut line = Vec::with_capacity(self.names.len() + 24 * self.spans.len() + 8 * self.keys.len() + 64);
        line.extend_from_slice(b"{\"id\":");
        put_text(&mut line, id);
        line.extend_from_slice(b",\"attributes\":{");
        for (index, key) in self.keys.iter().enumerate() {
            line.extend_from_slice(if index == 0 { b"\"" } else { b",\"" });
            line.extend_from_slice(&self.names.as_bytes()[key.name.clone()]);
            line.extend_from_slice(b"\":[");
            let mut next = key.ends.map(|(first, _)| first);
            while let Some(at) = next {
                let span = &self.spans[at];
                line.push(b'[');
                put_integer(&mut line, span.start as u64);
                line.push(b',');
                put_integer(&mut line, span.end as u64);
                line.push(b',');
                put_score(&mut line, span.score);
                line.push(b']');
                next = span.next;
                if next.is_some() {
                    line.push(b',');
                }
            }
            line.push(b']');
        }
        line.extend_from_slice(b"},\"source\":");
        put_text(&mut line, source);
        line.extend_from_slice(b"}\n");
        line
    }

    /// The keys alone, without their spans.
    pub fn into_names(self) -> Names {
        Names { names: self.names, ranges: self.keys.into_iter().map(|key| key.name).collect() }
    }
}

/// The keys of a line.
pub struct Names {
    names: String,
    ranges: Vec<Range<usize>>,
}

/// All keys that any line held. Few lines hold others than the lines before them, so whole lines are compared first.
#[derive(Clone, Debug, Default)]
pub struct KeySet {
    pub keys: BTreeSet<String>,
    lines: HashSet<String, FxBuildHasher>,
}

/// Combinations of keys that are remembered at most.
const MAX_LINES: usize = 1024;

impl KeySet {
    pub fn add(&mut self, line: &Names) {
        if self.lines.contains(&line.names) {
            return;
        }
        for name in line.ranges.iter().map(|range| &line.names[range.clone()]) {
            if !self.keys.contains(name) {
                self.keys.insert(name.to_owned());
            }
        }
        if self.lines.len() < MAX_LINES {
            self.lines.insert(line.names.clone());
        }
    }
}

fn put_text(line: &mut Vec<u8>, text: &str) {
    // writing to memory cannot fail
    let _ = serde_json::to_writer(line, text);
}

fn put_integer(line: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0_u8; 20];
    let mut first = digits.len();
    loop {
        first -= 1;
        digits[first] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    line.extend_from_slice(&digits[first..]);
}

/// Writes what `serde_json` writes of `round_score(score)`.
fn put_score(line: &mut Vec<u8>, score: f64) {
    let scaled = score.abs() * 1e5;
    let whole = scaled.floor();
    // The product is off by less than 2e-7 below 1e9, so where it is further than that from a tie the digits are sure.
    // A number of at most 15 digits is the shortest name of the double next to it.
    if !(scaled < 1e9 && (scaled - whole - 0.5).abs() > 1e-6) {
        let _ = serde_json::to_writer(line, &round_score(score));
        return;
    }
    let units = whole as u64 + u64::from(scaled - whole > 0.5);
    if score.is_sign_negative() {
        line.push(b'-');
    }
    put_integer(line, units / 100_000);
    line.push(b'.');
    let mut fraction = units % 100_000;
    let mut digits = [b'0'; 5];
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (fraction % 10) as u8;
        fraction /= 10;
    }
    let kept = digits.iter().rposition(|digit| *digit != b'0').map_or(1, |last| last + 1);
    line.extend_from_slice(&digits[..kept]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(score: f64) -> String {
        let mut line = Vec::new();
        put_score(&mut line, score);
        String::from_utf8(line).unwrap()
    }

    fn expected(score: f64) -> String {
        serde_json::to_string(&round_score(score)).unwrap()
    }

    #[test]
    fn scores_of_note_are_written_as_serde_writes_them() {
        for score in [0.0, -0.0, 1.0, 570.0, 1e-5, 2e-5, 1.5e-5, 0.000005, -0.000001, 0.123455, 9999.99999, 1e4, 1e9] {
            assert_eq!(written(score), expected(score), "{score:?}");
            assert_eq!(written(-score), expected(-score), "-{score:?}");
        }
        for score in [1e15, 1e16, 1e17, 1e300, 123_456_789_012.345_67, f64::MIN_POSITIVE] {
            assert_eq!(written(score), expected(score), "{score:?}");
        }
    }

    proptest! {
        #[test]
        fn scores_are_written_as_serde_writes_them(score in prop_oneof![
            -1.0..1.0_f64, -20_000.0..20_000.0_f64, any::<f64>().prop_filter("finite", |score| score.is_finite()),
            (0_u32..2_000_000).prop_map(|units| f64::from(units) / 200_000.0),
            (1_u32..3000, 1_u32..3000).prop_map(|(a, b)| f64::from(a) / f64::from(b)),
        ]) {
            prop_assert_eq!(written(score), expected(score));
        }
    }

    #[test]
    fn keys_stand_in_the_order_of_their_first_span() {
        let mut attributes = Attributes::default();
        let empty = attributes.key("e__t__", "none");
        let dotted = attributes.key("e__t__", "a.b");
        assert_eq!(attributes.key("e__t__", "a_b"), dotted);
        attributes.push(dotted, 0, 1, 1.0);
        let other = attributes.key("e__u__", "é");
        attributes.push(other, 0, 2, 0.25);
        attributes.push(dotted, 1, 2, 1.0 / 3.0);
        assert_ne!(attributes.key("e__u__", "è"), other);
        assert_eq!((empty, attributes.num_spans()), (0, 3));
        let line = String::from_utf8(attributes.json("a\"b", "")).unwrap();
        let spans = r#""e__t__none":[],"e__t__a_b":[[0,1,1.0],[1,2,0.33333]],"e__u__é":[[0,2,0.25]],"e__u__è":[]"#;
        assert_eq!(line, format!("{{\"id\":\"a\\\"b\",\"attributes\":{{{spans}}},\"source\":\"\"}}\n"));
        let mut keys = KeySet::default();
        keys.add(&attributes.into_names());
        assert_eq!(keys.keys.len(), 4);
    }
}
