//! Taggers: text in, scored spans out. `build` is the one table of names.

mod classifier;
mod code;
mod language;
mod length;
mod licences;
pub mod overlap;
mod pii;
mod punctuation;
mod random;
mod repetitions;
mod resources;
mod rules;
pub(crate) mod text;
mod tokenizers;
mod url;

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::LazyLock;

pub use pii::Folded;
pub use resources::{needs, required, Need, Resource};
pub use text::sentences::sentences;
pub use text::word_break::starts as word_starts;
pub use text::{Paragraph, Text};

use crate::error::{Error, Result};
use language::Languages::{All, English, EnglishOrNot, Likely};
use language::Unit::{Document, Paragraph as EachParagraph, ParagraphAndDocument};

/// A scored part of a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// Code points from the beginning of the text.
    pub start: usize,
    /// Code points, exclusive.
    pub end: usize,
    /// The last part of the attribute key.
    pub kind: Cow<'static, str>,
    /// Rounded to five decimals when it is written.
    pub score: f64,
}

/// What a tagger may need besides the text.
#[derive(Clone, Debug, Default)]
pub struct TaggerOptions {
    /// The fastText language model `lid.176.ftz` (or `.bin`).
    pub language_model: Option<PathBuf>,
    /// Lists, models and tokenizers that the user gives to this tagger, in order.
    pub resources: Vec<Resource>,
}

/// Finds spans in a text.
pub trait Tagger: Send + Sync {
    /// Appends the spans in the order in which they are found.
    fn tag(&self, text: &Text<'_>, spans: &mut Vec<Span>) -> Result<()>;
}

/// Classes of [`cost_class`].
pub const COST_CLASSES: usize = 3;

/// How dear a tagger is: 0 for a look at each byte, 1 for a look at each word, 2 for a model (bench/results.md).
pub fn cost_class(name: &str) -> usize {
    const MODELS: [&str; 5] = ["ft_", "fasttext_", "jigsaw_", "dclm-", "dolma17-"];
    const WORDS: [&str; 6] = ["gopher_", "c4_", "repetitions_", "fineweb_", "uniseg_", "code_"];
    let is_of = |families: &[&str]| families.iter().any(|family| name.starts_with(family));
    match name {
        _ if is_of(&MODELS) => 2,
        _ if is_of(&WORDS) => 1,
        _ => 0,
    }
}

/// Every native tagger: (name, one-line description), sorted by name.
pub fn names() -> &'static [(&'static str, &'static str)] {
    static ALL: LazyLock<Vec<(&str, &str)>> = LazyLock::new(|| {
        let mut all = own_names().to_vec();
        all.extend(url::SOURCES.iter().map(|source| (source.name, source.description)));
        all.extend(tokenizers::NAMES.iter().map(|&(name, description, _)| (name, description)));
        all.sort_unstable();
        all
    });
    &ALL
}

/// Old names of taggers and the names that replaced them. Both build the same tagger.
pub const RENAMED: [(&str, &str); 3] = [
    ("pii_regex_v3", "pii_exact_v1"),
    ("pii_regex_v4", "pii_international_v1"),
    ("pii_regex_with_accounts_v4", "pii_international_with_accounts_v1"),
];

/// Those that no family has in a table of its own.
fn own_names() -> &'static [(&'static str, &'static str)] {
    &[
        ("cc_re", "Creative Commons licences that links in metadata.html name, with version and language"),
        ("cc_re_fast", "Creative Commons licences that metadata.html names"),
        ("code_copyright_comments_v1", "copyright notice, or comments at the beginning of source code"),
        ("bytes_length_v1", "length of the document in bytes"),
        ("c4_full_v1", "every rule of C4 for lines and documents; citations, sentences"),
        ("c4_v1", "lines and documents that C4 drops; \"javascript\" as a word"),
        ("c4_v2", "lines and documents that C4 drops; \"javascript\" anywhere"),
        ("char_length_strip_ws_v1", "length in code points without the white space around the text"),
        ("char_length_v1", "length of the document in code points"),
        ("char_length_with_paragraphs_v1", "length of the document and its paragraphs in code points"),
        ("code_composition", "lines of code, of prose and others, by a fastText model of yours"),
        ("code_redpajama_taggers_v1", "line lengths and share of letters in source code"),
        ("dclm-oh-eli5", "quality of the document, by DCLM's fastText model or yours"),
        ("doc_count_v1", "one, to count documents"),
        ("dolma17-quality", "every label of the document, by Dolma v1.7's fastText model or yours"),
        (
            "evaluation_overlap_v1",
            "parts that evaluation items have too, and their share; by an index of `dolma decontaminate`",
        ),
        ("fasttext_document_v1", "every label of the document, by a fastText model of yours"),
        ("fasttext_paragraph_v1", "every label of each paragraph, by a fastText model of yours"),
        ("fasttext_sentence_v1", "every label of each sentence, by a fastText model of yours"),
        ("fineweb_v1", "line ratios of FineWeb: punctuation, short lines, duplicates, newlines"),
        ("ft_lang_id_1e2", "languages of the document above 0.01, to two decimals"),
        ("ft_lang_id_doc_v1", "every language's score of the document"),
        ("ft_lang_id_en_doc_v2", "whether the document is English or not"),
        ("ft_lang_id_en_only_v2", "whether the document is English"),
        ("ft_lang_id_en_paragraph_v2", "whether each paragraph is English or not"),
        (
            "ft_lang_id_en_paragraph_with_doc_score_v2",
            "whether each paragraph is English or not, and the mean over characters",
        ),
        ("ft_lang_id_paragraph_v1", "every language's score of each paragraph"),
        ("gopher_paper_v1", "quality and repetition rules of Gopher as the paper has them"),
        ("gopher_v1", "quality and repetition rules of Gopher"),
        ("gopher_v2", "quality and repetition rules of Gopher; ignores empty lines"),
        ("jigsaw_hatespeech_document_v2", "toxicity of the document, by dolma's fastText model or yours"),
        ("jigsaw_hatespeech_sentence_v2", "toxicity of each sentence, by dolma's fastText model or yours"),
        ("jigsaw_nsfw_document_v1", "obscenity of the document, by dolma's fastText model or yours"),
        ("jigsaw_nsfw_sencence_v2", "obscenity of each sentence, by dolma's fastText model or yours"),
        ("not_alphanum_paragraph_v1", "paragraphs of only punctuation and symbols"),
        ("olmo_pretokenizer_v1", "number of pieces before OLMo's BPE"),
        ("olmo_pretokenizer_with_paragraphs_v1", "number of pieces before OLMo's BPE, by paragraph"),
        ("paragraph_repetitions_v1", "characters that repeat four times or more within a paragraph"),
        ("pii_exact_v1", "e-mails, North American phone numbers, IPv4 addresses: exact spans, count, fraction"),
        ("pii_international_v1", "e-mails, phone numbers of any country, IP addresses: exact spans, count, fraction"),
        (
            "pii_international_with_accounts_v1",
            "as pii_international_v1, and payment cards, IBANs, American social security numbers",
        ),
        ("pii_regex_v1", "e-mails, phone numbers, IP addresses; hits per word"),
        ("pii_regex_v2", "e-mails, phone numbers, IP addresses; hits per word"),
        (
            "pii_regex_with_counts_fast_v2",
            "e-mails, phone numbers, IP addresses by paragraph; count, fraction plus one",
        ),
        ("pii_regex_with_counts_v2", "e-mails, phone numbers, IP addresses; hits per word, count"),
        ("random_number_v1", "a number in [0, 1) that depends only on the text"),
        ("refinedweb_v1", "lines and phrases that RefinedWeb drops, and their share"),
        ("repetitions_v1", "characters that repeat four times or more"),
        ("uniseg_length_paragraphs_v1", "Unicode words of each paragraph that is not blank"),
        (
            "uniseg_length_paragraphs_with_doc_length_v1",
            "Unicode words of each paragraph that is not blank, and their sum",
        ),
        ("uniseg_length_paragraphs_with_empty_v1", "Unicode words of each paragraph"),
        ("uniseg_length_v1", "Unicode words of the document, white space between them counted"),
        ("whitespace_tokenizer_v1", "runs of word and other characters, plus one"),
        ("whitespace_tokenizer_with_paragraphs_v1", "runs of word and other characters, plus one each, by paragraph"),
    ]
}

/// The tagger of that name.
///
/// Fails with a `Config` error for a name that is neither in `names` nor an old one, and for a language tagger without its model.
pub fn build(name: &str, options: &TaggerOptions) -> Result<Box<dyn Tagger>> {
    let name = RENAMED.iter().find(|(old, _)| *old == name).map_or(name, |(_, new)| new);
    let document = |kind, length| -> Result<Box<dyn Tagger>> { Ok(Box::new(length::DocumentLength { kind, length })) };
    if let Some(classifier) = classifier::build(name, &options.resources) {
        return classifier;
    }
    let family = || {
        url::build(name, &options.resources)
            .or_else(|| tokenizers::build(name, &options.resources))
            .or_else(|| overlap::tagger::build(name, &options.resources))
    };
    if let Some(tagger) = family() {
        return tagger;
    }
    let language = |unit, languages| -> Result<Box<dyn Tagger>> {
        let Some(model) = &options.language_model else {
            return Err(Error::config("language_model", format!("is not set, and \"{name}\" needs it"))
                .with_hint("name a fastText language model, as lid.176.ftz"));
        };
        Ok(Box::new(language::LanguageTagger::new(model, unit, languages)?))
    };
    Ok(match name {
        "bytes_length_v1" => return document("bytes", |text| text.as_str().len()),
        "c4_full_v1" => Box::new(rules::c4_full::C4Full),
        "c4_v1" => Box::new(rules::c4::C4 { javascript_as_word: true }),
        "c4_v2" => Box::new(rules::c4::C4 { javascript_as_word: false }),
        "char_length_strip_ws_v1" => return document("length_no_ws", length::stripped_chars),
        "char_length_v1" => return document("length", |text| text.length_chars()),
        "char_length_with_paragraphs_v1" => Box::new(length::ParagraphLengths {
            length: crate::unicode::count_chars,
            document_length: Some(|text| text.length_chars()),
        }),
        "cc_re" => Box::new(licences::Licences::exact()?),
        "cc_re_fast" => Box::new(licences::Licences::fast()?),
        "code_copyright_comments_v1" => Box::new(code::CopyrightComments),
        "code_redpajama_taggers_v1" => Box::new(code::CodeShape),
        "doc_count_v1" => return document("docs", |_| 1),
        "fineweb_v1" => Box::new(rules::fineweb::FineWeb),
        "ft_lang_id_1e2" => return language(Document, Likely),
        "ft_lang_id_doc_v1" => return language(Document, All),
        "ft_lang_id_en_doc_v2" => return language(Document, EnglishOrNot),
        "ft_lang_id_en_only_v2" => return language(Document, English),
        "ft_lang_id_en_paragraph_v2" => return language(EachParagraph, EnglishOrNot),
        "ft_lang_id_en_paragraph_with_doc_score_v2" => return language(ParagraphAndDocument, EnglishOrNot),
        "ft_lang_id_paragraph_v1" => return language(EachParagraph, All),
        "gopher_paper_v1" => Box::new(rules::gopher_paper::GopherPaper),
        "gopher_v1" => Box::new(rules::gopher::Gopher { skip_empty_lines: false }),
        "gopher_v2" => Box::new(rules::gopher::Gopher { skip_empty_lines: true }),
        "not_alphanum_paragraph_v1" => Box::new(punctuation::PunctuationParagraphs),
        "olmo_pretokenizer_v1" => return document("length", |text| text::pretokenizer::count(text.as_str())),
        "olmo_pretokenizer_with_paragraphs_v1" => {
            Box::new(length::ParagraphLengths { length: text::pretokenizer::count, document_length: None })
        }
        "paragraph_repetitions_v1" => Box::new(repetitions::Repetitions { by_paragraph: true }),
        "pii_exact_v1" => Box::new(pii::PiiExact),
        "pii_international_v1" => Box::new(pii::PiiInternational { with_accounts: false }),
        "pii_international_with_accounts_v1" => Box::new(pii::PiiInternational { with_accounts: true }),
        "pii_regex_v1" | "pii_regex_v2" => Box::new(pii::PiiOfDocument { with_count: false }),
        "pii_regex_with_counts_fast_v2" => Box::new(pii::PiiOfParagraphs),
        "pii_regex_with_counts_v2" => Box::new(pii::PiiOfDocument { with_count: true }),
        "random_number_v1" => Box::new(random::RandomNumber),
        "refinedweb_v1" => Box::new(rules::refinedweb::RefinedWeb),
        "repetitions_v1" => Box::new(repetitions::Repetitions { by_paragraph: false }),
        "uniseg_length_paragraphs_v1" => {
            Box::new(length::WordsOfParagraphs { with_empty: false, with_document: false })
        }
        "uniseg_length_paragraphs_with_doc_length_v1" => {
            Box::new(length::WordsOfParagraphs { with_empty: false, with_document: true })
        }
        "uniseg_length_paragraphs_with_empty_v1" => {
            Box::new(length::WordsOfParagraphs { with_empty: true, with_document: false })
        }
        "uniseg_length_v1" => return document("length", |text| length::num_unicode_words(text.as_str())),
        "whitespace_tokenizer_v1" => return document("length", |text| length::num_word_runs_and_one(text.as_str())),
        "whitespace_tokenizer_with_paragraphs_v1" => {
            Box::new(length::ParagraphLengths { length: length::num_word_runs_and_one, document_length: None })
        }
        _ => return Err(unknown(name)),
    })
}

/// Three names at most, the nearest first.
fn unknown(name: &str) -> Error {
    let mut nearest: Vec<(usize, &str)> =
        names().iter().map(|&(known, _)| (edit_distance(name, known), known)).collect();
    nearest.sort_unstable();
    let nearest: Vec<String> = nearest.iter().take(3).map(|(_, known)| format!("\"{known}\"")).collect();
    Error::config("taggers", format!("\"{name}\" is not a tagger; expected a name that `dolma list` prints"))
        .with_hint(format!("the nearest are {}", nearest.join(", ")))
}

/// Levenshtein distance in characters.
fn edit_distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (at, character) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = at + 1;
        for (index, &other) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(character != other);
            diagonal = row[index + 1];
            row[index + 1] = replaced.min(diagonal + 1).min(row[index] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_builds_and_names_are_sorted() {
        let options = TaggerOptions::default();
        assert!(names().windows(2).all(|two| two[0].0 < two[1].0));
        for (name, _) in names() {
            let is_complete = !name.starts_with("ft_lang_id") && needs(name).is_none();
            assert_eq!(build(name, &options).is_ok(), is_complete, "{name}");
        }
    }

    #[test]
    fn an_old_name_builds_the_tagger_of_the_new_one() {
        let options = TaggerOptions::default();
        let text = Text::new("a@b.com, +44 20 7946 0958, 4111 1111 1111 1111");
        for (old, new) in RENAMED {
            assert!(names().iter().all(|(name, _)| *name != old));
            let [mut found, mut expected] = [Vec::new(), Vec::new()];
            build(old, &options).unwrap().tag(&text, &mut found).unwrap();
            build(new, &options).unwrap().tag(&text, &mut expected).unwrap();
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn an_unknown_name_comes_with_the_nearest() {
        let Err(error) = build("gopher_v3", &TaggerOptions::default()) else { panic!() };
        assert_eq!(
            error.to_string(),
            "taggers: \"gopher_v3\" is not a tagger; expected a name that `dolma list` prints\n\
             hint: the nearest are \"gopher_v1\", \"gopher_v2\", \"c4_v1\""
        );
    }
}
