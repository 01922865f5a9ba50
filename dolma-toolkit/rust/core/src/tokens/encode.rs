//! Text to token ids, with the tokens that begin and end a document.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;
use tokenizers::Tokenizer;

use super::bpe::Bpe;
use crate::document::Place;
use crate::error::{Code, Error, Result};
use crate::manifest::sha256_bytes;

/// The tokenizer and its special tokens.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizerPlan {
    /// A `tokenizer.json`.
    pub path: PathBuf,
    /// Begins every document, when not null.
    pub bos_token_id: Option<u32>,
    /// Ends every document, when not null.
    pub eos_token_id: Option<u32>,
    /// Never written; the manifest tells it.
    pub pad_token_id: Option<u32>,
    /// Splits a text at its line ends before it is encoded: faster for tokenizers without a pre-tokenizer.
    pub segment_before_tokenization: bool,
    /// Whether special tokens that a text spells are encoded as text. `None`: only in documents whose text spells
    /// `bos` or `eos`, which would otherwise break the document in two.
    pub encode_special_tokens: Option<bool>,
}

/// Ids of one document.
pub struct Encoded {
    /// With `bos` and `eos`.
    pub ids: Vec<u32>,
    /// Its text spelt `bos` or `eos`, and was encoded again with special tokens as text.
    pub respelt: bool,
}

/// Turns texts into ids; shared between threads.
pub struct Encoder {
    plan: TokenizerPlan,
    bytes: Vec<u8>,
    sha256: String,
    vocab_size: u32,
    tokenizer: Tokenizer,
    /// With special tokens as text, for `encode_special_tokens: None`.
    literal: Option<Tokenizer>,
    /// Gives the ids of both where the tokenizer is of its form.
    bpe: Option<Bpe>,
    adds_prefix: bool,
}

/// What the file is if it is not a `tokenizer.json`, and what to do about it.
fn foreign(bytes: &[u8]) -> Option<(&'static str, &'static str)> {
    const CONVERT: &str =
        "write a tokenizer.json with transformers: `AutoTokenizer.from_pretrained(DIRECTORY).save_pretrained(OTHER)`";
    const USE_JSON: &str =
        "name the tokenizer.json of the same tokenizer, or convert it with transformers' `save_pretrained`";
    let first = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let is_base64 =
        |part: &[u8]| !part.is_empty() && part.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(byte));
    let parts: Vec<&[u8]> = first.trim_ascii().split(|byte| *byte == b' ').collect();
    if bytes.starts_with(b"\x1f\x8b") || bytes.starts_with(b"PK\x03\x04") {
        return Some(("a compressed file", "decompress it first"));
    }
    // a protobuf message of pieces: a field's tag, its length, and inside it the tag of the first piece's text
    if bytes.first() == Some(&0x0a) && bytes.get(2) == Some(&0x0a) {
        return Some(("a SentencePiece model", CONVERT));
    }
    if first.starts_with(b"#version:") {
        return Some(("a merges.txt, one half of a byte-pair tokenizer", USE_JSON));
    }
    if let [token, rank] = parts.as_slice() {
        if is_base64(token) && rank.iter().all(u8::is_ascii_digit) && !rank.is_empty() {
            return Some(("a tiktoken file (tokens in base64 and ranks)", CONVERT));
        }
    }
    match serde_json::from_slice::<Value>(bytes) {
        Ok(Value::Object(fields)) if fields.contains_key("tokenizer_class") => {
            Some(("a tokenizer_config.json", USE_JSON))
        }
        Ok(Value::Object(fields)) if !fields.is_empty() && fields.values().all(Value::is_u64) => {
            Some(("a vocab.json, one half of a tokenizer", USE_JSON))
        }
        Err(_) if std::str::from_utf8(bytes).is_err() => Some(("a binary file", CONVERT)),
        _ => None,
    }
}

impl Encoder {
    /// Reads a `tokenizer.json` and checks the special tokens against its vocabulary.
    pub fn load(plan: &TokenizerPlan) -> Result<Encoder> {
        let key = "tokenizer.name_or_path";
        let name = plan.path.display();
        let bytes = std::fs::read(&plan.path).map_err(|error| {
            Error::config(key, format!("is \"{name}\", which cannot be read ({error}); expected a tokenizer.json"))
        })?;
        let mut tokenizer = Tokenizer::from_bytes(&bytes).map_err(|error| {
            let (what, hint) = foreign(&bytes).unwrap_or(("not a tokenizer", ""));
            let reason = if hint.is_empty() { format!(" ({error})") } else { String::new() };
            let error =
                Error::config(key, format!("is \"{name}\", which is {what}{reason}; expected a tokenizer.json"));
            if hint.is_empty() {
                error
            } else {
                error.with_hint(hint)
            }
        })?;
        // these belong to batches of a model, not to shards
        let unusable =
            |error: tokenizers::Error| Error::config(key, format!("is \"{name}\", which is unusable: {error}"));
        tokenizer.with_truncation(None).map_err(unusable)?;
        tokenizer.with_padding(None);
        let highest = tokenizer.get_vocab(true).into_values().max();
        let Some(above) = highest.map_or(Some(0), |id| id.checked_add(1)) else {
            let message =
                format!("is \"{name}\", which is unusable: it has the id {}; expected ids below it", u32::MAX);
            return Err(Error::config(key, message));
        };
        let vocab_size = above.max(tokenizer.get_vocab_size(true) as u32);
        for (token, id) in [("bos", plan.bos_token_id), ("eos", plan.eos_token_id), ("pad", plan.pad_token_id)] {
            if let Some(id) = id.filter(|id| *id >= vocab_size) {
                let message = format!("is {id}; expected an id below {vocab_size}, the size of the vocabulary");
                return Err(Error::config(format!("tokenizer.{token}_token_id"), message));
            }
        }
        tokenizer.set_encode_special_tokens(plan.encode_special_tokens == Some(true));
        let literal = plan.encode_special_tokens.is_none().then(|| {
            let mut literal = tokenizer.clone();
            literal.set_encode_special_tokens(true);
            literal
        });
        let adds_prefix = adds_prefix(&bytes);
        let bpe = Bpe::load(&bytes, &tokenizer);
        Ok(Encoder {
            plan: plan.clone(),
            sha256: sha256_bytes(&bytes),
            bytes,
            vocab_size,
            tokenizer,
            literal,
            bpe,
            adds_prefix,
        })
    }

    /// Ids are below it.
    pub fn vocab_size(&self) -> u32 {
        self.vocab_size
    }

    /// Of the bytes of `tokenizer.json`.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// The bytes of `tokenizer.json`.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Ids of a stripped text. As in dolma 1.x, `bos` and `eos` are added unless they stand there already.
    pub fn encode(&self, text: &str, place: &Place<'_>) -> Result<Encoded> {
        let mut ids = self.ids(false, text, place)?;
        let mut respelt = false;
        if self.literal.is_some() && self.holds_border(&ids) {
            ids = self.ids(true, text, place)?;
            respelt = true;
            if self.holds_border(&ids) {
                let message =
                    "the text is encoded to a token that begins or ends documents; expected it only between documents \
                               (tokenizer.encode_special_tokens: false allows it)";
                return Err(place.error(Some("text"), Code::InvalidValue, message));
            }
        }
        match self.plan.bos_token_id {
            Some(bos) if ids.first() != Some(&bos) => ids.insert(0, bos),
            _ => {}
        }
        match self.plan.eos_token_id {
            Some(eos) if ids.last() != Some(&eos) => ids.push(eos),
            _ => {}
        }
        Ok(Encoded { ids, respelt })
    }

    fn holds_border(&self, ids: &[u32]) -> bool {
        ids.iter().any(|id| Some(*id) == self.plan.eos_token_id || Some(*id) == self.plan.bos_token_id)
    }

    /// `literal`: special tokens are text, whatever the plan says.
    fn ids(&self, literal: bool, text: &str, place: &Place<'_>) -> Result<Vec<u32>> {
        let tokenizer = self.literal.as_ref().filter(|_| literal).unwrap_or(&self.tokenizer);
        let encode = |text: &str| {
            if let Some(bpe) = &self.bpe {
                return Ok(bpe.encode(text, tokenizer.get_encode_special_tokens()));
            }
            let encoding = tokenizer.encode_fast(text, false).map_err(|error| {
                place.error(Some("text"), Code::InvalidValue, format!("the text cannot be encoded: {error}"))
            })?;
            Ok(encoding.get_ids().to_vec())
        };
        if !self.plan.segment_before_tokenization {
            return encode(text);
        }
        let mut ids = Vec::new();
        for (index, segment) in segments(text).enumerate() {
            if index > 0 && self.adds_prefix {
                // the tokenizer puts a space in front of what it takes for a beginning; ours takes its place
                let encoding = encode(&format!(" {segment}"))?;
                ids.extend(encoding.iter().skip(1));
            } else {
                ids.extend(encode(segment)?);
            }
        }
        Ok(ids)
    }
}

/// The text of ids, special tokens spelt out. Bytes that are no UTF-8 become U+FFFD, as at the ends of a text that was cut.
pub fn decode(tokenizer_json: &Path, ids: &[u32]) -> Result<String> {
    let unusable = |error: tokenizers::Error| {
        Error::config("tokenizer", format!("is \"{}\", which is unusable: {error}", tokenizer_json.display()))
    };
    Tokenizer::from_file(tokenizer_json).map_err(unusable)?.decode(ids, false).map_err(unusable)
}

/// A text cut in front of each run of line feeds.
fn segments(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let line_feeds = rest.len() - rest.trim_start_matches('\n').len();
        let end = rest[line_feeds..].find('\n').map_or(rest.len(), |end| line_feeds + end);
        let (segment, after) = rest.split_at(end);
        rest = after;
        Some(segment)
    })
}

/// Whether the tokenizer puts a space in front of a text.
fn adds_prefix(tokenizer_json: &[u8]) -> bool {
    let Ok(config) = serde_json::from_slice::<Value>(tokenizer_json) else { return false };
    let parts = |room: &str, list: &str| -> Vec<Value> {
        let part = &config[room];
        match part["type"] == "Sequence" {
            true => part[list].as_array().cloned().unwrap_or_default(),
            false => vec![part.clone()],
        }
    };
    parts("pre_tokenizer", "pretokenizers").iter().any(|part| part["add_prefix_space"] == true)
        || parts("normalizer", "normalizers").iter().any(|part| part["type"] == "Prepend")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_keep_line_feeds_in_front() {
        let cut: Vec<&str> = segments("a b\n\nc\nd").collect();
        assert_eq!(cut, ["a b", "\n\nc", "\nd"]);
        assert_eq!(segments("\n\na").collect::<Vec<_>>(), ["\n\na"]);
        assert_eq!(segments("a\n").collect::<Vec<_>>(), ["a", "\n"]);
    }

    #[test]
    fn files_of_other_tokenizers_are_named() {
        for (bytes, what) in [
            (&b"\x0a\x0e\x0a\x05<unk>\x15\0\0\0\0\x18\x02"[..], "a SentencePiece model"),
            (b"IQ== 0\nIg== 1\n", "a tiktoken file (tokens in base64 and ranks)"),
            (b"#version: 0.2\ne n\n", "a merges.txt, one half of a byte-pair tokenizer"),
            (br#"{"a":0,"b":1}"#, "a vocab.json, one half of a tokenizer"),
            (br#"{"tokenizer_class":"GPT2Tokenizer"}"#, "a tokenizer_config.json"),
            (b"\x1f\x8b\x08\0", "a compressed file"),
            (b"\x80\x81\xff", "a binary file"),
        ] {
            assert_eq!(foreign(bytes).map(|found| found.0), Some(what));
        }
        assert!(foreign(br#"{"model":{"type":"BPE"}}"#).is_none() && foreign(b"hello there\n").is_none());
    }

    #[test]
    fn prefixes_are_found_in_sequences_too() {
        assert!(adds_prefix(br#"{"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":true},"normalizer":null}"#));
        assert!(adds_prefix(br#"{"pre_tokenizer":null,"normalizer":{"type":"Sequence","normalizers":[{"type":"Prepend","prepend":"_"}]}}"#));
        assert!(!adds_prefix(
            br#"{"pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"ByteLevel","add_prefix_space":false}]}}"#
        ));
    }
}
