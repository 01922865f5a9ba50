//! Rows of attributes: docs/formats/attributes.md, version 1.

use serde_json::{Map, Value};

use crate::document::{parse_object, Place};
use crate::error::{Code, Result};

/// Every character that cannot stand in an attribute key becomes `_`.
pub fn variable_name(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect()
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

/// Reads one line of an attribute file and checks it.
pub fn parse_value(line: &[u8], place: &Place<'_>) -> Result<Map<String, Value>> {
    let row = parse_object(line, place)?;
    match row.get("id") {
        None => return Err(place.missing("id", "a string")),
        Some(Value::String(_)) => {}
        Some(other) => return Err(place.wrong_type("id", other, "a string")),
    }
    match row.get("attributes") {
        None => return Err(place.missing("attributes", "an object")),
        Some(value) => check_spans(value, place)?,
    }
    match row.get("source") {
        None | Some(Value::Null | Value::String(_)) => Ok(row),
        Some(other) => Err(place.wrong_type("source", other, "a string")),
    }
}

/// Checks an object of spans: `{key: [[start, end, score], …]}` with `0 ≤ start ≤ end`.
pub fn check_spans(value: &Value, place: &Place<'_>) -> Result<()> {
    let Value::Object(attributes) = value else {
        return Err(place.wrong_type("attributes", value, "an object"));
    };
    for (key, spans) in attributes {
        let field = || format!("attributes.{key}");
        let Value::Array(spans) = spans else {
            return Err(place.wrong_type(&field(), spans, "an array of [start, end, score]"));
        };
        for (index, span) in spans.iter().enumerate() {
            check_span(span, &|| format!("{}.{index}", field()), place)?;
        }
    }
    Ok(())
}

fn check_span(span: &Value, field: &dyn Fn() -> String, place: &Place<'_>) -> Result<()> {
    let Value::Array(parts) = span else {
        return Err(place.wrong_type(&field(), span, "an array of [start, end, score]"));
    };
    let [start, end, score] = parts.as_slice() else {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_hold_only_letters_digits_and_underscores() {
        assert_eq!(key("my exp", "dclm-oh", "__label__a.b"), "my_exp__dclm_oh____label__a_b");
        assert_eq!(variable_name("é1"), "_1");
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
