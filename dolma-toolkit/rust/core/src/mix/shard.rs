//! Documents are read with their attributes, asked about, changed and handed on.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::choice::{Choice, Fate, Identity, Use};
use super::funnel::StreamFunnel;
use super::output::{Destination, Sink};
use super::row::{shared_key, usual, AttributeRow, Changes, Row};
use super::rules::{Kind, Rules};
use super::settings::{ShardInput, Stream};
use super::view::View;
use crate::document::Place;
use crate::error::{Code, Error, Result};
use crate::jsonl::{AtomicWriter, Compression, LineReader, RowSieve, Skipped};
use crate::progress::Progress;

/// Documents and bytes of text in a finished file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileCounts {
    /// rows
    pub documents: u64,
    /// of their texts
    pub text_bytes: u64,
}

/// What is done with the documents.
pub enum Pass<'s> {
    /// those that the rules keep are written down for a survey
    Survey(&'s mut AtomicWriter),
    /// all go where they belong
    Write(&'s mut dyn Sink),
}

/// Reads all `inputs`.
pub fn fill<'s>(
    stream: &Stream,
    inputs: &[ShardInput],
    rules: &'s Rules,
    choice: &'s Choice,
    pass: Pass<'s>,
    sieve: &RowSieve,
    progress: &Progress,
) -> Result<StreamFunnel> {
    let funnel = StreamFunnel::new(&stream.name, rules).with_parts(&choice.edges);
    let shuffle_seed = stream.rules.shuffle_documents.as_ref().map(|shuffle| shuffle.seed);
    let mut mixer = Mixer { rules, choice, shuffle_seed, funnel, pass, line: Vec::new() };
    for input in inputs {
        mixer.mix_file(input, stream.compression.as_deref(), sieve, progress)?;
        progress.add_file();
    }
    Ok(mixer.funnel)
}

/// Documents between two looks at whether to stop.
const CHECK_INTERVAL: u64 = 256;

struct Mixer<'s> {
    rules: &'s Rules,
    choice: &'s Choice,
    shuffle_seed: Option<u64>,
    funnel: StreamFunnel,
    pass: Pass<'s>,
    line: Vec<u8>,
}

impl Mixer<'_> {
    fn mix_file(
        &mut self,
        input: &ShardInput,
        compression: Option<&str>,
        sieve: &RowSieve,
        progress: &Progress,
    ) -> Result<()> {
        let open = |path: &Path| {
            let compression = compression.and_then(Compression::named).unwrap_or(Compression::of(path));
            LineReader::open_as(path, &path.display().to_string(), compression)
        };
        let mut documents = open(&input.path)?.sieved(sieve);
        let mut attributes = input.attributes.iter().map(|path| open(path)).collect::<Result<Vec<_>>>()?;
        let names: Vec<String> = input.attributes.iter().map(|path| path.display().to_string()).collect();
        let path = input.path.display().to_string();
        let name = path.rsplit_once("/documents/").map_or(path.as_str(), |(_, name)| name).to_string();
        let file_name = input.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // skipped rows have no attribute row
        let (mut count, mut told_bytes) = (0, 0);
        while let Some((line_number, line)) = documents.next_numbered()? {
            count += 1;
            let place = Place { path: &path, line: line_number };
            let made;
            let mut row = match Row::read(line) {
                Some(row) => row,
                None => {
                    made = usual(line, &place)?;
                    Row::read(&made).ok_or_else(|| {
                        place.error(None, Code::InvalidValue, "the row cannot be used; expected a document")
                    })?
                }
            };
            let mut rows = Vec::with_capacity(attributes.len());
            for (reader, name) in attributes.iter_mut().zip(&names) {
                let place = Place { path: name, line: count };
                let Some(line) = reader.next_line()? else {
                    let message = format!("the file ends; expected a row for every document of {path}");
                    return Err(place.error(None, Code::Misaligned, message));
                };
                rows.push(AttributeRow::parse(line, &place, &row.id)?);
            }
            if let Some((key, earlier, later)) = shared_key(&rows) {
                let message = format!(
                    "{} also has the attribute \"{key}\"; expected each key in only one set of a stream",
                    names[earlier]
                );
                let place = Place { path: &names[later], line: line_number };
                return Err(place.error(Some(&format!("attributes.{key}")), Code::InvalidValue, message));
            }
            row.add_attributes(rows);
            let identity = Identity { file: &name, line: line_number, id: &row.id };
            self.mix_row(&row, place, &file_name, &identity)?;
            if count % CHECK_INTERVAL == 0 {
                progress.check()?;
                progress.add_documents(CHECK_INTERVAL);
                progress.add_bytes(documents.stored_bytes() - told_bytes);
                told_bytes = documents.stored_bytes();
            }
        }
        progress.add_documents(count % CHECK_INTERVAL);
        let skipped = documents.skipped().iter();
        self.funnel.skipped.extend(skipped.map(|row| Skipped { file: path.clone(), row: row.clone() }));
        progress.add_bytes(documents.stored_bytes() - told_bytes);
        for (reader, name) in attributes.iter_mut().zip(&names) {
            if reader.next_line()?.is_some() {
                let message = format!("there is an extra row; expected none, since {path} has {count} documents");
                return Err(Error::format(name, count + 1, None, Code::Misaligned, message));
            }
        }
        Ok(())
    }

    fn mix_row(&mut self, row: &Row<'_>, place: Place<'_>, file_name: &str, identity: &Identity<'_>) -> Result<()> {
        let view = View::new(row, place, self.rules);
        let mut drops = self.rules.filter(&view)?;
        let replaced = self.rules.replaced(&view)?;
        let text = replaced.as_ref().map_or(&*row.text, |replaced| &replaced.text);
        drops.extend(self.rules.is_too_short(text));
        let drawn = self.choice.copies(identity);
        drops.extend(drawn.map(|copies| copies == 0));
        let mut fate = Fate { copies: drawn.unwrap_or(1), part: 0 };
        let is_left = !drops.contains(&true);
        let sink = match &mut self.pass {
            Pass::Survey(_) if !is_left => return Ok(()),
            Pass::Survey(notes) => {
                let weighed = self.choice.weigh(identity, row, &place, text, fate.copies)?;
                return notes.put(&weighed.to_bytes());
            }
            Pass::Write(sink) => sink,
        };
        if !self.rules.watched.is_empty() {
            self.funnel.watch(self.rules, &view, &drops);
        }
        drops.extend(self.choice.is_affordable(identity).map(|affordable| is_left && !affordable));
        if is_left {
            fate.part = self.choice.part(row, &place)?;
        }
        let (bytes_in, bytes_out) = (row.text.len() as u64, text.len() as u64);
        let provenance = || ("provenance", format!("{file_name}:{}", place.line));
        let shuffled = |copy: u32| self.shuffle_seed.map_or(0, |seed| identity.hash(seed, Use::Shuffle, copy));
        let Some(reason) = self.funnel.count(&row.source, bytes_in, bytes_out, &drops, fate) else {
            let counts = replaced.iter().flat_map(|replaced| &replaced.counts);
            for (flow, count) in self.funnel.span_replacements.iter_mut().zip(counts) {
                flow.spans += count.spans;
                flow.bytes += count.bytes;
            }
            for copy in 0..fate.copies {
                let copy_text = self.choice.repeats().then(|| ("copy", copy.to_string()));
                let changes = Changes {
                    text: replaced.as_ref().map(|replaced| replaced.text.as_str()),
                    metadata: copy_text.into_iter().chain([provenance()]).collect(),
                    discard_fields: &self.rules.discard_fields,
                };
                self.line.clear();
                row.write(&mut self.line, &changes);
                self.line.push(b'\n');
                sink.put(Destination::Part(fate.part), shuffled(copy), &self.line, bytes_out)?;
            }
            return Ok(());
        };
        if sink.wants_dropped() {
            let rule = &self.rules.names()[reason];
            let kind = match rule.kind {
                Kind::Include => "not included",
                Kind::Exclude => "excluded",
                Kind::MinTextLength => "too short",
                Kind::Sample => "not drawn",
                Kind::Budget => "over budget",
            };
            let metadata = vec![("dropped_by", format!("{kind}: {}", rule.rule)), provenance()];
            self.line.clear();
            row.write(&mut self.line, &Changes { metadata, ..Changes::default() });
            self.line.push(b'\n');
            sink.put(Destination::Dropped, shuffled(0), &self.line, bytes_in)?;
        }
        Ok(())
    }
}
