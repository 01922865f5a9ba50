//! Megabytes of text a second on one core, for each tokenizer: `cargo bench -p dolma_core --bench tokens -- FILE TOKENIZER_JSON…`.
//!
//! The file is plain text; the `tokenizers` crate is timed next to our encoder.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod texts;

use std::path::PathBuf;

use dolma_core::document::Place;
use dolma_core::tokens::{Encoder, TokenizerPlan};
use texts::{documents, rate};
use tokenizers::Tokenizer;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let Some((path, tokenizers)) = arguments.split_first() else {
        eprintln!("usage: cargo bench -p dolma_core --bench tokens -- FILE TOKENIZER_JSON…");
        return;
    };
    let documents = documents(path);
    for name in tokenizers {
        let plan = TokenizerPlan {
            path: PathBuf::from(name),
            bos_token_id: None,
            eos_token_id: Some(0),
            pad_token_id: None,
            segment_before_tokenization: false,
            encode_special_tokens: Some(false),
        };
        let encoder = Encoder::load(&plan).unwrap();
        let place = Place { path, line: 1 };
        let ours = rate(&documents, |text| encoder.encode(text, &place).unwrap().ids.len());
        let tokenizer = Tokenizer::from_file(name).unwrap();
        let crates = rate(&documents, |text| tokenizer.encode_fast(text, false).unwrap().len());
        println!("{name}: {ours:.1} MB/s, the crate {crates:.1} MB/s");
    }
}
