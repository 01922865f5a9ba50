//! Sentences by UAX 29, corrected for abbreviations and for lines that continue in the next.

use unicode_segmentation::UnicodeSegmentation;

/// English abbreviations after which no sentence ends, lower-cased: a choice from CLDR's suppressions for English.
const ABBREVIATIONS: [&str; 24] = [
    "approx.", "cf.", "dr.", "e.g.", "eg.", "etc.", "fig.", "gen.", "gov.", "hon.", "i.e.", "jr.", "lt.", "messrs.",
    "mr.", "mrs.", "ms.", "mt.", "no.", "prof.", "rev.", "sr.", "st.", "vs.",
];

/// The sentences as ranges of bytes, without the white space around them; blank lines end a sentence, other newlines do not.
pub fn sentences(text: &str) -> Vec<(usize, usize)> {
    let joined = joined_lines(text);
    let mut found: Vec<(usize, usize)> = Vec::new();
    let mut open: Option<usize> = None;
    for (start, piece) in joined.split_sentence_bound_indices() {
        let from = *open.get_or_insert(start);
        let end = start + piece.len();
        if goes_on(&joined[from..end]) {
            continue;
        }
        open = None;
        push_stripped(text, from, end, &mut found);
    }
    if let Some(from) = open {
        push_stripped(text, from, text.len(), &mut found);
    }
    found
}

/// The text with a blank for each newline that is not at a blank line; as many bytes.
fn joined_lines(text: &str) -> String {
    let is_blank = |line: &str| crate::unicode::strip(line).is_empty();
    let mut joined = String::with_capacity(text.len());
    let mut lines = text.split_inclusive('\n').peekable();
    while let Some(line) = lines.next() {
        match line.strip_suffix('\n') {
            Some(content) if !is_blank(content) && lines.peek().is_some_and(|next| !is_blank(next)) => {
                let content = content.strip_suffix('\r').map_or(content, |content| content);
                joined.push_str(content);
                (content.len()..line.len()).for_each(|_| joined.push(' '));
            }
            _ => joined.push_str(line),
        }
    }
    joined
}

/// Whether the last word is an abbreviation or an initial, so that the sentence is not over; never at the end of a line.
fn goes_on(sentence: &str) -> bool {
    let content = sentence.trim_end_matches(' ');
    if content.len() == sentence.len() || !content.ends_with('.') {
        return false;
    }
    let word = content.rsplit(char::is_whitespace).next().unwrap_or(content);
    let word = word.trim_start_matches(|character: char| !character.is_alphanumeric());
    let is_initial = word.chars().count() == 2 && word.starts_with(|first: char| first.is_uppercase() && first != 'I');
    is_initial || ABBREVIATIONS.contains(&word.to_lowercase().as_str())
}

fn push_stripped(text: &str, from: usize, to: usize, found: &mut Vec<(usize, usize)>) {
    let piece = &text[from..to];
    let stripped = crate::unicode::strip(piece);
    if !stripped.is_empty() {
        let start = stripped.as_ptr() as usize - piece.as_ptr() as usize + from;
        found.push((start, start + stripped.len()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(text: &str) -> Vec<&str> {
        sentences(text).into_iter().map(|(start, end)| &text[start..end]).collect()
    }

    #[test]
    fn sentences_end_where_a_reader_ends_them() {
        let text = "Mr. Smith met J. Doe. He said: \"Hi!\" It cost 3.5.\n\nA line\r\ngoes on here? Yes ... ok.";
        let expected =
            ["Mr. Smith met J. Doe.", "He said: \"Hi!\"", "It cost 3.5.", "A line\r\ngoes on here?", "Yes ... ok."];
        assert_eq!(pieces(text), expected);
    }

    #[test]
    fn nothing_but_space_has_no_sentence_and_the_last_needs_no_end() {
        assert!(pieces("").is_empty());
        assert!(pieces(" \n\t\n").is_empty());
        assert_eq!(pieces("Ask Dr. "), ["Ask Dr."]);
        assert_eq!(pieces("これは文です。次。"), ["これは文です。", "次。"]);
    }
}
