//! A page: what a record, a row or a file says of it, and the document that it becomes.

use std::borrow::Cow;
use std::collections::BTreeMap;

use jiff::fmt::rfc2822;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{json, Map, Value};
use sha1::{Digest, Sha1};

use super::charset::{decode, Decoded};
use super::http::Response;
use super::reason::Reason;
use super::records::Record;
use super::source::{Info, Item};
use crate::dedupe::normalized_url;

/// What the bytes of documents depend on besides the extractor.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// `source` of all documents.
    pub source_name: String,
    /// `version` of all documents.
    pub version: String,
    /// `added` of all documents.
    pub added: Option<String>,
    /// The extractor of each MIME type.
    pub extractors: BTreeMap<String, String>,
    /// Whether `metadata.html` stays in the document.
    pub store_html_in_metadata: bool,
    /// Whether responses other than those with a page count.
    pub any_status: bool,
    /// The largest record, as stored and unpacked.
    pub max_record_bytes: u64,
    /// Where rows have their HTML.
    pub html_field: String,
    /// Where they have the address of the page.
    pub url_field: String,
}

/// A page that has its HTML, and no text yet.
#[derive(Debug)]
pub struct Page {
    /// Where it begins in its file: a byte of an archive, a line of rows.
    pub offset: u64,
    pub id: String,
    pub created: Option<String>,
    pub metadata: Map<String, Value>,
    pub html: String,
    /// Name of the extractor.
    pub extractor: String,
    /// Characters that took the place of bytes that fit no charset.
    pub replaced: usize,
}

/// Why there is no page, and what to say of it.
pub type NoPage = (u64, Reason, String);

/// A document, with its fields in the order in which dolma 1.x writes them.
#[derive(Serialize)]
pub struct Document<'a> {
    pub id: &'a str,
    pub text: &'a str,
    pub source: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub added: Option<&'a str>,
    pub version: &'a str,
    pub metadata: &'a Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attributes: Option<Box<RawValue>>,
}

impl Settings {
    /// The page of an item.
    pub fn page(&self, item: Item) -> Result<Page, NoPage> {
        match item {
            Item::Record(record, info) => {
                let offset = record.offset;
                self.of_record(record, &info).map_err(|(reason, message)| (offset, reason, message))
            }
            Item::Row(line, row) => self.of_row(line, &row).map_err(|(reason, message)| (line, reason, message)),
            Item::Page(bytes) => self.of_file(&bytes).map_err(|(reason, message)| (0, reason, message)),
            Item::Skipped(reason) => Err((0, reason, String::new())),
            Item::Bad(problem) => Err((problem.offset, problem.reason, problem.message)),
        }
    }

    fn of_record(&self, record: Record, info: &Info) -> Result<Page, (Reason, String)> {
        let is_response = record.is("response");
        let Record { offset, headers, block } = record;
        let response = match is_response {
            true => Response::parse(block),
            false => Response { payload: block, ..Response::default() },
        };
        if !self.any_status && response.status.is_some_and(|status| status != 200) {
            return Err((Reason::HttpStatus, String::new()));
        }
        let given = if is_response { response.headers.get("Content-Type") } else { headers.get("Content-Type") };
        let given = given.unwrap_or_default().to_owned();
        let (content_type, parameters) = given.split_once(';').unwrap_or((&given, ""));
        let content_type = content_type.trim();
        let charset = parameters.split(';').find_map(|parameter| {
            let (name, value) = parameter.split_once('=')?;
            name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().to_owned())
        });
        let identified = headers.get("WARC-Identified-Payload-Type").map(str::to_owned);
        let digest = headers.get("WARC-Payload-Digest").or(headers.get("WARC-Block-Digest").filter(|_| !is_response));
        let digest = digest.map_or_else(|| sha1_of(&response.payload), str::to_owned);
        let date = response.headers.get("Date").and_then(http_date);
        let record_date = headers.get("WARC-Date").unwrap_or_default().to_owned();
        let mut metadata = Map::new();
        let mut put = |name: &str, value: Option<&str>| {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                metadata.insert(name.to_owned(), json!(value));
            }
        };
        let url = headers.get("WARC-Target-URI").map(|url| url.trim_matches(['<', '>']));
        put("warc_url", url);
        put("url", url.map(normalized_url).as_deref());
        put("warc_date", timestamp(&info.date).as_deref());
        put("warc_filename", Some(&info.id));
        put("content_type", Some(content_type));
        put("warc_record_id", headers.get("WARC-Record-ID"));
        put("warc_record_date", Some(&record_date));
        put("warc_payload_digest", Some(&digest));
        put("warc_truncated", headers.get("WARC-Truncated"));
        metadata.insert("uncompressed_offset".to_owned(), json!(offset));
        // without it, the types say nothing
        if content_type.is_empty() && response.payload.is_empty() {
            return Err((Reason::NoText, String::new()));
        }
        let content = response.content(self.max_record_bytes)?;
        let extractor = self.extractor(content_type, identified.as_deref(), &content)?;
        let Decoded { text, charset, replaced } = decode(&content, charset.as_deref());
        metadata.insert("charset".to_owned(), json!(charset));
        let id = digest.rsplit(':').next().unwrap_or_default().to_lowercase();
        let created = date.or_else(|| timestamp(&record_date));
        Ok(Page { offset, id, created, metadata, html: trimmed(text), extractor, replaced })
    }

    fn of_file(&self, bytes: &[u8]) -> Result<Page, (Reason, String)> {
        let extractor = self.extractor("text/html", None, bytes)?;
        let Decoded { text, charset, replaced } = decode(bytes, None);
        let digest = sha1_of(bytes);
        let id = digest.rsplit(':').next().unwrap_or_default().to_lowercase();
        let metadata = json!({"content_type": "text/html", "charset": charset, "warc_payload_digest": digest});
        let Value::Object(metadata) = metadata else { return Err((Reason::BadRow, String::new())) };
        Ok(Page { offset: 0, id, created: None, metadata, html: trimmed(text), extractor, replaced })
    }

    /// The fields of a row that a document does not have go to its metadata.
    fn of_row(&self, line: u64, row: &[u8]) -> Result<Page, (Reason, String)> {
        let bad = |message: String| (Reason::BadRow, message);
        let mut row = match serde_json::from_slice::<Value>(row) {
            Ok(Value::Object(row)) => row,
            Ok(_) => return Err(bad("the row is no object; expected one".to_owned())),
            Err(error) => return Err(bad(format!("the row is not JSON ({error}); expected an object"))),
        };
        let field = &self.html_field;
        let html = match row.remove(field) {
            Some(Value::String(html)) => html,
            Some(other) => {
                let kind = crate::document::kind(&other);
                return Err(bad(format!("\"{field}\" is {kind}; expected a string (html_field)")));
            }
            None => return Err(bad(format!("\"{field}\" is missing; expected HTML (html_field)"))),
        };
        let mut metadata = match row.remove("metadata") {
            Some(Value::Object(metadata)) => metadata,
            None | Some(Value::Null) => Map::new(),
            Some(other) => {
                let kind = crate::document::kind(&other);
                return Err(bad(format!("\"metadata\" is {kind}; expected an object")));
            }
        };
        let digest = sha1_of(html.as_bytes());
        let id = match row.remove("id") {
            Some(Value::String(id)) if !id.is_empty() => id,
            None | Some(Value::Null) => digest.rsplit(':').next().unwrap_or_default().to_lowercase(),
            Some(other) => return Err(bad(format!("\"id\" is {other}; expected a string"))),
        };
        let created = match row.remove("created") {
            Some(Value::String(created)) => Some(created),
            _ => None,
        };
        if let Some(Value::String(url)) = row.remove(&self.url_field) {
            metadata.insert("url".to_owned(), json!(normalized_url(&url)));
            metadata.insert("warc_url".to_owned(), json!(url));
        }
        for name in ["text", "source", "version", "added", "attributes"] {
            row.remove(name);
        }
        metadata.extend(row);
        metadata.insert("content_type".to_owned(), json!("text/html"));
        metadata.insert("warc_payload_digest".to_owned(), json!(digest));
        let extractor = self.extractor("text/html", None, html.as_bytes())?;
        Ok(Page { offset: line, id, created, metadata, html: trimmed(html), extractor, replaced: 0 })
    }

    /// By the type that the server gave, unless it gave none.
    fn extractor(&self, given: &str, identified: Option<&str>, content: &[u8]) -> Result<String, (Reason, String)> {
        let given = given.to_ascii_lowercase();
        let is_unknown =
            matches!(given.as_str(), "" | "application/octet-stream" | "unknown/unknown" | "unk" | "no-type");
        let kind: Cow<'_, str> = match identified {
            _ if !is_unknown => Cow::Owned(given),
            Some(identified) => Cow::Owned(identified.to_ascii_lowercase()),
            None if looks_like_html(content) => Cow::Borrowed("text/html"),
            None => Cow::Owned(given),
        };
        self.extractors.get(kind.as_ref()).cloned().ok_or((Reason::MimeType, String::new()))
    }

    /// The line of a document.
    pub fn line(&self, page: &Page, text: &str, attributes: Option<Box<RawValue>>) -> serde_json::Result<Vec<u8>> {
        let document = Document {
            id: &page.id,
            text,
            source: &self.source_name,
            created: page.created.as_deref(),
            added: self.added.as_deref(),
            version: &self.version,
            metadata: &page.metadata,
            attributes,
        };
        let mut line = serde_json::to_vec(&document)?;
        line.push(b'\n');
        Ok(line)
    }
}

fn trimmed(text: String) -> String {
    match text.trim() {
        all if all.len() == text.len() => text,
        part => part.to_owned(),
    }
}

fn looks_like_html(content: &[u8]) -> bool {
    let start = content[..content.len().min(1 << 10)].to_ascii_lowercase();
    [&b"<!doctype html"[..], b"<html", b"<head", b"<body"]
        .iter()
        .any(|mark| memchr::memmem::find(&start, mark).is_some())
}

/// As archives write a digest: SHA-1 in base 32.
fn sha1_of(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let digest = Sha1::digest(bytes);
    let digits = digest.chunks(5).flat_map(|five| {
        let number = five.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
        (0..8).rev().map(move |digit| char::from(DIGITS[(number >> (5 * digit) & 31) as usize]))
    });
    format!("sha1:{}", digits.collect::<String>())
}

/// The date of an HTTP header, as dolma 1.x writes it: `2014-02-16T05:02:20.000Z`.
fn http_date(text: &str) -> Option<String> {
    let zoned = rfc2822::parse(text).ok()?;
    Some(shown(zoned.timestamp()))
}

/// A date of an archive in the same form.
fn timestamp(text: &str) -> Option<String> {
    text.parse::<Timestamp>().ok().map(shown)
}

fn shown(timestamp: Timestamp) -> String {
    format!("{timestamp:.3}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_and_dates_have_the_forms_of_archives_and_of_dolma() {
        // of nothing, as every archive of requests has it
        assert_eq!(sha1_of(b""), "sha1:3I42H3S6NNFQ2MSVX7XZKYAYSCX5QBYJ");
        assert_eq!(http_date("Sun, 16 Feb 2014 05:02:20 GMT").as_deref(), Some("2014-02-16T05:02:20.000Z"));
        assert_eq!(timestamp("2014-02-16T05:02:20Z").as_deref(), Some("2014-02-16T05:02:20.000Z"));
        assert_eq!(timestamp("2014-02-16T05:02:20.123456Z").as_deref(), Some("2014-02-16T05:02:20.123Z"));
        assert_eq!((http_date("yesterday"), timestamp("")), (None, None));
    }
}
