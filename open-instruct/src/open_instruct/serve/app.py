"""The web server: routes of OpenAI's API, the chat page and its feedback."""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from .access import Access
from .answers import ChatShape, CompletionShape, error_body, usage
from .feedback import Feedback
from .generation import RETRY_AFTER_S, Generation, Generator
from .page import page_response
from .requests import Refused, read_chat, read_completion

__all__ = ["make_app"]

log = logging.getLogger(__name__)
_DISCARDED_BODIES = 16  # a body too large is read up to this many times the limit, so that its client gets the answer
_BODY_S = 30.0
_CLOSED = 499  # nobody reads this answer: the client has left
Shape = ChatShape | CompletionShape
Endpoint = Callable[["_Server", Request, str], Awaitable[Response]]


def make_app(name: str, generator: Generator, access: Access, feedback: Feedback | None) -> Starlette:
    """Return the application, which serves the model as `name`."""
    server = _Server(name, generator, access, feedback)

    def route(path: str, method: str, endpoint: Endpoint) -> Route:
        async def guarded(request: Request) -> Response:
            try:
                return await endpoint(server, request, access.client(request))
            except Refused as refused:
                return _refusal(refused)
            except ClientDisconnect:
                return Response(status_code=_CLOSED)

        return Route(path, guarded, methods=[method])

    async def page(request: Request) -> Response:
        return page_response()

    async def health(request: Request) -> Response:
        running, waiting = generator.engine.load
        body = {"status": "ok" if generator.engine.alive else "ended", "running": running, "waiting": waiting}
        return JSONResponse(body, status_code=200 if generator.engine.alive else 503)

    async def missing(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # it is registered for this class
        return _refusal(Refused(f"{request.method} {request.url.path}: {error.detail}", status=error.status_code))

    routes = [
        Route("/", page, methods=["GET"]),
        Route("/health", health, methods=["GET"]),
        route("/v1/models", "GET", _Server.models),
        route("/v1/chat/completions", "POST", _Server.chat),
        route("/v1/completions", "POST", _Server.completions),
        route("/page.json", "GET", _Server.page_settings),
        route("/feedback", "POST", _Server.give_feedback),
    ]
    return Starlette(routes=routes, exception_handlers={HTTPException: missing})


def _refusal(refused: Refused) -> Response:
    headers = {401: {"WWW-Authenticate": "Bearer"}, 429: {"Retry-After": str(RETRY_AFTER_S)}}
    headers[503] = headers[429]
    return JSONResponse(error_body(refused), status_code=refused.status, headers=headers.get(refused.status))


class _Server:
    def __init__(self, name: str, generator: Generator, access: Access, feedback: Feedback | None) -> None:
        self._name, self._generator, self._access, self._feedback = name, generator, access, feedback
        self._created = int(time.time())

    async def models(self, request: Request, client: str) -> Response:
        one = {"id": self._name, "object": "model", "created": self._created, "owned_by": "open-instruct"}
        return JSONResponse({"object": "list", "data": [one]})

    async def chat(self, request: Request, client: str) -> Response:
        asked = read_chat(await self._body(request))
        shape = ChatShape(self._name, self._generator.tokenizer)
        prompt = self._generator.encode_chat(asked.messages)
        generation = self._generator.start(client, [prompt], asked.sampling)
        scored = asked.sampling.top_logprobs is not None
        if asked.sampling.stream:
            return self._stream(
                _chat_chunks(generation, shape, scored), generation, shape, asked.sampling.include_usage
            )
        await self._finish(request, generation)
        choices = [
            shape.choice(index, one.text.text, one.reason or "", shape.logprobs(one.tokens) if scored else None)
            for index, one in enumerate(generation.choices)
        ]
        return self._whole(shape, choices, generation)

    async def completions(self, request: Request, client: str) -> Response:
        asked = read_completion(await self._body(request))
        shape = CompletionShape(self._name, self._generator.tokenizer)
        prompts = self._generator.encode_prompts(asked)
        scored = asked.sampling.top_logprobs is not None
        generation = self._generator.start(client, prompts, asked.sampling, score_prompt=asked.echo and scored)
        texts = [
            self._echoed(prompt) if asked.echo else ""
            for prompt in asked.prompts
            for _ in range(asked.sampling.choices)
        ]
        if asked.sampling.stream:
            chunks = _completion_chunks(generation, shape, texts, scored)
            return self._stream(chunks, generation, shape, asked.sampling.include_usage)
        await self._finish(request, generation)
        choices = []
        for index, (text, one) in enumerate(zip(texts, generation.choices, strict=True)):
            logprobs = shape.logprobs([*one.prompt_tokens, *one.tokens], index) if scored else None
            choices.append(shape.choice(index, text + one.text.text, one.reason, logprobs))
        return self._whole(shape, choices, generation)

    async def page_settings(self, request: Request, client: str) -> Response:
        settings = {"model": self._name, "max_tokens": self._generator.usual_tokens, "feedback": None}
        if self._feedback is not None:
            settings["feedback"] = {"consent": self._feedback.consent, "version": self._feedback.version}
        return JSONResponse(settings)

    async def give_feedback(self, request: Request, client: str) -> Response:
        body = await self._body(request)
        if self._feedback is None:
            raise Refused("feedback: is off; start the server with --feedback", status=404, code="feedback_off")
        return JSONResponse(await asyncio.to_thread(self._feedback.add, body))

    # ---- what requests have in common

    def _echoed(self, prompt: str | list[int]) -> str:
        return prompt if isinstance(prompt, str) else self._generator.tokenizer.decode(prompt)

    async def _body(self, request: Request) -> Any:
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            # also keeps other web pages out: a browser asks before it sends this type to another site
            raise Refused("Content-Type: expected application/json", status=415, code="wrong_content_type")
        limit, size, parts = self._generator.limits.body_bytes, 0, []
        try:
            async with asyncio.timeout(_BODY_S):
                async for part in request.stream():
                    size += len(part)
                    if size > limit * _DISCARDED_BODIES:
                        break
                    if size <= limit:
                        parts.append(part)
        except TimeoutError:
            raise Refused(f"the body did not arrive within {_BODY_S:.0f} s", status=408, code="timeout") from None
        if size > limit:
            raise Refused(f"the body is larger than {limit} bytes", status=413, code="body_too_large")
        try:
            return json.loads(b"".join(parts))
        except (ValueError, RecursionError) as error:
            raise Refused(f"the body is not JSON ({error})", code="invalid_json") from None

    async def _finish(self, request: Request, generation: Generation) -> None:
        """Generate to the end; stop if the client leaves."""

        async def left() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass

        async def generate() -> None:
            async for _ in generation.pieces():
                pass

        tasks = [asyncio.ensure_future(generate()), asyncio.ensure_future(left())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if not tasks[0].done():
                raise ClientDisconnect
            await tasks[0]
        finally:
            generation.cancel()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _whole(self, shape: Shape, choices: list[dict[str, Any]], generation: Generation) -> Response:
        counts = usage(generation.prompt_tokens, generation.completion_tokens)
        return JSONResponse(shape.envelope(choices) | {"usage": counts})

    def _stream(
        self, chunks: AsyncIterator[dict[str, Any]], generation: Generation, shape: Shape, include_usage: bool
    ) -> Response:
        async def lines() -> AsyncIterator[bytes]:
            try:
                async for choice in chunks:
                    yield _event(shape.envelope([choice], streaming=True))
                if include_usage:
                    counts = usage(generation.prompt_tokens, generation.completion_tokens)
                    yield _event(shape.envelope([], streaming=True) | {"usage": counts})
                yield b"data: [DONE]\n\n"
            except Refused as refused:  # the status was sent long ago
                yield _event(error_body(refused))
            finally:
                generation.cancel()  # also if the client left: then this generator is closed

        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(lines(), media_type="text/event-stream", headers=headers)


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"


async def _chat_chunks(generation: Generation, shape: ChatShape, scored: bool) -> AsyncIterator[dict[str, Any]]:
    for index in range(len(generation.choices)):
        yield shape.delta(index, None, None, None)
    async for piece in generation.pieces():
        if piece.text or piece.reason or (scored and piece.tokens):
            logprobs = shape.logprobs(piece.tokens) if scored else None
            yield shape.delta(piece.index, piece.text, piece.reason, logprobs)


async def _completion_chunks(
    generation: Generation, shape: CompletionShape, texts: list[str], scored: bool
) -> AsyncIterator[dict[str, Any]]:
    begun = set[int]()
    async for piece in generation.pieces():
        index, text, tokens = piece.index, piece.text, list(piece.tokens)
        prompt_tokens = generation.choices[index].prompt_tokens
        if index not in begun:
            begun.add(index)
            text, tokens = texts[index] + text, [*prompt_tokens, *tokens]
        if text or piece.reason or (scored and tokens):
            yield shape.choice(index, text, piece.reason, shape.logprobs(tokens, index) if scored else None)
