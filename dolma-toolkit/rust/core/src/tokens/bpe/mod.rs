//! Byte-level BPE of our own, for the tokenizers that OLMo, GPT-2, GPT-NeoX and their kin are: the ids of the `tokenizers` crate at many
//! times its speed. What is not of that form is left to the crate.

mod added;
mod cache;
mod load;
mod merge;
mod normalize;
mod split;
#[cfg(test)]
pub(crate) mod tests;

use std::sync::Mutex;

use added::{AddedTokens, Part};
use cache::Words;
use merge::{Merges, Scratch};
use split::Pattern;

/// A tokenizer of the supported form; shared between threads.
pub struct Bpe {
    /// Found in a text as it is.
    added: AddedTokens,
    composes: bool,
    /// Found after normalization.
    added_normalized: AddedTokens,
    pattern: Pattern,
    /// The id of each byte.
    bytes: [u32; 256],
    merges: Merges,
    /// Of whole words, where such are not made by merging.
    whole: Option<rustc_hash::FxHashMap<Box<[u8]>, u32>>,
    /// What idle threads know of words; one for each thread at most.
    workers: Mutex<Vec<Worker>>,
}

/// What one thread needs besides the tokenizer.
#[derive(Default)]
struct Worker {
    words: Words,
    scratch: Scratch,
}

impl Bpe {
    /// The ids of a text. `literal`: special tokens that it spells are text.
    pub fn encode(&self, text: &str, literal: bool) -> Vec<u32> {
        let mut worker = self.workers.lock().ok().and_then(|mut idle| idle.pop()).unwrap_or_default();
        // a token has four letters or so
        let mut ids = Vec::with_capacity(text.len() / 4 + 8);
        self.added.cut(text, literal, |part| match part {
            Part::Token(id) => ids.push(id),
            Part::Text(text) => {
                let text = if self.composes { normalize::composed(text) } else { text.into() };
                self.added_normalized.cut(&text, literal, |part| match part {
                    Part::Token(id) => ids.push(id),
                    Part::Text(text) => self.encode_plain(text, &mut worker, &mut ids),
                });
            }
        });
        if let Ok(mut idle) = self.workers.lock() {
            idle.push(worker);
        }
        ids
    }

    fn encode_plain(&self, text: &str, worker: &mut Worker, ids: &mut Vec<u32>) {
        let Worker { words, scratch } = worker;
        self.pattern.cut(text, |start, end| {
            words.find_or_make(text.as_bytes(), start, end, ids, |word, ids| self.encode_word(word, scratch, ids));
        });
    }

    fn encode_word(&self, word: &[u8], scratch: &mut Scratch, ids: &mut Vec<u32>) {
        if let Some(id) = self.whole.as_ref().and_then(|whole| whole.get(word)) {
            ids.push(*id);
            return;
        }
        self.merges.merge(word.iter().map(|byte| self.bytes[usize::from(*byte)]), scratch, ids);
    }
}
