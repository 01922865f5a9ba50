//! Why a record gives no document.

use serde::{Deserialize, Serialize};

/// Counted under its name in snake case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Requests, revisits, metadata: no content of a page.
    RecordType,
    /// A response that says it is no page, like a redirection or an error.
    HttpStatus,
    /// A type that no extractor reads.
    MimeType,
    /// Of a page whose main content has no text.
    NoText,
    /// No tagger that runs before the extraction found anything.
    NoPreTagger,
    /// No tagger that runs after it did.
    NoPostTagger,
    /// A file that is no archive, no page and no rows.
    UnknownFormat,
    /// The file ends within the record.
    Truncated,
    /// The packed bytes cannot be unpacked.
    Damaged,
    /// What is there does not begin like a record.
    BadHeader,
    /// The length of the content is not that of the header.
    WrongLength,
    /// More bytes than the limit, as stored or unpacked.
    TooLarge,
    /// A row of JSON lines without HTML.
    BadRow,
    /// The extractor took too long.
    Timeout,
    /// It took too much memory.
    OutOfMemory,
    /// Its process died, twice.
    Crashed,
    /// It raised an error.
    ExtractorError,
}

impl Reason {
    /// Whether the record was meant to be a document: it is listed, not only counted.
    pub fn is_listed(self) -> bool {
        self >= Reason::UnknownFormat
    }

    /// As it is counted.
    pub fn name(self) -> &'static str {
        match self {
            Reason::RecordType => "record_type",
            Reason::HttpStatus => "http_status",
            Reason::MimeType => "mime_type",
            Reason::NoText => "no_text",
            Reason::NoPreTagger => "no_pre_tagger",
            Reason::NoPostTagger => "no_post_tagger",
            Reason::UnknownFormat => "unknown_format",
            Reason::Truncated => "truncated",
            Reason::Damaged => "damaged",
            Reason::BadHeader => "bad_header",
            Reason::WrongLength => "wrong_length",
            Reason::TooLarge => "too_large",
            Reason::BadRow => "bad_row",
            Reason::Timeout => "timeout",
            Reason::OutOfMemory => "out_of_memory",
            Reason::Crashed => "crashed",
            Reason::ExtractorError => "extractor_error",
        }
    }
}

/// A record that cannot be used, and where it begins in its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// In stored bytes.
    pub offset: u64,
    pub reason: Reason,
    /// What was found and what was expected.
    pub message: String,
}
