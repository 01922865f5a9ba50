//! Documents are asked about, changed and written as lines, with their attributes.

use super::choice::{Choice, Fate, Identity, Use};
use super::funnel::StreamFunnel;
use super::output::{Destination, Sink};
use super::row::{shared_key, usual, AttributeRow, Changes, Row};
use super::rules::{Kind, Rules};
use super::view::View;
use crate::document::Place;
use crate::error::{Code, Result};

/// A document and the lines of its attributes, each with its place.
pub struct Given<'b> {
    /// one line
    pub document: &'b [u8],
    /// in the input
    pub place: Place<'b>,
    /// in the order in which later ones win
    pub attributes: Vec<(&'b [u8], Place<'b>)>,
    /// which rules drop it, if that was known before all attributes were there
    pub drops: Option<Vec<bool>>,
}

/// How the documents of a stream are mixed; shared between threads.
pub struct Mixer<'s> {
    /// of the stream
    pub rules: &'s Rules,
    /// of the stream
    pub choice: &'s Choice,
    /// of the order of the output, if it has one of its own
    pub shuffle_seed: Option<u64>,
    /// whether anybody wants dropped documents
    pub wants_dropped: bool,
    /// whether documents that the rules keep are written down for a survey, and nothing else
    pub surveys: bool,
}

/// What becomes of some documents.
pub struct Mixed {
    /// of these documents
    pub funnel: StreamFunnel,
    bytes: Vec<u8>,
    lines: Vec<Line>,
}

struct Line {
    /// of the input
    number: u64,
    destination: Destination,
    place: u64,
    end: usize,
    text_bytes: u64,
}

impl Mixed {
    fn put(&mut self, number: u64, destination: Destination, place: u64, text_bytes: u64) {
        self.lines.push(Line { number, destination, place, end: self.bytes.len(), text_bytes });
    }

    /// The documents that are kept, as lines, each with its part and its line in the input.
    pub fn kept(&self) -> impl Iterator<Item = (usize, u64, &[u8])> {
        let mut start = 0;
        self.lines.iter().filter_map(move |line| {
            let bytes = &self.bytes[start..line.end];
            start = line.end;
            match line.destination {
                Destination::Part(part) => Some((part, line.number, bytes)),
                Destination::Dropped => None,
            }
        })
    }

    /// Hands all lines to `sink`, in order.
    pub fn put_into(&self, sink: &mut dyn Sink) -> Result<()> {
        let mut start = 0;
        for line in &self.lines {
            sink.put(line.destination, line.place, &self.bytes[start..line.end], line.text_bytes)?;
            start = line.end;
        }
        Ok(())
    }
}

impl Mixer<'_> {
    /// Mixes rows. `funnel` is an empty one.
    pub fn mix<'b>(&self, rows: impl Iterator<Item = Given<'b>>, funnel: StreamFunnel) -> Result<Mixed> {
        let mut mixed = Mixed { funnel, bytes: Vec::new(), lines: Vec::new() };
        for row in rows {
            self.mix_document(&row, &mut mixed)?;
        }
        Ok(mixed)
    }

    /// Which rules drop a document, if some do that are `decidable`; the others are not asked.
    pub fn early_drops(&self, given: &Given<'_>, decidable: &[bool]) -> Result<Option<Vec<bool>>> {
        let mut found = None;
        self.with_row(given, &mut |row, place, identity| {
            let mut drops = self.rules.filter_early(&View::new(row, place, self.rules), decidable)?;
            let sample = self.rules.names().iter().position(|name| name.kind == Kind::Sample);
            if let (Some(sample), Some(0)) = (sample, self.choice.copies(identity)) {
                drops[sample] = true;
            }
            found = Some(drops).filter(|drops| drops.contains(&true));
            Ok(())
        })?;
        Ok(found)
    }

    fn mix_document(&self, given: &Given<'_>, mixed: &mut Mixed) -> Result<()> {
        self.with_row(given, &mut |row, place, identity| match &given.drops {
            Some(drops) => self.drop_row(row, place, identity, drops, mixed),
            None => self.mix_row(row, place, identity, mixed),
        })
    }

    /// Calls `with` with the row and its attributes.
    fn with_row(
        &self,
        given: &Given<'_>,
        with: &mut dyn FnMut(&Row<'_>, Place<'_>, &Identity<'_>) -> Result<()>,
    ) -> Result<()> {
        let (line, place) = (given.document, given.place);
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
        let attributes = given.attributes.iter();
        let rows =
            attributes.map(|(line, place)| AttributeRow::parse(line, place, &row.id)).collect::<Result<Vec<_>>>()?;
        if let Some((key, earlier, later)) = shared_key(&rows) {
            let (earlier, later) = (given.attributes[earlier].1, given.attributes[later].1);
            let message = format!(
                "{} also has the attribute \"{key}\"; expected each key in only one set of a stream",
                earlier.path
            );
            let place = Place { path: later.path, line: place.line };
            return Err(place.error(Some(&format!("attributes.{key}")), Code::InvalidValue, message));
        }
        row.add_attributes(rows);
        let name = place.path.rsplit_once("/documents/").map_or(place.path, |(_, name)| name);
        let identity = Identity { file: name, line: place.line, id: &row.id };
        with(&row, place, &identity)
    }

    fn mix_row(&self, row: &Row<'_>, place: Place<'_>, identity: &Identity<'_>, mixed: &mut Mixed) -> Result<()> {
        let view = View::new(row, place, self.rules);
        let mut drops = self.rules.filter(&view)?;
        let replaced = self.rules.replaced(&view)?;
        let text = replaced.as_ref().map_or(&*row.text, |replaced| &replaced.text);
        drops.extend(self.rules.is_too_short(text));
        let drawn = self.choice.copies(identity);
        drops.extend(drawn.map(|copies| copies == 0));
        let mut fate = Fate { copies: drawn.unwrap_or(1), part: 0 };
        let is_left = !drops.contains(&true);
        if self.surveys {
            if is_left {
                let weighed = self.choice.weigh(identity, row, &place, text, fate.copies)?;
                mixed.bytes.extend_from_slice(&weighed.to_bytes());
                mixed.put(place.line, Destination::Part(0), 0, 0);
            }
            return Ok(());
        }
        if !self.rules.watched.is_empty() {
            mixed.funnel.watch(self.rules, &view, &drops);
        }
        drops.extend(self.choice.is_affordable(identity).map(|affordable| is_left && !affordable));
        if is_left {
            fate.part = self.choice.part(row, &place)?;
        }
        let (bytes_in, bytes_out) = (row.text.len() as u64, text.len() as u64);
        if drops.contains(&true) {
            return self.drop_row(row, place, identity, &drops, mixed);
        }
        mixed.funnel.count(&row.source, bytes_in, bytes_out, &drops, fate);
        let counts = replaced.iter().flat_map(|replaced| &replaced.counts);
        for (flow, count) in mixed.funnel.span_replacements.iter_mut().zip(counts) {
            flow.spans += count.spans;
            flow.bytes += count.bytes;
        }
        for copy in 0..fate.copies {
            let copy_text = self.choice.repeats().then(|| ("copy", copy.to_string()));
            let changes = Changes {
                text: replaced.as_ref().map(|replaced| replaced.text.as_str()),
                metadata: copy_text.into_iter().chain([("provenance", provenance(place))]).collect(),
                discard_fields: &self.rules.discard_fields,
            };
            row.write(&mut mixed.bytes, &changes);
            mixed.bytes.push(b'\n');
            mixed.put(place.line, Destination::Part(fate.part), self.shuffled(identity, copy), bytes_out);
        }
        Ok(())
    }

    fn shuffled(&self, identity: &Identity<'_>, copy: u32) -> u64 {
        self.shuffle_seed.map_or(0, |seed| identity.hash(seed, Use::Shuffle, copy))
    }

    /// Counts a document that rules drop, and writes it if anybody wants it.
    fn drop_row(
        &self,
        row: &Row<'_>,
        place: Place<'_>,
        identity: &Identity<'_>,
        drops: &[bool],
        mixed: &mut Mixed,
    ) -> Result<()> {
        let bytes_in = row.text.len() as u64;
        let fate = Fate { copies: 0, part: 0 };
        let reason = mixed.funnel.count(&row.source, bytes_in, 0, drops, fate);
        let Some(rule) = reason.map(|reason| &self.rules.names()[reason]).filter(|_| self.wants_dropped) else {
            return Ok(());
        };
        let kind = match rule.kind {
            Kind::Include => "not included",
            Kind::Exclude => "excluded",
            Kind::MinTextLength => "too short",
            Kind::Sample => "not drawn",
            Kind::Budget => "over budget",
        };
        let metadata = vec![("dropped_by", format!("{kind}: {}", rule.rule)), ("provenance", provenance(place))];
        row.write(&mut mixed.bytes, &Changes { metadata, ..Changes::default() });
        mixed.bytes.push(b'\n');
        mixed.put(place.line, Destination::Dropped, self.shuffled(identity, 0), bytes_in);
        Ok(())
    }
}

/// File and line of a document in the input.
fn provenance(place: Place<'_>) -> String {
    let file_name = place.path.rsplit_once('/').map_or(place.path, |(_, name)| name);
    format!("{file_name}:{}", place.line)
}
