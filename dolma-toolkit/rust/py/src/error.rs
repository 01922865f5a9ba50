//! The one mapping from the core's errors to Python's.
//!
//! A `NativeError` carries JSON in its only argument: a list of
//! `{"kind": "format" | "config" | "io", "path" | "key", "line", "field", "code", "message", "hint"}`.
//! `dolma.errors` turns it into `FormatError`, `ConfigError` and `OSError`.

use dolma_core::Error;
use pyo3::create_exception;
use pyo3::exceptions::{PyException, PyKeyboardInterrupt};
use pyo3::prelude::*;
use serde_json::{json, Value};

create_exception!(_native, NativeError, PyException, "What the core refused, as JSON.");

/// The Python exception for an error of the core.
pub fn raise(error: &Error) -> PyErr {
    match error {
        Error::Cancelled => PyKeyboardInterrupt::new_err(()),
        Error::Many(errors) => NativeError::new_err(Value::Array(errors.iter().map(describe).collect()).to_string()),
        single => NativeError::new_err(Value::Array(vec![describe(single)]).to_string()),
    }
}

fn describe(error: &Error) -> Value {
    match error {
        Error::Format(error) => json!({
            "kind": "format", "path": error.path, "line": error.line, "field": error.field,
            "code": error.code.as_str(), "message": error.message,
        }),
        Error::Config { key, message, hint } => {
            json!({"kind": "config", "key": key, "message": message, "hint": hint})
        }
        Error::Io { path, source } => {
            json!({"kind": "io", "path": path, "errno": source.raw_os_error(), "message": source.to_string()})
        }
        other => json!({"kind": "io", "path": "", "errno": null, "message": other.to_string()}),
    }
}
