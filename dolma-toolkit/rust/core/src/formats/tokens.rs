//! Directories of token shards: docs/formats/tokens.md, version 1.

use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde_json::{json, Map, Value};

use super::artifact::{open, Artifact, Counts};
use super::manifest::{sha256_file, FILE_NAME};
use super::table::{Row, TableReader};
use crate::document::kind;
use crate::error::{Code, Error, Result};

/// Item type of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Dtype {
    Uint8,
    Uint16,
    Uint32,
}

impl Dtype {
    /// The type of that name.
    pub fn named(name: &str) -> Option<Dtype> {
        [Dtype::Uint8, Dtype::Uint16, Dtype::Uint32].into_iter().find(|dtype| dtype.name() == name)
    }

    /// As NumPy and the manifest name it.
    pub fn name(self) -> &'static str {
        match self {
            Dtype::Uint8 => "uint8",
            Dtype::Uint16 => "uint16",
            Dtype::Uint32 => "uint32",
        }
    }

    /// Bytes of one item.
    pub fn size_bytes(self) -> u64 {
        match self {
            Dtype::Uint8 => 1,
            Dtype::Uint16 => 2,
            Dtype::Uint32 => 4,
        }
    }

    /// Whether every id of a vocabulary fits.
    pub fn holds(self, vocab_size: u32) -> bool {
        u64::from(vocab_size) <= 1 << (8 * self.size_bytes())
    }
}

/// What files without a manifest do not say.
#[derive(Clone, Copy, Debug, Default)]
pub struct Arguments {
    /// Item type.
    pub dtype: Option<Dtype>,
    /// Where there is no table of boundaries.
    pub eos_token_id: Option<u32>,
}

struct Shape {
    dtype: Dtype,
    vocab_size: Option<u64>,
    /// Checked only where a manifest names them.
    eos_token_id: Option<u32>,
    bos_token_id: Option<u32>,
    /// Ends documents where there is no table.
    separator: Option<u32>,
}

/// Checks an artifact of tokens in full; `each` gets every row as the page's *Dump* says.
pub fn read_tokens(path: &Path, arguments: Arguments, mut each: impl FnMut(Value)) -> Result<Counts> {
    let artifact = open(path, "tokens", |name| name.ends_with(".npy"))?;
    let shape = shape(&artifact, arguments)?;
    let mut counts = Counts::from([("documents".to_owned(), 0), ("tokens".to_owned(), 0)]);
    for name in &artifact.files {
        let ids = read_ids(&artifact.root.join(name), &shape)?;
        let table = artifact.root.join(name).with_extension("csv.gz");
        let rows = match table.is_file() {
            true => read_table(&table, &ids, &shape)?,
            false => separated(&ids, shape.separator, path)?,
        };
        *counts.entry("documents".to_owned()).or_default() += rows.len() as u64;
        *counts.entry("tokens".to_owned()).or_default() += ids.len() as u64;
        for row in rows {
            let tokens = &ids[row.start as usize..row.end as usize];
            each(
                json!({"file": name, "start": row.start, "end": row.end, "id": row.id, "src": row.src, "loc": row.loc, "tokens": tokens}),
            );
        }
    }
    artifact.check_counts(&counts)?;
    if let Some(text_bytes) = artifact.manifest.as_ref().and_then(|manifest| manifest.counts.get("text_bytes")) {
        counts.insert("text_bytes".to_owned(), *text_bytes);
    }
    Ok(counts)
}

fn shape(artifact: &Artifact, arguments: Arguments) -> Result<Shape> {
    let Some(manifest) = &artifact.manifest else {
        let dtype = arguments.dtype.ok_or_else(|| {
            Error::config("dtype", "is missing; expected it, as the shards have no manifest")
                .with_hint("give uint8, uint16 or uint32")
        })?;
        return Ok(Shape {
            dtype,
            vocab_size: None,
            eos_token_id: None,
            bos_token_id: None,
            separator: arguments.eos_token_id,
        });
    };
    let details = Details { path: artifact.root.join(FILE_NAME).display().to_string(), fields: &manifest.details };
    let name = details.string("dtype")?;
    let Some(dtype) = Dtype::named(name) else {
        return Err(details.fail(
            "dtype",
            Code::InvalidValue,
            format!("is \"{name}\"; expected uint8, uint16 or uint32"),
        ));
    };
    let vocab_size = details.integer("vocab_size", false)?;
    let id = |name: &str| details.integer(name, true).map(|id| id.map(|id| id as u32));
    let (eos_token_id, bos_token_id, _) = (id("eos_token_id")?, id("bos_token_id")?, id("pad_token_id")?);
    let tokenizer_sha256 = details.string("tokenizer_sha256")?;
    let tokenizer = artifact.root.join("tokenizer.json");
    if tokenizer.is_file() && sha256_file(&tokenizer)?.sha256 != tokenizer_sha256 {
        let message = "the sha256 is another; expected \"details.tokenizer_sha256\"";
        return Err(Error::format(tokenizer.display().to_string(), None, None, Code::ChecksumMismatch, message));
    }
    Ok(Shape { dtype, vocab_size, eos_token_id, bos_token_id, separator: eos_token_id })
}

struct Details<'a> {
    path: String,
    fields: &'a Map<String, Value>,
}

impl Details<'_> {
    fn fail(&self, name: &str, code: Code, message: String) -> Error {
        let field = format!("details.{name}");
        Error::format(&self.path, None, Some(&field), code, format!("\"{field}\" {message}"))
    }

    fn get(&self, name: &str) -> Result<&Value> {
        self.fields.get(name).ok_or_else(|| self.fail(name, Code::MissingField, "is missing; expected it".to_owned()))
    }

    fn string(&self, name: &str) -> Result<&str> {
        let value = self.get(name)?;
        value.as_str().ok_or_else(|| self.fail(name, Code::WrongType, format!("is {}; expected a string", kind(value))))
    }

    fn integer(&self, name: &str, nullable: bool) -> Result<Option<u64>> {
        match self.get(name)? {
            Value::Null if nullable => Ok(None),
            value => match value.as_u64() {
                Some(number) => Ok(Some(number)),
                None => Err(self.fail(name, Code::WrongType, format!("is {}; expected an integer", kind(value)))),
            },
        }
    }
}

fn read_ids(path: &Path, shape: &Shape) -> Result<Vec<u32>> {
    let bytes = fs::read(path).map_err(|error| Error::io(path, error))?;
    let size = shape.dtype.size_bytes() as usize;
    let fail = |code, message: String| Error::format(path.display().to_string(), None, None, code, message);
    if bytes.len() % size != 0 {
        let message = format!("the file has {} bytes; expected a multiple of {size}", bytes.len());
        return Err(fail(Code::WrongDtype, message));
    }
    let id = |item: &[u8]| item.iter().rev().fold(0u32, |id, byte| id << 8 | u32::from(*byte));
    let ids: Vec<u32> = bytes.chunks_exact(size).map(id).collect();
    if let Some((position, id)) =
        ids.iter().enumerate().find(|(_, id)| shape.vocab_size.is_some_and(|size| u64::from(**id) >= size))
    {
        return Err(fail(
            Code::OutOfRange,
            format!("token {position} is {id}; expected an id below the size of the vocabulary"),
        ));
    }
    Ok(ids)
}

fn separated(ids: &[u32], separator: Option<u32>, path: &Path) -> Result<Vec<Row>> {
    let separator = separator.ok_or_else(|| {
        Error::config(
            "eos_token_id",
            format!("is missing; expected it, as {} has no table of boundaries", path.display()),
        )
    })?;
    let mut rows = Vec::new();
    let mut start = 0;
    for end in 1..=ids.len() {
        if ids[end - 1] == separator || end == ids.len() {
            rows.push(Row { start: start as u64, end: end as u64, id: String::new(), src: String::new(), loc: 0 });
            start = end;
        }
    }
    Ok(rows)
}

fn read_table(path: &Path, ids: &[u32], shape: &Shape) -> Result<Vec<Row>> {
    let mut table = TableReader::open(path, ids.len() as u64)?;
    let mut rows: Vec<Row> = Vec::new();
    while let Some(row) = table.next_row()? {
        let fail = |field: Option<&str>, message: String| table.error(field, Code::BadBoundary, message);
        let tokens = &ids[row.start as usize..row.end as usize];
        if let (Some(eos), Some((last, within))) = (shape.eos_token_id, tokens.split_last()) {
            if *last != eos {
                return Err(fail(Some("end"), format!("the document ends with token {last}; expected {eos}")));
            }
            if within.contains(&eos) {
                return Err(fail(None, format!("the document has token {eos} inside; expected it only at the end")));
            }
        }
        if let (Some(bos), Some(first)) = (shape.bos_token_id, tokens.first()) {
            if *first != bos {
                return Err(fail(Some("start"), format!("the document begins with token {first}; expected {bos}")));
            }
        }
        rows.push(row);
    }
    Ok(rows)
}
