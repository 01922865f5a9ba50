//! Conditions inside `[?(…)]`.

use regex::Regex;
use serde_json::Value;

use super::parse::Parser;
use super::{Expression, Operand, Operator, Path, PathError};

/// Longest operator first, so that a prefix does not hide a longer one.
const OPERATORS: [(&str, Operator); 12] = [
    ("==", Operator::Equal),
    ("!=", Operator::Unequal),
    (">=", Operator::GreaterOrEqual),
    (">", Operator::Greater),
    ("<=", Operator::LessOrEqual),
    ("<", Operator::Less),
    ("in", Operator::In),
    ("nin", Operator::NotIn),
    ("size", Operator::Size),
    ("noneOf", Operator::NoneOf),
    ("anyOf", Operator::AnyOf),
    ("subsetOf", Operator::SubsetOf),
];

/// Filters inside filters deeper than this are refused: the parser and the evaluator recurse.
const MAX_DEPTH: usize = 64;

impl Parser<'_> {
    pub(super) fn or(&mut self) -> Result<Expression, PathError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.error("filters are nested too deeply"));
        }
        let mut left = self.and()?;
        while self.eat("||") {
            left = Expression::Or(Box::new(left), Box::new(self.and()?));
        }
        self.depth -= 1;
        Ok(left)
    }

    fn and(&mut self) -> Result<Expression, PathError> {
        let mut left = self.not()?;
        while self.eat("&&") {
            left = Expression::And(Box::new(left), Box::new(self.not()?));
        }
        Ok(left)
    }

    fn not(&mut self) -> Result<Expression, PathError> {
        if self.eat("!") {
            let mut negative = true;
            while self.eat("!") {
                negative = !negative;
            }
            let inner = self.not()?;
            return Ok(if negative { Expression::Not(Box::new(inner)) } else { inner });
        }
        if self.eat("(") {
            let inner = self.or()?;
            self.expect(")")?;
            return Ok(inner);
        }
        self.comparison()
    }

    fn comparison(&mut self) -> Result<Expression, PathError> {
        self.skip_space();
        let start = self.position;
        let left = self.operand()?;
        self.skip_space();
        if self.eat("~=") {
            self.skip_space();
            let pattern = self.quoted()?;
            let regex =
                Regex::new(&pattern).map_err(|error| self.error(format!("not a regular expression: {error}")))?;
            return Ok(Expression::Matches(left, regex));
        }
        for (token, operator) in OPERATORS {
            if self.eat(token) {
                self.skip_space();
                let right = self.operand()?;
                self.check_order(&left, operator, &right)?;
                return Ok(Expression::Compare(left, operator, right));
            }
        }
        match left {
            Operand::Path(_) => Ok(Expression::Exists(left)),
            Operand::Literal(_) => {
                self.position = start;
                Err(self.error("a constant is not a condition"))
            }
        }
    }

    /// An order between things that have none can never hold; say so now.
    fn check_order(&self, left: &Operand, operator: Operator, right: &Operand) -> Result<(), PathError> {
        use Operator::{Greater, GreaterOrEqual, Less, LessOrEqual};
        let ordered = matches!(operator, Less | LessOrEqual | Greater | GreaterOrEqual);
        for operand in [left, right] {
            if let Operand::Literal(value) = operand {
                if ordered && !(value.is_number() || value.is_string()) {
                    return Err(self.error(format!("nothing is smaller or greater than {value}")));
                }
            }
        }
        Ok(())
    }

    fn operand(&mut self) -> Result<Operand, PathError> {
        let rest = self.rest();
        match rest.chars().next() {
            Some('\'') => Ok(Operand::Literal(Value::from(self.quoted()?))),
            Some('"') => Err(self.error("strings need single quotes")),
            Some('$' | '@') => {
                let (steps, length) = self.chain(false)?;
                let text = rest[..rest.len() - self.rest().len()].trim_end().to_string();
                Ok(Operand::Path(Path { text, steps, length }))
            }
            Some('[') => self.list(),
            Some('.') => Err(self.error("a path in a filter begins with `@` or `$`, a number with a digit")),
            _ => self.constant(),
        }
    }

    /// A literal list, the right side of `in`, `anyOf` and their like.
    fn list(&mut self) -> Result<Operand, PathError> {
        self.expect("[")?;
        let mut items = Vec::new();
        while !self.eat("]") {
            if !items.is_empty() {
                self.expect(",")?;
            }
            self.skip_space();
            match self.operand()? {
                Operand::Literal(value) => items.push(value),
                Operand::Path(_) => return Err(self.error("a list holds constants")),
            }
        }
        Ok(Operand::Literal(Value::Array(items)))
    }

    fn constant(&mut self) -> Result<Operand, PathError> {
        let rest = self.rest();
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || "+-.".contains(c))).unwrap_or(rest.len());
        match serde_json::from_str(&rest[..end]) {
            Ok(value @ (Value::Bool(_) | Value::Null | Value::Number(_))) => {
                self.position += end;
                Ok(Operand::Literal(value))
            }
            _ => Err(self.error("expected a path, a number, 'text', true, false or null")),
        }
    }
}
