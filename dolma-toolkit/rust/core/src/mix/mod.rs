//! `dolma mix`: documents and their attributes in, fewer or changed documents out.
//!
//! Shards are independent. The documents of each are mixed by any thread and written in order.

mod choice;
mod funnel;
mod jobs;
mod names;
mod output;
pub(crate) mod row;
mod rules;
mod settings;
mod shard;
mod shuffle;
pub(crate) mod spans;
mod survey;
mod target;
#[cfg(test)]
mod tests;
mod view;

use std::collections::BTreeSet;
use std::path::Path;

use serde::Serialize;

pub use funnel::{Flow, MissingFlow, PartFlow, RuleFlow, SpanFlow, StreamFunnel};
pub use jobs::{Goal, Work, Writing};
pub use names::{Planned, PlannedSet};
pub use row::{Attribute, AttributeRow, Span};
pub use rules::Kind;
pub use settings::{
    BudgetSettings, BudgetUnit, FilterSettings, RuleSettings, SampleSettings, Settings, Shard, ShardInput,
    ShuffleSettings, SpanSettings, SplitSettings, Stream, Syntax,
};
pub use shard::{Given, Mixed};
pub use spans::{replace, Replacement};
pub use target::Origin;

use crate::error::{Code, Error, Result};
use crate::jsonl::Skipped;
use crate::run::{all, Files, Share};
use rules::Rules;
use target::{targets, Holds, Target};

/// What a run did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// everything was there already
    pub already_done: bool,
    /// files of another run that stood in the way and were removed
    pub replaced_files: u64,
    /// in the order of the configuration
    pub streams: Vec<StreamFunnel>,
}

/// Checks what can be checked before the work: rules compile, attributes that they name are there, or will be. Gives
/// warnings.
pub fn check(settings: &Settings, planned: &Planned, files: &Files) -> Result<Vec<String>> {
    names::check(settings, &compile(settings)?, planned, files)
}

/// A mix: its rules, and the directories that it fills.
pub struct Mix<'s> {
    settings: &'s Settings,
    rules: Vec<Rules>,
    targets: Vec<Target<'s>>,
}

impl<'s> Mix<'s> {
    /// Compiles the rules, and finds out what an earlier run left.
    pub fn survey(settings: &'s Settings, origin: &Origin, files: &Files) -> Result<Mix<'s>> {
        Ok(Mix { settings, rules: compile(settings)?, targets: targets(settings, origin, files)? })
    }

    /// Whether everything is there.
    pub fn is_done(&self) -> Result<bool> {
        for target in &self.targets {
            if !target.is_done()? {
                return Ok(false);
            }
        }
        Ok(!self.targets.is_empty())
    }

    /// What is left of a run that was finished before.
    pub fn finished(&self) -> Result<Summary> {
        self.targets.iter().try_for_each(Target::tidy)?;
        Ok(Summary { already_done: true, replaced_files: 0, streams: funnels(self.settings, &self.targets)? })
    }

    /// Readies the directories. Says how many files of another run were removed.
    pub fn begin(&self, share: Option<Share>) -> Result<u64> {
        self.targets.iter().try_fold(0, |removed, target| Ok(removed + target.begin(share)? as u64))
    }

    /// Forgets what is finished.
    pub fn restart(&self) -> Result<()> {
        self.targets.iter().try_for_each(|target| target.journal.restart())
    }

    /// The streams with something to do. `is_finished` says so of what else is made of a shard; `working_directory` is
    /// for what is needed until then where documents are not kept.
    pub fn works(&self, working_directory: &Path, is_finished: &dyn Fn(&Stream, &Shard) -> bool) -> Vec<Work<'_>> {
        let streams = self.settings.streams.iter().zip(&self.rules).enumerate();
        let work = |(index, (stream, rules)): (usize, (&'s Stream, _))| {
            let of = |holds| self.targets.iter().find(move |target| target.is_of(index, holds));
            let kept = (0..stream.kept_directories().len()).filter_map(|part| of(Holds::Part(part))).collect();
            Work::new(stream, rules, kept, of(Holds::Dropped), working_directory, is_finished)
        };
        streams.map(work).filter(Work::is_needed).collect()
    }

    /// The funnel of each stream. `made` gives those of shards that are not kept.
    pub fn funnels(&self, made: &dyn Fn(&Stream, &Shard) -> Option<StreamFunnel>) -> Vec<StreamFunnel> {
        let mut streams = Vec::new();
        for (index, (stream, rules)) in self.settings.streams.iter().zip(&self.rules).enumerate() {
            let mut funnel = StreamFunnel::new(&stream.name, rules);
            let target = self.targets.iter().find(|target| target.is_of(index, Holds::Part(0)));
            for shard in &stream.shards {
                let finished = match target {
                    Some(target) => target.journal.get(&shard.name).map(|finished| finished.funnel),
                    None => made(stream, shard),
                };
                finished.iter().for_each(|finished| funnel.add(finished));
            }
            streams.push(funnel);
        }
        streams
    }

    /// Writes funnels and manifests. More than `limit` skipped rows are an error, if there is a limit.
    pub fn publish(mut self, streams: Vec<StreamFunnel>, replaced_files: u64, limit: u64) -> Result<Summary> {
        check_skipped(limit, &streams)?;
        for target in &mut self.targets {
            target.finish(&self.rules)?;
        }
        // not before every directory has its manifest: a run that is stopped between two of them knows what is finished
        self.targets.iter().try_for_each(Target::tidy)?;
        Ok(Summary { already_done: false, replaced_files, streams })
    }
}

/// Rows that an interrupted run skipped count too.
fn check_skipped(limit: u64, streams: &[StreamFunnel]) -> Result<()> {
    // two streams may share a file
    let skipped: BTreeSet<&Skipped> = streams.iter().flat_map(|stream| &stream.skipped).collect();
    match skipped.into_iter().nth(usize::try_from(limit).unwrap_or(usize::MAX)) {
        Some(Skipped { file, row }) if limit > 0 => {
            let message = format!("{} (more than the {limit} rows that skip_bad_rows allows)", row.message);
            Err(Error::format(file, row.line, None, Code::InvalidValue, message))
        }
        _ => Ok(()),
    }
}

fn compile(settings: &Settings) -> Result<Vec<Rules>> {
    let compiled = settings.streams.iter().enumerate();
    all(compiled.map(|(index, stream)| Rules::new(&stream.rules, &format!("streams.{index}"))).collect())
}

/// The funnels of directories that were done already, in the order of the configuration.
fn funnels(settings: &Settings, targets: &[Target<'_>]) -> Result<Vec<StreamFunnel>> {
    let mut found = Vec::new();
    for (index, stream) in settings.streams.iter().enumerate() {
        for target in targets.iter().filter(|target| target.is_of(index, Holds::Part(0))) {
            found.extend(target.funnels()?.into_iter().filter(|funnel| funnel.name == stream.name));
        }
    }
    Ok(found)
}
