//! Added tokens: spelt in a text, they are cut out before anything else is done with it.

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};

/// A text is a row of these.
pub enum Part<'a> {
    /// An added token.
    Token(u32),
    /// What is between two of them.
    Text(&'a str),
}

/// Added tokens that are looked for together; the longest of those that begin first is taken.
pub struct AddedTokens {
    finder: Option<AhoCorasick>,
    /// Id, and whether it is special, in the order of the finder's patterns.
    tokens: Vec<(u32, bool)>,
}

impl AddedTokens {
    /// Of (spelling, id, special); `None` when no finder can be made of them.
    pub fn new(tokens: &[(String, u32, bool)]) -> Option<AddedTokens> {
        let finder = match tokens.is_empty() {
            true => None,
            false => Some(
                AhoCorasick::builder()
                    .match_kind(MatchKind::LeftmostLongest)
                    .kind(Some(AhoCorasickKind::DFA))
                    .build(tokens.iter().map(|token| &token.0))
                    .ok()?,
            ),
        };
        Some(AddedTokens { finder, tokens: tokens.iter().map(|token| (token.1, token.2)).collect() })
    }

    /// Gives the parts of `text` in order. With `literal`, special tokens stay text; they still hide what is spelt inside them.
    pub fn cut<'a>(&self, text: &'a str, literal: bool, mut take: impl FnMut(Part<'a>)) {
        let mut from = 0;
        for found in self.finder.iter().flat_map(|finder| finder.find_iter(text)) {
            let (id, special) = self.tokens[found.pattern().as_usize()];
            if literal && special {
                continue;
            }
            if from < found.start() {
                take(Part::Text(&text[from..found.start()]));
            }
            take(Part::Token(id));
            from = found.end();
        }
        if from < text.len() {
            take(Part::Text(&text[from..]));
        }
    }
}
