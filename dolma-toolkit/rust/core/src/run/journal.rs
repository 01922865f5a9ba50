//! Which outputs of a directory are finished: `.dolma/progress.ndjson`, a line each, appended when an output has its name.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::files::Files;
use super::publish::remove;
use super::share::{Claim, Share};
use crate::error::{Error, Result};
use crate::jsonl::Written;
use crate::manifest::{side_file, write_file};

/// What a command records of a finished output.
pub trait Made: Clone + Serialize + DeserializeOwned {
    /// The files of the output `name`, by their paths in the directory.
    fn files(&self, name: &str) -> Vec<(String, &Written)>;
}

/// A line. Earlier releases had other names for the first two fields.
#[derive(Clone, Serialize, Deserialize)]
struct Entry<M> {
    /// Hash of what the output depends on.
    #[serde(alias = "settings", alias = "fingerprint")]
    run: String,
    #[serde(alias = "path")]
    name: String,
    #[serde(flatten)]
    made: M,
}

/// The first line.
#[derive(Serialize, Deserialize)]
struct Header {
    command: String,
}

/// The finished outputs of a directory, those of other runs too. Threads share it.
pub struct Journal<M> {
    files: Files,
    directory: PathBuf,
    path: PathBuf,
    command: &'static str,
    run: String,
    entries: Mutex<Option<BTreeMap<String, Entry<M>>>>,
    entered: Mutex<Option<Entered>>,
    /// Of the journals, when they were read.
    read_bytes: u64,
}

/// The right to write to the directory.
struct Entered {
    _claim: Claim,
    share: Option<(Share, File)>,
}

type Entries<M> = BTreeMap<String, Entry<M>>;

impl<M: Made> Journal<M> {
    /// Reads what earlier runs left. Passes over a line that a kill cut short, and over an output whose files are missing or
    /// have another size.
    pub fn read(files: &Files, directory: &Path, command: &'static str, run: String) -> Result<Journal<M>> {
        let path = side_file(directory, "progress.ndjson", ".progress.jsonl");
        let (entries, read_bytes) = Self::read_entries(directory, &path, command)?;
        let (entries, entered) = (Mutex::new(entries), Mutex::default());
        let (files, directory) = (files.clone(), directory.to_owned());
        Ok(Journal { files, directory, path, command, run, entries, entered, read_bytes })
    }

    /// As it is now that other shares have written.
    pub fn again(&self) -> Result<Journal<M>> {
        Self::read(&self.files, &self.directory, self.command, self.run.clone())
    }

    /// The outputs in the journals of all shares, and the size of the journals.
    fn read_entries(directory: &Path, path: &Path, command: &str) -> Result<(Option<Entries<M>>, u64)> {
        let mut texts = vec![fs::read_to_string(path)];
        if !matches!(&texts[0], Ok(text) if !is_of(command, text)) {
            texts.extend(of_shares(path).map(fs::read_to_string));
        }
        let (mut entries, mut read_bytes) = (None, 0);
        for text in texts {
            let text = match text {
                Ok(text) => text,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(Error::io(path, error)),
            };
            read_bytes += text.len() as u64;
            if entries.is_none() && !is_of(command, &text) {
                continue;
            }
            let lines = text.lines().filter_map(|line| serde_json::from_str::<Entry<M>>(line).ok());
            // of two lines for one output the later one counts
            entries.get_or_insert_with(BTreeMap::new).extend(lines.map(|entry| (entry.name.clone(), entry)));
        }
        let is_there = |(name, written): &(String, &Written)| {
            fs::metadata(directory.join(name)).is_ok_and(|file| file.len() == written.size_bytes)
        };
        if let Some(entries) = &mut entries {
            entries.retain(|name, entry| entry.made.files(name).iter().all(is_there));
        }
        Ok((entries, read_bytes))
    }

    /// Keeps other runs away from the directory. Calls `ready` unless another share of this run has done so already.
    pub fn enter<T: Default>(&self, share: Option<Share>, ready: impl FnOnce() -> Result<T>) -> Result<T> {
        if self.is_entered() {
            return Ok(T::default());
        }
        let mut claim = Claim::new(&self.directory, &self.run, share)?;
        let (entries, bytes) = Self::read_entries(&self.directory, &self.path, self.command)?;
        if bytes != self.read_bytes {
            if share.is_none() {
                let message = "was written by another run a moment ago; expected one run at a time";
                return Err(
                    Error::config(self.directory.display().to_string(), message).with_hint("run the command again")
                );
            }
            *self.lock() = entries;
        }
        let found = match claim.is_alone {
            true => self.fold().and_then(|()| ready())?,
            false => T::default(),
        };
        claim.admit(&self.run)?;
        let mut of_share = None;
        if let Some(share) = share {
            // a process of the same share, on a machine that was given up, may have been at work until now
            of_share = Some((share, share.alone(&self.directory, &self.path.with_file_name(share.journal_name()))?));
            *self.lock() = Self::read_entries(&self.directory, &self.path, self.command)?.0;
        }
        *self.entered.lock().unwrap_or_else(PoisonError::into_inner) = Some(Entered { _claim: claim, share: of_share });
        Ok(found)
    }

    /// Takes the journals of shares into the common one.
    fn fold(&self) -> Result<()> {
        let shares: Vec<PathBuf> = of_shares(&self.path).collect();
        let entries = self.lock();
        let (Some(entries), false) = (&*entries, shares.is_empty()) else { return Ok(()) };
        let mut text = format!("{}\n", json!(Header { command: self.command.to_owned() }));
        for entry in entries.values() {
            text += &format!("{}\n", json!(entry));
        }
        write_file(&self.path, text.as_bytes())?;
        shares.iter().try_for_each(|path| remove(path).map(drop))
    }

    fn is_entered(&self) -> bool {
        self.entered.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn share(&self) -> Option<Share> {
        let entered = self.entered.lock().unwrap_or_else(PoisonError::into_inner);
        entered.as_ref().and_then(|entered| Some(entered.share.as_ref()?.0))
    }

    /// The directory of the outputs.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Whether a run of this command has begun to write here.
    pub fn exists(&self) -> bool {
        self.lock().is_some()
    }

    /// Says that a run writes here: a kill may leave outputs without a line.
    pub fn begin(&self) -> Result<()> {
        if self.exists() {
            return Ok(());
        }
        self.restart()
    }

    /// As [`Journal::begin`], and forgets all outputs.
    pub fn restart(&self) -> Result<()> {
        let header = json!(Header { command: self.command.to_owned() });
        of_shares(&self.path).try_for_each(|path| remove(&path).map(drop))?;
        write_file(&self.path, format!("{header}\n").as_bytes())?;
        *self.lock() = Some(BTreeMap::new());
        Ok(())
    }

    /// What this run, or an earlier one like it, recorded of an output.
    pub fn get(&self, name: &str) -> Option<M> {
        let entries = self.lock();
        let entry = entries.as_ref()?.get(name).filter(|entry| entry.run == self.run)?;
        Some(entry.made.clone())
    }

    /// Whether another run made the output.
    pub fn is_of_another(&self, name: &str) -> bool {
        self.lock().as_ref().and_then(|entries| entries.get(name)).is_some_and(|entry| entry.run != self.run)
    }

    /// Outputs of this run, by name.
    pub fn ours(&self) -> Vec<(String, M)> {
        self.of_run(true)
    }

    /// Outputs of other runs, by name.
    pub fn others(&self) -> Vec<(String, M)> {
        self.of_run(false)
    }

    /// The run of all outputs, if it is another.
    pub fn run_of_others(&self) -> Option<String> {
        let entries = self.lock();
        let mut runs = entries.iter().flat_map(BTreeMap::values).map(|entry| &entry.run);
        let first = runs.next().filter(|run| **run != self.run)?;
        runs.all(|run| run == first).then(|| first.clone())
    }

    fn of_run(&self, ours: bool) -> Vec<(String, M)> {
        let entries = self.lock();
        let found = entries.iter().flat_map(BTreeMap::values).filter(|entry| (entry.run == self.run) == ours);
        found.map(|entry| (entry.name.clone(), entry.made.clone())).collect()
    }

    /// Records an output whose files have their names.
    pub fn add(&self, name: &str, made: M) -> Result<()> {
        let entry = Entry { run: self.run.clone(), name: name.to_owned(), made };
        let line = serde_json::to_string(&entry).map_err(|error| Error::io(&self.path, error.into()))?;
        let path = self.share().map_or(self.path.clone(), |share| self.path.with_file_name(share.journal_name()));
        let mut entries = self.lock();
        append(&path, &line)?;
        let paths: Vec<PathBuf> = entry.made.files(name).iter().map(|(file, _)| self.directory.join(file)).collect();
        entries.get_or_insert_default().insert(entry.name.clone(), entry);
        drop(entries);
        self.files.written(&path, &line, &paths)
    }

    /// Removes the journal.
    pub fn remove(&self) -> Result<()> {
        let mut entries = self.lock();
        *entries = None;
        of_shares(&self.path).try_for_each(|path| remove(&path).map(drop))?;
        remove(&self.path).map(drop)
    }

    fn lock(&self) -> MutexGuard<'_, Option<BTreeMap<String, Entry<M>>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The journals of shares, next to the common one: on network file systems, appends of two machines may overwrite each other.
fn of_shares(path: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = path.parent().and_then(|directory| fs::read_dir(directory).ok()).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    found.retain(|path| {
        path.file_name().is_some_and(|name| {
            let name = name.to_string_lossy();
            name.starts_with("progress-") && name.ends_with(".ndjson")
        })
    });
    found.sort();
    found.into_iter()
}

/// Whether a journal is one of this command.
fn is_of(command: &str, text: &str) -> bool {
    match text.lines().find_map(|line| serde_json::from_str::<Header>(line).ok()) {
        Some(header) => header.command == command,
        // earlier releases did not say, and had other files for these two
        None => !["dedupe", "mix"].contains(&command),
    }
}

fn append(path: &Path, line: &str) -> Result<()> {
    let write = || {
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        // a line feed in front, too: the line before may have been cut short
        file.write_all(format!("\n{line}\n").as_bytes())?;
        file.sync_data()
    };
    write().map_err(|error| Error::io(path, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct One {
        output: Written,
    }

    impl Made for One {
        fn files(&self, name: &str) -> Vec<(String, &Written)> {
            vec![(name.to_owned(), &self.output)]
        }
    }

    fn journal(directory: &Path, run: &str) -> Journal<One> {
        Journal::read(&Files::default(), directory, "tag", run.to_owned()).unwrap()
    }

    #[test]
    fn outputs_count_if_they_are_there_and_their_lines_are_whole() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, bytes: &[u8]| One { output: write_file(&folder.path().join(name), bytes).unwrap() };
        let first = journal(folder.path(), "r");
        assert!(!first.exists());
        first.begin().unwrap();
        for name in ["a", "b", "c"] {
            first.add(name, file(name, b"x")).unwrap();
        }
        fs::remove_file(folder.path().join("a")).unwrap();
        file("b", b"longer");
        let path = folder.path().join(".dolma/progress.ndjson");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("{text}{{\"run\":\"r\",\"na")).unwrap();
        let second = journal(folder.path(), "r");
        assert_eq!(second.ours().into_iter().map(|(name, _)| name).collect::<Vec<_>>(), ["c"]);
        second.add("d", file("d", b"x")).unwrap();
        assert_eq!(journal(folder.path(), "r").ours().len(), 2);
        assert_eq!((journal(folder.path(), "s").ours().len(), journal(folder.path(), "s").others().len()), (0, 2));
        assert!(journal(folder.path(), "s").is_of_another("d"));
        let other = Journal::<One>::read(&Files::default(), folder.path(), "dedupe", "r".to_owned()).unwrap();
        assert!(!other.exists() && other.ours().is_empty());
        second.remove().unwrap();
        assert!(!journal(folder.path(), "r").exists());
    }

    #[test]
    fn lines_of_earlier_releases_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let made = One { output: write_file(&folder.path().join("a"), b"x").unwrap() };
        let output = serde_json::to_string(&made.output).unwrap();
        for old in ["settings", "fingerprint"] {
            let line = format!("{{\"{old}\":\"r\",\"path\":\"a\",\"output\":{output},\"keys\":[]}}\n");
            write_file(&folder.path().join(".progress.jsonl"), line.as_bytes()).unwrap();
            let found = journal(folder.path(), "r");
            assert_eq!(found.get("a"), Some(made.clone()));
            found.remove().unwrap();
        }
    }
}
