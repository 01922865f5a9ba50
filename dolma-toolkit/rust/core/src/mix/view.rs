//! A document as rules see it.

use std::cell::OnceCell;

use serde_json::Value;

use super::row::{Row, Span};
use super::rules::{Replacer, Rules, Selector, SpanSelector};
use crate::document::Place;
use crate::error::{Code, Result};
use crate::jq::{Input, Program};
use crate::jsonpath::Needs;

/// A document as rules see it; what they need is worked out once, when the first asks.
pub struct View<'r, 'a> {
    pub(super) row: &'r Row<'a>,
    pub(super) place: Place<'r>,
    needs: &'r Needs,
    jq_needs: &'r Needs,
    /// and whether all of it could be read
    value: OnceCell<(Value, bool)>,
    input: OnceCell<std::result::Result<Input, String>>,
}

impl<'r, 'a> View<'r, 'a> {
    /// A view of `row` for `rules`.
    pub fn new(row: &'r Row<'a>, place: Place<'r>, rules: &'r Rules) -> Self {
        let (needs, jq_needs) = (&rules.needs, &rules.jq_needs);
        Self { row, place, needs, jq_needs, value: OnceCell::new(), input: OnceCell::new() }
    }

    fn value(&self) -> &Value {
        &self.value.get_or_init(|| self.row.value(self.needs)).0
    }

    /// Whether the document has the field and it is not null.
    pub fn has(&self, names: &[String]) -> bool {
        let mut value = self.value();
        for name in names {
            match value.get(name) {
                Some(Value::Null) | None => return false,
                Some(inner) => value = inner,
            }
        }
        true
    }

    fn quick(&self, program: &Program) -> Option<bool> {
        if !program.is_simple() {
            return None;
        }
        let (value, is_whole) = self.value.get_or_init(|| self.row.value(self.needs));
        is_whole.then(|| program.quick(value))?
    }

    fn ask<R>(&self, program: &Program, question: impl Fn(&Input) -> std::result::Result<R, String>) -> Result<R> {
        let input = self.input.get_or_init(|| Input::parse(&self.row.json(self.jq_needs)));
        input.as_ref().map_err(String::clone).and_then(question).map_err(|reason| {
            let message = format!("the rule `{}` fails on this document: {reason}", program.text());
            self.place.error(None, Code::InvalidValue, message)
        })
    }

    pub(super) fn includes(&self, selector: &Selector) -> Result<bool> {
        match selector {
            Selector::JsonPath(path) => Ok(path.matches(self.value())),
            Selector::Jq(program) => match self.quick(program) {
                Some(answer) => Ok(answer),
                None => self.ask(program, |input| program.all(input)),
            },
        }
    }

    pub(super) fn excludes(&self, selector: &Selector) -> Result<bool> {
        match selector {
            Selector::JsonPath(path) => Ok(path.matches(self.value())),
            Selector::Jq(program) => match self.quick(program) {
                Some(answer) => Ok(answer),
                None => self.ask(program, |input| program.any(input)),
            },
        }
    }

    pub(super) fn spans(&self, replacer: &Replacer) -> Result<Vec<Span>> {
        let selector = match &replacer.selector {
            SpanSelector::Attribute(key) => return self.row.spans(key, &self.place),
            SpanSelector::Other(selector) => selector,
        };
        let found: Vec<Value> = match selector {
            Selector::JsonPath(path) => path.find(self.value()).into_iter().cloned().collect(),
            Selector::Jq(program) => self.ask(program, |input| program.outputs(input))?,
        };
        let mut spans = Vec::new();
        for value in found {
            // a selection gives a list of spans, or the spans one by one
            let is_span = value.get(0).is_some_and(Value::is_number);
            let list = if is_span { Value::Array(vec![value]) } else { value };
            if list.is_null() {
                continue;
            }
            spans.extend(serde_json::from_value::<Vec<Span>>(list).map_err(|_| {
                let message = format!(
                    "`{}` selects something else than spans; expected [[start, end, score], …]",
                    selector.text()
                );
                self.place.error(None, Code::WrongType, message)
            })?);
        }
        Ok(spans)
    }

    pub(super) fn selected_text(&self, program: &Program) -> Result<String> {
        match self.ask(program, |input| program.outputs(input))?.as_slice() {
            [Value::String(text)] => Ok(text.clone()),
            _ => {
                let message = format!("the replacement `${}` selects something else than one string", program.text());
                Err(self.place.error(None, Code::WrongType, message))
            }
        }
    }
}
