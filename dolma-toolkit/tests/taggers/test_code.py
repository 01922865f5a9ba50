"""Taggers of source code: real code as dolma 1.2.1 sees it, and what their libraries leave to us."""

from __future__ import annotations

import pydoc
import sysconfig
from pathlib import Path
from typing import Any

import pytest
from dolma_corpus import Dolma, read_rows, write_rows
from taggers.peer import compare

from dolma.core.data_types import Document, DocumentWithMetadata
from dolma.core.registry import TaggerRegistry
from dolma.tagging.workers import import_modules

LIBRARY = Path(sysconfig.get_paths()["stdlib"])
NAMES = ["code_secrets_v1", "code_starcoder_taggers_v1", "code_starcoder_taggers_v2"]
# published as an example by the service that gives such keys out
EXAMPLE_KEY = "AKIA" + "IOSFODNN7EXAMPLE"
SECRETS = f"""import os
aws_key = "{EXAMPLE_KEY}"
url = "https://someone:hunter2pass@example.org/path"  # é
password = "correct-horse-battery"
api_key: 'x9Vq2LrT0bYw7Kd1NzPf'
-----BEGIN RSA PRIVATE KEY-----
aws_key = "{EXAMPLE_KEY}"
token = "{EXAMPLE_KEY}"  # pragma: allowlist secret
"""
JAVASCRIPT = "/** Adds. */\nfunction add(a, b) {\n  // both\n  return a + b /* é */;\n}\n"
JAVA = 'package a;\n/* One\n two */\nclass A { // three\n  String s = "/* none */";\n}\n'
CLASSES = """
class B:
    'b'
class A:
    '''a
        c'''
    def z(self):
        'z'
    async def y(self):
        'not counted'
"""
C = "#include <a.h>\n// one\nint main(void) { /* two */ return 0; }\n"

ODD = {
    "py": [SECRETS, CLASSES, " ", "def f(:\n  # é\n", "def f():\n\t# a\n  x\n", "print 'x' # old"],
    "ini": [SECRETS.replace("\n", "\r\n")],
    "js": [JAVASCRIPT],
    "ts": [JAVASCRIPT],
    "java": [JAVA],
    "c": [C],
    "h": [C],
    "nothing": [C],
    "": [C],
    "xml": ["<?xml version='1.0'?><a>b</a>"],
    "html": ["<p>short</p><script>x</script>", "<![x"],
    "htm": [f"<!-- no --><p>{'long ' * 40}&amp;</p><style>p {{}}</style>"],
}
"""By extension; without one under the empty name."""


def _tagger(name: str) -> Any:
    pytest.importorskip("detect_secrets")
    import_modules([])
    return TaggerRegistry.get(name)()


def _scores(name: str, text: str, **metadata: object) -> dict[str, float]:
    found = _tagger(name).spans(DocumentWithMetadata("s", "1", text, metadata=metadata))
    assert {row[1:3] for row in found} == {(0, len(text))}
    return {kind: score for kind, _, _, score in found}


@pytest.mark.oracle
def test_code_is_tagged_as_1_2_1_tags_it(tmp_path: Path) -> None:
    pytest.importorskip("detect_secrets")
    # beyond that detect-secrets takes seconds a file
    modules = [path.read_text("utf-8") for path in sorted(LIBRARY.glob("*.py")) if path.stat().st_size < 9000][:20]
    written: list[tuple[str, str | None]] = [(text, "py") for text in modules]
    written += [(text, "yml") for text in modules[:5]]
    written += [(pydoc.HTMLDoc().document(pydoc.HTMLDoc().markup(text)), "html") for text in modules[:5]]
    for language, texts in ODD.items():
        written += [(text, language or None) for text in texts]
    rows = [
        {"id": str(at), "text": text, "source": "s", "metadata": {"max_stars_count": [None, 7, 0.5][at % 3]}}
        for at, (text, _) in enumerate(written)
    ]
    for row, (_, extension) in zip(rows, written, strict=True):
        row["metadata"] |= {} if extension is None else {"ext": extension}  # type: ignore[operator]
    assert compare(tmp_path, rows, {name: [] for name in NAMES}) == len(rows)


def test_secrets_have_exact_places() -> None:
    found = _tagger(NAMES[0]).spans(Document("s", "1", SECRETS))
    secrets = {kind: SECRETS[start:end] for kind, start, end, _ in found}
    assert secrets["SECRET_AWS_Access_Key"] == EXAMPLE_KEY
    assert secrets["SECRET_Basic_Auth_Credentials"] == "hunter2pass"
    assert secrets["SECRET_Private_Key"] == "BEGIN RSA PRIVATE KEY"
    assert secrets["SECRET_Secret_Keyword"] in ("correct-horse-battery", "x9Vq2LrT0bYw7Kd1NzPf")
    # the same key again is no other secret, and the last line is allowed by its remark
    assert [kind for kind, *_ in found].count("SECRET_AWS_Access_Key") == 1
    assert found[-1] == ("doc", 0, len(SECRETS), (len(found) - 1) / len(SECRETS.split()))
    assert _tagger(NAMES[0]).spans(Document("s", "1", "")) == [("doc", 0, 0, -1.0)]


@pytest.mark.parametrize(
    ("text", "extension", "share"),
    [
        ('"""Doc."""\nx = 1  # one # two\n', "py", len("Doc.\n one  two") / 30),
        ("x = '# none'\n", "py", 0.0),
        (JAVASCRIPT, "js", (len("/** Adds. */") + len("// both") + len("/* é */")) / len(JAVASCRIPT)),
        (JAVA, "java", (len("/* One\n two */") + len("// three")) / len(JAVA)),
        (C, "c", 0.5),
        ("", "py", -1.0),
    ],
)
def test_shares_of_comments(text: str, extension: str, share: float) -> None:
    scores = _scores(NAMES[2], text, ext=extension, max_stars_count=3)
    assert scores["code_to_comment_ratio_doc"] == pytest.approx(share, abs=0.04 if extension == "js" else 1e-9)
    assert (scores["num_github_stars_doc"], scores["has_xml_template_doc"]) == (3.0, 0.0)
    assert scores["code_to_text_ratio_html_doc"] == 1.0


def test_visible_text_of_html() -> None:
    text = f"<html><script>{'x' * 300}</script><p>{'a' * 150}</p></html>"
    for name in NAMES[1:]:
        assert _scores(name, text, ext="html")["code_to_text_ratio_html_doc"] == 150 / len(text)
        assert _scores(name, "<p>few</p>", ext="html")["code_to_text_ratio_html_doc"] == 0.0
        assert _scores(name, "", ext="html")["code_to_text_ratio_html_doc"] == -1.0
    assert _scores(NAMES[1], C)["nl_ratio_doc"] == -1.0


def test_a_file_of_code_by_the_command(dolma: Dolma, tmp_path: Path) -> None:
    pytest.importorskip("detect_secrets")
    rows = [{"id": "1", "text": SECRETS, "metadata": {"ext": "py"}}, {"id": "2", "text": C}]
    write_rows(tmp_path / "documents/a.jsonl.gz", rows)
    dolma("tag", "--documents", f"{tmp_path}/documents/*", "--taggers", *NAMES, "--experiment", "e")
    first, second = read_rows(tmp_path / "attributes/e/a.jsonl.gz")
    assert "e__code_secrets_v1__SECRET_AWS_Access_Key" in first["attributes"]
    assert second["attributes"]["e__code_starcoder_taggers_v1__nl_ratio_doc"] == [[0, len(C), -1.0]]
