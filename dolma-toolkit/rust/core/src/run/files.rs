//! The files of a run: inputs are fetched when they are read and hashed while they are read; finished outputs may go.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use super::each;
use crate::error::{Error, Result};
use crate::jsonl::{Compression, LineReader, Written};
use crate::manifest::{hashed_inputs, relative_path, sha256_file, Input, SIDE_NAME};
use crate::progress::{Cancellation, Progress};

/// Where files are that have no room on the disk, all at once.
pub trait Store: Send + Sync {
    /// Says which files are read next, in order.
    fn expect(&self, paths: &[&Path]) -> Result<()>;
    /// Asks for a file until [`Store::done`]. Waits a moment, and says whether it is there.
    fn need(&self, path: &Path) -> Result<bool>;
    /// A file that was asked for is read.
    fn done(&self, path: &Path);
    /// Files have their names, and this line in the journal at `journal`.
    fn written(&self, journal: &Path, line: &str, paths: &[PathBuf]) -> Result<()>;
}

/// What a file is known by without its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// As stored.
    pub size_bytes: u64,
    /// Time of the last change, in nanoseconds. That of a remote file is made from its ETag or generation.
    pub stamp: u64,
}

impl Stamp {
    /// Of a file that may not be here yet: its place has the same size and time.
    pub fn of(path: &Path) -> Result<Stamp> {
        let metadata = fs::metadata(path).map_err(|source| Error::io(path, source))?;
        let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let stamp = modified.and_then(|time| u64::try_from(time.as_nanos()).ok()).unwrap_or_default();
        Ok(Stamp { size_bytes: metadata.len(), stamp })
    }
}

/// A hash, and the file that it is of.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Known {
    path: String,
    #[serde(flatten)]
    stamp: Stamp,
    sha256: String,
}

/// The files of a run. A clone is the same.
#[derive(Clone, Default)]
pub struct Files(Arc<Shared>);

#[derive(Default)]
struct Shared {
    store: Option<Box<dyn Store>>,
    threads: usize,
    cancellation: Cancellation,
    hashes: Mutex<BTreeMap<PathBuf, (Stamp, String)>>,
    notes: Mutex<Notes>,
}

/// Hashes that a later run would have to fetch files for.
#[derive(Default)]
struct Notes {
    directory: Option<PathBuf>,
    /// By their names in the file.
    read: BTreeMap<String, Known>,
}

const NOTES: &str = "hashes.ndjson";

/// A file that is here. The store may remove it when this is dropped.
pub struct Lease {
    files: Files,
    path: PathBuf,
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(store) = &self.files.0.store {
            store.done(&self.path);
        }
    }
}

impl Files {
    /// Those of a run with so many threads.
    pub fn new(store: Option<Box<dyn Store>>, threads: usize, progress: &Progress) -> Files {
        Files(Arc::new(Shared { store, threads, cancellation: progress.cancellation(), ..Shared::default() }))
    }

    /// Whether files come from a store.
    pub fn are_remote(&self) -> bool {
        self.0.store.is_some()
    }

    /// Notes hashes next to the outputs in this directory, unless files are on the disk anyway. Reads what an earlier run
    /// noted there.
    pub fn note_in(&self, directory: &Path) {
        let mut notes = lock(&self.0.notes);
        if self.0.store.is_none() || notes.directory.is_some() {
            return;
        }
        let lines = File::open(directory.join(SIDE_NAME).join(NOTES)).map(BufReader::new).map(BufReader::lines);
        for line in lines.into_iter().flatten().map_while(std::io::Result::ok) {
            if let Ok(known) = serde_json::from_str::<Known>(&line) {
                notes.read.insert(known.path.clone(), known);
            }
        }
        notes.directory = Some(directory.to_owned());
    }

    /// Says which files are read next, in order.
    pub fn expect<'p>(&self, paths: impl IntoIterator<Item = &'p Path>) -> Result<()> {
        let Some(store) = &self.0.store else { return Ok(()) };
        store.expect(&paths.into_iter().collect::<Vec<_>>())
    }

    /// Fetches a file if it is not here.
    pub fn need(&self, path: &Path) -> Result<Lease> {
        if let Some(store) = &self.0.store {
            while !store.need(path)? {
                self.0.cancellation.check()?;
            }
        }
        Ok(Lease { files: self.clone(), path: path.to_owned() })
    }

    /// Opens a file of lines; its hash is known when its last line is read.
    pub fn open(
        &self,
        path: &Path,
        name: &str,
        compression: Compression,
        fields: Option<&[&str]>,
    ) -> Result<LineReader> {
        let lease = self.need(path)?;
        let reader = match (self.known(path), fields) {
            (None, _) => LineReader::open_hashing(path, name, compression, fields)?,
            (Some(_), Some(fields)) => LineReader::open_fields(path, name, compression, fields)?,
            (Some(_), None) => LineReader::open_as(path, name, compression)?,
        };
        Ok(reader.at_end(move |written| lease.files.learn(&lease, written)))
    }

    fn learn(&self, lease: &Lease, written: Option<Written>) -> Result<()> {
        let written = match written {
            Some(written) => written,
            // Parquet is not read from front to end; later it might have to be fetched again
            None if self.are_remote() && self.known(&lease.path).is_none() => sha256_file(&lease.path)?,
            None => return Ok(()),
        };
        self.note(&lease.path, &written)
    }

    fn note(&self, path: &Path, written: &Written) -> Result<()> {
        let stamp = Stamp::of(path)?;
        lock(&self.0.hashes).insert(path.to_owned(), (stamp, written.sha256.clone()));
        let mut notes = lock(&self.0.notes);
        let Some(directory) = notes.directory.clone() else { return Ok(()) };
        let known = Known { path: relative_path(path, &directory)?, stamp, sha256: written.sha256.clone() };
        let file = directory.join(SIDE_NAME).join(NOTES);
        let line = serde_json::to_string(&known).map_err(|error| Error::io(&file, error.into()))?;
        let append = || {
            file.parent().map_or(Ok(()), fs::create_dir_all)?;
            let mut opened = File::options().create(true).append(true).open(&file)?;
            opened.write_all(format!("\n{line}\n").as_bytes())
        };
        append().map_err(|source| Error::io(&file, source))?;
        notes.read.insert(known.path.clone(), known);
        Ok(())
    }

    /// What is known of a file that has not changed since.
    fn known(&self, path: &Path) -> Option<Written> {
        let stamp = Stamp::of(path).ok()?;
        let written = |sha256: &String| Written { size_bytes: stamp.size_bytes, sha256: sha256.clone() };
        if let Some((of, sha256)) = lock(&self.0.hashes).get(path) {
            return (*of == stamp).then(|| written(sha256));
        }
        let notes = lock(&self.0.notes);
        let name = relative_path(path, notes.directory.as_ref()?).ok()?;
        notes.read.get(&name).filter(|known| known.stamp == stamp).map(|known| written(&known.sha256))
    }

    /// Size and hash of a file, which is read only if it was not before.
    pub fn hash(&self, path: &Path) -> Result<Written> {
        if let Some(written) = self.known(path) {
            return Ok(written);
        }
        let lease = self.need(path)?;
        let written = sha256_file(path)?;
        self.note(&lease.path, &written)?;
        Ok(written)
    }

    /// Hashes files on several threads.
    pub fn hash_all(&self, paths: &[PathBuf]) -> Result<()> {
        let unknown: Vec<&PathBuf> = paths.iter().filter(|path| self.known(path).is_none()).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        self.expect(unknown.iter().map(|path| path.as_path()))?;
        let hash = |path: &&PathBuf| self.0.cancellation.check().and_then(|()| self.hash(path));
        each(&unknown, self.0.threads.max(1), hash).map(drop)
    }

    /// The inputs that a manifest names, with hashes of those that belong to no artifact.
    pub fn inputs(&self, role: &str, format: &str, paths: &[PathBuf], from_directory: &Path) -> Result<Vec<Input>> {
        let alone = Mutex::new(Vec::new());
        hashed_inputs(role, format, paths, from_directory, &|path| {
            lock(&alone).push(path.to_owned());
            Ok(Written { size_bytes: 0, sha256: String::new() })
        })?;
        self.hash_all(&lock(&alone))?;
        hashed_inputs(role, format, paths, from_directory, &|path| self.hash(path))
    }

    /// Says that outputs have their names and a line in a journal.
    pub fn written(&self, journal: &Path, line: &str, paths: &[PathBuf]) -> Result<()> {
        self.0.store.as_ref().map_or(Ok(()), |store| store.written(journal, line, paths))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{sha256_bytes, side_file};

    /// Fetches from another directory; keeps nothing that is not asked for.
    struct Elsewhere(PathBuf, Mutex<Vec<String>>);

    impl Elsewhere {
        fn log(&self, what: &str, path: &Path) {
            let name = path.file_name().unwrap().to_string_lossy();
            lock(&self.1).push(format!("{what} {name}"));
        }
    }

    impl Store for Arc<Elsewhere> {
        fn expect(&self, paths: &[&Path]) -> Result<()> {
            paths.iter().for_each(|path| self.log("expect", path));
            Ok(())
        }

        fn need(&self, path: &Path) -> Result<bool> {
            self.log("need", path);
            // at the second call, as if it took its time
            let is_here = lock(&self.1).iter().filter(|line| line.starts_with("need")).count() % 2 == 0;
            if is_here {
                let file = File::open(path).unwrap();
                fs::copy(self.0.join(path.file_name().unwrap()), path).unwrap();
                File::options().write(true).open(path).unwrap().set_modified(UNIX_EPOCH).unwrap();
                drop(file);
            }
            Ok(is_here)
        }

        fn done(&self, path: &Path) {
            self.log("done", path);
        }

        fn written(&self, _: &Path, _: &str, paths: &[PathBuf]) -> Result<()> {
            paths.iter().for_each(|path| self.log("written", path));
            Ok(())
        }
    }

    #[test]
    fn a_file_is_fetched_once_and_its_hash_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let (there, here) = (folder.path().join("there"), folder.path().join("here"));
        fs::create_dir_all(&there).unwrap();
        fs::create_dir_all(&here).unwrap();
        fs::write(there.join("a"), "one\ntwo\n").unwrap();
        let path = here.join("a");
        let hole = File::create(&path).unwrap();
        hole.set_len(8).unwrap();
        hole.set_modified(UNIX_EPOCH).unwrap();
        let read = |notes: &Path| {
            let store = Arc::new(Elsewhere(there.clone(), Mutex::default()));
            let files = Files::new(Some(Box::new(store.clone())), 1, &Progress::default());
            files.note_in(notes);
            let sha256 = files.hash(&path).unwrap().sha256;
            let log = lock(&store.1).clone();
            (files, store, sha256, log)
        };
        let (files, store, sha256, log) = read(&here);
        assert_eq!(sha256, sha256_bytes(b"one\ntwo\n"));
        assert_eq!(log, ["need a", "need a", "done a"]);
        // known now, and to the next run
        files.hash(&path).unwrap();
        assert_eq!(lock(&store.1).len(), 3);
        assert!(side_file(&here, NOTES, "").exists());
        assert!(read(&here).3.is_empty());
        // a run that has noted nothing learns the hash from the lines
        let store = Arc::new(Elsewhere(there.clone(), Mutex::default()));
        let files = Files::new(Some(Box::new(store.clone())), 1, &Progress::default());
        let mut reader = files.open(&path, "a", Compression::None, None).unwrap();
        while reader.next_line().unwrap().is_some() {}
        assert_eq!(files.hash(&path).unwrap().sha256, sha256);
        assert_eq!(*lock(&store.1), ["need a", "need a", "done a"]);
        // a file that is not read to its end is given back, too
        drop(files.open(&path, "a", Compression::None, None).unwrap());
        assert_eq!(lock(&store.1).iter().filter(|line| *line == "done a").count(), 2);
        // another file under the name is hashed
        fs::write(there.join("a"), "eno\ntwo\n").unwrap();
        File::options().write(true).open(&path).unwrap().set_len(8).unwrap();
        assert_ne!(files.hash(&path).unwrap().sha256, sha256);
    }
}
