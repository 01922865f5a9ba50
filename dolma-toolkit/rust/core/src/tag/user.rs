//! Taggers that users write: they get rows of a batch, and give columns of spans.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::document::Row;
use crate::error::{Error, Result};
use crate::taggers::Span;

/// Taggers that run elsewhere, and by their own rules.
pub trait UserTaggers: Send + Sync {
    /// Answers a request, which is JSON: the positions of taggers among those of users, and for each row
    /// `[id, text, source, version, metadata]`, or null if it is no document. The answer is JSON, as [`Found`] reads it.
    fn ask(&self, request: &[u8]) -> Result<Vec<u8>>;
}

/// The taggers of a plan.
#[derive(Clone)]
pub struct Users(pub Arc<dyn UserTaggers>);

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Users")
    }
}

impl Users {
    /// What the taggers with these positions find in rows.
    pub fn ask(&self, taggers: Vec<usize>, rows: &[Option<Row<'_>>]) -> Result<Found> {
        let fail = |error: serde_json::Error| Error::config("taggers", format!("cannot be asked: {error}"));
        let rows: Vec<_> = rows.iter().map(|one| one.as_ref().map(json_row)).collect();
        let request = serde_json::to_vec(&(&taggers, &rows)).map_err(fail)?;
        let found: Found = serde_json::from_slice(&self.0.ask(&request)?).map_err(fail)?;
        let has_all =
            found.columns.len() == taggers.len() && found.columns.iter().all(|column| column.fits(rows.len()));
        match has_all {
            true => Ok(Found { taggers, ..found }),
            false => Err(Error::config("taggers", "gave another number of spans than expected")),
        }
    }
}

fn json_row<'r>(row: &'r Row<'_>) -> (&'r str, &'r str, &'r str, Option<&'r str>, Option<&'r RawValue>) {
    (&row.id, &row.text, &row.source, row.version.as_deref(), row.metadata.as_deref())
}

/// What taggers found in some rows.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Found {
    #[serde(skip)]
    taggers: Vec<usize>,
    /// Rows that a tagger failed on, and why.
    failures: Vec<(usize, String)>,
    /// Of each tagger that was asked.
    columns: Vec<Column>,
}

/// The spans of one tagger in all rows.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Column {
    /// Of each row: how many spans there are up to its end.
    ends: Vec<usize>,
    /// The types of spans.
    kinds: Vec<String>,
    /// Of each span: the position of its type.
    kind: Vec<usize>,
    start: Vec<usize>,
    end: Vec<usize>,
    score: Vec<f64>,
}

impl Found {
    /// Why taggers failed on a row.
    pub fn failures(&self, row: usize) -> impl Iterator<Item = &str> {
        self.failures.iter().filter(move |(at, _)| *at == row).map(|(_, why)| why.as_str())
    }

    /// The spans of a tagger in a row; `None` if it was not asked.
    pub fn spans(&self, tagger: usize, row: usize) -> Option<Vec<Span>> {
        let column = &self.columns[self.taggers.iter().position(|asked| *asked == tagger)?];
        let from = row.checked_sub(1).map_or(0, |before| column.ends[before]);
        let span = |at: usize| Span {
            start: column.start[at],
            end: column.end[at],
            kind: Cow::Owned(column.kinds[column.kind[at]].clone()),
            score: column.score[at],
        };
        Some((from..column.ends[row]).map(span).collect())
    }
}

impl Column {
    fn fits(&self, rows: usize) -> bool {
        let spans = self.ends.last().copied().unwrap_or_default();
        let lengths = [self.kind.len(), self.start.len(), self.end.len(), self.score.len()];
        self.ends.len() == rows
            && self.ends.is_sorted()
            && lengths == [spans; 4]
            && self.kind.iter().all(|kind| *kind < self.kinds.len())
    }
}
