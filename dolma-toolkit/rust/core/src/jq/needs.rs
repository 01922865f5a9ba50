//! Which parts of a document a jq expression looks at, so that the rest need not be parsed.
//!
//! What is not understood here needs the whole document: a wrong "needs little" would change results, a wrong "needs
//! everything" only costs time.

use jaq_core::load::lex::StrPart;
use jaq_core::load::parse::{BinaryOp, Pattern, Term};
use jaq_core::path::{Part, Path};

use super::simple::literal;
use crate::jsonpath::Needs;

/// What an expression looks at.
pub fn needs(term: &Term<&str>) -> Needs {
    let mut needs = Needs::default();
    match add(term, &mut needs) {
        Some(()) => needs,
        None => Needs::everything(),
    }
}

/// Adds what `term` looks at when its input is the document; `None` where that may be all of it.
fn add(term: &Term<&str>, needs: &mut Needs) -> Option<()> {
    match term {
        Term::Num(_) | Term::Var(_) | Term::Break(_) | Term::Arr(None) => Some(()),
        Term::Str(None, parts) => parts.iter().try_for_each(|part| match part {
            StrPart::Term(term) => add(term, needs),
            StrPart::Str(_) | StrPart::Char(_) => Some(()),
        }),
        Term::Arr(Some(inner)) | Term::Neg(inner) | Term::Label(_, inner) => add(inner, needs),
        Term::Obj(entries) => entries.iter().try_for_each(|(key, value)| {
            add(key, needs)?;
            match (value, key) {
                (Some(value), _) => add(value, needs),
                (None, Term::Var(_)) => Some(()),
                // `{a}` is `{a: .a}`
                (None, key) => literal(key).map(|field| needs.add_field(field)),
            }
        }),
        // what is behind `|` sees what is before it, which is never the document itself
        Term::BinOp(left, BinaryOp::Pipe(None), _) => add(left, needs),
        Term::BinOp(left, BinaryOp::Pipe(Some(Pattern::Var(_))), right) => {
            add(left, needs)?;
            add(right, needs)
        }
        Term::BinOp(
            left,
            BinaryOp::Comma | BinaryOp::Alt | BinaryOp::Or | BinaryOp::And | BinaryOp::Math(_) | BinaryOp::Cmp(_),
            right,
        ) => {
            add(left, needs)?;
            add(right, needs)
        }
        // what is behind `catch` sees the error
        Term::TryCatch(inner, _) => add(inner, needs),
        Term::IfThenElse(branches, Some(otherwise)) => {
            for (condition, then) in branches {
                add(condition, needs)?;
                add(then, needs)?;
            }
            add(otherwise, needs)
        }
        Term::Call("empty" | "true" | "false" | "null", arguments) if arguments.is_empty() => Some(()),
        Term::Path(from, path) => add_path(from, path, needs),
        _ => None,
    }
}

fn add_path(from: &Term<&str>, path: &Path<Term<&str>>, needs: &mut Needs) -> Option<()> {
    // the terms in brackets have the same input as the whole path
    for (part, _) in &path.0 {
        let inner: [Option<&Term<&str>>; 2] = match part {
            Part::Index(index) => [Some(index), None],
            Part::Range(from, to) => [from.as_ref(), to.as_ref()],
        };
        inner.into_iter().flatten().try_for_each(|term| add(term, needs))?;
    }
    if !matches!(from, Term::Id) {
        return add(from, needs);
    }
    let field = path.0.first().and_then(|(part, _)| name(part))?;
    match path.0.get(1).and_then(|(part, _)| name(part)) {
        Some(key) => needs.add_key(field, key),
        None => needs.add_field(field),
    }
    Some(())
}

fn name<'t>(part: &Part<Term<&'t str>>) -> Option<&'t str> {
    match part {
        Part::Index(term) => literal(term),
        Part::Range(..) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// `field` or `field.key`, sorted; `*` for everything.
    fn described(text: &str) -> String {
        let needs =
            jaq_core::load::parse(text, |parser| parser.term()).map_or_else(Needs::everything, |term| needs(&term));
        if needs.everything {
            return "*".to_string();
        }
        let of = |(field, keys): (&String, &Option<BTreeSet<String>>)| match keys {
            None => vec![field.clone()],
            Some(keys) => keys.iter().map(|key| format!("{field}.{key}")).collect(),
        };
        needs.fields.iter().flat_map(of).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn paths_are_known_two_names_deep() {
        for (text, expected) in [
            (".attributes.k[0][2] > 0.5", "attributes.k"),
            (r#".attributes["a b"][0] == null and .id != "x""#, "attributes.a b id"),
            (r#".attributes.k | if type == "array" and length > 0 then .[0][2] < 50 else false end"#, "attributes.k"),
            ("(.attributes.absent[0][2] // 0) > 0", "attributes.absent"),
            (".attributes.a?[0] // .metadata.b.c", "attributes.a metadata.b"),
            (".attributes | keys", "attributes"),
            (".attributes.a, .attributes[]", "attributes"),
            (".attributes as $a | $a.k, .text", "attributes text"),
            ("[.attributes.a[] | .[2]] | add", "attributes.a"),
            (".attributes.a[.n]", "attributes.a n"),
            ("{id, t: .text}", "id text"),
            (r#""\(.id)/\(.source)""#, "id source"),
            (r#"try .attributes.a[0] catch "none""#, "attributes.a"),
            ("1 < 2 or empty", ""),
        ] {
            assert_eq!(described(text), expected, "{text}");
        }
    }

    #[test]
    fn the_rest_needs_everything() {
        for text in [
            ".",
            "..",
            "length",
            ".[]",
            ".[0]",
            r#".["a", "b"]"#,
            "select(.attributes.a)",
            "if .attributes.a then 1 end",
            "def f: .attributes.a; f",
            "reduce .attributes.a[] as $x (0; . + 1)",
            ". as {text: $t} | $t",
            ".attributes.a = 1",
            "@json",
            "to_entries | .[0]",
            ". | .attributes.a",
            r#"."\(.id)""#,
        ] {
            assert_eq!(described(text), "*", "{text}");
        }
    }
}
