//! Output directories: what an earlier run left in them, and their manifests.
//!
//! The journal has the finished shards with their parts of the funnel. The manifest takes its place in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{json, Map, Value};

use super::funnel::StreamFunnel;
use super::output::FileCounts;
use super::rules::Rules;
use super::settings::{Settings, Shard, ShardInput, Stream};
use crate::error::{Error, Result};
use crate::jsonl::Written;
use crate::manifest::{
    canonical_bytes, relative_path, sha256_bytes, side_file, write_file, Input, Manifest, FILE_NAME,
};
use crate::run::publish::{finished_as, remove};
use crate::run::{Files, Journal, Made, Share, Stamp};

/// Which documents a directory holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Holds {
    /// those that are kept, of this part
    Part(usize),
    /// those that are dropped
    Dropped,
}

/// A finished shard.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finished {
    /// its part of the funnel
    pub funnel: StreamFunnel,
    /// the file
    pub output: Written,
    /// what is in it
    pub counts: FileCounts,
}

impl Made for Finished {
    fn files(&self, name: &str) -> Vec<(String, &Written)> {
        vec![(name.to_string(), &self.output)]
    }
}

/// Where the attributes come from that a mix reads, if other stages of its pipeline make them.
#[derive(Debug, Default)]
pub struct Origin {
    /// Hash of the pipeline's settings and inputs; `None`: all attributes are there.
    pub run: Option<String>,
    /// What a manifest says of the stages whose outputs are not written.
    pub details: Option<Value>,
    /// Attribute files that are never written.
    pub unwritten: BTreeSet<PathBuf>,
    /// Attribute files that will be there when the mix ends.
    pub missing: BTreeSet<PathBuf>,
    /// Whether the documents are only handed on, not written.
    pub is_passed_on: bool,
}

/// A directory that this run fills.
pub struct Target<'s> {
    settings: &'s Settings,
    files: Files,
    /// the directory
    pub directory: PathBuf,
    holds: Holds,
    /// positions in `Settings::streams`
    streams: Vec<usize>,
    manifest: Manifest,
    /// the files that are there in the end
    attributes: Vec<PathBuf>,
    /// they are there now
    is_whole: bool,
    run: String,
    /// what is finished
    pub journal: Journal<Finished>,
}

/// One for each output directory, and one for each directory of dropped documents.
pub fn targets<'s>(settings: &'s Settings, origin: &Origin, files: &Files) -> Result<Vec<Target<'s>>> {
    let mut directories: BTreeMap<(&Path, Holds), Vec<usize>> = BTreeMap::new();
    for (index, stream) in settings.streams.iter().enumerate() {
        let kept = stream.kept_directories().iter().enumerate().filter(|_| !origin.is_passed_on);
        for (part, directory) in kept {
            directories.entry((directory, Holds::Part(part))).or_default().push(index);
        }
        if let Some(dropped) = &stream.dropped_directory {
            directories.entry((dropped, Holds::Dropped)).or_default().push(index);
        }
    }
    let found = directories.into_iter();
    found
        .map(|((directory, holds), streams)| {
            Target::new(settings, directory.to_path_buf(), holds, streams, origin, files)
        })
        .collect()
}

impl<'s> Target<'s> {
    fn new(
        settings: &'s Settings,
        directory: PathBuf,
        holds: Holds,
        streams: Vec<usize>,
        origin: &Origin,
        files: &Files,
    ) -> Result<Self> {
        let of_streams = || streams.iter().map(|index| &settings.streams[*index]);
        let config = of_streams().map(|stream| recorded(stream, &directory)).collect::<Result<Vec<Value>>>()?;
        let is_split = of_streams().any(|stream| !stream.part_directories.is_empty());
        let holds_text = match holds {
            Holds::Part(part) if is_split => format!("part {part}"),
            Holds::Part(_) => "kept".to_string(),
            Holds::Dropped => "dropped".to_string(),
        };
        let config = Map::from_iter([("streams".to_string(), json!(config)), ("holds".to_string(), json!(holds_text))]);
        let mut manifest = Manifest::new("document", config);
        let documents = documents_of(settings, &streams);
        let mut attributes: Vec<PathBuf> = documents.iter().flat_map(|input| input.attributes.clone()).collect();
        let is_whole = !attributes.iter().any(|path| origin.missing.contains(path));
        let all = attributes.len();
        attributes.retain(|path| !origin.unwritten.contains(path));
        if let Some(details) = origin.details.clone().filter(|_| attributes.len() < all) {
            manifest.details.insert("pipeline".to_string(), details);
        }
        // the attributes of a pipeline are not all there, but its run is known by what they are made from
        let made_from = match &origin.run {
            Some(run) => json!(run),
            None => {
                let paths = documents.iter().map(|input| &input.path).chain(&attributes);
                json!(paths.map(|path| Stamp::of(path)).collect::<Result<Vec<_>>>()?)
            }
        };
        let run = json!({"pipeline": made_from, "config": manifest.config});
        let run = sha256_bytes(&canonical_bytes(&run));
        let journal = Journal::read(files, &directory, "mix", run.clone())?;
        let files = files.clone();
        Ok(Self { settings, files, directory, holds, streams, manifest, attributes, is_whole, run, journal })
    }

    fn shards(&self) -> impl Iterator<Item = (&'s Stream, &'s Shard)> + '_ {
        self.streams.iter().flat_map(|index| {
            let stream = &self.settings.streams[*index];
            stream.shards.iter().map(move |shard| (stream, shard))
        })
    }

    /// Whether it belongs to the stream, and holds such documents.
    pub fn is_of(&self, stream_index: usize, holds: Holds) -> bool {
        self.holds == holds && self.streams.contains(&stream_index)
    }

    /// Whether a manifest says that this very run was finished here, and its files are there.
    pub fn is_done(&self) -> Result<bool> {
        let may_be_done = self.is_whole && (self.holds == Holds::Dropped || self.funnel_path().exists());
        let same = finished_as(&self.manifest, &self.directory)
            .filter(|found| may_be_done && found.details.get("pipeline") == self.manifest.details.get("pipeline"));
        let Some(found) = same else { return Ok(false) };
        // hashed only if the rest fits
        let inputs = self.inputs()?;
        let are_same = inputs.len() == found.inputs.len() && inputs.iter().all(|input| found.inputs.contains(input));
        Ok(are_same)
    }

    fn inputs(&self) -> Result<Vec<Input>> {
        let documents: Vec<PathBuf> =
            documents_of(self.settings, &self.streams).iter().map(|input| input.path.clone()).collect();
        let mut inputs = self.files.inputs("documents", "document", &documents, &self.directory)?;
        inputs.extend(self.files.inputs("attributes", "attributes", &self.attributes, &self.directory)?);
        Ok(inputs)
    }

    /// Removes what another run with the same streams left. Fails if there is anything else, which would be read together
    /// with this run's output. Says how many files were removed.
    pub fn begin(&self, share: Option<Share>) -> Result<usize> {
        self.journal.enter(share, || self.ready())
    }

    fn ready(&self) -> Result<usize> {
        let ours: BTreeSet<&str> = self.shards().map(|(_, shard)| shard.name.as_str()).collect();
        let mut stale: BTreeSet<String> = BTreeSet::new();
        if let Some(old) = Manifest::read(&self.directory).ok().flatten() {
            self.check_same_streams(&old)?;
            stale.extend(old.files.into_iter().map(|file| file.path));
            remove(&self.directory.join(FILE_NAME))?;
        }
        let entries = fs::read_dir(&self.directory).into_iter().flatten().flatten();
        let names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        let recorded = self.journal.ours().into_iter().chain(self.journal.others());
        stale.extend(recorded.map(|(name, _)| name));
        let is_data = |name: &str| name.contains(".json") && !name.starts_with('.') && !OWN_FILES.contains(&name);
        let strange = |name: &str| is_data(name) && !stale.contains(name) && !ours.contains(name);
        if let Some(name) = names.iter().find(|name| strange(name)) {
            let message = format!(
                "\"{}\" holds {name}, which this run does not write; expected no other documents, since both would be read together",
                self.directory.display()
            );
            return Err(Error::config("output.path", message).with_hint("name another directory, or remove that file"));
        }
        stale.extend(ours.iter().map(|name| name.to_string()));
        stale.retain(|name| !ours.contains(name.as_str()) || self.journal.get(name).is_none());
        match self.journal.others().is_empty() {
            true => self.journal.begin()?,
            false => self.journal.restart()?,
        }
        // files of work in progress that are of no use to this run
        let working = self.working_directory();
        for entry in fs::read_dir(self.directory.join(WORKING_NAME)).into_iter().flatten().flatten() {
            if entry.path() != working {
                fs::remove_dir_all(entry.path()).map_err(|source| Error::io(&entry.path(), source))?;
            }
        }
        let mut removed = 0;
        for name in stale {
            removed += usize::from(remove(&self.directory.join(&name))?);
        }
        Ok(removed)
    }

    fn check_same_streams(&self, old: &Manifest) -> Result<()> {
        let names = |config: &Map<String, Value>| -> BTreeSet<String> {
            let streams = config.get("streams").and_then(Value::as_array).into_iter().flatten();
            streams.filter_map(|stream| stream["name"].as_str().map(str::to_string)).collect()
        };
        let (before, now) = (names(&old.config), names(&self.manifest.config));
        let ours = old.writer.name == self.manifest.writer.name && !before.is_empty();
        if ours && before.is_subset(&now) {
            return Ok(());
        }
        let message = format!(
            "\"{}\" holds the output of other work ({}); expected an empty directory or an earlier output of the same streams",
            self.directory.display(),
            if before.is_empty() { old.format.clone() } else { before.into_iter().collect::<Vec<_>>().join(", ") },
        );
        Err(Error::config("output.path", message).with_hint("name another directory, or mix all streams in one run"))
    }

    /// Writes the funnel and the manifest.
    pub fn finish(&mut self, rules: &[Rules]) -> Result<()> {
        let streams = self.streams.iter().map(|index| (self.settings.streams[*index].name.as_str(), &rules[*index]));
        let mut funnels: Vec<StreamFunnel> = streams.map(|(name, rules)| StreamFunnel::new(name, rules)).collect();
        let shards: Vec<(&Stream, &Shard)> = self.shards().collect();
        for (stream, shard) in &shards {
            let Some(finished) = self.journal.get(&shard.name) else { continue };
            self.manifest.add_file(&shard.name, &finished.output);
            self.manifest.add_count("documents", finished.counts.documents);
            self.manifest.add_count("text_bytes", finished.counts.text_bytes);
            if let Some(funnel) = funnels.iter_mut().find(|funnel| funnel.name == stream.name) {
                funnel.add(&finished.funnel);
            }
        }
        self.manifest.inputs = self.inputs()?;
        if self.holds != Holds::Dropped {
            let mut lines = Vec::new();
            for funnel in &funnels {
                lines.extend(json!(funnel).to_string().into_bytes());
                lines.push(b'\n');
            }
            write_file(&self.funnel_path(), &lines)?;
        }
        self.manifest.write(&self.directory).map(drop)
    }

    /// Removes what the manifest makes useless; a run may have been stopped before it did.
    pub fn tidy(&self) -> Result<()> {
        self.journal.remove()?;
        let working = self.directory.join(WORKING_NAME);
        match fs::remove_dir_all(&working) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io(&working, error)),
            _ => Ok(()),
        }
    }

    /// Where this run keeps what it needs until it is done: notes about all documents, rows that are to be shuffled.
    pub fn working_directory(&self) -> PathBuf {
        self.directory.join(WORKING_NAME).join(self.run.get(..16).unwrap_or_default())
    }

    /// The funnels of a finished directory.
    pub fn funnels(&self) -> Result<Vec<StreamFunnel>> {
        if self.holds == Holds::Dropped {
            return Ok(Vec::new());
        }
        let path = self.funnel_path();
        let bytes = fs::read(&path).map_err(|source| Error::io(&path, source))?;
        // from an earlier release: one object for all streams
        #[derive(Deserialize)]
        struct Funnel {
            streams: Vec<StreamFunnel>,
        }
        if let Ok(funnel) = serde_json::from_slice::<Funnel>(&bytes) {
            return Ok(funnel.streams);
        }
        let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        Ok(lines.filter_map(|line| serde_json::from_slice(line).ok()).collect())
    }

    /// A line for each stream.
    fn funnel_path(&self) -> PathBuf {
        side_file(&self.directory, "funnel.ndjson", "funnel.json")
    }
}

fn documents_of<'s>(settings: &'s Settings, streams: &[usize]) -> Vec<&'s ShardInput> {
    let shards = streams.iter().flat_map(|index| &settings.streams[*index].shards);
    shards.flat_map(|shard| &shard.inputs).collect()
}

const WORKING_NAME: &str = ".mixing";
/// Files next to documents that are not documents. All but the manifest are from earlier releases.
const OWN_FILES: [&str; 5] = [FILE_NAME, "funnel.json", "metrics.jsonl", "errors.jsonl", "skipped.jsonl"];

fn recorded(stream: &Stream, directory: &Path) -> Result<Value> {
    let mut shards = Map::new();
    for shard in &stream.shards {
        let inputs =
            shard.inputs.iter().map(|input| relative_path(&input.path, directory)).collect::<Result<Vec<_>>>()?;
        shards.insert(shard.name.clone(), json!(inputs));
    }
    let sets =
        stream.attribute_directories.iter().map(|set| relative_path(set, directory)).collect::<Result<Vec<_>>>()?;
    let mut value = json!(stream.rules);
    value["name"] = json!(stream.name);
    value["attributes"] = json!(sets);
    value["shards"] = Value::Object(shards);
    Ok(value)
}
