//! Megabytes of text per CPU second on one core: `cargo bench -p dolma_core --bench taggers -- FILE [TAGGER…]`. `A+B` runs both on each
//! document, as one run of `dolma tag` does.
//!
//! The file is plain text.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod texts;

use dolma_core::taggers::{build, names, Tagger, TaggerOptions, Text};
use texts::{documents, rate};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let Some((path, chosen)) = arguments.split_first() else {
        eprintln!("usage: cargo bench -p dolma_core --bench taggers -- FILE [TAGGER…]");
        return;
    };
    let documents = documents(path);
    let options = TaggerOptions {
        language_model: std::env::var_os("DOLMA_LID_MODEL").map(Into::into),
        ..TaggerOptions::default()
    };
    // `cc_re` looks at the HTML of a row
    let all = || names().iter().map(|(name, _)| (*name).to_owned()).filter(|name| !name.starts_with("cc_re"));
    let works: Vec<String> = if chosen.is_empty() { all().collect() } else { chosen.to_vec() };
    for work in works {
        let taggers: Result<Vec<Box<dyn Tagger>>, _> = work.split('+').map(|name| build(name, &options)).collect();
        let Ok(taggers) = taggers else { continue };
        let mut spans = Vec::new();
        let found = rate(&documents, |document| {
            spans.clear();
            let text = Text::new(document);
            taggers.iter().for_each(|tagger| tagger.tag(&text, &mut spans).unwrap());
        });
        println!("{work:45} {found:8.1} MB/s");
    }
}
