"""A completions API beside the same model in this process: scores, texts, documents, and servers that misbehave."""

import email.utils
import json
import math
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from catwalk.__main__ import main
from catwalk.backends import api
from catwalk.backends.huggingface import HuggingFace
from catwalk.backends.opening import open_model
from catwalk.backends.specs import parse_spec
from catwalk.formats.__main__ import main as formats_main
from catwalk.formats.contract import ConfigError, WorkError, read_object, read_rows
from catwalk.types import Likelihood, Pair, PairError, Prompt
from completions_server import Server, serve

Build = Callable[[str], Path]

_PAIRS = [
    Pair(context="The hen", continuation=" lays eggs in spring"),
    Pair(context="The hen", continuation=" lays"),
    Pair(context="Rivers carry sand ", continuation="to the sea"),
    Pair(context="sea T", continuation="he"),
    Pair(context="Größe, 東京 and", continuation=" a nail"),
    Pair(context="The hen", continuation=" lays"),
]
_TEXTS = ["Salt water and wind. " * 9, "Größe 東京", "x"]


@pytest.fixture(scope="module")
def model(build_checkpoint: Build) -> Path:
    return build_checkpoint("llama")


@pytest.fixture(scope="module")
def running(model: Path) -> Iterator[Server]:
    with serve(model) as server:
        yield server


@pytest.fixture
def server(running: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The server as it is at first; nothing waits before another attempt."""
    fresh = Server(address=running.address)
    for name, value in vars(fresh).items():
        setattr(running, name, value)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    monkeypatch.delenv(api.KEY_VARIABLE, raising=False)
    return running


def _with_ids(server: Server, model: Path) -> str:
    return f"{server.address},model=tiny,tokenizer={model}"


def _same(found: list[Likelihood], wanted: list[Likelihood]) -> None:
    for one, other in zip(found, wanted, strict=True):
        assert one.sum_logprob == pytest.approx(other.sum_logprob, abs=1e-4)
        assert (one.tokens, one.greedy, one.crossing) == (other.tokens, other.greedy, other.crossing)


@pytest.mark.parametrize("takes_zero", [True, False])
@pytest.mark.parametrize("kind", ["ids", "texts", "texts after bos"])
def test_scores_equal_those_of_the_model_itself(
    server: Server, model: Path, kind: str, takes_zero: bool, tmp_path: Path
) -> None:
    server.takes_zero = takes_zero
    if kind == "texts after bos":
        server.special = "<|begin|>"
        model = _begins_with_bos(model, tmp_path)
    own = HuggingFace(model)
    remote = open_model(_with_ids(server, model) if kind == "ids" else f"{server.address},model=tiny")
    (said,) = own.generate([Prompt(text="The hen lays eggs", stop=(), max_tokens=1)])
    pairs = [*_PAIRS, Pair(context="The hen lays eggs", continuation=said)]
    wanted = own.score(pairs)
    remote.check(pairs)
    _same(remote.score(pairs), wanted)
    assert any(one.greedy for one in wanted)
    assert any(one.crossing for one in wanted)
    asked = [json.dumps(body["prompt"]) for body in server.bodies[2 - takes_zero :]]
    assert len(asked) == len(set(asked)) == 6  # equal pairs are scored once
    assert all(isinstance(body["prompt"], list) == (kind == "ids") for body in server.bodies)


def _begins_with_bos(model: Path, target: Path) -> Path:
    """A copy whose tokenizer begins texts with BOS."""
    shutil.copytree(model, target, dirs_exist_ok=True)
    config = read_object(target / "tokenizer_config.json") | {"add_bos_token": True}
    (target / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return target


@pytest.mark.parametrize("windowing", ["paloma-reference", "strict-disjoint"])
def test_documents_equal_those_of_the_model_itself(server: Server, model: Path, windowing: Any) -> None:
    settings = {"max_length_tokens": 16, "windowing": windowing}
    own, remote = HuggingFace(model, **settings), open_model(_with_ids(server, model), **settings)
    wanted, found = own.documents(_TEXTS), remote.documents(_TEXTS)
    _same(found, wanted)
    assert [one.windows for one in found] == [one.windows for one in wanted]
    assert max(one.windows for one in found) > 3


def test_texts_equal_those_of_the_model_itself(server: Server, model: Path) -> None:
    own = HuggingFace(model, max_length_tokens=32)
    (whole,) = own.generate([Prompt(text="The hen", stop=(), max_tokens=12)])
    stops = [(), (whole[3:5],), ("a", "b", "c", "d", whole[3:5])]  # the fifth is not sent
    prompts = [Prompt(text="The hen", stop=stop, max_tokens=12) for stop in stops]
    wanted = own.generate(prompts)
    assert wanted[1] == whole[: whole.index(stops[1][0])]
    for spec in (_with_ids(server, model), f"{server.address},model=tiny"):
        assert open_model(spec, max_length_tokens=32).generate(prompts) == wanted
    long = [Prompt(text="sea " * 60, stop=(), max_tokens=4)]
    assert open_model(_with_ids(server, model), max_length_tokens=32).generate(long) == own.generate(long)
    assert max(len(body.get("stop", ())) for body in server.bodies) == 4


def test_a_run_is_that_of_the_checkpoint_and_keeps_no_key(
    server: Server, model: Path, data_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(api.KEY_VARIABLE, "secret-key-0123")
    spec = f"{_with_ids(server, model)},concurrency=3"
    arguments = ["run", "--models", str(model), f"remote={spec}", "text=" + f"{server.address},model=tiny"]
    arguments += ["--tasks", "copa", "--data", str(data_directory), "--device", "cpu", "--output-dir"]
    assert main([*arguments, str(tmp_path / "runs")]) == 0
    assert server.keys == {"Bearer secret-key-0123"}
    assert 1 < server.most_active <= 3 + 8
    rows = {}
    for name in (model.name, "remote", "text"):
        assert formats_main(["validate", "results", str(tmp_path / "runs" / name)]) == 0
        rows[name] = [row for _, row in read_rows(tmp_path / "runs" / name / "predictions.jsonl.gz")]
    for name in ("remote", "text"):
        for row, wanted in zip(rows[name], rows[model.name], strict=True):
            for key in ("sum_logprob", "sum_logprob_unconditional"):
                found = [choice[key] for choice in row["choices"]]
                assert found == pytest.approx([choice[key] for choice in wanted["choices"]], abs=1e-4)
    assert all(b"secret-key" not in path.read_bytes() for path in (tmp_path / "runs").rglob("*") if path.is_file())
    about = read_object(tmp_path / "runs" / "remote" / "results.json")["model"]
    assert about["architecture"] == f"tiny at {server.address}"
    asked = len(server.bodies)
    assert main([*arguments, str(tmp_path / "runs")]) == 0  # finished: nothing is sent
    assert len(server.bodies) == asked


@pytest.mark.parametrize("headers", [{}, {"Retry-After": "7"}, {"Retry-After": "date"}, {"Retry-After": "soon"}])
def test_a_busy_server_is_asked_again(
    server: Server, model: Path, monkeypatch: pytest.MonkeyPatch, headers: dict[str, str]
) -> None:
    if headers.get("Retry-After") == "date":
        headers = {"Retry-After": email.utils.formatdate(time.time() + 20, usegmt=True)}
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    remote = open_model(f"{_with_ids(server, model)},concurrency=1")
    remote.check(_PAIRS)
    server.refusals = [(429, headers), (503, headers), (500, headers)]
    _same(remote.score(_PAIRS[:2]), HuggingFace(model).score(_PAIRS[:2]))
    if headers.get("Retry-After") in (None, "soon"):
        assert waits == [1, 2, 4]
    else:
        assert waits == [7, 7, 7] or all(18 < wait <= 20 for wait in waits)
    server.refusals = [(429, {"Retry-After": "9999999"})] * 6
    with pytest.raises(WorkError, match=r"answers with status 429 \(go away\)"):
        remote.score(_PAIRS[:1])
    assert max(waits) == 60


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (401, "refuses a request without a key", ConfigError),
        (404, 'no completions of "tiny"', ConfigError),
        (400, "refuses the request .*go away", WorkError),
        (302, "status 302", WorkError),
    ],
)
def test_a_refusal_is_named(server: Server, model: Path, status: int, message: str, kind: type[Exception]) -> None:
    remote = open_model(_with_ids(server, model))
    remote.check(_PAIRS)
    server.refusals = [(status, {})] * 9
    with pytest.raises(kind, match=message):
        remote.score(_PAIRS)


def _edit(**changes: Any) -> Callable[[dict[str, Any]], Any]:
    """An edit of the log-probabilities of an answer."""

    def change(answer: dict[str, Any]) -> Any:
        for name, edit in changes.items():
            found = answer["choices"][0]["logprobs"]
            found[name] = edit(found[name])
        return answer

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda answer: {"choices": [answer["choices"][0] | {"logprobs": None}]}, "the answer has no logprobs"),
        (_edit(token_logprobs=lambda column: column[-1:]), "lengths differ|has 1 log-probabilities"),
        (_edit(top_logprobs=lambda column: None), "lack one of token_logprobs, top_logprobs"),
        (_edit(token_logprobs=lambda column: [None] * len(column)), "log-probability is None"),
        (_edit(tokens=lambda column: ["no"] * len(column)), "is not the tokenizer of tiny|do not spell"),
    ],
)
@pytest.mark.parametrize("kind", ["ids", "texts"])
def test_a_server_that_cannot_score_is_found_before_any_work(
    server: Server, model: Path, data_directory: Path, tmp_path: Path, capsys: Any, kind: str, change: Any, message: str
) -> None:
    server.change = change
    spec = _with_ids(server, model) if kind == "ids" else f"{server.address},model=tiny"
    remote = open_model(spec)
    with pytest.raises(ConfigError, match=message):
        remote.check(_PAIRS)
    arguments = ["run", "--model", spec, "--tasks", "copa", "--data", str(data_directory)]
    assert main([*arguments, "--output-dir", str(tmp_path / "out")]) == 2
    assert "error: model: http://127" in capsys.readouterr().err.replace(str(model), "http://127")
    assert len(server.bodies) <= 4


def test_a_server_that_takes_no_ids_says_so(server: Server, model: Path) -> None:
    server.takes_ids = False
    with pytest.raises(ConfigError, match="prompt must be a string") as caught:
        open_model(_with_ids(server, model)).check(_PAIRS)
    assert caught.value.hint is not None
    assert "without tokenizer" in caught.value.hint


@pytest.mark.parametrize("value", [math.nan, -math.inf, None, -9999.0])
def test_a_number_that_is_not_finite_names_the_pair(server: Server, model: Path, value: float | None) -> None:
    remote = open_model(_with_ids(server, model))
    remote.check(_PAIRS)

    def change(answer: dict[str, Any]) -> dict[str, Any]:
        if "sand" in answer["choices"][0]["text"]:
            answer["choices"][0]["logprobs"]["token_logprobs"][-1] = value
        return answer

    server.change = change
    with pytest.raises(PairError, match="expected a finite number") as caught:
        remote.score(_PAIRS)
    assert caught.value.pair == 2
    server.bodies.clear()
    many = [Pair(context=f"Rivers carry sand {n}", continuation=" to the sea") for n in range(60)]
    with pytest.raises(PairError) as caught:  # kept: no request may follow while somebody looks at the error
        remote.score(many)
    seen = len(server.bodies)
    assert seen < 40
    assert (caught.value.pair, len(server.bodies)) == (0, seen)


@pytest.mark.parametrize("answer", ["text", [], {"choices": []}, {"choices": [{"text": None}]}])
def test_another_kind_of_answer_is_an_error(server: Server, answer: Any) -> None:
    server.change = lambda _: answer
    with pytest.raises(WorkError, match="the answer is not that of a completions API"):
        open_model(f"{server.address},model=tiny").generate([Prompt(text="a", stop=(), max_tokens=1)])


def test_text_of_several_bytes_needs_the_tokenizer(server: Server) -> None:
    with pytest.raises(PairError, match="do not spell ' 犬猫'") as caught:
        open_model(f"{server.address},model=tiny").score([*_PAIRS[:1], Pair(context="In", continuation=" 犬猫")])
    assert caught.value.pair == 1
    assert "tokenizer=DIRECTORY" in str(caught.value.hint)
    with pytest.raises(ConfigError, match="documents: their windows need the tokens of tiny"):
        open_model(f"{server.address},model=tiny").documents(["Salt."])


def test_nobody_answers(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with pytest.raises(WorkError, match=r"no answer after 2 attempts \(ConnectError"):
        open_model(f"{address},model=tiny,tokenizer={model}").check(_PAIRS)


def test_names_of_models_behind_an_address(model: Path) -> None:
    spec = parse_spec("https://host:8000/v1,model=org/My Model")
    assert (spec.kind, spec.target, spec.name) == ("api", "https://host:8000/v1", "My-Model")
    for wrong, message in (
        ("http://host/v1", "has no model; expected a name"),
        ("http://host/v1,modle=a", 'unknown option "modle"'),
        ("http://user:pass@host/v1,model=a", r"the address http://host… is not"),
        ("http://host/v1?key=a,model=a", "is not http"),
        ("http://host/v1,model=a,concurrency=0", 'concurrency is "0"'),
        (f"http://host/v1,model=a,tokenizer={model / 'absent'}", "not found"),
    ):
        with pytest.raises(ConfigError, match=message) as caught:
            open_model(wrong)
        assert "pass" not in str(caught.value)
    with pytest.raises(ConfigError, match="boundary: catwalk needs the tokens"):
        open_model("http://host/v1,model=a", boundary="catwalk")
    with pytest.raises(ConfigError, match="token_losses: http://host/v1 gives no loss by token"):
        open_model("http://host/v1,model=a", token_losses=True)
