//! The table next to a token shard: `start,end,id,src,loc`, CSV without a header (docs/formats/tokens.md).

use std::path::Path;

use crate::error::{Code, Error, Result};
use crate::jsonl::LineReader;

/// One document, or a part of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Token offset within the shard.
    pub start: u64,
    /// Exclusive.
    pub end: u64,
    /// Of the document.
    pub id: String,
    /// The document file as it was named to the writer.
    pub src: String,
    /// 1-based line in it.
    pub loc: u64,
}

impl Row {
    /// The row as it is written, line end included; quoted only where it has to be, as Python's `csv` does by default.
    pub fn text(&self) -> String {
        format!("{},{},{},{},{}\r\n", self.start, self.end, field(&self.id), field(&self.src), self.loc)
    }
}

fn field(text: &str) -> String {
    if text.contains([',', '"', '\r', '\n']) {
        return format!("\"{}\"", text.replace('"', "\"\""));
    }
    text.to_owned()
}

/// Reads a table row by row and holds it to the number of tokens in its shard.
pub struct TableReader {
    reader: LineReader,
    tokens: u64,
    rows: u64,
    end: u64,
    record: Vec<u8>,
}

impl TableReader {
    /// Opens the table of a shard of `tokens` tokens.
    pub fn open(path: &Path, tokens: u64) -> Result<TableReader> {
        Ok(TableReader { reader: LineReader::open(path)?, tokens, rows: 0, end: 0, record: Vec::new() })
    }

    /// The next row, which begins where the one before ends; the last one ends where the shard does.
    pub fn next_row(&mut self) -> Result<Option<Row>> {
        self.record.clear();
        loop {
            let Some(line) = self.reader.next_line()? else { return self.finish() };
            self.record.extend_from_slice(line);
            // a quoted field may hold line ends
            if self.record.iter().filter(|byte| **byte == b'"').count() % 2 == 0 {
                break;
            }
            self.record.push(b'\n');
        }
        self.rows += 1;
        let row = self.parse()?;
        if row.start != self.end {
            let message = format!("\"start\" is {}; expected {}", row.start, self.end);
            return Err(self.error(Some("start"), Code::BadBoundary, message));
        }
        if row.end < row.start || row.end > self.tokens {
            let message = format!("\"end\" is {}; expected from {} to {}", row.end, row.start, self.tokens);
            return Err(self.error(Some("end"), Code::BadBoundary, message));
        }
        self.end = row.end;
        Ok(Some(row))
    }

    /// An error at the row that was read last.
    pub fn error(&self, field: Option<&str>, code: Code, message: String) -> Error {
        Error::format(self.reader.path(), self.rows, field, code, message)
    }

    fn finish(&self) -> Result<Option<Row>> {
        if !self.record.is_empty() {
            let message = "the row ends within quotation marks; expected start,end,id,src,loc";
            return Err(Error::format(self.reader.path(), self.rows + 1, None, Code::InvalidValue, message));
        }
        if self.end != self.tokens {
            let line = (self.rows > 0).then_some(self.rows);
            let message =
                format!("\"end\" is {} in the last row; expected {}, the number of tokens", self.end, self.tokens);
            return Err(Error::format(self.reader.path(), line, Some("end"), Code::BadBoundary, message));
        }
        Ok(None)
    }

    fn parse(&self) -> Result<Row> {
        let text = std::str::from_utf8(&self.record)
            .map_err(|_| self.error(None, Code::InvalidValue, "the row is not UTF-8; expected UTF-8".to_owned()))?;
        let fields = fields(text.strip_suffix('\r').unwrap_or(text));
        let [start, end, id, src, loc] = fields.as_slice() else {
            let message = format!("the row has {} columns; expected start,end,id,src,loc", fields.len());
            return Err(self.error(None, Code::InvalidValue, message));
        };
        let number = |name: &str, text: &str| {
            text.parse().map_err(|_| {
                self.error(Some(name), Code::WrongType, format!("\"{name}\" is \"{text}\"; expected an integer"))
            })
        };
        Ok(Row {
            start: number("start", start)?,
            end: number("end", end)?,
            id: id.clone(),
            src: src.clone(),
            loc: number("loc", loc)?,
        })
    }
}

fn fields(text: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        let last = fields.len() - 1;
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                fields[last].push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            other => fields[last].push(other),
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_quoted_as_python_quotes_them_and_read_back() {
        assert_eq!(field("2,3"), "\"2,3\"");
        assert_eq!(field("a\"b"), "\"a\"\"b\"");
        assert_eq!(field(" a'b;"), " a'b;");
        for text in ["2,3", "a\"b", "", "\"", "a\rb", "ä 😀"] {
            assert_eq!(fields(&format!("1,{},x", field(text)))[1], text);
        }
    }
}
