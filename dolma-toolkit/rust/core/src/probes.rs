//! What must hold for any bytes at all. The fuzz targets in `rust/fuzz` call these functions, and so do the tests here,
//! with random bytes: a broken promise is an assertion that fails, a crash is a crash.

use std::io::Write;

use serde_json::Value;

use crate::bloom::{read as read_filter, AnyFilter};
use crate::document::{parse_row, parse_value, Place};
use crate::jq::{Input, Program, STACK_BYTES};
use crate::jsonl::{Compression, LineReader};
use crate::jsonpath::Path;
use crate::mix::row::{usual, AttributeRow, Changes, Row};
use crate::mix::spans::{replace, Replacement};

const PLACE: Place<'static> = Place { path: "probe", line: 1 };

/// A line of documents: both readers agree on it, and what the mixer writes of it says the same.
pub fn row(line: &[u8]) {
    let is_object = line.trim_ascii_start().starts_with(b"{");
    assert!(is_object || (parse_row(line, &PLACE).is_err() && AttributeRow::read(line).is_none()), "a list is a row");
    let (fast, slow) = (parse_row(line, &PLACE), parse_value(line, &PLACE));
    if let (Ok(fast), Ok(slow)) = (&fast, &slow) {
        assert_eq!(slow.get("id").and_then(Value::as_str), Some(&*fast.id), "readers disagree on the id");
        assert_eq!(slow.get("text").and_then(Value::as_str), Some(&*fast.text), "readers disagree on the text");
    }
    let made = usual(line, &PLACE).unwrap_or_default();
    assert_eq!(made.is_empty(), slow.is_err(), "the mixer accepts other rows than the other commands");
    if let Some(mixed) = Row::read(line).or_else(|| Row::read(&made)) {
        let mut written = Vec::new();
        mixed.write(&mut written, &Changes::default());
        let (read, again) = (parse_value(line, &PLACE), parse_value(&written, &PLACE));
        assert!(read.is_ok(), "a row was mixed that is none");
        assert_eq!(read.ok(), again.ok(), "mixing changed the row");
        assert!(!written.contains(&b'\n') || line.contains(&b'\n'), "one row became several lines");
    }
}

/// An expression, a zero byte, a document: compiling and evaluating end, whatever they end with.
pub fn filter(bytes: &[u8]) {
    let (expression, document) = match bytes.iter().position(|byte| *byte == 0) {
        Some(end) => (&bytes[..end], &bytes[end + 1..]),
        None => (bytes, &b"{\"id\":\"1\",\"text\":\"a\",\"attributes\":{\"k\":[[0,1,0.5]]}}"[..]),
    };
    let Ok(expression) = std::str::from_utf8(expression) else { return };
    if let (Ok(path), Ok(value)) = (Path::new(expression), serde_json::from_slice::<Value>(document)) {
        assert_eq!(path.matches(&value), path.find(&value).iter().any(|found| !found.is_null()));
    }
    on_a_large_stack(|| program(expression, document));
}

fn program(expression: &str, document: &[u8]) {
    let Ok(program) = Program::new(expression) else { return };
    // the language can loop for ever, which is the writer's own affair
    let is_tame = expression.len() < 64 && !expression.contains(|c: char| c.is_ascii_alphabetic() || c == '*');
    if let (true, Ok(input)) = (is_tame, Input::parse(document)) {
        let (any, all) = (program.any(&input), program.all(&input));
        assert!(!matches!((any, all), (Ok(false), Ok(true))), "all outputs are true, and none is");
    }
}

/// A file of a Bloom filter: read whole or refused, without memory for what it only claims to hold.
pub fn bloom(bytes: &[u8]) {
    let Some(file) = file_of(bytes) else { return };
    if let Ok(AnyFilter::Legacy(filter)) = read_filter(file.path()) {
        let key = std::collections::VecDeque::from(["key"]);
        assert_eq!(filter.contains(&key), filter.contains(&key));
    }
}

/// A text and spans: nothing of the text that a span holds is left, and nothing else is lost.
pub fn spans(bytes: &[u8]) {
    let (numbers, text) = bytes.split_at(bytes.len().min(usize::from(bytes.first().copied().unwrap_or(0) % 16) * 2));
    let text = String::from_utf8_lossy(text);
    let places: Vec<(usize, usize)> = numbers
        .chunks_exact(2)
        .map(|pair| (usize::from(pair[0]), usize::from(pair[0]) + usize::from(pair[1])))
        .collect();
    let holds = |at: usize| places.iter().any(|(start, end)| (*start..*end).contains(&at));
    let expected: String =
        text.chars().enumerate().filter(|(at, _)| !holds(*at)).map(|(_, character)| character).collect();
    let spans = |text| places.iter().map(move |&(start, end)| Replacement { start, end, text }).collect::<Vec<_>>();
    assert_eq!(replace(&text, &spans("")), Some(expected));
    assert_eq!(replace(&text, &spans("{}")), Some(text.into_owned()));
}

/// A file, packed in the way that the first byte picks: lines, then an end or an error.
pub fn packed(bytes: &[u8]) {
    use Compression::{Bzip2, Gzip, None as Bare, Parquet, Xz, Zstandard};
    const LINES: usize = 10_000;
    let Some((first, rest)) = bytes.split_first() else { return };
    let Some(file) = file_of(rest) else { return };
    let ways = [Gzip, Zstandard, Bzip2, Xz, Parquet, Bare];
    let way = ways[usize::from(*first) % ways.len()];
    let Ok(mut reader) = LineReader::open_as(file.path(), "probe", way) else { return };
    let mut lines = 0;
    while let (Ok(Some(_)), true) = (reader.next_line(), lines < LINES) {
        lines += 1;
        assert_eq!(reader.line(), lines as u64);
    }
}

fn on_a_large_stack(work: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, work);
        if let Ok(Err(failure)) = thread.map(std::thread::ScopedJoinHandle::join) {
            std::panic::resume_unwind(failure);
        }
    });
}

fn file_of(bytes: &[u8]) -> Option<tempfile::NamedTempFile> {
    let mut file = tempfile::NamedTempFile::new().ok()?;
    file.write_all(bytes).ok().map(|()| file)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;
    use crate::bloom::{Filter, Record, Sizing};
    use crate::jsonl::AtomicWriter;

    /// Pieces that the grammars are made of, in any order: random bytes never get past the first character.
    fn soup(pieces: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(
            prop_oneof![4 => select(pieces).prop_map(|piece| piece.as_bytes().to_vec()),
            1 => prop::collection::vec(any::<u8>(), 0..4)],
            0..24,
        )
        .prop_map(|pieces| pieces.concat())
    }

    const JSON: &[&str] = &[
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "\"id\":\"a\"",
        "\"text\":\"b\\u0000\\ud83d\\ude00\"",
        "\"text\":\"\\ud800\"",
        "\"metadata\":{",
        "\"attributes\":{\"k\":[[0,1,1e3]]}",
        "\"source\":null",
        "\"id\":",
        "1e999",
        "-0.0",
        "null",
        "true",
        "\\u00",
        "{\"id\":\"a\",\"text\":\"İ\",",
        "\"x\":12345678901234567890123",
        "\"id\":\"\\u0061\"",
        "\u{feff}",
        "\r",
        " ",
        "\t",
        "\\ud800\\ud800",
        "\"text\":\"é",
        "\"version\":null",
        "\"extra\":{\"id\":\"c\"}",
    ];

    const FILTERS: &[&str] = &[
        "$",
        "@",
        ".",
        "..",
        "*",
        "[",
        "]",
        "(",
        ")",
        "?",
        "[?(",
        ")]",
        "&&",
        "||",
        "!",
        "==",
        "=~",
        "~=",
        ">=",
        "0",
        "-1",
        "1.5",
        "'k'",
        "\"k\"",
        ".attributes",
        "k",
        ":",
        ",",
        ".length()",
        "|",
        "//",
        "and",
        "or",
        "if",
        "then",
        "end",
        "[0][2]",
        "nin",
        "size",
        "noneOf",
        "/a(/",
        "\\",
        "{",
        "}",
        "as $x",
        "reduce",
        "try",
        "error",
        "\0{\"k\":[1]}",
        "İ",
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn rows_from_pieces(line in soup(JSON)) {
            row(&line);
        }

        #[test]
        fn filters_from_pieces(bytes in soup(FILTERS)) {
            filter(&bytes);
        }

        #[test]
        fn spans_of_any_text(bytes in prop::collection::vec(any::<u8>(), 0..80), text in "\\PC{0,40}") {
            spans(&bytes);
            spans(&[&bytes[..bytes.len().min(17)], text.as_bytes()].concat());
        }

        #[test]
        fn rows_from_bytes(line in prop::collection::vec(any::<u8>(), 0..60)) {
            row(&line);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(600))]

        #[test]
        fn filters_with_damage(at in any::<prop::sample::Index>(), bytes in prop::collection::vec(any::<u8>(), 1..9), cut: bool) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("filter");
            let sizing = Sizing { blocks: 64, blocks_per_key: 1, positions: 3 };
            crate::bloom::write(&Filter::new(sizing, Record::default()), &path).unwrap();
            let whole = std::fs::read(&path).unwrap();
            bloom(&damaged(&whole, at.index(64.min(whole.len())), &bytes, cut));
            bloom(&damaged(&whole, at.index(whole.len()), &bytes, cut));
            bloom(&damaged(include_bytes!("../tests/legacy_filter.bin"), at.index(64), &bytes, cut));
        }

        #[test]
        fn packed_files_with_damage(
            way in 0u8..5, at in any::<prop::sample::Index>(), bytes in prop::collection::vec(any::<u8>(), 1..9), cut: bool,
        ) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join(["a.gz", "a.zst", "a.bz2", "a.xz", "a.parquet"][usize::from(way)]);
            let mut writer = AtomicWriter::create(&path).unwrap();
            (0..200).for_each(|id| writer.put(format!("{{\"id\":\"{id}\",\"text\":\"é\"}}\n").as_bytes()).unwrap());
            writer.finish().unwrap();
            let whole = std::fs::read(&path).unwrap();
            packed(&[vec![way], damaged(&whole, at.index(whole.len()), &bytes, cut)].concat());
        }
    }

    fn damaged(whole: &[u8], at: usize, bytes: &[u8], cut: bool) -> Vec<u8> {
        let rest = if cut { &[] } else { whole.get(at + bytes.len()..).unwrap_or_default() };
        [&whole[..at], bytes, rest].concat()
    }

    #[test]
    fn a_list_is_no_row() {
        row(b"[\"a\",\"b\",\"c\",\"d\",\"e\",null,null,null]");
        row(b" [\"a\",\"b\"]");
        row(b"[\"a\",{}]");
    }

    #[test]
    fn depth_is_refused_and_not_followed() {
        let deep = |open: &str, close: &str| format!("{}1{}", open.repeat(100_000), close.repeat(100_000));
        for value in [deep("[", "]"), deep("{\"a\":", "}")] {
            for name in ["metadata", "attributes", "x", "text"] {
                row(format!("{{\"id\":\"1\",\"text\":\"a\",\"{name}\":{value}}}").as_bytes());
            }
            row(value.as_bytes());
            filter(&[b".", &b"\0"[..], value.as_bytes()].concat());
        }
        for expression in
            ["(", "[", "$[?(", "$..", ".a|", "[?(@.a==", "!", "-", "{a:", "try ", "if ", ".", ".a", "\"\\("]
        {
            for count in [1000, 3900, 20_000] {
                filter(expression.repeat(count).as_bytes());
            }
        }
    }
}
