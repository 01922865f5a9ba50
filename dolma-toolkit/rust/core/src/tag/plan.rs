//! What to tag, with what, and where to; and which part of it is left to do.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::records::{is_in_doubt, state, Records, State};
use super::user::Users;
use crate::error::{Error, Result};
use crate::run::Files;
use crate::taggers::Resource;

/// The whole request.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Makes every attribute file again.
    pub ignore_existing: bool,
    /// The fastText language model, where a tagger needs one.
    pub language_model: Option<PathBuf>,
    /// In the order of their keys within a row.
    pub taggers: Vec<TaggerPlan>,
    /// One for each directory that gets a manifest.
    pub artifacts: Vec<ArtifactPlan>,
    /// In the order of the request.
    pub files: Vec<FilePlan>,
    /// Those that are not native.
    #[serde(skip)]
    pub users: Option<Users>,
}

/// One tagger.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaggerPlan {
    /// As the user names it.
    pub name: String,
    /// First part of its keys.
    pub experiment: String,
    /// Whether it is ours; the others are users'.
    pub native: bool,
    /// Span types that stand in every row, as an empty list where there is none.
    pub defaults: Vec<String>,
    /// What the user gives to it besides the documents.
    pub resources: Vec<Resource>,
}

/// One directory of attribute files.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArtifactPlan {
    /// Where it is.
    pub directory: PathBuf,
    /// The document directory next to it.
    pub documents: Option<PathBuf>,
    /// Indices of taggers, in order.
    pub taggers: Vec<usize>,
    /// The settings that its bytes depend on.
    pub config: Map<String, Value>,
}

/// One document file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilePlan {
    /// Where it can be opened.
    pub path: PathBuf,
    /// As the user named it; a URL where `path` is a copy.
    pub name: String,
    /// Whether `name` is a URL.
    pub remote: bool,
    /// Packing, as an extension, where the name does not tell it.
    pub compression: Option<String>,
    /// The attribute files to make from it.
    pub outputs: Vec<OutputPlan>,
}

/// One attribute file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputPlan {
    /// Index of the artifact.
    pub artifact: usize,
    /// Within it, with `/`.
    pub path: String,
}

/// Positions of the attribute files to make of each document file.
pub(super) fn missing(plan: &Plan, records: &[Records], files: &Files) -> Result<Vec<BTreeSet<usize>>> {
    let (mut missing, mut conflicts) = (Vec::new(), Vec::new());
    files.hash_all(&in_doubt(plan, records)?)?;
    for file in &plan.files {
        let mut of_file = BTreeSet::new();
        for (number, output) in file.outputs.iter().enumerate() {
            let state = match plan.ignore_existing {
                true => State::Missing,
                false => state(&records[output.artifact], &output.path, &file.path, files)?,
            };
            match state {
                State::Finished => {}
                State::Missing => drop(of_file.insert(number)),
                State::Foreign => {
                    conflicts.push(plan.artifacts[output.artifact].directory.join(&output.path).display().to_string());
                }
            }
        }
        missing.push(of_file);
    }
    if let Some(first) = conflicts.first() {
        let others = conflicts.len() - 1;
        let more = if others > 0 { format!(" (and {others} more)") } else { String::new() };
        let message = format!(
            "was made with other settings or by another tool{more}; expected nothing there, or the same settings"
        );
        return Err(Error::config(first, message)
            .with_hint("choose another experiment, or make it again with --ignore_existing"));
    }
    check_leftovers(plan, records)?;
    Ok(missing)
}

/// Document files that have to be hashed.
fn in_doubt(plan: &Plan, records: &[Records]) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for file in plan.files.iter().filter(|_| !plan.ignore_existing) {
        for output in &file.outputs {
            if is_in_doubt(&records[output.artifact], &output.path, &file.path)? {
                found.push(file.path.clone());
                break;
            }
        }
    }
    Ok(found)
}

/// An artifact has one configuration: files that an earlier one made, and this run does not, cannot stay next to ours.
fn check_leftovers(plan: &Plan, records: &[Records]) -> Result<()> {
    for (index, records) in records.iter().enumerate() {
        let ours = |path: &str| {
            plan.files
                .iter()
                .flat_map(|file| &file.outputs)
                .any(|output| output.artifact == index && output.path == path)
        };
        if let Some((path, _)) = records.others().iter().find(|(path, _)| !ours(path)) {
            let artifact = plan.artifacts[index].directory.display();
            let message =
                format!("holds {path}, which other settings made; expected one set of settings in one directory");
            return Err(Error::config(artifact.to_string(), message)
                .with_hint("choose another experiment, or remove the directory"));
        }
    }
    Ok(())
}
