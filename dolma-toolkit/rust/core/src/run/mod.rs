//! The engine of every command: find out what is missing, read files, write outputs, publish a manifest.
//!
//! docs/design/run.md says what a run is, and what a kill leaves at each point.

pub mod files;
pub mod journal;
pub mod pass;
pub mod publish;
pub mod reader;
pub mod share;
pub mod threads;

pub use files::{Files, Lease, Stamp, Store};
pub use journal::{Journal, Made};
pub use pass::{pass, Source, Stage};
pub use reader::{Batch, BatchRow, Rows};
pub use share::{Claim, Share};

use std::fmt::Display;

use rayon::prelude::*;
use rayon::ThreadPoolBuilder;

use crate::error::{Error, Result};

/// Does independent work on several threads. Gives the results in order, or all errors.
pub fn each<I: Sync, T: Send>(
    items: &[I],
    threads: usize,
    work: impl Fn(&I) -> Result<T> + Sync + Send,
) -> Result<Vec<T>> {
    let threads = threads::useful(threads, items.len());
    // the global pool would outlive the run and break after a fork
    let pool = ThreadPoolBuilder::new().num_threads(threads).build().map_err(|error| no_threads(threads, &error))?;
    all(pool.install(|| items.par_iter().with_max_len(1).map(work).collect()))
}

/// The values, or all errors in the order of the input.
pub fn all<T>(results: Vec<Result<T>>) -> Result<Vec<T>> {
    let (mut values, mut errors) = (Vec::with_capacity(results.len()), Vec::new());
    for result in results {
        match result {
            Ok(value) => values.push(value),
            Err(error) => errors.push(error),
        }
    }
    Error::many(errors).map_or(Ok(values), Err)
}

fn no_threads(threads: usize, reason: &dyn Display) -> Error {
    Error::config("processes", format!("asks for {threads} threads, which cannot be started: {reason}"))
}
