//! Which inputs a manifest names: an artifact where the files belong to one, the files themselves otherwise.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use super::{sha256_file, Input, Manifest, FILE_NAME};
use crate::error::{Error, Result};
use crate::jsonl::Written;

/// Below it lie the copies of remote files, in a tree of their own: `<scheme>/<bucket>/<key>`.
const REMOTE_DIRECTORY: &str = ".dolma-remote";

/// The path from one place to another, with `/`; both are made absolute first, symbolic links are not followed.
///
/// The copy of a remote file represents the original: its path is a URL, unless `from_directory` is of the same bucket. A
/// local file is known to a remote directory only by its name, since no path leads from one to the other.
pub fn relative_path(target: &Path, from_directory: &Path) -> Result<String> {
    let mut target = absolute(target)?;
    let mut from = absolute(from_directory)?;
    match (remote(&target), remote(&from)) {
        (None, None) => {}
        (Some(there), Some(here)) if there.components().take(2).eq(here.components().take(2)) => {
            (target, from) = (there, here);
        }
        (Some(there), _) => return Ok(there.to_string_lossy().replacen('/', "://", 1)),
        (None, Some(_)) => return Ok(target.file_name().unwrap_or_default().to_string_lossy().into_owned()),
    }
    let shared = target.components().zip(from.components()).take_while(|(a, b)| a == b).count();
    let up = from.components().skip(shared).map(|_| "..".to_owned());
    let down = target.components().skip(shared).map(|part| part.as_os_str().to_string_lossy().into_owned());
    let parts: Vec<String> = up.chain(down).collect();
    Ok(if parts.is_empty() { ".".to_owned() } else { parts.join("/") })
}

fn remote(path: &Path) -> Option<PathBuf> {
    let mut parts = path.components();
    parts.find(|part| part.as_os_str() == REMOTE_DIRECTORY)?;
    Some(parts.as_path().to_owned())
}

/// Absolute and without `.` and `..`, only by the names.
fn absolute(path: &Path) -> Result<PathBuf> {
    let path = std::path::absolute(path).map_err(|source| Error::io(path, source))?;
    let mut parts = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                parts.pop();
            }
            Component::CurDir => {}
            other => parts.push(other),
        }
    }
    Ok(parts)
}

/// An input that is an artifact.
pub fn artifact_input(role: &str, directory: &Path, from_directory: &Path) -> Result<Input> {
    Ok(Input {
        role: role.to_owned(),
        path: relative_path(directory, from_directory)?,
        manifest_sha256: Some(sha256_file(&directory.join(FILE_NAME))?.sha256),
        sha256: None,
        size_bytes: None,
    })
}

/// An input that is a file of no artifact.
pub fn file_input(role: &str, file: &Path, from_directory: &Path) -> Result<Input> {
    Ok(Input::file(role, relative_path(file, from_directory)?, &sha256_file(file)?))
}

/// The inputs for document or attribute files: the artifacts that list them, and the files that none lists.
///
/// An artifact is the nearest directory above a file whose manifest lists it; it has to be a `format` (`unknown_format`
/// otherwise), and all that it lists has to be there. `role` is what the files were used as.
pub fn document_inputs(role: &str, format: &str, files: &[PathBuf], from_directory: &Path) -> Result<Vec<Input>> {
    hashed_inputs(role, format, files, from_directory, &sha256_file)
}

/// As [`document_inputs`]; `hash` gives size and hash of a file that belongs to no artifact.
pub fn hashed_inputs(
    role: &str,
    format: &str,
    files: &[PathBuf],
    from_directory: &Path,
    hash: &dyn Fn(&Path) -> Result<Written>,
) -> Result<Vec<Input>> {
    let mut manifests: BTreeMap<PathBuf, Option<Manifest>> = BTreeMap::new();
    let mut inputs = BTreeMap::new();
    for given in files {
        let file = absolute(given)?;
        let mut owner = None;
        for directory in file.ancestors().skip(1) {
            if !manifests.contains_key(directory) {
                manifests.insert(directory.to_owned(), read_owner(directory)?);
            }
            let Some(Some(manifest)) = manifests.get(directory) else {
                continue;
            };
            let path = relative_path(&file, directory)?;
            if manifest.files.iter().any(|entry| entry.path == path) {
                manifest.expect(format, &directory.join(FILE_NAME).display().to_string())?;
                owner = Some(directory.to_owned());
                break;
            }
        }
        let key = owner.clone().unwrap_or_else(|| file.clone());
        if inputs.contains_key(&key) {
            continue;
        }
        let input = match owner {
            Some(directory) => {
                if let Some(Some(manifest)) = manifests.get(&directory) {
                    manifest.verify(&directory, false)?;
                }
                artifact_input(role, &directory, from_directory)?
            }
            None => Input::file(role, relative_path(&file, from_directory)?, &hash(given)?),
        };
        inputs.insert(key, input);
    }
    Ok(inputs.into_values().collect())
}

/// The input for a `tokenizer.json`: the artifact that lists it (a tokenizer, a checkpoint, tokens), or the file.
pub fn tokenizer_input(file: &Path, from_directory: &Path) -> Result<Input> {
    let file = absolute(file)?;
    if let Some(directory) = file.parent() {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let owner = read_owner(directory)?;
        if owner.is_some_and(|manifest| manifest.files.iter().any(|entry| entry.path == name)) {
            return artifact_input("tokenizer", directory, from_directory);
        }
    }
    file_input("tokenizer", &file, from_directory)
}

/// A file named manifest.json that is not one of ours is not our business.
fn read_owner(directory: &Path) -> Result<Option<Manifest>> {
    match Manifest::read(directory) {
        Err(Error::Format(_)) => Ok(None),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::write_file;
    use serde_json::Map;

    #[test]
    fn paths_go_up_and_down() {
        assert_eq!(relative_path(Path::new("/a/documents"), Path::new("/a/attributes/x")).unwrap(), "../../documents");
        assert_eq!(relative_path(Path::new("/a/./b/../c"), Path::new("/a")).unwrap(), "c");
        assert_eq!(relative_path(Path::new("/a"), Path::new("/a")).unwrap(), ".");
    }

    #[test]
    fn copies_stand_for_the_remote_files() {
        let path = |target, from| relative_path(Path::new(target), Path::new(from)).unwrap();
        let (one, two) = ("/w/.dolma-remote/s3/b/documents/a.gz", "/v/.dolma-remote/s3/b/attributes/x");
        assert_eq!(path(one, two), "../../documents/a.gz");
        assert_eq!(path(one, "/v/.dolma-remote/s3/c/attributes/x"), "s3://b/documents/a.gz");
        assert_eq!(path(one, "/v/attributes/x"), "s3://b/documents/a.gz");
        assert_eq!(path("/home/a.gz", two), "a.gz");
    }

    #[test]
    fn files_of_an_artifact_are_one_input_and_others_stand_alone() {
        let folder = tempfile::tempdir().unwrap();
        let documents = folder.path().join("documents");
        let mut manifest = Manifest::new("document", Map::new());
        for name in ["a.jsonl", "b.jsonl", "c.jsonl"] {
            let written = write_file(&documents.join(name), name.as_bytes()).unwrap();
            if name != "c.jsonl" {
                manifest.add_file(name, &written);
            }
        }
        let identity = manifest.write(&documents).unwrap();
        let files: Vec<PathBuf> = ["a.jsonl", "b.jsonl", "c.jsonl"].iter().map(|name| documents.join(name)).collect();
        let inputs = document_inputs("documents", "document", &files, &folder.path().join("attributes/x")).unwrap();
        assert_eq!(inputs.len(), 2);
        assert_eq!(inputs[0].manifest_sha256.as_deref(), Some(identity.as_str()));
        assert_eq!(inputs[0].path, "../../documents");
        assert_eq!(inputs[1].path, "../../documents/c.jsonl");
        assert_eq!(inputs[1].size_bytes, Some(7));
        assert!(document_inputs("attributes", "attributes", &files, folder.path()).is_err());
    }
}
