//! From text to steps: a recursive descent over the dialect's grammar. Conditions are in `parse_filter`.

use super::{Length, Path, PathError, Step};

pub(super) fn parse(text: &str) -> Result<Path, PathError> {
    let mut parser = Parser { text, position: 0, depth: 0 };
    parser.skip_space();
    let (steps, length) = parser.chain(true)?;
    parser.skip_space();
    if parser.position != text.len() {
        return Err(parser.error("the path does not continue like this"));
    }
    Ok(Path { text: text.to_string(), steps, length })
}

pub(super) struct Parser<'t> {
    pub(super) text: &'t str,
    pub(super) position: usize,
    pub(super) depth: usize,
}

impl<'t> Parser<'t> {
    pub(super) fn rest(&self) -> &'t str {
        &self.text[self.position..]
    }

    pub(super) fn error(&self, message: impl Into<String>) -> PathError {
        PathError { position: self.position, message: message.into() }
    }

    pub(super) fn skip_space(&mut self) {
        let rest = self.rest();
        self.position += rest.len() - rest.trim_start_matches([' ', '\t', '\r', '\n']).len();
    }

    /// Skips white space and then `token`; keeps the position if it is missing.
    pub(super) fn eat(&mut self, token: &str) -> bool {
        let before = self.position;
        self.skip_space();
        if self.rest().starts_with(token) {
            self.position += token.len();
            return true;
        }
        self.position = before;
        false
    }

    pub(super) fn expect(&mut self, token: &str) -> Result<(), PathError> {
        if self.eat(token) {
            return Ok(());
        }
        self.skip_space();
        Err(self.error(format!("expected `{token}`")))
    }

    /// One or more steps; `top` when this is the whole path and not an operand in a filter.
    pub(super) fn chain(&mut self, top: bool) -> Result<(Vec<Step>, Option<Length>), PathError> {
        let mut steps = Vec::new();
        let mut any = false;
        loop {
            let before = self.position;
            self.skip_space();
            let rest = self.rest();
            if rest.starts_with('$') {
                self.position += 1;
                steps.push(Step::Root);
            } else if rest.starts_with('@') {
                // `@` is the value that the filter looks at, where a chain in a filter begins, and the
                // root where a path begins: it adds no step.
                self.position += 1;
            } else if rest.starts_with("..") {
                steps.push(self.descent()?);
            } else if rest.starts_with(".length()") {
                self.position += ".length()".len();
                let length = length_kind(&steps);
                self.no_step_follows()?;
                return Ok((steps, Some(length)));
            } else if rest.starts_with('.') {
                self.position += 1;
                self.skip_space();
                steps.push(self.after_dot()?);
            } else if rest.starts_with('[') {
                steps.push(self.bracket()?);
            } else {
                self.position = before;
                break;
            }
            any = true;
        }
        if !any {
            let what = if top { "a path begins with `$`" } else { "expected a value" };
            self.skip_space();
            return Err(self.error(what));
        }
        Ok((steps, None))
    }

    fn no_step_follows(&mut self) -> Result<(), PathError> {
        self.skip_space();
        if self.rest().starts_with(['.', '[']) {
            return Err(self.error("nothing can follow length()"));
        }
        Ok(())
    }

    fn descent(&mut self) -> Result<Step, PathError> {
        self.position += 2;
        self.skip_space();
        if self.rest().starts_with('*') {
            self.position += 1;
            return Ok(Step::DescentWildcard);
        }
        if self.rest().starts_with("['") {
            return match self.bracket()? {
                Step::Field(name) => Ok(Step::Descent(name)),
                _ => Err(self.error("expected one name after `..`")),
            };
        }
        self.name().map(Step::Descent)
    }

    fn after_dot(&mut self) -> Result<Step, PathError> {
        let rest = self.rest();
        if rest.starts_with('*') {
            self.position += 1;
            return Ok(Step::Wildcard);
        }
        if rest.starts_with('[') {
            return self.bracket();
        }
        self.name().map(Step::Field)
    }

    fn name(&mut self) -> Result<String, PathError> {
        let rest = self.rest();
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || "_-/\\#".contains(c))).unwrap_or(rest.len());
        if end == 0 {
            return Err(self.error("expected a name (other characters than letters, digits, _ - / \\ # need ['…'])"));
        }
        self.position += end;
        Ok(rest[..end].to_string())
    }

    fn bracket(&mut self) -> Result<Step, PathError> {
        self.expect("[")?;
        self.skip_space();
        let rest = self.rest();
        let step = if rest.starts_with('*') {
            self.position += 1;
            Step::Wildcard
        } else if rest.starts_with('?') {
            self.position += 1;
            self.expect("(")?;
            let expression = self.or()?;
            self.expect(")")?;
            Step::Filter(expression)
        } else if rest.starts_with('\'') {
            let mut names = vec![self.quoted()?];
            while self.eat(",") {
                self.skip_space();
                names.push(self.quoted()?);
            }
            match <[String; 1]>::try_from(names) {
                Ok([name]) => Step::Field(name),
                Err(names) => Step::Fields(names),
            }
        } else if rest.starts_with('"') {
            return Err(self.error("strings need single quotes"));
        } else {
            self.indexes_or_slice()?
        };
        self.expect("]")?;
        Ok(step)
    }

    fn indexes_or_slice(&mut self) -> Result<Step, PathError> {
        let first = self.signed()?;
        if self.eat(":") {
            let end = self.signed()?;
            let step = if self.eat(":") { self.signed()? } else { None };
            if step.is_some_and(|step| step < 1) {
                return Err(self.error("the step of a slice is at least 1"));
            }
            return Ok(Step::Slice {
                start: first.unwrap_or(0),
                // `[2:0]` reads to the end in this dialect.
                end: end.filter(|end| *end != 0),
                step: step.unwrap_or(1) as usize,
            });
        }
        let mut indexes = vec![self.position_index(first)?];
        while self.eat(",") {
            let next = self.signed()?;
            indexes.push(self.position_index(next)?);
        }
        match indexes[..] {
            [index] => Ok(Step::Index(index)),
            _ => Ok(Step::Indexes(indexes)),
        }
    }

    fn position_index(&self, number: Option<i64>) -> Result<usize, PathError> {
        match number {
            Some(number) if number >= 0 => Ok(number as usize),
            Some(_) => Err(self.error("an index is not negative (write a slice such as [-1:])")),
            None => Err(self.error("expected an index, a slice, 'name', * or ?(…)")),
        }
    }

    fn signed(&mut self) -> Result<Option<i64>, PathError> {
        self.skip_space();
        let rest = self.rest();
        let digits = rest.strip_prefix('-').unwrap_or(rest);
        let count = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
        if count == 0 {
            return Ok(None);
        }
        let end = rest.len() - digits.len() + count;
        let number = rest[..end].parse().map_err(|_| self.error("this number is too large"))?;
        self.position += end;
        Ok(Some(number))
    }

    pub(super) fn quoted(&mut self) -> Result<String, PathError> {
        if !self.rest().starts_with('\'') {
            return Err(self.error("expected a string in single quotes"));
        }
        let mut text = String::new();
        let mut characters = self.rest()[1..].char_indices();
        while let Some((offset, character)) = characters.next() {
            match character {
                '\'' => {
                    self.position += 1 + offset + 1;
                    return Ok(text);
                }
                '\\' => match characters.next() {
                    Some((_, escaped @ ('\'' | '"' | '\\' | '/'))) => text.push(escaped),
                    Some((_, escaped)) => text.extend(['\\', escaped]),
                    None => break,
                },
                other => text.push(other),
            }
        }
        Err(self.error("this string does not end"))
    }
}

fn length_kind(steps: &[Step]) -> Length {
    let last = steps.iter().rev().find_map(|step| match step {
        Step::Index(_) => Some(Length::OfArray),
        Step::Fields(_) | Step::Indexes(_) | Step::Slice { .. } | Step::Wildcard | Step::Filter(_) => {
            Some(Length::OfMatches)
        }
        _ => None,
    });
    last.unwrap_or(Length::OfArray)
}
