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

use serde::Serialize;

pub use funnel::{Flow, MissingFlow, PartFlow, RuleFlow, SpanFlow, StreamFunnel};
pub use row::{Attribute, AttributeRow, Span};
pub use rules::Kind;
pub use settings::{
    BudgetSettings, BudgetUnit, FilterSettings, RuleSettings, SampleSettings, Settings, Shard, ShardInput,
    ShuffleSettings, SpanSettings, SplitSettings, Stream, Syntax,
};
pub use spans::{replace, Replacement};

use crate::error::{Code, Error, Result};
use crate::jsonl::Skipped;
use crate::progress::Progress;
use crate::run::all;
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

/// Checks what can be checked before the work: rules compile, attributes that they name are there. Gives warnings.
pub fn check(settings: &Settings) -> Result<Vec<String>> {
    names::check(settings, &compile(settings)?)
}

/// Runs it.
pub fn run(settings: &Settings, progress: &Progress) -> Result<Summary> {
    let rules = compile(settings)?;
    let mut targets = targets(settings)?;
    if targets.iter().all(Target::is_done) {
        for target in &targets {
            target.tidy()?;
        }
        return Ok(Summary { already_done: true, replaced_files: 0, streams: funnels(settings, &targets)? });
    }
    let mut replaced_files = 0;
    for target in &targets {
        replaced_files += target.begin()? as u64;
    }
    jobs::run(settings, &rules, &targets, progress)?;
    let streams = streams_in_order(settings, &rules, &targets);
    check_skipped(settings, &streams)?;
    for target in &mut targets {
        target.finish(&rules)?;
    }
    // not before every directory has its manifest: a run that is stopped between two of them knows what is finished
    for target in &targets {
        target.tidy()?;
    }
    Ok(Summary { already_done: false, replaced_files, streams })
}

/// Rows that an interrupted run skipped count too.
fn check_skipped(settings: &Settings, streams: &[StreamFunnel]) -> Result<()> {
    let limit = settings.rows.skip_bad_rows;
    let mut skipped = streams.iter().flat_map(|stream| &stream.skipped);
    match skipped.nth(usize::try_from(limit).unwrap_or(usize::MAX)) {
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

/// Every stream's funnel, from the shards that are finished.
fn streams_in_order(settings: &Settings, rules: &[Rules], targets: &[Target<'_>]) -> Vec<StreamFunnel> {
    let mut streams = Vec::new();
    for (index, (stream, rules)) in settings.streams.iter().zip(rules).enumerate() {
        let mut funnel = StreamFunnel::new(&stream.name, rules);
        for target in targets.iter().filter(|target| target.is_of(index, Holds::Part(0))) {
            for shard in &stream.shards {
                if let Some(finished) = target.journal.get(&shard.name) {
                    funnel.add(&finished.funnel);
                }
            }
        }
        streams.push(funnel);
    }
    streams
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
