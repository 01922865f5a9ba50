//! jq's `?//` between patterns, which jaq's parser lacks: `.a as [$x] ?// $x | BODY` takes the first pattern with which
//! `BODY` does not fail. The variables of the other patterns are null.
//!
//! It is rewritten as `.a as $v | . as $in | try (.. $v as [$x] | BODY) catch ($in | .. $v as $x | BODY)`.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt::Write;

/// The expression without `?//`. It is unchanged if it has none, or does not use it as jq does.
pub fn expanded(text: &str) -> Cow<'_, str> {
    expand(text, &mut 0).map_or(Cow::Borrowed(text), Cow::Owned)
}

fn expand(text: &str, count: &mut usize) -> Option<String> {
    if !text.contains("?//") {
        return None;
    }
    let tokens = tokens(text);
    for (index, (start, word)) in tokens.iter().enumerate() {
        if *word != "as" {
            continue;
        }
        let Some((patterns, bar)) = patterns(text, &tokens, index + 1) else { continue };
        let body_start = tokens.get(bar)?.0 + 1;
        let body_end = body_end(text, &tokens, bar + 1);
        let body = &text[body_start..body_end];
        let body = expand(body, count).unwrap_or_else(|| body.to_string());
        *count += 1;
        let (value, input) = (format!("$__value{count}"), format!("$__input{count}"));
        let all: BTreeSet<&str> = patterns.iter().flat_map(|pattern| variables(pattern)).collect();
        let mut choice = String::new();
        for (place, pattern) in patterns.iter().enumerate() {
            let mut one = format!("{input} | ");
            let own: BTreeSet<&str> = variables(pattern).collect();
            for variable in all.difference(&own) {
                let _ = write!(one, "null as {variable} | ");
            }
            let _ = write!(one, "{value} as {pattern} | ({body})");
            let is_last = place + 1 == patterns.len();
            let _ = if is_last { write!(choice, "({one})") } else { write!(choice, "(try ({one}) catch ") };
        }
        choice.push_str(&")".repeat(patterns.len() - 1));
        let rest = format!("{}as {value} | . as {input} | {choice}{}", &text[..*start], &text[body_end..]);
        return Some(expand(&rest, count).unwrap_or(rest));
    }
    None
}

/// The patterns from a token on that `?//` separates, at least two, and the position of the `|` after them.
fn patterns<'t>(text: &'t str, tokens: &[(usize, &'t str)], mut at: usize) -> Option<(Vec<&'t str>, usize)> {
    let mut found = Vec::new();
    loop {
        let (start, first) = *tokens.get(at)?;
        let mut depth = 0_usize;
        // one variable, or a pattern in brackets
        loop {
            match tokens.get(at)?.1 {
                "[" | "{" | "(" => depth += 1,
                "]" | "}" | ")" => depth = depth.checked_sub(1)?,
                _ => {}
            }
            at += 1;
            if depth == 0 {
                break;
            }
        }
        if !matches!(first, "[" | "{") && !first.starts_with('$') {
            return None;
        }
        let (next_start, next) = *tokens.get(at)?;
        found.push(text[start..next_start].trim_end());
        match next {
            "?//" => at += 1,
            "|" if found.len() > 1 => return Some((found, at)),
            _ => return None,
        }
    }
}

/// Where the expression after a `|` ends: at the end of its bracket, argument or branch.
fn body_end(text: &str, tokens: &[(usize, &str)], from: usize) -> usize {
    let (mut brackets, mut ifs, mut definitions) = (0_usize, 0_usize, 0_usize);
    for (start, word) in tokens.iter().skip(from) {
        match *word {
            "(" | "[" | "{" => brackets += 1,
            ")" | "]" | "}" if brackets == 0 => return *start,
            ")" | "]" | "}" => brackets -= 1,
            _ if brackets > 0 => {}
            "def" => definitions += 1,
            ";" if definitions == 0 => return *start,
            ";" => definitions -= 1,
            "if" => ifs += 1,
            "then" | "elif" | "else" | "end" if ifs == 0 => return *start,
            "end" => ifs -= 1,
            _ => {}
        }
    }
    text.len()
}

fn variables(pattern: &str) -> impl Iterator<Item = &str> {
    tokens(pattern).into_iter().map(|(_, word)| word).filter(|word| word.starts_with('$'))
}

/// Words, strings and signs, with their positions.
fn tokens(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        let rest = &text[at..];
        let is_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '$' | '@');
        let length = match first {
            '"' => string_length(rest),
            '#' => rest.find('\n').unwrap_or(rest.len()),
            _ if rest.starts_with("?//") => 3,
            _ if is_word(first) => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
            _ => first.len_utf8(),
        };
        if !first.is_whitespace() && first != '#' {
            found.push((at, &rest[..length]));
        }
        at += length;
    }
    found
}

/// The length of a string, with what it interpolates.
fn string_length(text: &str) -> usize {
    let (mut at, mut depth) = (1, 0_usize);
    while let Some(character) = text[at..].chars().next() {
        let rest = &text[at..];
        match character {
            '\\' if depth == 0 && rest.starts_with("\\(") => {
                depth = 1;
                at += 2;
            }
            '\\' if depth == 0 => at += 1 + rest[1..].chars().next().map_or(0, char::len_utf8),
            '"' if depth == 0 => return at + 1,
            '"' => at += string_length(rest),
            '(' if depth > 0 => {
                depth += 1;
                at += 1;
            }
            ')' if depth > 0 => {
                depth -= 1;
                at += 1;
            }
            other => at += other.len_utf8(),
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::super::{Input, Program};
    use super::*;
    use serde_json::json;

    #[test]
    fn the_first_pattern_that_fits_is_taken() {
        let input = Input::parse(br#"{"list":["x","y"],"text":"x","nest":[[1,[2]],[3]]}"#).unwrap();
        for (text, expected) in [
            (".list as [$a] ?// $a | $a", json!(["x"])),
            (".text as [$a] ?// $a | $a", json!(["x"])),
            (".text as [$a] ?// {b: $b} ?// $c | [$a, $b, $c]", json!([[null, null, "x"]])),
            ("[.nest[] as [$a, [$b]] ?// [$a] | {a: $a, b: $b}]", json!([[{"a": 1, "b": 2}, {"a": 3, "b": null}]])),
            (".text as [$a] ?// $a | if $a == \"x\" then .list[1] else 0 end, 7", json!(["y", 7])),
            ("(.text as [$a] ?// $a | $a) + \"?// as\"", json!(["x?// as"])),
            (".none?//\"d\"", json!(["d"])),
        ] {
            let found = Program::new(text).unwrap_or_else(|error| panic!("{text}: {error}: {}", expanded(text)));
            assert_eq!(found.outputs(&input).map(serde_json::Value::from), Ok(expected), "{text}");
        }
        assert!(Program::new(".a as [$x] ?// | $x").is_err());
        assert!(matches!(expanded(".a // 1"), Cow::Borrowed(_)));
    }
}
