//! Where id and text stand in a row. By default the row is a document (docs/formats/document.md).

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::document::{parse_object, parse_row, Place, FIELDS};
use crate::error::{Code, Error, Result};
use crate::manifest::sha256_bytes;

/// Dotted names of the two fields, and the JSON type of the id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fields {
    /// A string field.
    pub text_field_name: String,
    /// `None`: ids are `<sha256 of the file's name>-<line>`.
    pub id_field_name: Option<String>,
    /// Whether ids are integers, written in decimal; strings otherwise.
    pub id_is_integer: bool,
}

impl Default for Fields {
    fn default() -> Fields {
        Fields { text_field_name: "text".to_owned(), id_field_name: Some("id".to_owned()), id_is_integer: false }
    }
}

impl Fields {
    /// The row fields to read.
    pub fn names(&self) -> Vec<&str> {
        if *self == Fields::default() {
            return FIELDS.to_vec();
        }
        let names = std::iter::once(&self.text_field_name).chain(&self.id_field_name);
        names.map(|name| name.split('.').next().unwrap_or_default()).collect()
    }

    /// Id and text of one row.
    pub fn read(&self, line: &[u8], place: &Place<'_>) -> Result<(String, String)> {
        if *self == Fields::default() {
            let row = parse_row(line, place)?;
            return Ok((row.id.into_owned(), row.text.into_owned()));
        }
        let row = parse_object(line, place)?;
        let text = match lookup(&row, &self.text_field_name, place)? {
            Value::String(text) => text.clone(),
            other => return Err(place.wrong_type(&self.text_field_name, other, "a string")),
        };
        let Some(name) = &self.id_field_name else {
            return Ok((format!("{}-{}", sha256_bytes(place.path.as_bytes()), place.line), text));
        };
        let id = match (lookup(&row, name, place)?, self.id_is_integer) {
            (Value::String(id), false) => id.clone(),
            (Value::Number(id), true) if id.is_i64() || id.is_u64() => id.to_string(),
            (other, true) => return Err(place.wrong_type(name, other, "an integer")),
            (other, false) => return Err(place.wrong_type(name, other, "a string")),
        };
        Ok((id, text))
    }
}

fn lookup<'a>(row: &'a Map<String, Value>, name: &str, place: &Place<'_>) -> Result<&'a Value> {
    let mut parts = name.split('.');
    let first = parts.next().unwrap_or_default();
    let missing = || -> Error {
        place.error(Some(name), Code::MissingField, format!("\"{name}\" is missing; expected it in every row"))
    };
    let mut value = row.get(first).ok_or_else(missing)?;
    for part in parts {
        value = value.get(part).ok_or_else(missing)?;
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place<'_> = Place { path: "d/a.jsonl", line: 4 };
    const ROW: &[u8] = br#"{"meta":{"n":7,"body":"b"},"id":"x","text":"t"}"#;

    fn fields(text: &str, id: Option<&str>, id_is_integer: bool) -> Fields {
        Fields { text_field_name: text.to_owned(), id_field_name: id.map(str::to_owned), id_is_integer }
    }

    #[test]
    fn fields_are_found_by_dotted_names() {
        assert_eq!(Fields::default().read(ROW, &PLACE).unwrap(), ("x".to_owned(), "t".to_owned()));
        assert_eq!(
            fields("meta.body", Some("meta.n"), true).read(ROW, &PLACE).unwrap(),
            ("7".to_owned(), "b".to_owned())
        );
        let (id, _) = fields("text", None, false).read(ROW, &PLACE).unwrap();
        assert_eq!(id, format!("{}-4", sha256_bytes(b"d/a.jsonl")));
    }

    #[test]
    fn an_absent_or_mistyped_field_is_named() {
        let code = |fields: Fields| match fields.read(ROW, &PLACE) {
            Err(Error::Format(error)) => (error.code, error.field),
            other => panic!("{other:?}"),
        };
        assert_eq!(code(fields("meta.x", Some("id"), false)), (Code::MissingField, Some("meta.x".to_owned())));
        assert_eq!(code(fields("text", Some("meta.n"), false)), (Code::WrongType, Some("meta.n".to_owned())));
        assert_eq!(code(fields("meta", Some("id"), false)), (Code::WrongType, Some("meta".to_owned())));
    }
}
