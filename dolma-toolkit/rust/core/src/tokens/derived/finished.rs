//! Which outputs of a directory are finished: a line each in its hidden record, appended when their files have their names.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::jsonl::Written;
use crate::manifest::{side_file, Manifest, FILE_NAME};

/// One finished output.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Output {
    /// Orders the outputs.
    pub name: String,
    /// What it adds to the counts of the manifest.
    pub counts: BTreeMap<String, u64>,
    /// Its files, by their names in the directory.
    pub files: BTreeMap<String, Written>,
}

#[derive(Serialize, Deserialize)]
struct Record {
    fingerprint: String,
    #[serde(flatten)]
    output: Output,
}

/// The outputs of a directory.
pub struct Finished {
    path: PathBuf,
    fingerprint: String,
    outputs: Mutex<BTreeMap<String, Output>>,
    /// The manifest is there, and it is this run's.
    pub complete: bool,
    /// Of an unfinished run with other settings or inputs; removed.
    pub discarded: u64,
}

impl Finished {
    /// Looks at what an earlier run left. A directory that holds other files is an error, as is a finished one of other
    /// settings.
    pub fn open(directory: &Path, fingerprint: String) -> Result<Finished> {
        fs::create_dir_all(directory).map_err(|error| Error::io(directory, error))?;
        let path = side_file(directory, "progress.ndjson", ".progress.jsonl");
        let records = read_records(&path)?;
        let ours = records.iter().all(|record| record.fingerprint == fingerprint);
        let manifest = Manifest::read(directory)?;
        let refuse = |message: &str| {
            Err(Error::config("destination", format!("is {}, {message}; expected it empty", directory.display()))
                .with_hint("choose another destination, or remove this one"))
        };
        if manifest.is_some() && (records.is_empty() || !ours) {
            return refuse("which holds an artifact made with other settings or from other shards");
        }
        if !path.exists() && holds_files(directory)? {
            return refuse("which holds files that this command did not write");
        }
        remove_partial(directory)?;
        let mut outputs = BTreeMap::new();
        let mut discarded = 0;
        if ours {
            let is_there = |(name, written): (&String, &Written)| {
                fs::metadata(directory.join(name)).is_ok_and(|file| file.len() == written.size_bytes)
            };
            for Record { output, .. } in records {
                if output.files.iter().all(is_there) {
                    outputs.insert(output.name.clone(), output);
                }
            }
        } else {
            for name in records.iter().flat_map(|record| record.output.files.keys()) {
                let _ = fs::remove_file(directory.join(name));
            }
            discarded = records.len() as u64;
            fs::remove_file(&path).map_err(|error| Error::io(&path, error))?;
        }
        if let Some(manifest) = &manifest {
            manifest.verify(directory, false)?;
        }
        // marks the directory as ours: a kill may leave files whose record was not written yet
        path.parent().map_or(Ok(()), fs::create_dir_all).map_err(|error| Error::io(&path, error))?;
        OpenOptions::new().create(true).append(true).open(&path).map_err(|error| Error::io(&path, error))?;
        Ok(Finished { path, fingerprint, outputs: Mutex::new(outputs), complete: manifest.is_some(), discarded })
    }

    /// Outputs found or made so far.
    pub fn kept(&self) -> u64 {
        self.lock().len() as u64
    }

    /// Whether the output of that name is finished.
    pub fn has(&self, name: &str) -> bool {
        self.lock().contains_key(name)
    }

    /// Records an output whose files have their names.
    pub fn keep(&self, output: Output) -> Result<()> {
        let mut outputs = self.lock();
        let record = Record { fingerprint: self.fingerprint.clone(), output };
        let write = || {
            let line = serde_json::to_string(&record)?;
            let mut file: File = OpenOptions::new().create(true).append(true).open(&self.path)?;
            // a line feed in front, too: a kill may have cut the line before
            file.write_all(format!("\n{line}\n").as_bytes())?;
            file.sync_data()
        };
        write().map_err(|error: io::Error| Error::io(&self.path, error))?;
        outputs.insert(record.output.name.clone(), record.output);
        Ok(())
    }

    /// Calls `visit` for every output, by name.
    pub fn each(&self, visit: impl FnMut(&Output)) {
        self.lock().values().for_each(visit);
    }

    /// Sums over the outputs.
    pub fn counts(&self) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::from([("documents".to_owned(), 0), ("tokens".to_owned(), 0)]);
        self.each(|output| {
            for (name, count) in &output.counts {
                *counts.entry(name.clone()).or_default() += count;
            }
        });
        counts
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Output>> {
        self.outputs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read_records(path: &Path) -> Result<Vec<Record>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(Error::io(path, error)),
    }
}

fn holds_files(directory: &Path) -> Result<bool> {
    let entries = fs::read_dir(directory).map_err(|error| Error::io(directory, error))?;
    Ok(entries.flatten().any(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let known = [".npy", ".csv.gz", ".bin", ".idx"].iter().any(|extension| name.ends_with(extension));
        !name.starts_with('.') && (known || name == FILE_NAME)
    }))
}

/// Removes what a killed run was writing.
pub fn remove_partial(directory: &Path) -> Result<()> {
    let entries = fs::read_dir(directory).map_err(|error| Error::io(directory, error))?;
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with('.') && name.ends_with(".partial") {
            fs::remove_file(entry.path()).map_err(|error| Error::io(&entry.path(), error))?;
        }
    }
    Ok(())
}
