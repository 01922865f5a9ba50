//! The engine of the dolma toolkit: readers and writers of its formats, taggers, deduplication, mixing, tokenization.
//!
//! Nothing here knows of Python. Functions take settings and a [`progress::Progress`], and give an [`error::Error`].
//! How many threads work never changes a byte of the output.

pub mod bloom;
pub mod dedupe;
pub mod error;
pub mod extract;
pub mod fasttext;
pub mod formats;
pub mod jq;
pub mod jsonl;
pub mod jsonpath;
pub mod mix;
pub mod near;
pub mod pipeline;
#[cfg(any(test, feature = "probes"))]
pub mod probes;
pub mod progress;
pub mod run;
pub mod stat;
pub mod tag;
pub mod taggers;
pub mod tokens;
pub mod unicode;

pub use error::{Code, Error, Result};
pub use formats::{attributes, document, manifest};
