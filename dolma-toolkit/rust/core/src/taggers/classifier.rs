//! fastText classifiers of the user's, by document, paragraph or sentence; under dolma's names with the labels that dolma gives.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use super::code::lines_of_python;
use super::language::{have_own_keys, shared, two_decimals};
use super::resources::{required, Need, Resource};
use super::text::sentences::sentences;
use super::{Span, Tagger, Text};
use crate::error::{Error, Result};
use crate::fasttext::Model;
use crate::unicode::{count_chars, strip};

const PREFIX: &str = "__label__";

/// What is scored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Document,
    Paragraph,
    Sentence,
}

/// What is said of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// Every label without prefix, the most probable first.
    Labels,
    /// Both labels with their prefix, that without "non" first.
    Positive,
    /// One number, as DCLM's classifier gives it.
    Score,
    /// Every label; the words are separated by one blank.
    Words,
    /// How many lines are code, prose or something else.
    Composition,
}

/// A classifier.
pub struct Classifier {
    model: Arc<Model>,
    unit: Unit,
    answer: Answer,
    /// Labels without prefix, by their number.
    names: Vec<Cow<'static, str>>,
}

type Scored = Vec<(Cow<'static, str>, f64)>;

fn kind_of(name: &str) -> Option<(Unit, Answer, &'static [&'static str])> {
    Some(match name {
        "code_composition" => (Unit::Document, Answer::Composition, &[]),
        "dclm-oh-eli5" => (Unit::Document, Answer::Score, DCLM),
        "dolma17-quality" => (Unit::Document, Answer::Words, DOLMA17),
        "fasttext_document_v1" => (Unit::Document, Answer::Labels, &[]),
        "fasttext_paragraph_v1" => (Unit::Paragraph, Answer::Labels, &[]),
        "fasttext_sentence_v1" => (Unit::Sentence, Answer::Labels, &[]),
        "jigsaw_hatespeech_document_v2" => (Unit::Document, Answer::Positive, HATE),
        "jigsaw_hatespeech_sentence_v2" => (Unit::Sentence, Answer::Positive, HATE),
        "jigsaw_nsfw_document_v1" => (Unit::Document, Answer::Positive, NSFW),
        "jigsaw_nsfw_sencence_v2" => (Unit::Sentence, Answer::Positive, NSFW),
        _ => return None,
    })
}

const DCLM: &[&str] = &[concat!(
    "https://huggingface.co/mlfoundations/fasttext-oh-eli5/resolve/main/",
    "openhermes_reddit_eli5_vs_rw_v2_bigram_200k_train.bin"
)];
const DOLMA17: &[&str] = &[concat!(
    "https://dolma-artifacts.org/fasttext_models/dolma-1_7/",
    "cc_wiki_wikiref_sw_pes2o_adult_fakenews_math_books_openhermes.bin"
)];
const HATE: &[&str] = &[concat!(
    "https://dolma-artifacts.org/fasttext_models/jigsaw_fasttext_bigrams_20230515/",
    "jigsaw_fasttext_bigrams_hatespeech_final.bin"
)];
const NSFW: &[&str] = &[concat!(
    "https://dolma-artifacts.org/fasttext_models/jigsaw_fasttext_bigrams_20230515/",
    "jigsaw_fasttext_bigrams_nsfw_final.bin"
)];

/// What the tagger of that name needs, if it is one of these.
pub fn needs(name: &str) -> Option<Need> {
    kind_of(name).map(|(_, _, urls)| Need { what: "a fastText model (.bin or .ftz)", urls })
}

/// The tagger of that name, if it is one of these.
pub fn build(name: &str, resources: &[Resource]) -> Option<Result<Box<dyn Tagger>>> {
    let (unit, answer, _) = kind_of(name)?;
    Some(Classifier::new(name, unit, answer, resources).map(|tagger| Box::new(tagger) as Box<dyn Tagger>))
}

impl Classifier {
    fn new(name: &str, unit: Unit, answer: Answer, resources: &[Resource]) -> Result<Classifier> {
        let resources = required(name, resources)?;
        let [resource] = resources else {
            let message = format!("has {} files; expected one fastText model", resources.len());
            return Err(Error::config(format!("resources.{name}"), message));
        };
        let model = shared(&resource.path)?;
        let bare = |label: &str| label.replace(PREFIX, "");
        let names: Vec<_> = (0..model.num_labels()).map(|number| Cow::Owned(bare(model.label(number)))).collect();
        have_own_keys(&format!("resources.{name}"), &names)?;
        Ok(Classifier { model, unit, answer, names })
    }

    fn answer(&self, text: &str) -> Scored {
        match self.answer {
            Answer::Labels => self.labels(strip(&text.replace('\n', " "))),
            Answer::Positive => {
                let mut scored = self.labels(strip(&text.replace('\n', " ")));
                scored.iter_mut().for_each(|(name, _)| *name = Cow::Owned(format!("{PREFIX}{name}")));
                if scored.len() == 2 && scored[0].0.contains("non") {
                    scored.swap(0, 1);
                }
                scored
            }
            Answer::Words => {
                let words: Vec<&str> = text.split_whitespace().collect();
                self.labels(&words.join(" "))
            }
            Answer::Score => {
                let lines: Vec<&str> = lines_of_python(strip(text)).collect();
                self.model.predict(&lines.join(" ")).first().map_or_else(Vec::new, |&(label, score)| {
                    let name = &self.names[label];
                    let score = f64::from(score);
                    let score = if name == "cc" { 1.0 - score } else { score };
                    vec![(Cow::Owned(name.replace("cc", "score").replace("hq", "score")), score)]
                })
            }
            Answer::Composition => self.composition(text),
        }
    }

    fn labels(&self, line: &str) -> Scored {
        let scored = self.model.predict(line).into_iter();
        scored.map(|(label, score)| (self.names[label].clone(), f64::from(score))).collect()
    }

    /// Changes between code and prose, then share, number and mean entropy in bits of each class of lines, as they come.
    fn composition(&self, text: &str) -> Scored {
        let mut order: Vec<Cow<'static, str>> = Vec::new();
        let mut of_class: HashMap<Cow<'static, str>, (f64, f64)> = HashMap::new();
        let mut before = Cow::Borrowed("");
        let mut changes = 0.0;
        let mut total = 0.0;
        for line in lines_of_python(text).map(strip).filter(|line| !line.is_empty()) {
            let scored = if count_chars(line) > 3 { self.labels(line) } else { Vec::new() };
            let class = scored.first().map_or(Cow::Borrowed("other"), |(name, _)| name.clone());
            let entropy = scored.iter().fold(0.0, |sum, (_, share)| sum - share * share.log2());
            if !of_class.contains_key(&class) {
                order.push(class.clone());
            }
            let (count, sum) = of_class.entry(class.clone()).or_default();
            *count += 1.0;
            *sum += entropy;
            total += 1.0;
            let is_either = |class: &str| class == "code" || class == "prose";
            if is_either(&before) && is_either(&class) && before != class {
                changes += 1.0;
            }
            before = class;
        }
        let mut scored = vec![(Cow::Borrowed("boundaries"), changes)];
        for class in order {
            let (count, entropy) = of_class[&class];
            scored.push((Cow::Owned(format!("{class}_pct")), two_decimals(count / total)));
            scored.push((class.clone(), count));
            scored.push((Cow::Owned(format!("{class}_entropy")), entropy / count));
        }
        scored
    }
}

impl Tagger for Classifier {
    fn tag(&self, text: &Text<'_>, spans: &mut Vec<Span>) -> Result<()> {
        let mut push = |unit: &str, start, end| {
            spans.extend(self.answer(unit).into_iter().map(|(kind, score)| Span { start, end, kind, score }));
        };
        match self.unit {
            Unit::Document => push(text.as_str(), 0, text.length_chars()),
            Unit::Paragraph => {
                text.filled_paragraphs().for_each(|paragraph| push(paragraph.text, paragraph.start, paragraph.end));
            }
            Unit::Sentence => {
                for (start, end) in sentences(text.as_str()) {
                    push(&text.as_str()[start..end], text.code_point(start), text.code_point(end));
                }
            }
        }
        Ok(())
    }
}
