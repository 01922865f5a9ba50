//! The one error type of the crate. A message reads `<where>: <what> is <got>; expected <expected>`.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::Path;

/// Result of everything that can fail here.
pub type Result<T> = std::result::Result<T, Error>;

/// Stable names of what can be wrong with a file (docs/formats/README.md, "Error codes").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // each variant is its own name in snake case
pub enum Code {
    NotJson,
    NotObject,
    MissingField,
    WrongType,
    InvalidValue,
    Truncated,
    MissingFile,
    WrongSize,
    ChecksumMismatch,
    UnknownFormat,
    UnsupportedVersion,
    UnsafePath,
    Misaligned,
    OutOfRange,
    WrongDtype,
    BadBoundary,
}

impl Code {
    /// The name that the contract gives it.
    pub fn as_str(self) -> &'static str {
        match self {
            Code::NotJson => "not_json",
            Code::NotObject => "not_object",
            Code::MissingField => "missing_field",
            Code::WrongType => "wrong_type",
            Code::InvalidValue => "invalid_value",
            Code::Truncated => "truncated",
            Code::MissingFile => "missing_file",
            Code::WrongSize => "wrong_size",
            Code::ChecksumMismatch => "checksum_mismatch",
            Code::UnknownFormat => "unknown_format",
            Code::UnsupportedVersion => "unsupported_version",
            Code::UnsafePath => "unsafe_path",
            Code::Misaligned => "misaligned",
            Code::OutOfRange => "out_of_range",
            Code::WrongDtype => "wrong_dtype",
            Code::BadBoundary => "bad_boundary",
        }
    }
}

/// What is wrong with a file, and where. `message` is the sentence without the place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormatError {
    /// File, as it was named to the reader.
    pub path: String,
    /// 1-based, where the file has lines.
    pub line: Option<u64>,
    /// Dotted.
    pub field: Option<String>,
    /// Stable code.
    pub code: Code,
    /// `"field" is <got>; expected <expected>`
    pub message: String,
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{}: {}", self.path, line, self.message),
            None => write!(f, "{}: {}", self.path, self.message),
        }
    }
}

/// Everything that can go wrong.
#[derive(Debug)]
pub enum Error {
    /// A file does not follow its format.
    Format(Box<FormatError>),
    /// A setting cannot be used; `hint` is one action that fixes it.
    Config {
        /// Dotted key, or a path that a key names.
        key: String,
        /// `is <got>; expected <expected>`
        message: String,
        /// One action.
        hint: Option<String>,
    },
    /// The operating system refused.
    Io {
        /// File or directory.
        path: String,
        /// Its reason.
        source: io::Error,
    },
    /// A remote file cannot be read or written; the text names it.
    Remote(String),
    /// The caller asked to stop.
    Cancelled,
    /// Several of the above, in the order of the input; never empty, never nested.
    Many(Vec<Error>),
}

impl Error {
    /// A `Format` error.
    pub fn format(
        path: impl Into<String>,
        line: impl Into<Option<u64>>,
        field: Option<&str>,
        code: Code,
        message: impl Into<String>,
    ) -> Error {
        Error::Format(Box::new(FormatError {
            path: path.into(),
            line: line.into(),
            field: field.map(str::to_owned),
            code,
            message: message.into(),
        }))
    }

    /// A `Config` error without a hint.
    pub fn config(key: impl Into<String>, message: impl Into<String>) -> Error {
        Error::Config { key: key.into(), message: message.into(), hint: None }
    }

    /// Adds the action that fixes it; other variants stay as they are.
    pub fn with_hint(self, action: impl Into<String>) -> Error {
        match self {
            Error::Config { key, message, .. } => Error::Config { key, message, hint: Some(action.into()) },
            other => other,
        }
    }

    /// An `Io` error at `path`.
    pub fn io(path: &Path, source: io::Error) -> Error {
        Error::Io { path: path.display().to_string(), source }
    }

    /// One error for several; flattens, and keeps a single one as it is.
    pub fn many(errors: Vec<Error>) -> Option<Error> {
        let mut flat = Vec::with_capacity(errors.len());
        for error in errors {
            match error {
                Error::Many(inner) => flat.extend(inner),
                other => flat.push(other),
            }
        }
        if flat.iter().any(|error| matches!(error, Error::Cancelled)) {
            return Some(Error::Cancelled);
        }
        // one store fails for many files in the same way
        let mut seen = BTreeSet::new();
        flat.retain(|error| !matches!(error, Error::Remote(message) if !seen.insert(message.clone())));
        match flat.len() {
            0 => None,
            1 => flat.pop(),
            _ => Some(Error::Many(flat)),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Format(error) => error.fmt(f),
            Error::Config { key, message, hint } => {
                write!(f, "{key}: {message}")?;
                match hint {
                    Some(hint) => write!(f, "\nhint: {hint}"),
                    None => Ok(()),
                }
            }
            Error::Io { path, source } => write!(f, "{path}: {source}"),
            Error::Remote(message) => f.write_str(message),
            Error::Cancelled => f.write_str("interrupted"),
            Error::Many(errors) => {
                for (index, error) in errors.iter().enumerate() {
                    if index > 0 {
                        f.write_str("\n")?;
                    }
                    error.fmt(f)?;
                }
                Ok(())
            }
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_error_names_file_and_line() {
        let error =
            Error::format("a.jsonl.gz", 17, Some("text"), Code::WrongType, "\"text\" is a number; expected a string");
        assert_eq!(error.to_string(), "a.jsonl.gz:17: \"text\" is a number; expected a string");
    }

    #[test]
    fn a_config_error_ends_with_its_hint() {
        let error = Error::config("tokenizer.name_or_path", "is missing").with_hint("name a tokenizer.json");
        assert_eq!(error.to_string(), "tokenizer.name_or_path: is missing\nhint: name a tokenizer.json");
    }

    #[test]
    fn many_flattens_and_keeps_one_as_it_is() {
        let one = || Error::config("a", "is 1");
        assert!(Error::many(vec![]).is_none());
        assert!(matches!(Error::many(vec![one()]), Some(Error::Config { .. })));
        let Some(Error::Many(errors)) = Error::many(vec![Error::Many(vec![one(), one()]), one()]) else { panic!() };
        assert_eq!(errors.len(), 3);
        assert!(matches!(Error::many(vec![one(), Error::Cancelled]), Some(Error::Cancelled)));
    }
}
