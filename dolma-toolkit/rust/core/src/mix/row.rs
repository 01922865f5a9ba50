//! A document with its attributes, parsed no further than needed: fields that no rule reads are copied from input to
//! output byte for byte.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::BTreeSet;
use std::fmt;
use std::io::Write;

use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::attributes;
use crate::document::{self, Place};
use crate::error::{Code, Result};
use crate::jsonpath::Needs;

/// Fields of a JSON object, sorted by name, values as they stand in the line; of equal names the last counts.
#[derive(Debug, Clone, Default)]
pub struct Fields<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Fields<'a> {
    /// The value of a field.
    pub fn get(&self, name: &str) -> Option<&'a RawValue> {
        let index = self.0.binary_search_by(|(field, _)| (**field).cmp(name)).ok()?;
        Some(self.0[index].1)
    }

    /// In order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &'a RawValue)> {
        self.0.iter().map(|(name, value)| (&**name, *value))
    }

    fn from_unsorted(mut fields: Vec<(Cow<'a, str>, &'a RawValue)>) -> Self {
        let sorted = fields.windows(2).all(|pair| pair[0].0 < pair[1].0);
        if !sorted {
            // stable, so that of equal names the last in the line is the last here
            fields.sort_by(|(a, _), (b, _)| a.cmp(b));
            fields.reverse();
            fields.dedup_by(|(a, _), (b, _)| a == b);
            fields.reverse();
        }
        Self(fields)
    }

    /// With the fields of `others` laid over them.
    fn overlaid(self, others: Vec<Self>) -> Self {
        let mut fields = self.0;
        others.into_iter().for_each(|other| fields.extend(other.0));
        Self::from_unsorted(fields)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        document::Fields::deserialize(deserializer).map(|fields| Fields::from_unsorted(fields.0))
    }
}

/// One span: start and end in characters, and the score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Span {
    /// first character
    pub start: u64,
    /// the character after the last
    pub end: u64,
    /// of what found it
    pub score: f64,
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct SpanVisitor;
        impl<'de> Visitor<'de> for SpanVisitor {
            type Value = Span;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("[start, end, score]")
            }

            fn visit_seq<S: SeqAccess<'de>>(self, mut parts: S) -> std::result::Result<Span, S::Error> {
                let few = |count: usize| serde::de::Error::invalid_length(count, &self);
                let start = parts.next_element()?.ok_or_else(|| few(0))?;
                let end = parts.next_element()?.ok_or_else(|| few(1))?;
                let score = parts.next_element()?.ok_or_else(|| few(2))?;
                // other values of a span
                while parts.next_element::<IgnoredAny>()?.is_some() {}
                if start > end {
                    return Err(serde::de::Error::custom("a span ends before it starts"));
                }
                Ok(Span { start, end, score })
            }
        }
        deserializer.deserialize_seq(SpanVisitor)
    }
}

/// Checks that every string in the JSON can be read and every number is finite. Keeps nothing.
struct Sound;

impl<'de> Deserialize<'de> for Sound {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct SoundVisitor;
        impl<'de> Visitor<'de> for SoundVisitor {
            type Value = Sound;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("JSON")
            }

            fn visit_unit<E>(self) -> std::result::Result<Sound, E> {
                Ok(Sound)
            }

            fn visit_bool<E>(self, _: bool) -> std::result::Result<Sound, E> {
                Ok(Sound)
            }

            fn visit_i64<E>(self, _: i64) -> std::result::Result<Sound, E> {
                Ok(Sound)
            }

            fn visit_u64<E>(self, _: u64) -> std::result::Result<Sound, E> {
                Ok(Sound)
            }

            fn visit_f64<E>(self, _: f64) -> std::result::Result<Sound, E> {
                Ok(Sound)
            }

            fn visit_str<E>(self, _: &str) -> std::result::Result<Sound, E> {
                Ok(Sound)
            }

            fn visit_seq<S: SeqAccess<'de>>(self, mut items: S) -> std::result::Result<Sound, S::Error> {
                while items.next_element::<Sound>()?.is_some() {}
                Ok(Sound)
            }

            fn visit_map<M: MapAccess<'de>>(self, mut fields: M) -> std::result::Result<Sound, M::Error> {
                while fields.next_entry::<Sound, Sound>()?.is_some() {}
                Ok(Sound)
            }
        }
        deserializer.deserialize_any(SoundVisitor)
    }
}

/// A row of an attribute file.
#[derive(Debug, Deserialize)]
pub struct AttributeRow<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    attributes: Fields<'a>,
}

/// A key that two rows of the same document have, and the numbers of the rows.
pub fn shared_key<'r>(rows: &'r [AttributeRow<'_>]) -> Option<(&'r str, usize, usize)> {
    rows.iter().enumerate().skip(1).find_map(|(later, row)| {
        rows[..later].iter().enumerate().find_map(|(earlier, other)| {
            let key = row.attributes.iter().map(|(key, _)| key).find(|key| other.attributes.get(key).is_some());
            key.map(|key| (key, earlier, later))
        })
    })
}

impl<'a> AttributeRow<'a> {
    /// Reads a line; `None` if anything is wrong with it.
    pub fn read(line: &'a [u8]) -> Option<Self> {
        // an array would pass for an object whose fields stand in order
        let line = Some(line).filter(|line| line.trim_ascii_start().starts_with(b"{"))?;
        serde_json::from_slice::<Self>(line).ok().filter(|row| values_are_sound(&row.attributes))
    }

    /// Keys and values, sorted by key.
    pub fn values(&self) -> impl Iterator<Item = (&str, Attribute)> {
        self.attributes.iter().map(|(key, raw)| (key, Attribute::of(raw)))
    }

    /// Reads a line and checks it, and that it belongs to the document `id`.
    pub fn parse(line: &'a [u8], place: &Place<'_>, id: &str) -> Result<Self> {
        let row = match Self::read(line) {
            Some(row) => row,
            // the slow way says exactly what is wrong
            None => {
                attributes::parse_value(line, place)?;
                serde_json::from_slice(line)
                    .map_err(|error| place.error(None, Code::InvalidValue, format!("the row is unusable: {error}")))?
            }
        };
        if row.id == id {
            return Ok(row);
        }
        let message = format!("\"id\" is \"{}\"; expected \"{id}\", the id of the document on this line", row.id);
        Err(place.error(Some("id"), Code::Misaligned, message))
    }
}

/// Attribute values may be any JSON and are copied unchanged, so JSON that readers could not parse must be found here.
fn values_are_sound(fields: &Fields<'_>) -> bool {
    let is_sound = |json: &str| attributes::are_plain_spans(json) || serde_json::from_str::<Sound>(json).is_ok();
    fields.iter().all(|(_, value)| is_sound(value.get()))
}

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq)]
pub enum Attribute {
    /// what taggers write
    Spans(Vec<Span>),
    /// one score for the whole document, as other tools write it
    Number(f64),
    /// `null`, which counts as no attribute
    Null,
    /// any other JSON
    Other,
}

impl Attribute {
    fn of(raw: &RawValue) -> Self {
        match raw.get().as_bytes().first() {
            Some(b'[') => serde_json::from_str(raw.get()).map_or(Self::Other, Self::Spans),
            Some(b'n') => Self::Null,
            Some(b'-' | b'0'..=b'9') => serde_json::from_str(raw.get()).map_or(Self::Other, Self::Number),
            _ => Self::Other,
        }
    }
}

/// A document and all its attributes.
#[derive(Debug)]
pub struct Row<'a> {
    fields: Fields<'a>,
    attributes: Option<Fields<'a>>,
    /// its id
    pub id: Cow<'a, str>,
    /// its text
    pub text: Cow<'a, str>,
    /// where it comes from
    pub source: Cow<'a, str>,
}

impl<'a> Row<'a> {
    /// Reads a line of a document file; `None` if anything about it is unusual. Then [`usual`] normalizes the line or says
    /// what is wrong.
    pub fn read(line: &'a [u8]) -> Option<Self> {
        serde_json::from_slice::<Fields<'a>>(line).ok().and_then(Self::from_fields)
    }

    /// `None` unless every field has its type.
    fn from_fields(fields: Fields<'a>) -> Option<Self> {
        let text = |name: &str| fields.get(name).map(|raw| serde_json::from_str::<document::Text<'a>>(raw.get()));
        let id = text("id")?.ok()?.0;
        let body = text("text")?.ok()?.0;
        let optional = |name: &str| fields.get(name).filter(|raw| raw.get() != "null");
        let source = match optional("source") {
            Some(raw) => serde_json::from_str::<document::Text<'a>>(raw.get()).ok()?.0,
            None => "".into(),
        };
        let starts = |name: &str, sign: char| optional(name).is_none_or(|raw| raw.get().starts_with(sign));
        let well_typed = ["added", "created", "subdomain", "version"].iter().all(|name| starts(name, '"'))
            && starts("metadata", '{')
            && !id.is_empty()
            && fields.iter().all(|(name, raw)| name == "attributes" || document::is_shallow(raw.get()));
        let attributes = match optional("attributes") {
            None => None,
            Some(raw) => Some(serde_json::from_str::<Fields<'a>>(raw.get()).ok().filter(values_are_sound)?),
        };
        well_typed.then_some(Self { fields, attributes, id, text: body, source })
    }

    /// Adds attributes. They override those of the document itself.
    pub fn add_attributes(&mut self, rows: Vec<AttributeRow<'a>>) {
        if rows.is_empty() {
            return;
        }
        let before = self.attributes.take().unwrap_or_default();
        self.attributes = Some(before.overlaid(rows.into_iter().map(|row| row.attributes).collect()));
    }

    /// An attribute, if the document has it.
    pub fn attribute(&self, key: &str) -> Option<Attribute> {
        Some(Attribute::of(self.attributes.as_ref()?.get(key)?)).filter(|value| *value != Attribute::Null)
    }

    /// The spans of an attribute; none if the document lacks it. Any other value is an error.
    pub fn spans(&self, key: &str, place: &Place<'_>) -> Result<Vec<Span>> {
        match self.attribute(key) {
            None => Ok(Vec::new()),
            Some(Attribute::Spans(spans)) => Ok(spans),
            Some(_) => {
                let raw = self.attributes.as_ref().and_then(|fields| fields.get(key)).map_or("null", RawValue::get);
                let value = serde_json::from_str(raw).unwrap_or_default();
                attributes::check_spans(key, &value, place)?;
                let message = format!("\"attributes.{key}\" is not a list of spans; expected [[start, end, score], …]");
                Err(place.error(Some(&format!("attributes.{key}")), Code::WrongType, message))
            }
        }
    }

    /// The keys of all attributes.
    pub fn attribute_keys(&self) -> impl Iterator<Item = &str> {
        self.attributes.iter().flat_map(|fields| fields.iter().map(|(key, _)| key))
    }

    /// The document as a value, with no more in it than `needs` asks for, and whether all of that could be read: what cannot
    /// (half a surrogate pair, a number beyond all floats) is null.
    pub fn value(&self, needs: &Needs) -> (Value, bool) {
        let is_whole = Cell::new(true);
        let parse = |raw: &RawValue| {
            serde_json::from_str(raw.get()).unwrap_or_else(|_| {
                is_whole.set(false);
                Value::Null
            })
        };
        let object = |fields: &Fields<'_>, wanted: Option<&BTreeSet<String>>| {
            let some = fields.iter().filter(|(key, _)| wanted.is_none_or(|wanted| wanted.contains(*key)));
            Value::Object(some.map(|(key, raw)| (key.to_string(), parse(raw))).collect())
        };
        let part = |name: &str, wanted: Option<&BTreeSet<String>>| match (name, &self.attributes) {
            ("attributes", Some(fields)) => Some(object(fields, wanted)),
            _ => self.fields.get(name).map(|raw| match wanted {
                Some(_) if raw.get().starts_with('{') => match serde_json::from_str(raw.get()) {
                    Ok(fields) => object(&fields, wanted),
                    Err(_) => parse(raw),
                },
                _ => parse(raw),
            }),
        };
        let mut document = Map::new();
        if needs.everything {
            let names = self.fields.iter().map(|(name, _)| name).chain(["attributes"]);
            document.extend(names.filter_map(|name| Some((name.to_string(), part(name, None)?))));
        } else {
            let fields = needs.fields.iter();
            document.extend(fields.filter_map(|(name, keys)| Some((name.clone(), part(name, keys.as_ref())?))));
        }
        (Value::Object(document), is_whole.get())
    }

    /// The document as JSON, with no more in it than `needs` asks for.
    pub fn json(&self, needs: &Needs) -> Vec<u8> {
        let mut line = Vec::new();
        if needs.everything {
            self.write(&mut line, &Changes::default());
            return line;
        }
        let mut separator = b'{';
        for (name, keys) in &needs.fields {
            let raw = self.fields.get(name);
            let is_attributes = name == "attributes" && self.attributes.is_some();
            if raw.is_none() && !is_attributes {
                continue;
            }
            line.push(separator);
            separator = b',';
            put_string(&mut line, name);
            line.push(b':');
            let chosen = |(key, _): &(&str, &RawValue)| keys.as_ref().is_none_or(|keys| keys.contains(*key));
            match (&self.attributes, raw, keys) {
                (Some(fields), _, _) if is_attributes => put_object(&mut line, fields.iter().filter(chosen), &[]),
                (_, Some(raw), Some(_)) if raw.get().starts_with('{') => {
                    let fields: Fields<'_> = serde_json::from_str(raw.get()).unwrap_or_default();
                    put_object(&mut line, fields.iter().filter(chosen), &[]);
                }
                (_, raw, _) => line.extend(raw.map_or("null", RawValue::get).as_bytes()),
            }
        }
        line.extend(if separator == b'{' { "{}" } else { "}" }.as_bytes());
        line
    }

    /// Appends the document as one JSON object without a line end, top-level keys sorted.
    pub fn write(&self, line: &mut Vec<u8>, changes: &Changes<'_>) {
        let mut names: Vec<&str> = self.fields.iter().map(|(name, _)| name).collect();
        for (name, present) in [("attributes", self.attributes.is_some()), ("metadata", !changes.metadata.is_empty())] {
            if let (true, Err(index)) = (present, names.binary_search(&name)) {
                names.insert(index, name);
            }
        }
        let mut separator = b'{';
        for name in names {
            let discarded = changes.discard_fields.iter().any(|field| field == name);
            let has_metadata = name == "metadata" && !changes.metadata.is_empty();
            if discarded && !has_metadata {
                continue;
            }
            line.push(separator);
            separator = b',';
            put_string(line, name);
            line.push(b':');
            match (name, &self.attributes, changes.text) {
                ("text", _, Some(text)) => put_string(line, text),
                ("attributes", Some(attributes), _) => put_object(line, attributes.iter(), &[]),
                ("metadata", _, _) if has_metadata => self.put_metadata(line, changes, discarded),
                _ => line.extend(self.fields.get(name).map_or("null", RawValue::get).as_bytes()),
            }
        }
        line.push(b'}');
    }

    fn put_metadata(&self, line: &mut Vec<u8>, changes: &Changes<'_>, discarded: bool) {
        let old = self.fields.get("metadata").filter(|_| !discarded);
        let old: Fields<'_> = old.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default();
        put_object(line, old.iter(), &changes.metadata);
    }
}

/// What differs between a document and what is written of it.
#[derive(Debug, Default)]
pub struct Changes<'a> {
    /// another text
    pub text: Option<&'a str>,
    /// strings laid over the metadata, sorted by name
    pub metadata: Vec<(&'a str, String)>,
    /// top-level fields that are left out
    pub discard_fields: &'a [String],
}

fn put_string(line: &mut Vec<u8>, text: &str) {
    // writing to memory cannot fail
    let _ = serde_json::to_writer(line, text);
}

/// An object of raw values with strings laid over them; both are sorted.
fn put_object<'v>(
    line: &mut Vec<u8>,
    fields: impl Iterator<Item = (&'v str, &'v RawValue)>,
    overlay: &[(&str, String)],
) {
    let mut overlay = overlay.iter().peekable();
    let mut separator = b'{';
    let mut begin = |line: &mut Vec<u8>, name: &str| {
        line.push(separator);
        separator = b',';
        put_string(line, name);
        line.push(b':');
    };
    for (name, value) in fields {
        while let Some((over, text)) = overlay.next_if(|(over, _)| *over < name) {
            begin(line, over);
            put_string(line, text);
        }
        begin(line, name);
        match overlay.next_if(|(over, _)| *over == name) {
            Some((_, text)) => put_string(line, text),
            None => line.extend(value.get().as_bytes()),
        }
    }
    for (over, text) in overlay {
        begin(line, over);
        put_string(line, text);
    }
    if separator == b'{' {
        line.push(b'{');
    }
    let _ = line.write_all(b"}");
}

/// Normalizes an unusual line: metadata that is JSON text becomes the object in the text. Fails if the line is not a
/// document.
pub fn usual(line: &[u8], place: &Place<'_>) -> Result<Vec<u8>> {
    document::parse_value(line, place)?;
    let unusable = || place.error(None, Code::InvalidValue, "the row cannot be used; expected a document");
    let fields = serde_json::from_slice::<Fields<'_>>(line).map_err(|_| unusable())?;
    let text = fields.get("metadata").and_then(|raw| serde_json::from_str::<String>(raw.get()).ok());
    let mut usual = Vec::with_capacity(line.len());
    let mut separator = b'{';
    for (name, raw) in fields.iter() {
        usual.push(separator);
        separator = b',';
        put_string(&mut usual, name);
        usual.push(b':');
        match text.as_deref().filter(|_| name == "metadata") {
            // a line end inside the JSON would end the row
            Some(json) => {
                usual.extend(json.bytes().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte }))
            }
            None => usual.extend(raw.get().as_bytes()),
        }
    }
    usual.push(b'}');
    Row::read(&usual).is_some().then_some(usual).ok_or_else(unusable)
}

/// The keys of an attribute row; empty if the line is not one.
pub fn attribute_keys(line: &[u8]) -> Vec<String> {
    serde_json::from_slice::<AttributeRow<'_>>(line)
        .map(|row| row.attributes.iter().map(|(key, _)| key.to_string()).collect())
        .unwrap_or_default()
}
