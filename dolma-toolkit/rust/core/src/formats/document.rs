//! Rows of documents: docs/formats/document.md, version 1.

use std::borrow::Cow;
use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::attributes;
use crate::error::{Code, Error, Result};

/// Where a row is, for messages.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// File, as it was named to the reader.
    pub path: &'a str,
    /// 1-based.
    pub line: u64,
}

impl Place<'_> {
    /// A format error at this place.
    pub fn error(&self, field: Option<&str>, code: Code, message: impl Into<String>) -> Error {
        Error::format(self.path, self.line, field, code, message)
    }

    /// `"field" is missing; expected <expected>`
    pub fn missing(&self, field: &str, expected: &str) -> Error {
        self.error(Some(field), Code::MissingField, format!("\"{field}\" is missing; expected {expected}"))
    }

    /// `"field" is <kind of value>; expected <expected>`
    pub fn wrong_type(&self, field: &str, value: &Value, expected: &str) -> Error {
        self.error(Some(field), Code::WrongType, format!("\"{field}\" is {}; expected {expected}", kind(value)))
    }
}

/// What kind of JSON value it is, with its article: `a number`, `null`.
pub fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// The fields that [`parse_row`] reads.
pub const FIELDS: [&str; 9] =
    ["id", "text", "source", "added", "created", "version", "metadata", "attributes", "subdomain"];

/// The fields of a row that taggers and the tokenizer read, borrowed from the line where nothing is escaped.
///
/// `metadata` and `attributes` stay raw JSON. Other fields are not kept; [`parse_value`] keeps everything.
#[derive(Debug, Deserialize)]
pub struct Row<'a> {
    /// Unique within its source, not empty.
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    /// May be empty.
    #[serde(borrow)]
    pub text: Cow<'a, str>,
    /// `""` where absent or null.
    #[serde(default, deserialize_with = "text_or_null")]
    pub source: Cow<'a, str>,
    /// `""` where absent or null.
    #[serde(default, deserialize_with = "text_or_null")]
    pub added: Cow<'a, str>,
    /// `""` where absent or null.
    #[serde(default, deserialize_with = "text_or_null")]
    pub created: Cow<'a, str>,
    /// Of the extraction.
    #[serde(borrow, default)]
    pub version: Option<Cow<'a, str>>,
    /// A JSON object.
    #[serde(borrow, default, deserialize_with = "raw_or_null")]
    pub metadata: Option<Cow<'a, RawValue>>,
    /// A JSON object.
    #[serde(borrow, default)]
    pub attributes: Option<&'a RawValue>,
}

fn raw_or_null<'de, D: serde::Deserializer<'de>>(from: D) -> std::result::Result<Option<Cow<'de, RawValue>>, D::Error> {
    Ok(Option::<&RawValue>::deserialize(from)?.map(Cow::Borrowed))
}

fn text_or_null<'de, D: serde::Deserializer<'de>, T: From<String> + Default>(
    from: D,
) -> std::result::Result<T, D::Error> {
    Ok(Option::<String>::deserialize(from)?.map(T::from).unwrap_or_default())
}

/// Reads one line as a row.
///
/// A line that is well formed costs one pass. Any other is parsed again to say exactly what is wrong.
pub fn parse_row<'a>(line: &'a [u8], place: &Place<'_>) -> Result<Row<'a>> {
    // the typed parse takes an array for an object whose fields are in order
    let is_object = line.trim_ascii_start().starts_with(b"{");
    if let (true, Ok(row)) = (is_object, serde_json::from_slice::<Row<'a>>(line)) {
        let object = |raw: &RawValue| raw.get().starts_with('{') && is_shallow(raw.get());
        // attributes merged into the row are rare, so they get the full check
        if !row.id.is_empty() && row.metadata.as_deref().is_none_or(object) && row.attributes.is_none() {
            return Ok(row);
        }
    }
    let row = parse_value(line, place)?;
    // a repeated field, or metadata as JSON text: the typed parse rejects it, the full one accepts it
    let text = |name: &str| row.get(name).and_then(Value::as_str).map(|text| Cow::Owned(text.to_string()));
    let metadata = match row.get("metadata").filter(|value| !value.is_null()) {
        Some(metadata) => {
            let raw = RawValue::from_string(metadata.to_string());
            Some(Cow::Owned(raw.map_err(|error| place.error(Some("metadata"), Code::NotJson, error.to_string()))?))
        }
        None => None,
    };
    Ok(Row {
        id: text("id").unwrap_or_default(),
        text: text("text").unwrap_or_default(),
        source: text("source").unwrap_or_default(),
        added: text("added").unwrap_or_default(),
        created: text("created").unwrap_or_default(),
        version: text("version"),
        metadata,
        attributes: None,
    })
}

/// Reads one line as a JSON object and checks every field of the format. The last of a repeated field counts. Metadata
/// that is JSON text becomes the object in the text.
pub fn parse_value(line: &[u8], place: &Place<'_>) -> Result<Map<String, Value>> {
    let mut row = parse_object(line, place)?;
    if let Some(Value::String(text)) = row.get("metadata") {
        let metadata = Value::Object(metadata_of_text(text, place)?);
        row.insert("metadata".to_string(), metadata);
    }
    check_value(&row, place)?;
    Ok(row)
}

/// The object in a string: programs with text columns only write metadata this way.
pub(crate) fn metadata_of_text(text: &str, place: &Place<'_>) -> Result<Map<String, Value>> {
    match serde_json::from_str(text) {
        Ok(Value::Object(metadata)) if is_shallow(text) => Ok(metadata),
        _ => {
            let message = "\"metadata\" is a string that is not a JSON object; expected an object, or one as JSON text";
            Err(place.error(Some("metadata"), Code::WrongType, message))
        }
    }
}

/// The fields of a JSON object in order, with values as written. A name may be repeated.
pub(crate) struct Fields<'a>(pub Vec<(Cow<'a, str>, &'a RawValue)>);

/// A JSON string, borrowed if nothing in it is escaped.
#[derive(Deserialize)]
pub(crate) struct Text<'a>(#[serde(borrow)] pub Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct FieldsVisitor;
        impl<'de> Visitor<'de> for FieldsVisitor {
            type Value = Fields<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a JSON object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> std::result::Result<Fields<'de>, M::Error> {
                let mut fields = Vec::with_capacity(16);
                while let Some((Text(name), value)) = map.next_entry()? {
                    fields.push((name, value));
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(FieldsVisitor)
    }
}

/// Appends `"id": "<name>:<line>"` to a row whose id is missing or null, and returns whether it did. The last of a
/// repeated field counts.
pub(crate) fn put_id(line: &mut Vec<u8>, name: &str, number: u64) -> bool {
    let Ok(Fields(fields)) = serde_json::from_slice(line) else { return false };
    let id = fields.iter().rev().find(|(field, _)| field == "id");
    if id.is_some_and(|(_, value)| value.get() != "null") {
        return false;
    }
    let separator = if fields.is_empty() { "" } else { "," };
    let id = Value::String(format!("{name}:{number}"));
    line.truncate(line.trim_ascii_end().len() - 1);
    line.extend_from_slice(format!("{separator}\"id\":{id}}}").as_bytes());
    true
}

/// Whether the value of a field nests no deeper than a row is parsed: text that is copied unparsed could.
pub(crate) fn is_shallow(value: &str) -> bool {
    // `serde_json` goes 127 deep, and the row is one of them
    const MAX_DEPTH: usize = 126;
    let opens = |byte: &u8| matches!(byte, b'[' | b'{');
    if !value.starts_with(['[', '{']) || value.bytes().filter(opens).count() <= MAX_DEPTH {
        return true;
    }
    let (mut depth, mut is_string, mut is_escaped) = (0_usize, false, false);
    for byte in value.bytes() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_string => is_escaped = true,
            b'"' => is_string = !is_string,
            _ if is_string => {}
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            return false;
        }
    }
    true
}

/// Reads one line as a JSON object, whatever its fields.
pub fn parse_object(line: &[u8], place: &Place<'_>) -> Result<Map<String, Value>> {
    match serde_json::from_slice(line) {
        Ok(Value::Object(row)) => Ok(row),
        Ok(other) => {
            Err(place.error(None, Code::NotObject, format!("the line is {}; expected a JSON object", kind(&other))))
        }
        Err(_) if line.iter().all(u8::is_ascii_whitespace) => {
            Err(place.error(None, Code::NotJson, "the line is blank; expected a JSON object"))
        }
        Err(error) => Err(place.error(None, Code::NotJson, not_json(line, &error))),
    }
}

/// Why a line is not JSON; `None` if it is.
pub fn why_not_json(line: &[u8]) -> Option<String> {
    serde_json::from_slice::<Value>(line).err().map(|error| not_json(line, &error))
}

/// Why a line is not JSON. Its bytes often say it better than the parser.
fn not_json(line: &[u8], error: &serde_json::Error) -> String {
    const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
    // a line of UTF-16, split at a byte 0x0a, starts with the other half of the line end or with the mark
    let is_wide =
        line.starts_with(b"\xff\xfe") || line.starts_with(b"\xfe\xff") || line.iter().take(8).any(|byte| *byte == 0);
    if is_wide {
        return "the line is not UTF-8 but UTF-16 or binary (it has NUL bytes or a UTF-16 byte-order mark); expected UTF-8"
            .to_owned();
    }
    if let Err(at) = std::str::from_utf8(line) {
        let at = at.valid_up_to();
        let byte = line.get(at).copied().unwrap_or_default();
        return format!(
            "the line is not UTF-8 (byte 0x{byte:02x}, column {}); expected UTF-8 (`iconv -t utf-8` converts)",
            at + 1
        );
    }
    if line.starts_with(BYTE_ORDER_MARK) {
        return "the line starts with a byte-order mark; expected one only at the start of a file".to_owned();
    }
    let column = error.column();
    let around = &line[column.saturating_sub(3).min(line.len())..];
    let begins = |word: &str| (0..3).any(|at| around.get(at..).is_some_and(|rest| rest.starts_with(word.as_bytes())));
    // drop "at line 1 column 5": the caller knows the line
    let reason = error.to_string();
    let reason = reason.split(" at line ").next().unwrap_or_default();
    if let Some(name) = ["-Infinity", "-NaN", "NaN", "Infinity"].into_iter().find(|name| begins(name)) {
        return format!("the line is not JSON ({name}, column {column}); expected a finite number or null");
    }
    if reason.contains("surrogate") || reason.contains("end of hex escape") {
        return format!("the line is not JSON (a lone surrogate, column {column}); expected a surrogate pair");
    }
    if let Some(name) = ["None", "True", "False", "'"].into_iter().find(|name| begins(name)) {
        return format!(
            "the line is not JSON but a Python literal ({name}, column {column}); expected JSON (`json.dumps` writes it)"
        );
    }
    format!("the line is not JSON ({reason}, column {column}); expected a JSON object")
}

/// Checks every field of the format; see the table in docs/formats/document.md.
pub fn check_value(row: &Map<String, Value>, place: &Place<'_>) -> Result<()> {
    for field in ["id", "text"] {
        match row.get(field) {
            None => return Err(place.missing(field, "a string")),
            Some(Value::String(_)) => {}
            Some(other) => return Err(place.wrong_type(field, other, "a string")),
        }
    }
    if row.get("id").and_then(Value::as_str) == Some("") {
        return Err(place.error(
            Some("id"),
            Code::InvalidValue,
            "\"id\" is empty; expected a name unique within its source",
        ));
    }
    for field in ["source", "added", "created", "subdomain"] {
        match row.get(field) {
            None | Some(Value::Null | Value::String(_)) => {}
            Some(other) => return Err(place.wrong_type(field, other, "a string")),
        }
    }
    match row.get("version") {
        None | Some(Value::Null | Value::String(_)) => {}
        Some(other) => return Err(place.wrong_type("version", other, "a string or null")),
    }
    match row.get("metadata") {
        None | Some(Value::Null) => {}
        Some(Value::Object(metadata)) => match metadata.get("subdomain") {
            None | Some(Value::Null | Value::String(_)) => {}
            Some(other) => return Err(place.wrong_type("metadata.subdomain", other, "a string")),
        },
        Some(other) => return Err(place.wrong_type("metadata", other, "an object")),
    }
    match row.get("attributes") {
        None | Some(Value::Null) => Ok(()),
        Some(value) => attributes::check_object(value, place),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place<'_> = Place { path: "a.jsonl", line: 3 };

    fn failure(line: &[u8]) -> (Code, Option<String>, String) {
        let Err(Error::Format(error)) = parse_row(line, &PLACE) else { panic!("accepted {line:?}") };
        assert_eq!((error.path.as_str(), error.line), ("a.jsonl", Some(3)));
        (error.code, error.field, error.message)
    }

    #[test]
    fn a_row_borrows_its_text() {
        let row = parse_row(br#"{"id":"1","text":"abc","n":[1,{}],"metadata":{"a":1}}"#, &PLACE).unwrap();
        assert!(matches!(row.text, Cow::Borrowed("abc")));
        assert_eq!(row.metadata.unwrap().get(), r#"{"a":1}"#);
    }

    #[test]
    fn errors_say_what_is_wrong() {
        assert_eq!(
            failure(br#"{"id":1,"text":""}"#),
            (Code::WrongType, Some("id".into()), "\"id\" is a number; expected a string".into())
        );
        assert_eq!(failure(br#"{"id":"1"}"#).0, Code::MissingField);
        assert_eq!(failure(br#"{"id":"","text":""}"#).0, Code::InvalidValue);
        assert_eq!(failure(b"[]").0, Code::NotObject);
        assert_eq!(failure(b" ").0, Code::NotJson);
        assert_eq!(failure(b"{\"id\":\"1\",\"text\":\"\xff\"}").0, Code::NotJson);
        assert_eq!(failure(br#"{"id":"1","text":"","metadata":3}"#).1.as_deref(), Some("metadata"));
        assert_eq!(failure(br#"{"id":"1","text":"","metadata":"3"}"#).1.as_deref(), Some("metadata"));
        assert_eq!(failure(br#"{"id":"1","text":"","attributes":[[0,1,1.0]]}"#).0, Code::WrongType);
        assert!(failure(br#"{"id":"#).2.contains("not JSON (EOF while parsing a value, column 6)"));
    }

    #[test]
    fn null_in_an_optional_field_is_no_field() {
        let line =
            br#"{"id":"1","text":"","version":null,"source":null,"metadata":null,"attributes":null,"subdomain":null}"#;
        let row = parse_row(line, &PLACE).unwrap();
        assert_eq!((row.source.as_ref(), row.metadata.is_none()), ("", true));
        assert_eq!(failure(br#"{"id":null,"text":""}"#).0, Code::WrongType);
    }

    #[test]
    fn the_last_of_repeated_fields_counts() {
        let line = br#"{"id":"1","text":"first","metadata":{"a":1},"source":"s","text":"second","metadata":{"b":2}}"#;
        let row = parse_row(line, &PLACE).unwrap();
        assert_eq!((&*row.text, &*row.source, row.metadata.unwrap().get()), ("second", "s", r#"{"b":2}"#));
    }

    #[test]
    fn metadata_may_be_json_text() {
        let row = parse_row(br#"{"id":"1","text":"","metadata":"{\"url\":\"x\"}"}"#, &PLACE).unwrap();
        assert_eq!(row.metadata.unwrap().get(), r#"{"url":"x"}"#);
    }

    #[test]
    fn the_cause_is_named() {
        for (line, cause) in [
            (&b"{\"id\":\"1\",\"text\":\"caf\xe9\"}"[..], "not UTF-8 (byte 0xe9, column 22)"),
            (b"\xff\xfe{\0\"\0i\0d\0\"\0", "UTF-16"),
            (b"\0{\0\"\0i\0d\0\"", "UTF-16"),
            (b"\xef\xbb\xbf{\"id\":\"1\",\"text\":\"\"}", "byte-order mark"),
            (br#"{"id":"1","text":"","metadata":{"score":NaN}}"#, "(NaN, column"),
            (br#"{"id":"1","text":"","x":Infinity}"#, "(Infinity, column"),
            (br#"{"id":"1","text":"","x":[1,-Infinity]}"#, "(-Infinity, column"),
            (br#"{"id":"1","text":"\ud83d"}"#, "lone surrogate"),
            (br#"{"id":"1","text":"\ud83d x"}"#, "lone surrogate"),
            (br#"{"id":"1","text":"\ude00"}"#, "lone surrogate"),
            (br#"{"id":"1","text":"","x":None}"#, "Python literal"),
            (br#"{'id':'1'}"#, "Python literal"),
        ] {
            let (code, _, message) = failure(line);
            assert_eq!(code, Code::NotJson);
            assert!(message.contains(cause), "{message} has no {cause}");
        }
    }

    #[test]
    fn a_row_without_id_gets_one() {
        for (line, expected) in [
            (&br#"{"text":"a"}"#[..], r#"{"text":"a","id":"d/a.jsonl:7"}"#),
            (b"{} \r", r#"{"id":"d/a.jsonl:7"}"#),
            (br#"{"id":null,"text":"}"}"#, r#"{"id":null,"text":"}","id":"d/a.jsonl:7"}"#),
            (br#"{"id":"1","text":"a"}"#, r#"{"id":"1","text":"a"}"#),
            (br#"{"id":1}"#, r#"{"id":1}"#),
            (b"{no", "{no"),
        ] {
            let mut row = line.to_vec();
            put_id(&mut row, "d/a.jsonl", 7);
            assert_eq!(String::from_utf8(row).unwrap(), expected);
        }
    }
}
