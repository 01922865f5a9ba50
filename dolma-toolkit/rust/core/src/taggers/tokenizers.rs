//! Lengths in tokens and tokens that repeat, by a `tokenizer.json` that the user gives.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

use ::tokenizers::{PostProcessor, Tokenizer};

use super::resources::{required, Need, Resource};
use super::{Span, Tagger, Text};
use crate::error::{Error, Result};
use crate::tokens::bpe::Bpe;
use crate::unicode::strip;

/// Longest unit of a repetition, in tokens.
const MAX_PERIOD: usize = 13;
/// Code points that `tokenizer_repetitions_v2r2` takes at once.
const CHUNK_CHARS: usize = 100_000;

const WHAT: &str = "a tokenizer.json";
const NEOX_PII: &[&str] =
    &["https://huggingface.co/allenai/eleuther-ai-gpt-neox-20b-pii-special/resolve/main/tokenizer.json"];

/// Names, descriptions, and where dolma 1.2.1 has the tokenizers from; sorted.
pub static NAMES: &[(&str, &str, &[&str])] = &[
    (
        "dolma_v1_tokenizer",
        "tokens of the stripped text, special ones included (Dolma v1.5)",
        &["https://huggingface.co/allenai/gpt-neox-olmo-dolma-v1_5/resolve/main/tokenizer.json"],
    ),
    (
        "dolma_v2_tokenizer",
        "tokens of the stripped text, special ones included (Dolma 2)",
        &["https://huggingface.co/allenai/dolma2-tokenizer/resolve/main/tokenizer.json"],
    ),
    ("paragraph_tokenizer_repetitions_v1", "tokens that repeat three times or more within a paragraph", NEOX_PII),
    ("tokenizer_repetitions_v1", "tokens that repeat three times or more", NEOX_PII),
    ("tokenizer_repetitions_v2r2", "tokens that repeat three times or more, none within another", NEOX_PII),
    ("tokenizers_AI2_OLMo_v1", "tokens of the text", NEOX_PII),
    (
        "tokenizers_EleutherAI_GPT_NeoX_20B",
        "tokens of the text",
        &["https://huggingface.co/EleutherAI/gpt-neox-20b/resolve/main/tokenizer.json"],
    ),
];

/// What a tagger of this family needs.
pub fn needs(name: &str) -> Option<Need> {
    NAMES.iter().find(|row| row.0 == name).map(|&(_, _, urls)| Need { what: WHAT, urls })
}

/// A tagger of this family.
pub fn build(name: &str, resources: &[Resource]) -> Option<Result<Box<dyn Tagger>>> {
    needs(name)?;
    Some(shared(name, resources).map(|tokenizer| -> Box<dyn Tagger> {
        match name {
            "dolma_v1_tokenizer" | "dolma_v2_tokenizer" => Box::new(Length { tokenizer, of_stripped: true }),
            "paragraph_tokenizer_repetitions_v1" => Box::new(TokenRepetitions { tokenizer, unit: Unit::Paragraph }),
            "tokenizer_repetitions_v1" => Box::new(TokenRepetitions { tokenizer, unit: Unit::Document }),
            "tokenizer_repetitions_v2r2" => Box::new(TokenRepetitions { tokenizer, unit: Unit::Chunk }),
            _ => Box::new(Length { tokenizer, of_stripped: false }),
        }
    }))
}

/// The tokenizer of that file: one copy for all taggers that are alive.
fn shared(name: &str, resources: &[Resource]) -> Result<Arc<Shared>> {
    static LOADED: LazyLock<Mutex<HashMap<PathBuf, Weak<Shared>>>> = LazyLock::new(Mutex::default);
    let key = format!("resources.{name}");
    let [resource] = required(name, resources)? else {
        return Err(Error::config(key, format!("has {} files; expected one, {WHAT}", resources.len())));
    };
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(tokenizer) = loaded.get(&resource.path).and_then(Weak::upgrade) {
        return Ok(tokenizer);
    }
    let tokenizer = load(&resource.path).map_err(|reason| {
        Error::config(key, format!("is \"{}\", which is unusable ({reason}); expected {WHAT}", resource.name))
    })?;
    let tokenizer = Arc::new(tokenizer);
    loaded.insert(resource.path.clone(), Arc::downgrade(&tokenizer));
    Ok(tokenizer)
}

/// A tokenizer, and an encoder of our own that gives its ids where it is of that form.
struct Shared {
    tokenizer: Tokenizer,
    bpe: Option<Bpe>,
    /// Special tokens around every text, where they are asked for.
    added: usize,
}

impl Shared {
    /// Tokens of a text.
    fn length(&self, text: &str, with_special_tokens: bool) -> Result<usize> {
        match &self.bpe {
            Some(bpe) => Ok(bpe.encode(text, false).len() + if with_special_tokens { self.added } else { 0 }),
            None => {
                let encoded = self.tokenizer.encode_fast(text, with_special_tokens);
                Ok(encoded.map_err(|error| encoding_error(&error))?.len())
            }
        }
    }

    /// Whether ids repeat, as far as it is known without their places in the text.
    fn may_repeat(&self, text: &str) -> bool {
        self.bpe.as_ref().is_none_or(|bpe| !periodic(&bpe.encode(text, false)).is_empty())
    }
}

fn load(path: &Path) -> std::result::Result<Shared, String> {
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    let mut tokenizer = Tokenizer::from_bytes(&bytes).map_err(|error| error.to_string())?;
    // these belong to batches of a model, not to documents
    tokenizer.with_truncation(None).map_err(|error| error.to_string())?;
    tokenizer.with_padding(None);
    let bpe = Bpe::load(&bytes, &tokenizer);
    let added = tokenizer.get_post_processor().map_or(0, |processor| processor.added_tokens(false));
    Ok(Shared { tokenizer, bpe, added })
}

fn encoding_error(error: &::tokenizers::Error) -> Error {
    Error::config("resources", format!("the tokenizer fails on a document: {error}"))
}

struct Length {
    tokenizer: Arc<Shared>,
    /// The stripped text, with the special tokens of the tokenizer.
    of_stripped: bool,
}

impl Tagger for Length {
    fn tag(&self, text: &Text<'_>, spans: &mut Vec<Span>) -> Result<()> {
        let (part, kind) = match self.of_stripped {
            true => (strip(text.as_str()), "length"),
            false => (text.as_str(), "tokens"),
        };
        let length = match self.of_stripped && part.is_empty() {
            true => 0,
            false => self.tokenizer.length(part, self.of_stripped)?,
        };
        spans.push(text.whole(kind, length as f64));
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Unit {
    Document,
    Paragraph,
    /// At most `CHUNK_CHARS`, and no repetition within another.
    Chunk,
}

struct TokenRepetitions {
    tokenizer: Arc<Shared>,
    unit: Unit,
}

impl TokenRepetitions {
    /// Repetitions in the part, which begins at the code point `offset` of the text.
    fn find(&self, part: &str, offset: usize, back: usize, spans: &mut Vec<Span>) -> Result<()> {
        if !self.tokenizer.may_repeat(part) {
            return Ok(());
        }
        let encoded =
            self.tokenizer.tokenizer.encode_char_offsets(part, false).map_err(|error| encoding_error(&error))?;
        let offsets = encoded.get_offsets();
        let mut found: Vec<Span> = periodic(encoded.get_ids())
            .into_iter()
            .map(|run| Span {
                start: (offset + offsets[run.start].0).saturating_sub(back),
                end: (offset + offsets[run.end - 1].1).saturating_sub(back),
                kind: "repetition".into(),
                score: run.times as f64,
            })
            .collect();
        if self.unit == Unit::Chunk {
            found.sort_by(|one, two| {
                (one.start, two.end).cmp(&(two.start, one.end)).then(two.score.total_cmp(&one.score))
            });
            let mut last: Option<(usize, usize)> = None;
            found.retain(|span| {
                let is_within = last.is_some_and(|(start, end)| span.start >= start && span.end <= end);
                if !is_within {
                    last = Some((span.start, span.end));
                }
                !is_within
            });
        }
        spans.append(&mut found);
        Ok(())
    }
}

impl Tagger for TokenRepetitions {
    fn tag(&self, text: &Text<'_>, spans: &mut Vec<Span>) -> Result<()> {
        let before = spans.len();
        match self.unit {
            Unit::Document => self.find(text.as_str(), 0, 0, spans)?,
            Unit::Paragraph => {
                for paragraph in text.paragraphs() {
                    // the first word gets the token that it has within a text
                    self.find(&format!(" {}", paragraph.text), paragraph.start, 1, spans)?;
                }
            }
            Unit::Chunk => {
                let (mut rest, mut offset) = (text.as_str(), 0);
                while !rest.is_empty() {
                    let end = rest.char_indices().nth(CHUNK_CHARS).map_or(rest.len(), |(at, _)| at);
                    self.find(&rest[..end], offset, 0, spans)?;
                    offset += CHUNK_CHARS;
                    rest = &rest[end..];
                }
            }
        }
        if spans.len() == before && self.unit == Unit::Chunk {
            return Ok(());
        }
        super::repetitions::summarize(text, before, spans);
        Ok(())
    }
}

/// Tokens `start..end` repeat with some period, `times` times.
#[derive(Debug, PartialEq, Eq)]
struct Run {
    start: usize,
    end: usize,
    times: usize,
}

/// What repeats three times or more with a period of at most `MAX_PERIOD`: stretches around two or more equal rows, where the text is laid
/// out in rows of the period. Shorter repetitions that no row boundary favours are missed, as in dolma 1.2.1.
fn periodic(ids: &[u32]) -> Vec<Run> {
    let mut runs = Vec::new();
    for period in 1..=MAX_PERIOD.min(ids.len() / 3) {
        let repeats = |at: usize| at >= period && ids.get(at).is_some_and(|id| *id == ids[at - period]);
        let row_repeats = |row: usize| (row * period..(row + 1) * period).all(repeats);
        let mut row = 1;
        while row * period < ids.len() {
            if !row_repeats(row) {
                row += 1;
                continue;
            }
            let first = row;
            while row_repeats(row + 1) {
                row += 1;
            }
            let in_row_before = ((first - 1) * period..first * period).rev().take_while(|&at| repeats(at)).count();
            let in_row_after = ((row + 1) * period..(row + 2) * period).take_while(|&at| repeats(at)).count();
            let start = (first - 1) * period - in_row_before;
            let end = (row + 1) * period + in_row_after;
            let times = (end - start) / period;
            if times > 2 {
                runs.push(Run { start, end, times });
            }
            row += 2;
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokens::bpe::tests::{shared_data, small_files, PUBLISHED};

    #[test]
    fn lengths_are_those_of_the_crate() {
        let folder = tempfile::tempdir().unwrap();
        for (number, mut file) in small_files().into_iter().enumerate() {
            let end = file["added_tokens"][0].clone();
            let ends = [
                serde_json::json!({"Sequence": {"id": "A", "type_id": 0}}),
                serde_json::json!({"SpecialToken": {"id": end["content"], "type_id": 0}}),
            ];
            file["post_processor"] = serde_json::json!({
                "type": "TemplateProcessing", "single": ends, "pair": ends,
                "special_tokens": {"<|endoftext|>":
                    {"id": end["content"], "ids": [end["id"]], "tokens": [end["content"]]}},
            });
            let path = folder.path().join(format!("{number}.json"));
            std::fs::write(&path, file.to_string()).unwrap();
            let ours = load(&path).unwrap();
            assert_eq!(ours.added, 1);
            assert_lengths(&ours, &number.to_string());
        }
    }

    #[test]
    #[ignore = "needs SHARED_DATA"]
    fn lengths_are_those_of_the_crate_in_published_tokenizers() {
        for name in PUBLISHED {
            assert_lengths(&load(&shared_data(&format!("tokenizers/{name}.json"))).unwrap(), name);
        }
    }

    fn assert_lengths(ours: &Shared, name: &str) {
        assert!(ours.bpe.is_some(), "{name}");
        for text in ["a", "the river the river the river", "12345 <|endoftext|> 東京 😀\n\n  x", " 1.5 don't  "] {
            for special in [false, true] {
                let theirs = ours.tokenizer.encode_fast(text, special).unwrap().len();
                assert_eq!(ours.length(text, special).unwrap(), theirs, "{name}: {text:?}, {special}");
            }
        }
        assert!(ours.may_repeat("the river the river the river the river"));
        assert!(!ours.may_repeat("nothing here is said again"));
    }

    #[test]
    fn rows_that_repeat_grow_to_both_sides() {
        assert_eq!(periodic(&[7, 1, 1, 1, 1, 8]), [Run { start: 1, end: 5, times: 4 }]);
        assert_eq!(periodic(&[9, 1, 2, 1, 2, 1, 2, 1, 5]), [Run { start: 1, end: 8, times: 3 }]);
        assert_eq!(periodic(&[1, 2, 3, 4, 5, 6]), []);
        assert_eq!(periodic(&[]), []);
    }
}
