//! jq's regular expressions, by the library that jq itself uses (Oniguruma): `\w`, `\b`, `\p{…}` and the flag `i` know
//! Unicode, and there are lookaheads. jaq's own engine knows ASCII alone.
//!
//! These are the three functions that jaq's definitions of `test`, `match`, `capture`, `scan`, `split`, `splits`, `sub` and
//! `gsub` are made of.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use jaq_core::native::{bome, run, v, Fun};
use jaq_core::{data::JustLut, Cv, DataT, ValR};
use jaq_json::Val;
use jaq_std::ValT;
use onig::{MatchParam, Regex, RegexOptions, Region, SearchOptions, Syntax};

type Data = JustLut<Val>;
type Failure = jaq_core::Error<Val>;

/// The functions.
pub fn functions() -> [Fun<Data>; 3] {
    [
        run(("matches", v(2), |cv| bome(parts(cv, false, true)))),
        run(("split_matches", v(2), |cv| bome(parts(cv, true, true)))),
        run(("split_", v(2), |cv| bome(parts(cv, true, false)))),
    ]
}

/// Compiled expressions that a thread keeps: an expression is compiled once, not for every document.
const KEPT: usize = 256;

thread_local! {
    static COMPILED: RefCell<HashMap<(String, String), Rc<Expression>>> = RefCell::new(HashMap::new());
}

struct Expression {
    regex: Regex,
    /// of each group, from 1 on
    names: Vec<Option<String>>,
    is_global: bool,
    ignores_empty: bool,
}

/// What matches, and what stands between, as lists of matches and as texts.
fn parts<'a>(mut cv: Cv<'a, Data>, between: bool, matching: bool) -> ValR<<Data as DataT>::V<'a>> {
    let (flags, pattern) = (cv.0.pop_var(), cv.0.pop_var());
    let expression = match &flags {
        Val::Null => compiled(text_of(&pattern)?, "")?,
        flags => compiled(text_of(&pattern)?, text_of(flags)?)?,
    };
    let text = text_of(&cv.1)?;
    let mut found = Vec::new();
    let (mut from, mut told) = (0, 0);
    let mut characters = Characters { text, byte: 0, character: 0 };
    while from <= text.len() {
        let Some(region) = expression.search(text, from)? else { break };
        let Some((start, end)) = region.pos(0) else { break };
        // an empty match is not looked for at the same place again
        from = if end > start { end } else { end + text[end..].chars().next().map_or(1, char::len_utf8) };
        if start == end && expression.ignores_empty {
            continue;
        }
        if between {
            found.push(Val::utf8_str(text[told..start].to_string()));
            told = end;
        }
        if matching {
            found.push(expression.groups(&region, &mut characters)?);
        }
        if !expression.is_global {
            break;
        }
    }
    if between {
        found.push(Val::utf8_str(text[told..].to_string()));
    }
    Ok(found.into_iter().collect())
}

fn text_of(value: &Val) -> Result<&str, Failure> {
    let bytes = value.as_utf8_bytes().ok_or_else(|| Failure::typ(value.clone(), "string"))?;
    std::str::from_utf8(bytes).map_err(Failure::str)
}

fn compiled(pattern: &str, flags: &str) -> Result<Rc<Expression>, Failure> {
    COMPILED.with_borrow_mut(|compiled| {
        let key = (pattern.to_string(), flags.to_string());
        if let Some(expression) = compiled.get(&key) {
            return Ok(Rc::clone(expression));
        }
        if compiled.len() >= KEPT {
            compiled.clear();
        }
        let expression = Rc::new(Expression::new(pattern, flags)?);
        compiled.insert(key, Rc::clone(&expression));
        Ok(expression)
    })
}

impl Expression {
    fn new(pattern: &str, flags: &str) -> Result<Self, Failure> {
        let mut options = RegexOptions::REGEX_OPTION_CAPTURE_GROUP;
        let (mut is_global, mut ignores_empty) = (false, false);
        for flag in flags.chars() {
            match flag {
                'g' => is_global = true,
                'n' => ignores_empty = true,
                'i' => options |= RegexOptions::REGEX_OPTION_IGNORECASE,
                'x' => options |= RegexOptions::REGEX_OPTION_EXTEND,
                's' => options |= RegexOptions::REGEX_OPTION_SINGLELINE,
                'p' => options |= RegexOptions::REGEX_OPTION_SINGLELINE | RegexOptions::REGEX_OPTION_MULTILINE,
                'l' => options |= RegexOptions::REGEX_OPTION_FIND_LONGEST,
                other => {
                    let message =
                        format!("{other:?} is no flag of a regular expression; expected g, i, l, n, p, s or x");
                    return Err(Failure::str(message));
                }
            }
        }
        let regex = Regex::with_options(pattern, options, Syntax::perl_ng())
            .map_err(|error| Failure::str(format!("`{pattern}` is no regular expression: {}", error.description())))?;
        let mut names = vec![None; regex.captures_len()];
        regex.foreach_name(|name, groups| {
            for group in groups {
                if let Some(place) = names.get_mut((*group as usize).wrapping_sub(1)) {
                    *place = Some(name.to_string());
                }
            }
            true
        });
        Ok(Self { regex, names, is_global, ignores_empty })
    }

    fn search(&self, text: &str, from: usize) -> Result<Option<Region>, Failure> {
        let mut region = Region::new();
        let options = SearchOptions::SEARCH_OPTION_NONE;
        let found =
            self.regex.search_with_param(text, from, text.len(), options, Some(&mut region), MatchParam::default());
        let found =
            found.map_err(|error| Failure::str(format!("the regular expression fails: {}", error.description())))?;
        Ok(found.map(|_| region))
    }

    /// The match as a whole, then its groups.
    fn groups(&self, region: &Region, characters: &mut Characters<'_>) -> ValR<Val> {
        let groups = (0..=self.names.len()).map(|group| {
            let name = group.checked_sub(1).map(|index| self.names.get(index).cloned().flatten());
            let (offset, length, string) = match region.pos(group) {
                Some((start, end)) => {
                    let text = &characters.text[start..end];
                    (characters.before(start) as isize, text.chars().count(), Val::utf8_str(text.to_string()))
                }
                // a group that took no part
                None => (-1, 0, Val::Null),
            };
            let fields = [
                ("offset", Some(Val::from(offset))),
                ("length", Some(Val::from(length as isize))),
                ("string", Some(string)),
                ("name", name.map(|name| name.map_or(Val::Null, Val::utf8_str))),
            ];
            let fields = fields.into_iter().filter_map(|(key, value)| Some((Val::utf8_str(key), value?)));
            <Val as jaq_core::ValT>::from_map(fields)
        });
        groups.collect()
    }
}

/// How many characters stand before a byte; asked of rising bytes it goes through the text once.
struct Characters<'t> {
    text: &'t str,
    byte: usize,
    character: usize,
}

impl Characters<'_> {
    fn before(&mut self, byte: usize) -> usize {
        if byte < self.byte {
            return self.text[..byte].chars().count();
        }
        self.character += self.text[self.byte..byte].chars().count();
        self.byte = byte;
        self.character
    }
}
