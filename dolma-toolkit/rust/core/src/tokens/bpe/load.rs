//! Whether a `tokenizer.json` is of the form that is encoded here, and its tables.

use std::collections::HashMap;
use std::sync::Mutex;

use serde::Deserialize;
use serde_json::Value;
use tokenizers::Tokenizer;

use super::added::AddedTokens;
use super::merge::Merges;
use super::normalize::composed;
use super::split::Pattern;
use super::Bpe;

#[derive(Deserialize)]
struct File {
    normalizer: Value,
    pre_tokenizer: Value,
    model: Model,
}

/// Fields that are not named here change no ids.
#[derive(Deserialize)]
struct Model {
    #[serde(rename = "type")]
    kind: String,
    dropout: Option<f64>,
    unk_token: Option<String>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    #[serde(default)]
    byte_fallback: bool,
    #[serde(default)]
    ignore_merges: bool,
    vocab: HashMap<String, u32>,
    merges: Vec<Merge>,
}

/// The two forms of a merge, before and since version 0.20 of `tokenizers`.
#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Pair(String, String),
    Line(String),
}

impl Bpe {
    /// From the bytes of a `tokenizer.json` and what the crate made of them; `None` where it is of another form.
    pub fn load(bytes: &[u8], tokenizer: &Tokenizer) -> Option<Bpe> {
        let file: File = serde_json::from_slice(bytes).ok()?;
        let model = &file.model;
        let plain = model.kind == "BPE"
            && model.dropout.is_none_or(|dropout| dropout == 0.0)
            && model.unk_token.is_none()
            && model.continuing_subword_prefix.as_deref().unwrap_or("").is_empty()
            && model.end_of_word_suffix.as_deref().unwrap_or("").is_empty()
            && !model.byte_fallback;
        if !plain {
            return None;
        }
        let composes = match file.normalizer["type"].as_str() {
            None if file.normalizer.is_null() => false,
            Some("NFC") => true,
            _ => return None,
        };
        let pattern = pattern(&file.pre_tokenizer)?;
        let (added, added_normalized) = added(tokenizer, composes)?;
        let letters = letters();
        let mut ids = [0; 256];
        for (byte, letter) in letters.iter().enumerate() {
            match model.vocab.get(letter.encode_utf8(&mut [0; 4]) as &str) {
                Some(id) => ids[byte] = *id,
                // these bytes are never part of UTF-8
                None if matches!(byte, 0xc0 | 0xc1 | 0xf5..) => {}
                None => return None,
            }
        }
        let whole = match model.ignore_merges {
            true => {
                let bytes: HashMap<char, u8> = letters.iter().copied().zip(0..=255).collect();
                let spelt = |token: &str| -> Option<Box<[u8]>> {
                    token.chars().map(|letter| bytes.get(&letter).copied()).collect()
                };
                // an entry of other letters is never a word
                let entry = |(token, id): (&String, &u32)| Some((spelt(token)?, *id));
                Some(model.vocab.iter().filter_map(entry).collect())
            }
            false => None,
        };
        Some(Bpe {
            added,
            composes,
            added_normalized,
            pattern,
            bytes: ids,
            merges: Merges::new(&merges(model)?),
            whole,
            workers: Mutex::default(),
        })
    }
}

fn merges(model: &Model) -> Option<Vec<(u32, u32, u32)>> {
    let merge = |merge: &Merge| {
        let (left, right) = match merge {
            Merge::Pair(left, right) => (left.as_str(), right.as_str()),
            Merge::Line(line) => line.split_once(' ')?,
        };
        let id = |token: &str| model.vocab.get(token).copied();
        Some((id(left)?, id(right)?, id(&format!("{left}{right}"))?))
    };
    model.merges.iter().map(merge).collect()
}

/// Only `ByteLevel`, or a `Split` by a known expression and `ByteLevel` after it.
fn pattern(pre_tokenizer: &Value) -> Option<Pattern> {
    let byte_level = |part: &Value, uses_expression: bool| {
        let uses = part.get("use_regex").and_then(Value::as_bool).unwrap_or(true);
        part["type"] == "ByteLevel" && part["add_prefix_space"] == false && uses == uses_expression
    };
    let parts = match pre_tokenizer["type"] == "Sequence" {
        true => pre_tokenizer["pretokenizers"].as_array()?.as_slice(),
        false => std::slice::from_ref(pre_tokenizer),
    };
    match parts {
        [last] if byte_level(last, true) => Some(Pattern::Gpt2),
        [split, last] if split["type"] == "Split" && byte_level(last, false) => {
            // both keep the matches as pieces; nothing is between them
            let behavior = (split["behavior"].as_str()?, split["invert"].as_bool()?);
            let keeps_matches = matches!(behavior, ("Removed", true) | ("Isolated", _));
            keeps_matches.then(|| Pattern::spelt(split["pattern"]["Regex"].as_str()?))?
        }
        _ => None,
    }
}

/// Those that are found in a text as it is, and those that are found after normalization.
fn added(tokenizer: &Tokenizer, composes: bool) -> Option<(AddedTokens, AddedTokens)> {
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for (id, token) in tokenizer.get_added_tokens_decoder() {
        if token.single_word || token.lstrip || token.rstrip {
            return None;
        }
        let list = if token.normalized { &mut after } else { &mut before };
        let content = if token.normalized && composes { composed(&token.content).into_owned() } else { token.content };
        list.push((content, id, token.special));
    }
    Some((AddedTokens::new(&before)?, AddedTokens::new(&after)?))
}

/// The letters that represent bytes in the vocabulary: printable ones for themselves, the others from U+0100 on.
pub(super) fn letters() -> [char; 256] {
    let mut letters = ['\0'; 256];
    let mut next = 0x100;
    for (byte, letter) in (0_u8..=255).zip(&mut letters) {
        *letter = match byte {
            b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => char::from(byte),
            _ => {
                let other = char::from_u32(next).unwrap_or('\0');
                next += 1;
                other
            }
        };
    }
    letters
}
