//! Documents in Parquet files, seen as JSON lines: a row is a line, a column a field.
//!
//! Columns that hold JSON text (the logical type says so, or the name is `metadata` or `attributes`) become values; the
//! members of such a column `extra` become fields of their own. Nulls are omitted.

mod read;
#[cfg(test)]
mod tests;
mod values;
mod write;

use std::cell::Cell;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use parquet::errors::ParquetError;

pub(super) use read::{BadValue, ParquetLines};
pub(super) use write::ParquetWriter;

/// Holds what has no column of its own.
const EXTRA: &str = "extra";

/// Fields that hold objects.
const OBJECTS: [&str; 2] = ["metadata", "attributes"];

fn invalid(reason: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.into())
}

/// What the operating system said, where it was the one; else what is wrong with the file.
fn io_error(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(source) => match source.downcast::<io::Error>() {
            Ok(source) => *source,
            Err(source) => invalid(source.to_string()),
        },
        other => invalid(other.to_string()),
    }
}

thread_local! {
    static IS_GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// The decoder asserts much of what a damaged file breaks; here that is an error, and nothing is printed.
fn guarded<T>(work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !IS_GUARDED.get() {
                usual(info);
            }
        }));
    });
    IS_GUARDED.set(true);
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    IS_GUARDED.set(false);
    result.unwrap_or_else(|_| Err(invalid("its pages contradict its schema")))
}
