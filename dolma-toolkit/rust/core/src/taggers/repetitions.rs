//! Characters that repeat: what the expression `(.+?)(\s?\1){3,}` of dolma 1.2.1 matches, found without backtracking.
//!
//! A match holds the same unit four times or more, with at most one white space character before each copy. Without its white space it is
//! periodic, so first all stretches that are periodic are found in the squeezed text, and only inside of them is the expression tried.

use memchr::memmem;

use super::text::num_plain;
use super::{Span, Tagger, Text};
use crate::error::Result;
use crate::unicode::space_length;

/// Copies of a unit that make a repetition.
const MIN_COPIES: usize = 4;

/// Bytes that are compared at once in the search for units of as many or more.
const GRAM: usize = 8;

/// The shortest of the units that are searched for together.
const LONG_PERIOD: usize = 32;

/// `repetitions_v1`, and `paragraph_repetitions_v1` which looks at each paragraph by itself.
pub struct Repetitions {
    /// Whether no repetition crosses a newline.
    pub by_paragraph: bool,
}

impl Tagger for Repetitions {
    fn tag(&self, text: &Text<'_>, spans: &mut Vec<Span>) -> Result<()> {
        let before = spans.len();
        let mut finder = Finder::default();
        let mut find_in = |part: &str, offset: usize| {
            for found in finder.find(part) {
                let copies =
                    memmem::find_iter(&part.as_bytes()[found.start..found.end], &part[found.start..found.unit_end])
                        .count();
                spans.push(text.span(offset + found.start, offset + found.end, "repetition", copies as f64));
            }
        };
        if self.by_paragraph {
            text.paragraphs().iter().for_each(|paragraph| find_in(paragraph.text, paragraph.start_byte));
        } else {
            find_in(text.as_str(), 0);
        }
        summarize(text, before, spans);
        Ok(())
    }
}

/// Appends what the spans from `before` on are for the whole text: highest score, longest, share of its characters.
pub(super) fn summarize(text: &Text<'_>, before: usize, spans: &mut Vec<Span>) {
    let found = &spans[before..];
    let length = |span: &Span| span.end - span.start;
    let highest_score = found.iter().map(|span| span.score).fold(0.0, f64::max);
    let longest = found.iter().map(length).max().unwrap_or(0);
    let share = found.iter().map(length).sum::<usize>() as f64 / text.length_chars().max(1) as f64;
    spans.push(text.whole("doc_max_score_repetition", highest_score));
    spans.push(text.whole("doc_max_length_repetition", longest as f64));
    spans.push(text.whole("doc_frac_repetition", share));
}

/// Bytes of the text that is searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Repetition {
    start: usize,
    /// Where the first copy of the unit ends.
    unit_end: usize,
    end: usize,
}

/// A stretch of the squeezed text that repeats every `period` bytes, at least `MIN_COPIES` times; as long as can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    start: usize,
    end: usize,
    period: usize,
}

/// Bytes at which a match may begin, from `first` to `last`.
struct Starts {
    first: usize,
    last: usize,
    /// The run that a unit must lie in; without it, units are only white space.
    run: Option<Run>,
}

/// Where a word begins.
struct Word {
    squeezed: usize,
    original: usize,
}

/// Buffers that serve one text after the other.
#[derive(Default)]
struct Finder {
    /// The text without white space.
    squeezed: Vec<u8>,
    /// Where its words are in the text.
    words: Vec<Word>,
    /// Where lines end in the squeezed text.
    line_ends: Vec<usize>,
    /// The last run found that holds a byte of the squeezed text, plus one; empty until a run is found.
    run_at: Vec<u32>,
    runs: Vec<Run>,
    starts: Vec<Starts>,
}

impl Finder {
    /// All matches from the left, which do not overlap.
    fn find(&mut self, text: &str) -> Vec<Repetition> {
        let max_period = self.squeeze(text);
        self.find_runs(max_period);
        for &run in &self.runs {
            let first = run.start.checked_sub(1).map_or(0, |before| self.origin(before) + 1);
            let last = self.origin(run.end - MIN_COPIES * run.period);
            self.starts.push(Starts { first, last, run: Some(run) });
        }
        self.starts.sort_unstable_by_key(|starts| starts.first);
        let mut found = Vec::new();
        let mut active: Vec<&Starts> = Vec::new();
        let mut waiting = self.starts.iter().peekable();
        let mut at = 0;
        loop {
            active.retain(|starts| starts.last >= at);
            if active.is_empty() {
                match waiting.peek() {
                    Some(starts) => at = at.max(starts.first),
                    None => return found,
                }
            }
            while let Some(starts) = waiting.next_if(|starts| starts.first <= at) {
                active.push(starts);
            }
            let matches = active
                .iter()
                .filter(|starts| starts.last >= at)
                .filter_map(|starts| self.first_match(text, at, starts));
            match matches.min_by_key(|repetition| repetition.unit_end) {
                Some(repetition) => {
                    at = repetition.end;
                    found.push(repetition);
                }
                None => at += 1,
            }
        }
    }

    /// Fills `squeezed`, `words` and `line_ends`, and `starts` with runs of white space. Gives the longest that a unit can be: a line.
    fn squeeze(&mut self, text: &str) -> usize {
        const EIGHT: usize = 8;
        let bytes = text.as_bytes();
        self.squeezed.resize(bytes.len() + EIGHT, 0);
        self.words.clear();
        self.words.reserve(bytes.len() / 5);
        self.starts.clear();
        self.line_ends.clear();
        let mut length = 0;
        let (mut longest_line, mut line_start) = (0, 0);
        let mut at = 0;
        while at < bytes.len() {
            // between most words there is one blank
            if bytes[at] == b' ' && matches!(bytes.get(at + 1), Some(b'!'..0x80)) {
                at += 1;
            } else {
                let (mut num_spaces, mut last_space, first) = (0, at, at);
                loop {
                    match space_length(bytes, at) {
                        0 => break,
                        num_bytes => {
                            if bytes[at] == b'\n' {
                                longest_line = longest_line.max(length - line_start);
                                line_start = length;
                                self.line_ends.push(line_start);
                            }
                            (num_spaces, last_space) = (num_spaces + 1, at);
                            at += num_bytes;
                        }
                    }
                }
                if num_spaces >= MIN_COPIES {
                    self.starts.push(Starts { first, last: last_space, run: None });
                }
            }
            self.words.push(Word { squeezed: length, original: at });
            loop {
                // eight bytes at a time, since most words have fewer; what is too much is overwritten by the next word
                if let Some(eight) = bytes.get(at..at + EIGHT) {
                    self.squeezed[length..length + EIGHT].copy_from_slice(eight);
                    let num_plain = num_plain(eight);
                    (at, length) = (at + num_plain, length + num_plain);
                    if num_plain == EIGHT {
                        continue;
                    }
                }
                // a byte that is not plain, or one of the last bytes of the text
                if at == bytes.len() || space_length(bytes, at) > 0 {
                    break;
                }
                self.squeezed[length] = bytes[at];
                (at, length) = (at + 1, length + 1);
            }
        }
        self.squeezed.truncate(length);
        self.line_ends.push(length);
        longest_line.max(length - line_start)
    }

    /// Where a byte of the squeezed text is in the text.
    fn origin(&self, at: usize) -> usize {
        let passed = self.words.partition_point(|word| word.squeezed <= at);
        passed.checked_sub(1).map_or(0, |last| self.words[last].original + at - self.words[last].squeezed)
    }

    /// How many bytes of the squeezed text come from before a byte of the text.
    fn num_squeezed_before(&self, at: usize) -> usize {
        let passed = self.words.partition_point(|word| word.original <= at);
        let Some(last) = passed.checked_sub(1) else { return 0 };
        let end = self.words.get(passed).map_or(self.squeezed.len(), |next| next.squeezed);
        end.min(self.words[last].squeezed + at - self.words[last].original)
    }

    /// All maximal runs of primitive periods that a unit can have, and perhaps some of multiples.
    fn find_runs(&mut self, max_period: usize) {
        self.runs.clear();
        self.run_at.clear();
        let max_period = max_period.min(self.squeezed.len() / MIN_COPIES);
        for period in 1..GRAM.min(max_period + 1) {
            self.find_short_runs(period);
        }
        let mut first = GRAM;
        while first <= max_period {
            let last = (2 * first - 1).min(max_period);
            let stretches = self.stretches_of_long_lines(first);
            for &(from, to) in &stretches {
                if first >= LONG_PERIOD {
                    self.find_long_runs(first, last, from, to);
                } else {
                    (first..=last).for_each(|period| self.find_runs_of(period, from, to));
                }
            }
            first = last + 1;
        }
    }

    /// Where lines of at least `length` bytes follow each other: every copy of a unit is in one line.
    fn stretches_of_long_lines(&self, length: usize) -> Vec<(usize, usize)> {
        let mut stretches: Vec<(usize, usize)> = Vec::new();
        let mut start = 0;
        for &end in &self.line_ends {
            match stretches.last_mut() {
                _ if end - start < length => {}
                Some(stretch) if stretch.1 == start => stretch.1 = end,
                _ => stretches.push((start, end)),
            }
            start = end;
        }
        stretches.retain(|(from, to)| to - from >= MIN_COPIES * length);
        stretches
    }

    /// Compares whole blocks, which a processor does for many bytes at once, and looks closer at those where four bytes repeat.
    fn find_short_runs(&mut self, period: usize) {
        const BLOCK: usize = 64;
        let length = self.squeezed.len();
        let mut at = 0;
        while at + 3 * period < length {
            let bytes = &self.squeezed;
            let end = (at + BLOCK).min(length - 3 * period);
            let copy = |number: usize| &bytes[at + number * period..end + number * period];
            let pairs = copy(0).iter().zip(copy(1)).zip(copy(2).iter().zip(copy(3)));
            let all_equal = |((zero, one), (two, three)): ((&u8, &u8), (&u8, &u8))| {
                u8::from(zero == one) & u8::from(one == two) & u8::from(two == three)
            };
            if pairs.fold(0, |found, bytes| found | all_equal(bytes)) != 0 {
                let mut place = at;
                while place < end {
                    let repeats = |at: usize| self.squeezed[at] == self.squeezed[at + period];
                    let is_run = repeats(place) && repeats(place + period) && repeats(place + 2 * period);
                    place = if is_run { self.extend_run(place, period) } else { place + 1 };
                }
                at = place;
            } else {
                at = end;
            }
        }
    }

    /// In a run of period p, which has 4 p bytes or more, the grams at 3 p - 7 places in a row come again after p bytes. So one place of as
    /// many is compared.
    fn find_runs_of(&mut self, period: usize, from: usize, to: usize) {
        let step = (MIN_COPIES - 1) * period - GRAM + 1;
        let repeats = |chunk: &[u8]| chunk[..GRAM] == chunk[period..period + GRAM];
        let mut at = from;
        while let Some(rest) = self.squeezed.get(at..to) {
            let mut chunks = rest.chunks_exact(step);
            let passed = chunks.position(repeats).map(|passed| passed * step);
            let in_last = || {
                let last = rest.len() - rest.len() % step;
                (last + period + GRAM <= rest.len() && repeats(&rest[last..])).then_some(last)
            };
            match passed.or_else(in_last) {
                Some(passed) => at = self.extend_run(at + passed, period),
                None => return,
            }
        }
    }

    /// The same for all periods from `first` to `last`, which is less than twice as long: each place that is compared with one of the first
    /// period is compared with all.
    fn find_long_runs(&mut self, first: usize, last: usize, from: usize, to: usize) {
        const BLOCK: usize = 64;
        let step = (MIN_COPIES - 1) * first - GRAM + 1;
        let mut at = from;
        while let Some(gram) = self.squeezed[..to].get(at..at + GRAM).and_then(|gram| <[u8; GRAM]>::try_from(gram).ok())
        {
            let end = (at + last + 1).min(to + 1 - GRAM);
            let mut block = at + first;
            while block < end {
                let block_end = (block + BLOCK).min(end);
                let bytes_at = |place: usize| &self.squeezed[block + place..block_end + place];
                let three = bytes_at(0).iter().zip(bytes_at(3)).zip(bytes_at(GRAM - 1));
                let are_equal = |((zero, three), seven): ((&u8, &u8), &u8)| {
                    u8::from(*zero == gram[0]) & u8::from(*three == gram[3]) & u8::from(*seven == gram[GRAM - 1])
                };
                if three.fold(0, |found, bytes| found | are_equal(bytes)) != 0 {
                    for copy in block..block_end {
                        if self.squeezed[copy..copy + GRAM] == gram {
                            self.extend_run(at, copy - at);
                        }
                    }
                }
                block = block_end;
            }
            at += step;
        }
    }

    /// Adds the run around `at`, where something repeats after `period` bytes, unless it is known or too short. Gives the first
    /// place at which another may begin.
    fn extend_run(&mut self, at: usize, period: usize) -> usize {
        if let Some(beyond) = self.end_of_known(at, period) {
            return beyond;
        }
        let bytes = &self.squeezed;
        let repeats = |at: usize| bytes[at] == bytes[at + period];
        let start = at - (0..at).rev().take_while(|&before| repeats(before)).count();
        let stretch_end = at + (at..bytes.len() - period).take_while(|&after| repeats(after)).count();
        if stretch_end - start >= (MIN_COPIES - 1) * period {
            let run = Run { start, end: stretch_end + period, period };
            self.runs.push(run);
            self.run_at.resize(self.squeezed.len(), 0);
            self.run_at[start..run.end].fill(self.runs.len() as u32);
        }
        stretch_end + 1
    }

    /// Where to continue if `at` and the byte one `period` later are in a run whose period divides `period`. That run repeats up to its end
    /// at this distance too, and not beyond, so that it is all there is to find.
    fn end_of_known(&self, at: usize, period: usize) -> Option<usize> {
        let run = self.runs.get((*self.run_at.get(at)? as usize).checked_sub(1)?)?;
        let stretch_end = run.end.checked_sub(period)?;
        (period.is_multiple_of(run.period) && at < stretch_end).then_some(stretch_end + 1)
    }

    /// The match at the byte `at` with the shortest unit.
    fn first_match(&self, text: &str, at: usize, starts: &Starts) -> Option<Repetition> {
        let bytes = text.as_bytes();
        if !text.is_char_boundary(at) || bytes[at] == b'\n' {
            return None;
        }
        let Some(run) = starts.run else { return match_of_spaces(bytes, at) };
        let first = self.num_squeezed_before(at);
        let mut num_bytes = run.period;
        while first + MIN_COPIES * num_bytes <= run.end {
            let shortest = self.origin(first + num_bytes - 1) + 1;
            let beyond = first + num_bytes;
            let longest = if beyond < self.squeezed.len() { self.origin(beyond) } else { bytes.len() };
            if memchr::memchr(b'\n', &bytes[at..shortest]).is_some() {
                return None;
            }
            for unit_end in shortest..=longest {
                if unit_end > shortest && bytes[unit_end - 1] == b'\n' {
                    return None;
                }
                if text.is_char_boundary(unit_end) {
                    if let Some(end) = end_of_copies(bytes, at, unit_end) {
                        return Some(Repetition { start: at, unit_end, end });
                    }
                }
            }
            num_bytes += run.period;
        }
        None
    }
}

/// The end of all copies of the unit, if there are enough.
fn end_of_copies(bytes: &[u8], start: usize, unit_end: usize) -> Option<usize> {
    let unit = &bytes[start..unit_end];
    let mut end = unit_end;
    let mut copies = 1;
    loop {
        let space = space_length(bytes, end);
        if space > 0 && bytes[end + space..].starts_with(unit) {
            end += space + unit.len();
        } else if bytes[end..].starts_with(unit) {
            end += unit.len();
        } else {
            return (copies >= MIN_COPIES).then_some(end);
        }
        copies += 1;
    }
}

/// A match in a run of white space.
fn match_of_spaces(bytes: &[u8], start: usize) -> Option<Repetition> {
    let run_end = {
        let mut end = start;
        while space_length(bytes, end) > 0 {
            end += space_length(bytes, end);
        }
        end
    };
    let mut unit_end = start + space_length(bytes, start);
    // a copy that is one white space character may also be the white space before the next copy
    if let Some(end) = end_of_single_spaces(bytes, &bytes[start..unit_end], unit_end, 1) {
        return Some(Repetition { start, unit_end, end });
    }
    while start + MIN_COPIES * (unit_end - start) < run_end && bytes[unit_end] != b'\n' {
        unit_end += space_length(bytes, unit_end);
        if let Some(end) = end_of_copies(bytes, start, unit_end) {
            return Some(Repetition { start, unit_end, end });
        }
    }
    None
}

/// Takes white space before a copy where it can, and goes back on it only to reach enough copies.
fn end_of_single_spaces(bytes: &[u8], unit: &[u8], at: usize, copies: usize) -> Option<usize> {
    let mut at = at;
    let mut copies = copies;
    loop {
        let space = space_length(bytes, at);
        let after_space = (space > 0 && bytes[at + space..].starts_with(unit)).then(|| at + space + unit.len());
        let without_space = bytes[at..].starts_with(unit).then(|| at + unit.len());
        if copies < MIN_COPIES {
            let next = |end| end_of_single_spaces(bytes, unit, end, copies + 1);
            return after_space.and_then(next).or_else(|| without_space.and_then(next));
        }
        match after_space.or(without_space) {
            Some(end) => at = end,
            None => return Some(at),
        }
        copies += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<(usize, usize, usize)> {
        Finder::default().find(text).iter().map(|one| (one.start, one.unit_end, one.end)).collect()
    }

    fn by_expression(expression: &fancy_regex::Regex, text: &str) -> Vec<(usize, usize, usize)> {
        expression
            .captures_iter(text)
            .map(|found| found.unwrap())
            .map(|found| (found.get(0).unwrap(), found.get(1).unwrap()))
            .map(|(all, unit)| (all.start(), unit.end(), all.end()))
            .collect()
    }

    fn expression() -> fancy_regex::Regex {
        fancy_regex::Regex::new(r"(.+?)(?:[\s\x1c-\x1f]?\1){3,}").unwrap()
    }

    /// Numbers below the bound given, the same in every run.
    fn random(seed: u64) -> impl FnMut(usize) -> usize {
        let mut state = seed;
        move |bound| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % bound
        }
    }

    #[test]
    fn matches_are_those_of_the_expression() {
        let expression = expression();
        let mut next = random(3);
        let alphabets: [&[&str]; 6] = [
            &["a", "b"],
            &["a", "b", " "],
            &["a", " ", "\n", "\t"],
            &["ab", "ab", "ab ", "abab", "\n", "é"],
            &["é", "e\u{301}", "\u{3000}", "\u{a0}", "-"],
            &["ab c", "ab c", " ", "ab  c\n", "\r"],
        ];
        for round in 0..6_000 {
            let alphabet = alphabets[round % alphabets.len()];
            let text: String = (0..next(60)).map(|_| alphabet[next(alphabet.len())]).collect();
            assert_eq!(found(&text), by_expression(&expression, &text), "{text:?}");
        }
    }

    #[test]
    fn long_units_are_those_of_the_expression() {
        let expression = expression();
        let mut next = random(5);
        let letters = ["a", "b", "a", "c", " ", "é", "\u{3000}", "\u{85}", "x"];
        let separators = ["", "", " ", "\n", "\u{a0}", "  ", "\r\n", "\n\n"];
        let mut found_long = 0;
        for _ in 0..1_200 {
            let mut text = String::new();
            for _ in 0..1 + next(3) {
                (0..next(20)).for_each(|_| text.push_str(letters[next(letters.len())]));
                let longest = [10, 30, 120][next(3)];
                let unit: String = (0..1 + next(longest)).map(|_| letters[next(letters.len())]).collect();
                let separator = separators[next(separators.len())];
                for _ in 0..2 + next(5) {
                    text.push_str(&unit);
                    text.push_str(if next(8) == 0 { separators[next(separators.len())] } else { separator });
                }
            }
            let found = found(&text);
            found_long += found.iter().filter(|(start, unit_end, _)| unit_end - start > 3 * LONG_PERIOD).count();
            assert_eq!(found, by_expression(&expression, &text), "{text:?}");
        }
        assert!(found_long > 100, "{found_long}");
    }

    #[test]
    fn long_runs_take_no_time() {
        let text = "=".repeat(300_000) + &"ab ".repeat(50_000) + &" ".repeat(100_000) + &"\n".repeat(100_000);
        assert_eq!(found(&text).len(), 3);
        let sentence = "No sentence of this text is said twice in a row, but twice it is said. ";
        let lines: String = (0..3_000).map(|number| format!("{number} {sentence}")).collect();
        assert!(found(&lines).iter().all(|one| one.2 - one.0 < 10));
    }

    #[test]
    fn long_units_take_no_time() {
        let text = "The 12 \u{e9}l\u{e9}phants (206) 555 0123. ".repeat(10_000);
        assert_eq!(found(&text).len(), 1);
        let text = ("\u{65e5}\u{672c}\u{8a9e}\u{306e}".repeat(10) + "\u{6587}\u{7ae0}").repeat(3_000);
        assert!(!found(&text).is_empty());
    }

    #[test]
    fn documents_get_the_highest_and_the_longest() {
        let mut spans = Vec::new();
        let tag = |by_paragraph, text: &str, spans: &mut Vec<Span>| {
            Repetitions { by_paragraph }.tag(&Text::new(text), spans).unwrap()
        };
        tag(false, "é hahahahaha\nha la la la la!!!!!!", &mut spans);
        let rows: Vec<_> = spans.iter().map(|span| (span.kind.as_ref(), span.start, span.end, span.score)).collect();
        let expected = [
            ("repetition", 2, 15, 6.0),
            ("repetition", 15, 27, 4.0),
            ("repetition", 27, 33, 6.0),
            ("doc_max_score_repetition", 0, 33, 6.0),
            ("doc_max_length_repetition", 0, 33, 13.0),
            ("doc_frac_repetition", 0, 33, 31.0 / 33.0),
        ];
        assert_eq!(rows, expected);
        spans.clear();
        tag(true, "é hahahahaha\nha", &mut spans);
        assert_eq!((spans[0].start, spans[0].end, spans[0].score), (2, 12, 5.0));
        spans.clear();
        tag(false, "", &mut spans);
        assert!(spans.len() == 3 && spans.iter().all(|span| span.score == 0.0));
    }
}
