use std::io::Read;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use tokenizers::Tokenizer;

use super::split::{CL100K, ONE_DIGIT};
use super::Bpe;

/// Published tokenizers in `SHARED_DATA`.
pub(crate) const PUBLISHED: [&str; 2] = ["allenai_gpt-neox-olmo-dolma-v1_5", "allenai_dolma2"];

/// A path in the directory of real data that `SHARED_DATA` names.
pub(crate) fn shared_data(path: &str) -> PathBuf {
    let folder = std::env::var_os("SHARED_DATA").expect("SHARED_DATA is not set; see docs/guide/testing.md");
    Path::new(&folder).join(path)
}

/// The crate's tokenizer and ours for a published one.
fn published(name: &str) -> (Tokenizer, Bpe) {
    made(&std::fs::read(shared_data(&format!("tokenizers/{name}.json"))).unwrap())
}

fn made(bytes: &[u8]) -> (Tokenizer, Bpe) {
    let tokenizer = Tokenizer::from_bytes(bytes).unwrap();
    let bpe = Bpe::load(bytes, &tokenizer).unwrap();
    (tokenizer, bpe)
}

/// The file of a tokenizer of the bytes and a few merges.
fn small_file(
    pre_tokenizer: serde_json::Value,
    normalizer: serde_json::Value,
    ignore_merges: bool,
) -> serde_json::Value {
    let mut vocab = serde_json::Map::new();
    for letter in super::load::letters() {
        vocab.insert(letter.to_string(), vocab.len().into());
    }
    let merges = ["t h", "th e", "Ġ the", "Ġ Ġ", "ĠĠ ĠĠ", "a b", "ab ab", "l l", "1 2", "Ċ Ċ", "Ã ©", "a a", "aa a"];
    for merge in merges {
        vocab.insert(merge.replace(' ', ""), vocab.len().into());
    }
    vocab.insert("whole".to_owned(), vocab.len().into());
    let token = |id: usize, content: &str, normalized: bool, special: bool| {
        serde_json::json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": normalized, "special": special})
    };
    let size = vocab.len();
    serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": normalizer, "pre_tokenizer": pre_tokenizer,
        "added_tokens": [token(size, "<|endoftext|>", false, true), token(size + 1, "   ", true, false),
            token(size + 2, "||é||", true, false), token(size + 3, "  ", true, false)],
        "post_processor": null, "decoder": null,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": ignore_merges,
            "vocab": vocab, "merges": merges},
    })
}

fn split(expression: &str) -> serde_json::Value {
    serde_json::json!({"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": false},
        {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}]})
}

/// Files of small tokenizers with every normalizer and pre-tokenizer that is supported.
pub(crate) fn small_files() -> Vec<serde_json::Value> {
    let byte_level = serde_json::json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true});
    let nfc = serde_json::json!({"type": "NFC"});
    vec![
        small_file(byte_level.clone(), nfc.clone(), false),
        small_file(byte_level, serde_json::Value::Null, true),
        small_file(split(CL100K), serde_json::Value::Null, false),
        small_file(split(ONE_DIGIT), nfc, true),
    ]
}

fn all_small() -> Vec<(Tokenizer, Bpe)> {
    small_files().iter().map(|file| made(&serde_json::to_vec(file).unwrap())).collect()
}

fn assert_same(pair: &mut (Tokenizer, Bpe), text: &str) {
    for literal in [false, true] {
        pair.0.set_encode_special_tokens(literal);
        let wanted = pair.0.encode_fast(text, false).unwrap().get_ids().to_vec();
        let found = pair.1.encode(text, literal);
        assert_eq!(found, wanted, "{:?}", &text.chars().take(80).collect::<String>());
        // once more, with the words known
        assert_eq!(pair.1.encode(text, literal), wanted);
    }
}

const EDGES: [&str; 24] = [
    "",
    " ",
    "  ",
    "   \n\n  a",
    "a  b   c    d                                        e",
    "don't DON'T we'll we'LL 'Re 'vE 'm'd '\u{17f}x it'\u{17f} 's's ' s 'sabc",
    "x\r\n\r\ny \r\n z\t\n\tq\r",
    "\u{a0}a\u{3000}\u{2028}b\u{85}c \u{a0} d",
    "123456 1234 12 1 ١٢٣٤ ²³¼Ⅷ a1b22c333",
    "!!! ... ?!\n\n??\r\n -- —x “quote” a!b",
    "e\u{301}a\u{30a}\u{323} \u{212b} \u{1100}\u{1161}\u{11a8} \u{ac00}\u{11a8}",
    "漢字かな交じり文。한국어 текст العربية עברית ไทย",
    "😀👨\u{200d}👩\u{200d}👧🏽 🇩🇪",
    "\0\u{1}\u{7f}\u{1c}\u{1d} \u{1e}\u{1f}a\u{feff}b\u{200b}",
    "a<|endoftext|>b<|endoftext|> <|padding|> |||IP_ADDRESS||| |||EMAIL_ADDRESS|||x <|end",
    "||é|| ||e\u{301}|| <|endof<|endoftext|>text|>",
    "İıſKÅ ŉ ﬀ ﬆ ß",
    "the the ththe abababab aaaaaaa whole  whole",
    "\u{10ffff}\u{e000}\u{fffd}\u{fffe}",
    "a\u{fe0f}\u{20e3}1\u{20e3}",
    " \u{301} \u{301}a \u{94d}क\u{94d}ष",
    "\n",
    "\n ",
    " \n",
];

#[test]
fn edges_have_the_ids_of_the_crate() {
    assert_same_at_edges(&mut all_small());
}

#[test]
#[ignore = "needs SHARED_DATA"]
fn edges_have_the_ids_of_the_crate_in_published_tokenizers() {
    assert_same_at_edges(&mut PUBLISHED.map(published));
}

fn assert_same_at_edges(pairs: &mut [(Tokenizer, Bpe)]) {
    for pair in pairs {
        for text in EDGES {
            assert_same(pair, text);
        }
        assert_same(pair, &EDGES.concat());
        for unit in ["a", "ab", "é", " ", "\n", "1", "!", "😀", "the", "x'"] {
            assert_same(pair, &unit.repeat(700));
        }
    }
}

#[test]
fn every_character_has_the_ids_of_the_crate() {
    // a byte for each merge of the small ones, so that a wrong boundary shows
    for pair in &mut all_small()[1..3] {
        let all: Vec<char> = (0..=0x10_ffff_u32)
            // beyond the first plane, one of each block of 16 is enough
            .filter(|code| *code < 0x1_0000 || code % 16 == 0)
            .filter_map(char::from_u32)
            .collect();
        for block in all.chunks(2048) {
            let text: String = block
                .iter()
                .flat_map(|c| [' ', ' ', *c, 't', 'h', *c, '1', '2', *c, '\'', *c, '!', '\n', *c])
                .collect();
            assert_same(pair, &text);
        }
    }
}

#[test]
fn other_forms_are_left_to_the_crate() {
    let (tokenizer, _) = made(&serde_json::to_vec(&small_files()[1]).unwrap());
    let text = tokenizer.to_string(false).unwrap();
    let load = |text: &str| Bpe::load(text.as_bytes(), &Tokenizer::from_bytes(text.as_bytes()).unwrap()).is_some();
    assert!(load(&text));
    for (from, to) in [
        ("\"add_prefix_space\":false", "\"add_prefix_space\":true"),
        ("\"normalizer\":null", "\"normalizer\":{\"type\":\"NFD\"}"),
        ("\"unk_token\":null", "\"unk_token\":\"a\""),
        ("\"end_of_word_suffix\":null", "\"end_of_word_suffix\":\"</w>\""),
        ("\"lstrip\":false", "\"lstrip\":true"),
        ("\"byte_fallback\":false", "\"byte_fallback\":true"),
    ] {
        let other = text.replacen(from, to, 1);
        assert_ne!(other, text, "{from}");
        assert!(!load(&other), "{to}");
    }
}

fn unpacked(path: &Path) -> String {
    let mut text = String::new();
    flate2::read::MultiGzDecoder::new(std::fs::File::open(path).unwrap()).read_to_string(&mut text).unwrap();
    text
}

#[test]
#[ignore = "needs SHARED_DATA"]
fn real_text_has_the_golden_ids_and_those_of_the_crate() {
    for name in PUBLISHED {
        let mut pair = published(name);
        let golden = unpacked(&shared_data("tokenizers/golden_encodings.jsonl.gz"));
        for line in golden.lines() {
            let row: serde_json::Value = serde_json::from_str(line).unwrap();
            let ids: Vec<u32> = serde_json::from_value(row["ids"][name].clone()).unwrap();
            assert_eq!(pair.1.encode(row["text"].as_str().unwrap(), false), ids, "{line}");
        }
        for source in std::fs::read_dir(shared_data("corpus")).unwrap() {
            let files = std::fs::read_dir(source.unwrap().path().join("documents")).unwrap();
            let path = files.map(|file| file.unwrap().path()).min().unwrap();
            for line in unpacked(&path).lines().take(12) {
                let row: serde_json::Value = serde_json::from_str(line).unwrap();
                let text: String = row["text"].as_str().unwrap().chars().take(20_000).collect();
                assert_same(&mut pair, &text);
            }
        }
    }
}

fn texts() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => any::<char>().prop_map(|c| c.to_string()),
        4 => "[a-zA-Z0-9' \r\n\t.,!<|>_]{1,12}",
        2 => proptest::sample::select(EDGES.to_vec()).prop_map(str::to_owned),
        1 => ("[ a1\n!]", 1..90_usize).prop_map(|(unit, count)| unit.repeat(count)),
        2 => "[\u{300}-\u{345}\u{1100}-\u{11ff}\u{ac00}\u{915}\u{94d}aeé]{1,6}",
    ];
    proptest::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

#[test]
fn random_text_has_the_ids_of_the_crate() {
    assert_same_for_random_text(all_small());
}

#[test]
#[ignore = "needs SHARED_DATA"]
fn random_text_has_the_ids_of_the_crate_in_published_tokenizers() {
    assert_same_for_random_text(PUBLISHED.map(published).into());
}

fn assert_same_for_random_text(pairs: Vec<(Tokenizer, Bpe)>) {
    let pairs = std::cell::RefCell::new(pairs);
    proptest!(ProptestConfig::with_cases(800), |(text in texts())| {
        for pair in pairs.borrow_mut().iter_mut() {
            assert_same(pair, &text);
        }
    });
}
