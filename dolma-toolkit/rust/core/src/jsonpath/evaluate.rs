//! Evaluation on borrowed values. Nothing is copied and, for paths of names and indexes, nothing is allocated.

use serde_json::{Number, Value};

use super::{Expression, Length, Operand, Operator, Path, Step};

impl Path {
    /// Whether the path finds anything in `root`.
    pub fn matches(&self, root: &Value) -> bool {
        match self.length {
            None => visit(&self.steps, root, root, &mut |_| true),
            Some(_) => self.length_of(root, root).is_some(),
        }
    }

    /// Everything that the path finds in `root`, in document order. A final `.length()` yields no value of
    /// the document and so finds nothing here.
    pub fn find<'v>(&self, root: &'v Value) -> Vec<&'v Value> {
        let mut found = Vec::new();
        if self.length.is_none() {
            visit(&self.steps, root, root, &mut |value| {
                found.push(value);
                false
            });
        }
        found
    }

    /// The first value that the path finds.
    pub fn first<'v>(&self, root: &'v Value) -> Option<&'v Value> {
        let mut found = None;
        visit(&self.steps, root, root, &mut |value| {
            found = Some(value);
            true
        });
        found
    }

    /// The value where the path is made of only names and indexes; `Err` where it needs a search.
    fn direct<'v>(&self, root: &'v Value, current: &'v Value) -> Result<Option<&'v Value>, ()> {
        let mut value = current;
        for step in &self.steps {
            let next = match step {
                Step::Root => Some(root),
                Step::Field(name) => value.as_object().and_then(|fields| fields.get(name)),
                Step::Index(index) => value.as_array().and_then(|items| items.get(*index)),
                _ => return Err(()),
            };
            match next {
                Some(next) => value = next,
                None => return Ok(None),
            }
        }
        Ok(Some(value))
    }

    fn length_of(&self, root: &Value, current: &Value) -> Option<usize> {
        let mut found: Vec<&Value> = Vec::new();
        visit(&self.steps, root, current, &mut |value| {
            found.push(value);
            false
        });
        match self.length? {
            Length::OfMatches => (!found.is_empty()).then_some(found.len()),
            Length::OfArray => found.first()?.as_array().map(Vec::len),
        }
    }
}

/// Calls `visitor` with every value that `steps` find from `value` on, until it returns true; says whether it did.
fn visit<'v>(steps: &[Step], root: &'v Value, value: &'v Value, visitor: &mut dyn FnMut(&'v Value) -> bool) -> bool {
    let Some((step, steps)) = steps.split_first() else {
        return visitor(value);
    };
    match step {
        Step::Root => visit(steps, root, root, visitor),
        Step::Field(name) => visit_some(field(value, name), steps, root, visitor),
        Step::Fields(names) => names.iter().any(|name| visit_some(field(value, name), steps, root, visitor)),
        Step::Index(index) => visit_some(item(value, *index), steps, root, visitor),
        Step::Indexes(indexes) => indexes.iter().any(|index| visit_some(item(value, *index), steps, root, visitor)),
        Step::Slice { start, end, step } => {
            let items = value.as_array().map_or(&[][..], Vec::as_slice);
            let (start, end) = bounds(*start, *end, items.len());
            let range = items.get(start..end).unwrap_or(&[]);
            range.iter().step_by(*step).any(|item| visit(steps, root, item, visitor))
        }
        Step::Wildcard => children(value, &mut |child| visit(steps, root, child, visitor)),
        Step::Descent(name) => descend(value, name, &mut |found| visit(steps, root, found, visitor)),
        Step::DescentWildcard => flatten(value, &mut |found| visit(steps, root, found, visitor)),
        Step::Filter(expression) => match value {
            Value::Array(items) => {
                items.iter().any(|item| expression.holds(root, item) && visit(steps, root, item, visitor))
            }
            other => expression.holds(root, other) && visit(steps, root, other, visitor),
        },
    }
}

fn visit_some<'v>(
    value: Option<&'v Value>,
    steps: &[Step],
    root: &'v Value,
    visitor: &mut dyn FnMut(&'v Value) -> bool,
) -> bool {
    value.is_some_and(|value| visit(steps, root, value, visitor))
}

fn field<'v>(value: &'v Value, name: &str) -> Option<&'v Value> {
    value.as_object().and_then(|fields| fields.get(name))
}

fn item(value: &Value, index: usize) -> Option<&Value> {
    value.as_array().and_then(|items| items.get(index))
}

/// A slice's ends as positions, clamped to the array, negative ones counted from its end.
fn bounds(start: i64, end: Option<i64>, length: usize) -> (usize, usize) {
    let place = |index: i64| {
        let from_start = if index < 0 { index + length as i64 } else { index };
        from_start.clamp(0, length as i64) as usize
    };
    let start = place(start);
    (start, end.map_or(length, place).max(start))
}

fn children<'v>(value: &'v Value, visitor: &mut dyn FnMut(&'v Value) -> bool) -> bool {
    match value {
        Value::Array(items) => items.iter().any(visitor),
        Value::Object(fields) => fields.values().any(visitor),
        _ => false,
    }
}

fn descend<'v>(value: &'v Value, name: &str, visitor: &mut dyn FnMut(&'v Value) -> bool) -> bool {
    field(value, name).is_some_and(&mut *visitor) || children(value, &mut |child| descend(child, name, visitor))
}

fn flatten<'v>(value: &'v Value, visitor: &mut dyn FnMut(&'v Value) -> bool) -> bool {
    children(value, &mut |child| visitor(child) || flatten(child, visitor))
}

impl Expression {
    fn holds(&self, root: &Value, current: &Value) -> bool {
        match self {
            Self::And(left, right) => left.holds(root, current) && right.holds(root, current),
            Self::Or(left, right) => left.holds(root, current) || right.holds(root, current),
            Self::Not(inner) => !inner.holds(root, current),
            Self::Exists(operand) => operand.with(root, current, |values| !values.is_empty()),
            Self::Matches(operand, regex) => operand.with(root, current, |values| {
                values.iter().filter_map(|value| value.as_str()).any(|text| regex.is_match(text))
            }),
            Self::Compare(left, operator, right) => {
                left.with(root, current, |left| right.with(root, current, |right| operator.holds(left, right)))
            }
        }
    }
}

impl Operand {
    /// Calls `then` with the operand's values: one for a literal, any number for a path.
    fn with<R>(&self, root: &Value, current: &Value, then: impl FnOnce(&[&Value]) -> R) -> R {
        let path = match self {
            Self::Literal(value) => return then(&[value]),
            Self::Path(path) => path,
        };
        if path.length.is_some() {
            return match path.length_of(root, current) {
                Some(length) => then(&[&Value::from(length)]),
                None => then(&[]),
            };
        }
        match path.direct(root, current) {
            Ok(Some(value)) => then(&[value]),
            Ok(None) => then(&[]),
            Err(()) => {
                let mut found = Vec::new();
                visit(&path.steps, root, current, &mut |value| {
                    found.push(value);
                    false
                });
                then(&found)
            }
        }
    }
}

impl Operator {
    fn holds(self, left: &[&Value], right: &[&Value]) -> bool {
        match self {
            Self::Equal => all_equal(left, right),
            Self::Unequal => !all_equal(left, right),
            Self::Less => less(left, right),
            Self::LessOrEqual => less(left, right) || all_equal(left, right),
            Self::Greater => less(right, left),
            Self::GreaterOrEqual => less(right, left) || all_equal(left, right),
            Self::In => inside(left, right),
            Self::NotIn => !inside(left, right),
            Self::Size => has_size(left, right),
            Self::AnyOf => any_of(left, right),
            Self::NoneOf => !any_of(left, right),
            Self::SubsetOf => subset_of(left, right),
        }
    }
}

fn all_equal(left: &[&Value], right: &[&Value]) -> bool {
    left.len() == right.len() && left.iter().zip(right).all(|(a, b)| equal(a, b))
}

/// Equality of JSON values; `1` and `1.0` are the same number.
pub(super) fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => numbers_equal(left, right),
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(a, b)| equal(a, b))
        }
        (Value::Object(left), Value::Object(right)) => {
            left.len() == right.len() && left.iter().all(|(key, a)| right.get(key).is_some_and(|b| equal(a, b)))
        }
        _ => left == right,
    }
}

fn numbers_equal(left: &Number, right: &Number) -> bool {
    left == right || (left.is_f64() != right.is_f64() && left.as_f64() == right.as_f64())
}

fn less(left: &[&Value], right: &[&Value]) -> bool {
    match (left, right) {
        ([Value::Number(left)], [Value::Number(right)]) => left.as_f64() < right.as_f64(),
        ([Value::String(left)], [Value::String(right)]) => left < right,
        _ => false,
    }
}

fn inside(left: &[&Value], right: &[&Value]) -> bool {
    let contains = |value: &Value| match right.first() {
        Some(Value::Array(items)) => items.iter().any(|item| equal(item, value)),
        Some(Value::Object(fields)) => fields.values().any(|item| equal(item, value)),
        _ => false,
    };
    left.iter().any(|value| contains(value))
}

fn has_size(left: &[&Value], right: &[&Value]) -> bool {
    let Some(size) = right.first().and_then(|value| value.as_f64()) else {
        return false;
    };
    let length = |value: &Value| match value {
        Value::String(text) => Some(text.len()),
        Value::Array(items) => Some(items.len()),
        Value::Object(fields) => Some(fields.len()),
        _ => None,
    };
    !left.is_empty() && left.iter().all(|value| length(value).is_some_and(|n| n as f64 == size))
}

fn any_of(left: &[&Value], right: &[&Value]) -> bool {
    let Some(Value::Array(allowed)) = right.first() else {
        return false;
    };
    let is_allowed = |value: &Value| allowed.iter().any(|item| equal(item, value));
    left.iter().any(|value| match value {
        Value::Array(items) => items.iter().any(is_allowed),
        other => is_allowed(other),
    })
}

fn subset_of(left: &[&Value], right: &[&Value]) -> bool {
    match (left.first(), right.first()) {
        (Some(Value::Array(items)), Some(Value::Array(allowed))) => {
            items.iter().all(|value| allowed.iter().any(|item| equal(item, value)))
        }
        (None, _) => true,
        _ => false,
    }
}
