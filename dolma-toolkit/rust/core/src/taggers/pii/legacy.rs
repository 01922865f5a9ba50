//! The e-mail, phone and address expressions of dolma 1.2.1, matched in linear time: the same matches that a backtracking engine
//! finds, one after the other from the left. They are wrong in places (docs/guide/taggers.md); `exact` is right.
//!
//! All positions are bytes of the text that is searched.

use std::sync::LazyLock;

use memchr::{memchr_iter, memmem};
use regex::Regex;

use crate::taggers::text::end_of_word;
use crate::unicode::{space_length, space_length_before, Classes, DIGIT};

/// A match of `[.\s@,?!;:)(]*([^\s@]+@[^\s@,?!;:)(]+?)[.\s@,?!;:)(]?[\s]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Email {
    pub start: usize,
    pub end: usize,
    /// Where the group begins: the part before the "@".
    pub local_start: usize,
    pub at: usize,
    /// Where the group ends.
    pub domain_end: usize,
}

/// Whether the byte is in the first and last class of the e-mail expression, white space apart.
fn is_edge(byte: u8) -> bool {
    matches!(byte, b'.' | b'@' | b',' | b'?' | b'!' | b';' | b':' | b')' | b'(')
}

/// All matches of the e-mail expression.
pub fn emails(text: &str) -> Vec<Email> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let mut from = 0;
    for at in memchr_iter(b'@', bytes) {
        if at < from || !has_local_part(bytes, from, at) {
            continue;
        }
        let Some(ends) = ends_after(bytes, at) else {
            continue;
        };
        let run_start = local_run_start(bytes, from, at);
        let start = edge_run_start(bytes, from, run_start);
        let email = last_from(bytes, from, start, (at, ends));
        from = email.end;
        found.push(email);
    }
    found
}

/// Whether there is a character other than white space and "@" before `at` and not before `from`.
fn has_local_part(bytes: &[u8], from: usize, at: usize) -> bool {
    at > from && bytes[at - 1] != b'@' && space_length_before(bytes, at) == 0
}

/// Where the characters before `at` that are neither white space nor "@" begin.
fn local_run_start(bytes: &[u8], from: usize, at: usize) -> usize {
    let mut start = at;
    while has_local_part(bytes, from, start) {
        start -= 1;
    }
    start
}

/// Where the edge characters and white space before `end` begin.
fn edge_run_start(bytes: &[u8], from: usize, end: usize) -> usize {
    let mut start = end;
    while start > from {
        if is_edge(bytes[start - 1]) {
            start -= 1;
        } else {
            match space_length_before(bytes, start) {
                0 => break,
                length => start -= length,
            }
        }
    }
    start
}

/// The end of the domain and of the match for the "@" at `at`.
fn ends_after(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    let domain_start = at + 1;
    let mut end = domain_start;
    while end < bytes.len() && (bytes[end] == b'.' || !is_edge(bytes[end])) && space_length(bytes, end) == 0 {
        end += 1;
    }
    let space = space_length(bytes, end);
    if end > domain_start + 1 && bytes[end - 1] == b'.' && space > 0 {
        return Some((end - 1, end + space));
    }
    if end == domain_start || end == bytes.len() {
        return None;
    }
    let edge = space.max(1);
    match (space_length(bytes, end + edge), space) {
        (0, 0) => None,
        (0, _) => Some((end, end + space)),
        (after, _) => Some((end, end + edge + after)),
    }
}

/// The match that begins at `start`: edge characters are taken greedily, so of all "@" that can be reached the last one counts.
/// `first` is one of them with its ends.
fn last_from(bytes: &[u8], from: usize, start: usize, first: (usize, (usize, usize))) -> Email {
    let mut edge_end = start;
    while edge_end < bytes.len() {
        if is_edge(bytes[edge_end]) {
            edge_end += 1;
        } else {
            match space_length(bytes, edge_end) {
                0 => break,
                length => edge_end += length,
            }
        }
    }
    let email = |local_start, at, (domain_end, end)| Email { start, end, local_start, at, domain_end };
    if first.0 >= edge_end {
        return email(edge_end, first.0, first.1);
    }
    let mut beyond = edge_end;
    while beyond < bytes.len() && bytes[beyond] != b'@' && space_length(bytes, beyond) == 0 {
        beyond += 1;
    }
    if beyond > edge_end && bytes.get(beyond) == Some(&b'@') {
        if let Some(ends) = ends_after(bytes, beyond) {
            return email(edge_end, beyond, ends);
        }
    }
    let within =
        (first.0 + 1..edge_end).rev().filter(|&at| bytes[at] == b'@' && has_local_part(bytes, from.max(start), at));
    let last = within.filter_map(|at| ends_after(bytes, at).map(|ends| (at, ends))).next();
    let (at, ends) = last.unwrap_or(first);
    // edge characters are ASCII or white space, and white space is not a local part
    email(at - 1, at, ends)
}

/// All matches of `\s+\(?(\d{3})\)?[-\. ]*(\d{3})[-. ]?(\d{4})`, as (start, end).
pub fn phones(text: &str) -> Vec<(usize, usize)> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let start = at;
        loop {
            match space_length(bytes, at) {
                0 => break,
                length => at += length,
            }
        }
        let begins = || matches!(bytes.get(at), Some(b'0'..=b'9' | b'(' | 0x80..));
        match if at > start && begins() { phone_end(text, at) } else { None } {
            Some(end) => {
                found.push((start, end));
                at = end;
            }
            None => at = end_of_word(bytes, at),
        }
    }
    found
}

fn phone_end(text: &str, start: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    let optional = |at: usize, set: &[u8]| at + usize::from(bytes.get(at).is_some_and(|byte| set.contains(byte)));
    let mut at = digits(text, optional(start, b"("), 3)?;
    at = optional(at, b")");
    while bytes.get(at).is_some_and(|byte| b"-. ".contains(byte)) {
        at += 1;
    }
    at = digits(text, at, 3)?;
    digits(text, optional(at, b"-. "), 4)
}

/// The end of `count` decimal digits of any script at `at`.
fn digits(text: &str, at: usize, count: usize) -> Option<usize> {
    let mut end = at;
    for _ in 0..count {
        match text.as_bytes().get(end)? {
            b'0'..=b'9' => end += 1,
            byte if *byte < 0x80 => return None,
            _ => {
                let digit = text[end..].chars().next().filter(|&character| Classes::get().has(character, DIGIT))?;
                end += digit.len_utf8();
            }
        }
    }
    Some(end)
}

/// All matches of `(?:OCTET\.){3}OCTET` with OCTET = `25[0-5]|2[0-4][0-9]|[01]?[0-9][0-9]?`, as (start, end).
pub fn ip_addresses(text: &str) -> Vec<(usize, usize)> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let mut from = 0;
    for dot in memchr_iter(b'.', bytes) {
        if dot < from {
            continue;
        }
        let mut start = dot;
        while start > from && dot - start < 3 && bytes[start - 1].is_ascii_digit() {
            start -= 1;
        }
        start += usize::from(dot - start == 3 && !is_octet(&bytes[start..dot]));
        if start == dot {
            continue;
        }
        let third_dot = octet_dot(bytes, dot + 1).and_then(|second_dot| octet_dot(bytes, second_dot + 1));
        if let Some(end) = third_dot.and_then(|third_dot| last_octet_end(bytes, third_dot + 1)) {
            found.push((start, end));
            from = end;
        }
    }
    found
}

/// The dot right after an octet that begins at `start`.
fn octet_dot(bytes: &[u8], start: usize) -> Option<usize> {
    let length = bytes[start..].iter().take(4).take_while(|byte| byte.is_ascii_digit()).count();
    let end = start + length;
    (bytes.get(end) == Some(&b'.') && is_octet(&bytes[start..end])).then_some(end)
}

/// As much of the digits at `start` as an octet takes.
fn last_octet_end(bytes: &[u8], start: usize) -> Option<usize> {
    let length = bytes[start..].iter().take(3).take_while(|byte| byte.is_ascii_digit()).count();
    match length {
        0 => None,
        3 if !is_octet(&bytes[start..start + 3]) => Some(start + 2),
        _ => Some(start + length),
    }
}

/// Whether one to three digits are 0 to 255; zeros may lead.
fn is_octet(digits: &[u8]) -> bool {
    matches!(digits, [_] | [_, _] | [b'0' | b'1', _, _] | [b'2', b'0'..=b'4', _] | [b'2', b'5', b'0'..=b'5'])
}

/// Whether the URL expression of dolma 1.2.1 matches. Its word boundary was written as a backspace character, so it can only match after
/// one: in practice never.
pub fn contains_url_after_backspace(text: &str) -> bool {
    static URL: LazyLock<Option<Regex>> = LazyLock::new(|| {
        let space = r"\s\x1c-\x1f";
        let nested = format!(r"\(([^{space}()<>]+|(\([^{space}()<>]+\)))*\)");
        let start = r"(?:https?://|www\d{0,3}[.]|[a-z0-9.\-]+[.][a-z]{2,4}/)";
        let last = format!("[^{space}`!()\\[\\]{{}};:'\".,<>?«»“”‘’]");
        Regex::new(&format!("(?i)\u{8}(?:{start}(?:[^{space}()<>]+|{nested})+(?:{nested}|{last}))")).ok()
    });
    memmem::find(text.as_bytes(), b"\x08").is_some() && URL.as_ref().is_some_and(|url| url.is_match(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compiled(pattern: &str) -> fancy_regex::Regex {
        fancy_regex::Regex::new(&pattern.replace(r"\s", r"\s\x1c-\x1f")).unwrap()
    }

    fn by_expression(expression: &fancy_regex::Regex, text: &str) -> Vec<(usize, usize)> {
        expression.find_iter(text).map(|found| found.unwrap()).map(|found| (found.start(), found.end())).collect()
    }

    const EMAIL: &str = r"[.\s@,?!;:)(]*([^\s@]+@[^\s@,?!;:)(]+?)[.\s@,?!;:)(]?[\s]";
    const PHONE: &str = r"[\s]+\(?(\d{3})\)?[-\. ]*(\d{3})[-. ]?(\d{4})";
    const ADDRESS: &str = "(?:(?:25[0-5]|2[0-4][0-9]|[01]?[0-9][0-9]?)\\.){3}(?:25[0-5]|2[0-4][0-9]|[01]?[0-9][0-9]?)";

    fn random_texts(alphabet: &[&str], num_texts: usize) -> Vec<String> {
        let mut state = 11_u64;
        let mut next = move |bound: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % bound
        };
        (0..num_texts).map(|_| (0..next(40)).map(|_| alphabet[next(alphabet.len())]).collect()).collect()
    }

    #[test]
    fn emails_and_their_groups_are_those_of_the_expression() {
        let expression = compiled(EMAIL);
        let alphabet = ["@", "@", ".", "a", "b", " ", "\n", ",", "(", ")", "é", "\u{3000}", "\u{1c}"];
        for text in random_texts(&alphabet, 10_000) {
            let groups: Vec<_> = expression
                .captures_iter(&text)
                .map(|found| found.unwrap())
                .map(|found| (found.get(0).unwrap().range(), found.get(1).unwrap().range()))
                .collect();
            let found: Vec<_> = emails(&text)
                .iter()
                .map(|email| (email.start..email.end, email.local_start..email.domain_end))
                .collect();
            assert_eq!(found, groups, "{text:?}");
        }
    }

    #[test]
    fn phones_are_those_of_the_expression() {
        let expression = compiled(PHONE);
        for text in
            random_texts(&["123", "456", "7890", "555", "1", " ", "-", ".", "(", ")", "\n", "٣٤٥", "\u{a0}"], 6_000)
        {
            assert_eq!(phones(&text), by_expression(&expression, &text), "{text:?}");
        }
    }

    #[test]
    fn addresses_are_those_of_the_expression() {
        let expression = compiled(ADDRESS);
        for text in random_texts(&[".", ".", ".", "1", "2", "5", "25", "249", "256", "300", "0", "x"], 6_000) {
            assert_eq!(ip_addresses(&text), by_expression(&expression, &text), "{text:?}");
        }
    }

    #[test]
    fn a_url_counts_only_after_a_backspace() {
        assert!(!contains_url_after_backspace("see https://example.org/x"));
        assert!(contains_url_after_backspace("see \u{8}https://example.org/x"));
    }
}
