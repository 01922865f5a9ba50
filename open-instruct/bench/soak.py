"""Load on `open-instruct serve` for a while: answers, refusals, lost requests and memory; writes bench/soak.md.

Each client asks without a pause, in turn: a whole answer, a stream, scores of a prompt, a stream that it leaves after a
few tokens, and a request that is wrong. Every answer is compared with the first one to the same request.
"""

import argparse
import asyncio
import json
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import psutil
from model import make_model

HERE = Path(__file__).parent
KINDS = ("whole", "stream", "scores", "left early", "wrong")
PROMPTS = ["Why?", "What is a list?", "Name a colour. " * 8, "Say three words. " * 16]


def request(kind: str, number: int) -> tuple[str, dict[str, Any]]:
    """Return the path and the body of a request."""
    text = PROMPTS[number % len(PROMPTS)]
    if kind == "scores":
        return "/v1/completions", {"prompt": text, "max_tokens": 1, "echo": True, "logprobs": 1, "temperature": 0}
    if kind == "wrong":
        return "/v1/completions", {"prompt": text, "max_tokens": -1}
    body = {"messages": [{"role": "user", "content": text}], "max_tokens": 32, "seed": number % len(PROMPTS)}
    return "/v1/chat/completions", body | {"stream": kind != "whole", "ignore_eos": True}


async def ask(client: httpx.AsyncClient, kind: str, number: int) -> str | None:
    """Send one request; return its answer, None if it was refused for now."""
    path, body = request(kind, number)
    async with client.stream("POST", path, json=body) as answer:
        if answer.status_code in (429, 503):
            assert int(answer.headers["retry-after"]) > 0
            return None
        if kind == "wrong":
            assert answer.status_code == 400, answer.status_code
            return "refused"
        assert answer.status_code == 200, (answer.status_code, await answer.aread())
        if kind in ("whole", "scores"):
            choice = json.loads(await answer.aread())["choices"][0]
            scores = (choice["logprobs"] or {}).get("token_logprobs")
            return json.dumps([round(score, 3) for score in scores[1:]] if scores else choice["message"]["content"])
        pieces = []
        async for line in answer.aiter_lines():
            if line == "data: [DONE]":
                return json.dumps("".join(pieces))
            if line.startswith("data: "):
                event = json.loads(line[6:])
                assert "error" not in event, event
                pieces.append(event["choices"][0]["delta"].get("content", ""))
                if kind == "left early" and len(pieces) > 4:
                    return "left"
    raise AssertionError("the stream ended without [DONE]")


async def load(address: str, clients: int, seconds: float, server: psutil.Process) -> dict[str, Any]:
    """Ask until the time is over; return the counts and the server's memory over time."""
    counts: Counter[str] = Counter()
    failures: Counter[str] = Counter()
    first: dict[tuple[str, int], str] = {}
    memory: list[tuple[float, float]] = []
    began = time.monotonic()

    async def one(client: httpx.AsyncClient, index: int) -> None:
        for number in range(index, 10**9, clients):
            if time.monotonic() - began > seconds:
                return
            kind = KINDS[number % len(KINDS)]
            try:
                answer = await ask(client, kind, number)
                counts["refused for now" if answer is None else kind] += 1
                if answer is None:
                    await asyncio.sleep(0.1)
                elif first.setdefault((kind, number % len(PROMPTS)), answer) != answer:
                    failures["another answer"] += 1
            except (httpx.HTTPError, AssertionError, KeyError, ValueError) as error:
                failures[f"{type(error).__name__}: {error}"[:80]] += 1

    async def watch() -> None:
        while True:
            memory.append((time.monotonic() - began, server.memory_info().rss / 2**20))
            await asyncio.sleep(5)

    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=address, timeout=120, limits=limits, trust_env=False) as client:
        watching = asyncio.create_task(watch())
        await asyncio.gather(*(one(client, index) for index in range(clients)))
        watching.cancel()
        health = (await client.get("/health")).json()
    return {"seconds": time.monotonic() - began, "counts": counts, "failures": failures, "memory": memory} | health


def report(found: dict[str, Any], clients: int) -> str:
    """Return the figures as Markdown."""
    memory, seconds = found["memory"], found["seconds"]
    settled = [mib for at, mib in memory if at > seconds / 4] or [memory[-1][1]]
    lines = ["# Soak test of `open-instruct serve`", "", f"{clients} clients for {seconds / 60:.1f} minutes.", ""]
    lines += ["| requests | number |", "|---|---|"]
    lines += [f"| {kind} | {found['counts'][kind]:,} |" for kind in (*KINDS, "refused for now")]
    lines += [f"| all | {sum(found['counts'].values()):,} |", f"| failures | {sum(found['failures'].values())} |"]
    lines += [f"| failure: {text} | {number} |" for text, number in found["failures"].items()]
    lines += ["", f"Left in the server at the end: {found['running']} running, {found['waiting']} waiting."]
    lines += [
        f"Memory: {memory[0][1]:.0f} MiB at the start; after a quarter of the time {settled[0]:.0f} MiB, "
        f"at most {max(settled):.0f} MiB, at the end {settled[-1]:.0f} MiB."
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Start the server, load it, report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--clients", type=int, default=24)
    parser.add_argument("--work", type=Path, default=HERE / "work")
    options = parser.parse_args()
    command = [sys.executable, "-m", "open_instruct", "serve", str(make_model(options.work)), "--port", "0"]
    command += ["--device", "cpu", "--num-threads", "1", "--batch", "8", "--waiting", "12"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        address = next(match[1] for line in process.stderr if (match := re.search(r" at (http://\S+)", line)))
        try:
            found = asyncio.run(load(address, options.clients, options.minutes * 60, psutil.Process(process.pid)))
        finally:
            process.send_signal(signal.SIGTERM)
    text = report(found, options.clients)
    (HERE / "soak.md").write_text(text, encoding="utf-8")
    sys.stdout.write(text)
    if found["failures"] or process.returncode != 0:
        sys.exit(1)


if __name__ == "__main__":
    main()
