//! Taggers: text in, scored spans out. `build` is the one table of names.

mod length;

use std::borrow::Cow;
use std::cell::OnceCell;
use std::path::PathBuf;

use crate::error::{Error, Result};

/// A scored part of a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// Code points from the beginning of the text.
    pub start: usize,
    /// Code points, exclusive.
    pub end: usize,
    /// The last part of the attribute key.
    pub kind: Cow<'static, str>,
    /// Rounded to five decimals when it is written.
    pub score: f64,
}

/// One document's text with what several taggers need of it, computed once when first asked for.
pub struct Text<'a> {
    text: &'a str,
    length_chars: OnceCell<usize>,
}

impl<'a> Text<'a> {
    /// Takes the text of one document; costs nothing yet.
    pub fn new(text: &'a str) -> Text<'a> {
        Text { text, length_chars: OnceCell::new() }
    }

    /// The text itself.
    pub fn as_str(&self) -> &'a str {
        self.text
    }

    /// Length in code points.
    pub fn length_chars(&self) -> usize {
        *self.length_chars.get_or_init(|| self.text.chars().count())
    }
}

/// What a tagger may need besides the text.
#[derive(Clone, Debug, Default)]
pub struct TaggerOptions {
    /// The fastText language model `lid.176.ftz` (or `.bin`).
    pub language_model: Option<PathBuf>,
}

/// Finds spans in a text.
pub trait Tagger: Send + Sync {
    /// Appends the spans in the order in which they are found.
    fn tag(&self, text: &Text<'_>, spans: &mut Vec<Span>) -> Result<()>;
}

/// Every native tagger: (name, one-line description), sorted by name.
pub fn names() -> &'static [(&'static str, &'static str)] {
    &[("char_length_v1", "length of the document in code points")]
}

/// The tagger of that name.
pub fn build(name: &str, _options: &TaggerOptions) -> Result<Box<dyn Tagger>> {
    match name {
        "char_length_v1" => Ok(Box::new(length::CharLength)),
        _ => {
            Err(Error::config("taggers", format!("\"{name}\" is not a tagger"))
                .with_hint("`dolma list` prints the names"))
        }
    }
}
