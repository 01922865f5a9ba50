//! Taggers whose spans go to the documents themselves, not to files of attributes.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::plan::Plan;
use super::rows::RowTagger;
use crate::document::Place;
use crate::error::{Code, Result};
use crate::run::Batch;

/// The taggers of a plan without files.
pub struct Inline<'p> {
    rows: RowTagger<'p>,
    all: Vec<usize>,
}

/// The attributes of a row: a JSON object, and how many spans it has.
pub type Attributes = (Box<RawValue>, u64);

#[derive(Deserialize)]
struct Written {
    attributes: Box<RawValue>,
}

impl<'p> Inline<'p> {
    /// Makes the taggers.
    pub fn new(plan: &'p Plan) -> Result<Inline<'p>> {
        let mut rows = RowTagger::new(plan);
        rows.taggers = super::build_taggers(plan, &(0..plan.taggers.len()).collect())?;
        Ok(Inline { rows, all: (0..plan.taggers.len()).collect() })
    }

    /// The attributes of each row of the file `path`.
    pub fn tag(&self, path: &str, batch: &Batch) -> Result<Vec<Attributes>> {
        let lists = [self.all.as_slice()];
        let found = self.rows.ask(path, &lists, batch.rows())?;
        let of_row = |row: crate::run::BatchRow<'_>| {
            let found = found.as_ref().map(|found| (found, row.index()));
            let tagged = self.rows.tag(path, &lists, row, found, None)?;
            let place = Place { path, line: tagged.line };
            let line = tagged.lines.first().ok_or_else(|| place.missing("attributes", "spans"))?;
            let written: Written = serde_json::from_slice(&line.bytes)
                .map_err(|error| place.error(Some("attributes"), Code::NotJson, error.to_string()))?;
            Ok((written.attributes, line.spans))
        };
        batch.rows().map(of_row).collect()
    }
}
