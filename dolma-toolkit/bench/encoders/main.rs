//! `encoders TOKENIZER FILE…`: megabytes of text a second that encoders of cl100k_base, whose ranks dolma2 has, turn into ids
//! on one thread. Every encoder gets the same texts in turn, and has to give the same ids.

use std::path::Path;
use std::time::{Duration, Instant};

use dolma_core::document::{parse_row, Place};
use dolma_core::jsonl::LineReader;
use dolma_core::tokens::{Encoder, TokenizerPlan};

const ROUNDS: usize = 5;

type Encode = Box<dyn Fn(&str) -> Vec<u32>>;

fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("expected TOKENIZER FILE…")?;
    let mut texts = Vec::new();
    for file in arguments {
        let mut reader = LineReader::open(Path::new(&file))?;
        while let Some(line) = reader.next_line()? {
            let line = line.to_vec();
            texts.push(parse_row(&line, &reader.place())?.text.into_owned());
        }
    }
    let plan = TokenizerPlan {
        path: path.clone().into(),
        bos_token_id: None,
        eos_token_id: None,
        pad_token_id: None,
        segment_before_tokenization: false,
        encode_special_tokens: Some(true),
    };
    let ours = Encoder::load(&plan)?;
    let mut tokenizers = tokenizers::Tokenizer::from_file(&path)?;
    tokenizers.set_encode_special_tokens(true);
    let tiktoken = tiktoken_rs::cl100k_base()?;
    let bpe = bpe_openai::cl100k_base();
    let encoders: [(&str, Encode); 4] = [
        ("dolma", Box::new(move |text| ours.encode(text, &Place { path: "", line: 0 }).expect("ids").ids)),
        ("tokenizers", Box::new(move |text| tokenizers.encode_fast(text, false).expect("ids").get_ids().to_vec())),
        ("tiktoken-rs", Box::new(move |text| tiktoken.encode_ordinary(text))),
        ("bpe-openai", Box::new(move |text| bpe.encode(text))),
    ];
    let megabytes = texts.iter().map(String::len).sum::<usize>() as f64 / 1e6;
    let mut differing = [0; 4];
    for text in &texts {
        let expected = encoders[1].1(text);
        for ((_, encode), differing) in encoders.iter().zip(&mut differing) {
            *differing += usize::from(encode(text) != expected);
        }
    }
    let mut best = [Duration::MAX; 4];
    for _ in 0..ROUNDS {
        for ((_, encode), best) in encoders.iter().zip(&mut best) {
            let start = Instant::now();
            for text in &texts {
                std::hint::black_box(encode(text));
            }
            *best = (*best).min(start.elapsed());
        }
    }
    for ((name, _), (best, differing)) in encoders.iter().zip(best.iter().zip(differing)) {
        println!("{name}\t{:.2}\t{differing}", megabytes / best.as_secs_f64());
    }
    Ok(())
}
