//! JSON lines into a Parquet file whose bytes depend only on the lines.

use std::io::{self, Write};
use std::sync::Arc;

use parquet::basic::{Compression, LogicalType, Repetition, Type as PhysicalType, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::{ColumnPath, Type};

use super::{invalid, io_error, EXTRA};
use crate::document::Fields;

/// Name, whether a row must have it, whether it holds JSON. What is none of these goes to the last one.
const COLUMNS: [(&str, bool, bool); 9] = [
    ("id", true, false),
    ("text", true, false),
    ("source", false, false),
    ("added", false, false),
    ("created", false, false),
    ("version", false, false),
    ("metadata", false, true),
    ("attributes", false, true),
    (EXTRA, false, true),
];

/// Of what is held until a group of rows is written.
const GROUP_BYTES: usize = 32 << 20;

pub(in crate::jsonl) struct ParquetWriter<W: Write + Send> {
    file: SerializedFileWriter<W>,
    /// a line that has not ended
    line: Vec<u8>,
    columns: [Column; COLUMNS.len()],
    rows: usize,
    held_bytes: usize,
}

#[derive(Default)]
struct Column {
    values: Vec<ByteArray>,
    /// 1 for each row that has a value, else 0
    levels: Vec<i16>,
}

impl<W: Write + Send> ParquetWriter<W> {
    pub fn new(file: W) -> io::Result<Self> {
        let file = SerializedFileWriter::new(file, Arc::new(schema()?), Arc::new(properties()?)).map_err(io_error)?;
        Ok(Self { file, line: Vec::new(), columns: Default::default(), rows: 0, held_bytes: 0 })
    }

    pub fn finish(mut self) -> io::Result<W> {
        if !self.line.is_empty() {
            return Err(invalid("the last line has no end"));
        }
        self.write_group()?;
        self.file.into_inner().map_err(io_error)
    }

    fn add_row(&mut self, line: &[u8]) -> io::Result<()> {
        let fields: Fields<'_> = serde_json::from_slice(line).map_err(|error| invalid(error.to_string()))?;
        let mut values: [Option<Vec<u8>>; COLUMNS.len()] = Default::default();
        let mut extra = Vec::new();
        for (name, value) in &fields.0 {
            match COLUMNS[..COLUMNS.len() - 1].iter().position(|(column, _, _)| **column == **name) {
                _ if value.get() == "null" => {}
                Some(index) if COLUMNS[index].2 => values[index] = Some(value.get().as_bytes().to_vec()),
                Some(index) => {
                    let text: String = serde_json::from_str(value.get())
                        .map_err(|_| invalid(format!("\"{name}\" is {}; expected a string", value.get())))?;
                    values[index] = Some(text.into_bytes());
                }
                None => {
                    extra.push(if extra.is_empty() { b'{' } else { b',' });
                    serde_json::to_writer(&mut extra, name)?;
                    extra.push(b':');
                    extra.extend_from_slice(value.get().as_bytes());
                }
            }
        }
        if !extra.is_empty() {
            extra.push(b'}');
            values[COLUMNS.len() - 1] = Some(extra);
        }
        for ((column, value), (name, is_required, _)) in self.columns.iter_mut().zip(values).zip(COLUMNS) {
            if is_required && value.is_none() {
                return Err(invalid(format!("a row has no \"{name}\"")));
            }
            column.levels.push(i16::from(value.is_some()));
            if let Some(value) = value {
                self.held_bytes += value.len() + size_of::<ByteArray>();
                column.values.push(ByteArray::from(value));
            }
        }
        self.rows += 1;
        if self.held_bytes >= GROUP_BYTES {
            self.write_group()?;
        }
        Ok(())
    }

    fn write_group(&mut self) -> io::Result<()> {
        if self.rows == 0 {
            return Ok(());
        }
        let mut group = self.file.next_row_group().map_err(io_error)?;
        for (column, (_, is_required, _)) in self.columns.iter_mut().zip(COLUMNS) {
            let Some(mut writer) = group.next_column().map_err(io_error)? else {
                return Err(io::Error::other("the schema has too few columns"));
            };
            let levels = (!is_required).then_some(column.levels.as_slice());
            writer.typed::<ByteArrayType>().write_batch(&column.values, levels, None).map_err(io_error)?;
            writer.close().map_err(io_error)?;
            column.values.clear();
            column.levels.clear();
        }
        group.close().map_err(io_error)?;
        (self.rows, self.held_bytes) = (0, 0);
        Ok(())
    }
}

impl<W: Write + Send> Write for ParquetWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(end) = memchr::memchr(b'\n', bytes) else {
            self.line.extend_from_slice(bytes);
            return Ok(bytes.len());
        };
        if self.line.is_empty() {
            self.add_row(&bytes[..end])?;
        } else {
            let mut line = std::mem::take(&mut self.line);
            line.extend_from_slice(&bytes[..end]);
            self.add_row(&line)?;
        }
        Ok(end + 1)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn schema() -> io::Result<Type> {
    let columns = COLUMNS.iter().map(|&(name, is_required, is_json)| {
        let column = Type::primitive_type_builder(name, PhysicalType::BYTE_ARRAY)
            .with_repetition(if is_required { Repetition::REQUIRED } else { Repetition::OPTIONAL })
            .with_logical_type(Some(if is_json { LogicalType::Json } else { LogicalType::String }));
        Ok(Arc::new(column.build().map_err(io_error)?))
    });
    let columns = columns.collect::<io::Result<Vec<_>>>()?;
    Type::group_type_builder("documents").with_fields(columns).build().map_err(io_error)
}

fn properties() -> io::Result<WriterProperties> {
    const LEVEL: i32 = 3;
    Ok(WriterProperties::builder()
        // the name of a version of a library would change the bytes with it
        .set_created_by("dolma-toolkit".to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(LEVEL).map_err(io_error)?))
        .set_statistics_enabled(EnabledStatistics::None)
        .set_dictionary_enabled(false)
        // few values repeat, and these do
        .set_column_dictionary_enabled(ColumnPath::from("source"), true)
        .set_column_dictionary_enabled(ColumnPath::from("version"), true)
        .set_write_batch_size(64)
        .build())
}
