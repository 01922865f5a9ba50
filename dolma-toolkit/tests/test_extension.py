"""The extension module and the face that it shows to type checkers; names that dolma 1.x users import."""

import subprocess
import sys
from pathlib import Path

import pytest

import dolma


@pytest.mark.processes
def test_stub_is_what_the_module_holds() -> None:
    from dolma import _native

    assert _native.__version__
    command = [sys.executable, "-m", "mypy.stubtest", "dolma._native"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parent)
    assert result.returncode == 0, result.stdout + result.stderr


def test_names_of_dolma_1_are_importable() -> None:
    from dolma import BaseTagger, BaseTaggerWithMetadata, add_tagger
    from dolma.core import TaggerRegistry
    from dolma.core.data_types import DocResult, Document, DocumentWithMetadata, Span, TextSlice
    from dolma.core.taggers import BaseTagger as Base

    assert Base is BaseTagger
    assert issubclass(BaseTaggerWithMetadata, BaseTagger)
    assert add_tagger == TaggerRegistry.add
    document = DocumentWithMetadata(source="s", id="1", text="a word", metadata={"x": 1})
    span = Span(start=2, end=6, type="w", score=0.5)
    assert (span.mention(document.text), span.select(document), len(span)) == ("word", "word", 4)
    result = DocResult(doc=document, spans=[span])
    assert DocResult.from_json(result.to_json(with_doc=True)).spans == [span]
    assert Document.from_json(document.to_json()).id == "1"
    assert TextSlice(doc="abc", start=1, end=3).text == "bc"


def test_public_names_are_these() -> None:
    names = {
        "BaseTagger",
        "BaseTaggerWithMetadata",
        "DocResult",
        "Document",
        "DocumentWithMetadata",
        "Span",
        "add_tagger",
    }
    assert set(dolma.__all__) >= names
    assert all(hasattr(dolma, name) for name in dolma.__all__)
