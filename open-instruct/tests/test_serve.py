"""`open-instruct serve`: its API beside plain forward passes; OpenAI's client, lm-eval and catwalk; what it refuses."""

import asyncio
import gzip
import json
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import httpx
import openai
import pytest
import torch
from conftest import QUESTIONS
from open_instruct.__main__ import main
from open_instruct.serve.text import TextStream, token_texts
from open_instruct.serve.waiting import FairQueue, QueueFull
from serving import hosted, served
from transformers import AutoModelForCausalLM, AutoTokenizer

PAIRS = [("What is", " a list?"), ("Why", "? Because it is so."), ("Blue", " Blue"), ("Say\n\nthree", "  words.")]


@pytest.fixture(scope="module")
def model_dir(checkpoint):
    """The checkpoint of the tests."""
    return checkpoint("llama")


@pytest.fixture(scope="module")
def plain(model_dir):
    """The same model and its tokenizer in transformers."""
    return AutoModelForCausalLM.from_pretrained(model_dir).eval(), AutoTokenizer.from_pretrained(model_dir)


@pytest.fixture(scope="module")
def address(model_dir):
    """A server with small limits."""
    with hosted(model_dir, batch=4, waiting=12, max_tokens=120, body_bytes=20000) as address:
        yield address


@pytest.fixture
def client(address):
    """OpenAI's client, which never tries twice."""
    with openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client:
        yield client


def logprobs_of(plain, ids):
    """The log-probability of each token after those before it."""
    with torch.no_grad():
        logits = plain[0](torch.tensor([ids])).logits[0].log_softmax(-1)
    return [float(logits[position, following]) for position, (_, following) in enumerate(pairwise(ids))]


def greedy(plain, ids, count):
    """The most likely continuation, without a cache."""
    ids = list(ids)
    for _ in range(count):
        with torch.no_grad():
            logits = plain[0](torch.tensor([ids])).logits[0, -1]
        ids.append(int(logits[: len(plain[1])].argmax()))
        if ids[-1] == plain[1].eos_token_id:
            break
    return ids


def test_echo_scores_a_prompt_of_text_or_ids(client, plain):
    texts = [context + continuation for context, continuation in PAIRS]
    ids = [plain[1].encode(text) for text in texts]
    for prompt in (texts, ids):
        answer = client.completions.create(model="any", prompt=prompt, echo=True, logprobs=3, max_tokens=0)
        assert [choice.text for choice in answer.choices] == texts
        for choice, row in zip(answer.choices, ids, strict=True):
            first, *rest = choice.logprobs.token_logprobs
            assert first is None
            assert rest == pytest.approx(logprobs_of(plain, row), abs=1e-5)
            assert all(len(top) in (3, 4) for top in choice.logprobs.top_logprobs[1:])
        assert answer.usage.prompt_tokens == sum(map(len, ids))
        assert answer.usage.completion_tokens == 0


def test_requests_of_one_batch_do_not_change_each_other(address, plain):
    prompts = [plain[1].encode(question * (1 + index)) for index, question in enumerate(QUESTIONS)]
    wanted = [greedy(plain, prompt, 10 + index)[len(prompt) :] for index, prompt in enumerate(prompts)]

    def ask(index):
        body = {"prompt": prompts[index], "max_tokens": 10 + index, "temperature": 0, "logprobs": 1}
        return httpx.post(f"{address}/v1/completions", json=body, timeout=60).json()["choices"][0]

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(ask, range(6)))
    for prompt, ids, answer in zip(prompts, wanted, answers, strict=True):
        assert answer["logprobs"]["tokens"] == [token_texts(plain[1], [id])[0] for id in ids]
        scored = logprobs_of(plain, prompt + ids)[len(prompt) - 1 :]
        assert answer["logprobs"]["token_logprobs"] == pytest.approx(scored, abs=1e-4)


def test_seed_decides_the_answer_whatever_else_is_generated(address):
    def ask(seed):
        body = {"prompt": "Why", "max_tokens": 20, "temperature": 2, "seed": seed, "top_p": 0.95}
        return httpx.post(f"{address}/v1/completions", json=body, timeout=60).json()["choices"][0]["text"]

    alone = [ask(seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, range(4))) == alone
    assert len(set(alone)) == 4


def test_chat_streams_what_it_returns_whole(client, plain):
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "How are you?"}]
    settings = {"model": "any", "messages": messages, "max_tokens": 30, "temperature": 0}
    whole = client.chat.completions.create(**settings, logprobs=True, top_logprobs=2, n=2)
    ids = plain[1].encode("<|system|>\nBe kind.\n<|user|>\nHow are you?\n<|assistant|>\n")
    new = greedy(plain, ids, 30)[len(ids) :]
    assert [choice.message.content for choice in whole.choices] == [plain[1].decode(new, skip_special_tokens=True)] * 2
    assert len(whole.choices[0].logprobs.content) == len(new)
    assert whole.usage.completion_tokens == 2 * len(new)
    chunks = list(client.chat.completions.create(**settings, stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == (
        whole.choices[0].message.content
    )
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert chunks[-1].usage.completion_tokens == len(new)


def test_stop_string_ends_the_text_before_it(client, plain):
    full = client.completions.create(model="any", prompt="Why", max_tokens=30, temperature=0).choices[0].text
    stop = full[6:9]
    settings = {"model": "any", "prompt": "Why", "max_tokens": 30, "temperature": 0, "stop": ["never", stop]}
    answer = client.completions.create(**settings).choices[0]
    assert answer.text == full[: full.index(stop)]
    assert answer.finish_reason == "stop"
    streamed = "".join(chunk.choices[0].text for chunk in client.completions.create(**settings, stream=True))
    assert streamed == answer.text


def test_text_comes_in_whole_characters(tokenizer):
    text = "naïve — 日本語 🙂 end"
    stream = TextStream(tokenizer, [5, 6], ["never"])
    pieces = [stream.add(id) for id in tokenizer.encode(text)]
    assert "".join([*pieces, stream.end()]) == text
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)
    cut = TextStream(tokenizer, [5, 6])
    assert [cut.add(id) for id in tokenizer.encode("日")[:1]] == [""]
    assert cut.end() == "\N{REPLACEMENT CHARACTER}"


def test_lm_eval_scores_as_with_the_model_itself(address, model_dir):
    api_models = pytest.importorskip("lm_eval.models.openai_completions")
    pytest.importorskip("tenacity")
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    requests = [
        Instance(request_type="loglikelihood", doc={}, arguments=pair, idx=index) for index, pair in enumerate(PAIRS)
    ]
    own = HFLM(pretrained=str(model_dir), device="cpu", dtype="float32", batch_size=1)
    wanted = own.loglikelihood(requests, disable_tqdm=True)
    settings = {"model": "any", "tokenizer": str(model_dir), "tokenizer_backend": "huggingface", "max_length": 256}
    remote = api_models.LocalCompletionsAPI(base_url=f"{address}/v1/completions", **settings, batch_size=3)
    found = remote.loglikelihood(requests, disable_tqdm=True)
    assert [is_greedy for _, is_greedy in found] == [is_greedy for _, is_greedy in wanted]
    assert [score for score, _ in found] == pytest.approx([score for score, _ in wanted], abs=1e-4)
    arguments = ("Why?", {"until": ["zzz"], "max_gen_toks": 8})
    generate = Instance(request_type="generate_until", doc={}, arguments=arguments, idx=0)
    [wanted_text] = own.generate_until([generate], disable_tqdm=True)
    assert remote.generate_until([generate], disable_tqdm=True) == [wanted_text]
    chat = api_models.LocalChatCompletion(base_url=f"{address}/v1/chat/completions", model="any")
    prompt = chat.apply_chat_template([{"role": "user", "content": "Why?"}])
    asked = Instance(request_type="generate_until", doc={}, arguments=(prompt, arguments[1]), idx=0)
    body = {"messages": [{"role": "user", "content": "Why?"}], "max_tokens": 8, "temperature": 0}
    direct = httpx.post(f"{address}/v1/chat/completions", json=body).json()["choices"][0]["message"]["content"]
    assert chat.generate_until([asked], disable_tqdm=True) == [direct]


_FARM = """
name: {kind}
kind: {kind}
summary: what animals give
split: test
fields: {{animal: string, gives: string, other: string}}
context: "The {{{{ animal }}}} gives "
primary_metric: {metric}
texts: "[animal]"
{answer}
"""
_ANSWERS = {  # 8 tokens: later, the model prefers rows of its embedding that are no tokens, which the server leaves out
    "choices": ("acc_raw", "choices: '[gives, other]'\nlabel: 0"),
    "generation": ("exact_match", "references: '[gives]'\nmetrics: [exact_match]\nstop: [q]\nmax_tokens: 8"),
}


def test_catwalk_scores_and_generates_as_with_the_model_itself(address, model_dir, tmp_path):
    program = Path(sys.executable).with_name("catwalk")
    if not program.is_file():
        pytest.skip("catwalk-eval is not installed")
    rows = [{"animal": animal, "gives": "eggs", "other": "a list of wool"} for animal in ("hen", "blue cow", "sheep")]
    for kind, (metric, answer) in _ANSWERS.items():
        (tmp_path / f"{kind}.yaml").write_text(_FARM.format(kind=kind, metric=metric, answer=answer))
        (tmp_path / kind).mkdir()
        with gzip.open(tmp_path / kind / "test.jsonl.gz", "wt") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    with gzip.open(tmp_path / "documents.jsonl.gz", "wt") as file:
        for text in ("What is a list? A sequence of items.", "Because it is so. " * 30):
            file.write(json.dumps({"id": text[:8], "text": text, "source": "made"}) + "\n")
    remote = f"remote={address}/v1,model={model_dir.name},tokenizer={model_dir}"
    arguments = ["run", "--models", f"own={model_dir}", remote, "--tasks", "choices.yaml", "generation.yaml"]
    arguments += ["--data", ".", "--documents", "documents.jsonl.gz", "--max-length-tokens", "100"]
    command = [program, *arguments, "--device", "cpu", "--output-dir", "runs"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr

    def read(model, name):
        with gzip.open(tmp_path / "runs" / model / name, "rt") as file:
            return [json.loads(line) for line in file]

    own, found = (read(model, "predictions.jsonl.gz") for model in ("own", "remote"))
    sums = [[choice["sum_logprob"] for row in rows for choice in row.get("choices", [])] for rows in (own, found)]
    assert sums[1] == pytest.approx(sums[0], abs=1e-4)
    texts = [[row["generation"] for row in rows if "generation" in row] for rows in (own, found)]
    assert texts[1] == texts[0]
    assert len(sums[0]) == 6
    assert any(texts[0])
    own, found = (read(model, "perplexity.jsonl.gz") for model in ("own", "remote"))
    assert [row["tokens"] for row in found] == [row["tokens"] for row in own]
    assert max(row["tokens"] for row in own) > 100
    assert [row["nll_nats"] for row in found] == pytest.approx([row["nll_nats"] for row in own], abs=1e-3)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ("{", 400, "not JSON"),
        ("[" * 9000, 400, "not JSON"),
        ("[]", 400, "expected an object"),
        ({"prompt": ""}, 400, "no tokens"),
        ({"prompt": []}, 400, "expected a text"),
        ({"prompt": [10**9]}, 400, "not from 0 to 319"),
        ({"prompt": [-1]}, 400, "not from 0 to 319"),
        ({"prompt": "a", "max_tokens": 121}, 400, "at most 120"),
        ({"prompt": "a" * 300, "max_tokens": 1}, 400, "at most 256 together"),
        ({"prompt": "a", "temperature": "hot"}, 400, "temperature: is 'hot'"),
        ({"prompt": "a", "logprobs": True}, 400, "logprobs"),
        ({"prompt": "a", "logit_bias": {"5": 1}}, 400, "does not support"),
        ({"prompt": "a", "tempreature": 1}, 400, "unknown field"),
        ({"prompt": "a", "n": 100}, 429, "try again"),
        ({"prompt": "x" * 30000}, 413, "larger than 20000 bytes"),
    ],
)
def test_wrong_request_is_refused_with_its_reason(address, body, status, words):
    data = body if isinstance(body, str) else json.dumps(body)
    answer = httpx.post(f"{address}/v1/completions", content=data, headers={"Content-Type": "application/json"})
    assert (answer.status_code, words in answer.json()["error"]["message"]) == (status, True), answer.text
    assert ("retry-after" in answer.headers) == (status == 429)


def test_other_wrong_requests(address):
    post = f"{address}/v1/chat/completions"
    refused = [
        httpx.post(post, json={"messages": [{"role": "tool", "content": "x"}]}),
        httpx.post(post, json={"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}),
        httpx.post(post, json={"messages": [{"role": "user", "content": "x"}], "top_logprobs": 2}),
        httpx.post(post, content="{}", headers={"Content-Type": "text/plain"}),
        httpx.get(f"{address}/v1/models", headers={"Host": "evil.example"}),
        httpx.get(f"{address}/nowhere"),
        httpx.get(post),
        httpx.post(f"{address}/feedback", json={}),
    ]
    assert [answer.status_code for answer in refused] == [400, 400, 400, 415, 403, 404, 405, 404]
    assert all(answer.json()["error"]["message"] for answer in refused)


def test_body_without_a_length_is_limited_too(address):
    def parts():
        for _ in range(50):
            yield b" " * 1000

    answer = httpx.post(f"{address}/v1/completions", content=parts(), headers={"Content-Type": "application/json"})
    assert answer.status_code == 413


def test_fifty_clients_at_once_get_the_answer_or_a_clear_refusal(address, plain):
    async def ask(client, index):
        body = {"prompt": "Why", "max_tokens": 30, "temperature": 0, "stream": index % 2 == 0, "ignore_eos": True}
        return await client.post(f"{address}/v1/completions", json=body)

    async def all_at_once():
        async with httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=None)) as client:
            return await asyncio.gather(*(ask(client, index) for index in range(50)))

    answers = asyncio.run(all_at_once())
    kinds = {200: 0, 429: 0}
    texts = set()
    for answer in answers:
        kinds[answer.status_code] += 1  # any other status is a failure
        if answer.status_code == 429:
            assert int(answer.headers["retry-after"]) > 0
        elif answer.headers["content-type"].startswith("text/event-stream"):
            lines = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
            assert lines[-1] == "[DONE]"
            texts.add("".join(json.loads(line)["choices"][0]["text"] for line in lines[:-1]))
        else:
            texts.add(answer.json()["choices"][0]["text"])
    assert len(texts) == 1
    assert min(kinds.values()) > 0  # 16 places


def test_dropped_connection_stops_the_generation(model_dir):
    with hosted(model_dir, batch=2) as address:
        host, port = address.removeprefix("http://").split(":")
        for stream in (True, False):
            body = {"prompt": "Why", "max_tokens": 250, "n": 60, "stream": stream, "ignore_eos": True}
            body = json.dumps(body | {"temperature": 0}).encode()
            with socket.create_connection((host, int(port))) as connection:
                head = f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
                connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
                _wait(lambda: httpx.get(f"{address}/health").json()["running"] == 2)
            began = time.monotonic()
            _wait(lambda: httpx.get(f"{address}/health").json()["running"] == 0)
            assert time.monotonic() - began < 3  # all of it takes much longer


def _wait(is_true):
    for _ in range(600):
        if is_true():
            return
        time.sleep(0.02)
    raise AssertionError("it did not happen")


def test_clients_take_turns():
    queue = FairQueue(6)
    queue.put("greedy", [1, 2, 3, 4])
    queue.put("modest", [5])
    with pytest.raises(QueueFull):
        queue.put("late", [6, 7])
    queue.put("late", [6])
    assert [queue.take() for _ in range(6)] == [1, 5, 6, 2, 3, 4]
    assert len(queue) == 0


def test_missing_or_wrong_token_is_refused(model_dir):
    with hosted(model_dir, tokens=["first-token-0123456789", "second-token-0123456789"]) as address:
        assert httpx.get(f"{address}/").status_code == 200  # the page asks for it
        missing = httpx.get(f"{address}/v1/models")
        assert (missing.status_code, missing.headers["www-authenticate"]) == (401, "Bearer")
        assert missing.json()["error"]["code"] == "invalid_api_key"
        wrong = openai.OpenAI(base_url=f"{address}/v1", api_key="wrong", max_retries=0)
        with wrong, pytest.raises(openai.AuthenticationError):
            wrong.models.list()
        with openai.OpenAI(base_url=f"{address}/v1", api_key="second-token-0123456789") as right:
            assert [model.id for model in right.models.list()] == [model_dir.name]


def test_command_makes_a_token_beyond_this_machine_and_finishes_running_answers(model_dir):
    with ThreadPoolExecutor(1) as pool:
        with served(model_dir, "--host", "0.0.0.0") as (address, said):
            address = address.replace("0.0.0.0", "127.0.0.1")
            assert httpx.get(f"{address}/v1/models").status_code == 401
            headers = {"Authorization": f"Bearer {said.split('token: ')[1].split()[0]}"}
            body = {"prompt": "Why", "max_tokens": 200, "ignore_eos": True}
            answer = pool.submit(httpx.post, f"{address}/v1/completions", json=body, headers=headers, timeout=60)
            _wait(lambda: httpx.get(f"{address}/health").json()["running"] == 1 or answer.done())
        assert answer.result().json()["usage"]["completion_tokens"] == 200


def test_wrong_options_are_refused(model_dir, tmp_path, capsys):
    (tmp_path / "short").write_text("abc\n")
    for options in (["--batch", "0"], ["--port", "99999"], ["--token-file", str(tmp_path / "short")]):
        assert main(["serve", str(model_dir), *options]) == 2
        assert options[0] in capsys.readouterr().err
