//! The fields of a document that a jq expression reads by name, and whether it first checks that they exist. It is for
//! warnings, so it skips what it does not understand.

use jaq_core::load::lex::StrPart;
use jaq_core::load::parse::{BinaryOp, Term};
use jaq_core::ops::Cmp;
use jaq_core::path::{Opt, Part, Path};

use super::simple::literal;
use crate::jsonpath::Read;

/// Functions that accept `null`, so that calling them is a guard.
const GUARDS: [&str; 11] =
    ["type", "length", "not", "values", "arrays", "objects", "strings", "numbers", "isarray", "isobject", "isstring"];

/// The fields that `term` reads.
pub fn reads(term: &Term<&str>) -> Vec<Read> {
    let mut found = Vec::new();
    walk(term, Some(&[]), false, &mut found);
    found
}

/// `base` names the input, if known. `is_guarded`: the expression around it checks for null.
fn walk(term: &Term<&str>, base: Option<&[String]>, is_guarded: bool, found: &mut Vec<Read>) {
    let is_null = |term: &Term<&str>| matches!(term, Term::Call("null", arguments) if arguments.is_empty());
    match term {
        Term::Path(from, path) => {
            for (part, _) in &path.0 {
                let inner: [Option<&Term<&str>>; 2] = match part {
                    Part::Index(index) => [Some(index), None],
                    Part::Range(from, to) => [from.as_ref(), to.as_ref()],
                };
                inner.into_iter().flatten().for_each(|term| walk(term, base, false, found));
            }
            match (named(term, base), &**from) {
                (Some((names, optional)), _) => {
                    found.extend(optional.iter().map(|end| Read { names: names[..*end].to_vec(), is_guarded: true }));
                    found.push(Read { names, is_guarded });
                }
                (None, Term::Id) => {}
                (None, from) => walk(from, base, is_guarded, found),
            }
        }
        Term::BinOp(left, BinaryOp::Pipe(None), right) => {
            walk(left, base, false, found);
            let names = named(left, base).map(|(names, _)| names);
            walk(right, names.as_deref(), is_guarded, found);
        }
        Term::BinOp(left, BinaryOp::Alt, right) => {
            walk(left, base, true, found);
            walk(right, base, is_guarded, found);
        }
        Term::BinOp(left, BinaryOp::And | BinaryOp::Or, right) => {
            walk(left, base, named(left, base).is_some(), found);
            walk(right, base, named(right, base).is_some(), found);
        }
        Term::BinOp(left, BinaryOp::Cmp(comparison), right) => {
            let is_check = matches!(comparison, Cmp::Eq | Cmp::Ne);
            walk(left, base, is_guarded || (is_check && is_null(right)), found);
            walk(right, base, is_guarded || (is_check && is_null(left)), found);
        }
        Term::BinOp(left, _, right) => {
            walk(left, base, is_guarded, found);
            walk(right, None, is_guarded, found);
        }
        Term::IfThenElse(branches, otherwise) => {
            for (condition, then) in branches {
                walk(condition, base, named(condition, base).is_some(), found);
                walk(then, base, is_guarded, found);
            }
            otherwise.iter().for_each(|term| walk(term, base, is_guarded, found));
        }
        Term::TryCatch(inner, _) => walk(inner, base, true, found),
        Term::Arr(Some(inner)) | Term::Neg(inner) | Term::Label(_, inner) => walk(inner, base, is_guarded, found),
        Term::Obj(entries) => entries.iter().for_each(|(key, value)| {
            walk(key, base, is_guarded, found);
            value.iter().for_each(|value| walk(value, base, is_guarded, found));
        }),
        Term::Str(_, parts) => parts.iter().for_each(|part| {
            if let StrPart::Term(term) = part {
                walk(term, base, is_guarded, found);
            }
        }),
        Term::Call(name, arguments) => {
            let key = arguments.first().filter(|_| *name == "has").and_then(literal);
            match (base, key) {
                (Some(base), Some(key)) => {
                    let names = base.iter().cloned().chain([key.to_string()]).collect();
                    found.push(Read { names, is_guarded: true });
                }
                (Some(base), None) if GUARDS.contains(name) && !base.is_empty() => {
                    found.push(Read { names: base.to_vec(), is_guarded: true });
                }
                _ => {}
            }
            for argument in arguments {
                let is_checked = *name == "select" && named(argument, base).is_some();
                walk(argument, base.filter(|_| *name == "select"), is_guarded || is_checked, found);
            }
        }
        _ => {}
    }
}

/// The leading names of a path from the document, and how many of them a `?` follows.
fn named(term: &Term<&str>, base: Option<&[String]>) -> Option<(Vec<String>, Vec<usize>)> {
    let mut names = base?.to_vec();
    let Term::Path(from, Path(parts)) = term else {
        return matches!(term, Term::Id).then_some((names, Vec::new()));
    };
    if !matches!(**from, Term::Id) {
        return None;
    }
    let mut optional = Vec::new();
    for (part, opt) in parts {
        let Part::Index(index) = part else { break };
        let Some(name) = literal(index) else { break };
        names.push(name.to_string());
        if matches!(opt, Opt::Optional) {
            optional.push(names.len());
        }
    }
    (!names.is_empty()).then_some((names, optional))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_that_is_checked_first_is_guarded() {
        let unguarded = |text: &str| {
            let reads = jaq_core::load::parse(text, |parser| parser.term()).map(|term| reads(&term)).unwrap();
            let mut names: Vec<String> = Read::unguarded(&reads).map(|read| read.names.join(".")).collect();
            names.sort();
            names.dedup();
            names.join(" ")
        };
        for (text, expected) in [
            (".metadata.quality < 0.5", "metadata.quality"),
            (".metadata.scores.quality < 0.5", "metadata.scores.quality"),
            (".metadata | .quality < 0.5", "metadata metadata.quality"),
            (".attributes.k[0][2] < 0.5", "attributes.k"),
            ("(.attributes.k[0][2] // 0) < 0.5", ""),
            (".attributes.k? and .attributes.k[0][2] > 0.5", ""),
            (".attributes.k and .attributes.k[0][2] > 0.5", ""),
            (".attributes?.pii?.email?", ""),
            (".attributes?.pii?.email", ""),
            (".attributes.k != null and .attributes.k[0][2] > 0.5", ""),
            (r#"(.attributes | has("k")) and .attributes.k[0][2] > 0.5"#, "attributes"),
            (r#".attributes.k | if type == "array" and length > 0 then .[0][2] < 50 else false end"#, ""),
            ("if .metadata.q then .metadata.q < 1 else false end", ""),
            (".attributes.b.b != null", ""),
            ("select(.metadata.q) | .metadata.q < 1", ""),
            (r#".text | test("a")"#, "text"),
            (".metadata.a == .metadata.b", "metadata.a metadata.b"),
        ] {
            assert_eq!(unguarded(text), expected, "{text}");
        }
    }
}
