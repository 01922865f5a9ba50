"""A small server of OpenAI's completions API over a transformers model, in a thread of the test."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
import transformers


@dataclass(kw_only=True)
class Server:
    """What the server does and has seen. `refusals` are answered first; `change` edits every answer."""

    address: str = ""
    refusals: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    change: Callable[[dict[str, Any]], Any] = lambda answer: answer
    takes_ids: bool = True
    takes_zero: bool = True
    special: str = ""
    """A token that the server puts before every text."""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: set[str | None] = field(default_factory=set)
    active: int = 0
    most_active: int = 0


class _Model:
    def __init__(self, directory: Path) -> None:
        self.model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
        self.lock = threading.Lock()

    def answer(self, body: dict[str, Any], special: str) -> dict[str, Any]:
        """The only choice of a completion."""
        prompt = body["prompt"]
        ids = prompt if isinstance(prompt, list) else self.tokenizer.encode(special + prompt, add_special_tokens=False)
        with self.lock, torch.inference_mode():
            new = self._greedy(ids, body["max_tokens"])
            rows = self.model(torch.tensor([ids + new])).logits[0].log_softmax(-1)
        text = self.tokenizer.decode(new, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        cuts = [text.find(stop) for stop in body.get("stop", []) if stop in text]
        text = text[: min(cuts)] if cuts else text
        choice: dict[str, Any] = {"index": 0, "text": text, "logprobs": None, "finish_reason": "length"}
        if body.get("echo"):
            choice["text"] = (prompt if isinstance(prompt, str) else self.tokenizer.decode(ids)) + text
        if body.get("logprobs") is not None:
            shown = ids + new if body.get("echo") else new
            tokens = [self.tokenizer.decode([id]) for id in shown]
            logprobs = [None, *(float(rows[place, id]) for place, id in enumerate(shown[1:]))]
            likely = [rows[place].max(-1) for place in range(len(shown) - 1)]
            named = [{self.tokenizer.decode([int(best.indices)]): float(best.values)} for best in likely]
            top = [None, *(one | {tokens[place]: logprobs[place]} for place, one in enumerate(named, start=1))]
            offsets = [sum(map(len, tokens[:place])) for place in range(len(tokens))]
            choice["logprobs"] = {"tokens": tokens, "token_logprobs": logprobs, "top_logprobs": top}
            choice["logprobs"]["text_offset"] = offsets
        return choice

    def _greedy(self, ids: list[int], count: int) -> list[int]:
        new: list[int] = []
        while len(new) < count:
            best = int(self.model(torch.tensor([ids + new])).logits[0, -1].argmax())
            new.append(best)
            if best == self.tokenizer.eos_token_id:
                break
        return new


@contextmanager
def serve(directory: Path) -> Iterator[Server]:
    """Serve a checkpoint at a free port."""
    model, state = _Model(directory), Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            state.bodies.append(body)
            state.keys.add(self.headers.get("Authorization"))
            state.active += 1
            state.most_active = max(state.most_active, state.active)
            try:
                self._answer(body)
            finally:
                state.active -= 1

        def _answer(self, body: dict[str, Any]) -> None:
            if self.path != "/v1/completions" or body["model"] != "tiny":
                return self._send(404, {"error": {"message": "no such model"}})
            if state.refusals:
                status, headers = state.refusals.pop(0)
                return self._send(status, {"error": {"message": "go away"}}, headers)
            if not state.takes_ids and isinstance(body["prompt"], list):
                return self._send(400, {"error": {"message": "prompt must be a string"}})
            if not state.takes_zero and body["max_tokens"] == 0:
                return self._send(400, {"error": {"message": "max_tokens must be at least 1"}})
            answer = {"object": "text_completion", "choices": [model.answer(body, state.special)]}
            return self._send(200, state.change(answer))

        def _send(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
            data = json.dumps(value).encode()
            self.send_response(status)
            for name, text in {**(headers or {}), "Content-Length": str(len(data))}.items():
                self.send_header(name, text)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *arguments: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        state.address = f"http://127.0.0.1:{server.server_port}/v1"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield state
        finally:
            server.shutdown()
            thread.join()
