//! Near-duplicates: what documents have in common is known when all are read. docs/design/near-duplicates.md.
//!
//! Keys of the documents ([`keys`]: of a [`sketch`], of [`repeats`] or of a [`substring`]) go to an index on the disk
//! ([`index`]). Equal keys meet ([`find`], [`groups`], [`clusters`]), and what follows is noted for each row ([`found`]). Then
//! rows are marked in the pass of all stages ([`mark`]).

mod clusters;
mod find;
mod found;
mod groups;
mod index;
mod keys;
mod mark;
mod repeats;
mod settings;
mod sketch;
mod substring;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use serde_json::{json, Value};

pub use settings::{Keep, Piece, Repeats, Settings, Unit};

use crate::bloom::FileState;
use crate::dedupe::{Before, Counts, Deduping, Identity, Making, Marking, Open, Summary, Targets};
use crate::error::{Error, Result};
use crate::jsonl::Skipped;
use crate::manifest::{canonical_bytes, sha256_bytes};
use crate::progress::Progress;
use crate::run::{pass, Files, Journal, Share, Stamp};
use find::Finder;
use found::{Found, FoundFile};
use index::{keys_name, Index, IndexedFile, Run};
use keys::{KeyWriting, KeysFile};
use mark::NearMarking;

const KEYS: &str = "keys";
const GROUPS: &str = "groups";

/// The deduplication of a run: the index, and where attributes go.
pub struct Near<'s> {
    settings: &'s Settings,
    files: Files,
    index: Index,
    /// The index before this run, which may have written it already.
    before: Option<FileState>,
    /// Of each document file.
    names: Vec<String>,
    /// Document files that are not in the index, by their positions.
    new: Vec<usize>,
    targets: Targets<'s>,
    /// What is finished of the index.
    keys: Journal<KeysFile>,
    /// What the run is known by, and where what it finds waits.
    run: String,
    work: PathBuf,
    found: Journal<FoundFile>,
}

impl<'s> Near<'s> {
    /// Opens the index, and finds out what an earlier run left.
    pub fn survey(settings: &'s Settings, keep: bool, files: &Files) -> Result<Near<'s>> {
        settings.score()?;
        let (index, now) = Index::read(settings)?;
        let identity = Identity::of(&settings.recorded(), &settings.files)?;
        let new = new_files(settings, &index, &identity.names, files)?;
        let is_ours = |run: &&Run| run.files.iter().map(|file| &file.name).eq(&identity.names);
        let written = index.runs.last().filter(is_ours);
        let is_changed = written.is_some() || !new.is_empty();
        let before = written.map_or(now, |run| run.before.clone());
        let parameters = sha256_bytes(&canonical_bytes(&settings.parameters()));
        // these stay on this machine
        let here = Files::default();
        let keys = Journal::read(&here, &settings.index, "dedupe", parameters)?;
        let run = sha256_bytes(&canonical_bytes(
            &json!({"run": identity.run, "before": before.as_ref().map(|file| &file.sha256)}),
        ));
        let work = settings.index.join(format!("found-{}", &run[..16]));
        let found = Journal::read(&here, &work, "dedupe", run.clone())?;
        let making = Making {
            documents: &settings.files,
            recorded: settings.recorded(),
            keys: settings.keys(),
            are_in_bytes: true,
            run: run.clone(),
            before: before.clone().map(|state| {
                let path = index::path(settings);
                Before { role: "index", path, is_changed, state }
            }),
        };
        let targets = Targets::new(&making, keep, files)?;
        let (files, names) = (files.clone(), identity.names);
        Ok(Near { settings, files, index, before, names, new, targets, keys, run, work, found })
    }

    /// The keys of a new document file, if they are there and the file has not changed since.
    fn keys_of(&self, file: usize) -> Option<KeysFile> {
        let found = self.keys.get(&keys_name(&self.names[file]))?;
        Stamp::of(&self.settings.files[file].path).is_ok_and(|stamp| stamp == found.input).then_some(found)
    }

    /// New document files without keys.
    fn keyless(&self) -> impl Iterator<Item = usize> + '_ {
        self.new.iter().copied().filter(|file| self.keys_of(*file).is_none())
    }

    fn is_found(&self) -> bool {
        (0..self.names.len()).all(|file| self.found.get(&found_name(file)).is_some())
    }

    /// What other shares wrote since this one began.
    fn look_again(&mut self) -> Result<()> {
        if self.keyless().next().is_some() {
            self.keys = self.keys.again()?;
        }
        if !self.is_found() {
            self.found = self.found.again()?;
        }
        Ok(())
    }

    fn incomplete(&self) -> Error {
        let message = format!("is \"{}\", whose keys are being changed by another run", self.settings.index.display());
        Error::config("index", message).with_hint("run the command again when the other run has ended")
    }
}

/// Positions of the files that the index does not have. Fails if it has others under their names.
fn new_files(settings: &Settings, index: &Index, names: &[String], files: &Files) -> Result<Vec<usize>> {
    let known: BTreeMap<&str, &IndexedFile> = index.files().map(|file| (file.name.as_str(), file)).collect();
    let refuse = |name: &str, message: String| {
        let hint = "names are those of the last two directories and what is below; rename one, or use another index";
        Err(Error::config("documents", format!("has \"{name}\" {message}")).with_hint(hint))
    };
    let paths = names.iter().zip(&settings.files).filter(|(name, _)| known.contains_key(name.as_str()));
    files.hash_all(&paths.map(|(_, file)| file.path.clone()).collect::<Vec<PathBuf>>())?;
    let (mut new, mut seen) = (Vec::new(), BTreeSet::new());
    for (position, (name, file)) in names.iter().zip(&settings.files).enumerate() {
        if !seen.insert(name) {
            return refuse(name, "twice; expected another name for every file of an index".to_owned());
        }
        match known.get(name.as_str()) {
            None => new.push(position),
            Some(known) if files.hash(&file.path)?.sha256 == known.sha256 => {}
            Some(_) => {
                let message = format!("with other content than \"{}\" knows it with", settings.index.display());
                return refuse(name, message);
            }
        }
    }
    Ok(new)
}

fn found_name(file: usize) -> String {
    format!("{file:06}")
}

impl Deduping for Near<'_> {
    fn is_done(&self, is_complete: bool) -> Result<bool> {
        Ok(self.new.is_empty() && is_complete && self.targets.all_written()?)
    }

    fn all_written(&self) -> Result<bool> {
        self.targets.all_written()
    }

    fn begin(&mut self, share: Option<Share>) -> Result<u64> {
        self.keys.enter(share, || match self.keys.others().is_empty() {
            true => self.keys.begin(),
            false => self.keys.restart(),
        })?;
        self.found.enter(share, || self.found.begin())?;
        self.targets.begin(share)
    }

    fn prepare(
        &mut self,
        share: Option<Share>,
        open: Open<'_>,
        threads: usize,
        progress: &Progress,
    ) -> Result<Option<&'static str>> {
        if self.is_found() {
            return Ok(None);
        }
        let is_ours = |file: &usize| share.is_none_or(|share| share.has(*file));
        let files: Vec<_> = self.keyless().filter(is_ours).map(|file| (file, keys_name(&self.names[file]))).collect();
        let series = files.len();
        let (settings, score) = (self.settings, self.settings.score()?);
        let writing = KeyWriting { settings, score, files, open, journal: &self.keys, candidates: None };
        pass(&writing, series, threads, progress)?;
        if share.is_some() {
            self.look_again()?;
            if self.keyless().next().is_some() {
                return Ok(Some(KEYS));
            }
            if share.is_some_and(|share| share.index != 0) && !self.is_found() {
                return Ok(Some(GROUPS));
            }
        }
        if !self.is_found() {
            Finder { near: self, open, threads, progress }.find()?;
        }
        Ok(None)
    }

    fn missing(&self, count: usize) -> Result<Option<(&'static str, BTreeSet<usize>)>> {
        let shares: BTreeSet<usize> = self.keyless().map(|file| file % count).collect();
        Ok(match (shares.is_empty(), self.is_found()) {
            (_, true) => None,
            (false, false) => Some((KEYS, shares)),
            (true, false) => Some((GROUPS, BTreeSet::from([0]))),
        })
    }

    fn unmarked(&self) -> Option<BTreeSet<usize>> {
        Some(self.targets.unwritten())
    }

    fn marking(&self) -> Result<Box<dyn Marking + '_>> {
        let of_file = |file: usize| {
            let name = found_name(file);
            let found = self.found.get(&name).ok_or_else(|| self.incomplete())?;
            Ok((self.work.join(name), found.documents))
        };
        Ok(Box::new(NearMarking {
            settings: self.settings,
            found: Found::new((0..self.names.len()).map(of_file).collect::<Result<_>>()?),
            keys: self.settings.keys().into_iter().map(|key| Value::from(key).to_string()).collect(),
            files: self.targets.files(&self.settings.files),
        }))
    }

    fn restart(&mut self, _is_overfull: bool) -> Result<()> {
        self.targets.restart()
    }

    fn before(&self) -> Option<&str> {
        self.before.as_ref().map(|file| file.sha256.as_str())
    }

    fn already_done(&self) -> Result<Summary> {
        remove_found(&self.settings.index)?;
        Ok(Summary { already_done: true, index_documents: self.documents(), ..Summary::default() })
    }

    fn publish(mut self: Box<Self>, counts: Counts, replaced_files: u64, skipped: Vec<Skipped>) -> Result<Summary> {
        if !self.new.is_empty() {
            let paths: Vec<PathBuf> = self.new.iter().map(|file| self.settings.files[*file].path.clone()).collect();
            self.files.hash_all(&paths)?;
            let indexed = |(file, path): (&usize, &PathBuf)| {
                let documents = self.keys_of(*file).ok_or_else(|| self.incomplete())?.documents;
                let name = self.names[*file].clone();
                Ok(IndexedFile { name, sha256: self.files.hash(path)?.sha256, documents })
            };
            let files = self.new.iter().zip(&paths).map(indexed).collect::<Result<_>>()?;
            self.index.runs.push(Run { before: self.before.clone(), files });
            self.index.write(self.settings)?;
        }
        let summary = Summary {
            documents: counts.documents,
            compared: counts.compared,
            marked: counts.marked,
            clusters: counts.clusters,
            replaced_files,
            index_documents: self.documents(),
            skipped,
            ..Summary::default()
        };
        self.targets.finish()?;
        remove_found(&self.settings.index).map(|()| summary)
    }

    fn publish_again(self: Box<Self>) -> Result<Summary> {
        let summary = self.already_done()?;
        self.targets.finish_again().map(|()| summary)
    }
}

impl Near<'_> {
    fn documents(&self) -> u64 {
        self.index.files().map(|file| file.documents).sum()
    }
}

/// Removes what was found by this run, and by others that were killed.
fn remove_found(index: &std::path::Path) -> Result<()> {
    let fail = |source| Error::io(index, source);
    for entry in fs::read_dir(index).map_err(fail)?.flatten() {
        if entry.file_name().to_string_lossy().starts_with("found-") {
            fs::remove_dir_all(entry.path()).map_err(fail)?;
        }
    }
    Ok(())
}
