//! What an earlier run left, and what of it still holds.
//!
//! A run is known by the hash of its settings and inputs. The filter's file names every run that inserted into it; the
//! journal of a directory names the run that is filling it until its manifest is there. So a run that was
//! stopped goes on, a run that is done is not done again, and a filter that holds these very inputs is not
//! asked about them, since it would answer "seen" to everything.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{json, Map, Value};

use super::settings::{DocumentFile, Settings};
use super::stage::AttributeFiles;
use crate::bloom::{FileState, Record, Run, RunInput};
use crate::error::{Error, Result};
use crate::jsonl::Written;
use crate::manifest::{canonical_bytes, relative_path, sha256_bytes, Input, Manifest, FILE_NAME};
use crate::run::publish::{finished_as, remove};
use crate::run::{Files, Journal, Made, Share, Stamp};

/// The identity of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// hash of the settings and of names and stamps of the inputs
    pub run: String,
    /// of the inputs
    pub names: Vec<String>,
}

impl Identity {
    /// Of recorded settings and inputs.
    pub fn of(recorded: &Map<String, Value>, files: &[DocumentFile]) -> Result<Self> {
        let stamps = files.iter().map(|file| Stamp::of(&file.path)).collect::<Result<Vec<_>>>()?;
        let names: Vec<String> = files.iter().map(input_name).collect();
        let value = json!({"settings": recorded, "names": names, "stamps": stamps});
        Ok(Self { run: sha256_bytes(&canonical_bytes(&value)), names })
    }

    /// This run, as a filter's file keeps it.
    pub fn record(&self, settings: &Settings, before: Option<FileState>, files: &Files) -> Result<Run> {
        let paths: Vec<PathBuf> = settings.files.iter().map(|file| file.path.clone()).collect();
        files.hash_all(&paths)?;
        let input =
            |(path, name): (&String, &PathBuf)| Ok(RunInput { path: path.clone(), sha256: files.hash(name)?.sha256 });
        let inputs = self.names.iter().zip(&paths).map(input).collect::<Result<Vec<_>>>()?;
        let value = json!({"settings": settings.recorded(), "inputs": &inputs});
        Ok(Run { run: sha256_bytes(&canonical_bytes(&value)), partition: settings.partition(), before, inputs })
    }

    /// This run, if it has inserted its keys. Fails if other runs inserted keys of these inputs. Only inputs whose names the
    /// record has are hashed.
    pub fn find_in<'r>(&self, record: &'r Record, settings: &Settings, files: &Files) -> Result<Option<&'r Run>> {
        let recorded: BTreeSet<&str> =
            record.runs.iter().flat_map(|run| &run.inputs).map(|input| input.path.as_str()).collect();
        let is_recorded = |(name, _): &(&String, &DocumentFile)| recorded.contains(name.as_str());
        let found: Vec<_> = self.names.iter().zip(&settings.files).filter(is_recorded).collect();
        let paths: Vec<PathBuf> = found.iter().map(|(_, file)| file.path.clone()).collect();
        files.hash_all(&paths)?;
        if found.len() == self.names.len() {
            let ours = self.record(settings, None, files)?;
            if let Some(run) = record.runs.iter().find(|run| run.run == ours.run) {
                return Ok(Some(run));
            }
        }
        let input = |(name, file): (&String, &DocumentFile)| {
            Ok(RunInput { path: name.clone(), sha256: files.hash(&file.path)?.sha256 })
        };
        let inputs = found.into_iter().map(input).collect::<Result<Vec<_>>>()?;
        check_not_in(&inputs, record, settings).map(|()| None)
    }
}

/// Fails if `record` says that other runs inserted keys of these inputs.
fn check_not_in(inputs: &[RunInput], record: &Record, settings: &Settings) -> Result<()> {
    let file = settings.bloom_filter.file.display().to_string();
    for run in &record.runs {
        if are_disjoint(&run.partition, &settings.partition()) {
            continue;
        }
        if let Some(input) = inputs.iter().find(|input| run.inputs.contains(input)) {
            let message = format!(
                    "\"{file}\" already has the keys of {}; expected a filter without them, since every row would count as its own duplicate",
                    input.path
                );
            return Err(Error::config("bloom_filter.file", message)
                    .with_hint("to add documents, list only the new files in documents. To start again, delete the filter. To compare only, set bloom_filter.read_only"));
        }
    }
    Ok(())
}

/// Two shares of the same division of keys that have no key in common.
fn are_disjoint(one: &str, other: &str) -> bool {
    let parts =
        |partition: &str| partition.split_once('/').map(|(index, count)| (index.to_string(), count.to_string()));
    match (parts(one), parts(other)) {
        (Some((index, count)), Some((other_index, other_count))) => count == other_count && index != other_index,
        _ => false,
    }
}

/// `<name of the root>/documents/<relative>`: the same wherever the root is mounted.
fn input_name(file: &DocumentFile) -> String {
    let absolute = std::path::absolute(&file.documents_directory).unwrap_or_default();
    let names: Vec<String> =
        absolute.components().rev().take(2).map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
    let root = names.get(1).map(String::as_str).unwrap_or_default();
    let documents = names.first().map(String::as_str).unwrap_or_default();
    format!("{root}/{documents}/{}", file.relative)
}

/// Document files whose attributes share a directory, and so a manifest.
#[derive(Debug)]
pub struct Group {
    directory: PathBuf,
    documents_directory: PathBuf,
    /// positions in the settings' files
    pub files: Vec<usize>,
}

/// Directories in sorted order.
fn groups(files: &[DocumentFile]) -> Vec<Group> {
    let mut groups: BTreeMap<&Path, Group> = BTreeMap::new();
    for (index, file) in files.iter().enumerate() {
        let group = groups.entry(&file.attributes_directory).or_insert_with(|| Group {
            directory: file.attributes_directory.clone(),
            documents_directory: file.documents_directory.clone(),
            files: Vec::new(),
        });
        group.files.push(index);
    }
    groups.into_values().collect()
}

/// One finished attribute file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MarkedFile {
    /// rows
    pub documents: u64,
    /// spans
    pub spans: u64,
    /// the file
    pub output: Written,
}

impl Made for MarkedFile {
    fn files(&self, name: &str) -> Vec<(String, &Written)> {
        vec![(name.to_string(), &self.output)]
    }
}

/// What the attributes of a run are made by, besides their documents.
pub struct Making<'a> {
    /// of the settings
    pub documents: &'a [DocumentFile],
    /// as the manifest keeps it
    pub recorded: Map<String, Value>,
    /// keys of the attributes
    pub keys: Vec<String>,
    /// whether their spans end at the length in bytes
    pub are_in_bytes: bool,
    /// what the run is known by
    pub run: String,
    /// the filter or index
    pub before: Option<Before>,
}

/// A file that a run reads, and perhaps changes, as it was.
pub struct Before {
    /// in the manifest
    pub role: &'static str,
    /// where it is
    pub path: PathBuf,
    /// by the run
    pub is_changed: bool,
    /// before the run
    pub state: FileState,
}

/// A group in this run: what it is made from, and whether it is done.
pub struct Target<'a> {
    documents: &'a [DocumentFile],
    files: Files,
    /// the files
    pub group: Group,
    manifest: Manifest,
    /// what is finished
    pub journal: Journal<MarkedFile>,
}

impl<'a> Target<'a> {
    /// Works out the manifest up to its files and counts.
    pub fn new(making: &Making<'a>, group: Group, files: &Files) -> Result<Self> {
        let mut manifest = Manifest::new("attributes", making.recorded.clone());
        let mut before = None;
        if let Some(Before { role, path, is_changed, state }) = &making.before {
            let file = Written { size_bytes: state.size_bytes, sha256: state.sha256.clone() };
            // what the run changes is no longer there as it was; the name must not lead to what it is now
            let suffix = if *is_changed { "#before" } else { "" };
            let path = format!("{}{suffix}", relative_path(path, &group.directory)?);
            manifest.inputs.push(Input::file(role, path, &file));
            before = Some(&state.sha256);
        }
        let documents = relative_path(&group.documents_directory, &group.directory)?;
        manifest.details = Map::from_iter([
            ("documents".to_string(), Value::from(documents)),
            ("keys".to_string(), json!(making.keys)),
        ]);
        if making.are_in_bytes {
            manifest.details.insert("byte_length_keys".to_string(), json!(making.keys));
        }
        let run = json!({"run": making.run, "filter_before": before});
        let journal = Journal::read(files, &group.directory, "dedupe", sha256_bytes(&canonical_bytes(&run)))?;
        Ok(Self { documents: making.documents, files: files.clone(), group, manifest, journal })
    }

    /// Whether a manifest says that this very run was finished here, and its files are there.
    pub fn is_done(&self) -> Result<bool> {
        // without the documents, which are hashed only if the rest fits
        let Some(found) = finished_as(&self.manifest, &self.group.directory) else { return Ok(false) };
        let has_all = self.names().all(|name| found.files.iter().any(|file| file.path == name));
        Ok(has_all && self.inputs()?.iter().all(|input| found.inputs.contains(input)))
    }

    fn inputs(&self) -> Result<Vec<Input>> {
        let paths: Vec<PathBuf> = self.group.files.iter().map(|index| self.documents[*index].path.clone()).collect();
        self.files.inputs("documents", "document", &paths, &self.group.directory)
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.group.files.iter().map(|index| self.documents[*index].relative.as_str())
    }

    /// Fails if files under these names are not of this command: they would be lost.
    pub fn check_place(&self) -> Result<()> {
        let directory = &self.group.directory;
        let is_ours = match Manifest::read(directory).ok().flatten() {
            Some(manifest) => manifest.config.get("dedupe").is_some(),
            None => self.journal.exists(),
        };
        let Some(name) = self.names().find(|name| !is_ours && directory.join(name).exists()) else { return Ok(()) };
        let message = format!(
            "\"{}\" holds {name}, which another command or tool made; expected attributes of dedupe, or none",
            directory.display()
        );
        Err(Error::config("dedupe.name", message).with_hint("give another dedupe.name, or remove that directory"))
    }

    /// Readies the directory: keeps what this run wrote before it was stopped, removes what another run wrote under
    /// the same names. Says how many files were removed.
    pub fn begin(&self, share: Option<Share>) -> Result<usize> {
        self.journal.enter(share, || self.ready())
    }

    fn ready(&self) -> Result<usize> {
        let directory = &self.group.directory;
        if self.journal.exists() && self.journal.others().is_empty() {
            return Ok(0);
        }
        // from here on a stop at any point leaves what this run may replace
        self.journal.restart()?;
        let old = Manifest::read(directory).ok().flatten();
        let is_ours = |name: &str| self.names().any(|ours| ours == name);
        if old.is_some_and(|old| old.config != self.manifest.config || old.files.iter().any(|file| is_ours(&file.path)))
        {
            remove(&directory.join(FILE_NAME))?;
        }
        let mut removed = 0;
        for name in self.names() {
            removed += usize::from(remove(&directory.join(name))?);
        }
        Ok(removed)
    }

    /// Writes the manifest, together with what an earlier run with these settings wrote about other documents.
    pub fn finish(mut self) -> Result<()> {
        let directory = self.group.directory.clone();
        // the documents come before the filter
        let documents = self.inputs()?;
        let filter = std::mem::replace(&mut self.manifest.inputs, documents);
        self.manifest.inputs.extend(filter);
        if let Some(old) = Manifest::read(&directory).ok().flatten() {
            let is_ours = |name: &str| self.names().any(|ours| ours == name);
            if old.config == self.manifest.config && !old.files.iter().any(|file| is_ours(&file.path)) {
                old.counts.iter().for_each(|(name, count)| self.manifest.add_count(name, *count));
                self.manifest.files.extend(old.files);
                self.manifest.inputs.extend(old.inputs);
            }
        }
        for (name, file) in self.journal.ours() {
            self.manifest.add_count("documents", file.documents);
            self.manifest.add_count("spans", file.spans);
            self.manifest.add_file(&name, &file.output);
        }
        self.manifest.write(&directory)?;
        self.journal.remove()
    }

    /// Whether this run, stopped after its filter was written, left every file.
    pub fn all_written(&self) -> Result<bool> {
        Ok(self.names().all(|name| self.journal.get(name).is_some()) || self.is_done()?)
    }
}

/// The groups of a run; none where attributes are not kept.
pub struct Targets<'a>(Vec<Target<'a>>);

impl<'a> Targets<'a> {
    /// One for each directory of attributes.
    pub fn new(making: &Making<'a>, keep: bool, files: &Files) -> Result<Self> {
        let groups = if keep { groups(making.documents) } else { Vec::new() };
        groups.into_iter().map(|group| Target::new(making, group, files)).collect::<Result<_>>().map(Self)
    }

    /// Whether manifests say that this very run was finished.
    pub fn are_done(&self) -> Result<bool> {
        for target in &self.0 {
            if !target.is_done()? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether every row has its attributes, and only the manifests may be missing.
    pub fn all_written(&self) -> Result<bool> {
        for target in &self.0 {
            if !target.all_written()? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Readies the directories. Says how many files of another run were removed.
    pub fn begin(&self, share: Option<Share>) -> Result<u64> {
        self.0.iter().try_for_each(Target::check_place)?;
        self.0.iter().try_fold(0, |removed, target| Ok(removed + target.begin(share)? as u64))
    }

    /// Files whose rows have no attributes yet, by their positions.
    pub fn unwritten(&self) -> BTreeSet<usize> {
        let of_target = |target: &'_ Target<'a>| {
            let is_missing = |file: &usize| target.journal.get(&target.documents[*file].relative).is_none();
            target.group.files.iter().copied().filter(is_missing).collect::<Vec<usize>>()
        };
        self.0.iter().flat_map(of_target).collect()
    }

    /// The files of attributes.
    pub fn files<'t>(&'t self, documents: &'t [DocumentFile]) -> AttributeFiles<'t> {
        AttributeFiles::new(documents, &self.0)
    }

    /// Forgets what was written.
    pub fn restart(&self) -> Result<()> {
        self.0.iter().try_for_each(|target| target.journal.restart())
    }

    /// Writes the manifests.
    pub fn finish(self) -> Result<()> {
        self.0.into_iter().try_for_each(Target::finish)
    }

    /// Writes the manifests that an earlier run had no time for.
    pub fn finish_again(self) -> Result<()> {
        self.0.into_iter().try_for_each(|target| match target.is_done()? {
            true => target.journal.remove(),
            false => target.finish(),
        })
    }
}
