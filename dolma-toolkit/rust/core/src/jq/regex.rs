//! jq's regular expressions, with the library that jq itself uses (Oniguruma): `\w`, `\b`, `\p{…}` and the flag `i` support
//! Unicode, and lookaheads work. jaq's own engine supports only ASCII.
//!
//! jaq defines `test`, `match`, `capture`, `scan`, `split`, `splits`, `sub` and `gsub` by these three functions.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use jaq_core::load::lex::StrPart;
use jaq_core::load::parse::{BinaryOp, Pattern, Term};
use jaq_core::native::{bome, run, v, Fun};
use jaq_core::path::Part;
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

/// The compiled expressions of a thread, so that each is compiled once and not for every document.
const KEPT: usize = 256;

thread_local! {
    static COMPILED: RefCell<HashMap<(String, String), Rc<Expression>>> = RefCell::new(HashMap::new());
}

/// Fails if a constant regular expression or flag is not valid, before any document is read.
pub fn check(term: &Term<&str>) -> Result<(), String> {
    if let Term::Call(name, arguments) = term {
        if let Some((pattern, flags)) = arguments_of(name, arguments) {
            Expression::new(&pattern, &flags)?;
        }
    }
    children(term).into_iter().try_for_each(check)
}

/// The regular expression and its flags, if the call has them as constants. Flags that are not constant count as absent.
fn arguments_of(name: &str, arguments: &[Term<&str>]) -> Option<(String, String)> {
    let (pattern, flags) = match (name, arguments) {
        ("test" | "match" | "capture" | "scan" | "splits", [pattern]) | ("sub" | "gsub", [pattern, _]) => {
            (pattern, None)
        }
        ("test" | "match" | "capture" | "scan" | "splits" | "split", [pattern, flags])
        | ("sub" | "gsub", [pattern, _, flags]) => (pattern, Some(flags)),
        _ => return None,
    };
    // one list may have both
    let (pattern, flags) = match (pattern, flags) {
        (Term::Arr(Some(items)), None) => match &**items {
            Term::BinOp(pattern, BinaryOp::Comma, flags) => (&**pattern, Some(&**flags)),
            pattern => (pattern, None),
        },
        other => other,
    };
    Some((constant(pattern)?, flags.and_then(constant).unwrap_or_default()))
}

/// The text of a string without interpolation.
fn constant(term: &Term<&str>) -> Option<String> {
    let Term::Str(None, parts) = term else { return None };
    let mut text = String::new();
    for part in parts {
        match part {
            StrPart::Str(part) => text.push_str(part),
            StrPart::Char(character) => text.push(*character),
            StrPart::Term(_) => return None,
        }
    }
    Some(text)
}

/// The parts of a term.
fn children<'t, 's>(term: &'t Term<&'s str>) -> Vec<&'t Term<&'s str>> {
    match term {
        Term::Id | Term::Recurse | Term::Num(_) | Term::Arr(None) | Term::Break(_) | Term::Var(_) => Vec::new(),
        Term::Str(_, parts) => parts
            .iter()
            .filter_map(|part| match part {
                StrPart::Term(term) => Some(term),
                StrPart::Str(_) | StrPart::Char(_) => None,
            })
            .collect(),
        Term::Arr(Some(inner)) | Term::Neg(inner) | Term::Label(_, inner) => vec![inner],
        Term::Obj(entries) => entries.iter().flat_map(|(key, value)| [Some(key), value.as_ref()]).flatten().collect(),
        Term::BinOp(left, BinaryOp::Pipe(Some(pattern)), right) => {
            keys(pattern).into_iter().chain([&**left, right]).collect()
        }
        Term::BinOp(left, _, right) => vec![left, right],
        Term::Fold(_, stream, pattern, arguments) => {
            keys(pattern).into_iter().chain([&**stream]).chain(arguments).collect()
        }
        Term::TryCatch(inner, handler) => {
            [Some(inner), handler.as_ref()].into_iter().flatten().map(|term| &**term).collect()
        }
        Term::IfThenElse(branches, otherwise) => {
            let branches = branches.iter().flat_map(|(condition, then)| [condition, then]);
            branches.chain(otherwise.as_deref()).collect()
        }
        Term::Def(definitions, body) => definitions.iter().map(|one| &one.body).chain([&**body]).collect(),
        Term::Call(_, arguments) => arguments.iter().collect(),
        Term::Path(from, path) => {
            let parts = path.0.iter().flat_map(|(part, _)| match part {
                Part::Index(index) => [Some(index), None],
                Part::Range(from, to) => [from.as_ref(), to.as_ref()],
            });
            parts.flatten().chain([&**from]).collect()
        }
    }
}

/// The terms in a variable pattern that are keys.
fn keys<'t, 's>(pattern: &'t Pattern<&'s str>) -> Vec<&'t Term<&'s str>> {
    match pattern {
        Pattern::Var(_) => Vec::new(),
        Pattern::Arr(patterns) => patterns.iter().flat_map(keys).collect(),
        Pattern::Obj(entries) => entries.iter().flat_map(|(key, value)| [key].into_iter().chain(keys(value))).collect(),
    }
}

struct Expression {
    regex: Regex,
    /// for each group, from 1 on
    names: Vec<Option<String>>,
    is_global: bool,
    ignores_empty: bool,
}

/// The matches, as lists, and the texts between them.
fn parts<'a>(mut cv: Cv<'a, Data>, between: bool, matching: bool) -> ValR<<Data as DataT>::V<'a>> {
    let (flags, pattern) = (cv.0.pop_var(), cv.0.pop_var());
    let expression = match &flags {
        Val::Null => compiled(text_of(&pattern)?, "")?,
        flags => compiled(text_of(&pattern)?, text_of(flags)?)?,
    };
    let text = text_of(&cv.1)?;
    let mut found = Vec::new();
    let (mut from, mut copied_to) = (0, 0);
    let mut characters = Characters { text, byte: 0, character: 0 };
    while from <= text.len() {
        let Some(region) = expression.search(text, from)? else { break };
        let Some((start, end)) = region.pos(0) else { break };
        // search for an empty match only once at each place
        from = if end > start { end } else { end + text[end..].chars().next().map_or(1, char::len_utf8) };
        if start == end && expression.ignores_empty {
            continue;
        }
        if between {
            found.push(Val::utf8_str(text[copied_to..start].to_string()));
            copied_to = end;
        }
        if matching {
            found.push(expression.groups(&region, &mut characters)?);
        }
        if !expression.is_global {
            break;
        }
    }
    if between {
        found.push(Val::utf8_str(text[copied_to..].to_string()));
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
        let expression = Rc::new(Expression::new(pattern, flags).map_err(Failure::str)?);
        compiled.insert(key, Rc::clone(&expression));
        Ok(expression)
    })
}

impl Expression {
    fn new(pattern: &str, flags: &str) -> Result<Self, String> {
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
                    return Err(format!("{other:?} is not a regular expression flag; expected g, i, l, n, p, s or x"));
                }
            }
        }
        let regex = Regex::with_options(pattern, options, Syntax::perl_ng())
            .map_err(|error| format!("`{pattern}` is not a valid regular expression: {}", error.description()))?;
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
            found.map_err(|error| Failure::str(format!("the regular expression failed: {}", error.description())))?;
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
                // a group that did not match
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

/// How many characters come before a byte. Increasing positions read the text only once.
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
