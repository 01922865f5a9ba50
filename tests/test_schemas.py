"""The JSON Schemas accept every valid vector and refuse every invalid one that a schema can express."""

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from vector_files import FORMATS_FOLDER, VectorCase, cases, json_lines, read_bytes

SCHEMAS = {
    path.name.removesuffix("-v1.json"): json.loads(path.read_text())
    for path in sorted((FORMATS_FOLDER / "schemas").glob("*.json"))
}
CHECKABLE = {
    "empty_messages",
    "invalid_value",
    "missing_field",
    "unknown_format",
    "unknown_role",
    "unsafe_path",
    "unsupported_version",
    "wrong_type",
}
# what a schema cannot express: keys that a manifest lists, JSON within a string, an order, a sum, a column of a CSV,
# bytes, and that 1.0 is not an integer
BEYOND = {
    "attributes/no_spans",
    "attributes/score_is_boolean",
    "attributes/span_of_two",
    "attributes/start_is_float",
    "document/metadata_is_list",
    "document/metadata_is_not_json",
    "document/wrong_count",
    "manifest/files_not_sorted",
    "megatron/newer_index",
    "megatron/other_file",
    "packed/wrong_padding",
    "preference/answer_not_trained",
    "results/not_sorted",
    "results/primary_is_no_metric",
    "results/ratio_is_wrong",
    "results/repeated_domain",
    "results/tokens_is_float",
    "tokens/four_columns",
    "tokens/start_is_word",
}


def validator(format: str, definition: str | None = None) -> Draft202012Validator:
    """A validator of a format's schema, or of one of its definitions."""
    schema = SCHEMAS[format]
    if definition is not None:
        schema = {"$schema": schema["$schema"], "$ref": f"#/$defs/{definition}", "$defs": schema["$defs"]}
    return Draft202012Validator(schema)


def problems(case: VectorCase) -> list[str]:
    """All errors that the schemas find in the artifact's rows, objects and manifest."""
    pairs: list[tuple[Draft202012Validator, Any]] = [
        (validator(case.format), row) for path in case.row_files() for row in json_lines(path)
    ]
    objects = {"manifest.json": validator("manifest")}
    if case.format == "results":
        objects["results.json"] = validator("results")
    if case.format == "checkpoint":
        objects["config.json"] = validator("checkpoint", "config")
    pairs += [
        (check, json.loads((case.data / name).read_text()))
        for name, check in objects.items()
        if (case.data / name).exists()
    ]
    manifest_path = case.data / "manifest.json"
    if case.format != "manifest" and manifest_path.exists():
        value = json.loads(manifest_path.read_text())
        pairs += [(validator(case.format, part), value[part]) for part in ("counts", "details")]
        pairs.append((Draft202012Validator({"const": case.format}), value["format"]))
    predictions = case.data / "predictions.jsonl.gz"
    if predictions.exists():
        pairs += [
            (validator("results", "prediction"), json.loads(line)) for line in read_bytes(predictions).splitlines()
        ]
    return [error.message for check, value in pairs for error in check.iter_errors(value)]


def test_every_format_page_has_a_schema_and_vectors_of_both_kinds() -> None:
    # a filter is binary and only dolma reads it; its own tests check it against its page, and those of decontamination
    pages = {path.stem for path in FORMATS_FOLDER.glob("*.md")} - {"README", "filter", "decontamination"}
    assert set(SCHEMAS) == pages
    for kind in ("valid", "invalid"):
        assert {case.format for case in cases(kind)} == pages


@pytest.mark.parametrize("format", sorted(SCHEMAS))
def test_schema_is_a_schema(format: str) -> None:
    Draft202012Validator.check_schema(SCHEMAS[format])


@pytest.mark.parametrize("case", cases("valid"), ids=lambda case: case.name)
def test_schema_accepts_valid_vector(case: VectorCase) -> None:
    assert problems(case) == []


@pytest.mark.parametrize(
    "case",
    [case for case in cases("invalid") if case.load("expect.json")["code"] in CHECKABLE and case.name not in BEYOND],
    ids=lambda case: case.name,
)
def test_schema_refuses_invalid_vector(case: VectorCase) -> None:
    assert problems(case)


@pytest.mark.parametrize("name", sorted(BEYOND))
def test_exception_is_really_beyond_the_schema(name: str) -> None:
    case = next(case for case in cases("invalid") if case.name == name)
    assert problems(case) == []


@pytest.mark.parametrize("case", cases("invalid"), ids=lambda case: case.name)
def test_expectation_is_complete_and_its_code_is_listed(case: VectorCase) -> None:
    expect = case.load("expect.json")
    assert set(expect) == {"code", "path", "line", "field"}
    assert f"| `{expect['code']}` |" in (FORMATS_FOLDER / "README.md").read_text()


def test_every_code_has_a_vector() -> None:
    lines = (FORMATS_FOLDER / "README.md").read_text().split("## Error codes")[1].split("## ")[0].splitlines()
    listed = {line.split("`")[1] for line in lines if line.startswith("| `")}
    assert listed == {case.load("expect.json")["code"] for case in cases("invalid")}
