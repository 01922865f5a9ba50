//! What a long job reports to its caller while it works, and how the caller stops it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;

use crate::error::{Error, Result};

/// Counters that a job adds to and a caller reads; shared between threads.
///
/// The caller sets `total_files` and `total_bytes` from what it knows, calls [`Progress::cancel`] to stop the job, and
/// the job calls [`Progress::check`] at least once per batch of documents.
#[derive(Debug, Default)]
pub struct Progress {
    documents: AtomicU64,
    bytes: AtomicU64,
    files: AtomicU64,
    total_files: AtomicU64,
    total_bytes: AtomicU64,
    cancellation: Cancellation,
}

/// Whether a job is asked to stop.
#[derive(Clone, Debug, Default)]
pub struct Cancellation(Arc<AtomicBool>);

impl Cancellation {
    /// `Error::Cancelled` after [`Progress::cancel`].
    pub fn check(&self) -> Result<()> {
        match self.0.load(Ordering::Relaxed) {
            true => Err(Error::Cancelled),
            false => Ok(()),
        }
    }
}

/// The counters at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Rows done.
    pub documents: u64,
    /// Bytes done: of stored (compressed) input, or of text where a job says so.
    pub bytes: u64,
    /// Files done.
    pub files: u64,
    /// Files to do.
    pub total_files: u64,
    /// Bytes to do, of the same kind.
    pub total_bytes: u64,
}

impl Progress {
    /// Says what there is to do.
    pub fn expect(&self, files: u64, bytes: u64) {
        self.total_files.store(files, Ordering::Relaxed);
        self.total_bytes.store(bytes, Ordering::Relaxed);
    }

    /// `count` more documents are done.
    pub fn add_documents(&self, count: u64) {
        self.documents.fetch_add(count, Ordering::Relaxed);
    }

    /// `count` more bytes are done.
    pub fn add_bytes(&self, count: u64) {
        self.bytes.fetch_add(count, Ordering::Relaxed);
    }

    /// One more file is done.
    pub fn add_file(&self) {
        self.files.fetch_add(1, Ordering::Relaxed);
    }

    /// Asks the job to stop.
    pub fn cancel(&self) {
        self.cancellation.0.store(true, Ordering::Relaxed);
    }

    /// `Error::Cancelled` after [`Progress::cancel`].
    pub fn check(&self) -> Result<()> {
        self.cancellation.check()
    }

    /// For those that only have to know when to stop.
    pub fn cancellation(&self) -> Cancellation {
        self.cancellation.clone()
    }

    /// The counters now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            documents: self.documents.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            files: self.files.load(Ordering::Relaxed),
            total_files: self.total_files.load(Ordering::Relaxed),
            total_bytes: self.total_bytes.load(Ordering::Relaxed),
        }
    }
}
