//! Directories of outputs: whether a run may write there, what it removes first, and whether it is done already.

use std::fs;
use std::io;
use std::path::Path;

use super::files::Files;
use super::journal::{Journal, Made};
use crate::error::{Error, Result};
use crate::manifest::{Manifest, FILE_NAME};

/// A directory that the outputs of one run fill, and nothing else.
pub struct Exclusive<M> {
    /// What is finished.
    pub journal: Journal<M>,
    /// The manifest is there, and it is this run's.
    pub complete: bool,
    /// Outputs of an unfinished run with other settings or inputs; removed.
    pub discarded: u64,
}

/// Readies such a directory. Files with these `extensions` that nobody recorded are an error, and so is what another run
/// finished.
pub fn exclusive<M: Made>(
    files: &Files,
    directory: &Path,
    command: &'static str,
    run: String,
    extensions: &[&str],
) -> Result<Exclusive<M>> {
    fs::create_dir_all(directory).map_err(|error| Error::io(directory, error))?;
    let journal: Journal<M> = Journal::read(files, directory, command, run)?;
    let (complete, discarded) = journal.enter(None, || ready(&journal, directory, extensions))?;
    Ok(Exclusive { journal, complete, discarded })
}

/// Says whether a directory is complete, and how many outputs were discarded.
fn ready<M: Made>(journal: &Journal<M>, directory: &Path, extensions: &[&str]) -> Result<(bool, u64)> {
    let manifest = Manifest::read(directory)?;
    let others = journal.others();
    let refuse = |message: &str| {
        Err(Error::config("destination", format!("is {}, {message}; expected it empty", directory.display()))
            .with_hint("choose another destination, or remove this one"))
    };
    if let Some(manifest) = &manifest {
        if journal.exists() {
            manifest.verify(directory, false)?;
        }
        if !others.is_empty() || journal.ours().is_empty() {
            return refuse("which holds an artifact made with other settings or from other inputs");
        }
    }
    if !journal.exists() && holds_files(directory, extensions)? {
        return refuse("which holds files that this command did not write");
    }
    remove_partial(directory)?;
    if !others.is_empty() {
        for (name, made) in &others {
            for (file, _) in made.files(name) {
                remove(&directory.join(file))?;
            }
        }
        journal.restart()?;
    }
    journal.begin()?;
    Ok((manifest.is_some(), others.len() as u64))
}

/// The manifest of a directory that is finished and was made as `expected` says, from its inputs at least.
pub fn finished_as(expected: &Manifest, directory: &Path) -> Option<Manifest> {
    let found = Manifest::read(directory).ok().flatten()?;
    let is_same = found.config == expected.config
        && found.writer == expected.writer
        && expected.inputs.iter().all(|input| found.inputs.contains(input));
    (is_same && found.verify(directory, false).is_ok()).then_some(found)
}

fn holds_files(directory: &Path, extensions: &[&str]) -> Result<bool> {
    let known = |name: &str| {
        let is_output = extensions.iter().any(|extension| name.ends_with(extension));
        !name.starts_with('.') && (is_output || name == FILE_NAME)
    };
    Ok(names(directory)?.iter().any(|name| known(name)))
}

/// Removes what a killed run was writing.
fn remove_partial(directory: &Path) -> Result<()> {
    let partial = |name: &&String| name.starts_with('.') && name.ends_with(".partial");
    names(directory)?.iter().filter(partial).try_for_each(|name| remove(&directory.join(name)).map(drop))
}

fn names(directory: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(directory).map_err(|error| Error::io(directory, error))?;
    Ok(entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
}

/// Removes a file, and says whether it was there.
pub fn remove(path: &Path) -> Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(Error::io(path, source)),
    }
}
