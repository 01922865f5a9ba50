//! jq expressions, compiled once and run on many documents. The language is that of jq 1.7, as jaq implements it.
//!
//! What makes a result depend on anything but the document is not available: `now`, `env`, `input`, `halt`, `debug`, `stderr`.

mod alternatives;
mod needs;
mod reads;
mod regex;
mod simple;

use std::collections::BTreeSet;

use jaq_core::load::{self, Arena, File, Loader};
use jaq_core::{compile, data::JustLut, unwrap_valr, Ctx, Vars};
use jaq_json::{read, Num, Val};
use serde_json::Value;

use crate::document::is_shallow;
use crate::jsonpath::{Needs, Read};
use simple::Simple;

const IMPURE: [&str; 12] = [
    "now",
    "localtime",
    "strflocaltime",
    "env",
    "halt",
    "halt_error",
    "debug",
    "debug_empty",
    "stderr",
    "stderr_empty",
    "input",
    "inputs",
];

/// Functions of jq 1.7 that are missing. The guide lists them.
const ABSENT: [&str; 24] = [
    "now",
    "env",
    "halt",
    "halt_error",
    "debug",
    "stderr",
    "input",
    "inputs",
    "input_filename",
    "input_line_number",
    "builtins",
    "format",
    "get_search_list",
    "get_prog_origin",
    "get_jq_origin",
    "have_decnum",
    "have_literal_numbers",
    "lgamma_r",
    "modulemeta",
    "@base32",
    "@base32d",
    "localtime",
    "strflocaltime",
    "$ENV",
];

/// What differs in jaq from jq 1.7, or is missing.
const DEFINITIONS: &str = include_str!("definitions.jq");

/// Functions of jaq that [`regex`] replaces.
const REGULAR: [&str; 3] = ["matches", "split_matches", "split_"];

/// What a thread needs that compiles or runs programs: both call themselves for each part of an expression.
pub const STACK_BYTES: usize = 64 << 20;

/// Signs and words of an expression. A long list of strings is the one way to have so many: a regular expression is
/// shorter, and faster.
const MAX_PARTS: usize = 4000;

/// A compiled expression.
pub struct Program {
    text: String,
    needs: Needs,
    reads: Vec<Read>,
    simple: Option<Simple>,
    filter: jaq_core::Filter<JustLut<Val>>,
}

impl std::fmt::Debug for Program {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Program({})", self.text)
    }
}

/// A document as programs read it. Cheap to hand to many programs.
#[derive(Clone)]
pub struct Input(Val);

impl Input {
    /// From JSON that is known to be valid.
    pub fn parse(json: &[u8]) -> Result<Self, String> {
        if !std::str::from_utf8(json).is_ok_and(is_shallow) {
            return Err("the document nests too deeply, or is not UTF-8".to_owned());
        }
        read::parse_single(json).map(Self).map_err(|error| error.to_string())
    }
}

impl Program {
    /// Compiles `text`; the error says where it is wrong.
    pub fn new(text: &str) -> Result<Self, String> {
        let parts = parts(text);
        if parts > MAX_PARTS {
            let instead = "a list of strings is better written as test(\"^(one|two)$\")";
            return Err(format!("it has {parts} signs and words; expected at most {MAX_PARTS} ({instead})"));
        }
        let pure = |name: &str| !IMPURE.contains(&name);
        let ours = load::parse(DEFINITIONS, |parser| parser.defs()).unwrap_or_default();
        // the redefined names, with every number of arguments
        let redefined: BTreeSet<&str> = ours.iter().map(|definition| definition.name).collect();
        let definitions = jaq_core::defs().chain(jaq_std::defs()).chain(jaq_json::defs());
        let definitions =
            definitions.filter(|definition| pure(definition.name) && !redefined.contains(definition.name));
        let definitions: Vec<_> = definitions.chain(ours.iter().cloned()).collect();
        let functions = jaq_core::funs().chain(jaq_std::funs()).chain(jaq_json::funs());
        let functions = functions.filter(|function| pure(function.0) && !redefined.contains(function.0));
        let functions = functions.filter(|function| !REGULAR.contains(&function.0)).chain(regex::functions());
        let arena = Arena::default();
        let written = text;
        let text = &*alternatives::expanded(written);
        let modules = Loader::new(definitions)
            .load(&arena, File { code: text, path: () })
            .map_err(|errors| loading_error(text, &errors))?;
        let filter = jaq_core::Compiler::default()
            .with_funs(functions)
            .compile(modules)
            .map_err(|errors| compiling_error(&errors))?;
        let term = load::parse(text, |parser| parser.term());
        term.as_ref().map_or(Ok(()), regex::check)?;
        let needs = term.as_ref().map_or_else(Needs::everything, needs::needs);
        let reads = term.as_ref().map(reads::reads).unwrap_or_default();
        Ok(Self { text: written.to_string(), needs, reads, simple: term.as_ref().and_then(Simple::new), filter })
    }

    /// The expression as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The parts of a document that it looks at; it gives the same on a document without the others.
    pub fn needs(&self) -> &Needs {
        &self.needs
    }

    /// The fields that it reads by name, as far as known.
    pub fn reads(&self) -> &[Read] {
        &self.reads
    }

    /// Whether [`Program::quick`] is worth asking.
    pub fn is_simple(&self) -> bool {
        self.simple.is_some()
    }

    /// What both [`Program::any`] and [`Program::all`] say, at a hundredth of the cost, for expressions and documents of the
    /// simple kind; `None` for others, and where they would fail.
    pub fn quick(&self, document: &Value) -> Option<bool> {
        let output = self.simple.as_ref()?.run(document)?;
        Some(match &*output {
            Value::Null => false,
            Value::Bool(value) => *value,
            Value::Number(number) => number.as_f64() != Some(0.0),
            Value::String(text) => !text.is_empty(),
            Value::Array(items) => !items.is_empty(),
            Value::Object(fields) => !fields.is_empty(),
        })
    }

    /// Whether there is an output that is true. `null`, `false`, `0`, `""`, `[]` and `{}` are not.
    pub fn any(&self, input: &Input) -> Result<bool, String> {
        for output in self.run(input) {
            if truthy(&output?) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether there is an output, and all are true.
    pub fn all(&self, input: &Input) -> Result<bool, String> {
        let mut some = false;
        for output in self.run(input) {
            if !truthy(&output?) {
                return Ok(false);
            }
            some = true;
        }
        Ok(some)
    }

    /// The outputs.
    pub fn outputs(&self, input: &Input) -> Result<Vec<Value>, String> {
        self.run(input)
            .map(|output| serde_json::from_str(&output?.to_string()).map_err(|error| error.to_string()))
            .collect()
    }

    fn run<'a>(&'a self, input: &Input) -> impl Iterator<Item = Result<Val, String>> + 'a {
        let context = Ctx::<JustLut<Val>>::new(&self.filter.lut, Vars::new([]));
        self.filter
            .id
            .run((context, input.0.clone()))
            .map(|output| unwrap_valr(output).map_err(|error| shortened(&error.to_string())))
    }
}

/// Words and signs, with every string as one.
fn parts(text: &str) -> usize {
    let (mut parts, mut is_string, mut is_escaped, mut is_word) = (0, false, false, false);
    for character in text.chars() {
        match character {
            // what is interpolated counts in full
            '(' if is_escaped => {
                parts += 1;
                is_escaped = false;
            }
            _ if is_escaped => is_escaped = false,
            '\\' if is_string => is_escaped = true,
            '"' => {
                is_string = !is_string;
                parts += usize::from(is_string);
            }
            _ if is_string => {}
            _ if character.is_alphanumeric() || character == '_' => {
                parts += usize::from(!is_word);
                is_word = true;
                continue;
            }
            _ if character.is_whitespace() => {}
            _ => parts += 1,
        }
        is_word = false;
    }
    parts
}

/// Messages of jq quote the value, which can be a whole document.
fn shortened(message: &str) -> String {
    const LIMIT: usize = 200;
    match message.char_indices().nth(LIMIT) {
        Some((end, _)) => format!("{}…", &message[..end]),
        None => message.to_string(),
    }
}

fn truthy(value: &Val) -> bool {
    match value {
        Val::Null => false,
        Val::Bool(value) => *value,
        Val::Num(Num::Int(number)) => *number != 0,
        Val::Num(Num::Float(number)) => *number != 0.0,
        Val::Num(Num::Dec(digits)) => digits.parse::<f64>().is_ok_and(|number| number != 0.0),
        Val::Num(Num::BigInt(_)) => true,
        Val::BStr(bytes) | Val::TStr(bytes) => !bytes.is_empty(),
        Val::Arr(items) => !items.is_empty(),
        Val::Obj(fields) => !fields.is_empty(),
    }
}

fn loading_error(text: &str, errors: &load::Errors<&str, ()>) -> String {
    let at = |part: &str| {
        let start = load::span(text, part).start;
        text[..start.min(text.len())].chars().count() + 1
    };
    let describe = |error: &load::Error<&str>| match error {
        load::Error::Io(_) => "modules cannot be imported".to_string(),
        load::Error::Lex(errors) => errors
            .first()
            .map(|(expected, rest)| format!("expected {} at character {}", expected.as_str(), at(rest)))
            .unwrap_or_default(),
        load::Error::Parse(errors) => errors
            .first()
            .map(|(expected, rest)| format!("expected {} at character {}", expected.as_str(), at(rest)))
            .unwrap_or_default(),
    };
    errors.first().map(|(_, error)| describe(error)).unwrap_or_default()
}

fn compiling_error(errors: &compile::Errors<&str, ()>) -> String {
    let undefined = errors.iter().flat_map(|(_, errors)| errors).next();
    undefined.map_or_else(String::new, |(name, kind)| match kind {
        compile::Undefined::Filter(_) if ABSENT.contains(name) => {
            format!("jq's function {name} is not supported; the guide lists the missing functions")
        }
        compile::Undefined::Filter(arity) => {
            format!("unknown function {name} with {arity} arguments")
        }
        other => format!("unknown {} {name}", other.as_str()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn input() -> Input {
        Input::parse(br#"{"id":"1","text":"hello","n":0,"f":0.0,"e":1e3,"attributes":{"k":[[0,5,0.5]],"none":[]}}"#)
            .unwrap()
    }

    #[test]
    fn truth_is_python_like() {
        for (text, any, all) in [
            (".id", true, true),
            (".n", false, false),
            (".f", false, false),
            (".e", true, true),
            (".absent", false, false),
            ("empty", false, false),
            (".n, .id", true, false),
            (".attributes.none", false, false),
            (".attributes.k", true, true),
            (r#".attributes.k | if type == "array" and length > 0 then .[0][2] < 50 else false end"#, true, true),
            ("(.attributes.absent[0][2] // 0) > 0", false, false),
            (".attributes.k | map(select(.[2] > 0.4)) | length", true, true),
        ] {
            let program = Program::new(text).unwrap();
            assert_eq!((program.any(&input()), program.all(&input())), (Ok(any), Ok(all)), "{text}");
        }
    }

    #[test]
    fn outputs_are_json() {
        let outputs = Program::new(".attributes.k, .text[0:2]").unwrap().outputs(&input()).unwrap();
        assert_eq!(outputs, [json!([[0, 5, 0.5]]), json!("he")]);
    }

    #[test]
    fn regular_expressions_know_unicode() {
        let input = Input::parse("{\"text\":\"café 日本語\",\"up\":\"CAFÉ\"}".as_bytes()).unwrap();
        for (text, expected) in [
            (r#".text | test("caf\\w ")"#, json!(true)),
            (r#".up | test("café"; "i")"#, json!(true)),
            (r#".text | test("caf\\p{L}\\b")"#, json!(true)),
            (r#".text | test("café(?! x)")"#, json!(true)),
            (r#".text | test(["CAFÉ", "i"])"#, json!(true)),
            (r#".text | test("cafe"; null)"#, json!(false)),
            (r#"[.text | match("\\p{Han}+") | .offset, .length, .string]"#, json!([5, 3, "日本語"])),
            (r#".text | capture("(?<word>\\w+) (?<x>a)?") | [.word, .x]"#, json!(["café", null])),
            (r#"[.text | scan("\\w+")]"#, json!(["café", "日本語"])),
            (r#".text | gsub("(?<c>é|語)"; "<\(.c)>")"#, json!("caf<é> 日本<語>")),
            (r#".text | [splits(" ")]"#, json!(["café", "日本語"])),
            (r#"[.up | match(""; "g") | .offset]"#, json!([0, 1, 2, 3, 4])),
            (r#"[.up | match(""; "gn")] | length"#, json!(0)),
        ] {
            assert_eq!(Program::new(text).unwrap().outputs(&input), Ok(vec![expected]), "{text}");
        }
        let failing = Program::new(r#".text | test("(" + "")"#).unwrap().any(&input).unwrap_err();
        assert!(failing.contains("not a valid regular expression"), "{failing}");
    }

    #[test]
    fn constant_regular_expressions_are_checked_at_once() {
        for (text, expected) in [
            (r#".text | test("(")"#, "`(` is not a valid regular expression: end pattern with unmatched parenthesis"),
            (r#".text | test("a"; "q")"#, "'q' is not a regular expression flag; expected g, i, l, n, p, s or x"),
            (r#".text | test(["a", "q"])"#, "'q' is not a regular expression flag"),
            (r#"[.tags[] | select(test("\\w["))] == []"#, r"`\w[` is not"),
            (r#"if .a then "\(.text | sub("*"; ""))" else .b["x" | match(")").string] end"#, "is not"),
            (r#"def f: gsub("("; "x"; "g"); .text | f"#, "`(` is not"),
            (r#"reduce .tags[] as {(scan("(")): $x} (0; . + $x)"#, "`(` is not"),
            (r#"try (.text | capture("(")) catch splits("[")"#, "`(` is not"),
        ] {
            let error = Program::new(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
        for text in [r#".text | split("(")"#, r#".text | test(.pattern; "q")"#, r#".text | sub("a"; "(")"#] {
            assert!(Program::new(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn functions_that_jaq_lacks_are_there() {
        let input = Input::parse(br#"{"lang":"en","tags":["x","a\"b",1,null],"deep":[1,[2,{}]]}"#).unwrap();
        for (text, expected) in [
            (r#".lang | IN("en", "de")"#, json!(true)),
            (r#"IN(.tags[]; "y", 1)"#, json!(true)),
            (".tags | @csv", json!(r#""x","a""b",1,"#)),
            (".tags | @tsv", json!("x\ta\"b\t1\t")),
            ("[.deep | tostream]", json!([[[0], 1], [[1, 0], 2], [[1, 1], {}], [[1, 1]], [[1]]])),
            ("fromstream(.deep | tostream)", json!([1, [2, {}]])),
            ("[1 | truncate_stream([[0], 1], [[1, 0], 2], [[1, 0]], [[1]])]", json!([[[0], 2], [[0]]])),
            (r#"[.tags[] | ltrimstr("x")]"#, json!(["", "a\"b", 1, null])),
            (r#".lang | rtrimstr("n")"#, json!("e")),
            (r#"INDEX(.tags[:2][]; .) | keys"#, json!(["a\"b", "x"])),
        ] {
            assert_eq!(Program::new(text).unwrap().outputs(&input), Ok(vec![expected]), "{text}");
        }
    }

    #[test]
    fn errors_say_where() {
        let error = |text: &str| Program::new(text).unwrap_err();
        assert_eq!(error(".a |"), "expected term at character 5");
        assert_eq!(error(".a | frobnicate(1)"), "unknown function frobnicate with 1 arguments");
        assert_eq!(error(".a == $x"), "unknown variable $x");
        assert!(error("(.a").contains("closing parenthesis"), "{}", error("(.a"));
        for text in ["now", "env", "halt", "input", "\"x\" | debug", "stderr", "lgamma_r"] {
            assert!(error(text).contains("not supported"), "{text}");
        }
        let run = |text: &str| Program::new(text).unwrap().any(&input()).unwrap_err();
        assert!(run(".text.a").contains("hello"), "{}", run(".text.a"));
    }
}
