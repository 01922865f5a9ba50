use proptest::prelude::*;
use serde_json::{json, Map, Value};

use super::row::{shared_key, AttributeRow, Changes, Row};
use super::rules::Rules;
use super::settings::{FilterSettings, RuleSettings, Syntax};
use super::view::View;
use crate::document::Place;
use crate::error::{Code, Error};
use crate::jsonpath::Needs;

const PLACE: Place<'_> = Place { path: "a.jsonl", line: 1 };

fn written(line: &str, attributes: &[&str], changes: &Changes<'_>) -> String {
    let mut row = Row::read(line.as_bytes()).unwrap();
    let id = row.id.to_string();
    row.add_attributes(
        attributes.iter().map(|line| AttributeRow::parse(line.as_bytes(), &PLACE, &id).unwrap()).collect(),
    );
    let mut out = Vec::new();
    row.write(&mut out, changes);
    String::from_utf8(out).unwrap()
}

#[test]
fn what_is_not_changed_is_copied_byte_for_byte() {
    let line =
        r#"{"z": [1.10, 12345678901234567890, "\u00e9"], "text":"a\/b","id":"1","metadata":{"b": 1.0 ,"a":[ ]}}"#;
    let expected =
        r#"{"id":"1","metadata":{"b": 1.0 ,"a":[ ]},"text":"a\/b","z":[1.10, 12345678901234567890, "\u00e9"]}"#;
    assert_eq!(written(line, &[], &Changes::default()), expected);
}

#[test]
fn a_key_that_two_sets_have_is_found() {
    let row = |keys: &str| {
        AttributeRow::parse(format!("{{\"id\":\"1\",\"attributes\":{keys}}}").into_bytes().leak(), &PLACE, "1")
    };
    let rows: Vec<_> =
        [r#"{"a":[],"b":[]}"#, r#"{"c":[]}"#, r#"{"b":[],"d":[]}"#].iter().map(|keys| row(keys).unwrap()).collect();
    assert_eq!(shared_key(&rows), Some(("b", 0, 2)));
    assert_eq!(shared_key(&rows[..2]), None);
}

#[test]
fn metadata_and_attributes_are_laid_over_what_is_there() {
    let line =
        r#"{"id":"1","text":"","metadata":{"z":1,"provenance":"old","a":2},"attributes":{"k":[[0,0,1]],"m":[]}}"#;
    let changes = Changes { metadata: vec![("b", "x".into()), ("provenance", "new".into())], ..Changes::default() };
    assert_eq!(
        written(
            line,
            &[r#"{"id":"1","attributes":{"m":[[0,0,2]],"a":[]}}"#, r#"{"id":"1","attributes":{"a":[[0,0,3]]}}"#],
            &changes
        ),
        r#"{"attributes":{"a":[[0,0,3]],"k":[[0,0,1]],"m":[[0,0,2]]},"id":"1","metadata":{"a":2,"b":"x","provenance":"new","z":1},"text":""}"#
    );
    let discard_fields = ["metadata".to_string(), "attributes".to_string()];
    let changes =
        Changes { metadata: vec![("provenance", "new".into())], discard_fields: &discard_fields, text: Some("é\n") };
    assert_eq!(written(line, &[], &changes), r#"{"id":"1","metadata":{"provenance":"new"},"text":"é\n"}"#);
}

#[test]
fn a_set_without_attributes_leaves_an_empty_object() {
    let line = r#"{"id":"1","text":""}"#;
    assert_eq!(
        written(line, &[r#"{"id":"1","attributes":{}}"#], &Changes::default()),
        r#"{"attributes":{},"id":"1","text":""}"#
    );
    assert_eq!(written(line, &[], &Changes::default()), line);
}

#[test]
fn of_equal_names_the_last_counts() {
    let line = r#"{"id":"1","text":"a","x":1,"text":"b","x":2,"x":3}"#;
    assert_eq!(written(line, &[], &Changes::default()), r#"{"id":"1","text":"b","x":3}"#);
}

#[test]
fn rows_of_another_document_are_misaligned() {
    match AttributeRow::parse(br#"{"id":"2","attributes":{}}"#, &PLACE, "1") {
        Err(Error::Format(error)) => assert_eq!(error.code, Code::Misaligned),
        other => panic!("{other:?}"),
    }
}

fn filter(include: &[&str], exclude: &[&str], syntax: Syntax) -> Rules {
    let texts = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
    let filter = FilterSettings { include: texts(include), exclude: texts(exclude), syntax };
    let settings = RuleSettings {
        filter: Some(filter),
        span_replacement: Vec::new(),
        discard_fields: Vec::new(),
        min_text_length: 0,
        sample: None,
        budget: None,
        split: None,
        shuffle_documents: None,
    };
    Rules::new(&settings, "streams.0").unwrap()
}

fn drops(rules: &Rules, document: &Value) -> Vec<bool> {
    let line = document.to_string();
    let row = Row::read(line.as_bytes()).unwrap();
    rules.filter(&View::new(&row, PLACE, rules)).unwrap()
}

#[test]
fn every_rule_is_asked() {
    let document = json!({"id": "1", "text": "x", "n": 3, "attributes": {"k": [[0, 1, 0.5]]}});
    let rules = filter(&["$.nothing", "$.n"], &["$.attributes.k", "$.m", "$[?(@.n > 2)]"], Syntax::JsonPath);
    assert_eq!(drops(&rules, &document), [false, true, false, true]);
    let rules = filter(&[".nothing", ".m"], &[".n == 4", ".attributes.k[0][2] > 0.4"], Syntax::Jq);
    assert_eq!(drops(&rules, &document), [true, false, true]);
}

#[test]
fn keys_are_found_in_both_languages() {
    let keys = |rules: &Rules| rules.attribute_keys("s").into_iter().map(|named| named.key).collect::<Vec<_>>();
    let jq = [
        ".attributes.a | length > 0",
        r#"(.attributes["b"][0][2] // 0) > .attributes?.c[0][2]"#,
        r#".attributes."d""#,
        ".x.e",
    ];
    assert_eq!(keys(&filter(&[], &jq, Syntax::Jq)), ["a", "b", "c", "d"]);
    let paths = ["$.attributes[?(@.a && @.b[0])]", "$@.attributes.c", "$..d"];
    assert_eq!(keys(&filter(&[], &paths, Syntax::JsonPath)), ["a", "b", "c"]);
}

fn any_document() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_filter("finite", |number| number.is_finite()).prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
    ];
    let value = scalar.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("\\PC{0,4}", inner, 0..4).prop_map(|fields| fields.into_iter().collect()),
        ]
    });
    let metadata = prop::collection::btree_map("[a-z]{1,4}", value.clone(), 0..4);
    let others = prop::collection::btree_map("[x-z]{1,3}", value, 0..4);
    ("\\PC{1,6}", "\\PC{0,20}|[a-z\n\"\\\\🎉]{0,20}", metadata, others).prop_map(|(id, text, metadata, others)| {
        let mut document: Map<String, Value> = others.into_iter().collect();
        document.insert("id".into(), id.into());
        document.insert("text".into(), text.into());
        document.insert("metadata".into(), metadata.into_iter().collect());
        Value::Object(document)
    })
}

proptest! {
    #[test]
    fn a_document_survives(document in any_document()) {
        let line = document.to_string();
        let row = Row::read(line.as_bytes()).unwrap();
        prop_assert_eq!(&serde_json::from_slice::<Value>(&row.json(&Needs::everything())).unwrap(), &document);
        prop_assert_eq!(&row.value(&Needs::everything()), &(document.clone(), true));
        for paths in [&["id", "attributes"][..], &["metadata.a", "text"], &["attributes.a", "attributes.b", "absent"]] {
            let mut needs = Needs::default();
            for path in paths {
                match path.split_once('.') {
                    Some((field, key)) => needs.add_key(field, key),
                    None => needs.add_field(path),
                }
            }
            let part = serde_json::from_slice::<Value>(&row.json(&needs)).unwrap();
            prop_assert_eq!(&row.value(&needs), &(part, true));
        }
        prop_assert_eq!(&*row.text, document["text"].as_str().unwrap());
    }

    #[test]
    fn provenance_is_added_and_nothing_else_changes(document in any_document()) {
        let changes = Changes { metadata: vec![("provenance", "p".into())], ..Changes::default() };
        let mut expected = document.clone();
        expected["metadata"]["provenance"] = "p".into();
        let found: Value = serde_json::from_str(&written(&document.to_string(), &[], &changes)).unwrap();
        prop_assert_eq!(found, expected);
    }
}
