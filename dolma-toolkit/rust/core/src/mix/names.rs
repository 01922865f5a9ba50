//! Whether the attributes that rules name are there. A name that is spelt wrong matches nothing, and without this check
//! every document would pass.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::row::{attribute_keys, Row};
use super::rules::{NamedKey, Rules};
use super::settings::{Settings, Stream};
use crate::attributes::variable_name;
use crate::error::{Error, Result};
use crate::jsonl::{Compression, LineReader};
use crate::manifest::{relative_path, Manifest};
use crate::run::Files;

/// Rows of a file without a manifest that are looked at first; all are if a name is not in these.
const SAMPLE_ROWS: u64 = 200;

/// A set of attributes that another stage is about to make.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedSet {
    /// names; their keys are not known
    pub taggers: Vec<String>,
    /// other keys
    pub keys: Vec<String>,
}

/// Such sets by their directories.
pub type Planned = BTreeMap<PathBuf, PlannedSet>;

/// Fails if a rule names attributes of an experiment or tagger that no loaded set has, without first checking that they
/// exist. Returns a warning for each other name that is in no row.
pub fn check(settings: &Settings, rules: &[Rules], planned: &Planned, files: &Files) -> Result<Vec<String>> {
    let (mut errors, mut warnings) = (Vec::new(), Vec::new());
    for (index, (stream, rules)) in settings.streams.iter().zip(rules).enumerate() {
        errors.extend(shared_keys(index, stream));
        let mut named = rules.attribute_keys(&format!("streams.{index}"));
        let mut known = Known::default();
        for limit in [SAMPLE_ROWS, u64::MAX] {
            if named.is_empty() || (limit == u64::MAX && known.complete) {
                break;
            }
            known = Known::of(stream, planned, limit, files)?;
            named.retain(|named| !known.has(&named.key));
        }
        for NamedKey { place, key, is_guarded } in named {
            let is_needed = place.contains(".budget.") || place.contains(".split.");
            match known.judge(&key) {
                Verdict::Strange if !is_guarded => errors.push(unknown(&place, &key, &known)),
                // a rule may match nothing, but what chooses documents needs its number of every document
                Verdict::Absent if is_needed => errors.push(unknown(&place, &key, &known)),
                _ => warnings.push(format!(
                    "{place}: no document has the attribute \"{key}\", so the rule matches nothing{}",
                    known.nearest(&key).map(|near| format!(" (did you mean \"{near}\"?)")).unwrap_or_default()
                )),
            }
        }
    }
    Error::many(errors).map_or(Ok(warnings), Err)
}

/// Sets of a stream that have the same key by their manifests. Rows show the rest.
fn shared_keys(index: usize, stream: &Stream) -> Vec<Error> {
    let mut holders: BTreeMap<String, &Path> = BTreeMap::new();
    let mut errors = Vec::new();
    for directory in &stream.attribute_directories {
        let manifest = Manifest::read(directory).ok().flatten();
        let keys = manifest.iter().flat_map(|manifest| strings(manifest.details.get("keys")));
        let shared = keys.filter_map(|key| holders.insert(key.clone(), directory).map(|other| (key, other))).next();
        if let Some((key, other)) = shared.filter(|(_, other)| *other != directory.as_path()) {
            let message =
                format!("has the attribute \"{key}\" in both {} and {}", other.display(), directory.display());
            let error = Error::config(format!("streams.{index}.attributes"), message);
            errors.push(error.with_hint("list only one of the two, or tag again under another experiment"));
        }
    }
    errors
}

fn strings(value: Option<&Value>) -> Vec<String> {
    let items = value.and_then(Value::as_array).into_iter().flatten();
    items.filter_map(|item| item.as_str().map(str::to_string)).collect()
}

fn unknown(place: &str, key: &str, known: &Known) -> Error {
    let message = format!("names the attribute \"{key}\", which no loaded set of attributes has");
    let error = Error::config(place, message);
    match known.nearest(key) {
        Some(near) => error.with_hint(format!("did you mean \"{near}\"?")),
        None if known.keys.is_empty() => error.with_hint("list the set of attributes under `attributes`"),
        None => {
            let some: Vec<&str> = known.keys.iter().take(8).map(String::as_str).collect();
            error.with_hint(format!("loaded attributes: {}", some.join(", ")))
        }
    }
}

enum Verdict {
    /// nothing that was loaded could have such a key
    Strange,
    /// what was loaded could have such a key, and has not
    Absent,
}

/// Keys of the attributes that a stream loads.
#[derive(Default)]
struct Known {
    keys: BTreeSet<String>,
    /// `<experiment>__<tagger>` that ran, and may have found nothing
    taggers: BTreeSet<String>,
    /// experiments of which it is not known which taggers ran
    open_experiments: BTreeSet<String>,
    /// what the keys begin with that taggers are about to write
    coming: BTreeSet<String>,
    /// a set has no keys at all: any name may be its
    has_empty_set: bool,
    /// a longer look finds no more
    complete: bool,
}

impl Known {
    fn of(stream: &Stream, planned: &Planned, limit: u64, files: &Files) -> Result<Self> {
        let mut known = Self { complete: true, ..Self::default() };
        for directory in &stream.attribute_directories {
            match planned.get(directory) {
                Some(set) => known.add_planned(directory, set),
                None => known.add_set(stream, directory, limit, files)?,
            }
        }
        let documents: Vec<&PathBuf> =
            stream.shards.iter().flat_map(|shard| &shard.inputs).map(|input| &input.path).collect();
        for path in known.looked_at(&documents, files) {
            known.add_inline(stream, path, limit, files)?;
        }
        Ok(known)
    }

    /// All files; of those that have to be fetched only the first, and then any name may be in the others.
    fn looked_at<'f>(&mut self, paths: &'f [&'f PathBuf], files: &Files) -> &'f [&'f PathBuf] {
        if !files.are_remote() {
            return paths;
        }
        self.has_empty_set |= paths.len() > 1;
        &paths[..paths.len().min(1)]
    }

    fn has(&self, key: &str) -> bool {
        self.keys.contains(key) || self.coming.iter().any(|prefix| key.starts_with(prefix))
    }

    fn add_planned(&mut self, directory: &Path, set: &PlannedSet) {
        let experiment = variable_name(&directory.file_name().unwrap_or_default().to_string_lossy());
        let taggers = set.taggers.iter().map(|tagger| format!("{experiment}__{}", variable_name(tagger)));
        self.coming.extend(taggers.clone().map(|tagger| format!("{tagger}__")));
        self.taggers.extend(taggers);
        self.keys.extend(set.keys.iter().cloned());
    }

    fn add_set(&mut self, stream: &Stream, directory: &Path, limit: u64, files: &Files) -> Result<()> {
        let inputs = stream.shards.iter().flat_map(|shard| &shard.inputs).flat_map(|input| &input.attributes);
        let paths: Vec<&PathBuf> = inputs.filter(|path| path.starts_with(directory)).collect();
        let experiment = variable_name(&directory.file_name().unwrap_or_default().to_string_lossy());
        let manifest = Manifest::read(directory).ok().flatten();
        if let Some(manifest) = manifest.filter(|manifest| lists_all(manifest, directory, &paths)) {
            let taggers = strings(manifest.config.get("taggers"));
            if taggers.is_empty() {
                self.open_experiments.insert(experiment.clone());
            }
            self.taggers.extend(taggers.iter().map(|tagger| format!("{experiment}__{}", variable_name(tagger))));
            self.keys.extend(strings(manifest.details.get("keys")));
            return Ok(());
        }
        let before = self.keys.len();
        for path in self.looked_at(&paths, files) {
            self.add_rows(stream, path, limit, files, attribute_keys)?;
        }
        self.has_empty_set |= self.keys.len() == before;
        self.open_experiments.insert(experiment);
        Ok(())
    }

    /// Attributes that stand in the documents themselves; only files whose first rows have some are read further.
    fn add_inline(&mut self, stream: &Stream, path: &Path, limit: u64, files: &Files) -> Result<()> {
        let inline = |line: &[u8]| {
            let row = Row::read(line);
            row.map(|row| row.attribute_keys().map(str::to_string).collect()).unwrap_or_default()
        };
        let complete = self.complete;
        let before = self.keys.len();
        self.add_rows(stream, path, SAMPLE_ROWS, files, inline)?;
        if self.keys.len() == before {
            self.complete = complete;
        } else if limit > SAMPLE_ROWS {
            self.add_rows(stream, path, limit, files, inline)?;
        }
        Ok(())
    }

    fn add_rows(
        &mut self,
        stream: &Stream,
        path: &Path,
        limit: u64,
        files: &Files,
        keys: impl Fn(&[u8]) -> Vec<String>,
    ) -> Result<()> {
        let compression = stream.compression.as_deref().and_then(Compression::named).unwrap_or(Compression::of(path));
        let _lease = files.need(path)?;
        let mut reader = LineReader::open_as(path, &path.display().to_string(), compression)?;
        while let Some(line) = reader.next_line()? {
            // wrong rows are reported when they are mixed, with their place
            for key in keys(line) {
                if !self.keys.contains(&key) {
                    self.keys.insert(key);
                }
            }
            if reader.line() >= limit {
                self.complete = false;
                break;
            }
        }
        Ok(())
    }

    fn judge(&self, key: &str) -> Verdict {
        let mut parts = key.splitn(3, "__");
        let experiment = parts.next().unwrap_or_default();
        let tagger = parts.next().map(|tagger| format!("{experiment}__{tagger}"));
        let ran = tagger.is_some_and(|tagger| {
            let prefix = format!("{tagger}__");
            self.taggers.contains(&tagger) || self.keys.iter().any(|known| known.starts_with(&prefix))
        });
        if ran || self.has_empty_set || self.open_experiments.contains(experiment) {
            Verdict::Absent
        } else {
            Verdict::Strange
        }
    }

    fn nearest(&self, key: &str) -> Option<&str> {
        let near = self.keys.iter().map(|known| (distance(key, known), known)).min()?;
        (near.0 <= 2 + key.chars().count() / 4).then_some(near.1)
    }
}

fn lists_all(manifest: &Manifest, directory: &Path, files: &[&PathBuf]) -> bool {
    let listed: BTreeSet<&str> = manifest.files.iter().map(|entry| entry.path.as_str()).collect();
    manifest.format == "attributes"
        && files.iter().all(|file| relative_path(file, directory).is_ok_and(|path| listed.contains(path.as_str())))
}

/// Insertions, deletions and substitutions from one name to the other (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (index, a) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for (column, b) in other.iter().enumerate() {
            let substituted = diagonal + usize::from(a != *b);
            diagonal = row[column + 1];
            row[column + 1] = substituted.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::distance;

    #[test]
    fn distances_count_edits() {
        for (one, other, expected) in [("", "abc", 3), ("kitten", "sitting", 3), ("2gram", "2grams", 1), ("é", "e", 1)]
        {
            assert_eq!(distance(one, other), expected, "{one} {other}");
            assert_eq!(distance(other, one), expected, "{other} {one}");
        }
    }
}
