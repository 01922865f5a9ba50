"""Names that programs written for dolma 1.2.1 import, and what they do."""

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

import dolma
from dolma.core import DocResult, Document, Span
from dolma.core.data_types import (
    DocumentWithMetadata,
    DocumentWithMetadataAndAttributes,
    InputSpec,
    InputSpecWithMetadata,
    InputSpecWithMetadataAndAttributes,
    OutputSpec,
)
from dolma.core.registry import BaseRegistry, TaggerRegistry
from dolma.errors import ConfigError, FormatError, ProblemsError

NAMES = {
    "dolma": ["add_tagger", "BaseTagger", "deduper", "mixer", "__version__"],
    "dolma.cli.__main__": ["main"],
    "dolma.core": ["BaseTagger", "DocResult", "Document", "Span", "TaggerRegistry"],
    "dolma.core.data_types": [
        "DocResult", "Document", "DocumentWithMetadata", "DocumentWithMetadataAndAttributes", "InputSpec",
        "InputSpecWithMetadata", "InputSpecWithMetadataAndAttributes", "OutputSpec", "Span", "TaggerOutputDictType",
        "TaggerOutputType", "TaggerOutputValueType", "TextSlice",
    ],
    "dolma.core.errors": [
        "DolmaConfigError", "DolmaError", "DolmaFatalError", "DolmaRetryableFailure", "DolmaRustPipelineError",
        "DolmaShardError",
    ],
    "dolma.core.ft_tagger": ["BaseFastTextTagger", "Prediction"],
    "dolma.core.parallel": ["BaseParallelProcessor"],
    "dolma.core.registry": ["BaseRegistry", "TaggerRegistry"],
    "dolma.core.taggers": ["BaseTagger", "BaseTaggerWithMetadata", "TAGGER_SCORE_PRECISION"],
    "dolma.core.utils": ["make_variable_name", "split_paragraphs", "split_sentences", "split_words"],
}  # fmt: skip


@pytest.mark.parametrize("module", NAMES)
def test_names_are_there(module: str) -> None:
    found = importlib.import_module(module)
    assert [name for name in NAMES[module] if not hasattr(found, name)] == []


def test_rows_become_documents_and_rows_again() -> None:
    line = b'{"id":"1","text":"abc","source":"s","metadata":{"k":1},"attributes":{"e__t__x":[[0,1,0.5]]}}'
    plain = msgspec.json.decode(line, type=InputSpec)
    assert Document.from_spec(plain).to_spec() == InputSpec(id="1", text="abc", source="s")
    rich = msgspec.json.decode(line, type=InputSpecWithMetadata)
    assert DocumentWithMetadata.from_spec(rich).metadata == {"k": 1}
    full = msgspec.json.decode(line, type=InputSpecWithMetadataAndAttributes)
    document = DocumentWithMetadataAndAttributes.from_spec(full)
    assert document.to_spec() == full
    assert DocumentWithMetadataAndAttributes.from_json(document.to_json()).attributes == document.attributes
    attributes = OutputSpec(id="1", attributes={"e__t__x": [(0, 1, 0.5)]}, source="s")
    result = DocResult.from_spec(plain, attributes)
    (span,) = result.spans
    assert (span.experiment, span.tagger, span.type, span.select(result.doc)) == ("e", "t", "x", "a")
    assert result.to_spec() == (plain, attributes)
    assert Span.from_spec("duplicates", (0, 3, 1.0)).tagger == "duplicates"
    with pytest.raises(ValueError, match="expected both names"):
        Span(0, 1, "x").to_spec()
    with pytest.raises(ValueError, match="the attributes have the id"):
        DocResult.from_spec(plain, OutputSpec(id="2", attributes={}))


def test_the_registry_returns_every_tagger_by_name() -> None:
    document = Document("s", "1", "Some words, and some more words.\n")
    tagger = TaggerRegistry.get("gopher_v2")()
    spans = {span.type: span.score for span in tagger.predict(document).spans}
    assert spans["word_count"] == 6
    assert tagger.tag(document.to_spec())["word_count"] == [(0, len(document.text), 6.0)]
    assert TaggerRegistry.has("char_length_v1")
    assert dict(TaggerRegistry.items())["c4_v2"].__doc__ == "The tagger ``c4_v2``."
    with pytest.raises(ValueError, match=r"expected one of .*gopher_v2"):
        TaggerRegistry.get("gopher_v9")

    class Own(BaseRegistry[type]):
        pass

    Own.add("x")(int)
    assert dict(Own.items()) == {"x": int}
    assert not TaggerRegistry.has("x")


def test_a_native_tagger_reads_metadata() -> None:
    page = '<a href="https://creativecommons.org/licenses/by/4.0/">CC</a>'
    document = DocumentWithMetadata("s", "1", "text", metadata={"html": page})
    (span,) = TaggerRegistry.get("cc_re_fast")().predict(document).spans
    assert span.type == "cc_by"


def test_errors_have_the_bases_that_1_2_1_raises() -> None:
    from dolma.core.errors import DolmaConfigError, DolmaRustPipelineError

    for kind in (DolmaConfigError, DolmaRustPipelineError):
        with pytest.raises(kind):
            dolma.mixer({"streams": []})
    assert all(issubclass(kind, DolmaRustPipelineError) for kind in (ConfigError, FormatError, ProblemsError))


def test_files_are_processed_in_several_processes_as_in_1_2_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.txt", "deep/b.txt", "deep/c.log"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    Path("upper.py").write_text(PROCESSOR)
    run = [sys.executable, "upper.py"]
    for times in (2, 0):  # finished files are not processed again
        result = subprocess.run(run, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        assert f"{times} files to process" in result.stderr
        assert ("files: 2" in result.stderr) == bool(times)
    assert Path("out/a.txt").read_text() == "A.TXT!"
    assert Path("out/deep/b.txt").read_text() == "DEEP/B.TXT!"
    assert not Path("out/deep/c.log").exists()
    assert sorted(path.name for path in Path("meta").rglob("*.done.txt")) == ["a.txt.done.txt", "b.txt.done.txt"]


PROCESSOR = """
import pathlib
from dolma.core.errors import DolmaRetryableFailure
from dolma.core.parallel import BaseParallelProcessor

class Upper(BaseParallelProcessor):
    @classmethod
    def increment_progressbar(cls, queue, /, files=0, characters=0):
        return super().increment_progressbar(queue, files=files, characters=characters)

    @classmethod
    def process_single(cls, source_path, destination_path, queue, end="", **kwargs):
        text = pathlib.Path(source_path).read_text().upper() + end
        first = pathlib.Path(destination_path + ".first")
        if not first.exists():
            first.touch()
            raise DolmaRetryableFailure("once")
        pathlib.Path(destination_path).write_text(text)
        cls.increment_progressbar(queue, files=1, characters=len(text))

if __name__ == "__main__":
    Upper("in/**/*.*", "out", "meta", num_processes=2, retries_on_error=1, files_regex_pattern="txt$")(end="!")
"""


def test_a_processor_with_wrong_places_or_methods_is_refused() -> None:
    from dolma.core.parallel import BaseParallelProcessor

    class Files(BaseParallelProcessor):
        @classmethod
        def process_single(cls, source_path: str, destination_path: str, queue: Any, **kwargs: Any) -> None:
            Path(destination_path).touch()

        @classmethod
        def increment_progressbar(cls, queue: Any, /, files: int = 0) -> dict[str, int]:
            return super().increment_progressbar(queue, files=files)

    with pytest.raises(ValueError, match="wildcard"):
        Files("in", "out/*", "meta")
    with pytest.raises(ValueError, match="2 sources, but 1 destinations"):
        Files(["a", "b"], "out", "meta")

    class Bare(Files):
        @classmethod
        def increment_progressbar(cls, queue: Any, files: int = 0) -> dict[str, int]:
            return super().increment_progressbar(queue, files=files)

    with pytest.raises(AttributeError, match="positional-only"):
        Bare("in", "out", "meta")
    both = Files("a", "out", "meta", seed=3) + Files("b", "out2", "meta2", seed=3)
    assert (both.src_prefixes, both.seed) == (["a", "b"], 3)
