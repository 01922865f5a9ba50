//! One output file: its documents are read with their attributes, asked about, changed and written.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::funnel::StreamFunnel;
use super::row::{AttributeRow, Changes, Row};
use super::rules::{Kind, Rules};
use super::settings::{Shard, ShardInput, Stream};
use super::view::View;
use crate::document::Place;
use crate::error::{Code, Error, Result};
use crate::jsonl::{AtomicWriter, Compression, LineReader};
use crate::progress::Progress;

/// Documents and bytes of text in a finished file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileCounts {
    /// rows
    pub documents: u64,
    /// of their texts
    pub text_bytes: u64,
}

/// Where the documents of a shard go.
pub struct Outputs {
    /// those that are kept
    pub kept: AtomicWriter,
    /// those that are dropped, if anybody wants them
    pub dropped: Option<AtomicWriter>,
    /// of `dropped`
    pub dropped_counts: FileCounts,
}

/// Reads all inputs of `shard` into `outputs`.
pub fn fill(
    stream: &Stream,
    shard: &Shard,
    rules: &Rules,
    outputs: &mut Outputs,
    progress: &Progress,
) -> Result<StreamFunnel> {
    let mut mixer = Mixer { rules, funnel: StreamFunnel::new(&stream.name, rules), outputs, line: Vec::new() };
    for input in &shard.inputs {
        mixer.mix_file(input, stream.compression.as_deref(), progress)?;
        progress.add_file();
    }
    Ok(mixer.funnel)
}

/// Documents between two looks at whether to stop.
const CHECK_INTERVAL: u64 = 256;

struct Mixer<'s> {
    rules: &'s Rules,
    funnel: StreamFunnel,
    outputs: &'s mut Outputs,
    line: Vec<u8>,
}

impl Mixer<'_> {
    fn mix_file(&mut self, input: &ShardInput, compression: Option<&str>, progress: &Progress) -> Result<()> {
        let open = |path: &Path| {
            let compression = compression.and_then(Compression::named).unwrap_or(Compression::of(path));
            LineReader::open_as(path, &path.display().to_string(), compression)
        };
        let mut documents = open(&input.path)?;
        let mut attributes = input.attributes.iter().map(|path| open(path)).collect::<Result<Vec<_>>>()?;
        let names: Vec<String> = input.attributes.iter().map(|path| path.display().to_string()).collect();
        let path = input.path.display().to_string();
        let file_name = input.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let (mut line_number, mut told_bytes) = (0, 0);
        while let Some(line) = documents.next_line()? {
            line_number += 1;
            let place = Place { path: &path, line: line_number };
            let mut row = Row::parse(line, &place)?;
            let mut rows = Vec::with_capacity(attributes.len());
            for (reader, name) in attributes.iter_mut().zip(&names) {
                let place = Place { path: name, line: line_number };
                let Some(line) = reader.next_line()? else {
                    let message = format!("the file ends; expected a row for every document of {path}");
                    return Err(place.error(None, Code::Misaligned, message));
                };
                rows.push(AttributeRow::parse(line, &place, &row.id)?);
            }
            row.add_attributes(rows);
            self.mix_row(&row, place, &file_name)?;
            if line_number % CHECK_INTERVAL == 0 {
                progress.check()?;
                progress.add_documents(CHECK_INTERVAL);
                progress.add_bytes(documents.stored_bytes() - told_bytes);
                told_bytes = documents.stored_bytes();
            }
        }
        progress.add_documents(line_number % CHECK_INTERVAL);
        progress.add_bytes(documents.stored_bytes() - told_bytes);
        for (reader, name) in attributes.iter_mut().zip(&names) {
            if reader.next_line()?.is_some() {
                let message = format!("there is a row; expected none, since {path} has {line_number} documents");
                return Err(Error::format(name, line_number + 1, None, Code::Misaligned, message));
            }
        }
        Ok(())
    }

    fn mix_row(&mut self, row: &Row<'_>, place: Place<'_>, file_name: &str) -> Result<()> {
        let view = View::new(row, place, self.rules);
        let mut drops = self.rules.filter(&view)?;
        let replaced = self.rules.replaced(&view)?;
        let text = replaced.as_ref().map_or(&*row.text, |replaced| &replaced.text);
        drops.extend(self.rules.is_too_short(text));
        let (bytes_in, bytes_out) = (row.text.len() as u64, text.len() as u64);
        let provenance = || ("provenance", format!("{file_name}:{}", place.line));
        self.line.clear();
        let Some(reason) = self.funnel.count(&row.source, bytes_in, bytes_out, &drops) else {
            let counts = replaced.iter().flat_map(|replaced| &replaced.counts);
            for (flow, count) in self.funnel.span_replacements.iter_mut().zip(counts) {
                flow.spans += count.spans;
                flow.bytes += count.bytes;
            }
            let changes = Changes {
                text: replaced.as_ref().map(|replaced| replaced.text.as_str()),
                metadata: vec![provenance()],
                discard_fields: &self.rules.discard_fields,
            };
            row.write(&mut self.line, &changes);
            self.line.push(b'\n');
            return self.outputs.kept.put(&self.line);
        };
        if let Some(dropped) = &mut self.outputs.dropped {
            let rule = &self.rules.names()[reason];
            let kind = match rule.kind {
                Kind::Include => "not included",
                Kind::Exclude => "excluded",
                Kind::MinTextLength => "too short",
            };
            let metadata = vec![("dropped_by", format!("{kind}: {}", rule.rule)), provenance()];
            row.write(&mut self.line, &Changes { metadata, ..Changes::default() });
            self.line.push(b'\n');
            self.outputs.dropped_counts.documents += 1;
            self.outputs.dropped_counts.text_bytes += bytes_in;
            dropped.put(&self.line)?;
        }
        Ok(())
    }
}
