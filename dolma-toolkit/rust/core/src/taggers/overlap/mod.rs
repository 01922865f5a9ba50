//! Text that documents share with evaluation items, found exactly.
//!
//! A text is a sequence of units: words, characters or paragraphs. An item has patterns, runs of units that count as a match
//! wherever a document has the same run. An index has the patterns by hash; what it finds is compared unit by unit.

pub(super) mod tagger;
mod units;

use std::path::Path;

use rustc_hash::FxHashMap;
use serde::Deserialize;

use super::Text;
use crate::error::{Error, Result};
pub use units::{Unit, Units};

/// What counts as a match, and the first line of an index file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// `evaluation-index`.
    pub format: String,
    /// 1.
    pub version: u32,
    /// What a text is made of.
    pub unit: Unit,
    /// Units of a pattern.
    pub length: usize,
    /// A shorter item is one pattern if it has this many units; else it cannot be found.
    pub min_length: usize,
    /// How many patterns of an item count, drawn by hash; 0 for all.
    #[serde(default)]
    pub samples: usize,
    /// Units behind the pattern that may differ. The match must be longer than the pattern, and ends with an equal unit.
    #[serde(default)]
    pub mismatches: Option<usize>,
    /// Words (Unicode Standard Annex 29) that a paragraph must have to be a unit.
    #[serde(default)]
    pub min_words: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    id: String,
    text: String,
}

/// A run of units of a document that is one of an item.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Match {
    /// Position in [`Index::items`].
    pub item: usize,
    /// First unit of the item.
    pub item_start: usize,
    /// First unit of the document.
    pub start: usize,
    /// Units.
    pub length: usize,
}

/// An item, as far as its matches need it.
pub struct Item {
    /// As the user names it.
    pub id: String,
    text: String,
    units: Units,
    /// How many patterns it has; without any it cannot be found.
    pub num_patterns: usize,
}

impl Item {
    /// How many units it has.
    pub fn num_units(&self) -> usize {
        self.units.len()
    }
}

/// Evaluation items whose text can be found in documents.
pub struct Index {
    rule: Rule,
    /// In the order of the file.
    pub items: Vec<Item>,
    table: Table,
}

/// All patterns, by the hash of as many first units as the shortest has.
struct Table {
    seed_length: usize,
    /// the hash of a run's first unit counts this much in the hash of the run
    leading: u64,
    /// one bit for each seed that occurs, modulo its size: most runs of a document end here
    bits: Vec<u64>,
    /// by seed: position of the first of its patterns
    first: FxHashMap<u64, u32>,
    /// those of one seed follow each other
    patterns: Vec<Pattern>,
    places: Vec<Place>,
}

/// A run of units that items have, at the places from one position to another.
struct Pattern {
    seed: u64,
    hash: u64,
    length: u32,
    places: (u32, u32),
}

/// Where a pattern is: item, first unit.
type Place = (u32, u32);

const BASE: u64 = 0x9e37_79b9_7f4a_7c15 | 1;

impl Index {
    /// Reads a file that `dolma decontaminate` writes: a line with the rule, then a line for each item.
    pub fn load(path: &Path, name: &str) -> Result<Index> {
        let broken = |line: usize, reason: &dyn std::fmt::Display| {
            let message = format!("is \"{name}\", whose line {line} is unusable ({reason})");
            Error::config("evaluation index", format!("{message}; expected a file of `dolma decontaminate`"))
        };
        let text = std::fs::read_to_string(path).map_err(|error| broken(1, &error))?;
        let mut lines = text.lines().enumerate().map(|(at, line)| (at + 1, line));
        let (_, head) = lines.next().ok_or_else(|| broken(1, &"it is empty"))?;
        let rule: Rule = serde_json::from_str(head).map_err(|error| broken(1, &error))?;
        if rule.format != "evaluation-index" || rule.version != 1 {
            return Err(broken(1, &format!("it has format {} {}", rule.format, rule.version)));
        }
        let rows: Vec<Row> = lines
            .map(|(at, line)| serde_json::from_str(line).map_err(|error| broken(at, &error)))
            .collect::<Result<_>>()?;
        Ok(Index::new(rule, rows.into_iter().map(|row| (row.id, row.text))))
    }

    /// An index of items (id, text).
    pub fn new(rule: Rule, items: impl IntoIterator<Item = (String, String)>) -> Index {
        let mut found: Vec<Item> = Vec::new();
        let mut runs = Vec::new();
        for (number, (id, text)) in items.into_iter().enumerate() {
            let units = Units::of(&Text::new(&text), rule.unit, rule.min_words);
            let length = rule.length.min(units.len());
            let starts = rule.starts(&units, length);
            runs.extend(starts.iter().map(|&start| (length, (number as u32, start as u32))));
            found.push(Item { id, text, units, num_patterns: starts.len() });
        }
        let table = Table::new(&found, runs);
        Index { rule, items: found, table }
    }

    /// Every longest match, by item and place. The units of the document come with them.
    pub fn matches(&self, text: &Text<'_>) -> (Units, Vec<Match>) {
        let units = Units::of(text, self.rule.unit, self.rule.min_words);
        let mut found = Vec::new();
        self.seeds(&units, |start, length, places| {
            for &(item, item_start) in places {
                let seed = Match { item: item as usize, item_start: item_start as usize, start, length };
                found.extend(self.confirmed(text.as_str(), &units, seed));
            }
        });
        (units, joined(found))
    }

    /// The units that matches cover, as ranges that do not touch; and the units of the document.
    pub fn covered(&self, text: &Text<'_>) -> (Units, Vec<(usize, usize)>) {
        let (units, found) = self.matches(text);
        let mut ranges: Vec<_> = found.iter().map(|one| (one.start, one.start + one.length)).collect();
        ranges.sort_unstable();
        let mut joined: Vec<(usize, usize)> = Vec::new();
        for (start, end) in ranges {
            match joined.last_mut() {
                Some(last) if start <= last.1 => last.1 = last.1.max(end),
                _ => joined.push((start, end)),
            }
        }
        (units, joined)
    }

    /// Calls `found` with each run of the document that has the hash of a pattern.
    fn seeds<'a>(&'a self, units: &Units, mut found: impl FnMut(usize, usize, &'a [Place])) {
        let table = &self.table;
        let Some(mut hash) = (units.len() >= table.seed_length).then(|| units.hash(0, table.seed_length)) else {
            return;
        };
        for start in 0.. {
            for pattern in table.get(hash) {
                let length = pattern.length as usize;
                if start + length <= units.len() && units.hash(start, length) == pattern.hash {
                    found(start, length, table.places(pattern));
                }
            }
            let Some(&next) = units.hashes.get(start + table.seed_length) else { break };
            let first = units.hashes[start].wrapping_mul(table.leading);
            hash = hash.wrapping_sub(first).wrapping_mul(BASE).wrapping_add(next);
        }
    }

    /// The match that a seed is the beginning of, if its units are equal.
    fn confirmed(&self, text: &str, units: &Units, mut seed: Match) -> Option<Match> {
        let item = &self.items[seed.item];
        let equal = |at: usize| {
            let (here, there) = (seed.start + at, seed.item_start + at);
            units.hashes[here] == item.units.hashes[there]
                && units::equal(units.text(here, text), item.units.text(there, &item.text), self.rule.unit)
        };
        if !(0..seed.length).all(equal) {
            return None;
        }
        let Some(mismatches) = self.rule.mismatches else { return Some(seed) };
        let most = (units.len() - seed.start).min(item.units.len() - seed.item_start);
        let (mut left, mut length) = (mismatches, seed.length);
        for at in seed.length..most {
            match equal(at) {
                true => length = at + 1,
                false if left == 0 => break,
                false => left -= 1,
            }
        }
        (length > seed.length).then(|| {
            seed.length = length;
            seed
        })
    }
}

impl Rule {
    /// Where the patterns of an item begin.
    fn starts(&self, units: &Units, length: usize) -> Vec<usize> {
        let longer = usize::from(self.mismatches.is_some());
        if units.len() < (self.min_length + longer).max(1) {
            return Vec::new();
        }
        let mut starts: Vec<usize> = (0..=units.len() - length).collect();
        if self.samples > 0 && starts.len() > self.samples {
            starts.sort_by_cached_key(|&start| (units.hash(start, length), start));
            starts.truncate(self.samples);
            starts.sort_unstable();
        }
        starts
    }
}

impl Table {
    /// Of runs: how long, and where.
    fn new(items: &[Item], runs: Vec<(usize, Place)>) -> Table {
        let seed_length = runs.iter().map(|(length, _)| *length).min().unwrap_or(1);
        let hash = |(item, start): Place, length| items[item as usize].units.hash(start as usize, length);
        let mut sorted: Vec<_> = runs
            .into_iter()
            .map(|(length, place)| (hash(place, seed_length), length as u32, hash(place, length), place))
            .collect();
        sorted.sort_unstable();
        let mut table = Table {
            seed_length,
            leading: (1..seed_length).fold(1u64, |power, _| power.wrapping_mul(BASE)),
            bits: Vec::new(),
            first: FxHashMap::default(),
            patterns: Vec::new(),
            places: Vec::with_capacity(sorted.len()),
        };
        for (seed, length, hash, place) in sorted {
            let at = table.places.len() as u32;
            table.places.push(place);
            match table.patterns.last_mut() {
                Some(last) if (last.seed, last.length, last.hash) == (seed, length, hash) => last.places.1 = at + 1,
                _ => {
                    table.first.entry(seed).or_insert(table.patterns.len() as u32);
                    table.patterns.push(Pattern { seed, hash, length, places: (at, at + 1) });
                }
            }
        }
        // sixteen bits for each seed: one run in sixteen that does not match is looked up
        let size = (table.first.len() * 16).next_power_of_two().max(64);
        table.bits = vec![0; size / 64];
        for &seed in table.first.keys() {
            let at = mixed(seed) as usize & (size - 1);
            table.bits[at / 64] |= 1 << (at % 64);
        }
        table
    }

    /// The patterns of a seed.
    #[inline]
    fn get(&self, seed: u64) -> impl Iterator<Item = &Pattern> {
        let at = mixed(seed) as usize & (self.bits.len() * 64 - 1);
        let first = match self.bits[at / 64] >> (at % 64) & 1 {
            0 => None,
            _ => self.first.get(&seed),
        };
        let from = first.map_or(self.patterns.len(), |first| *first as usize);
        self.patterns[from..].iter().take_while(move |pattern| pattern.seed == seed)
    }

    fn places(&self, pattern: &Pattern) -> &[Place] {
        &self.places[pattern.places.0 as usize..pattern.places.1 as usize]
    }
}

#[inline]
fn mixed(hash: u64) -> u64 {
    (hash ^ hash >> 32).wrapping_mul(BASE) >> 20
}

/// Matches whose runs continue each other as one, sorted.
fn joined(mut found: Vec<Match>) -> Vec<Match> {
    // along a diagonal, item and document go on together
    found.sort_by_key(|one| (one.item, one.start.wrapping_sub(one.item_start), one.start, one.length));
    let mut longest: Vec<Match> = Vec::new();
    for one in found {
        match longest.last_mut() {
            Some(last)
                if last.item == one.item
                    && last.start.wrapping_sub(last.item_start) == one.start.wrapping_sub(one.item_start)
                    && one.start <= last.start + last.length =>
            {
                last.length = last.length.max(one.start + one.length - last.start);
            }
            _ => longest.push(one),
        }
    }
    longest.sort();
    longest
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rule(unit: Unit, length: usize, min_length: usize) -> Rule {
        let format = "evaluation-index".to_owned();
        Rule { format, version: 1, unit, length, min_length, samples: 0, mismatches: None, min_words: 0 }
    }

    fn index(rule: Rule, texts: &[&str]) -> Index {
        let items = texts.iter().enumerate().map(|(at, text)| (at.to_string(), (*text).to_owned()));
        Index::new(rule, items)
    }

    fn found(index: &Index, text: &str) -> Vec<(usize, usize, usize, usize)> {
        let of = |one: Match| (one.item, one.item_start, one.start, one.length);
        index.matches(&Text::new(text)).1.into_iter().map(of).collect()
    }

    #[test]
    fn a_run_of_words_is_found_whatever_is_between_them() {
        let index = index(rule(Unit::Words, 3, 3), &["The cat, sat -- on a MAT"]);
        assert_eq!(found(&index, "see: the CAT sat\non a hat"), [(0, 0, 1, 5)]);
        assert_eq!(found(&index, "the cat on a mat"), [(0, 3, 2, 3)]);
        assert!(found(&index, "the cat stood on the mat").is_empty());
    }

    #[test]
    fn a_short_item_is_compared_whole_or_cannot_be_found() {
        let index = index(rule(Unit::Words, 4, 2), &["one two", "one"]);
        assert_eq!(index.items.iter().map(|item| item.num_patterns).collect::<Vec<_>>(), [1, 0]);
        assert_eq!(found(&index, "zero one two three"), [(0, 0, 1, 2)]);
        assert!(found(&index, "one").is_empty());
    }

    #[test]
    fn mismatches_are_allowed_behind_the_seed_and_not_at_the_end() {
        let skips = Rule { mismatches: Some(2), ..rule(Unit::Words, 3, 3) };
        let index = index(skips, &["a b c d e f g"]);
        assert_eq!(found(&index, "a b c x e y g"), [(0, 0, 0, 7)]);
        assert_eq!(found(&index, "a b c d y z g"), [(0, 0, 0, 7)]);
        assert_eq!(found(&index, "a b c d x y z"), [(0, 0, 0, 4)]);
        assert!(found(&index, "a b c x y z").is_empty());
        assert!(found(&index, "a x c d").is_empty());
    }

    #[test]
    fn characters_leave_out_spaces_and_symbols() {
        let index = index(rule(Unit::Characters, 6, 4), &["I saw 7 é!"]);
        assert_eq!(found(&index, "(Is aw7é)"), [(0, 0, 0, 6)]);
        assert!(found(&index, "is aw7é").is_empty());
    }

    #[test]
    fn a_paragraph_is_found_whole() {
        let words = Rule { min_words: 3, ..rule(Unit::Paragraphs, 1, 1) };
        let index = index(words, &["one two three\nfour five", "- - - - -"]);
        assert_eq!(found(&index, "x\n one two three \nfour five\n- - - - -"), [(0, 0, 0, 1)]);
        assert!(found(&index, "one two three four").is_empty());
    }

    #[test]
    fn a_sample_is_the_same_whatever_else_is_there() {
        let three = Rule { samples: 3, ..rule(Unit::Characters, 5, 5) };
        let [alone, among] = [&["abcdefghijklmnop"][..], &["abcdefghijklmnop", "qrstuvwxyzabcdef"][..]];
        let [alone, among] = [alone, among].map(|texts| index(three.clone(), texts));
        assert_eq!(alone.items[0].num_patterns, 3);
        let of_first = |index: &Index| -> Vec<_> {
            found(index, "abcdefghijklmnop").into_iter().filter(|one| one.0 == 0).collect()
        };
        assert_eq!(of_first(&alone), of_first(&among));
    }

    proptest! {
        #[test]
        fn matches_are_those_of_the_definition(
            item in "[ab] ([abc] ){0,12}", document in "([abc],? ){0,40}", length in 1usize..5, mismatches in 0usize..4,
        ) {
            let mismatches = mismatches.checked_sub(1);
            let index = index(Rule { mismatches, ..rule(Unit::Words, length, length) }, &[&item]);
            let [items, words] = [&item, &document]
                .map(|text| text.split([' ', ',']).filter(|word| !word.is_empty()).collect::<Vec<_>>());
            let mut covered = vec![false; words.len()];
            for start in 0..words.len() {
                for from in 0..items.len() {
                    let most = (words.len() - start).min(items.len() - from);
                    let differ = |to: usize| (0..to).filter(|&at| words[start + at] != items[from + at]).count();
                    let longest = (length..=most)
                        .filter(|&to| differ(length) == 0 && words[start + to - 1] == items[from + to - 1])
                        .filter(|&to| match mismatches { None => to == length, Some(most) => to > length && differ(to) <= most })
                        .max();
                    covered[start..start + longest.unwrap_or(0)].fill(true);
                }
            }
            let text = Text::new(&document);
            let mut ours = vec![false; words.len()];
            for (start, end) in index.covered(&text).1 {
                ours[start..end].fill(true);
            }
            prop_assert_eq!(&ours, &covered);
            let mut by_match = vec![false; words.len()];
            for one in index.matches(&text).1 {
                by_match[one.start..one.start + one.length].fill(true);
            }
            prop_assert_eq!(&by_match, &covered);
        }
    }
}
