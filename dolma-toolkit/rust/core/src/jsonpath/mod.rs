//! JSONPath in the dialect that dolma configurations are written in.
//!
//! The dialect is older than RFC 9535 and differs from it where configurations depend on the difference:
//!
//! * a filter `[?(…)]` applied to an object tests the object itself, which is what
//!   `$.attributes[?(@.k && @.k[0] && @.k[0][2] > 0.5)]` relies on;
//! * `@` at the top level is the root (`$@.attributes.k`);
//! * a name exists when its value is present, also when that value is `false`, `null` or empty;
//! * strings need single quotes, and there are the operators `~= in nin size noneOf anyOf subsetOf`.
//!
//! A [`Path`] is compiled once and evaluated on borrowed values without copying them.

mod evaluate;
mod needs;
mod parse;
mod parse_filter;
mod reads;

pub use needs::Needs;
pub use reads::Read;

use regex::Regex;
use serde_json::Value;

/// A compiled path.
#[derive(Debug, Clone)]
pub struct Path {
    text: String,
    steps: Vec<Step>,
    length: Option<Length>,
}

/// One step of a path, applied to every value that the steps before it found.
#[derive(Debug, Clone)]
enum Step {
    Root,
    Field(String),
    Fields(Vec<String>),
    Index(usize),
    Indexes(Vec<usize>),
    Slice { start: i64, end: Option<i64>, step: usize },
    Wildcard,
    Descent(String),
    DescentWildcard,
    Filter(Expression),
}

/// What a final `.length()` counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Length {
    /// the elements of the array that was found
    OfArray,
    /// the values that a wildcard, slice, union or filter found
    OfMatches,
}

#[derive(Debug, Clone)]
enum Expression {
    And(Box<Expression>, Box<Expression>),
    Or(Box<Expression>, Box<Expression>),
    Not(Box<Expression>),
    Exists(Operand),
    Compare(Operand, Operator, Operand),
    Matches(Operand, Regex),
}

#[derive(Debug, Clone)]
enum Operand {
    Literal(Value),
    Path(Path),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    NotIn,
    Size,
    NoneOf,
    AnyOf,
    SubsetOf,
}

/// Why a path could not be compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathError {
    /// zero-based byte offset in the path
    pub position: usize,
    /// what was wrong there
    pub message: String,
}

impl std::fmt::Display for PathError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} at character {}", self.message, self.position + 1)
    }
}

impl std::error::Error for PathError {}

impl Path {
    /// Compiles `text`. Fails on anything that could never match, rather than matching nothing later.
    pub fn new(text: &str) -> Result<Self, PathError> {
        parse::parse(text)
    }

    /// The path as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The one field that the path names at the top level (`$.text`), if it is as simple as that.
    pub fn single_field(&self) -> Option<&str> {
        match (&self.steps[..], self.length) {
            ([Step::Root, Step::Field(name)] | [Step::Field(name)], None) => Some(name),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
