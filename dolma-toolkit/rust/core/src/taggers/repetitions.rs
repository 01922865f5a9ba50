//! Characters that repeat: what the expression `(.+?)(\s?\1){3,}` of dolma 1.2.1 matches, found without backtracking.
//!
//! A match holds the same unit four times or more, with at most one white space character before each copy. Without its white space it is
//! periodic, so first all stretches that are periodic are found in the squeezed text, and only inside of them is the expression tried.

use memchr::memmem;

use super::text::unicode::space_length;
use super::{Span, Tagger, Text};
use crate::error::Result;

/// Copies of a unit that make a repetition.
const MIN_COPIES: usize = 4;

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

/// Buffers that serve one text after the other.
#[derive(Default)]
struct Finder {
    /// The text without white space.
    squeezed: Vec<u8>,
    /// Where each of those bytes is in the text.
    origin: Vec<usize>,
    /// The last run found that holds a byte of the squeezed text, plus one.
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
            let first = run.start.checked_sub(1).map_or(0, |before| self.origin[before] + 1);
            let last = self.origin[run.end - MIN_COPIES * run.period];
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

    /// Fills `squeezed` and `origin`, and `starts` with runs of white space. Gives the longest that a unit can be: a line.
    fn squeeze(&mut self, text: &str) -> usize {
        let bytes = text.as_bytes();
        self.squeezed.clear();
        self.origin.clear();
        self.starts.clear();
        let (mut longest_line, mut line_start) = (0, 0);
        let mut at = 0;
        while at < bytes.len() {
            let (mut num_spaces, mut last_space, first) = (0, at, at);
            loop {
                match space_length(bytes, at) {
                    0 => break,
                    length => {
                        if bytes[at] == b'\n' {
                            longest_line = longest_line.max(self.squeezed.len() - line_start);
                            line_start = self.squeezed.len();
                        }
                        (num_spaces, last_space) = (num_spaces + 1, at);
                        at += length;
                    }
                }
            }
            if num_spaces >= MIN_COPIES {
                self.starts.push(Starts { first, last: last_space, run: None });
            }
            if at < bytes.len() {
                self.squeezed.push(bytes[at]);
                self.origin.push(at);
                at += 1;
            }
        }
        longest_line.max(self.squeezed.len() - line_start)
    }

    /// All maximal runs of primitive periods, and perhaps some of multiples.
    ///
    /// A run of period p holds four bytes at distance p from each other, the first of them at a multiple of p. Those are looked at
    /// for every p: n/3 (1 + 1/2 + 1/3 + …) steps.
    fn find_runs(&mut self, max_period: usize) {
        let bytes = &self.squeezed;
        self.runs.clear();
        self.run_at.clear();
        self.run_at.resize(bytes.len(), 0);
        for period in 1..=max_period.min(bytes.len() / MIN_COPIES) {
            let repeats = |at: usize| bytes[at] == bytes[at + period];
            let mut at = 0;
            while at + 3 * period < bytes.len() {
                if !repeats(at + 2 * period) {
                    at += 3 * period;
                } else if !repeats(at + period) {
                    at += 2 * period;
                } else if !repeats(at) {
                    at += period;
                } else if let Some(beyond) = self.end_of_known(at, period) {
                    at = beyond;
                } else {
                    let start = at - (0..at).rev().take_while(|&before| repeats(before)).count();
                    let stretch_end = at + (at..bytes.len() - period).take_while(|&after| repeats(after)).count();
                    if stretch_end - start >= (MIN_COPIES - 1) * period {
                        let run = Run { start, end: stretch_end + period, period };
                        self.runs.push(run);
                        self.run_at[start..run.end].fill(self.runs.len() as u32);
                    }
                    at = (stretch_end / period + 1) * period;
                }
            }
        }
    }

    /// Where to continue if `at` is in a run whose period divides `period`: two runs cannot overlap by the sum of their periods
    /// (Fine and Wilf 1965).
    fn end_of_known(&self, at: usize, period: usize) -> Option<usize> {
        let run = self.runs.get((self.run_at[at] as usize).checked_sub(1)?)?;
        let last = run.end.checked_sub(period + run.period)?;
        (period.is_multiple_of(run.period) && at <= last).then(|| (last / period + 1) * period)
    }

    /// The match at the byte `at` with the shortest unit.
    fn first_match(&self, text: &str, at: usize, starts: &Starts) -> Option<Repetition> {
        let bytes = text.as_bytes();
        if !text.is_char_boundary(at) || bytes[at] == b'\n' {
            return None;
        }
        let Some(run) = starts.run else { return match_of_spaces(bytes, at) };
        let first = self.origin.partition_point(|&origin| origin < at);
        let mut num_bytes = run.period;
        while first + MIN_COPIES * num_bytes <= run.end {
            let shortest = self.origin[first + num_bytes - 1] + 1;
            let longest = self.origin.get(first + num_bytes).copied().unwrap_or(bytes.len());
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

    #[test]
    fn matches_are_those_of_the_expression() {
        let expression = fancy_regex::Regex::new(r"(.+?)(?:[\s\x1c-\x1f]?\1){3,}").unwrap();
        let mut state = 3_u64;
        let mut next = move |bound: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % bound
        };
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
            let expected: Vec<_> = expression
                .captures_iter(&text)
                .map(|found| found.unwrap())
                .map(|found| (found.get(0).unwrap(), found.get(1).unwrap()))
                .map(|(all, unit)| (all.start(), unit.end(), all.end()))
                .collect();
            assert_eq!(found(&text), expected, "{text:?}");
        }
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
