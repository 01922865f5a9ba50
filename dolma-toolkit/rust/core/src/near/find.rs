//! From the keys of all documents to what is found of each row: the step that needs them all.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::clusters::{Clusters, Member};
use super::found::{Finding, Found};
use super::groups::{groups, InOrder, Keyed, Numbers, Parts};
use super::index::keys_name;
use super::keys::{KeyReader, KeyWriting, KeysFile};
use super::settings::{Keep, Repeats, Unit};
use super::{found_name, Near};
use crate::dedupe::Open;
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::run::{pass, Files, Journal};

/// More would need larger numbers.
const MOST_DOCUMENTS: u64 = u32::MAX as u64;

/// A file of keys.
struct Keys {
    /// where it is
    path: std::path::PathBuf,
    /// of the document file
    name: String,
    /// rows
    documents: u64,
    /// number of the run that brought it
    run: usize,
}

/// Finds what the documents of a run have in common with all.
pub struct Finder<'f> {
    pub near: &'f Near<'f>,
    pub open: Open<'f>,
    pub threads: usize,
    pub progress: &'f Progress,
}

impl Finder<'_> {
    /// Notes it for the files of the run.
    pub fn find(&self) -> Result<()> {
        match &self.near.settings.unit {
            Unit::Minhash { bands, keep, .. } => self.clusters(*bands, *keep),
            Unit::Repeats(repeats) => self.repeats(repeats),
            Unit::Substring { .. } => self.substrings(),
        }
    }

    /// All files with keys in order: those of the index, then new ones.
    fn files(&self) -> Result<Vec<Keys>> {
        let near = self.near;
        let keys = |name: &String, documents: u64, run: usize| {
            let path = near.settings.index.join(keys_name(name));
            Keys { path, name: name.clone(), documents, run }
        };
        let mut all = Vec::new();
        for (number, run) in near.index.runs.iter().enumerate() {
            all.extend(run.files.iter().map(|file| keys(&file.name, file.documents, number)));
        }
        for file in &near.new {
            let documents = near.keys_of(*file).ok_or_else(|| near.incomplete())?.documents;
            all.push(keys(&near.names[*file], documents, near.index.runs.len()));
        }
        Ok(all)
    }

    /// Calls for the rows of files, in order, with rank and keys.
    fn each_row(&self, files: &[Keys], mut each: impl FnMut(&Keys, f64, &[u64]) -> Result<()>) -> Result<()> {
        let mut keys = Vec::new();
        for file in files {
            self.progress.check()?;
            let mut reader = KeyReader::open(&file.path)?;
            for _ in 0..file.documents {
                let rank = reader.next(&mut keys)?;
                each(file, rank, &keys)?;
            }
        }
        Ok(())
    }

    /// Writes what `find` gives for the rows of the files of this run; it is called for all.
    fn write(&self, files: &[Keys], mut find: impl FnMut(&[u64]) -> Result<Vec<u8>>) -> Result<()> {
        let near = self.near;
        for keys in files {
            let mut finding = Finding::default();
            self.each_row(std::slice::from_ref(keys), |_, _, keys| {
                finding.add(&find(keys)?);
                Ok(())
            })?;
            if let Some(file) = near.names.iter().position(|name| *name == keys.name) {
                let name = found_name(file);
                near.found.add(&name, finding.write(&near.work.join(&name))?)?;
            }
        }
        Ok(())
    }

    fn clusters(&self, bands: usize, keep: Keep) -> Result<()> {
        let files = self.files()?;
        let documents: u64 = files.iter().map(|file| file.documents).sum();
        if documents > MOST_DOCUMENTS {
            let message = format!("has {documents} documents; expected at most {MOST_DOCUMENTS}");
            return Err(Error::config("index", message).with_hint("divide the documents, for example by language"));
        }
        let mut parts = Parts::new(&self.near.work.join("parts"), documents * bands as u64)?;
        let (mut ranks, mut run_ends) = (Vec::new(), Vec::new());
        let mut number = 0;
        self.each_row(&files, |file, rank, keys| {
            keys.iter().try_for_each(|key| parts.add((u128::from(*key) << 64, number)))?;
            if keep != Keep::First {
                ranks.push(rank);
            }
            number += 1;
            run_ends.resize(file.run + 1, 0);
            run_ends[file.run] = number as u32;
            Ok(())
        })?;
        // what an earlier run kept stays
        let run_of = |document: u32| run_ends.partition_point(|end| *end <= document);
        let is_better = |one: u32, other: u32| match keep {
            Keep::First => false,
            _ => ranks[other as usize] > ranks[one as usize] && run_of(one) == run_of(other),
        };
        let mut clusters = Clusters::new(documents, parts, self.threads, self.progress, is_better)?;
        let mut number = 0;
        self.write(&files, |keys| {
            number += 1;
            Ok(match (keys.is_empty(), clusters.member(number - 1)) {
                (true, _) => Vec::new(),
                (false, None) => vec![0],
                (false, Some(member)) => member_bytes(member),
            })
        })
    }

    fn repeats(&self, repeats: &Repeats) -> Result<()> {
        let files = self.files()?;
        let least = repeats.least.max(1) as usize;
        let first = usize::from(repeats.keep_first);
        let mut marked = self.marked(&files, 2, |group, marked| {
            if group.len() >= least {
                marked.extend(group[first..].iter().map(|one| (one.1, group.len() as u64)));
            }
        })?;
        let mut number = 0;
        self.write(&files, |keys| {
            let start = number;
            number += keys.len() as u64 / 2;
            let mut found = Vec::new();
            while let Some((window, count)) = marked.next_before(number)? {
                found.extend(((window - start) as u32).to_le_bytes());
                found.extend(u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes());
            }
            Ok(found)
        })
    }

    fn substrings(&self) -> Result<()> {
        let near = self.near;
        if let Some(other) = near.index.files().find(|file| !near.names.contains(&file.name)) {
            let message = format!("has {}, which is not among `documents`; expected all of its documents", other.name);
            return Err(Error::config("index", message)
                .with_hint("substrings are compared by their text: list all documents, or name another directory"));
        }
        let files = self.files()?;
        let directory = near.work.join("stretches");
        let journal: Journal<KeysFile> = Journal::read(&Files::default(), &directory, "dedupe", near.run.clone())?;
        journal.enter(None, || journal.begin())?;
        let missing = |file: &usize| journal.get(&found_name(*file)).is_none();
        let missing: Vec<usize> = (0..near.names.len()).filter(missing).collect();
        if !missing.is_empty() {
            let candidates = self.candidates(&files)?;
            let files: Vec<_> = missing.into_iter().map(|file| (file, found_name(file))).collect();
            let series = files.len();
            let (settings, open) = (near.settings, self.open);
            let writing =
                KeyWriting { settings, score: None, files, open, journal: &journal, candidates: Some(&candidates) };
            pass(&writing, series, self.threads, self.progress)?;
        }
        let mut stretches = Vec::new();
        for keys in files {
            let file = near.names.iter().position(|name| *name == keys.name).ok_or_else(|| near.incomplete())?;
            stretches.push(Keys { path: directory.join(found_name(file)), ..keys });
        }
        // the first of equals stays
        let mut marked =
            self.marked(&stretches, 3, |group, marked| marked.extend(group[1..].iter().map(|one| (one.1, 0))))?;
        let mut number = 0;
        self.write(&stretches, |keys| {
            let start = number;
            number += keys.len() as u64 / 3;
            let mut found = Vec::new();
            while let Some((stretch, _)) = marked.next_before(number)? {
                found.extend(keys[(stretch - start) as usize * 3 + 2].to_le_bytes());
            }
            Ok(found)
        })?;
        Ok(())
    }

    /// For each document file of the run, positions of fingerprints that are found twice.
    fn candidates(&self, files: &[Keys]) -> Result<Found> {
        let near = self.near;
        let directory = near.work.join("candidates");
        let mut marked = self.marked(files, 2, |group, marked| {
            if group.len() > 1 {
                marked.extend(group.iter().map(|one| (one.1, 0)));
            }
        })?;
        let mut found: Vec<_> = near.names.iter().map(|_| Default::default()).collect();
        let mut number = 0;
        for keys in files {
            let mut finding = Finding::default();
            self.each_row(std::slice::from_ref(keys), |_, _, keys| {
                let start = number;
                number += keys.len() as u64 / 2;
                let mut positions = Vec::new();
                while let Some((fingerprint, _)) = marked.next_before(number)? {
                    positions.extend(keys[(fingerprint - start) as usize * 2 + 1].to_le_bytes());
                }
                finding.add(&positions);
                Ok(())
            })?;
            let file = near.names.iter().position(|name| *name == keys.name).ok_or_else(|| near.incomplete())?;
            let path = directory.join(found_name(file));
            found[file] = (path.clone(), finding.write(&path)?.documents);
        }
        Ok(Found::new(found))
    }

    /// Groups the keys of files, of which each has so many numbers: one or, in repeats and stretches, the first two are compared.
    /// `mark` adds owners of keys, counted over all files, and a value.
    fn marked(
        &self,
        files: &[Keys],
        numbers: usize,
        mark: impl Fn(&[Keyed], &mut Vec<(u64, u64)>) + Sync + Send,
    ) -> Result<InOrder> {
        let total = files.iter().map(|file| total(&file.path, file.documents, numbers as u64)).sum::<u64>();
        let mut parts = Parts::new(&self.near.work.join("parts"), total)?;
        let is_hash = matches!(self.near.settings.unit, Unit::Substring { .. }) && numbers == 2;
        let mut owner = 0;
        self.each_row(files, |_, _, keys| {
            for key in keys.chunks_exact(numbers) {
                let key = match is_hash {
                    true => u128::from(key[0]) << 64,
                    false => u128::from(key[1]) << 64 | u128::from(key[0]),
                };
                parts.add((key, owner))?;
                owner += 1;
            }
            Ok(())
        })?;
        let marked = Mutex::new(Numbers::new(&self.near.work.join("numbers"), total.max(1))?);
        parts.sorted(self.threads, self.progress, |keys| {
            let mut found = Vec::new();
            groups(keys).for_each(|group| mark(group, &mut found));
            let mut marked = marked.lock().unwrap_or_else(PoisonError::into_inner);
            found.into_iter().try_for_each(|(owner, value)| marked.add(owner, value))
        })?;
        marked.into_inner().unwrap_or_else(PoisonError::into_inner).in_order()
    }
}

/// Keys in a file: 12 bytes of each row are something else.
fn total(path: &Path, documents: u64, numbers: u64) -> u64 {
    let size_bytes = path.metadata().map_or(0, |metadata| metadata.len());
    size_bytes.saturating_sub(documents * 12) / 8 / numbers
}

/// As it waits on the disk.
fn member_bytes(member: Member) -> Vec<u8> {
    let mut bytes = vec![1 + u8::from(member.is_duplicate)];
    bytes.extend(member.cluster.to_le_bytes());
    bytes.extend(member.size.to_le_bytes());
    bytes
}
