//! Lines and sentences that many documents have: CCNet removes lines that it has seen, C4 three sentences in a row.
//!
//! A piece is compared in lower case, with `0` for digits and without punctuation, as CCNet does it (Wenzek et al., "CCNet:
//! Extracting High Quality Monolingual Datasets from Web Crawl Data", 2020, section 3.1; it strips accents, too).

use unicode_segmentation::UnicodeSegmentation;
use xxhash_rust::xxh3::xxh3_128;

use super::settings::{Piece, Repeats};
use crate::dedupe::{split_paragraphs, words};

/// Pieces of a text in order: the characters that they take, and what is compared.
fn pieces(text: &str, piece: Piece) -> Vec<(usize, usize, String)> {
    match piece {
        Piece::Line => split_paragraphs(text, "\n").map(|(start, end, line)| (start, end, normalized(line))).collect(),
        Piece::Sentence => {
            let mut start = 0;
            let each = |sentence: &str| {
                let end = start + sentence.chars().count();
                let found = (start, end, normalized(sentence));
                start = end;
                found
            };
            text.split_sentence_bounds().map(each).filter(|(.., compared)| !compared.is_empty()).collect()
        }
    }
}

fn normalized(text: &str) -> String {
    let mut found = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        let length = found.len();
        for character in word.chars().filter(|character| character.is_alphanumeric()) {
            match character.is_numeric() {
                true => found.push('0'),
                false => found.extend(character.to_lowercase()),
            }
        }
        if found.len() > length {
            found.push(' ');
        }
    }
    found.truncate(found.trim_end().len());
    found
}

/// The windows of pieces that are compared, by the position of their first piece.
fn windows<'p>(
    pieces: &'p [(usize, usize, String)],
    repeats: &'p Repeats,
    min_words: u64,
    min_length: u64,
) -> impl Iterator<Item = (usize, String)> + 'p {
    pieces.windows(repeats.window.max(1)).enumerate().filter_map(move |(first, window)| {
        let text = window.iter().map(|piece| piece.2.as_str()).collect::<Vec<_>>().join("\n");
        let has_words = words(&text).take(min_words as usize).count() as u64 == min_words;
        (!text.trim().is_empty() && has_words && text.len() as u64 >= min_length).then_some((first, text))
    })
}

/// Adds the keys of a text.
pub fn keys(text: &str, repeats: &Repeats, min_words: u64, min_length: u64, keys: &mut Vec<u64>) {
    for (_, window) in windows(&pieces(text, repeats.piece), repeats, min_words, min_length) {
        let key = xxh3_128(window.as_bytes());
        keys.extend([key as u64, (key >> 64) as u64]);
    }
}

/// The spans of the pieces that are in marked windows, each with the number of times that the window is found. `marked` has
/// numbers of windows and their counts.
pub fn spans(
    text: &str,
    repeats: &Repeats,
    min_words: u64,
    min_length: u64,
    marked: &[(u32, u32)],
) -> Vec<(usize, usize, u32)> {
    let pieces = pieces(text, repeats.piece);
    let mut counts = vec![0; pieces.len()];
    let mut marked = marked.iter().peekable();
    for (number, (first, _)) in windows(&pieces, repeats, min_words, min_length).enumerate() {
        let Some((_, count)) = marked.next_if(|(window, _)| *window as usize == number) else { continue };
        for of_piece in &mut counts[first..first + repeats.window.max(1)] {
            *of_piece = (*of_piece).max(*count);
        }
    }
    let spans = pieces.iter().zip(counts).filter(|(_, count)| *count > 0);
    spans.map(|((start, end, _), count)| (*start, *end, count)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_compared_without_case_digits_and_punctuation() {
        assert_eq!(normalized("  Posted: 12 May 2020 — by Ann!"), "posted 00 may 0000 by ann");
        let sentences: Vec<_> = pieces("It is so. Is it? \n Yes.", Piece::Sentence);
        let compared: Vec<&str> = sentences.iter().map(|piece| piece.2.as_str()).collect();
        assert_eq!(compared, ["it is so", "is it", "yes"]);
        assert_eq!(sentences[0].1, 10);
        let lines: Vec<_> = pieces("é\n\nb", Piece::Line);
        assert_eq!(lines, [(0, 2, "é".into()), (2, 3, String::new()), (3, 4, "b".into())]);
    }

    #[test]
    fn a_window_marks_its_pieces() {
        let repeats = Repeats { piece: Piece::Line, window: 2, least: 2, keep_first: true };
        let spans = spans("a\nb\nc\nd", &repeats, 0, 0, &[(0, 2), (1, 5)]);
        assert_eq!(spans, [(0, 2, 2), (2, 4, 5), (4, 6, 5)]);
    }
}
