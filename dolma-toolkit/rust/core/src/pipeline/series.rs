//! Which documents are read together, and which attributes come from where.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::flow::{Attributes, FileFlow, From, GoalFlow, Series};
use super::{Document, Plan};
use crate::dedupe;
use crate::error::{Error, Result};
use crate::mix::{Goal, ShardInput};
use crate::tag::Tagging;
use crate::taggers::COST_CLASSES;
use crate::tokens::Encoding;

/// The stage that makes a file of attributes.
#[derive(Clone, Copy, Debug)]
pub enum Source {
    /// Its position, and those of file and output in it.
    Tag(usize, (usize, usize)),
    Mark(usize),
}

/// For each document, the number of its series if nothing were finished: what the shares of a run go by. `None`: each goal
/// is a series of its own, since nothing else is made of the documents.
pub fn numbers(plan: &Plan) -> Option<Vec<usize>> {
    if plan.tag.is_empty() && plan.dedupe.is_empty() {
        return None;
    }
    let paths = plan.documents.iter().enumerate().map(|(index, document)| (document.path.as_path(), index));
    let positions: BTreeMap<&Path, usize> = paths.collect();
    // the last document that goes to one place with this one and those between
    let mut lasts: Vec<usize> = (0..plan.documents.len()).collect();
    for stream in plan.mix.iter().flat_map(|mix| &mix.stage.streams) {
        for shard in &stream.shards {
            let each = if stream.rules.shuffle_documents.is_some() { 1 } else { shard.inputs.len().max(1) };
            for inputs in shard.inputs.chunks(each) {
                let found = || inputs.iter().filter_map(|input| positions.get(input.path.as_path()).copied());
                if let (Some(first), Some(last)) = (found().min(), found().max()) {
                    lasts[first] = lasts[first].max(last);
                }
            }
        }
    }
    let (mut number, mut last) = (0, 0);
    let mut next = |(document, reach): (usize, usize)| {
        number += usize::from(document > last);
        last = last.max(reach).max(document);
        number
    };
    Some(lasts.into_iter().enumerate().map(&mut next).collect())
}

/// A stage that dedupes.
pub struct Deciding<'a> {
    /// Its position in the plan.
    pub stage: usize,
    pub files: &'a [dedupe::DocumentFile],
    /// Files with rows that have to be decided in any case; `None`: all.
    pub unmarked: Option<BTreeSet<usize>>,
}

/// The stages of a pass, by what they read and make.
pub struct Wiring<'w, 'p> {
    documents: BTreeMap<&'w Path, usize>,
    /// Attribute files that stages make.
    made: &'w BTreeMap<PathBuf, Source>,
    tags: &'w [Tagging<'p>],
    /// The stages that dedupe, by their positions in the plan, and the files of each by their positions in the documents.
    marks: Vec<(usize, BTreeMap<usize, usize>)>,
    /// Documents with rows that have to be decided, even if nobody reads the attributes.
    undecided: BTreeSet<usize>,
    encoding: Option<&'w Encoding<'p>>,
}

impl<'w, 'p> Wiring<'w, 'p> {
    pub fn new(
        documents: &'w [Document],
        made: &'w BTreeMap<PathBuf, Source>,
        tags: &'w [Tagging<'p>],
        marks: &[Deciding<'_>],
        encoding: Option<&'w Encoding<'p>>,
    ) -> Wiring<'w, 'p> {
        let documents: BTreeMap<&Path, usize> =
            documents.iter().enumerate().map(|(index, document)| (document.path.as_path(), index)).collect();
        let by_document = |files: &[dedupe::DocumentFile]| {
            let files = files.iter().enumerate();
            files.filter_map(|(index, file)| Some((*documents.get(file.path.as_path())?, index))).collect()
        };
        let mut undecided = BTreeSet::new();
        for Deciding { files, unmarked, .. } in marks {
            let needed = |index: &usize| unmarked.as_ref().is_none_or(|unmarked| unmarked.contains(index));
            let files = files.iter().enumerate().filter(|(index, _)| needed(index));
            undecided.extend(files.filter_map(|(_, file)| documents.get(file.path.as_path())));
        }
        let marks = marks.iter().map(|deciding| (deciding.stage, by_document(deciding.files))).collect();
        Wiring { documents, made, tags, marks, undecided, encoding }
    }

    /// The series of a pass. Goals that share documents are filled together, and documents are in order.
    pub fn series<'a>(&self, goals: Vec<Goal<'a>>) -> Result<Vec<Series<'a>>> {
        let tagged = self.tags.iter().map(|tagging| {
            let files = tagging.wanted_files();
            files.filter_map(|file| Some((*self.documents.get(tagging.files()[file].path.as_path())?, file))).collect()
        });
        let tagged: Vec<BTreeMap<usize, usize>> = tagged.collect();
        let alone = tagged.iter().flat_map(BTreeMap::keys).chain(&self.undecided);
        let mut spans: Vec<(Vec<usize>, Option<Goal<'a>>)> = alone.map(|document| (vec![*document], None)).collect();
        let is_shared = !spans.is_empty();
        for goal in goals {
            spans.push((self.documents_of(&goal)?, Some(goal)));
        }
        if !is_shared {
            // nothing else is made of the documents: each goal reads its own
            return Ok(spans
                .into_iter()
                .map(|(documents, goal)| self.join(documents, goal.into_iter().collect(), &tagged))
                .collect());
        }
        for (documents, _) in &spans {
            if documents.windows(2).any(|pair| pair[0] >= pair[1]) {
                let message = "has the documents in another order than the stages before; expected the same order";
                return Err(Error::config("streams", message).with_hint("give the documents once, for all stages"));
            }
        }
        spans.sort_by_key(|(documents, _)| documents.first().copied());
        let mut series: Vec<(BTreeSet<usize>, Vec<Goal<'a>>)> = Vec::new();
        for (documents, goal) in spans {
            let is_apart = series.last().is_none_or(|(before, _)| before.last() < documents.first());
            if is_apart {
                series.push((BTreeSet::new(), Vec::new()));
            }
            if let Some((all, goals)) = series.last_mut() {
                all.extend(documents);
                goals.extend(goal);
            }
        }
        let joined = series.into_iter().map(|(all, goals)| self.join(all.into_iter().collect(), goals, &tagged));
        Ok(joined.collect())
    }

    fn documents_of(&self, goal: &Goal<'_>) -> Result<Vec<usize>> {
        let position = |input: &ShardInput| {
            let known = self.documents.get(input.path.as_path()).copied();
            known.ok_or_else(|| {
                let message =
                    format!("names \"{}\", which is not among the documents of the run", input.path.display());
                Error::config("streams", message)
            })
        };
        goal.inputs.iter().map(position).collect()
    }

    fn join<'a>(&self, documents: Vec<usize>, goals: Vec<Goal<'a>>, tagged: &[BTreeMap<usize, usize>]) -> Series<'a> {
        let mut files: Vec<FileFlow> = documents.iter().map(|document| self.file(*document, tagged)).collect();
        let mut joined = Vec::new();
        for goal in goals {
            let (mut first, mut last) = (usize::MAX, 0);
            for input in goal.inputs {
                let Some(document) = self.documents.get(input.path.as_path()) else { continue };
                let Some(at) = documents.iter().position(|one| one == document) else { continue };
                (first, last) = (first.min(at), last.max(at));
                let sets = input.attributes.iter().map(|path| self.set(path, &mut files[at])).collect();
                files[at].goals.push((joined.len(), sets));
            }
            let directories = goal.shard().map(|shard| {
                let directories = goal.work.stream.kept_directories().iter();
                directories.map(|directory| self.encoding?.position(&directory.join(&shard.name))).collect()
            });
            let decidable = (0..self.tags.len()).map(|stage| self.decidable(&goal, stage)).collect();
            joined.push(GoalFlow { encoded: directories.unwrap_or_default(), goal, ends: (first, last), decidable });
        }
        Series { files, goals: joined }
    }

    /// For each class of taggers of a stage: the filters that need neither these nor what comes after them.
    fn decidable(&self, goal: &Goal<'_>, stage: usize) -> Vec<Vec<bool>> {
        let later = &self.tags[stage + 1..];
        let of_class = |class| {
            goal.decidable(&|key| {
                self.tags[stage].is_coming(class, key) || later.iter().any(|tagging| tagging.is_coming(0, key))
            })
        };
        (0..COST_CLASSES).map(of_class).collect()
    }

    /// A file with what is made of it but for goals.
    fn file(&self, document: usize, tagged: &[BTreeMap<usize, usize>]) -> FileFlow {
        let of_stage = |(stage, files): (usize, &BTreeMap<usize, usize>)| Some((stage, *files.get(&document)?));
        let tags = tagged.iter().enumerate().filter_map(of_stage).collect();
        let marks = self.marks.iter().map(|(_, files)| files.get(&document).copied()).collect();
        FileFlow { document, companions: Vec::new(), tags, marks, goals: Vec::new() }
    }

    /// Where a set of attributes comes from.
    fn set(&self, path: &Path, file: &mut FileFlow) -> Attributes {
        let from = match self.made.get(path) {
            Some(Source::Tag(stage, at)) => {
                let position = file.tags.iter().position(|(tagging, _)| tagging == stage);
                position.and_then(|position| Some(From::Tag(position, self.tags[*stage].position(*at)?)))
            }
            Some(Source::Mark(stage)) => self.marks.iter().position(|(mark, _)| mark == stage).map(From::Mark),
            None => None,
        };
        let from = from.unwrap_or_else(|| {
            let known = file.companions.iter().position(|companion| companion == path);
            From::File(known.unwrap_or_else(|| {
                file.companions.push(path.to_owned());
                file.companions.len() - 1
            }))
        });
        Attributes { path: path.display().to_string(), from }
    }
}
