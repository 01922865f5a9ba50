//! The fields that a path reads by name, and whether it first checks that they exist.

use serde_json::Value;

use super::{Expression, Operand, Operator, Path, Step};

/// A field that a rule reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// path from the document
    pub names: Vec<String>,
    /// the rule checks that it exists, as in `@.k && @.k[0]`
    pub is_guarded: bool,
}

impl Read {
    /// The `reads` without a guard on them or on a parent.
    pub fn unguarded(reads: &[Self]) -> impl Iterator<Item = &Self> {
        let guards = |read: &Self| reads.iter().any(|guard| guard.is_guarded && read.names.starts_with(&guard.names));
        reads.iter().filter(move |read| !guards(read))
    }
}

impl Path {
    /// The fields that it reads.
    pub fn reads(&self) -> Vec<Read> {
        let mut found = Vec::new();
        walk(&self.steps, &[], false, &mut found);
        found
    }
}

/// `steps` start from the field `base`.
fn walk(steps: &[Step], base: &[String], is_guarded: bool, found: &mut Vec<Read>) {
    let mut names = base.to_vec();
    for (index, step) in steps.iter().enumerate() {
        match step {
            Step::Root => names.clear(),
            Step::Field(name) => names.push(name.clone()),
            Step::Filter(expression) => {
                condition(expression, &names, false, found);
                if index + 1 == steps.len() {
                    return;
                }
            }
            _ => break,
        }
    }
    found.push(Read { names, is_guarded });
}

/// `is_part`: part of a larger condition, in which a check for a field guards its other uses.
fn condition(expression: &Expression, base: &[String], is_part: bool, found: &mut Vec<Read>) {
    match expression {
        Expression::And(left, right) | Expression::Or(left, right) => {
            condition(left, base, true, found);
            condition(right, base, true, found);
        }
        Expression::Not(inner) => condition(inner, base, true, found),
        Expression::Exists(inner) => operand(inner, base, is_part, found),
        Expression::Matches(inner, _) => operand(inner, base, false, found),
        Expression::Compare(left, operator, right) => {
            let is_check = matches!(operator, Operator::Equal | Operator::Unequal);
            let is_null = |side: &Operand| matches!(side, Operand::Literal(Value::Null));
            operand(left, base, is_check && is_null(right), found);
            operand(right, base, is_check && is_null(left), found);
        }
    }
}

fn operand(operand: &Operand, base: &[String], is_guarded: bool, found: &mut Vec<Read>) {
    if let Operand::Path(path) = operand {
        walk(&path.steps, base, is_guarded, found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_that_is_checked_first_is_guarded() {
        let unguarded = |text: &str| {
            let reads = Path::new(text).unwrap().reads();
            Read::unguarded(&reads).map(|read| read.names.join(".")).collect::<Vec<_>>().join(" ")
        };
        for (text, expected) in [
            ("$.attributes[?(@.k && @.k[0] && @.k[0][2] > 0.5)]", ""),
            ("$@.attributes[?(!@.k || @.k[0][2] > 0.5)]", ""),
            ("$.attributes[?(@.k != null)]", ""),
            ("$.attributes[?(@.k)]", "attributes.k"),
            ("$.attributes[?(@.k[0][2] > 0.5)]", "attributes.k"),
            ("$.attributes[?(@.k && @.other[0][2] > 0.5)]", "attributes.other"),
            ("$.metadata.scores[?(@.quality < 0.5)]", "metadata.scores.quality"),
            ("$.metadata[?(@.a == $.source)]", "metadata.a source"),
            ("$.attributes.pii.email", "attributes.pii.email"),
        ] {
            assert_eq!(unguarded(text), expected, "{text}");
        }
    }
}
