//! Several processes with one output: shares of one run work side by side, other runs are refused.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::json;

use crate::error::{Error, Result};
use crate::manifest::SIDE_NAME;

/// How long to wait while another share readies a directory, or while a process of the same share ends.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(20);

/// The part of the work that a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// From 0.
    pub index: usize,
    /// How many processes divide the work.
    pub count: usize,
}

impl Share {
    /// Whether a series with this number is in it.
    pub fn has(&self, number: usize) -> bool {
        number % self.count == self.index
    }

    /// Keeps other processes of this share out until the file, its journal, is closed.
    pub(super) fn alone(&self, directory: &Path, journal: &Path) -> Result<File> {
        let fail = |source| Error::io(journal, source);
        let file = File::options().create(true).append(true).open(journal).map_err(fail)?;
        let start = Instant::now();
        while !is_locked(file.try_lock()).map_err(fail)? {
            if start.elapsed() > PATIENCE {
                let message = format!("is being written by another process of shard {}/{}", self.index, self.count);
                return Err(refused(directory, &message));
            }
            thread::sleep(PAUSE);
        }
        Ok(file)
    }

    /// Of its journal, next to the common one.
    pub(super) fn journal_name(&self) -> String {
        format!("progress-{}-of-{}.ndjson", self.index, self.count)
    }
}

/// The right to write to a directory, for as long as it lives. The system takes it back from a process that is killed.
#[derive(Debug)]
pub struct Claim {
    file: File,
    path: PathBuf,
    share: Option<Share>,
    /// Nobody else has one.
    pub is_alone: bool,
}

impl Claim {
    /// Claims a directory for a run, or for a share of it; waits for shares that are starting.
    pub fn new(directory: &Path, run: &str, share: Option<Share>) -> Result<Claim> {
        let path = directory.join(SIDE_NAME).join("lock");
        let start = Instant::now();
        loop {
            if let Some(mut claim) = Claim::attempt(&path, share).map_err(|source| Error::io(&path, source))? {
                let Some(share) = share.filter(|_| !claim.is_alone) else { return Ok(claim) };
                let note = claim.note().map_err(|source| Error::io(&path, source))?;
                if note == note_of(run, share) {
                    return Ok(claim);
                }
                let message =
                    "is being written by shards of a run with other settings, other inputs or another number of shards";
                return Err(refused(directory, message));
            }
            if share.is_none() || start.elapsed() > PATIENCE {
                return Err(refused(directory, "is being written by another run"));
            }
            thread::sleep(PAUSE);
        }
    }

    fn attempt(path: &Path, share: Option<Share>) -> io::Result<Option<Claim>> {
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        let file = File::options().create(true).truncate(false).read(true).write(true).open(path)?;
        let is_alone = is_locked(file.try_lock())?;
        if !is_alone && (share.is_none() || !is_locked(file.try_lock_shared())?) {
            return Ok(None);
        }
        // whoever was alone before may have removed the file
        let is_current = fs::metadata(path).is_ok_and(|now| file.metadata().is_ok_and(|ours| ours.ino() == now.ino()));
        Ok(is_current.then(|| Claim { file, path: path.to_owned(), share, is_alone }))
    }

    fn note(&mut self) -> io::Result<String> {
        let mut note = String::new();
        self.file.rewind()?;
        self.file.read_to_string(&mut note).map(|_| note)
    }

    /// Lets other shares of the run in.
    pub fn admit(&mut self, run: &str) -> Result<()> {
        let Some(share) = self.share.filter(|_| self.is_alone) else { return Ok(()) };
        let fail = |source| Error::io(&self.path, source);
        self.file.rewind().map_err(fail)?;
        self.file.set_len(0).map_err(fail)?;
        self.file.write_all(note_of(run, share).as_bytes()).map_err(fail)?;
        self.file.lock_shared().map_err(fail)?;
        self.is_alone = false;
        // the system may have let another run in just now
        match self.note().map_err(|source| Error::io(&self.path, source))? == note_of(run, share) {
            true => Ok(()),
            false => Err(refused(
                self.path.parent().and_then(Path::parent).unwrap_or(&self.path),
                "is being written by another run",
            )),
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.is_alone {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn note_of(run: &str, share: Share) -> String {
    json!({"run": run, "shares": share.count}).to_string()
}

/// A file system without locks keeps nobody out.
fn is_locked(result: std::result::Result<(), TryLockError>) -> io::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn refused(directory: &Path, message: &str) -> Error {
    Error::config(directory.display().to_string(), format!("{message}; expected one run at a time"))
        .with_hint("wait until the other run ends, or write to another directory")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_run_or_the_shares_of_one_run_have_a_directory() {
        let folder = tempfile::tempdir().unwrap();
        let claim = |run: &str, share| Claim::new(folder.path(), run, share);
        let [first, second, other] = [(0, 2), (1, 2), (1, 3)].map(|(index, count)| Some(Share { index, count }));
        let alone = claim("r", None).unwrap();
        assert!(claim("r", None).unwrap_err().to_string().contains("another run"));
        drop(alone);
        assert!(!folder.path().join(".dolma/lock").exists());

        let mut one = claim("r", first).unwrap();
        assert!(one.is_alone);
        one.admit("r").unwrap();
        let two = claim("r", second).unwrap();
        assert!(!two.is_alone);
        assert!(claim("s", second).unwrap_err().to_string().contains("other settings"));
        assert!(claim("r", other).unwrap_err().to_string().contains("number of shards"));
        assert!(claim("r", None).is_err());
        drop((one, two));
        assert!(claim("s", None).unwrap().is_alone);
    }
}
