use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{json, Map, Value};

use super::{Needs, Path};

fn matches(path: &str, value: &Value) -> bool {
    Path::new(path).unwrap().matches(value)
}

fn find(path: &str, value: &Value) -> Value {
    Path::new(path).unwrap().find(value).into_iter().cloned().collect()
}

fn document() -> Value {
    json!({
        "id": "1", "text": "abc", "metadata": {"url": "http://a.b", "n": 3},
        "attributes": {
            "e__t__score": [[0, 3, 0.75]], "empty": [], "spans": [[0, 1, 0.25], [1, 3, 0.9]], "dup": [[0, 3, 1]]
        }
    })
}

#[test]
fn a_filter_on_an_object_tests_the_object() {
    let document = document();
    for (path, expected) in [
        ("$.attributes[?(@.e__t__score && @.e__t__score[0] && @.e__t__score[0][2] > 0.5)]", true),
        ("$.attributes[?(@.e__t__score && @.e__t__score[0] && @.e__t__score[0][2] > 0.8)]", false),
        ("$@.attributes[?(@.dup && @.dup[0] && @.dup[0][2] >= 1.0)]", true),
        ("$.attributes[?(@.empty)]", true),
        ("$.attributes[?(@.empty && @.empty[0])]", false),
        ("$.attributes[?(@.absent)]", false),
        ("$.attributes[?(!@.absent)]", true),
        ("$.attributes[?(@.absent || @.empty)]", true),
        ("$.metadata[?(@.url ~= '^http:')]", true),
        ("$.metadata[?(@.n in [1, 2, 3])]", true),
        ("$.metadata[?(@.n nin [1, 2, 3])]", false),
        ("$.metadata[?(@.url size 10)]", true),
        ("$.metadata[?(@.absent size 10)]", false),
        ("$.attributes[?(@.spans.length() >= 2)]", true),
        ("$[?(@.text == 'abc')]", true),
        ("$[?(@.text < 'abd')]", true),
        ("$[?($.metadata.n == 3.0 && (@.id == '2' || @.id == '1'))]", true),
    ] {
        assert_eq!(matches(path, &document), expected, "{path}");
    }
}

#[test]
fn a_filter_on_an_array_selects_items() {
    let document = document();
    assert_eq!(find("$.attributes.spans[?(@[2] > 0.5)]", &document), json!([[1, 3, 0.9]]));
    assert_eq!(find("$.attributes.spans[?(@[2] > 0.1 && @[0] == 0)]", &document), json!([[0, 1, 0.25]]));
    assert_eq!(find("$.attributes.spans[?(!(@[2] > 0.5))]", &document), json!([[0, 1, 0.25]]));
}

#[test]
fn steps_find_what_they_name() {
    let document = document();
    assert_eq!(find("$.metadata['url']", &document), json!(["http://a.b"]));
    assert_eq!(find("$.metadata['url','n','x']", &document), json!(["http://a.b", 3]));
    assert_eq!(find("$.attributes.spans[0,1,7][0]", &document), json!([0, 1]));
    assert_eq!(find("$..n", &document), json!([3]));
    assert_eq!(find("$.metadata.*", &document), json!([3, "http://a.b"]));
    assert_eq!(find("$.metadata[*]", &document), json!([3, "http://a.b"]));
    assert_eq!(find("$.attributes.dup..*", &document), json!([[0, 3, 1], 0, 3, 1]));
    assert!(matches("$.attributes.spans.length()", &document));
    assert!(!matches("$.id.length()", &document));
}

#[test]
fn slices_clamp() {
    let value = json!({"a": [0, 1, 2, 3, 4]});
    for (path, expected) in [
        ("$.a[1:3]", json!([1, 2])),
        ("$.a[:]", json!([0, 1, 2, 3, 4])),
        ("$.a[-2:]", json!([3, 4])),
        ("$.a[:-3]", json!([0, 1])),
        ("$.a[0:99]", json!([0, 1, 2, 3, 4])),
        ("$.a[::2]", json!([0, 2, 4])),
        ("$.a[3:1]", json!([])),
    ] {
        assert_eq!(find(path, &value), expected, "{path}");
    }
}

#[test]
fn what_could_never_match_does_not_compile() {
    for (path, position) in [
        ("", 0),
        ("$.", 2),
        ("$.a[", 4),
        ("$.a[-1]", 6),
        ("$.a[?(@.b > .5)]", 12),
        ("$.a[?(.b)]", 6),
        ("$.a[?(@.b == \"x\")]", 13),
        ("$.a[?(@.b > [1])]", 15),
        ("$.a[?(1)]", 6),
        ("$.a[?(@.b ~= '(')]", 16),
        ("$.a[::0]", 7),
        ("$.a.length().b", 12),
        ("$.a[?(@.b = 1)]", 10),
        ("$.a]", 3),
        ("$.a['b", 4),
    ] {
        assert_eq!(Path::new(path).unwrap_err().position, position, "{path}: {:?}", Path::new(path));
    }
    let deep = format!("$.a[?({}@.b{})]", "(".repeat(1000), ")".repeat(1000));
    assert!(Path::new(&deep).unwrap_err().message.contains("deeply"));
}

fn needs(path: &str) -> Needs {
    let mut needs = Needs::default();
    needs.add(&Path::new(path).unwrap());
    needs
}

#[test]
fn needs_name_the_keys_that_are_read() {
    let keys = |needs: &Needs, field: &str| needs.fields.get(field).cloned();
    let some = |names: &[&str]| Some(Some(names.iter().map(ToString::to_string).collect::<BTreeSet<_>>()));
    let found = needs("$.attributes[?(@.a && @.b[0][2] > 0.5 && $.metadata.x)]");
    assert!(!found.everything);
    assert_eq!(keys(&found, "attributes"), some(&["a", "b"]));
    assert_eq!(keys(&found, "metadata"), some(&["x"]));
    assert_eq!(keys(&needs("$.attributes.k[?(@[2] > $.limit)]"), "limit"), Some(None));
    assert_eq!(keys(&needs("$.text"), "text"), Some(None));
    assert_eq!(keys(&needs("$.attributes.*"), "attributes"), Some(None));
    assert!(needs("$..a").everything && needs("$[?(@.a)]").everything && needs("$").everything);
}

/// Only what [`Needs`] asks for.
fn reduced(document: &Value, needs: &Needs) -> Value {
    if needs.everything {
        return document.clone();
    }
    let mut kept = Map::new();
    for (field, keys) in &needs.fields {
        match (document.get(field), keys) {
            (Some(Value::Object(fields)), Some(keys)) => {
                let some = fields.iter().filter(|(key, _)| keys.contains(*key));
                kept.insert(field.clone(), some.map(|(key, value)| (key.clone(), value.clone())).collect());
            }
            (Some(value), _) => {
                kept.insert(field.clone(), value.clone());
            }
            (None, _) => {}
        }
    }
    Value::Object(kept)
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3i64..4).prop_map(Value::from),
        (-2.0..2.0f64).prop_map(Value::from),
        "[a-c]{0,2}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[abc]", inner, 0..4).prop_map(|fields| fields.into_iter().collect()),
        ]
    })
}

fn any_path() -> impl Strategy<Value = String> {
    let step = prop_oneof![
        "[abc]".prop_map(|name| format!(".{name}")),
        "[abc]".prop_map(|name| format!("['{name}']")),
        (0..3usize).prop_map(|index| format!("[{index}]")),
        Just("[*]".to_string()),
        "[abc]".prop_map(|name| format!("..{name}")),
        (-2i64..3, -2i64..3).prop_map(|(start, end)| format!("[{start}:{end}]")),
        ("[abc]", 0..3usize, "[abc]").prop_map(|(a, i, b)| format!("[?(@.{a}[{i}] > 0 || !@.{b} && $.{a})]")),
        "[abc]".prop_map(|name| format!("[?(@.{name})]")),
        "[abc]".prop_map(|name| format!("[?(@ == 1 || @.{name} in [1, 'a'])]")),
    ];
    prop::collection::vec(step, 1..5).prop_map(|steps| format!("${}", steps.concat()))
}

proptest! {
    #[test]
    fn existence_is_a_find_that_is_not_empty(value in any_json(), path in any_path()) {
        let path = Path::new(&path).unwrap();
        prop_assert_eq!(path.matches(&value), !path.find(&value).is_empty());
        prop_assert_eq!(path.first(&value), path.find(&value).first().copied());
    }

    #[test]
    fn what_is_not_needed_does_not_matter(fields in prop::collection::btree_map("[abc]", any_json(), 0..4), path in any_path()) {
        let document: Value = fields.into_iter().collect();
        let path = Path::new(&path).unwrap();
        let mut needs = Needs::default();
        needs.add(&path);
        prop_assert_eq!(path.matches(&document), path.matches(&reduced(&document, &needs)), "{:?}", needs);
    }

    #[test]
    fn no_text_makes_the_parser_fail_otherwise_than_by_saying_so(text in "[$@.\\[\\]?()a-c0-9'!&|<>=,:* -]{0,24}") {
        let _ = Path::new(&text);
    }
}
