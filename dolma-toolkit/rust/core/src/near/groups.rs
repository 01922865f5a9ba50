//! Which keys are equal, for more keys than fit into memory.
//!
//! Keys are divided by their upper bits into files that do fit. Each file is sorted, and equal keys stand side by side.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::run::each;

/// Of keys that a thread sorts at once.
const PART_BYTES: u64 = 64 << 20;
/// More files at once may be more than the system opens.
const MOST_PARTS: u64 = 512;

/// A key, and whose it is.
pub type Keyed = (u128, u64);

const BYTES: usize = 24;

/// Keys on the disk, divided into parts.
pub struct Parts {
    directory: PathBuf,
    writers: Vec<BufWriter<File>>,
}

impl Parts {
    /// For about so many keys. `directory` is emptied.
    pub fn new(directory: &Path, keys: u64) -> Result<Self> {
        let fail = |source| Error::io(directory, source);
        if directory.exists() {
            fs::remove_dir_all(directory).map_err(fail)?;
        }
        fs::create_dir_all(directory).map_err(fail)?;
        let count = (keys * BYTES as u64).div_ceil(PART_BYTES).clamp(1, MOST_PARTS);
        let create = |part| File::create(path(directory, part)).map(BufWriter::new).map_err(fail);
        let writers = (0..count as usize).map(create).collect::<Result<_>>()?;
        Ok(Self { directory: directory.to_owned(), writers })
    }

    /// Adds a key whose upper 64 bits are random.
    #[inline]
    pub fn add(&mut self, (key, owner): Keyed) -> Result<()> {
        let part = ((key >> 64) * self.writers.len() as u128) >> 64;
        let mut bytes = [0; BYTES];
        bytes[..16].copy_from_slice(&key.to_le_bytes());
        bytes[16..].copy_from_slice(&owner.to_le_bytes());
        self.writers[part as usize].write_all(&bytes).map_err(|source| Error::io(&self.directory, source))
    }

    /// Hands over the parts, each sorted by key and owner, in any order and on any thread. Then they are gone.
    pub fn sorted(
        self,
        threads: usize,
        progress: &Progress,
        work: impl Fn(&[Keyed]) -> Result<()> + Sync + Send,
    ) -> Result<()> {
        let (directory, count) = self.end()?;
        let parts: Vec<PathBuf> = (0..count).map(|part| path(&directory, part)).collect();
        each(&parts, threads, |path| {
            progress.check()?;
            let mut keys = read(path)?;
            keys.sort_unstable();
            work(&keys)?;
            fs::remove_file(path).map_err(|source| Error::io(path, source))
        })?;
        fs::remove_dir_all(&directory).map_err(|source| Error::io(&directory, source))
    }

    /// Closes the parts. Gives where they are, and how many.
    fn end(self) -> Result<(PathBuf, usize)> {
        let Self { directory, writers } = self;
        let count = writers.len();
        for writer in writers {
            writer.into_inner().map_err(|error| Error::io(&directory, error.into_error()))?;
        }
        Ok((directory, count))
    }
}

/// Numbers from 0 up to a limit, each with a value, added in any order and taken in order.
pub struct Numbers {
    parts: Parts,
    limit: u64,
}

impl Numbers {
    /// `directory` is emptied.
    pub fn new(directory: &Path, limit: u64) -> Result<Self> {
        Ok(Self { parts: Parts::new(directory, limit)?, limit })
    }

    /// Adds a number below the limit.
    pub fn add(&mut self, number: u64, value: u64) -> Result<()> {
        // upper bits that rise with the number over the whole range
        let upper = (u128::from(number) << 64) / u128::from(self.limit);
        self.parts.add((upper << 64 | u128::from(number), value))
    }

    /// All of them, from the least on.
    pub fn in_order(self) -> Result<InOrder> {
        let (directory, count) = self.parts.end()?;
        let left = (0..count).rev().map(|part| path(&directory, part)).collect();
        Ok(InOrder { directory, left, part: Vec::new() })
    }
}

/// What [`Numbers::in_order`] gives. A part is in memory at a time.
pub struct InOrder {
    directory: PathBuf,
    left: Vec<PathBuf>,
    /// from the greatest to the least
    part: Vec<Keyed>,
}

impl InOrder {
    /// The next number, if it is below `end`, and its value.
    pub fn next_before(&mut self, end: u64) -> Result<Option<(u64, u64)>> {
        while self.part.is_empty() {
            let Some(path) = self.left.pop() else { return Ok(None) };
            self.part = read(&path)?;
            self.part.sort_unstable_by(|one, other| other.cmp(one));
        }
        let Some((number, value)) = self.part.pop_if(|one| (one.0 as u64) < end) else { return Ok(None) };
        Ok(Some((number as u64, value)))
    }
}

impl Drop for InOrder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn read(path: &Path) -> Result<Vec<Keyed>> {
    let bytes = fs::read(path).map_err(|source| Error::io(path, source))?;
    Ok(bytes.chunks_exact(BYTES).map(keyed).collect())
}

fn path(directory: &Path, part: usize) -> PathBuf {
    directory.join(format!("{part:03}"))
}

fn keyed(bytes: &[u8]) -> Keyed {
    let (mut key, mut owner) = ([0; 16], [0; 8]);
    key.copy_from_slice(&bytes[..16]);
    owner.copy_from_slice(&bytes[16..]);
    (u128::from_le_bytes(key), u64::from_le_bytes(owner))
}

/// The runs of equal keys.
pub fn groups(keys: &[Keyed]) -> impl Iterator<Item = &[Keyed]> {
    keys.chunk_by(|one, other| one.0 == other.0)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn equal_keys_meet() {
        let folder = tempfile::tempdir().unwrap();
        // as many parts as 1 GiB of keys has
        let mut parts = Parts::new(&folder.path().join("parts"), 1 << 26).unwrap();
        assert!(parts.writers.len() > 10);
        for owner in 0..10_000_u64 {
            let key = u128::from(crate::bloom::fold(owner % 1000 + 1)) << 64;
            parts.add((key, owner)).unwrap();
        }
        let found = Mutex::new(Vec::new());
        let collect = |keys: &[Keyed]| {
            found.lock().unwrap().extend(groups(keys).map(|group| group.iter().map(|one| one.1).collect::<Vec<u64>>()));
            Ok(())
        };
        parts.sorted(2, &Progress::default(), collect).unwrap();
        let mut found = found.into_inner().unwrap();
        found.sort_unstable();
        let expected: Vec<Vec<u64>> = (0..1000).map(|first| (first..10_000).step_by(1000).collect()).collect();
        assert_eq!(found, expected);
        assert!(!folder.path().join("parts").exists());
    }

    #[test]
    fn numbers_are_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let limit = 1 << 26;
        let mut numbers = Numbers::new(&folder.path().join("numbers"), limit).unwrap();
        assert!(numbers.parts.writers.len() > 10);
        let added: Vec<u64> = (0..1000).map(|n| crate::bloom::fold(n + 1) % limit).chain([0, limit - 1]).collect();
        added.iter().for_each(|number| numbers.add(*number, number + 1).unwrap());
        let mut expected = added;
        expected.sort_unstable();
        let mut in_order = numbers.in_order().unwrap();
        assert_eq!(in_order.next_before(0).unwrap(), None);
        for number in expected {
            assert_eq!(in_order.next_before(number + 1).unwrap(), Some((number, number + 1)));
        }
        assert_eq!(in_order.next_before(limit).unwrap(), None);
    }
}
