//! Replacement of spans of a text.
//!
//! Spans that overlap are one place. What is written there is the replacement of the span that starts first (the longest
//! of those, then the first of the configuration); nothing else of the place is left, unless that replacement holds `{}`,
//! which is the text of the place with the other spans replaced in it. So what one rule removes never comes
//! back through another. A span without characters replaces nothing; one that goes past the end stops there.

/// A span and what to write in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replacement<'a> {
    /// first character
    pub start: usize,
    /// the character after the last
    pub end: usize,
    /// may hold `{}`
    pub text: &'a str,
}

/// More spans than this one within the other, each with `{}`, are refused: they nest as calls do.
const MAX_DEPTH: usize = 100;

/// The text with all replacements made; `None` if more than 100 of them nest.
pub fn replace(text: &str, replacements: &[Replacement<'_>]) -> Option<String> {
    replace_measured(text, replacements).map(|(replaced, _)| replaced)
}

/// As [`replace`]; and how many bytes of the text each span covers.
pub fn replace_measured(text: &str, replacements: &[Replacement<'_>]) -> Option<(String, Vec<u64>)> {
    let boundaries = Boundaries::new(text, replacements);
    let covered = |span: &Replacement<'_>| boundaries.byte(span.end).saturating_sub(boundaries.byte(span.start)) as u64;
    let covered = replacements.iter().map(covered).collect();
    let mut spans: Vec<ByteSpan<'_>> = replacements
        .iter()
        .map(|span| ByteSpan { start: boundaries.byte(span.start), end: boundaries.byte(span.end), text: span.text })
        .filter(|span| span.start < span.end)
        .collect();
    // stable: of equal spans the first of the configuration stays first
    spans.sort_by(|a, b| a.start.cmp(&b.start).then(b.end.cmp(&a.end)));
    let mut replaced = String::with_capacity(text.len());
    render(text, 0, text.len(), &spans, 0, &mut replaced)?;
    Some((replaced, covered))
}

#[derive(Debug, Clone, Copy)]
struct ByteSpan<'a> {
    start: usize,
    end: usize,
    text: &'a str,
}

/// Appends `text[start..end]` with `spans`, which lie within, replaced.
fn render(text: &str, start: usize, end: usize, spans: &[ByteSpan<'_>], depth: usize, out: &mut String) -> Option<()> {
    if depth > MAX_DEPTH {
        return None;
    }
    let mut position = start;
    let mut rest = spans;
    while let Some((first, others)) = rest.split_first() {
        let mut place_end = first.end;
        let within = others.iter().take_while(|span| {
            let overlaps = span.start < place_end;
            if overlaps {
                place_end = place_end.max(span.end);
            }
            overlaps
        });
        let (inner, after) = others.split_at(within.count());
        out.push_str(&text[position..first.start]);
        let mut pieces = first.text.split("{}");
        out.push_str(pieces.next().unwrap_or_default());
        let mut content = None;
        for piece in pieces {
            if content.is_none() {
                let mut rendered = String::new();
                render(text, first.start, place_end, inner, depth + 1, &mut rendered)?;
                content = Some(rendered);
            }
            out.push_str(content.as_deref().unwrap_or_default());
            out.push_str(piece);
        }
        position = place_end;
        rest = after;
    }
    out.push_str(&text[position..end]);
    Some(())
}

/// Where characters begin, in bytes.
struct Boundaries {
    /// (character, byte), sorted; empty for ASCII, where they are the same
    known: Vec<(usize, usize)>,
    length_bytes: usize,
    ascii: bool,
}

impl Boundaries {
    fn new(text: &str, spans: &[Replacement<'_>]) -> Self {
        let ascii = text.is_ascii();
        let mut known = Vec::new();
        if !ascii {
            let mut wanted: Vec<usize> = spans.iter().flat_map(|span| [span.start, span.end]).collect();
            wanted.sort_unstable();
            wanted.dedup();
            let mut wanted = wanted.into_iter().peekable();
            for (character, (byte, _)) in text.char_indices().enumerate() {
                if wanted.next_if_eq(&character).is_some() {
                    known.push((character, byte));
                }
                if wanted.peek().is_none() {
                    break;
                }
            }
        }
        Self { known, length_bytes: text.len(), ascii }
    }

    fn byte(&self, character: usize) -> usize {
        if self.ascii {
            return character.min(self.length_bytes);
        }
        match self.known.binary_search_by_key(&character, |(character, _)| *character) {
            Ok(index) => self.known[index].1,
            Err(_) => self.length_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn replaced(text: &str, spans: &[(usize, usize, &str)]) -> String {
        let spans: Vec<_> =
            spans.iter().map(|(start, end, text)| Replacement { start: *start, end: *end, text }).collect();
        replace(text, &spans).unwrap()
    }

    #[test]
    fn spans_count_characters() {
        assert_eq!(replaced("zwölf Boxkämpfer", &[(0, 5, "<{}>"), (6, 16, "")]), "<zwölf> ");
        assert_eq!(replaced("abc", &[]), "abc");
    }

    #[test]
    fn overlaps_leave_no_tail() {
        assert_eq!(replaced("0123456789", &[(2, 5, "A"), (4, 8, "B")]), "01A89");
        assert_eq!(replaced("0123456789", &[(4, 8, "B"), (2, 5, "A")]), "01A89");
        assert_eq!(replaced("0123456789", &[(2, 8, "A"), (3, 4, "B")]), "01A89");
        assert_eq!(replaced("0123456789", &[(2, 4, "B"), (2, 8, "A")]), "01A89");
        assert_eq!(replaced("0123456789", &[(2, 4, "A"), (2, 4, "B")]), "01A456789");
        assert_eq!(replaced("0123456789", &[(2, 4, "A"), (4, 6, "B")]), "01AB6789");
        assert_eq!(replaced("0123456789", &[(0, 3, "A"), (2, 5, "B"), (4, 7, "C"), (8, 9, "D")]), "A7D9");
    }

    #[test]
    fn braces_hold_the_text_with_the_other_spans_replaced() {
        assert_eq!(replaced("a secret b", &[(0, 10, "<p>{}</p>"), (2, 8, "***")]), "<p>a *** b</p>");
        assert_eq!(replaced("a secret b", &[(0, 5, "<{}>"), (2, 8, "***")]), "<a ***> b");
        assert_eq!(replaced("ab", &[(0, 2, "{}{}")]), "abab");
    }

    #[test]
    fn empty_and_overlong_spans() {
        assert_eq!(replaced("abc", &[(1, 1, "X"), (3, 3, "Y"), (7, 7, "Z")]), "abc");
        assert_eq!(replaced("abc", &[(2, 99, "X")]), "abX");
        assert_eq!(replaced("abé", &[(2, 99, "X"), (50, 60, "Y")]), "abX");
        assert_eq!(replaced("", &[(0, 5, "X")]), "");
    }

    #[test]
    fn deep_nests_are_refused() {
        let text = "x".repeat(500);
        let nest = |count: usize| -> Vec<Replacement<'static>> {
            (0..count).map(|index| Replacement { start: index, end: 500 - index, text: "({})" }).collect()
        };
        assert!(replace(&text, &nest(100)).is_some());
        assert_eq!(replace(&text, &nest(200)), None);
    }

    /// What the module says of replacements without `{}`, character by character: two neighbours are in one place if a
    /// span holds both.
    fn reference(text: &str, spans: &[Replacement<'_>]) -> String {
        let characters: Vec<char> = text.chars().collect();
        let spans: Vec<(usize, usize, &str)> = spans
            .iter()
            .map(|span| (span.start, span.end.min(characters.len()), span.text))
            .filter(|(start, end, _)| start < end)
            .collect();
        let covered = |at: usize| spans.iter().any(|(start, end, _)| (*start..*end).contains(&at));
        let joined = |at: usize| spans.iter().any(|(start, end, _)| *start < at && at < *end);
        let mut result = String::new();
        for (at, character) in characters.iter().enumerate() {
            if !covered(at) {
                result.push(*character);
            } else if !joined(at) {
                let first = spans.iter().filter(|(start, _, _)| *start == at).rev().max_by_key(|(_, end, _)| *end);
                result.push_str(first.map_or("", |(_, _, text)| text));
            }
        }
        result
    }

    proptest! {
        #[test]
        fn nothing_inside_a_span_survives(
            text in "[a-zé🎉]{0,30}",
            spans in prop::collection::vec((0usize..35, 0usize..12), 0..8),
        ) {
            let spans: Vec<_> =
                spans.into_iter().map(|(start, length)| Replacement { start, end: start + length, text: "" }).collect();
            let expected: String = text
                .chars()
                .enumerate()
                .filter(|(index, _)| !spans.iter().any(|span| (span.start..span.end).contains(index)))
                .map(|(_, character)| character)
                .collect();
            prop_assert_eq!(replace(&text, &spans), Some(expected));
        }

        #[test]
        fn places_are_those_of_a_simple_reference(
            text in "[a-zé🎉]{0,30}",
            spans in prop::collection::vec((0usize..35, 0usize..12, "[A-C]{0,2}"), 0..8),
        ) {
            let spans: Vec<_> = spans
                .iter()
                .map(|(start, length, text)| Replacement { start: *start, end: start + length, text })
                .collect();
            prop_assert_eq!(replace(&text, &spans), Some(reference(&text, &spans)));
        }

        #[test]
        fn braces_alone_change_nothing(text in "\\PC{0,30}", spans in prop::collection::vec((0usize..35, 0usize..12), 0..8)) {
            let spans: Vec<_> =
                spans.into_iter().map(|(start, length)| Replacement { start, end: start + length, text: "{}" }).collect();
            prop_assert_eq!(replace(&text, &spans), Some(text));
        }
    }
}
