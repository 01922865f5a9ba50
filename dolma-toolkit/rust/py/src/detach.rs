//! Long calls: the GIL is released, Ctrl-C is looked for five times a second, progress is reported every ten seconds.

use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{bounded, RecvTimeoutError};
use dolma_core::jq::STACK_BYTES;
use dolma_core::progress::Progress;
use dolma_core::{Error, Result};
use pyo3::prelude::*;

use crate::error::raise;

const SIGNAL_INTERVAL: Duration = Duration::from_millis(200);
const REPORT_INTERVAL: Duration = Duration::from_secs(10);

/// Runs `work` on a thread of its own and gives its result.
///
/// `report`, unless `None`, is called with `(documents, bytes, files, total_files, total_bytes, seconds)`.
/// An exception from it, or from a signal handler, cancels the work and is raised when the work has stopped.
pub fn run<T: Send>(
    py: Python<'_>,
    report: Option<&Bound<'_, PyAny>>,
    work: impl FnOnce(&Progress) -> Result<T> + Send,
) -> PyResult<T> {
    let progress = Progress::default();
    let report = report.map(|report| report.clone().unbind());
    let mut interruption = None;
    let result = py.detach(|| {
        thread::scope(|scope| {
            let (done, finished) = bounded(1);
            let shared = &progress;
            let started = thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, move || {
                // the receiver outlives this thread
                let _ = done.send(work(shared));
            });
            if let Err(source) = started {
                return Some(Err(Error::Io { path: "a thread".to_owned(), source }));
            }
            let start = Instant::now();
            let mut last_report = start;
            loop {
                match finished.recv_timeout(SIGNAL_INTERVAL) {
                    Ok(result) => return Some(result),
                    Err(RecvTimeoutError::Disconnected) => return None,
                    Err(RecvTimeoutError::Timeout) => {}
                }
                if interruption.is_some() {
                    continue;
                }
                let due = last_report.elapsed() >= REPORT_INTERVAL;
                if due {
                    last_report = Instant::now();
                }
                let outcome = Python::attach(|py| {
                    py.check_signals()?;
                    match &report {
                        Some(report) if due => {
                            let now = shared.snapshot();
                            let counts = (now.documents, now.bytes, now.files, now.total_files, now.total_bytes);
                            let arguments =
                                (counts.0, counts.1, counts.2, counts.3, counts.4, start.elapsed().as_secs_f64());
                            report.call1(py, arguments).map(drop)
                        }
                        _ => Ok(()),
                    }
                });
                if let Err(error) = outcome {
                    interruption = Some(error);
                    shared.cancel();
                }
            }
        })
    });
    if let Some(error) = interruption {
        return Err(error);
    }
    match result {
        Some(Ok(value)) => Ok(value),
        Some(Err(error)) => Err(raise(&error)),
        // the thread panicked; `thread::scope` has raised it before this line
        None => Err(raise(&Error::Cancelled)),
    }
}
