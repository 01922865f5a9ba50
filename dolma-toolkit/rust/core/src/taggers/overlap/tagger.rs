//! Text that a document shares with evaluation items.

use std::borrow::Cow;

use super::super::resources::{required, Need, Resource};
use super::super::{Span, Tagger, Text};
use super::Index;
use crate::error::{Error, Result};

/// The name of the tagger.
pub const NAME: &str = "evaluation_overlap_v1";

/// What it needs.
pub fn needs(name: &str) -> Option<Need> {
    (name == NAME).then_some(Need { what: "an index that `dolma decontaminate` writes", urls: &[] })
}

/// The tagger.
pub fn build(name: &str, resources: &[Resource]) -> Option<Result<Box<dyn Tagger>>> {
    needs(name)?;
    Some(new(name, resources).map(|tagger| Box::new(tagger) as Box<dyn Tagger>))
}

fn new(name: &str, resources: &[Resource]) -> Result<Overlap> {
    match required(name, resources)? {
        [resource] => Ok(Overlap { index: Index::load(&resource.path, &resource.name)? }),
        several => {
            let message = format!("has {} files; expected one index", several.len());
            Err(Error::config(format!("resources.{name}"), message))
        }
    }
}

/// A span for each part that items have too, its score the units of it; and the share of such units in the document.
struct Overlap {
    index: Index,
}

impl Tagger for Overlap {
    fn tag(&self, text: &Text<'_>, spans: &mut Vec<Span>) -> Result<()> {
        let (units, covered) = self.index.covered(text);
        let mut total = 0;
        for &(start, end) in &covered {
            total += end - start;
            let (from, to) = units.bytes(start, end);
            let kind = Cow::Borrowed("overlap");
            spans.push(Span {
                start: text.code_point(from),
                end: text.code_point(to),
                kind,
                score: (end - start) as f64,
            });
        }
        if total > 0 {
            spans.push(text.whole("share", total as f64 / units.len() as f64));
        }
        Ok(())
    }
}
