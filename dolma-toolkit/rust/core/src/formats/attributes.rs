//! Rows of attributes: docs/formats/attributes.md, version 1.

use std::collections::HashMap;

use serde_json::{Map, Value};

use crate::document::{parse_object, Place};
use crate::error::{Code, Result};

/// Every ASCII character but letters, digits and `_` becomes `_`; other scripts are unchanged.
pub fn variable_name(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' || !c.is_ascii() { c } else { '_' }).collect()
}

/// The first two names whose attributes would have the same key.
pub fn same_key<'a>(names: impl IntoIterator<Item = &'a str>) -> Option<(&'a str, &'a str)> {
    let mut by_key = HashMap::new();
    names.into_iter().find_map(|name| by_key.insert(variable_name(name), name).map(|other| (other, name)))
}

/// The key of one span type of one tagger.
pub fn key(experiment: &str, tagger: &str, span_type: &str) -> String {
    format!("{}__{}__{}", variable_name(experiment), variable_name(tagger), variable_name(span_type))
}

/// Scores have five decimals, rounded half to even on the exact decimal value, as Python's `round` does.
pub fn round_score(score: f64) -> f64 {
    if !score.is_finite() {
        return score;
    }
    format!("{score:.5}").parse().unwrap_or(score)
}

/// Reads one line of an attribute file and checks it. A value may be any JSON.
pub fn parse_value(line: &[u8], place: &Place<'_>) -> Result<Map<String, Value>> {
    let row = parse_object(line, place)?;
    match row.get("id") {
        None => return Err(place.missing("id", "a string")),
        Some(Value::String(_)) => {}
        Some(other) => return Err(place.wrong_type("id", other, "a string")),
    }
    match row.get("attributes") {
        None => return Err(place.missing("attributes", "an object")),
        Some(value) => check_object(value, place)?,
    }
    match row.get("source") {
        None | Some(Value::Null | Value::String(_)) => Ok(row),
        Some(other) => Err(place.wrong_type("source", other, "a string")),
    }
}

/// Checks that attributes are an object. Its values are not checked.
pub fn check_object(value: &Value, place: &Place<'_>) -> Result<()> {
    match value {
        Value::Object(_) => Ok(()),
        other => Err(place.wrong_type("attributes", other, "an object")),
    }
}

/// Checks that the value of `key` is a list of spans: `[[start, end, score], …]` with `0 ≤ start ≤ end`. A span may have
/// more elements.
pub fn check_spans(key: &str, value: &Value, place: &Place<'_>) -> Result<()> {
    let field = || format!("attributes.{key}");
    let Value::Array(spans) = value else {
        return Err(place.wrong_type(&field(), value, "an array of [start, end, score]"));
    };
    let mut numbered = spans.iter().enumerate();
    numbered.try_for_each(|(index, span)| check_span(span, &|| format!("{}.{index}", field()), place))
}

/// Whether a value is a list of spans, as far as one can see: other lists of three numbers look the same.
pub fn are_spans(value: &Value) -> bool {
    check_spans("", value, &Place { path: "", line: 0 }).is_ok()
}

fn check_span(span: &Value, field: &dyn Fn() -> String, place: &Place<'_>) -> Result<()> {
    let Value::Array(parts) = span else {
        return Err(place.wrong_type(&field(), span, "an array of [start, end, score]"));
    };
    let [start, end, score, ..] = parts.as_slice() else {
        let message = format!("\"{}\" has {} parts; expected [start, end, score]", field(), parts.len());
        return Err(place.error(Some(&field()), Code::InvalidValue, message));
    };
    for (index, value, what) in [(0, start, "an integer start"), (1, end, "an integer end")] {
        if !(value.is_i64() || value.is_u64()) {
            return Err(place.wrong_type(&format!("{}.{index}", field()), value, what));
        }
    }
    if !score.is_number() {
        return Err(place.wrong_type(&format!("{}.2", field()), score, "a number as score"));
    }
    match (start.as_u64(), end.as_u64()) {
        (Some(start), Some(end)) if start <= end => Ok(()),
        _ => {
            let message = format!("\"{}\" is [{start}, {end}]; expected 0 ≤ start ≤ end", field());
            Err(place.error(Some(&field()), Code::OutOfRange, message))
        }
    }
}

/// Whether valid JSON is a list of spans as programs write them: without white space, numbers short and without exponent.
/// Lists that are written otherwise may be spans too.
pub fn are_plain_spans(json: &str) -> bool {
    let bytes = json.as_bytes();
    if bytes == b"[]" {
        return true;
    }
    let mut at = 0;
    loop {
        // `[` of the list, or `,` between spans
        if bytes.get(at) != Some(if at == 0 { &b'[' } else { &b',' }) || bytes.get(at + 1) != Some(&b'[') {
            return false;
        }
        at += 2;
        let Some((start, length)) = plain_integer(&bytes[at..]) else { return false };
        at += length;
        if bytes.get(at) != Some(&b',') {
            return false;
        }
        at += 1;
        let Some((end, length)) = plain_integer(&bytes[at..]) else { return false };
        at += length;
        if bytes.get(at) != Some(&b',') || start > end {
            return false;
        }
        at += 1;
        let score = bytes[at..].iter().take_while(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'-')).count();
        at += score;
        if !(1..=MAX_SCORE_BYTES).contains(&score) || bytes.get(at) != Some(&b']') {
            return false;
        }
        at += 1;
        if bytes.get(at) == Some(&b']') {
            return at + 1 == bytes.len();
        }
    }
}

/// Long enough for every score that is written in full, and far too short to be no finite number.
const MAX_SCORE_BYTES: usize = 40;

/// The integer at the beginning and its length, if it is below 10^18.
fn plain_integer(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0;
    let mut length = 0;
    while let Some(byte) = bytes.get(length).filter(|byte| byte.is_ascii_digit()) {
        value = value * 10 + u64::from(byte - b'0');
        length += 1;
        if length > 18 {
            return None;
        }
    }
    (length > 0).then_some((value, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_spans_are_spans() {
        for json in ["[]", "[[0,5,1]]", "[[0,5,1.0],[5,5,-0.25]]", "[[123456789012345678,123456789012345678,0.0]]"] {
            assert!(are_plain_spans(json), "{json}");
        }
        for json in [
            "{}",
            "null",
            "\"[]\"",
            "[1]",
            "[[0,5]]",
            "[[0,5,1,2]]",
            "[[5,0,1]]",
            "[[0,5,null]]",
            "[[0,5,\"1\"]]",
            "[[0.0,5,1]]",
            "[[-1,5,1]]",
            "[[0,5,1e999]]",
            "[[0,5,1],3]",
            "[[0,5,1],[]]",
            "[[0, 5, 1]]",
            "[[]]",
            "[[0,5,[]]]",
        ] {
            assert!(!are_plain_spans(json), "{json}");
        }
    }

    #[test]
    fn keys_hold_no_ascii_but_letters_digits_and_underscores() {
        assert_eq!(key("my exp", "dclm-oh", "__label__a.b"), "my_exp__dclm_oh____label__a_b");
        assert_eq!(key("实验", "é-1", "好评👍 a"), "实验__é_1__好评👍_a");
        assert_eq!(same_key(["好评", "差评", "a b", "a", "a-b"]), Some(("a b", "a-b")));
        assert_eq!(same_key(["好评", "差评", "a_b"]), None);
    }

    #[test]
    fn scores_round_like_python() {
        // Python: round(0.000005, 5) == 1e-05, round(2.675, 2)-style cases go by the exact binary value
        assert_eq!(round_score(0.000005), 1e-5);
        assert_eq!(round_score(1.0 / 3.0), 0.33333);
        assert_eq!(round_score(0.123455), 0.12345);
        assert_eq!(round_score(570.0), 570.0);
    }
}
