//! Rows of a Parquet file, rendered as lines one by one.

use std::fs::File;
use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::{ConvertedType, Type as PhysicalType};
use parquet::errors::Result as ParquetResult;
use parquet::file::reader::{ChunkReader, FileReader, Length, SerializedFileReader};
use parquet::record::reader::RowIter;
use parquet::schema::types::{ColumnDescriptor, SchemaDescriptor, Type, TypePtr};

use super::values::{put_field, put_json, put_key, Field};
use super::{guarded, invalid, io_error, EXTRA, OBJECTS};
use crate::document::Fields;

/// How a column becomes a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Plain,
    /// text that is JSON
    Json,
    /// text that is a JSON object, whose members are fields
    Members,
}

pub(in crate::jsonl) struct ParquetLines {
    rows: RowIter<'static>,
    columns: Vec<(TypePtr, Kind)>,
    line: Vec<u8>,
    /// of `line`, taken already
    taken: usize,
}

impl ParquetLines {
    /// With only the columns of these names, and those whose members are fields; `None` for all.
    pub fn open(
        file: File,
        size_bytes: u64,
        stored_bytes: Arc<AtomicU64>,
        fields: Option<&[&str]>,
    ) -> io::Result<ParquetLines> {
        guarded(|| {
            let file = CountedFile { file, size_bytes, stored_bytes };
            let reader = SerializedFileReader::new(file).map_err(io_error)?;
            let schema = reader.metadata().file_metadata().schema_descr();
            let is_wanted = |column: &TypePtr| {
                fields.is_none_or(|fields| fields.contains(&column.name())) || kind(column) == Kind::Members
            };
            let root = schema.root_schema();
            let wanted: Vec<TypePtr> = root.get_fields().iter().filter(|column| is_wanted(column)).cloned().collect();
            check(schema, &wanted)?;
            let columns: Vec<_> = wanted.iter().map(|column| (column.clone(), kind(column))).collect();
            let is_part = wanted.len() < root.get_fields().len();
            if wanted.is_empty() && is_part {
                let names: Vec<&str> = root.get_fields().iter().map(|column| column.name()).collect();
                return Err(invalid(format!(
                    "its columns are {}; expected at least one that is read",
                    names.join(", ")
                )));
            }
            let part = is_part.then(|| Type::group_type_builder(root.name()).with_fields(wanted).build());
            let part = part.transpose().map_err(io_error)?;
            let rows = RowIter::from_file_into(Box::new(reader)).project(part).map_err(io_error)?;
            Ok(ParquetLines { rows, columns, line: Vec::new(), taken: 0 })
        })
    }

    /// Renders the next row; says whether there is one.
    fn advance(&mut self) -> io::Result<bool> {
        let Some(row) = guarded(|| self.rows.next().transpose().map_err(io_error))? else { return Ok(false) };
        self.line.clear();
        self.taken = 0;
        self.line.push(b'{');
        for ((name, field), (column, kind)) in row.get_column_iter().zip(&self.columns) {
            put_column(&mut self.line, name, field, column, *kind)
                .map_err(|reason| io::Error::other(BadValue { column: name.clone(), reason: reason.to_string() }))?;
        }
        self.line.extend_from_slice(b"}\n");
        Ok(true)
    }
}

/// A value that JSON cannot express.
#[derive(Debug)]
pub(in crate::jsonl) struct BadValue {
    pub column: String,
    pub reason: String,
}

impl std::fmt::Display for BadValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "column \"{}\" {}", self.column, self.reason)
    }
}

impl std::error::Error for BadValue {}

fn put_column(line: &mut Vec<u8>, name: &str, field: &Field, column: &Type, kind: Kind) -> io::Result<()> {
    match (kind, field) {
        (_, Field::Null) => Ok(()),
        (Kind::Members, Field::Str(text)) => put_members(line, text),
        (Kind::Members, _) => Err(invalid("is not text; expected JSON objects")),
        (Kind::Json, Field::Str(text)) => {
            put_key(line, name)?;
            put_json(line, text)
        }
        _ => {
            put_key(line, name)?;
            put_field(line, field, column)
        }
    }
}

impl Read for ParquetLines {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.taken == self.line.len() && !self.advance()? {
            return Ok(0);
        }
        let length = buffer.len().min(self.line.len() - self.taken);
        buffer[..length].copy_from_slice(&self.line[self.taken..self.taken + length]);
        self.taken += length;
        Ok(length)
    }
}

fn put_members(line: &mut Vec<u8>, text: &str) -> io::Result<()> {
    let fail = |error: serde_json::Error| invalid(format!("is not a JSON object ({error}); expected one"));
    let members: Fields<'_> = serde_json::from_str(text).map_err(fail)?;
    for (name, value) in &members.0 {
        put_key(line, name)?;
        put_json(line, value.get())?;
    }
    Ok(())
}

fn kind(column: &Type) -> Kind {
    if !column.is_primitive() {
        return Kind::Plain;
    }
    let info = column.get_basic_info();
    let is_json = info.converted_type() == ConvertedType::JSON;
    match is_json {
        true if info.name() == EXTRA => Kind::Members,
        _ if is_json || OBJECTS.contains(&info.name()) => Kind::Json,
        _ => Kind::Plain,
    }
}

/// Types that rows cannot be made of are refused before the first row is.
fn check(schema: &SchemaDescriptor, wanted: &[TypePtr]) -> io::Result<()> {
    let is_wanted = |column: &ColumnDescriptor| {
        let root = column.path().parts().first();
        root.is_some_and(|root| wanted.iter().any(|column| column.name() == root))
    };
    match schema.columns().iter().find(|column| is_wanted(column) && !is_known(column)) {
        None => Ok(()),
        Some(column) => {
            let types = format!("{} {}", column.physical_type(), column.converted_type());
            Err(invalid(format!("column \"{}\" has the type {types}, which has no JSON", column.path().string())))
        }
    }
}

fn is_known(column: &ColumnDescriptor) -> bool {
    use ConvertedType as C;
    let converted = column.converted_type();
    match column.physical_type() {
        PhysicalType::INT32 => matches!(
            converted,
            C::NONE
                | C::INT_8
                | C::INT_16
                | C::INT_32
                | C::UINT_8
                | C::UINT_16
                | C::UINT_32
                | C::DATE
                | C::TIME_MILLIS
                | C::DECIMAL
        ),
        PhysicalType::INT64 => matches!(
            converted,
            C::NONE | C::INT_64 | C::UINT_64 | C::TIME_MICROS | C::TIMESTAMP_MILLIS | C::TIMESTAMP_MICROS | C::DECIMAL
        ),
        PhysicalType::BYTE_ARRAY => matches!(converted, C::NONE | C::UTF8 | C::ENUM | C::JSON | C::DECIMAL),
        PhysicalType::FIXED_LEN_BYTE_ARRAY => matches!(converted, C::NONE | C::DECIMAL),
        PhysicalType::BOOLEAN | PhysicalType::INT96 | PhysicalType::FLOAT | PhysicalType::DOUBLE => true,
    }
}

struct CountedFile {
    file: File,
    size_bytes: u64,
    stored_bytes: Arc<AtomicU64>,
}

impl Length for CountedFile {
    fn len(&self) -> u64 {
        self.size_bytes
    }
}

impl ChunkReader for CountedFile {
    type T = CountedReader;

    fn get_read(&self, start: u64) -> ParquetResult<CountedReader> {
        Ok(CountedReader { inner: self.file.get_read(start)?, stored_bytes: self.stored_bytes.clone() })
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        // before memory is taken for what a damaged file claims to hold
        if start.checked_add(length as u64).is_none_or(|end| end > self.size_bytes) {
            let message = format!("it refers to {length} bytes at {start}, but has {}", self.size_bytes);
            return Err(parquet::errors::ParquetError::EOF(message));
        }
        self.stored_bytes.fetch_add(length as u64, Ordering::Relaxed);
        self.file.get_bytes(start, length)
    }
}

struct CountedReader {
    inner: io::BufReader<File>,
    stored_bytes: Arc<AtomicU64>,
}

impl Read for CountedReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.stored_bytes.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}
