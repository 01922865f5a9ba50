"""Requests to a completions API: the key, several at once, and second attempts where the server is only busy."""

import email.utils
import logging
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import httpx

from catwalk.formats.contract import ConfigError, WorkError, first_line

__all__ = ["KEY_VARIABLE", "CompletionsAPI", "RefusedRequest"]

T = TypeVar("T")

log = logging.getLogger(__name__)

KEY_VARIABLE = "OPENAI_API_KEY"
_BUSY = {408, 409, 425, 429, 500, 502, 503, 504}  # another attempt may succeed
_ATTEMPTS = 6
_LONGEST_WAIT_S = 60.0
_TIMEOUT = httpx.Timeout(600.0, connect=10.0)  # a long text may wait behind those of other users


class RefusedRequest(WorkError):
    """The server refused a request for its content; the message is its own."""


class CompletionsAPI:
    """The route `/completions` below `address`, for one model. The key is read for each call, and never kept."""

    def __init__(self, address: str, model: str, concurrency: int) -> None:
        self.address = address
        self.model = model
        self._concurrency = concurrency

    def choices(
        self, bodies: Sequence[dict[str, Any]], use: Callable[[int, dict[str, Any]], T], *, attempts: int = _ATTEMPTS
    ) -> list[T]:
        """What `use` makes of each request's index and the only choice of its answer; in order, in this thread.

        Several requests are under way at a time. `model` is added to the bodies. After an error, of `use` too, no
        further request is sent.

        Raises:
            ConfigError: there is no such server or model, or the key is wrong.
            RefusedRequest: the server refuses a request. WorkError: it gives no usable answer.
        """
        key = os.environ.get(KEY_VARIABLE)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        limits = httpx.Limits(max_connections=self._concurrency)
        with (
            httpx.Client(headers=headers, timeout=_TIMEOUT, limits=limits) as client,
            ThreadPoolExecutor(self._concurrency) as pool,
        ):
            waiting = [pool.submit(self._choice, client, body, attempts) for body in bodies]
            try:
                return [use(index, one.result()) for index, one in enumerate(waiting)]
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _choice(self, client: httpx.Client, body: dict[str, Any], attempts: int) -> dict[str, Any]:
        response = self._response(client, {"model": self.model, **body}, attempts)
        status = response.status_code
        if status in (401, 403):
            have = f"the key in {KEY_VARIABLE}" if os.environ.get(KEY_VARIABLE) else "a request without a key"
            problem = f"model: {self.address} refuses {have} ({status}: {_message(response)})"
            raise ConfigError(problem, hint=f"set the environment variable {KEY_VARIABLE}")
        if status == 404:
            problem = f'model: {self.address} has no completions of "{self.model}" ({_message(response)})'
            raise ConfigError(problem, hint="expected http(s)://HOST/v1,model=NAME")
        if 400 <= status < 500 and status not in _BUSY:
            raise RefusedRequest(f"{self.address}: refuses the request ({status}: {_message(response)})")
        if status != 200:
            raise WorkError(f"{self.address}: answers with status {status} ({_message(response)}); expected 200")
        try:
            (choice,) = response.json()["choices"]
            choice["text"].strip()
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            problem = f"{self.address}: the answer is not that of a completions API ({response.text[:80]!r})"
            raise WorkError(problem, hint="expected JSON with one of choices, which has a text") from error
        found: dict[str, Any] = choice
        return found

    def _response(self, client: httpx.Client, body: dict[str, Any], attempts: int) -> httpx.Response:
        for attempt in range(1, attempts + 1):
            wait_s = min(2.0 ** (attempt - 1), _LONGEST_WAIT_S)
            try:
                response = client.post(f"{self.address}/completions", json=body)
            except httpx.InvalidURL as error:
                raise ConfigError(f"model: {self.address} is not an address ({error})") from error
            except httpx.TransportError as error:
                reason = f"{type(error).__name__}: {first_line(error)}" if str(error) else type(error).__name__
                if attempt == attempts:
                    problem = f"{self.address}: no answer after {attempts} attempts ({reason})"
                    raise WorkError(problem, hint="check that the server runs and can be reached") from error
            else:
                if response.status_code not in _BUSY or attempt == attempts:
                    return response
                reason = f"status {response.status_code}"
                wait_s = _retry_after_s(response, wait_s)
            log.warning("%s: %s; attempt %d of %d in %.0f s", self.address, reason, attempt + 1, attempts, wait_s)
            time.sleep(wait_s)
        raise AssertionError("the last attempt returns or raises")


def _retry_after_s(response: httpx.Response, usual_s: float) -> float:
    """What the header Retry-After asks for, in seconds or as a date, up to the longest wait."""
    value = response.headers.get("Retry-After", "")
    try:
        wanted = float(value)
    except ValueError:
        try:
            wanted = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return usual_s
    return min(max(wanted, 0.0), _LONGEST_WAIT_S) if wanted == wanted else usual_s


def _message(response: httpx.Response) -> str:
    """The server's own words."""
    try:
        error = response.json()["error"]
        text = error["message"] if isinstance(error, dict) else error
    except (ValueError, KeyError, TypeError):
        text = response.text
    return " ".join(str(text).split())[:200] or "no reason given"
